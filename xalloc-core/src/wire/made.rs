//! An allocation, and the steps of its arena that led to it, in one record.
//!
//! Of a block that an arena serves, chunk and size say nearly all of the last step before: the chunk was cut from the top
//! or from a free one, or it was the first of its bin and what was behind it went to the thread's cache. Where that is
//! so ([`LedTo::split`], [`LedTo::filled`]), two numbers of 32 bits, or one of 11 and three of 17, say all of both.

use super::fill::{MOST_FILLED, at_distance, packed_distance, reaches};
use super::kinds::{BinKind, Call};
use super::record::SIZE_LIMIT;
use super::{Event, HeapEvent};
use crate::units::{Addr, ArenaId, CHUNK_HEADER_BYTES, chunk_bytes, slack_expected};

/// Chunks to the cache that the record of an allocation has room for.
const MOST_FILLED_BEFORE: usize = 3;
/// In how many bits the distance of each from the allocation's chunk stands, in units of 16 bytes.
const DISTANCE_BITS: u32 = 17;
/// In how many bits the size stands beside them: a cache has no request for more.
const SIZE_BITS: u32 = 11;

/// The steps that led to an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LedTo {
    /// Its chunk was cut from a free one or from the top.
    Split {
        /// Bytes that are left of what it was cut from.
        rest_bytes: u64,
        /// Whether that is the top.
        from_top: bool,
    },
    /// Chunks of its size went to the thread's cache.
    Filled {
        /// Where they are, three at most; address 0: none.
        chunks: [Addr; MOST_FILLED],
    },
}

/// Where the chunk of a block is.
#[inline(always)]
const fn chunk_of(block: Addr) -> Addr {
    Addr(block.0.wrapping_sub(CHUNK_HEADER_BYTES))
}

impl LedTo {
    /// `step`, if it cut the chunk of the block at `addr` for a request of `size_bytes` and can be told with that.
    #[must_use]
    #[inline(always)]
    pub fn split(step: &HeapEvent, addr: Addr, size_bytes: u64) -> Option<LedTo> {
        let HeapEvent::Split { addr: chunk, front_bytes, rest_bytes, from_top } = *step else { return None };
        let follows = chunk == chunk_of(addr) && front_bytes == chunk_bytes(size_bytes);
        let fits = size_bytes <= u64::from(u32::MAX) && rest_bytes < SIZE_LIMIT && rest_bytes.is_multiple_of(16);
        (follows && fits).then_some(LedTo::Split { rest_bytes, from_top })
    }

    /// The way of `chunks` of `filled_bytes` to the cache, if it can be told with a block at `addr` of a request of
    /// `size_bytes`.
    #[must_use]
    #[inline(always)]
    pub fn filled(filled_bytes: u64, chunks: [Addr; MOST_FILLED], addr: Addr, size_bytes: u64) -> Option<LedTo> {
        let [first, second, third, fourth, fifth] = chunks;
        let follows = filled_bytes == chunk_bytes(size_bytes) && BinKind::Cache.index_of(filled_bytes).is_some();
        let reaches = |chunk| reaches(chunk_of(addr), chunk, DISTANCE_BITS);
        let fits = fourth.0 | fifth.0 == 0 && reaches(first) && reaches(second) && reaches(third);
        (follows && fits).then_some(LedTo::Filled { chunks })
    }

    /// The steps, each with its number, of which `seq` is the first, and then the number of the allocation.
    fn apart(self, addr: Addr, size_bytes: u64, seq: u16) -> ([Option<(u16, HeapEvent)>; 3], u16) {
        match self {
            LedTo::Split { rest_bytes, from_top } => {
                let step = split_for(addr, size_bytes, rest_bytes, from_top);
                ([Some((seq, step)), None, None], seq.wrapping_add(1))
            }
            LedTo::Filled { chunks: [first, second, third, _, _] } => {
                let filled_bytes = chunk_bytes(size_bytes);
                let mut next = seq;
                let steps = [first, second, third].map(|addr| {
                    let index = BinKind::Cache.index_of(filled_bytes).filter(|_| addr.0 != 0)?;
                    let seq = next;
                    next = seq.wrapping_add(1);
                    Some((seq, HeapEvent::Bin { addr, size_bytes: filled_bytes, bin: BinKind::Cache, index }))
                });
                (steps, next)
            }
        }
    }
}

