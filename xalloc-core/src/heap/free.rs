//! `free`, and the frees that the heap makes by itself.
//!
//! # Safety
//! - `free` and its relatives are called with what the heap handed out; their contract says so, and what can be checked
//!   of it at the price that glibc pays is checked before anything changes.
#![allow(unsafe_code)]

use super::allocate::sorted_kind;
use super::arena::ArenaState;
use super::bins::UNSORTED;
use super::checks;
use super::chunk::{
    ALIGNMENT, CONSOLIDATION_THRESHOLD, FLAGS, HEADER, IS_MMAPPED, LARGE_MIN, NON_MAIN, OVERHEAD, PREV_INUSE,
    fast_index,
};
use super::malloc::Caller;
use super::os::Os;
use super::sink::Sink;
use super::step::Step;
use super::tcache::{KEY, Stage, ThreadCache};
use super::words::Words;
use super::{Heap, HeapFault};
use crate::units::Addr;
use crate::wire::{BinKind, HeapEvent, Merged};

/// A block that a thread's cache has room for, until anything else is asked of that cache.
#[derive(Debug)]
pub struct Cacheable {
    pub(super) chunk: u64,
    pub(super) size: u64,
}

/// A block that the main arena has a fast bin for, until anything else is asked of the heap.
#[derive(Debug)]
pub struct FastBinnable {
    chunk: u64,
    /// Bytes of the chunk.
    pub size_bytes: u64,
}

/// On whose behalf a chunk is merged with its neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Merging {
    /// A free's.
    Free,
    /// That of the fast bins, which are emptied. The result always goes to the unsorted bin.
    Consolidation,
}

