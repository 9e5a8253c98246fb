//! What a thread's cache does for a heap that keeps no set of its blocks.
//!
//! [`Heap::malloc_cached`] and [`Heap::free_cached`] ask each time whether there is such a set, and where there is one
//! they call out of line. Their caller then saves registers for a call that it seldom makes. Here the question is put
//! once, and what follows makes no call.
//!
//! # Safety
//! - [`Unhardened::free_cached`] is called with what the heap handed out; its contract says so.
#![allow(unsafe_code)]

use super::os::Os;
use super::sink::Sink;
use super::tcache::ThreadCache;
use super::words::Words;
use super::{Allocation, Heap};
use crate::units::Addr;

/// A heap that keeps no set of its blocks. It stays one: what hardens a heap comes before its first allocation.
#[derive(Debug)]
pub struct Unhardened<'a, O: Os>(&'a Heap<O>);

impl<O: Os> Heap<O> {
    /// This heap, if it keeps no set of its blocks.
    #[inline(always)]
    pub fn unhardened(&self) -> Option<Unhardened<'_, O>> {
        (!self.is_hardened()).then_some(Unhardened(self))
    }
}

impl<O: Os> Unhardened<'_, O> {
    /// As [`Heap::malloc_cached`].
    #[inline(always)]
    pub fn malloc_cached<S: Sink>(&self, cache: &mut ThreadCache, bytes: u64) -> Option<Allocation> {
        self.0.pop_cached::<S>(cache, bytes)
    }

    /// Both halves of a free that enters no arena. `false`: the cache does not take the block, and nothing has changed.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    #[inline(always)]
    pub unsafe fn free_cached(&self, cache: &mut ThreadCache, addr: Addr) -> bool {
        // SAFETY: by the contract.
        let Some(found) = (unsafe { self.0.cacheable(cache, addr) }) else { return false };
        cache.push(Words(&self.0.os), found.chunk, found.size);
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::heap::sim::Simulation;
    use crate::heap::{NoSink, Policy, ThreadCache, Tunables};

    #[test]
    fn a_heap_without_a_set_serves_from_the_cache_and_takes_back_as_one_that_asks_each_time() {
        let process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        let mut cache = ThreadCache::new();
        let addr = process.heap().malloc(&mut cache, &mut NoSink, 24).unwrap().addr;
        let plain = process.heap().unhardened().unwrap();
        assert!(plain.malloc_cached::<NoSink>(&mut cache, 24).is_none(), "the cache is empty");
        // SAFETY: the block is live.
        assert!(unsafe { plain.free_cached(&mut cache, addr) });
        // SAFETY: the words around a cached block are readable.
        assert!(!unsafe { plain.free_cached(&mut cache, addr) }, "the heap tells a double free");
        assert_eq!(plain.malloc_cached::<NoSink>(&mut cache, 24).unwrap().addr, addr);
    }

    #[test]
    fn a_hardened_heap_is_none() {
        let process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        assert!(process.heap().harden());
        assert!(process.heap().unhardened().is_none());
    }
}
