//! Chunks of one size on their way to a thread's cache, in one record.
//!
//! A request that finds a bin of its size moves the bin's chunks to the cache one by one, seven where nobody changed that
//! number. They lie near each other in a small heap: then a record holds five, else three of any distance.

use super::BinKind;
use crate::units::Addr;

/// Chunks that a record of [`super::Event::CacheFill`] has room for.
pub const MOST_FILLED: usize = 5;
/// Chunks that it has room for wherever they are.
pub const MOST_FILLED_FAR: usize = 3;
/// In how many bits the distance of a chunk from the first stands, in units of 16 bytes: of up to five chunks, and of up
/// to three.
const NEAR_BITS: u32 = 16;
const FAR_BITS: u32 = 32;
/// Beside the number of the cache's bin: that distances have [`FAR_BITS`].
const FAR: u8 = 1 << 6;

/// The distance of `chunk` from `first` as a record has it; 0 for a chunk that is not there.
#[inline(always)]
pub(super) const fn packed_distance(first: Addr, chunk: Addr, bits: u32) -> u64 {
    if chunk.0 == 0 { 0 } else { (chunk.0.wrapping_sub(first.0) >> 4) & ((1 << bits) - 1) }
}

/// The inverse of [`packed_distance`].
#[inline(always)]
pub(super) const fn at_distance(first: Addr, packed: u64, bits: u32) -> Addr {
    let unused = u64::BITS - bits;
    let distance = ((packed << unused) as i64 >> unused) as u64;
    if distance == 0 { Addr(0) } else { Addr(first.0.wrapping_add(distance << 4) & Addr::MAX.0) }
}

/// The small field and the operand that hold the size of all chunks and the places of all but the first.
#[inline(always)]
pub(super) const fn pack_fill(size_bytes: u64, chunks: [Addr; MOST_FILLED]) -> (u8, u64) {
    let [first, second, third, fourth, fifth] = chunks;
    let bin = (size_bytes >> 4).wrapping_sub(2) as u8 & (FAR - 1);
    if fourth.0 | fifth.0 == 0 {
        let far = packed_distance(first, second, FAR_BITS) | packed_distance(first, third, FAR_BITS) << FAR_BITS;
        return (bin | FAR, far);
    }
    let near = packed_distance(first, second, NEAR_BITS)
        | packed_distance(first, third, NEAR_BITS) << NEAR_BITS
        | packed_distance(first, fourth, NEAR_BITS) << (2 * NEAR_BITS)
        | packed_distance(first, fifth, NEAR_BITS) << (3 * NEAR_BITS);
    (bin, near)
}

/// The inverse of [`pack_fill`].
#[inline(always)]
pub(super) const fn unpack_fill(first: Addr, sub: u8, packed: u64) -> (u64, [Addr; MOST_FILLED]) {
    let size_bytes = ((sub & (FAR - 1)) as u64 + 2) << 4;
    if sub & FAR != 0 {
        let [second, third] = [at_distance(first, packed, FAR_BITS), at_distance(first, packed >> FAR_BITS, FAR_BITS)];
        return (size_bytes, [first, second, third, Addr(0), Addr(0)]);
    }
    let chunks = [
        first,
        at_distance(first, packed, NEAR_BITS),
        at_distance(first, packed >> NEAR_BITS, NEAR_BITS),
        at_distance(first, packed >> (2 * NEAR_BITS), NEAR_BITS),
        at_distance(first, packed >> (3 * NEAR_BITS), NEAR_BITS),
    ];
    (size_bytes, chunks)
}

/// Whether `sub` is a value that [`pack_fill`] gives.
pub(super) const fn knows_fill(sub: u8) -> bool {
    sub < FAR << 1
}

/// Whether [`packed_distance`] holds the place of `chunk` without loss, if it is there.
#[inline(always)]
pub(super) const fn reaches(first: Addr, chunk: Addr, bits: u32) -> bool {
    let distance = chunk.0.wrapping_sub(first.0);
    let is_near = distance.wrapping_add(1 << (bits + 3)) >> (bits + 4) == 0;
    chunk.0 == 0 || is_near && distance != 0 && distance & 15 == 0 && chunk.0 <= Addr::MAX.0
}

/// Whether a record holds these chunks of that size without loss.
#[must_use]
#[inline(always)]
pub fn fill_fits(size_bytes: u64, chunks: [Addr; MOST_FILLED]) -> bool {
    let [first, second, third, fourth, fifth] = chunks;
    if BinKind::Cache.index_of(size_bytes).is_none() || !size_bytes.is_multiple_of(16) || first.0 > Addr::MAX.0 {
        return false;
    }
    let bits = if fourth.0 | fifth.0 == 0 { FAR_BITS } else { NEAR_BITS };
    reaches(first, second, bits)
        && reaches(first, third, bits)
        && reaches(first, fourth, bits)
        && reaches(first, fifth, bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ArenaId, StackId, Stamp};
    use crate::wire::{Event, HeapEvent, Stamped};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_that_fit_a_record_come_apart_as_they_were(
            first in 1u64 << 33..1 << 43,
            distances in prop::collection::vec((-(1i64 << 16)..1 << 16, 0u32..18), 0..5),
            size in 2u64..80,
        ) {
            let distances: Vec<i64> = distances.iter().map(|&(distance, more)| distance << more).collect();
            let mut chunks = [Addr(first << 4), Addr(0), Addr(0), Addr(0), Addr(0)];
            for (chunk, distance) in chunks[1..].iter_mut().zip(&distances) {
                *chunk = Addr(first << 4).up((distance << 4) as u64);
            }
            let bits = if distances.len() > 2 { NEAR_BITS } else { FAR_BITS };
            let half = 1 << (bits - 1);
            let fits = distances.iter().all(|&distance| distance != 0 && (-half..half).contains(&distance));
            let is_of_a_cache = size <= 65;
            prop_assert_eq!(fill_fits(size * 16, chunks), fits && is_of_a_cache);
            if fits && is_of_a_cache {
                let event = Event::CacheFill { arena: ArenaId(1), seq: 5, size_bytes: size * 16, chunks };
                let stamped = Stamped { stamp: Stamp(7), stack: StackId(9), event };
                let told: Vec<Event> = stamped.encode().decode().unwrap().apart().map(|part| part.event).collect();
                let expected: Vec<Event> = chunks.iter().zip(5..).take(1 + distances.len()).map(|(&addr, seq)| {
                    let step = HeapEvent::Bin { addr, size_bytes: size * 16, bin: BinKind::Cache, index: (size - 2) as u8 };
                    Event::Heap { arena: ArenaId(1), seq, step }
                }).collect();
                prop_assert_eq!(told, expected);
            }
        }
    }
}
