//! How much memory the heap holds from the system: break, sub-heaps and chunks with a mapping of their own.
//!
//! Which steps of the heap are calls to the system, and what they change, is said here and nowhere else.

use rustc_hash::FxHashMap;
use xalloc_core::wire::{GrowthRule, HeapEvent};

use super::layout::{Layout, RangeKind};

/// A call to the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SystemCall {
    /// A move of the break, up or down.
    Brk,
    /// A mapping made: of a chunk, of a sub-heap.
    Mmap,
    /// A mapping given back.
    Munmap,
    /// A mapping resized.
    Mremap,
    /// A range discarded.
    Madvise,
    /// A range made usable: a sub-heap grows into what it has reserved.
    Mprotect,
}

/// What a step of the heap did with the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moved {
    /// The call.
    pub(crate) call: SystemCall,
    /// Bytes by which an arena grew, or of the mapping that a chunk got.
    pub(crate) grown_bytes: u64,
    /// Why an arena grew; `None` for what is no growth of an arena.
    pub(crate) rule: Option<GrowthRule>,
}

/// The heap segments of one process.
#[derive(Default, Debug)]
pub(crate) struct Segments {
    break_bytes: u64,
    mapped: FxHashMap<u64, u64>,
    mapped_bytes: u64,
}

impl Segments {
    /// The segments of a heap that is laid out already, as that of a forked process is when it begins.
    pub(crate) fn of(layout: &Layout) -> Segments {
        let mut segments = Segments::default();
        for range in layout.ranges() {
            match range.kind {
                RangeKind::Main => segments.break_bytes += range.len_bytes(),
                RangeKind::SubHeap | RangeKind::Mapped => {
                    segments.set(range.start, range.len_bytes());
                }
            }
        }
        segments
    }

