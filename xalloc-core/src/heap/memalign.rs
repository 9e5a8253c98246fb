//! `memalign` and its family.

use super::{AllocError, Allocation, Heap, Os, Sink, ThreadCache};

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
        let _ = (cache, sink, align, bytes);
        Err(AllocError::NoMemory)
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
        self.memalign(cache, sink, self.os.page_bytes(), bytes)
    }
}
