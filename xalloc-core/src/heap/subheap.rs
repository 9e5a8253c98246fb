//! Sub-heaps: the ranges that thread arenas live in, each aligned to its largest size.
//!
//! The alignment is how a chunk finds its arena: its address rounded down is the header. A sub-heap is reserved whole
//! and made accessible from its start as far as it is used (placement policy, sections 8 to 10).

use super::arena::ArenaState;
use super::chunk::{ALIGNMENT, HEADER, MIN_CHUNK, NON_MAIN, PREV_INUSE, round_down, round_up};
use super::huge::PageKind;
use super::os::Os;
use super::policy::HugeTlb;
use super::sink::Sink;
use super::step::Step;
use super::system::trimmable;
use crate::units::Addr;
use crate::wire::{GrowthRule, HeapEvent};

/// Least that is made accessible at first (placement policy, section 1).
const HEAP_MIN: u64 = 32 << 10;

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// Reserves a sub-heap and makes `size + pad` bytes of it accessible, or as much as fits as long as `size` does.
    /// Returns its address and the accessible bytes.
    pub(super) fn new_heap(&mut self, size: u64, pad: u64) -> Option<(u64, u64)> {
        let huge = self.huge_pages().and_then(|huge| self.new_heap_of(PageKind::Huge(huge), size, pad));
        huge.or_else(|| self.new_heap_of(PageKind::Ordinary, size, pad))
    }

    fn new_heap_of(&mut self, kind: PageKind, size: u64, pad: u64) -> Option<(u64, u64)> {
        let unit = self.unit_of(kind);
        let most = self.heap.sub_heap_bytes();
        let least = self.huge_pages().unwrap_or(HEAP_MIN);
        if size > most {
            return None;
        }
        let size = round_up(size.saturating_add(pad).clamp(least, most), unit);
        let addr = self.reserve_aligned(kind)?;
        if !self.heap.pages().commit(addr, size) {
            self.heap.pages().unmap(addr, most);
            return None;
        }
        self.advise_huge(addr, size);
        let words = self.words();
        words.set_heap_size(addr, size);
        words.set_heap_committed(addr, size);
        if self.huge_pages().is_some() {
            words.set_heap_page(addr, unit);
        }
        Some((addr, size))
    }

    fn reserve(&self, kind: PageKind, hint: u64, len: u64) -> Option<u64> {
        match kind {
            PageKind::Ordinary => self.heap.os.reserve(hint, len),
            PageKind::Huge(page_bytes) => self.heap.os.reserve_huge(hint, len, page_bytes),
        }
    }

    /// Section 10: where the last reservation left room, there; else twice the size is reserved and trimmed to the
    /// alignment, and an upper half that is left over is remembered as the next place to try.
    fn reserve_aligned(&mut self, kind: PageKind) -> Option<u64> {
        let heap = self.heap;
        let most = heap.sub_heap_bytes();
        let hint = heap.next_heap_hint.get();
        if hint != 0 {
            heap.next_heap_hint.set(0);
            if let Some(addr) = self.reserve(kind, hint, most) {
                if addr.is_multiple_of(most) {
                    return Some(addr);
                }
                heap.pages().unmap(addr, most);
            }
        }
        if let Some(range) = self.reserve(kind, 0, 2 * most) {
            let addr = round_up(range, most);
            let below = addr - range;
            if below == 0 {
                heap.next_heap_hint.set(addr + most);
            } else {
                heap.pages().unmap(range, below);
            }
            heap.pages().unmap(addr + most, most - below);
            return Some(addr);
        }
        let addr = self.reserve(kind, 0, most)?;
        if !addr.is_multiple_of(most) {
            heap.pages().unmap(addr, most);
            return None;
        }
        Some(addr)
    }

    /// Grows a thread arena: its current sub-heap if that has room, else by another one. `false`: no memory.
    pub(super) fn grow_heaps(&mut self, arena: &mut ArenaState, size: u64) -> bool {
        let words = self.words();
        let (old_top, old_size) = (arena.top, words.size(arena.top));
        let heap = self.heap.heap_of(old_top);
        if let Some(needed) = (MIN_CHUNK + size).checked_sub(old_size).filter(|&needed| needed > 0)
            && let Some(grown) = self.extend_heap(heap, needed)
        {
            arena.grew(grown);
            let len_bytes = words.heap_size(heap);
            words.set_head(old_top, (heap + len_bytes - old_top) | PREV_INUSE);
            let rule = GrowthRule::NoFit;
            self.tell(arena, HeapEvent::HeapResize { addr: Addr(heap), len_bytes, rule });
            return true;
        }
        let header = self.policy().heap_header_bytes;
        let Some((fresh, len_bytes)) =
            self.new_heap(size.saturating_add(MIN_CHUNK + header), self.heap.settings.top_pad.get())
        else {
            return false;
        };
        words.set_heap_arena(fresh, u64::from(arena.number));
        words.set_heap_prev(fresh, heap);
        arena.grew(len_bytes);
        arena.top = fresh + header;
        words.set_head(arena.top, (len_bytes - header) | PREV_INUSE);
        self.tell(arena, HeapEvent::HeapBirth { addr: Addr(fresh), len_bytes });
        self.fence_old_top(arena, old_top, old_size);
        true
    }

    /// Ends a sub-heap whose top is no longer the arena's: what is left of it is freed, behind a fence that merging
    /// cannot cross and [`Step::trim_heaps`] recognises.
    fn fence_old_top(&mut self, arena: &mut ArenaState, old_top: u64, old_size: u64) {
        let words = self.words();
        let kept = round_down(old_size - MIN_CHUNK, ALIGNMENT);
        words.set_head(old_top + kept + HEADER, PREV_INUSE);
        if kept >= MIN_CHUNK {
            words.set_head(old_top + kept, HEADER | PREV_INUSE);
            words.set_prev_size(old_top + kept + HEADER, HEADER);
            words.set_head(old_top, kept | PREV_INUSE | NON_MAIN);
            self.free_inner(arena, old_top);
        } else {
            words.set_head(old_top, (kept + HEADER) | PREV_INUSE);
            words.set_prev_size(old_top + kept + HEADER, kept + HEADER);
        }
    }

    /// Makes `needed` more bytes of a sub-heap accessible, in pages. Returns how many.
    fn extend_heap(&mut self, heap: u64, needed: u64) -> Option<u64> {
        let words = self.words();
        let needed = round_up(needed, self.sub_heap_unit(heap));
        let most = self.heap.sub_heap_bytes();
        let size = words.heap_size(heap).checked_add(needed).filter(|&size| size <= most)?;
        let committed = words.heap_committed(heap);
        if size > committed {
            if !self.heap.pages().commit(heap + committed, size - committed) {
                return None;
            }
            words.set_heap_committed(heap, size);
            if self.policy().hugetlb == HugeTlb::RoundedAndAdvised {
                self.advise_huge(heap, size);
            }
        }
        words.set_heap_size(heap, size);
        Some(needed)
    }

    /// Section 9: deletes sub-heaps that hold nothing but the top, as long as the one before has room for it, then
    /// gives the top's pages beyond `pad` back.
    pub(super) fn trim_heaps(&mut self, arena: &mut ArenaState, pad: u64) {
        let most = self.heap.sub_heap_bytes();
        let header = self.policy().heap_header_bytes;
        let words = self.words();
        let mut heap = self.heap.heap_of(arena.top);
        while arena.top == heap + header {
            let previous = words.heap_prev(heap);
            if previous == 0 {
                break;
            }
            let previous_size = words.heap_size(previous);
            // The zero-sized chunk of the fence, the fence chunk before it, and a free chunk before that.
            let zero = previous + previous_size - HEADER;
            let misaligned = zero % ALIGNMENT;
            let zero = zero - misaligned;
            let mut start = zero - words.prev_size(zero);
            let mut tail = words.size(start) + HEADER + misaligned;
            let below_is_free = !words.prev_inuse(start);
            if below_is_free {
                tail += words.prev_size(start);
            }
            if tail + (most - previous_size) < pad + MIN_CHUNK + self.sub_heap_unit(previous) {
                break;
            }
            let len_bytes = words.heap_size(heap);
            arena.system_bytes -= len_bytes;
            self.delete_heap(heap);
            self.tell(arena, HeapEvent::HeapDeath { addr: Addr(heap), len_bytes });
            heap = previous;
            if below_is_free {
                let below_size = words.prev_size(start);
                start -= below_size;
                // The heap above is gone: damage is told, and the top made all the same.
                self.is_faulty(arena.bins.unlink(words, start, below_size), start);
            }
            arena.top = start;
            words.set_head(start, tail | PREV_INUSE);
        }
        let top_size = words.size(arena.top);
        if top_size < self.heap.settings.trim_threshold.get() {
            return;
        }
        let extra = trimmable(top_size, pad, self.sub_heap_unit(heap));
        if extra > 0 && self.shrink_heap(heap, extra) {
            arena.system_bytes -= extra;
            words.set_head(arena.top, (top_size - extra) | PREV_INUSE);
            let (len_bytes, rule) = (words.heap_size(heap), GrowthRule::Shrink);
            self.tell(arena, HeapEvent::HeapResize { addr: Addr(heap), len_bytes, rule });
        }
    }

    fn delete_heap(&mut self, heap: u64) {
        let most = self.heap.sub_heap_bytes();
        if heap + most == self.heap.next_heap_hint.get() {
            self.heap.next_heap_hint.set(0);
        }
        self.heap.pages().unmap(heap, most);
    }

    /// Gives the last `extra` bytes of a sub-heap back.
    fn shrink_heap(&mut self, heap: u64, extra: u64) -> bool {
        let words = self.words();
        let size = words.heap_size(heap) - extra;
        if self.heap.os.shrinks_by_decommit() {
            if !self.heap.pages().decommit(heap + size, extra) {
                return false;
            }
            words.set_heap_committed(heap, size);
        } else {
            self.heap.pages().discard(heap + size, extra);
        }
        words.set_heap_size(heap, size);
        true
    }
}
