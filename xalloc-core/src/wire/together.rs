//! Records that stand for several events at once.
//!
//! What a program frees beyond its thread's cache is put away by the arena in at most a merge and a way into a bin, and
//! both follow from the block and from very little else; a request that finds a bin of its size moves the bin's chunks to
//! the cache one by one. On interpreters such steps were half of all records. One record for a free with its steps, and
//! one for three chunks, cost a store and a time stamp where two to three were made, and nothing is left out: a reader
//! takes them [apart](Stamped::apart) again, into the very events that they were.

use super::{BinKind, Event, HeapEvent, Merged, Stamped};
use crate::units::{Addr, CHUNK_HEADER_BYTES, StackId};

/// Sizes below this one fit a record two at a time.
const SIZE_LIMIT: u64 = 1 << 36;

/// What an arena did with a chunk that was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PutAway {
    /// Bytes of the chunk.
    pub freed_bytes: u64,
    /// Bytes of what it became; the same if it was not merged.
    pub total_bytes: u64,
    /// With which neighbours it was merged.
    pub merged: Merged,
    /// The bin that the result went to, a fast, small or the unsorted one. `None`: the top took it, or it is not known yet.
    pub bin: Option<BinKind>,
}

impl PutAway {
    /// The way of a chunk of `size_bytes` into its fast bin.
    #[must_use]
    #[inline(always)]
    pub const fn into_fast_bin(size_bytes: u64) -> PutAway {
        let merged = Merged { previous: false, next: false, top: false };
        PutAway { freed_bytes: size_bytes, total_bytes: size_bytes, merged, bin: Some(BinKind::Fast) }
    }

    /// What `step` says of the chunk of `block`, if it is the first step of its being put away and can be told by this.
    #[must_use]
    #[inline(always)]
    pub fn begun_by(step: &HeapEvent, block: Addr) -> Option<PutAway> {
        if let HeapEvent::Bin { addr, size_bytes, bin, index } = *step {
            let merged = Merged::default();
            let begun = PutAway { freed_bytes: size_bytes, total_bytes: size_bytes, merged, bin: Some(bin) };
            return (begun.says(addr, size_bytes, index, block) && size_bytes < SIZE_LIMIT).then_some(begun);
        }
        if let HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged } = *step {
            let begun = PutAway { freed_bytes, total_bytes, merged, bin: None };
            return (begun.addr(block) == Some(addr) && total_bytes < SIZE_LIMIT).then_some(begun);
        }
        None
    }

    /// Whether the way into a bin that this tells is that of the chunk at `addr`.
    #[inline(always)]
    fn says(&self, addr: Addr, size_bytes: u64, index: u8, block: Addr) -> bool {
        let is_told = self.bin.and_then(|bin| bin.told_with_free(size_bytes)) == Some(index);
        is_told && size_bytes == self.total_bytes && self.addr(block) == Some(addr)
    }

    /// Whether another step follows at once: what was merged, but not into the top, goes to a bin.
    #[must_use]
    #[inline(always)]
    pub fn goes_on(&self) -> bool {
        self.bin.is_none() && !self.merged.top
    }

    /// With that step, if it is `step` and can be told by this.
    #[must_use]
    #[inline(always)]
    pub fn ended_by(self, step: &HeapEvent, block: Addr) -> Option<PutAway> {
        let HeapEvent::Bin { addr, size_bytes, bin, index } = *step else { return None };
        let ended = PutAway { bin: Some(bin), ..self };
        (self.goes_on() && ended.says(addr, size_bytes, index, block)).then_some(ended)
    }

    /// Where the result is: known but where both neighbours below and above joined, for their sizes are not.
    #[inline(always)]
    fn addr(&self, block: Addr) -> Option<Addr> {
        let chunk = block.0.wrapping_sub(CHUNK_HEADER_BYTES);
        let Merged { previous, next, top } = self.merged;
        match (previous, next | top) {
            (false, _) => Some(Addr(chunk)),
            (true, false) => Some(Addr(chunk.wrapping_sub(self.total_bytes.wrapping_sub(self.freed_bytes)))),
            (true, true) => None,
        }
    }

    /// The step by which the chunk of `block` was merged.
    #[must_use]
    #[inline(always)]
    pub fn merge_step(&self, block: Addr) -> Option<HeapEvent> {
        let PutAway { freed_bytes, total_bytes, merged, .. } = *self;
        let addr = self.addr(block)?;
        (merged != Merged::default()).then_some(HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged })
    }

    /// The step by which the result went to its bin.
    #[must_use]
    #[inline(always)]
    pub fn bin_step(&self, block: Addr) -> Option<HeapEvent> {
        let (bin, size_bytes) = (self.bin?, self.total_bytes);
        let index = bin.told_with_free(size_bytes)?;
        Some(HeapEvent::Bin { addr: self.addr(block)?, size_bytes, bin, index })
    }
}

