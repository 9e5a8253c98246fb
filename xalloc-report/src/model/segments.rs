//! How much memory the heap holds from the system: break, sub-heaps and chunks with a mapping of their own.

use rustc_hash::FxHashMap;
use xalloc_core::wire::HeapEvent;

/// The heap segments of one process.
#[derive(Default, Debug)]
pub(crate) struct Segments {
    break_bytes: u64,
    mapped: FxHashMap<u64, u64>,
    mapped_bytes: u64,
}

impl Segments {
    /// Bytes in all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.break_bytes.saturating_add(self.mapped_bytes)
    }

    /// Applies one step of the heap; returns whether the segments changed.
    ///
    /// Steps that move memory between classes of a segment (splits, merges, bins) change nothing here, nor do pages
    /// that are returned inside a segment: it stays part of the heap.
    pub(crate) fn apply(&mut self, step: HeapEvent) -> bool {
        match step {
            HeapEvent::Brk { from, to, .. } => {
                self.break_bytes = self.break_bytes.saturating_add(to.0.saturating_sub(from.0));
            }
            HeapEvent::Trim { from, to } => {
                self.break_bytes = self.break_bytes.saturating_sub(from.0.saturating_sub(to.0));
            }
            HeapEvent::ChunkMap { addr, len_bytes }
            | HeapEvent::ChunkRemapTo { addr, len_bytes }
            | HeapEvent::HeapBirth { addr, len_bytes }
            | HeapEvent::HeapResize { addr, len_bytes, .. } => self.set(addr.0, len_bytes),
            HeapEvent::ChunkUnmap { addr, .. }
            | HeapEvent::ChunkRemapFrom { addr, .. }
            | HeapEvent::HeapDeath { addr, .. } => self.set(addr.0, 0),
            HeapEvent::Release { .. }
            | HeapEvent::Split { .. }
            | HeapEvent::Coalesce { .. }
            | HeapEvent::Bin { .. }
            | HeapEvent::CacheBirth { .. }
            | HeapEvent::TcacheFlush { .. }
            | HeapEvent::Consolidate { .. }
            | HeapEvent::ArenaBirth { .. }
            | HeapEvent::ArenaIdle
            | HeapEvent::ArenaAttach
            | HeapEvent::Threshold { .. } => return false,
        }
        true
    }

    fn set(&mut self, addr: u64, len_bytes: u64) {
        let before = if len_bytes == 0 { self.mapped.remove(&addr) } else { self.mapped.insert(addr, len_bytes) };
        self.mapped_bytes = self.mapped_bytes.saturating_sub(before.unwrap_or(0)).saturating_add(len_bytes);
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
    fn a_split_moves_nothing_between_heap_and_system() {
        let step = HeapEvent::Split { addr: Addr(0x1000), front_bytes: 32, rest_bytes: 64, from_top: true };
        assert!(!Segments::default().apply(step));
    }
}
