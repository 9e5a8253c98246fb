//! Asking the system for memory, and giving it back: mappings of their own, the break, trimming.
//!
//! Sections 7 and 8 of the placement policy. The break is the cheap way and the default; a mapping of its own is for
//! what is so large that leaving it in the heap would pin the break.

use super::arena::ArenaState;
use super::checks;
use super::chunk::{ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, PREV_INUSE, round_down, round_up};
use super::huge::{Growth, PageKind};
use super::os::Os;
use super::policy::BreakFallback;
use super::sink::Sink;
use super::step::Step;
use super::words::Words;
use super::{Heap, HeapFault};
use crate::units::Addr;
use crate::wire::{GrowthRule, HeapEvent};

/// Smallest mapping that replaces a blocked break (placement policy, section 1: `MMAP_AS_MORECORE_SIZE`).
const FALLBACK_MIN: u64 = 1 << 20;

impl<O: Os> Heap<O> {
    /// Length of the mapping that a mapped chunk is in, by its words.
    pub(super) fn mapping_bytes(&self, chunk: u64) -> u64 {
        let words = Words(&self.os);
        let layout = self.settings.policy().mapped_layout;
        words.size(chunk).wrapping_add(layout.offset(words.prev_size(chunk))).wrapping_add(layout.tail_bytes())
    }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// Section 8: neither bins nor top could serve `size`.
    #[inline(never)]
    pub(super) fn grow(&mut self, arena: &mut ArenaState, size: u64) -> Option<u64> {
        let settings = &self.heap.settings;
        let try_map = size >= settings.mmap_threshold.get() && self.heap.mapped_chunks.get() < settings.mmap_max.get();
        if try_map && let Some(chunk) = self.map_large_chunk(size) {
            return Some(chunk);
        }
        if !self.is_top_whole(arena) {
            let top = core::mem::take(&mut arena.top);
            self.note_fault(HeapFault::TopShape, top);
            return None;
        }
        let grown = if arena.is_main() { self.grow_break(arena, size) } else { self.grow_heaps(arena, size) };
        if !grown && !arena.is_main() && !try_map {
            return self.map_chunk(size);
        }
        self.cut_top(arena, size)
    }

    /// Whether the top, if there is one, is a chunk that ends with a page.
    fn is_top_whole(&self, arena: &ArenaState) -> bool {
        let head = if arena.top == 0 { return true } else { self.words().head(arena.top) };
        let size = head & !FLAGS;
        size >= MIN_CHUNK && head & PREV_INUSE != 0 && (arena.top + size).is_multiple_of(self.heap.os.page_bytes())
    }

    /// A chunk with a mapping of its own, of huge pages if it fills one and there are enough.
    fn map_large_chunk(&mut self, size: u64) -> Option<u64> {
        let huge = self.huge_pages().filter(|&huge| size >= huge);
        huge.and_then(|huge| self.map_chunk_of(PageKind::Huge(huge), size)).or_else(|| self.map_chunk(size))
    }

    /// A chunk with a mapping of its own.
    pub(super) fn map_chunk(&mut self, size: u64) -> Option<u64> {
        self.map_chunk_of(PageKind::Ordinary, size)
    }

    fn map_chunk_of(&mut self, kind: PageKind, size: u64) -> Option<u64> {
        let heap = self.heap;
        let needed = size.checked_add(self.policy().mapped_layout.extra_bytes())?;
        let (unit, mark) = match kind {
            PageKind::Ordinary => (heap.os.page_bytes(), 0),
            PageKind::Huge(page_bytes) => (page_bytes, self.policy().mapped_layout.mark_of_huge_pages()),
        };
        let total = round_up(needed, unit);
        if total < size {
            return None;
        }
        let addr = self.map(kind, total)?;
        self.advise_huge(addr, total);
        self.words().set_prev_size(addr, mark);
        self.words().set_head(addr, (total - self.policy().mapped_layout.tail_bytes()) | IS_MMAPPED);
        heap.max_mapped_chunks.raise(heap.mapped_chunks.add(1));
        heap.max_mapped_bytes.raise(heap.mapped_bytes.add(total));
        self.tell_unbound(HeapEvent::ChunkMap { addr: Addr(addr), len_bytes: total });
        Some(addr)
    }

    fn map(&self, kind: PageKind, len: u64) -> Option<u64> {
        match kind {
            PageKind::Ordinary => self.heap.os.map(len),
            PageKind::Huge(page_bytes) => self.heap.os.map_huge(len, page_bytes),
        }
    }

    /// Gives a mapped chunk back; its size may move the dynamic threshold first.
    pub(super) fn free_mapped(&mut self, chunk: u64) -> Result<(), HeapFault> {
        let (start, total) = self.mapping_of(chunk).ok_or(HeapFault::InvalidMapping)?;
        if let Some(mmap_bytes) = self.heap.settings.learn(self.words().size(chunk)) {
            self.tell_unbound(HeapEvent::Threshold { mmap_bytes });
        }
        self.heap.note_unmapped(chunk);
        self.unmap_chunk(start, total);
        Ok(())
    }