impl BinKind {
    /// The number of the bin for a freed chunk, if that can share the record of the free.
    #[inline(always)]
    fn told_with_free(self, size_bytes: u64) -> Option<u8> {
        match self {
            BinKind::Fast | BinKind::Unsorted | BinKind::Small => self.index_of(size_bytes),
            BinKind::Cache | BinKind::Large => None,
        }
    }
}

/// Chunks that a record of [`Event::CacheFill`] has room for.
pub const MOST_FILLED: usize = 3;
/// In how many bits the distance of the second and the third chunk from the first stands, in units of 16 bytes.
const DISTANCE_BITS: u32 = 24;

/// The distance of `chunk` from `first` as a record has it; 0 for a chunk that is not there.
#[inline(always)]
const fn packed_distance(first: Addr, chunk: Addr) -> u64 {
    if chunk.0 == 0 { 0 } else { (chunk.0.wrapping_sub(first.0) >> 4) & ((1 << DISTANCE_BITS) - 1) }
}

/// The inverse of [`packed_distance`].
#[inline(always)]
const fn at_distance(first: Addr, packed: u64) -> Addr {
    const UNUSED: u32 = u64::BITS - DISTANCE_BITS;
    let distance = ((packed << UNUSED) as i64 >> UNUSED) as u64;
    if distance == 0 { Addr(0) } else { Addr(first.0.wrapping_add(distance << 4) & Addr::MAX.0) }
}

/// The operand that holds the second and the third chunk, and the size of all.
#[inline(always)]
pub(super) const fn pack_fill(size_bytes: u64, [first, second, third]: [Addr; MOST_FILLED]) -> u64 {
    packed_distance(first, second) | packed_distance(first, third) << DISTANCE_BITS | size_bytes >> 4 << 48
}

/// The inverse of [`pack_fill`].
#[inline(always)]
pub(super) const fn unpack_fill(first: Addr, packed: u64) -> (u64, [Addr; MOST_FILLED]) {
    let chunks = [first, at_distance(first, packed), at_distance(first, packed >> DISTANCE_BITS)];
    (packed >> 48 << 4, chunks)
}

/// Whether a record holds these chunks of that size without loss.
#[must_use]
#[inline]
pub fn fill_fits(size_bytes: u64, chunks: [Addr; MOST_FILLED]) -> bool {
    BinKind::Cache.index_of(size_bytes).is_some()
        && unpack_fill(chunks[0], pack_fill(size_bytes, chunks)) == (size_bytes, chunks)
}

impl Stamped {
    /// The events that this one stands for, in their order; itself, if it stands for no others.
    pub fn apart(self) -> impl Iterator<Item = Stamped> {
        let Stamped { stamp, stack, event } = self;
        let same = |event| Some(Stamped { stamp, stack, event });
        let events = if let Event::FreeBinned { addr, call, arena, seq, put_away } = event {
            let free = Stamped { stamp, stack: StackId::NONE, event: Event::Free { addr, call } };
            let merge = put_away.merge_step(addr);
            let bin_seq = seq.wrapping_add(u16::from(merge.is_some()));
            let bin = put_away.bin_step(addr).and_then(|step| same(Event::Heap { arena, seq: bin_seq, step }));
            [Some(free), merge.and_then(|step| same(Event::Heap { arena, seq, step })), bin]
        } else if let Event::CacheFill { arena, seq, size_bytes, chunks } = event {
            let mut next_seq = seq;
            chunks.map(|addr| {
                let index = BinKind::Cache.index_of(size_bytes).filter(|_| addr.0 != 0)?;
                let seq = next_seq;
                next_seq = seq.wrapping_add(1);
                let step = HeapEvent::Bin { addr, size_bytes, bin: BinKind::Cache, index };
                same(Event::Heap { arena, seq, step })
            })
        } else {
            [same(event), None, None]
        };
        events.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ArenaId, Stamp};
    use crate::wire::Call;
    use proptest::prelude::*;

    const BLOCK: Addr = Addr(0x5010);

    fn events(event: Event) -> Vec<Event> {
        let stamped = Stamped { stamp: Stamp(7), stack: StackId(9), event };
        let through_the_ring = stamped.encode().decode().unwrap();
        through_the_ring.apart().map(|stamped| stamped.event).collect()
    }

    fn merged(previous: bool, next: bool, top: bool) -> Merged {
        Merged { previous, next, top }
    }

