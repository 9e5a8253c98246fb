//! What each step of the heap does to the layout: chunks cut and joined, ranges that begin, move their end, and go.

use std::ops::Range;

use xalloc_core::wire::{BinKind, GrowthRule, HeapEvent, Merged};

use super::marks::Mark;
use super::ranges::{self, RangeKind};
use super::{HEADER, Layout};
use crate::trace::{StackIndex, ThreadIndex};

/// Smallest chunk, and what a fenced top must keep to be freed (placement policy, sections 1 and 8).
const MIN_CHUNK: u64 = 32;

impl Layout {
    /// Takes one step of an arena, which `by` made, on behalf of `stack`.
    pub(super) fn step(&mut self, arena: u16, step: HeapEvent, by: ThreadIndex, stack: StackIndex) {
        self.steps += 1;
        match step {
            HeapEvent::Split { addr, front_bytes, rest_bytes, from_top } => {
                self.split(arena, addr.0..addr.0 + front_bytes, (!from_top).then_some(rest_bytes), stack);
            }
            HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged } => {
                self.coalesce(arena, addr.0, freed_bytes, total_bytes, merged);
            }
            HeapEvent::Bin { addr, size_bytes, bin, index } => {
                self.take_freed(addr.0, size_bytes);
                let mark = match bin {
                    BinKind::Fast => Mark::Fast(index),
                    BinKind::Unsorted | BinKind::Small | BinKind::Large => Mark::Binned(index),
                    BinKind::Cache => Mark::Cached(by),
                };
                self.put(addr.0, size_bytes, mark);
            }
            HeapEvent::CacheBirth { addr, size_bytes } => {
                self.take(addr.0);
                self.put(addr.0, size_bytes, Mark::Bookkeeping);
                self.touch(stack, addr.0, size_bytes);
            }
            HeapEvent::Brk { from, to, .. } => self.grow_main(from.0, to.0, stack),
            HeapEvent::Trim { from, to } => self.trim_main(from.0, to.0),
            HeapEvent::Release { addr, len_bytes } => self.marks.release(addr.0, len_bytes),
            HeapEvent::ChunkMap { addr, len_bytes } | HeapEvent::ChunkRemapTo { addr, len_bytes } => {
                let (start, end, kind) = (addr.0, addr.0 + len_bytes, RangeKind::Mapped);
                self.ranges.add(ranges::Range { start, end, kind, arena: 0, first: start, slot: None });
            }
            HeapEvent::ChunkUnmap { addr, .. } | HeapEvent::ChunkRemapFrom { addr, .. } => {
                self.ranges.remove(addr.0);
            }
            HeapEvent::HeapBirth { addr, len_bytes } => self.begin_sub_heap(arena, addr.0, len_bytes, stack),
            HeapEvent::HeapResize { addr, len_bytes, rule: GrowthRule::BreakBlocked } => {
                self.begin_main(addr.0, addr.0 + len_bytes, stack);
            }
            HeapEvent::HeapResize { addr, len_bytes, .. } => self.resize_sub_heap(addr.0, addr.0 + len_bytes),
            HeapEvent::HeapDeath { addr, len_bytes } => self.end_sub_heap(arena, addr.0, len_bytes),
            // The trim threshold follows (placement policy, section 1).
            HeapEvent::Threshold { mmap_bytes } => self.trim_threshold_bytes = 2 * mmap_bytes,
            HeapEvent::TcacheFlush { .. }
            | HeapEvent::Consolidate { .. }
            | HeapEvent::ArenaBirth { .. }
            | HeapEvent::ArenaIdle
            | HeapEvent::ArenaAttach => {}
        }
    }

    /// A chunk is cut from the top, or from a free chunk of which `rest_bytes` are left.
    fn split(&mut self, arena: u16, front: Range<u64>, rest_bytes: Option<u64>, stack: StackIndex) {
        match rest_bytes {
            None => self.ranges.arena(arena).top = front.end,
            Some(rest_bytes) => {
                self.take(front.start);
                if rest_bytes > 0 {
                    self.put(front.end, rest_bytes, Mark::Binned(1));
                }
            }
        }
        self.put(front.start, front.end - front.start, Mark::Handed);
        self.touch(stack, front.start, HEADER);
        self.touch(stack, front.end, HEADER);
    }

    /// A freed chunk and its free neighbours become one, which begins at `addr`.
    fn coalesce(&mut self, arena: u16, addr: u64, freed_bytes: u64, total_bytes: u64, merged: Merged) {
        let mut freed = addr;
        if merged.previous {
            freed += self.take(addr).map_or(0, |(size_bytes, _)| size_bytes);
        }
        self.take_freed(freed, freed_bytes);
        if merged.next {
            self.take(freed + freed_bytes);
        }
        if merged.top {
            self.ranges.arena(arena).top = addr;
        } else {
            self.put(addr, total_bytes, Mark::Binned(1));
        }
    }

    fn trim_main(&mut self, from: u64, to: u64) {
        if let Some(range) = self.ranges.current(0)
            && range.end == from
        {
            self.ranges.set_end(range.start, to);
            self.marks.release(to, from - to);
        }
    }

    fn resize_sub_heap(&mut self, start: u64, end: u64) {
        if let Some(before) = self.ranges.set_end(start, end)
            && before > end
        {
            self.marks.release(end, before - end);
        }
    }

    fn grow_main(&mut self, from: u64, to: u64, stack: StackIndex) {
        match self.ranges.current(0) {
            Some(range) if range.end == from => {
                self.ranges.set_end(range.start, to);
            }
            Some(_) | None => self.begin_main(from, to, stack),
        }
    }

    /// A range of the main arena that does not continue the one before.
    fn begin_main(&mut self, start: u64, end: u64, stack: StackIndex) {
        let first = start.next_multiple_of(16);
        self.begin(ranges::Range { start, end, kind: RangeKind::Main, arena: 0, first, slot: None }, stack);
    }

    fn begin_sub_heap(&mut self, arena: u16, start: u64, len_bytes: u64, stack: StackIndex) {
        let is_first = self.ranges.arena(arena).ranges.is_empty();
        let reserved = self.header_bytes + if is_first { self.arena_bytes } else { 0 };
        let first = (start + reserved).next_multiple_of(16);
        let end = start + len_bytes;
        self.begin(ranges::Range { start, end, kind: RangeKind::SubHeap, arena, first, slot: None }, stack);
    }

    /// The arena's top is in another range from here on; what was its top is fenced off, and what is left of it freed
    /// by the steps that follow (placement policy, section 8).
    fn begin(&mut self, range: ranges::Range, stack: StackIndex) {
        if let Some(old) = self.ranges.current(range.arena) {
            let top = self.ranges.arena(range.arena).top;
            let kept = old.end.saturating_sub(top).saturating_sub(MIN_CHUNK) & !15;
            let kept = if kept >= MIN_CHUNK { kept } else { 0 };
            if kept > 0 {
                self.put(top, kept, Mark::Handed);
            }
            self.put(top + kept, old.end.saturating_sub(top + kept), Mark::Fence);
        }
        self.counted.header_bytes += range.first - range.start;
        self.ranges.add(range);
        let arena = self.ranges.arena(range.arena);
        arena.ranges.push(range.start);
        arena.top = range.first;
        self.touch(stack, range.start, range.first - range.start + HEADER);
    }

    /// A sub-heap that held nothing but the top is gone; the top is what ended the one before, with the free chunk
    /// below that (placement policy, section 9).
    fn end_sub_heap(&mut self, arena: u16, start: u64, len_bytes: u64) {
        let Some(range) = self.ranges.remove(start) else { return };
        self.counted.header_bytes -= range.first - range.start;
        self.marks.forget(start, len_bytes);
        let state = self.ranges.arena(arena);
        state.ranges.retain(|&other| other != start);
        let Some(previous) = self.ranges.current(arena) else { return };
        let (mut at, mut below) = (previous.first, None);
        while let Some((size_bytes, mark)) = self.marks.get(at) {
            match mark {
                Mark::Fence => break,
                Mark::Binned(_) => below = Some(at),
                Mark::Live(_) | Mark::Handed | Mark::Cached(_) | Mark::Fast(_) | Mark::Bookkeeping => below = None,
            }
            at += size_bytes;
        }
        self.take(at);
        if let Some(free) = below {
            self.take(free);
        }
        self.ranges.arena(arena).top = below.unwrap_or(at);
    }
}