    /// The mapping of a mapped chunk, or `None` if its words cannot be those of one.
    pub(super) fn mapping_of(&self, chunk: u64) -> Option<(u64, u64)> {
        checks::mapping(self.words(), chunk, self.heap.os.page_bytes(), self.policy().mapped_layout)
    }

    fn unmap_chunk(&mut self, start: u64, total: u64) {
        self.heap.mapped_chunks.sub(1);
        self.heap.mapped_bytes.sub(total);
        // Before the range can be mapped again by another thread, so that the order of events is that of the ranges.
        self.tell_unbound(HeapEvent::ChunkUnmap { addr: Addr(start), len_bytes: total });
        self.heap.pages().unmap(start, total);
    }

    /// Grows the main arena by the break, or by a mapping where the break is blocked. `false`: no memory.
    fn grow_break(&mut self, arena: &mut ArenaState, size: u64) -> bool {
        let page = self.heap.os.page_bytes();
        let words = self.words();
        let old_top = arena.top;
        let old_size = if old_top == 0 { 0 } else { words.size(old_top) };
        let old_end = old_top + old_size;
        let Some(wanted) = size.checked_add(self.heap.settings.top_pad.get() + MIN_CHUNK) else { return false };
        let instead = wanted;
        let wanted = if arena.contiguous { wanted.wrapping_sub(old_size) } else { wanted };
        let huge = self.huge_pages();
        let wanted = self.break_step(round_up(wanted, page));
        let moved = match i64::try_from(wanted) {
            Ok(delta) if delta > 0 && huge.is_none() => self.heap.pages().break_by(delta),
            _ => None,
        };
        let Some(start) = moved else {
            let with_old_top = if arena.contiguous { wanted.wrapping_add(old_size) } else { wanted };
            if let Some(huge) = huge {
                let growth = Growth { wanted, with_old_top, instead };
                let len_bytes = Self::huge_growth(arena.contiguous, self.policy(), growth, huge);
                if len_bytes > size && self.map_instead_of_break(arena, PageKind::Huge(huge), len_bytes, old_size) {
                    return true;
                }
            }
            let len_bytes = match self.policy().break_fallback {
                BreakFallback::AtLeast => round_up(with_old_top, page).max(FALLBACK_MIN),
                BreakFallback::Rounded if arena.contiguous => round_up(with_old_top, FALLBACK_MIN).max(page),
                BreakFallback::Rounded => wanted.max(page),
                BreakFallback::Plain => round_up(instead, page).max(FALLBACK_MIN),
            };
            return len_bytes > size && self.map_instead_of_break(arena, PageKind::Ordinary, len_bytes, old_size);
        };
        if self.heap.break_base.get() == 0 {
            self.heap.break_base.set(start);
            self.heap.note_region(start);
        }
        self.advise_huge(start, wanted);
        let rule = if old_size == 0 { GrowthRule::First } else { GrowthRule::NoFit };
        arena.grew(wanted);
        self.heap.break_end.set(start + wanted);
        if start == old_end && old_size != 0 {
            words.set_head(old_top, (old_size + wanted) | PREV_INUSE);
            self.tell(arena, HeapEvent::Brk { from: Addr(start), to: Addr(start + wanted), rule });
            return true;
        }
        if arena.contiguous && old_size != 0 && start < old_end {
            // Somebody moved the break below the top. glibc aborts here; the caller gets no memory.
            return false;
        }
        self.restart_top(arena, start, wanted, old_size, rule);
        true
    }

    /// The break moved, but not from the end of the top: it is the first time, or somebody else moved it meanwhile.
    fn restart_top(&mut self, arena: &mut ArenaState, start: u64, wanted: u64, old_size: u64, rule: GrowthRule) {
        let page = self.heap.os.page_bytes();
        let mut aligned = start;
        let mut correction = 0;
        if !start.is_multiple_of(ALIGNMENT) {
            correction = ALIGNMENT - start % ALIGNMENT;
            aligned += correction;
        }
        let end = if arena.contiguous {
            if old_size != 0 {
                arena.grew(start - (arena.top + old_size));
            }
            correction += old_size;
            let unaligned_end = start + wanted + correction;
            correction += round_up(unaligned_end, page) - unaligned_end;
            match self.heap.pages().break_by(correction as i64) {
                Some(end) => end,
                None => {
                    correction = 0;
                    self.heap.pages().break_by(0).unwrap_or(start + wanted)
                }
            }
        } else {
            correction = 0;
            self.heap.pages().break_by(0).unwrap_or(start + wanted)
        };
        let new_size = end.wrapping_sub(aligned) + correction;
        self.heap.break_end.set(aligned + new_size);
        arena.grew(correction);
        self.tell(arena, HeapEvent::Brk { from: Addr(start), to: Addr(aligned + new_size), rule });
        self.replace_top(arena, aligned, new_size, old_size);
    }

