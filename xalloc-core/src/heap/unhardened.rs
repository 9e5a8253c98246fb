//! The shortest ways through the heap: for one that keeps no set of its blocks, and whose steps nobody wants told.
//!
//! [`Heap::malloc_cached`] and [`Heap::claim`] ask each time whether there is such a set, and for a block that it does not
//! have yet they call out of line. Their caller then saves registers for a call that it seldom makes. Here the question was
//! put once, and what a thread's cache can serve makes no call at all.
//!
//! # Safety
//! - [`Unhardened::free_cached`] is called with what the heap handed out; its contract says so.
#![allow(unsafe_code)]

use super::chunk::{self, ALIGNMENT, HEADER, IS_MMAPPED, OVERHEAD};
use super::os::Os;
use super::step::Step;
use super::tcache::{KEY, ThreadCache};
use super::words::Words;
use super::{Heap, HeapFault, NoSink, Reallocated};
use crate::units::Addr;

/// A heap that keeps no set of its blocks. It stays one: what hardens a heap comes before its first allocation.
#[derive(Debug)]
pub struct Unhardened<'a, O: Os>(&'a Heap<O>);

/// How [`Unhardened::realloc`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resized {
    /// The block is here.
    At(Addr),
    /// No memory (`ENOMEM`); the block is as it was.
    Failed,
    /// The pointer is not a live block; nothing was changed.
    Refused(HeapFault),
}

impl<O: Os> Heap<O> {
    /// This heap, if it keeps no set of its blocks.
    pub fn unhardened(&self) -> Option<Unhardened<'_, O>> {
        (!self.is_hardened()).then_some(Unhardened(self))
    }

    /// This heap, of which [`Heap::unhardened`] has said that it keeps no set of its blocks. Of one that does, blocks
    /// would be handed out that a later free takes for none.
    #[inline(always)]
    pub fn known_unhardened(&self) -> Unhardened<'_, O> {
        debug_assert!(!self.is_hardened());
        Unhardened(self)
    }
}

