//! Sub-heaps: the 64 MiB-aligned ranges that thread arenas live in.
//!
//! The alignment is how a chunk finds its arena: its address rounded down is the header. A sub-heap is reserved whole
//! and made accessible from its start as far as it is used (placement policy, sections 8 to 10).

use super::arena::ArenaState;
use super::chunk::{ALIGNMENT, HEADER, MIN_CHUNK, NON_MAIN, PREV_INUSE, round_down, round_up};
use super::os::Os;
use super::sink::Sink;
use super::step::Step;
use super::system::trimmable;
use crate::units::Addr;
use crate::wire::{GrowthRule, HeapEvent};

/// Size and alignment of a sub-heap (placement policy, section 1).
pub(super) const HEAP_MAX: u64 = 64 << 20;
/// Least that is made accessible at first (placement policy, section 1).
const HEAP_MIN: u64 = 32 << 10;

/// The sub-heap that holds an address.
#[inline(always)]
pub(super) const fn heap_of(addr: u64) -> u64 {
    round_down(addr, HEAP_MAX)
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// Reserves a sub-heap and makes `size + pad` bytes of it accessible, or as much as fits as long as `size` does.
    /// Returns its address and the accessible bytes.
    pub(super) fn new_heap(&mut self, size: u64, pad: u64) -> Option<(u64, u64)> {
        let padded = size.saturating_add(pad);
        let size = if padded < HEAP_MIN {
            HEAP_MIN
        } else if padded <= HEAP_MAX {
            padded
        } else if size > HEAP_MAX {
            return None;
        } else {
            HEAP_MAX
        };
        let size = round_up(size, self.heap.os.page_bytes());
        let addr = self.reserve_aligned()?;
        if !self.heap.pages().commit(addr, size) {
            self.heap.pages().unmap(addr, HEAP_MAX);
            return None;
        }
        let words = self.words();
        words.set_heap_size(addr, size);
        words.set_heap_committed(addr, size);
        Some((addr, size))
    }

    /// Section 10: where the last reservation left room, there; else twice the size is reserved and trimmed to the
    /// alignment, and an upper half that is left over is remembered as the next place to try.
    fn reserve_aligned(&mut self) -> Option<u64> {
        let heap = self.heap;
        let hint = heap.next_heap_hint.get();
        if hint != 0 {
            heap.next_heap_hint.set(0);
            if let Some(addr) = heap.os.reserve(hint, HEAP_MAX) {
                if addr.is_multiple_of(HEAP_MAX) {
                    return Some(addr);
                }
                heap.pages().unmap(addr, HEAP_MAX);
            }
        }
        if let Some(range) = heap.os.reserve(0, 2 * HEAP_MAX) {
            let addr = round_up(range, HEAP_MAX);
            let below = addr - range;
            if below == 0 {
                heap.next_heap_hint.set(addr + HEAP_MAX);
            } else {
                heap.pages().unmap(range, below);
            }
            heap.pages().unmap(addr + HEAP_MAX, HEAP_MAX - below);
            return Some(addr);
        }
        let addr = heap.os.reserve(0, HEAP_MAX)?;
        if !addr.is_multiple_of(HEAP_MAX) {
            heap.pages().unmap(addr, HEAP_MAX);
            return None;
        }
        Some(addr)
    }

    /// Grows a thread arena: its current sub-heap if that has room, else by another one. `false`: no memory.
    pub(super) fn grow_heaps(&mut self, arena: &mut ArenaState, size: u64) -> bool {
        let words = self.words();
        let (old_top, old_size) = (arena.top, words.size(arena.top));
        let heap = heap_of(old_top);
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
        let needed = round_up(needed, self.heap.os.page_bytes());
        let size = words.heap_size(heap).checked_add(needed).filter(|&size| size <= HEAP_MAX)?;
        let committed = words.heap_committed(heap);
        if size > committed {
            if !self.heap.pages().commit(heap + committed, size - committed) {
                return None;
            }
            words.set_heap_committed(heap, size);
        }
        words.set_heap_size(heap, size);
        Some(needed)
    }

    /// Section 9: deletes sub-heaps that hold nothing but the top, as long as the one before has room for it, then
    /// gives the top's pages beyond `pad` back.
    pub(super) fn trim_heaps(&mut self, arena: &mut ArenaState, pad: u64) {
        let page = self.heap.os.page_bytes();
        let header = self.policy().heap_header_bytes;
        let words = self.words();
        let mut heap = heap_of(arena.top);
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
            if tail + (HEAP_MAX - previous_size) < pad + MIN_CHUNK + page {
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
        let extra = trimmable(top_size, pad, page);
        if extra > 0 && self.shrink_heap(heap, extra) {
            arena.system_bytes -= extra;
            words.set_head(arena.top, (top_size - extra) | PREV_INUSE);
            let (len_bytes, rule) = (words.heap_size(heap), GrowthRule::Shrink);
            self.tell(arena, HeapEvent::HeapResize { addr: Addr(heap), len_bytes, rule });
        }
    }

    fn delete_heap(&mut self, heap: u64) {
        if heap + HEAP_MAX == self.heap.next_heap_hint.get() {
            self.heap.next_heap_hint.set(0);
        }
        self.heap.pages().unmap(heap, HEAP_MAX);
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