    /// The break is blocked, or is not to be used: a mapping becomes the new top, and the arena is not contiguous any more.
    fn map_instead_of_break(&mut self, arena: &mut ArenaState, kind: PageKind, len_bytes: u64, old_size: u64) -> bool {
        let Some(addr) = self.map(kind, len_bytes) else { return false };
        self.advise_huge(addr, len_bytes);
        if self.heap.break_base.get() == 0 {
            self.heap.break_base.set(addr);
            self.heap.note_region(addr);
        }
        arena.contiguous = false;
        arena.grew(len_bytes);
        let rule = GrowthRule::BreakBlocked;
        self.tell(arena, HeapEvent::HeapResize { addr: Addr(addr), len_bytes, rule });
        self.replace_top(arena, addr, len_bytes, old_size);
        true
    }

    /// Makes a new range the top. What was the top is fenced off with two chunks of 16 bytes, so that merging stops
    /// there, and freed.
    fn replace_top(&mut self, arena: &mut ArenaState, start: u64, size: u64, old_size: u64) {
        let words = self.words();
        let old_top = arena.top;
        arena.top = start;
        words.set_head(start, size | PREV_INUSE);
        if old_size == 0 {
            return;
        }
        self.heap.note_region(start);
        let kept = round_down(old_size - MIN_CHUNK, ALIGNMENT);
        words.set_head(old_top, kept | PREV_INUSE);
        words.set_head(old_top + kept, HEADER | PREV_INUSE);
        words.set_head(old_top + kept + HEADER, HEADER | PREV_INUSE);
        if kept >= MIN_CHUNK {
            self.free_inner(arena, old_top);
        }
    }

    /// Section 7: gives the top's whole pages beyond `pad` back, if the break still ends where the top does; a top of the
    /// least size gets `pad` instead. Returns whether the break moved.
    pub(super) fn trim_top(&mut self, arena: &mut ArenaState, pad: u64) -> bool {
        // What is mapped of huge pages is no part of the break.
        if arena.top == 0 || self.huge_pages().is_some() {
            return false;
        }
        let top_size = self.words().size(arena.top);
        let page = self.trim_unit();
        let shift = match i64::try_from(pad) {
            // The byte by which this top falls short of having any to spare counts as all that there can be.
            Ok(pad) if top_size == MIN_CHUNK => round_down(pad as u64, page) as i64 + page as i64,
            _ => -(trimmable(top_size, pad, page) as i64),
        };
        let end = arena.top + top_size;
        if shift == 0 || self.heap.pages().break_by(0) != Some(end) {
            return false;
        }
        // The result says little: what counts is where the break is afterwards.
        self.heap.pages().break_by(shift);
        let Some(now) = self.heap.pages().break_by(0) else { return false };
        self.heap.break_end.set(now);
        let released = end.wrapping_sub(now);
        if released == 0 {
            return false;
        }
        arena.system_bytes = arena.system_bytes.wrapping_sub(released);
        self.words().set_head(arena.top, top_size.wrapping_sub(released) | PREV_INUSE);
        let (from, to) = (Addr(end), Addr(now));
        let event =
            if now < end { HeapEvent::Trim { from, to } } else { HeapEvent::Brk { from, to, rule: GrowthRule::NoFit } };
        self.tell(arena, event);
        true
    }

    /// `malloc_trim` of one arena: empties the fast bins, discards the whole pages inside free chunks, and trims the
    /// break of the main arena. Returns whether anything went back.
    pub(super) fn trim_arena(&mut self, arena: &mut ArenaState, pad: u64) -> bool {
        self.consolidate(arena);
        let page = self.heap.os.page_bytes();
        let words = self.words();
        let mut released = false;
        let first_with_pages = super::chunk::bin_index(page);
        for bin in (1..super::bins::BINS).filter(|&bin| bin == super::bins::UNSORTED || bin >= first_with_pages) {
            let mut next = arena.bins.back(words, bin);
            while let Some(chunk) = next {
                next = arena.bins.next_from_back(words, bin, chunk);
                let end = chunk + words.size(chunk);
                // The first 48 bytes hold the chunk's own words (placement policy, section 7).
                let first_page = round_up(chunk + 48, page);
                if first_page < end && end - first_page >= page {
                    let len_bytes = round_down(end - first_page, page);
                    self.heap.pages().discard(first_page, len_bytes);
                    self.tell(arena, HeapEvent::Release { addr: Addr(first_page), len_bytes });
                    released = true;
                }
            }
        }
        let trimmed = arena.is_main() && self.trim_top(arena, pad);
        released || trimmed
    }
}

/// Bytes of a top that can go back when `pad` stays (placement policy, section 7).
pub(super) fn trimmable(top_size: u64, pad: u64, page: u64) -> u64 {
    let area = top_size.saturating_sub(MIN_CHUNK + 1);
    round_down(area.saturating_sub(pad), page)
}