    /// The steps of a free as one record, if they can be.
    fn together(steps: &[HeapEvent]) -> Option<Event> {
        let mut put_away = PutAway::begun_by(&steps[0], BLOCK)?;
        if let Some(second) = steps.get(1) {
            put_away = put_away.ended_by(second, BLOCK)?;
        }
        Some(Event::FreeBinned { addr: BLOCK, call: Call::FreeSized, arena: ArenaId(3), seq: u16::MAX, put_away })
    }

    fn assert_comes_apart_as(steps: &[HeapEvent]) {
        let free = Event::Free { addr: BLOCK, call: Call::FreeSized };
        let seqs = [u16::MAX, 0];
        let told = steps.iter().zip(seqs).map(|(&step, seq)| Event::Heap { arena: ArenaId(3), seq, step });
        let expected: Vec<Event> = std::iter::once(free).chain(told).collect();
        assert_eq!(events(together(steps).unwrap()), expected);
    }

    #[test]
    fn a_free_with_its_steps_comes_apart_as_it_was() {
        let bin = |addr, size_bytes, bin, index| HeapEvent::Bin { addr: Addr(addr), size_bytes, bin, index };
        let merge =
            |addr, total_bytes, merged| HeapEvent::Coalesce { addr: Addr(addr), freed_bytes: 48, total_bytes, merged };
        assert_comes_apart_as(&[bin(0x5000, 48, BinKind::Fast, 1)]);
        assert_comes_apart_as(&[bin(0x5000, 2_048, BinKind::Unsorted, 1)]);
        assert_comes_apart_as(&[bin(0x5000, 480, BinKind::Small, 30)]);
        assert_comes_apart_as(&[merge(0x5000, 4_096, merged(false, false, true))]);
        assert_comes_apart_as(&[
            merge(0x5000, 112, merged(false, true, false)),
            bin(0x5000, 112, BinKind::Unsorted, 1),
        ]);
        assert_comes_apart_as(&[merge(0x4fc0, 112, merged(true, false, false)), bin(0x4fc0, 112, BinKind::Small, 7)]);
    }

    #[test]
    fn steps_that_do_not_follow_from_the_block_are_not_put_together() {
        let bin = |addr, bin, index| HeapEvent::Bin { addr: Addr(addr), size_bytes: 64, bin, index };
        let merge = |merged| HeapEvent::Coalesce { addr: Addr(0x4fc0), freed_bytes: 48, total_bytes: 112, merged };
        for steps in [
            &[bin(0x5020, BinKind::Fast, 2)][..],
            &[bin(0x5000, BinKind::Fast, 3)],
            &[bin(0x5000, BinKind::Cache, 2)],
            &[bin(0x5000, BinKind::Large, 64)],
            &[merge(merged(true, true, false))],
            &[merge(merged(true, false, true))],
            &[merge(merged(true, false, false)), bin(0x5000, BinKind::Unsorted, 1)],
            &[HeapEvent::ArenaIdle],
        ] {
            assert_eq!(together(steps), None, "{steps:?}");
        }
        let huge = HeapEvent::Bin { addr: Addr(0x5000), size_bytes: SIZE_LIMIT, bin: BinKind::Unsorted, index: 1 };
        assert_eq!(together(&[huge]), None);
    }

    proptest! {
        #[test]
        fn chunks_that_fit_a_record_come_apart_as_they_were(
            first in 1u64 << 25..1 << 44,
            distances in prop::array::uniform2(-(1i64 << 24)..1 << 24),
            size in 2u64..80,
        ) {
            let first = Addr(first << 4);
            let chunks = [first, first.up((distances[0] << 4) as u64), first.up((distances[1] << 4) as u64)];
            let fits = distances.iter().all(|&distance| distance != 0 && (-(1 << 23)..1 << 23).contains(&distance));
            let is_of_a_cache = size <= 65;
            let within = chunks.iter().all(|chunk| *chunk <= Addr::MAX);
            prop_assert_eq!(fill_fits(size * 16, chunks), fits && is_of_a_cache && within);
            if fits && is_of_a_cache && within {
                let event = Event::CacheFill { arena: ArenaId(1), seq: 5, size_bytes: size * 16, chunks };
                let expected: Vec<Event> = chunks.iter().zip(5..).map(|(&addr, seq)| {
                    let step = HeapEvent::Bin { addr, size_bytes: size * 16, bin: BinKind::Cache, index: (size - 2) as u8 };
                    Event::Heap { arena: ArenaId(1), seq, step }
                }).collect();
                prop_assert_eq!(events(event), expected);
            }
        }
    }
}
