//! `realloc`: in place where the chunk's neighbours allow it, else by a new chunk and a copy.
//!
//! Section 5 of the placement policy. A chunk grows upwards only: into the top, or into a free chunk above it. The free
//! memory below is never used, because the contents would have to move anyway.
//!
//! # Safety
//! - `realloc` is called with what the heap handed out; what can be checked of that is checked.
#![allow(unsafe_code)]

use super::arena::ArenaState;
use super::checks;
use super::chunk::{
    ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, NON_MAIN, OVERHEAD, PREV_INUSE, for_request, round_up,
};
use super::malloc::Caller;
use super::os::Os;
use super::policy::ReallocSlack;
use super::sink::Sink;
use super::step::Step;
use super::tcache::{Stage, ThreadCache};
use super::{Allocation, Heap, HeapFault};
use crate::units::Addr;
use crate::wire::HeapEvent;

/// How a `realloc` ended; `Block` is what is said of a block, everything or only where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reallocated<Block = Allocation> {
    /// The block is where it was, with a size that fits the request.
    InPlace(Block),
    /// The block is elsewhere; its contents were copied and the old one is free.
    Moved(Block),
    /// The request was for 0 bytes: the block was freed, the C result is the null pointer.
    Freed,
    /// No memory (`ENOMEM`); the block is as it was.
    Failed,
}

impl<O: Os> Heap<O> {
    /// Changes the size of the block at `addr`, which is not null: `realloc(NULL, n)` is the caller's `malloc`.
    ///
    /// # Errors
    /// The pointer is not a live block; nothing was changed.
    ///
    /// # Safety
    /// As for [`super::Heap::free`]; while the call lasts nobody uses the block.
    pub unsafe fn realloc<S: Sink>(
        &self,
        cache: &mut ThreadCache,
        sink: &mut S,
        addr: Addr,
        bytes: u64,
    ) -> Result<Reallocated, HeapFault> {
        self.claim(addr)?;
        // SAFETY: the contract is the same, and the block was claimed.
        unsafe { self.realloc_claimed(cache, sink, addr, bytes) }
    }

    /// As [`Heap::realloc`], of a block that the caller has claimed, and that is its own again where it stays.
    ///
    /// # Errors
    /// As for [`Heap::realloc`].
    ///
    /// # Safety
    /// - As for [`Heap::realloc`]; [`Heap::claim`] said that the block is one, and the caller claimed it once.
    #[inline]
    pub unsafe fn realloc_claimed<S: Sink>(
        &self,
        cache: &mut ThreadCache,
        sink: &mut S,
        addr: Addr,
        bytes: u64,
    ) -> Result<Reallocated, HeapFault> {
        if bytes == 0 {
            // SAFETY: the contract of `free_claimed` is part of this function's.
            return unsafe { self.free_claimed(cache, sink, addr) }.map(|()| Reallocated::Freed);
        }
        let mut step = Step { heap: self, cache: &mut *cache, sink };
        let done = step.realloc::<Allocation>(addr.0.wrapping_sub(HEADER), bytes);
        match done {
            Ok(Reallocated::InPlace(made) | Reallocated::Moved(made)) => self.hand_out(made.addr),
            Ok(Reallocated::Failed) => self.hand_out(addr),
            Ok(Reallocated::Freed) | Err(_) => {}
        }
        match cache.take_damage() {
            Some(damage) => Err(damage.fault),
            None => done,
        }
    }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    #[inline(always)]
    pub(super) fn realloc<B: From<Allocation>>(&mut self, chunk: u64, bytes: u64) -> Result<Reallocated<B>, HeapFault> {
        let words = self.words();
        if !chunk.is_multiple_of(ALIGNMENT) {
            return Err(HeapFault::ReallocInvalidPointer);
        }
        let head = words.head(chunk);
        let old_size = head & !FLAGS;
        if chunk > old_size.wrapping_neg() {
            return Err(HeapFault::ReallocInvalidPointer);
        }
        if self.keeps_slack(head, bytes) {
            return Ok(Reallocated::InPlace(self.unchanged(chunk).into()));
        }
        if head & IS_MMAPPED == 0 {
            self.ensure_cache_for(Caller::Realloc, old_size);
        }
        let Some(size) = for_request(bytes) else { return Ok(Reallocated::Failed) };
        if head & IS_MMAPPED != 0 {
            return self.realloc_mapped(chunk, old_size, size);
        }
        let heap = self.heap;
        let owner = heap.arenas.get(heap.arena_of(chunk), &heap.main).ok_or(HeapFault::ReallocInvalidPointer)?;
        if let Some(mut arena) = heap.enter(owner, self.cache) {
            checks::resize(words, &arena, chunk, old_size)?;
            let done = self.realloc_in(&mut arena, chunk, old_size, size)?;
            if let Some(done) = done {
                return Ok(done);
            }
            if self.cache.has_damage() {
                return Ok(Reallocated::Failed);
            }
        }
        if !heap.is_multithreaded() {
            return Ok(Reallocated::Failed);
        }
        let Some(moved) = heap.malloc(self.cache, self.sink, bytes) else { return Ok(Reallocated::Failed) };
        // A block of a lost arena moves to become smaller, too.
        words.copy(chunk + HEADER, moved.addr.0, bytes.min(old_size - OVERHEAD));
        if let Some(mut arena) = heap.enter(owner, self.cache) {
            self.free_moved(&mut arena, chunk)?;
        }
        Ok(Reallocated::Moved(moved.into()))
    }

