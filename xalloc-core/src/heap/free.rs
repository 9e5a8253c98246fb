//! `free`.

use super::{Heap, HeapFault, Os, Sink, ThreadCache};
use crate::units::Addr;

#[allow(unsafe_code)]
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
    #[inline]
    pub unsafe fn free<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, addr: Addr) -> Result<(), HeapFault> {
        let _ = (cache, sink, addr);
        Ok(())
    }

    /// Takes a block back if that needs neither cache nor arena nor lock, that is if it has a mapping of its own.
    /// `false`: it has not, and is still live; the caller frees it later.
    ///
    /// # Safety
    /// As for [`Heap::free`].
    pub unsafe fn free_detached<S: Sink>(&self, sink: &mut S, addr: Addr) -> bool {
        let _ = (sink, addr);
        false
    }

    /// Bytes that the program may use of the block at `addr`.
    ///
    /// # Safety
    /// - `addr` was returned by this heap and has not been freed since.
    #[must_use]
    pub unsafe fn usable_size(&self, addr: Addr) -> u64 {
        let _ = addr;
        0
    }
}
