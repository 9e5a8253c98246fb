//! The cache of free chunks that each thread has for itself.

/// A thread's cache, its arena, and the state of both. The caller keeps one per thread, at a place that does not move
/// while the thread lives, and hands it to every call.
#[derive(Debug)]
pub struct ThreadCache {
    tid: u32,
}

impl ThreadCache {
    /// The state of a thread that has not allocated yet.
    #[must_use]
    pub const fn new() -> ThreadCache {
        ThreadCache { tid: 0 }
    }

    /// Kernel id of the thread, or 0 before its first call into the heap.
    #[must_use]
    pub const fn thread_id(&self) -> u32 {
        self.tid
    }
}

impl Default for ThreadCache {
    fn default() -> ThreadCache {
        ThreadCache::new()
    }
}
