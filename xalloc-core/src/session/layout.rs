//! Where everything lies in a segment.
//!
//! A segment is a sparse file: what is not touched takes no memory. Rings are large for the first threads and smaller
//! for the later ones, so that all of them together stay under 64 MiB. Space for a ring is reserved in the file
//! when a thread claims it, and for the stack trie step by step: a full file system then shows as an error and not as a
//! SIGBUS in the program.

use core::ops::Range;

use super::{Header, RingHeader};
use crate::intern;
use crate::wire::Record;

/// Rings of one size.
struct Class {
    rings: usize,
    records: usize,
}

/// 1 MiB never stalled in trials at full rate, 256 KiB rarely, 16 KiB always: the many-threaded pay for being many.
const CLASSES: [Class; 5] = [
    Class { rings: 16, records: (1 << 20) / size_of::<Record>() },
    Class { rings: 64, records: (256 << 10) / size_of::<Record>() },
    Class { rings: 256, records: (64 << 10) / size_of::<Record>() },
    Class { rings: 512, records: (16 << 10) / size_of::<Record>() },
    Class { rings: 2048, records: (4 << 10) / size_of::<Record>() },
];

/// Most threads that can hold a ring at once; events of further ones are counted as lost.
pub const RINGS: usize = {
    let mut sum = 0;
    let mut class = 0;
    while class < CLASSES.len() {
        sum += CLASSES[class].rings;
        class += 1;
    }
    sum
};

const fn page_up(bytes: usize) -> usize {
    bytes.next_multiple_of(4096)
}

/// Byte range of the [`Header`].
pub const HEADER: Range<usize> = 0..size_of::<Header>();
/// Byte range of the [`RingHeader`]s.
pub const RING_HEADERS: Range<usize> = HEADER.end..HEADER.end + page_up(RINGS * size_of::<RingHeader>());
/// Byte range of the stack trie's nodes.
pub const NODES: Range<usize> = RING_HEADERS.end..RING_HEADERS.end + intern::CAPACITY * size_of::<intern::Node>();
/// Byte range of the stack trie's index, its levels one after another.
pub const INDEX: Range<usize> = NODES.end..NODES.end + intern::INDEX_ENTRIES * size_of::<u32>();
/// Byte range of all rings' slots.
pub const SLOTS: Range<usize> = INDEX.end..INDEX.end + SLOT_BYTES;
/// Size of a segment.
pub const SEGMENT_BYTES: usize = SLOTS.end;

const SLOT_BYTES: usize = {
    let mut sum = 0;
    let mut class = 0;
    while class < CLASSES.len() {
        sum += CLASSES[class].rings * CLASSES[class].records * size_of::<Record>();
        class += 1;
    }
    sum
};

const _: () = assert!(SLOT_BYTES <= 64 << 20);
const _: () = assert!(HEADER.end.is_multiple_of(4096) && INDEX.end.is_multiple_of(4096));

/// Byte range of the slots of ring `ring` (below [`RINGS`]).
#[must_use]
pub const fn slots_of(ring: usize) -> Range<usize> {
    let mut start = SLOTS.start;
    let mut first = 0;
    let mut class = 0;
    while class < CLASSES.len() {
        let bytes = CLASSES[class].records * size_of::<Record>();
        if ring < first + CLASSES[class].rings {
            let at = start + (ring - first) * bytes;
            return at..at + bytes;
        }
        start += CLASSES[class].rings * bytes;
        first += CLASSES[class].rings;
        class += 1;
    }
    SLOTS.end..SLOTS.end
}

/// Number of the first ring that is smaller than ring `ring`; [`RINGS`] if none is.
#[must_use]
pub const fn first_smaller_than(ring: usize) -> usize {
    let mut first = 0;
    let mut class = 0;
    while class < CLASSES.len() && ring >= first {
        first += CLASSES[class].rings;
        class += 1;
    }
    first
}

/// Byte range of level `level` of the stack trie's index.
#[must_use]
pub const fn index_level(level: usize) -> Range<usize> {
    let mut start = INDEX.start;
    let mut at = 0;
    while at < level {
        start += intern::LEVELS[at] * size_of::<u32>();
        at += 1;
    }
    start..start + intern::LEVELS[level] * size_of::<u32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_lie_one_behind_another_and_fill_their_range() {
        let mut end = SLOTS.start;
        for ring in 0..RINGS {
            let range = slots_of(ring);
            assert_eq!(range.start, end);
            assert!((range.len() / size_of::<Record>()).is_power_of_two());
            end = range.end;
        }
        assert_eq!(end, SLOTS.end);
        assert!(slots_of(RINGS).is_empty());
    }

    #[test]
    fn the_first_smaller_ring_is_the_first_that_is_smaller() {
        for ring in 0..RINGS {
            let smaller = (ring..RINGS).find(|&other| slots_of(other).len() < slots_of(ring).len());
            assert_eq!(first_smaller_than(ring), smaller.unwrap_or(RINGS));
        }
    }

    #[test]
    fn index_levels_lie_one_behind_another_and_fill_their_range() {
        let mut end = INDEX.start;
        for level in 0..intern::LEVELS.len() {
            assert_eq!(index_level(level).start, end);
            end = index_level(level).end;
        }
        assert_eq!(end, INDEX.end);
    }
}
