//! `memalign` and its family: a larger chunk, of which what lies before and behind the aligned block is given back.
//!
//! Section 5 of the placement policy.

use super::arena::ArenaState;
use super::chunk::{
    ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, OVERHEAD, PREV_INUSE, bin_index, for_request, round_up,
};
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
        let made = Step { heap: self, cache, sink }.memalign(align.max(MIN_CHUNK), bytes)?;
        self.hand_out(made.addr);
        Ok(made)
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

/// Bytes of `chunk` before the first one in it whose block is aligned: none, or at least `least`.
fn leader_bytes(chunk: u64, align: u64, least: u64) -> u64 {
    let leader = round_up(chunk + HEADER, align) - HEADER - chunk;
    if leader == 0 || leader >= least { leader } else { leader + align }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    fn memalign(&mut self, align: u64, bytes: u64) -> Result<Allocation, AllocError> {
        let align = align.checked_next_power_of_two().ok_or(AllocError::BadAlignment)?;
        let size = for_request(bytes).ok_or(AllocError::NoMemory)?;
        if self.policy().memalign_scans_tcache
            && let Some(found) = self.cache.pop_aligned(self.words(), size, align)
        {
            return Ok(self.heap.cached::<S>(found, size));
        }
        let padded_request = size.checked_add(align + MIN_CHUNK).ok_or(AllocError::NoMemory)?;
        let padded = for_request(padded_request).ok_or(AllocError::NoMemory)?;
        // An arena is told of the bytes that were asked for, not of the chunk that they come to.
        self.in_some_arena(bytes + align + MIN_CHUNK, |step, arena| {
            let (found, served_bytes) = match step.take_alignable(arena, size, align) {
                Some(found) => (found, step.words().size(found) - OVERHEAD),
                None => (step.allocate(arena, padded)?, padded_request),
            };
            // What is cut off afterwards as well: the cache may hand it out as it is.
            step.perturb_allocated(found + HEADER, served_bytes);
            let chunk = step.align_within(arena, found, align);
            step.trim_tail(arena, chunk, size);
            Some(step.served(arena, chunk))
        })
        .ok_or(AllocError::NoMemory)
    }

    /// A chunk of the bins for `size` to twice that in which an aligned block of `size` finds place, where the release
    /// looks for one: the oldest, or in a large bin the smallest, of the lowest bin that has one.
    fn take_alignable(&mut self, arena: &mut ArenaState, size: u64, align: u64) -> Option<u64> {
        if !self.policy().memalign_scans_bins {
            return None;
        }
        let words = self.words();
        for bin in bin_index(size)..=bin_index(2 * size - ALIGNMENT) {
            let mut next = arena.bins.back(words, bin);
            while let Some(found) = next {
                if leader_bytes(found, align, MIN_CHUNK) + size <= words.size(found) {
                    let found_size = words.size(found);
                    if self.is_faulty(arena.bins.unlink(words, found, found_size), found) {
                        return None;
                    }
                    self.mark_live(arena, found, found_size);
                    return Some(found);
                }
                next = arena.bins.next_from_back(words, bin, found);
            }
        }
        None
    }

    /// The chunk inside `found` whose block is aligned; the leader before it is given back, or in a mapping becomes the
    /// chunk's offset.
    fn align_within(&mut self, arena: &mut ArenaState, found: u64, align: u64) -> u64 {
        let words = self.words();
        let head = words.head(found);
        let is_mapped = head & IS_MMAPPED != 0;
        let least = if is_mapped { self.policy().mapped_layout.least_offset() } else { MIN_CHUNK };
        let leader = leader_bytes(found, align, least);
        if leader == 0 {
            return found;
        }
        let chunk = found + leader;
        let rest = (head & !FLAGS) - leader;
        if is_mapped {
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
                self.free_merged(arena, chunk, size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::heap::{AllocError, Heap, Live, NoSink, Policy, ThreadCache, Tunables};

    #[test]
    fn an_alignment_that_is_no_power_of_two_is_rounded_up_or_rejected_as_the_release_does() {
        for (policy, is_strict) in [(Policy::GLIBC_2_36, false), (Policy::GLIBC_2_38, true)] {
            let heap = Heap::new(Live::new());
            heap.configure(&policy, &Tunables::NONE);
            let made = heap.aligned_alloc(&mut ThreadCache::new(), &mut NoSink, 100, 24);
            match made {
                Ok(made) => assert!(!is_strict && made.addr.0.is_multiple_of(128)),
                Err(error) => assert!(is_strict && error == AllocError::BadAlignment),
            }
        }
    }
}