/// The split that made the chunk of the block at `addr`.
#[inline(always)]
pub(super) const fn split_for(addr: Addr, size_bytes: u64, rest_bytes: u64, from_top: bool) -> HeapEvent {
    HeapEvent::Split { addr: chunk_of(addr), front_bytes: chunk_bytes(size_bytes), rest_bytes, from_top }
}

/// The operand that holds the size of a request and the chunks that went to the cache for it.
#[inline(always)]
pub(super) const fn pack_filled(addr: Addr, size_bytes: u64, chunks: [Addr; MOST_FILLED]) -> u64 {
    let mut packed = size_bytes & ((1 << SIZE_BITS) - 1);
    let mut at = 0;
    while at < MOST_FILLED_BEFORE {
        let distance = packed_distance(chunk_of(addr), chunks[at], DISTANCE_BITS);
        packed |= distance << (SIZE_BITS + at as u32 * DISTANCE_BITS);
        at += 1;
    }
    packed
}

/// The inverse of [`pack_filled`].
#[inline(always)]
pub(super) const fn unpack_filled(addr: Addr, packed: u64) -> (u64, [Addr; MOST_FILLED]) {
    let mut chunks = [Addr(0); MOST_FILLED];
    let mut at = 0;
    while at < MOST_FILLED_BEFORE {
        let distance = packed >> (SIZE_BITS + at as u32 * DISTANCE_BITS);
        chunks[at] = at_distance(chunk_of(addr), distance, DISTANCE_BITS);
        at += 1;
    }
    (packed & ((1 << SIZE_BITS) - 1), chunks)
}

impl Event {
    /// The events that an allocation with its steps stands for.
    pub(super) fn steps_and_allocation(&self) -> [Option<Event>; MOST_FILLED] {
        let Event::AllocAfter { addr, size_bytes, arena, seq, call, led_to } = *self else {
            return [None; MOST_FILLED];
        };
        let (steps, arena_seq) = led_to.apart(addr, size_bytes, seq);
        let [first, second, third] = steps.map(|step| step.map(|(seq, step)| Event::Heap { arena, seq, step }));
        let alloc = allocation(addr, size_bytes, arena, arena_seq, call);
        [first, second, third, Some(alloc), None]
    }
}

