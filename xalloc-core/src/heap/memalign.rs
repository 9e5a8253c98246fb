//! `memalign` and its family: a larger chunk, of which what lies before and behind the aligned block is given back.
//!
//! Section 5 of the placement policy.

use super::arena::ArenaState;
use super::chunk::{ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, PREV_INUSE, for_request, round_up};
use super::os::Os;
use super::policy::AlignedRests;
use super::sink::Sink;
use super::step::Step;
use super::tcache::ThreadCache;
use super::{AllocError, Allocation, Heap};

impl<O: Os> Heap<O> {
    /// C `memalign`: an alignment that is no power of two is rounded up to one.
    ///
    /// # Errors
    /// `NoMemory`, or `BadAlignment` where the alignment is larger than half the address space.
    pub fn memalign<S: Sink>(
        &self,
        cache: &mut ThreadCache,
        sink: &mut S,
        align: u64,
        bytes: u64,
    ) -> Result<Allocation, AllocError> {
        if align <= ALIGNMENT {
            return self.malloc(cache, sink, bytes).ok_or(AllocError::NoMemory);
        }
        Step { heap: self, cache, sink }.memalign(align.max(MIN_CHUNK), bytes)
    }

    /// C `aligned_alloc`: as [`Heap::memalign`], but a policy since 2.38 rejects what is no power of two.
    ///
    /// # Errors
    /// As for [`Heap::memalign`].
    pub fn aligned_alloc<S: Sink>(
        &self,
        cache: &mut ThreadCache,
        sink: &mut S,
        align: u64,
        bytes: u64,
    ) -> Result<Allocation, AllocError> {
        if self.settings.policy().aligned_alloc_is_strict && !align.is_power_of_two() {
            return Err(AllocError::BadAlignment);
        }
        self.memalign(cache, sink, align, bytes)
    }

    /// C `posix_memalign`: the alignment must be a power of two and a multiple of 8. The error is its return value.
    ///
    /// # Errors
    /// `NoMemory` or `BadAlignment`.
    pub fn posix_memalign<S: Sink>(
        &self,
        cache: &mut ThreadCache,
        sink: &mut S,
        align: u64,
        bytes: u64,
    ) -> Result<Allocation, AllocError> {
        if !align.is_power_of_two() || !align.is_multiple_of(8) {
            return Err(AllocError::BadAlignment);
        }
        self.memalign(cache, sink, align, bytes)
    }

    /// C `valloc`: page-aligned.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn valloc<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, bytes: u64) -> Result<Allocation, AllocError> {
        self.memalign(cache, sink, self.os.page_bytes(), bytes)
    }

    /// C `pvalloc`: page-aligned, and the size rounded up to pages.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn pvalloc<S: Sink>(
        &self,
        cache: &mut ThreadCache,
        sink: &mut S,
        bytes: u64,
    ) -> Result<Allocation, AllocError> {
        let page = self.os.page_bytes();
        let rounded = bytes.checked_next_multiple_of(page).ok_or(AllocError::NoMemory)?;
        self.memalign(cache, sink, page, rounded)
    }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    fn memalign(&mut self, align: u64, bytes: u64) -> Result<Allocation, AllocError> {
        if self.policy().memalign_limits_alignment && align > i64::MAX as u64 {
            return Err(AllocError::NoMemory);
        }
        let align = align.checked_next_power_of_two().ok_or(AllocError::BadAlignment)?;
        let size = for_request(bytes).ok_or(AllocError::NoMemory)?;
        if self.policy().memalign_scans_tcache
            && let Some(found) = self.cache.pop_aligned(self.words(), size, align)
        {
            return Ok(self.heap.cached::<S>(found, size));
        }
        let padded_request = size.checked_add(align + MIN_CHUNK).ok_or(AllocError::NoMemory)?;
        let padded = for_request(padded_request).ok_or(AllocError::NoMemory)?;
        self.in_some_arena(padded_request, |step, arena| {
            let found = step.allocate(arena, padded)?;
            let chunk = step.align_within(arena, found, align);
            step.trim_tail(arena, chunk, size);
            Some(step.served(arena, chunk))
        })
        .ok_or(AllocError::NoMemory)
    }

    /// The chunk inside `found` whose block is aligned; the leader before it is given back, or in a mapping becomes the
    /// chunk's offset.
    fn align_within(&mut self, arena: &mut ArenaState, found: u64, align: u64) -> u64 {
        let words = self.words();
        let mut chunk = round_up(found + HEADER, align) - HEADER;
        if chunk == found {
            return found;
        }
        if chunk - found < MIN_CHUNK {
            chunk += align;
        }
        let leader = chunk - found;
        let head = words.head(found);
        let rest = (head & !FLAGS) - leader;
        if head & IS_MMAPPED != 0 {
            words.set_prev_size(chunk, words.prev_size(found) + leader);
            words.set_head(chunk, rest | IS_MMAPPED);
            return chunk;
        }
        words.set_head(chunk, rest | PREV_INUSE | arena.chunk_flag());
        words.mark_inuse(chunk, rest);
        words.set_head(found, leader | (head & FLAGS));
        self.give_back(arena, found, leader);
        chunk
    }

    /// Gives back what an aligned chunk has beyond `size`, if that is worth it.
    fn trim_tail(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        let words = self.words();
        let head = words.head(chunk);
        if head & IS_MMAPPED != 0 {
            return;
        }
        let found_size = head & !FLAGS;
        let next = chunk + found_size;
        let is_worth_it = match self.policy().memalign_rests {
            AlignedRests::Freed => found_size > size + MIN_CHUNK,
            AlignedRests::Merged => {
                let borders_free = next == arena.top || !words.inuse(next, words.size(next));
                found_size >= size + MIN_CHUNK || (found_size > size && borders_free)
            }
        };
        if !is_worth_it {
            return;
        }
        let tail = chunk + size;
        let tail_size = found_size - size;
        words.set_head(tail, tail_size | PREV_INUSE | arena.chunk_flag());
        words.set_head(chunk, size | (head & FLAGS));
        self.give_back(arena, tail, tail_size);
    }

    fn give_back(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        match self.policy().memalign_rests {
            AlignedRests::Freed => self.free_inner(arena, chunk),
            AlignedRests::Merged => {
                let direct = self.policy().small_free_skips_unsorted;
                self.merge(arena, chunk, size, direct);
            }
        }
    }
}
