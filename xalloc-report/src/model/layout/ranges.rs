//! The ranges of memory that the heap has from the system, and where in them each arena's top begins.

use std::collections::BTreeMap;

/// What a range is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeKind {
    /// A piece of the main arena: the break, or a mapping that replaces it where the break is blocked.
    Main,
    /// A sub-heap of a thread arena.
    SubHeap,
    /// The mapping of one chunk.
    Mapped,
}

/// A range that the heap has from the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// What it is.
    pub kind: RangeKind,
    /// The arena that it belongs to; 0, the main one, for a mapping of a chunk, which belongs to none.
    pub arena: u16,
    /// Where the first chunk begins; what lies before it is the heap's own.
    pub(super) first: u64,
    /// Slot of the block in the mapping of a chunk.
    pub(super) slot: Option<u32>,
}

impl Range {
    /// Where its first chunk begins.
    #[must_use]
    pub const fn first_chunk(&self) -> u64 {
        self.first
    }

    /// Its length.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// Where an arena stands: its ranges in the order in which it got them, and its top in the last one.
#[derive(Clone, Debug, Default)]
pub(super) struct ArenaState {
    pub(super) ranges: Vec<u64>,
    /// Where the top begins; 0 before the arena has memory.
    pub(super) top: u64,
}

/// All ranges of a process.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    by_start: BTreeMap<u64, Range>,
    pub(super) arenas: Vec<ArenaState>,
    bytes: u64,
}

impl Ranges {
    /// Bytes in all ranges.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The ranges by address.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Range> {
        self.by_start.values()
    }

    pub(super) fn arena(&mut self, arena: u16) -> &mut ArenaState {
        let at = usize::from(arena);
        if self.arenas.len() <= at {
            self.arenas.resize_with(at + 1, ArenaState::default);
        }
        &mut self.arenas[at]
    }

    /// The range that holds the arena's top.
    pub(super) fn current(&self, arena: u16) -> Option<Range> {
        let start = self.arenas.get(usize::from(arena))?.ranges.last()?;
        self.by_start.get(start).copied()
    }

    pub(super) fn add(&mut self, range: Range) {
        self.bytes += range.len_bytes();
        if let Some(replaced) = self.by_start.insert(range.start, range) {
            self.bytes -= replaced.len_bytes();
        }
    }

    pub(super) fn remove(&mut self, start: u64) -> Option<Range> {
        let range = self.by_start.remove(&start)?;
        self.bytes -= range.len_bytes();
        Some(range)
    }

    /// The range at `start` ends elsewhere from here on; returns where it ended.
    pub(super) fn set_end(&mut self, start: u64, end: u64) -> Option<u64> {
        let range = self.by_start.get_mut(&start).filter(|range| end >= range.start)?;
        let before = std::mem::replace(&mut range.end, end);
        self.bytes = self.bytes + end - before;
        Some(before)
    }

    /// The range that holds an address.
    pub(super) fn around(&mut self, addr: u64) -> Option<&mut Range> {
        self.by_start.range_mut(..=addr).next_back().map(|(_, range)| range).filter(|range| addr < range.end)
    }
}
