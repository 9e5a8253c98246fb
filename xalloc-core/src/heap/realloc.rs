//! `realloc`.

use super::{Allocation, Heap, HeapFault, Os, Sink, ThreadCache};
use crate::units::Addr;

/// How a `realloc` ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reallocated {
    /// The block is where it was, with a size that fits the request.
    InPlace(Allocation),
    /// The block is elsewhere; its contents were copied and the old one is free.
    Moved(Allocation),
    /// The request was for 0 bytes: the block was freed, the C result is the null pointer.
    Freed,
    /// No memory (`ENOMEM`); the block is as it was.
    Failed,
}

#[allow(unsafe_code)]
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
        let _ = (cache, sink, addr, bytes);
        Ok(Reallocated::Failed)
    }
}