    /// Whether the release leaves a block as it is although the request is smaller.
    fn keeps_slack(&self, head: u64, bytes: u64) -> bool {
        let size = head & !FLAGS;
        let is_mapped = head & IS_MMAPPED != 0;
        let usable = if is_mapped { self.heap.usable_of_mapped(size) } else { size.wrapping_sub(OVERHEAD) };
        let Some(slack) = usable.checked_sub(bytes) else { return false };
        match self.policy().realloc_slack {
            ReallocSlack::Split => false,
            ReallocSlack::KeepToTrimThreshold => slack <= self.heap.settings.trim_threshold.get(),
            ReallocSlack::KeepSmall if is_mapped => slack <= self.heap.os.page_bytes(),
            ReallocSlack::KeepSmall => slack < ALIGNMENT,
        }
    }

    /// What the caller learns about a block that stays as it is.
    fn unchanged(&self, chunk: u64) -> Allocation {
        let head = self.words().head(chunk);
        if head & IS_MMAPPED != 0 { self.mapped(chunk) } else { self.heap.cached::<S>(chunk, head & !FLAGS) }
    }

    /// A block with a mapping of its own keeps one, however small it becomes.
    #[inline(never)]
    fn realloc_mapped<B: From<Allocation>>(
        &mut self,
        chunk: u64,
        old_size: u64,
        size: u64,
    ) -> Result<Reallocated<B>, HeapFault> {
        let words = self.words();
        let heap = self.heap;
        let (start, total) = self.mapping_of(chunk).ok_or(HeapFault::ReallocInvalidMapping)?;
        let layout = self.policy().mapped_layout;
        let offset = layout.offset(words.prev_size(chunk));
        let huge = self.huge_pages().filter(|_| layout.is_of_huge_pages(words.prev_size(chunk)));
        let unit = huge.unwrap_or(heap.os.page_bytes());
        let new_total = round_up(size + offset + layout.extra_bytes(), unit);
        if new_total == total {
            return Ok(Reallocated::InPlace(self.mapped(chunk).into()));
        }
        self.tell_unbound(HeapEvent::ChunkRemapFrom { addr: Addr(start), len_bytes: total });
        let moved = heap.pages().remap(start, total, new_total);
        let (to, len_bytes) = moved.map_or((start, total), |to| (to, new_total));
        self.tell_unbound(HeapEvent::ChunkRemapTo { addr: Addr(to), len_bytes });
        if moved.is_some() {
            self.advise_huge(to, new_total);
            let chunk = to + offset;
            words.set_head(chunk, (new_total - offset - layout.tail_bytes()) | IS_MMAPPED);
            heap.mapped_bytes.sub(total);
            heap.max_mapped_bytes.raise(heap.mapped_bytes.add(new_total));
            let block = self.mapped(chunk);
            return Ok(if to == start { Reallocated::InPlace(block.into()) } else { Reallocated::Moved(block.into()) });
        }
        if old_size + layout.tail_bytes() - OVERHEAD >= size {
            return Ok(Reallocated::InPlace(self.mapped(chunk).into()));
        }
        let Some(moved) = heap.malloc(self.cache, self.sink, size - OVERHEAD) else { return Ok(Reallocated::Failed) };
        words.copy(chunk + HEADER, moved.addr.0, heap.usable_of_mapped(old_size));
        self.free_mapped(chunk)?;
        Ok(Reallocated::Moved(moved.into()))
    }