impl<O: Os> Unhardened<'_, O> {
    /// A block from one of the thread's bins of one size each. `None`: they have none, and nothing has changed.
    #[inline(always)]
    pub fn malloc_cached(&self, cache: &mut ThreadCache, bytes: u64) -> Option<Addr> {
        let chunk = cache.pop_bin(Words(&self.0.os), ThreadCache::bin_for(bytes))?;
        Some(Addr(chunk + HEADER))
    }

    /// The rest of a malloc that [`Unhardened::malloc_cached`] denied. `None`: no memory (`ENOMEM`).
    #[inline(always)]
    pub fn malloc_uncached(&self, cache: &mut ThreadCache, bytes: u64) -> Option<Addr> {
        let size = chunk::for_request(bytes)?;
        if let Some(found) = cache.pop_beyond_bins(Words(&self.0.os), size) {
            return Some(Addr(found + HEADER));
        }
        let mut step = Step { heap: self.0, cache, sink: &mut NoSink };
        match step.malloc_alone(size, bytes) {
            Some(made) => made.map(|chunk| Addr(chunk + HEADER)),
            None => step.malloc_slowly(size, bytes).map(|made| made.addr),
        }
    }

    /// A free that puts the block into one of the thread's bins of one size each. `false`: they do not take it, and
    /// nothing has changed; [`Unhardened::free_uncached`] is the rest of a free.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline(always)]
    pub unsafe fn free_cached(&self, cache: &mut ThreadCache, addr: Addr) -> bool {
        let words = Words(&self.0.os);
        let chunk = addr.0.wrapping_sub(HEADER);
        if !chunk.is_multiple_of(ALIGNMENT) {
            return false;
        }
        let head = words.head(chunk);
        // Bit 3 is no flag and no part of a size; a mapped chunk goes the long way as well.
        let is_ordinary = head & (IS_MMAPPED | OVERHEAD) == 0 && words.bk(chunk) != KEY;
        is_ordinary && cache.push_small(words, chunk, ThreadCache::bin_of(head))
    }

    /// The rest of a free that [`Unhardened::free_cached`] denied.
    ///
    /// # Errors
    /// As for [`Heap::free`].
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline(always)]
    pub unsafe fn free_uncached(&self, cache: &mut ThreadCache, addr: Addr) -> Result<(), HeapFault> {
        let chunk = addr.0.wrapping_sub(HEADER);
        if !chunk.is_multiple_of(ALIGNMENT) {
            return Err(HeapFault::InvalidPointer);
        }
        let head = Words(&self.0.os).head(chunk);
        Step { heap: self.0, cache, sink: &mut NoSink }.free_slowly(chunk, head)
    }

    /// A realloc to more than 0 bytes that takes what the block needs from the top above it, where that is all there is to
    /// do. `false`: nothing has changed; [`Unhardened::realloc`] does it.
    ///
    /// # Safety
    /// As for [`Heap::realloc`].
    #[inline(always)]
    pub unsafe fn extend(&self, cache: &mut ThreadCache, addr: Addr, bytes: u64) -> bool {
        debug_assert!(bytes > 0);
        let mut step = Step { heap: self.0, cache, sink: &mut NoSink };
        step.extend_alone(addr.0.wrapping_sub(HEADER), bytes)
    }

    /// As [`Heap::realloc`], of a request for more than 0 bytes, and with no more said of the block than where it is.
    ///
    /// # Safety
    /// As for [`Heap::realloc`].
    #[inline(always)]
    pub unsafe fn realloc(&self, cache: &mut ThreadCache, addr: Addr, bytes: u64) -> Resized {
        debug_assert!(bytes > 0);
        let mut step = Step { heap: self.0, cache, sink: &mut NoSink };
        match step.realloc::<Addr>(addr.0.wrapping_sub(HEADER), bytes) {
            Ok(Reallocated::InPlace(addr) | Reallocated::Moved(addr)) => Resized::At(addr),
            // Only a request for 0 bytes frees.
            Ok(Reallocated::Failed | Reallocated::Freed) => Resized::Failed,
            Err(fault) => Resized::Refused(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::heap::chunk::HEADER;
    use crate::heap::sim::Simulation;
    use crate::heap::words::Words;
    use crate::heap::{NoSink, Policy, Reallocated, Resized, ThreadCache, Tunables};
    use crate::units::Addr;

    #[test]
    fn a_heap_without_a_set_serves_from_the_cache_and_takes_back_as_one_that_asks_each_time() {
        let process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        let mut cache = ThreadCache::new();
        let plain = process.heap().unhardened().unwrap();
        assert!(plain.malloc_cached(&mut cache, 24).is_none(), "the cache is empty");
        let addr = plain.malloc_uncached(&mut cache, 24).unwrap();
        // SAFETY: the block is live.
        assert!(unsafe { plain.free_cached(&mut cache, addr) });
        // SAFETY: the words around a cached block are readable.
        assert!(!unsafe { plain.free_cached(&mut cache, addr) }, "the heap tells a double free");
        assert_eq!(plain.malloc_cached(&mut cache, 24), Some(addr));
    }

    #[test]
    fn what_only_a_large_bin_has_comes_the_long_way() {
        let policy = Policy { tcache_large_bins: true, ..Policy::GLIBC_2_42 };
        let tunables = Tunables { tcache_max_bytes: Some(100_000), ..Tunables::NONE };
        let process = Simulation::new(&policy, &tunables, 2);
        let mut cache = ThreadCache::new();
        let plain = process.heap().unhardened().unwrap();
        let addr = plain.malloc_uncached(&mut cache, 50_000).unwrap();
        // SAFETY: the block is live.
        assert!(!unsafe { plain.free_cached(&mut cache, addr) });
        // SAFETY: as before, for nothing has changed.
        unsafe { plain.free_uncached(&mut cache, addr) }.unwrap();
        assert_eq!(plain.malloc_cached(&mut cache, 50_000), None);
        assert_eq!(plain.malloc_uncached(&mut cache, 50_000), Some(addr));
    }

    #[test]
    fn a_realloc_says_where_the_block_is_or_why_it_is_nowhere() {
        let process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        let mut cache = ThreadCache::new();
        let plain = process.heap().unhardened().unwrap();
        let addr = plain.malloc_uncached(&mut cache, 24).unwrap();
        // SAFETY: the block is live, here and below.
        let mut resize = |bytes| unsafe { plain.realloc(&mut cache, addr, bytes) };
        assert_eq!(resize(1_000), Resized::At(addr), "the top is above it");
        assert_eq!(resize(u64::MAX), Resized::Failed);
        // SAFETY: the words around are readable.
        let refused = unsafe { plain.realloc(&mut cache, addr.up(8), 24) };
        assert!(matches!(refused, Resized::Refused(_)), "{refused:?}");
    }

    /// A step of a simple generator.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn the_short_ways_place_every_block_where_the_long_ones_place_it() {
        let mut long = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        let short = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        let (mut cache, mut state, mut extended) = (ThreadCache::new(), 1, 0);
        let plain = short.heap().unhardened().unwrap();
        let mut blocks = [Addr(0); 200];
        for step in 0..60_000 {
            let place = &mut blocks[(next(&mut state) % 200) as usize];
            let bytes = 1 + next(&mut state) % [100, 1_000, 5_000, 60_000][(next(&mut state) % 4) as usize];
            if *place == Addr(0) {
                let made = plain.malloc_cached(&mut cache, bytes);
                *place = made.or_else(|| plain.malloc_uncached(&mut cache, bytes)).unwrap();
                assert_eq!(long.malloc(0, &mut NoSink, bytes).unwrap().addr, *place, "step {step}");
                continue;
            }
            if next(&mut state).is_multiple_of(2) {
                // SAFETY: the block is live, here and below.
                if !unsafe { plain.free_cached(&mut cache, *place) } {
                    // SAFETY: as before, for nothing has changed.
                    unsafe { plain.free_uncached(&mut cache, *place) }.unwrap();
                }
                long.free(0, &mut NoSink, *place).unwrap();
                *place = Addr(0);
                continue;
            }
            let expected = match long.realloc(0, &mut NoSink, *place, bytes).unwrap() {
                Reallocated::InPlace(made) | Reallocated::Moved(made) => made.addr,
                Reallocated::Freed | Reallocated::Failed => panic!("step {step}"),
            };
            // SAFETY: as above.
            if unsafe { plain.extend(&mut cache, *place, bytes) } {
                extended += 1;
            } else {
                // SAFETY: as before, for nothing has changed.
                let resized = unsafe { plain.realloc(&mut cache, *place, bytes) };
                let Resized::At(addr) = resized else { panic!("step {step}: {resized:?}") };
                *place = addr;
            }
            assert_eq!(*place, expected, "step {step}");
        }
        assert!(extended > 10, "{extended}");
    }

    #[test]
    fn a_block_is_extended_by_what_the_top_has_and_not_otherwise() {
        let process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        let mut cache = ThreadCache::new();
        let plain = process.heap().unhardened().unwrap();
        let below = plain.malloc_uncached(&mut cache, 24).unwrap();
        let last = plain.malloc_uncached(&mut cache, 24).unwrap();
        // SAFETY: the blocks are live, here and below.
        let mut extends = |addr, bytes| unsafe { plain.extend(&mut cache, addr, bytes) };
        assert!(!extends(below, 100), "a live block is above it");
        assert!(!extends(last, 24), "it has the size");
        assert!(!extends(last, 1 << 20), "the top is smaller");
        assert!(!extends(last, u64::MAX), "no block is as large");
        assert!(!extends(last.up(8), 100), "no block is there");
        assert!(extends(last, 1_000));
        // SAFETY: as above.
        assert_eq!(unsafe { process.heap().usable_size(last) }, 1_000);
        Words(process.heap().system()).set_head(last.0 - HEADER + 1_008, 0);
        // SAFETY: as above.
        assert!(!unsafe { plain.extend(&mut cache, last, 2_000) }, "the size of the top is none");
    }

    #[test]
    fn a_hardened_heap_is_none() {
        let process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        assert!(process.heap().harden());
        assert!(process.heap().unhardened().is_none());
    }
}
