//! Serving a chunk from an arena: steps 4 to 9 of section 3 of the placement policy.
//!
//! The order is the policy, and each step exists for a reason of its own: exact fits first because they fragment
//! nothing; then the unsorted queue, which gives every freed chunk one chance before it is sorted; then the best fit
//! among larger chunks; the top last, because what is cut from it moves the frontier.

use super::arena::ArenaState;
use super::bins::{UNSORTED, is_known_ahead};
use super::checks;
use super::chunk::{FLAGS, LARGE_MIN, MIN_CHUNK, PREV_INUSE, bin_index};
use super::fault::HeapFault;
use super::malloc::Fit;
use super::os::Os;
use super::sink::Sink;
use super::step::{Filling, Step};
use crate::units::Addr;
use crate::wire::{BinKind, HeapEvent};

/// Chunks that one search sorts before it goes on (placement policy, section 1).
const MAX_ITERATIONS: u64 = 10_000;

/// What the search of the unsorted bin came to.
enum Sorted {
    Found(u64),
    NotFound,
}

/// The kind of the bin that holds a sorted chunk.
pub(super) fn sorted_kind(size: u64) -> BinKind {
    if size < LARGE_MIN { BinKind::Small } else { BinKind::Large }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// A chunk of `size` bytes or, where a rest would be too small to be a chunk, slightly more. `None`: this arena
    /// cannot serve it.
    #[inline(never)]
    pub(super) fn allocate(&mut self, arena: &mut ArenaState, size: u64) -> Option<u64> {
        self.allocate_inline(arena, size)
    }

    /// The same for the one caller that is to have a copy of it.
    #[inline(always)]
    pub(super) fn allocate_inline(&mut self, arena: &mut ArenaState, size: u64) -> Option<u64> {
        if size <= self.heap.settings.max_fast.get()
            && let Some(chunk) = self.pop_fast(arena, size)
        {
            return Some(chunk);
        }
        let small = size < LARGE_MIN;
        let bin = bin_index(size);
        if small {
            if let Some(chunk) = self.take_small(arena, bin, size) {
                return Some(chunk);
            }
        } else if arena.have_fast {
            self.consolidate(arena);
        }
        let mut binned = 0;
        loop {
            if let Sorted::Found(chunk) = self.sort_queue(arena, size, &mut binned) {
                return Some(chunk);
            }
            if !small && let Some(chunk) = self.take_large(arena, bin, size) {
                return Some(chunk);
            }
            if let Some(chunk) = self.take_best_fit(arena, bin, size) {
                return Some(chunk);
            }
            if let Some(chunk) = self.cut_top(arena, size) {
                return Some(chunk);
            }
            if self.cache.has_damage() {
                return None;
            }
            if !arena.have_fast {
                return self.grow(arena, size);
            }
            self.consolidate(arena);
        }
    }

    /// Step 5: the oldest chunk of `bin`, the small bin of exactly this size; the rest of the bin moves to the cache.
    #[inline(always)]
    fn take_small(&mut self, arena: &mut ArenaState, bin: usize, size: u64) -> Option<u64> {
        let words = self.words();
        let found = arena.bins.back(words, bin)?;
        let ahead = words.bk(found);
        if !is_known_ahead(words, ahead, found) {
            arena.bins.abandon(words, bin);
            self.note_fault(HeapFault::SmallLinks, found);
            return None;
        }
        arena.bins.unlink_back(words, bin, ahead);
        self.mark_live(arena, found, size);
        self.ensure_cache_for_fit(arena, size, Fit::SmallBin);
        let mut filling = Filling::of(size);
        while self.cache.has_room(size)
            && let Some(moved) = arena.bins.back(words, bin)
        {
            arena.bins.unlink_back(words, bin, words.bk(moved));
            self.mark_live(arena, moved, size);
            self.fill_cache(arena, &mut filling, moved);
        }
        self.tell_filling(arena, &mut filling);
        Some(found)
    }

    /// Marks a whole chunk live, after it left its bin.
    #[inline]
    pub(super) fn mark_live(&mut self, arena: &ArenaState, chunk: u64, size: u64) {
        let words = self.words();
        words.mark_inuse(chunk, size);
        words.set_head(chunk, words.head(chunk) | arena.chunk_flag());
    }

    /// Step 6: takes chunks from the unsorted queue, oldest first; keeps exact fits, sorts the others into their bins.
    #[inline(always)]
    fn sort_queue(&mut self, arena: &mut ArenaState, size: u64, binned: &mut u64) -> Sorted {
        let words = self.words();
        let mut cached = false;
        let mut iterations = 0;
        // The latest rest, if a request of this size may be cut from it; no chunk is at 0.
        let cuttable = |arena: &ArenaState| if size < LARGE_MIN { arena.last_remainder } else { 0 };
        let mut remainder = cuttable(arena);
        while let Some(chunk) = arena.bins.back(words, UNSORTED) {
            let (found_size, ahead) = match checks::unsorted(words, arena, chunk) {
                Ok(found) => found,
                Err(fault) => {
                    arena.bins.abandon(words, UNSORTED);
                    self.note_fault(fault, chunk);
                    break;
                }
            };
            arena.bins.unlink_back(words, UNSORTED, ahead);
            if chunk == remainder && ahead == arena.bins.end(UNSORTED) && found_size > size + MIN_CHUNK {
                self.split(arena, chunk, found_size, size);
                arena.last_remainder = chunk + size;
                return Sorted::Found(chunk);
            }
            if found_size == size {
                self.mark_live(arena, chunk, size);
                self.ensure_cache_for_fit(arena, size, Fit::Unsorted);
                // A cache that came into being was itself cut from some chunk.
                remainder = cuttable(arena);
                if self.policy().unsorted_fits_are_cached && self.cache.has_room(size) {
                    self.put_into_cache(arena, chunk, size);
                    cached = true;
                    continue;
                }
                return Sorted::Found(chunk);
            }
            self.put_into_own_bin(arena, chunk, found_size);
            iterations += 1;
            if cached && self.has_binned_enough(*binned + iterations) || iterations >= MAX_ITERATIONS {
                break;
            }
        }
        *binned += iterations;
        match cached.then(|| self.cache.pop(words, size)).flatten() {
            Some(chunk) => Sorted::Found(chunk),
            None => Sorted::NotFound,
        }
    }

    /// Whether a search that has put chunks into the cache ends, by `tcache_unsorted_limit`.
    #[inline(never)]
    fn has_binned_enough(&self, binned: u64) -> bool {
        let limit = self.heap.settings.tcache_unsorted_limit.get();
        limit > 0 && binned > limit
    }

    /// Step 7: the smallest sufficient chunk of the large bin that `size` itself belongs to.
    #[inline(always)]
    fn take_large(&mut self, arena: &mut ArenaState, bin: usize, size: u64) -> Option<u64> {
        let words = self.words();
        let chunk = arena.bins.best_in_large(words, bin, size)?;
        let found_size = words.size(chunk);
        if self.is_faulty(arena.bins.unlink(words, chunk, found_size), chunk) {
            arena.bins.abandon(words, bin);
            return None;
        }
        self.take_from_sorted(arena, chunk, found_size, size, HeapFault::UnsortedAtSplit);
        Some(chunk)
    }

    /// Step 8: the last chunk of the lowest bin whose sizes are all larger than those of `own_bin`, that of `size`.
    #[inline(always)]
    fn take_best_fit(&mut self, arena: &mut ArenaState, own_bin: usize, size: u64) -> Option<u64> {
        let words = self.words();
        let (bin, chunk) = arena.bins.next_occupied(words, own_bin)?;
        let found_size = words.size(chunk);
        if self.is_faulty(arena.bins.unlink(words, chunk, found_size), chunk) {
            arena.bins.abandon(words, bin);
            return None;
        }
        let was_split = self.take_from_sorted(arena, chunk, found_size, size, HeapFault::UnsortedAtBestFit);
        if was_split && size < LARGE_MIN {
            arena.last_remainder = chunk + size;
        }
        Some(chunk)
    }

    /// Hands out an unlinked chunk of `found_size` bytes: split if the rest is a chunk, else whole. Returns whether it was
    /// split. `otherwise` is the fault if the bin that the rest goes to was overwritten.
    #[inline(always)]
    fn take_from_sorted(
        &mut self,
        arena: &mut ArenaState,
        chunk: u64,
        found_size: u64,
        size: u64,
        otherwise: HeapFault,
    ) -> bool {
        if found_size - size < MIN_CHUNK {
            self.mark_live(arena, chunk, found_size);
            return false;
        }
        let words = self.words();
        if self.is_faulty(checks::front_of_unsorted(words, &arena.bins, otherwise), chunk) {
            arena.bins.abandon(words, UNSORTED);
        }
        self.split(arena, chunk, found_size, size);
        true
    }

    /// Cuts an unlinked free chunk: the front is live, the rest goes in front of the unsorted bin.
    #[inline(always)]
    fn split(&mut self, arena: &mut ArenaState, chunk: u64, found_size: u64, size: u64) {
        let words = self.words();
        let (rest, rest_size) = (chunk + size, found_size - size);
        words.set_head(chunk, size | PREV_INUSE | arena.chunk_flag());
        words.set_head(rest, rest_size | PREV_INUSE);
        words.set_prev_size(rest + rest_size, rest_size);
        arena.bins.push_unsorted(words, rest, rest_size);
        let event = HeapEvent::Split { addr: Addr(chunk), front_bytes: size, rest_bytes: rest_size, from_top: false };
        self.tell(arena, event);
    }

    /// Step 9: cuts the chunk from the low end of the top, which must keep a smallest chunk.
    #[inline]
    pub(super) fn cut_top(&mut self, arena: &mut ArenaState, size: u64) -> Option<u64> {
        if arena.top == 0 {
            return None;
        }
        let words = self.words();
        let chunk = arena.top;
        let head = words.head(chunk);
        let top_size = head & !FLAGS;
        if top_size > arena.system_bytes {
            arena.top = 0;
            self.note_fault(HeapFault::TopSize, chunk);
            return None;
        }
        if top_size < size + MIN_CHUNK {
            return None;
        }
        words.set_head(chunk, size | PREV_INUSE | arena.chunk_flag());
        arena.top = chunk + size;
        words.set_head(arena.top, (top_size - size) | PREV_INUSE);
        let rest_bytes = top_size - size;
        self.tell(arena, HeapEvent::Split { addr: Addr(chunk), front_bytes: size, rest_bytes, from_top: true });
        Some(chunk)
    }
}