    /// Within the chunk's own arena: in place, or by another chunk of it. `None`: the arena cannot serve the size.
    /// The fault is that of the old chunk of a block that moved.
    #[inline(always)]
    fn realloc_in<B: From<Allocation>>(
        &mut self,
        arena: &mut ArenaState,
        chunk: u64,
        old_size: u64,
        size: u64,
    ) -> Result<Option<Reallocated<B>>, HeapFault> {
        let words = self.words();
        let next = chunk + old_size;
        let next_size = words.size(next);
        let joined = old_size + next_size;
        let found_size = if old_size >= size {
            old_size
        } else if next == arena.top && joined >= size + MIN_CHUNK {
            self.extend_into_top(arena, chunk, words.head(chunk), joined, size);
            return Ok(Some(Reallocated::InPlace(self.served(arena, chunk).into())));
        } else if next != arena.top && joined >= size && !words.inuse(next, next_size) {
            if self.is_faulty(arena.bins.unlink(words, next, next_size), next) {
                return Ok(None);
            }
            self.tell(
                arena,
                HeapEvent::Split { addr: Addr(next), front_bytes: next_size, rest_bytes: 0, from_top: false },
            );
            joined
        } else {
            let Some(moved) = self.allocate(arena, size) else { return Ok(None) };
            if moved != next {
                // What glibc says of the request here is the chunk less the rounding.
                self.perturb_allocated(moved + HEADER, size - (ALIGNMENT - 1));
                let usable = old_size - OVERHEAD;
                words.copy(chunk + HEADER, moved + HEADER, usable);
                let block = self.served(arena, moved);
                self.free_moved(arena, chunk)?;
                return Ok(Some(Reallocated::Moved(block.into())));
            }
            // The chunk above became free meanwhile and was the one chosen: both together serve.
            old_size + words.size(moved)
        };
        self.keep_front(arena, chunk, found_size, size);
        Ok(Some(Reallocated::InPlace(self.served(arena, chunk).into())))
    }

    /// As [`Step::realloc`], if that comes to nothing but taking more from the top, for a chunk of the main arena, and the
    /// process has one thread. `false`: nothing has changed.
    #[inline(always)]
    pub(super) fn extend_alone(&mut self, chunk: u64, bytes: u64) -> bool {
        let (heap, words) = (self.heap, self.words());
        if !chunk.is_multiple_of(ALIGNMENT) {
            return false;
        }
        let head = words.head(chunk);
        let old_size = head & !FLAGS;
        let is_ordinary = head & (IS_MMAPPED | NON_MAIN) == 0 && chunk <= old_size.wrapping_neg();
        if !is_ordinary || heap.is_multithreaded() || self.cache.stage == Stage::Unborn {
            return false;
        }
        let Some(size) = for_request(bytes).filter(|&size| size > old_size) else { return false };
        let mut arena = heap.main.enter_alone(&heap.os);
        let next = chunk + old_size;
        if next != arena.top || checks::resize(words, &arena, chunk, old_size).is_err() {
            return false;
        }
        let joined = old_size + words.size(next);
        if joined < size + MIN_CHUNK {
            return false;
        }
        self.extend_into_top(&mut arena, chunk, head, joined, size);
        true
    }

    /// Takes what a chunk with the size word `head` needs from the top right above it.
    #[inline(always)]
    fn extend_into_top(&mut self, arena: &mut ArenaState, chunk: u64, head: u64, joined: u64, size: u64) {
        let words = self.words();
        let old_top = arena.top;
        words.set_head(chunk, size | (head & (PREV_INUSE | NON_MAIN)));
        arena.top = chunk + size;
        words.set_head(arena.top, (joined - size) | PREV_INUSE);
        let front_bytes = arena.top - old_top;
        let rest_bytes = joined - size;
        self.tell(arena, HeapEvent::Split { addr: Addr(old_top), front_bytes, rest_bytes, from_top: true });
    }

    /// Makes a live chunk `size` bytes of the `found_size` that it may have; frees the rest if that is a chunk.
    #[inline(always)]
    fn keep_front(&mut self, arena: &mut ArenaState, chunk: u64, found_size: u64, size: u64) {
        let words = self.words();
        let flags = words.head(chunk) & (PREV_INUSE | NON_MAIN);
        let rest_size = found_size - size;
        if rest_size < MIN_CHUNK {
            words.set_head(chunk, found_size | flags);
            words.mark_inuse(chunk, found_size);
            return;
        }
        let rest = chunk + size;
        words.set_head(chunk, size | flags);
        words.set_head(rest, rest_size | PREV_INUSE | arena.chunk_flag());
        words.mark_inuse(rest, rest_size);
        self.free_inner(arena, rest);
    }
}
