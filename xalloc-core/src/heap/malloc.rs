//! `malloc` and `calloc`.

use super::{Allocation, Heap, Os, Sink, ThreadCache};

impl<O: Os> Heap<O> {
    /// Allocates `bytes` (0 counts as 1). `None`: no memory (`ENOMEM`).
    #[inline]
    pub fn malloc<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, bytes: u64) -> Option<Allocation> {
        let _ = (cache, sink, bytes);
        None
    }

    /// Allocates `count * size` bytes and clears the block's whole usable size. `None`: no memory, or the product is
    /// larger than any block.
    pub fn calloc<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, count: u64, size: u64) -> Option<Allocation> {
        let _ = (cache, sink, count, size);
        None
    }

    /// Allocates by a mapping of its own, touching neither a cache nor an arena nor a lock: for a signal handler that
    /// interrupted the heap. The block goes back by any `free`, or by [`Heap::free_detached`].
    ///
    /// `align` is a power of two, at most a page.
    pub fn malloc_detached<S: Sink>(&self, sink: &mut S, bytes: u64, align: u64) -> Option<Allocation> {
        let _ = (sink, bytes, align);
        None
    }
}