fn allocation(addr: Addr, size_bytes: u64, arena: ArenaId, seq: u16, call: Call) -> Event {
    let slack_bytes = slack_expected(size_bytes);
    Event::Alloc { addr, size_bytes, slack_bytes, arena, arena_seq: Some(seq), call }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{StackId, Stamp};
    use crate::wire::Stamped;
    use proptest::prelude::*;

    const BLOCK: Addr = Addr(0x5555_0000_5010);

    /// The events of an allocation with its steps, through a record.
    fn events(size_bytes: u64, seq: u16, led_to: LedTo) -> Vec<Event> {
        let (arena, call) = (ArenaId(3), Call::Calloc);
        let event = Event::AllocAfter { addr: BLOCK, size_bytes, arena, seq, call, led_to };
        let stamped = Stamped { stamp: Stamp(7), stack: StackId(9), event };
        let through_the_ring = stamped.encode().decode().unwrap();
        assert_eq!(through_the_ring, stamped);
        through_the_ring
            .apart()
            .map(|part| {
                assert_eq!((part.stamp, part.stack), (Stamp(7), StackId(9)));
                part.event
            })
            .collect()
    }

    fn alloc(size_bytes: u64, slack_bytes: u16, seq: u16) -> Event {
        let (arena, call) = (ArenaId(3), Call::Calloc);
        Event::Alloc { addr: BLOCK, size_bytes, slack_bytes, arena, arena_seq: Some(seq), call }
    }

    fn heap(seq: u16, step: HeapEvent) -> Event {
        Event::Heap { arena: ArenaId(3), seq, step }
    }

    fn split(front_bytes: u64, rest_bytes: u64) -> HeapEvent {
        HeapEvent::Split { addr: Addr(0x5555_0000_5000), front_bytes, rest_bytes, from_top: true }
    }

    #[test]
    fn an_allocation_with_the_split_that_made_its_chunk_comes_apart_as_it_was() {
        for (size_bytes, front_bytes, slack_bytes) in
            [(0, 32, 24), (40, 48, 0), (41, 64, 15), (4 << 20, (4 << 20) + 16, 8)]
        {
            let step = split(front_bytes, 0xf_ffff_fff0);
            let led_to = LedTo::split(&step, BLOCK, size_bytes).unwrap();
            let expected = [heap(u16::MAX, step), alloc(size_bytes, slack_bytes, 0)];
            assert_eq!(events(size_bytes, u16::MAX, led_to), expected);
        }
    }

    #[test]
    fn a_split_that_does_not_follow_from_the_block_is_not_told_with_it() {
        assert!(LedTo::split(&split(48, 64), BLOCK, 40).is_some());
        assert_eq!(LedTo::split(&split(64, 64), BLOCK, 40), None);
        assert_eq!(LedTo::split(&split(48, 64), BLOCK.up(16), 40), None);
        assert_eq!(LedTo::split(&split(48, SIZE_LIMIT), BLOCK, 40), None);
        assert_eq!(LedTo::split(&split(48, 72), BLOCK, 40), None);
        assert_eq!(LedTo::split(&split(1 << 33, 64), BLOCK, (1 << 33) - 8), None);
        assert_eq!(LedTo::split(&HeapEvent::ArenaIdle, BLOCK, 40), None);
    }

    #[test]
    fn chunks_that_are_not_of_the_allocation_s_size_are_not_told_with_it() {
        let chunks = [Addr(0x5555_0000_5100), Addr(0), Addr(0), Addr(0), Addr(0)];
        assert!(LedTo::filled(48, chunks, BLOCK, 40).is_some());
        assert_eq!(LedTo::filled(64, chunks, BLOCK, 40), None);
        assert_eq!(LedTo::filled(2_048, chunks, BLOCK, 2_040), None);
    }

    proptest! {
        #[test]
        fn chunks_for_the_cache_come_apart_before_their_allocation(
            distances in prop::collection::vec(-(1i64 << 18)..1 << 18, 1..5),
            size_bytes in 0u64..=1032,
        ) {
            let mut chunks = [Addr(0); MOST_FILLED];
            for (chunk, distance) in chunks.iter_mut().zip(&distances) {
                *chunk = Addr(0x5555_0000_5000).up((distance << 4) as u64);
            }
            let fits = |distance: &i64| *distance != 0 && (-(1 << 16)..1 << 16).contains(distance);
            let all_fit = distances.len() <= MOST_FILLED_BEFORE && distances.iter().all(fits);
            let filled_bytes = chunk_bytes(size_bytes);
            let led_to = LedTo::filled(filled_bytes, chunks, BLOCK, size_bytes);
            prop_assert_eq!(led_to.is_some(), all_fit);
            if let Some(led_to) = led_to {
                let index = BinKind::Cache.index_of(filled_bytes).unwrap();
                let step = |addr| HeapEvent::Bin { addr, size_bytes: filled_bytes, bin: BinKind::Cache, index };
                let mut expected: Vec<Event> =
                    chunks.iter().zip(5..).take(distances.len()).map(|(&addr, seq)| heap(seq, step(addr))).collect();
                let slack_bytes = (filled_bytes - 8 - size_bytes) as u16;
                expected.push(alloc(size_bytes, slack_bytes, 5 + distances.len() as u16));
                prop_assert_eq!(events(size_bytes, 5, led_to), expected);
            }
        }
    }
}