impl<O: Os> Heap<O> {
    /// Takes a block back. The null pointer is the caller's to sort out. Leaves `errno` undefined: a C `free` saves it.
    ///
    /// # Errors
    /// The pointer is not a live block, or the heap around it was overwritten; nothing was changed.
    ///
    /// # Safety
    /// - `addr` was returned by this heap and has not been freed since; or, if it was not, the words before and behind
    ///   it are readable, and what they say is not the layout of a chunk.
    /// - Nobody uses the block any more.
    /// - `cache` was used with no other heap.
    #[inline]
    pub unsafe fn free<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, addr: Addr) -> Result<(), HeapFault> {
        self.claim(addr)?;
        // SAFETY: by the contract, and the block was claimed.
        if let Some(found) = unsafe { self.cacheable(cache, addr) } {
            self.free_cached(cache, found);
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { self.free_claimed(cache, sink, addr) }
    }

    /// The rest of a free that [`Heap::cacheable`] denied: as [`Heap::free`], of a block that the caller has claimed.
    ///
    /// # Errors
    /// As for [`Heap::free`].
    ///
    /// # Safety
    /// - As for [`Heap::free`]; [`Heap::claim`] said that the block is one, and the caller claimed it once.
    #[inline]
    pub unsafe fn free_claimed<S: Sink>(
        &self,
        cache: &mut ThreadCache,
        sink: &mut S,
        addr: Addr,
    ) -> Result<(), HeapFault> {
        let chunk = addr.0.wrapping_sub(HEADER);
        if !chunk.is_multiple_of(ALIGNMENT) {
            return Err(HeapFault::InvalidPointer);
        }
        let head = Words(&self.os).head(chunk);
        Step { heap: self, cache: &mut *cache, sink }.free_slowly(chunk, head)?;
        cache.take_damage().map_or(Ok(()), |damage| Err(damage.fault))
    }

    /// The first half of a free that enters no arena, and so tells the sink nothing: whether the thread's cache takes
    /// the block into one of its bins of one size each. `None`: [`Heap::free_claimed`] is to be called. Nothing has
    /// changed in either case.
    ///
    /// # Safety
    /// - As for [`Heap::free_claimed`].
    #[inline(always)]
    pub unsafe fn cacheable(&self, cache: &ThreadCache, addr: Addr) -> Option<Cacheable> {
        let words = Words(&self.os);
        let chunk = addr.0.wrapping_sub(HEADER);
        if !chunk.is_multiple_of(ALIGNMENT) {
            return None;
        }
        let head = words.head(chunk);
        // Bit 3 is no flag and no part of a size; a mapped chunk goes the long way as well.
        if head & (IS_MMAPPED | OVERHEAD) != 0 {
            return None;
        }
        let size = head & !FLAGS;
        (cache.has_small_room(size) && words.bk(chunk) != KEY).then_some(Cacheable { chunk, size })
    }

    /// The second half: puts the block into the cache that was asked.
    #[inline(always)]
    pub fn free_cached(&self, cache: &mut ThreadCache, Cacheable { chunk, size }: Cacheable) {
        cache.link(Words(&self.os), chunk, ThreadCache::bin_of(size));
    }

    /// As [`Heap::cacheable`], whether a fast bin of the main arena takes the block, in a process with one thread: then
    /// the way into the bin is all that the free leads to. `None`: [`Heap::free_claimed`] is to be called. Nothing has
    /// changed in either case.
    ///
    /// # Safety
    /// - As for [`Heap::free_claimed`]; [`Heap::cacheable`] denied it.
    #[inline(always)]
    pub unsafe fn fast_binnable(&self, cache: &ThreadCache, addr: Addr) -> Option<FastBinnable> {
        let words = Words(&self.os);
        let chunk = addr.0.wrapping_sub(HEADER);
        let head = words.head(chunk);
        let size = head & !FLAGS;
        let max_fast = self.settings.max_fast.get();
        let is_plain = head & (IS_MMAPPED | NON_MAIN) == 0 && size <= max_fast && words.bk(chunk) != KEY;
        if !is_plain || self.is_multithreaded() || cache.stage != Stage::Live || self.settings.perturb.get() != 0 {
            return None;
        }
        let is_sound = checks::shape(chunk, size).is_ok()
            && checks::entrance(words, &self.main.enter_alone(&self.os), max_fast, chunk, size).is_ok();
        is_sound.then_some(FastBinnable { chunk, size_bytes: size })
    }

    /// Puts the block into the bin that was asked for. The answer is the step's place in the order of the arena.
    #[inline(always)]
    pub fn free_fast(&self, FastBinnable { chunk, size_bytes }: FastBinnable) -> u16 {
        let mut arena = self.main.enter_alone(&self.os);
        arena.push_fast(Words(&self.os), chunk, fast_index(size_bytes));
        arena.tick()
    }

    /// Takes a block back if that needs neither cache nor arena nor lock, that is if it has a mapping of its own.
    /// `false`: it has not, or it is none, and nothing has changed.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    pub unsafe fn free_detached<S: Sink>(&self, sink: &mut S, addr: Addr) -> bool {
        if self.look(addr).is_err() {
            return false;
        }
        let chunk = addr.0.wrapping_sub(HEADER);
        let is_mapped = Words(&self.os).head(chunk) & IS_MMAPPED != 0;
        // SAFETY: the contract is the same, and the block was claimed.
        is_mapped && self.take_back(addr) && unsafe { self.free_detached_claimed(sink, addr) }
    }

    /// As [`Heap::free_detached`], of a block that the caller has claimed. `false`: the caller frees it later.
    ///
    /// # Safety
    /// As for [`Heap::free_claimed`].
    pub unsafe fn free_detached_claimed<S: Sink>(&self, sink: &mut S, addr: Addr) -> bool {
        let chunk = addr.0.wrapping_sub(HEADER);
        if Words(&self.os).head(chunk) & IS_MMAPPED == 0 {
            return false;
        }
        let mut unused = ThreadCache::new();
        Step { heap: self, cache: &mut unused, sink }.free_mapped(chunk).is_ok()
    }

    /// Bytes that the program may use of the block at `addr`.
    ///
    /// # Safety
    /// - `addr` was returned by this heap and has not been freed since.
    #[must_use]
    pub unsafe fn usable_size(&self, addr: Addr) -> u64 {
        let head = Words(&self.os).head(addr.0.wrapping_sub(HEADER));
        let size = head & !FLAGS;
        if head & IS_MMAPPED != 0 { self.usable_of_mapped(size) } else { size.wrapping_sub(OVERHEAD) }
    }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// A free that the cache's fast path did not take.
    #[inline(always)]
    pub(super) fn free_slowly(&mut self, chunk: u64, head: u64) -> Result<(), HeapFault> {
        if head & IS_MMAPPED != 0 {
            return self.free_mapped(chunk);
        }
        let size = head & !FLAGS;
        self.ensure_cache_for(Caller::Free, size);
        self.check_shape(chunk, size)?;
        let words = self.words();
        self.check_not_cached(chunk, size)?;
        if self.cache.has_room(size) {
            self.cache.push(words, chunk, size);
            return Ok(());
        }
        if head & NON_MAIN == 0 && !self.heap.is_multithreaded() {
            return self.free_checked(&mut self.heap.main.enter_alone(&self.heap.os), chunk, size);
        }
        self.free_to_owner(chunk, size)
    }

    /// A free to the arena that the chunk's words name.
    #[inline(always)]
    fn free_to_owner(&mut self, chunk: u64, size: u64) -> Result<(), HeapFault> {
        let heap = self.heap;
        let owner = heap.arenas.get(heap.arena_of(chunk), &heap.main).ok_or(HeapFault::InvalidPointer)?;
        match heap.enter(owner, self.cache) {
            Some(mut arena) => self.free_checked(&mut arena, chunk, size),
            // The arena's state was lost with its thread in a fork; the block stays where it is.
            None => Ok(()),
        }
    }

    /// A free of what may be no chunk of the arena.
    #[inline(always)]
    fn free_checked(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) -> Result<(), HeapFault> {
        checks::entrance(self.words(), arena, self.heap.settings.max_fast.get(), chunk, size)?;
        self.free_uncached(arena, chunk, size);
        Ok(())
    }

    /// A free that the heap makes by itself: of what it split off. It takes the way of a user's free, the thread's
    /// cache included where the release does so.
    #[inline(never)]
    pub(super) fn free_inner(&mut self, arena: &mut ArenaState, chunk: u64) {
        let words = self.words();
        let size = words.size(chunk);
        if self.policy().inner_free_uses_tcache && self.cache.has_room(size) {
            self.put_into_cache(arena, chunk, size);
        } else {
            self.free_uncached(arena, chunk, size);
        }
    }

    /// Whether the release lets a chunk of that place and size pass.
    #[inline(always)]
    fn check_shape(&self, chunk: u64, size: u64) -> Result<(), HeapFault> {
        checks::shape(chunk, size).or_else(|fault| checks::judged_by(self.policy(), fault, chunk, size))
    }

    /// Whether the thread's cache holds the chunk already, which then bears its mark.
    #[inline(always)]
    fn check_not_cached(&self, chunk: u64, size: u64) -> Result<(), HeapFault> {
        let words = self.words();
        if words.bk(chunk) == KEY && self.cache.holds(words, chunk, size)? {
            return Err(HeapFault::DoubleFreeCached);
        }
        Ok(())
    }

    /// As [`Step::free_inner`], of the chunk that a block was moved from: the program's pointer says that it is one, so it
    /// is looked at as what a program frees.
    #[inline(never)]
    pub(super) fn free_moved(&mut self, arena: &mut ArenaState, chunk: u64) -> Result<(), HeapFault> {
        let words = self.words();
        let size = words.size(chunk);
        self.check_shape(chunk, size)?;
        let may_cache = self.policy().inner_free_uses_tcache;
        if may_cache {
            self.check_not_cached(chunk, size)?;
        }
        if !(may_cache && self.cache.has_room(size)) {
            checks::entrance(words, arena, self.heap.settings.max_fast.get(), chunk, size)?;
        }
        self.free_inner(arena, chunk);
        Ok(())
    }

    /// Steps 2 to 4 of section 4: the fast bin, or merging, and what a large result sets off.
    #[inline(always)]
    pub(super) fn free_uncached(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        let perturb = self.heap.settings.perturb.get() as u8;
        if perturb != 0 {
            self.words().fill(chunk + HEADER, size - HEADER, perturb);
        }
        if size <= self.heap.settings.max_fast.get() {
            self.push_fast(arena, chunk, size);
            return;
        }
        self.free_merged(arena, chunk, size);
    }

    /// Steps 3 and 4: merging, and what a large result sets off.
    #[inline(always)]
    pub(super) fn free_merged(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        let merged = self.merge(arena, chunk, size, Merging::Free);
        if merged >= CONSOLIDATION_THRESHOLD {
            self.after_large_free(arena);
        }
    }

    /// Step 4: a large free block appeared; empty the fast bins, and trim if the top has grown large.
    #[inline(never)]
    fn after_large_free(&mut self, arena: &mut ArenaState) {
        if arena.have_fast {
            self.consolidate(arena);
        }
        let settings = &self.heap.settings;
        let top_pad = settings.top_pad.get();
        if !arena.is_main() {
            self.trim_heaps(arena, top_pad);
        } else if arena.top != 0 && self.words().size(arena.top) >= settings.trim_threshold.get() {
            self.trim_top(arena, top_pad);
        }
    }

    /// Step 3: merges a chunk with its free neighbours and puts the result into the top or a bin. Returns its size, the
    /// top included; 0 if a neighbour was overwritten, and the chunk stays where it is.
    #[inline(always)]
    pub(super) fn merge(&mut self, arena: &mut ArenaState, chunk: u64, size: u64, merging: Merging) -> u64 {
        let words = self.words();
        let freed_bytes = size;
        let (mut chunk, mut size) = (chunk, size);
        let mut merged = Merged::default();
        if !words.prev_inuse(chunk) {
            let previous_size = words.prev_size(chunk);
            let previous = chunk.wrapping_sub(previous_size);
            let checked = checks::size_below(words, previous, previous_size, merging);
            if self.is_faulty(checked.and_then(|()| arena.bins.unlink(words, previous, previous_size)), previous) {
                return 0;
            }
            chunk = previous;
            size += previous_size;
            merged.previous = true;
        }
        let next = chunk + size;
        if next == arena.top {
            size += words.size(next);
            words.set_head(chunk, size | PREV_INUSE);
            arena.top = chunk;
            merged.top = true;
        } else {
            let next_head = words.head(next);
            let next_size = next_head & !FLAGS;
            if words.inuse(next, next_size) {
                words.set_head(next, next_head & !PREV_INUSE);
            } else {
                if self.is_faulty(arena.bins.unlink(words, next, next_size), next) {
                    return 0;
                }
                size += next_size;
                merged.next = true;
            }
            words.set_head(chunk, size | PREV_INUSE);
            words.set_prev_size(chunk + size, size);
        }
        if merged != Merged::default() {
            self.tell(arena, HeapEvent::Coalesce { addr: Addr(chunk), freed_bytes, total_bytes: size, merged });
        }
        if !merged.top {
            self.put_merged(arena, chunk, size, merging);
        }
        size
    }

    /// Puts a merged chunk in front of the unsorted bin, or a small one into its own bin where the release does so.
    #[inline(always)]
    fn put_merged(&mut self, arena: &mut ArenaState, chunk: u64, size: u64, merging: Merging) {
        let words = self.words();
        if merging == Merging::Free {
            if size < LARGE_MIN && self.policy().small_free_skips_unsorted {
                return self.put_into_own_bin(arena, chunk, size);
            }
            if self.is_faulty(checks::front_of_unsorted(words, &arena.bins, HeapFault::UnsortedAtFree), chunk) {
                arena.bins.abandon(words, UNSORTED);
            }
        }
        arena.bins.push_unsorted(words, chunk, size);
        self.tell_bin(arena, chunk, size, BinKind::Unsorted, UNSORTED);
    }

    /// Puts a free chunk into the bin of its size.
    #[inline(always)]
    pub(super) fn put_into_own_bin(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        match arena.bins.insert_sorted(self.words(), chunk, size) {
            Ok(bin) => self.tell_bin(arena, chunk, size, sorted_kind(size), bin),
            Err(fault) => self.note_fault(fault, chunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::sim::Simulation;
    use crate::heap::{Class, Live, NoSink, Policy, Span, Tunables};

    #[test]
    fn the_size_above_a_block_that_goes_to_a_fast_bin_is_checked_by_the_bounds_of_libc() {
        for (word, is_refused) in
            [(0, true), (0x10, true), (0x11, false), (0x18, false), (0x20, false), (0x21000, true), (1 << 24, true)]
        {
            let mut process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
            let blocks = [(); 9].map(|()| process.malloc(0, &mut NoSink, 24).unwrap().addr);
            for &addr in &blocks[..7] {
                process.free(0, &mut NoSink, addr).unwrap();
            }
            Words(process.heap().system()).set_head(blocks[8].0 - HEADER, word);
            let fault = process.free(0, &mut NoSink, blocks[7]).err();
            assert_eq!(fault, is_refused.then_some(HeapFault::InvalidNextSizeFast), "{word:x}");
        }
    }

    #[test]
    fn what_is_freed_to_the_fast_bins_is_walked_over_as_such_and_nothing_else_is() {
        let mut process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        let blocks: Vec<_> = (0..1_000).map(|_| process.malloc(0, &mut NoSink, 24).unwrap().addr).collect();
        for &addr in &blocks[100..900] {
            process.free(0, &mut NoSink, addr).unwrap();
        }
        let mut fast = Vec::new();
        for _ in 0..2 {
            fast.clear();
            let note = |span: Span| {
                if span.class == Class::Fast {
                    fast.push(span.addr.up(HEADER));
                }
                true
            };
            process.walk(note).unwrap();
            assert_eq!(fast, blocks[107..900]);
        }
        // Living again they still hold the mark of the last walk.
        for _ in 0..800 {
            process.malloc(0, &mut NoSink, 24).unwrap();
        }
        let is_any_fast = |process: &mut Simulation| {
            let mut is_any = false;
            process
                .walk(|span| {
                    is_any |= span.class == Class::Fast;
                    true
                })
                .unwrap();
            is_any
        };
        assert!(!is_any_fast(&mut process));
    }

    /// What lies in `len` bytes from a user address on.
    fn bytes(addr: Addr, len: u64) -> Vec<u8> {
        let mut text = Vec::new();
        for at in (addr.0..addr.0 + len).step_by(8) {
            text.extend(Words(&Live::new()).prev_size(at).to_le_bytes());
        }
        text
    }

    #[test]
    fn memory_is_filled_where_the_user_wants_it_when_an_arena_serves_it_and_when_one_takes_it_back() {
        let heap = Heap::new(Live::new());
        heap.configure(&Policy::GLIBC_2_36, &Tunables { perturb: Some(0xa5), ..Tunables::NONE });
        let mut cache = ThreadCache::new();
        let block = heap.malloc(&mut cache, &mut NoSink, 3_000).unwrap().addr;
        assert!(bytes(block, 3_000).iter().all(|&byte| byte == 0x5a));
        heap.malloc(&mut cache, &mut NoSink, 24).unwrap();
        // SAFETY: the block is live and nobody uses it.
        unsafe { heap.free(&mut cache, &mut NoSink, block) }.unwrap();
        // Four links at its beginning, a size at its end.
        assert!(bytes(block.up(32), 2_960).iter().all(|&byte| byte == 0xa5));
        let cleared = heap.calloc(&mut cache, &mut NoSink, 1, 3_000).unwrap().addr;
        assert!(bytes(cleared, 3_000).iter().all(|&byte| byte == 0));
        let small = heap.malloc(&mut cache, &mut NoSink, 40).unwrap().addr;
        assert_eq!(bytes(small, 40), [0x5a; 40]);
        Words(heap.system()).fill(small.0, 40, 1);
        // SAFETY: as above.
        unsafe { heap.free(&mut cache, &mut NoSink, small) }.unwrap();
        assert_eq!(bytes(small.up(16), 24), [1; 24], "the cache fills nothing");
    }
}