    /// Bytes in all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.break_bytes.saturating_add(self.mapped_bytes)
    }

    /// Applies one step of the heap; returns what it did with the system, if it did something there.
    ///
    /// Steps that move memory between classes of a segment (splits, merges, bins) change nothing here. Pages that are
    /// returned inside a segment stay part of the heap.
    #[inline]
    pub(crate) fn apply(&mut self, step: HeapEvent) -> Option<Moved> {
        let called = |call| Some(Moved { call, grown_bytes: 0, rule: None });
        match step {
            HeapEvent::Brk { from, to, rule } => {
                let grown_bytes = to.0.saturating_sub(from.0);
                self.break_bytes = self.break_bytes.saturating_add(grown_bytes);
                Some(Moved { call: SystemCall::Brk, grown_bytes, rule: Some(rule) })
            }
            HeapEvent::Trim { from, to } => {
                self.break_bytes = self.break_bytes.saturating_sub(from.0.saturating_sub(to.0));
                called(SystemCall::Brk)
            }
            HeapEvent::ChunkMap { addr, len_bytes } => {
                self.set(addr.0, len_bytes);
                Some(Moved { call: SystemCall::Mmap, grown_bytes: len_bytes, rule: None })
            }
            HeapEvent::HeapBirth { addr, len_bytes } => {
                self.set(addr.0, len_bytes);
                Some(Moved { call: SystemCall::Mmap, grown_bytes: len_bytes, rule: Some(GrowthRule::HeapFull) })
            }
            HeapEvent::HeapResize { addr, len_bytes, rule } => {
                let before = self.set(addr.0, len_bytes);
                let (call, rule) = match rule {
                    GrowthRule::Shrink => (SystemCall::Madvise, None),
                    GrowthRule::BreakBlocked => (SystemCall::Mmap, Some(rule)),
                    GrowthRule::First | GrowthRule::NoFit | GrowthRule::HeapFull => (SystemCall::Mprotect, Some(rule)),
                };
                Some(Moved { call, grown_bytes: len_bytes.saturating_sub(before), rule })
            }
            HeapEvent::ChunkRemapFrom { addr, .. } => {
                // One call is two steps; the other one counts.
                self.set(addr.0, 0);
                None
            }
            HeapEvent::ChunkRemapTo { addr, len_bytes } => {
                self.set(addr.0, len_bytes);
                called(SystemCall::Mremap)
            }
            HeapEvent::ChunkUnmap { addr, .. } | HeapEvent::HeapDeath { addr, .. } => {
                self.set(addr.0, 0);
                called(SystemCall::Munmap)
            }
            HeapEvent::Release { .. } => called(SystemCall::Madvise),
            HeapEvent::Split { .. }
            | HeapEvent::Coalesce { .. }
            | HeapEvent::Bin { .. }
            | HeapEvent::CacheBirth { .. }
            | HeapEvent::TcacheFlush { .. }
            | HeapEvent::Consolidate { .. }
            | HeapEvent::ArenaBirth { .. }
            | HeapEvent::ArenaIdle
            | HeapEvent::ArenaAttach
            | HeapEvent::Threshold { .. } => None,
        }
    }

    /// The mapping at `addr` is so long from here on; returns how long it was.
    fn set(&mut self, addr: u64, len_bytes: u64) -> u64 {
        let before = if len_bytes == 0 { self.mapped.remove(&addr) } else { self.mapped.insert(addr, len_bytes) };
        let before = before.unwrap_or(0);
        self.mapped_bytes = self.mapped_bytes.saturating_sub(before).saturating_add(len_bytes);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xalloc_core::units::Addr;
    use xalloc_core::wire::GrowthRule;

    #[test]
    fn every_byte_that_comes_from_the_system_is_counted_until_it_goes_back() {
        let mut heap = Segments::default();
        heap.apply(HeapEvent::Brk { from: Addr(0x1000), to: Addr(0x22000), rule: GrowthRule::First });
        heap.apply(HeapEvent::ChunkMap { addr: Addr(0x7000_0000), len_bytes: 0x30000 });
        heap.apply(HeapEvent::HeapBirth { addr: Addr(0x7100_0000), len_bytes: 0x21000 });
        assert_eq!(heap.bytes(), 0x21000 + 0x30000 + 0x21000);
        heap.apply(HeapEvent::HeapResize { addr: Addr(0x7100_0000), len_bytes: 0x1000, rule: GrowthRule::Shrink });
        heap.apply(HeapEvent::ChunkRemapFrom { addr: Addr(0x7000_0000), len_bytes: 0x30000 });
        heap.apply(HeapEvent::ChunkRemapTo { addr: Addr(0x7200_0000), len_bytes: 0x50000 });
        heap.apply(HeapEvent::Trim { from: Addr(0x22000), to: Addr(0x12000) });
        assert_eq!(heap.bytes(), 0x11000 + 0x50000 + 0x1000);
        heap.apply(HeapEvent::ChunkUnmap { addr: Addr(0x7200_0000), len_bytes: 0x50000 });
        heap.apply(HeapEvent::HeapDeath { addr: Addr(0x7100_0000), len_bytes: 0x1000 });
        assert_eq!(heap.bytes(), 0x11000);
    }

    #[test]
    fn a_step_tells_its_call_to_the_system_and_by_how_much_an_arena_grew() {
        let mut heap = Segments::default();
        let mut moved = |step| heap.apply(step).map(|moved| (moved.call, moved.grown_bytes, moved.rule));
        let addr = Addr(0x7100_0000);
        let grown = |call, bytes, rule| Some((call, bytes, Some(rule)));
        let born = moved(HeapEvent::HeapBirth { addr, len_bytes: 0x21000 });
        assert_eq!(born, grown(SystemCall::Mmap, 0x21000, GrowthRule::HeapFull));
        let resized = moved(HeapEvent::HeapResize { addr, len_bytes: 0x30000, rule: GrowthRule::NoFit });
        assert_eq!(resized, grown(SystemCall::Mprotect, 0xf000, GrowthRule::NoFit));
        let shrunk = moved(HeapEvent::HeapResize { addr, len_bytes: 0x1000, rule: GrowthRule::Shrink });
        assert_eq!(shrunk, Some((SystemCall::Madvise, 0, None)));
        let remap = [
            HeapEvent::ChunkMap { addr: Addr(0x7300_0000), len_bytes: 0x30000 },
            HeapEvent::ChunkRemapFrom { addr: Addr(0x7300_0000), len_bytes: 0x30000 },
            HeapEvent::ChunkRemapTo { addr: Addr(0x7400_0000), len_bytes: 0x90000 },
        ];
        let calls = remap.map(|step| moved(step).map(|(call, ..)| call));
        assert_eq!(calls, [Some(SystemCall::Mmap), None, Some(SystemCall::Mremap)], "a move of a mapping is one call");
    }

    #[test]
    fn a_split_moves_nothing_between_heap_and_system() {
        let step = HeapEvent::Split { addr: Addr(0x1000), front_bytes: 32, rest_bytes: 64, from_top: true };
        assert_eq!(Segments::default().apply(step), None);
    }
}
