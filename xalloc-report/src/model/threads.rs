//! What each thread did.

use crate::trace::ThreadIndex;

/// The counts of one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadTotals {
    /// Which thread.
    pub thread: ThreadIndex,
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Requested bytes of all of them.
    pub allocated_bytes: u64,
    /// Frees by this thread, whoever allocated.
    pub frees: u64,
    /// Of its frees, those of blocks that another thread allocated.
    pub foreign_frees: u64,
    /// Its temporary allocations.
    pub temporary: u64,
    /// Requested bytes that it allocated and that are alive at the end.
    pub alive_bytes: u64,
    /// The blocks of them.
    pub alive_blocks: u64,
    /// Allocations that the recording tells of, if only by saying that there was one.
    pub told: u64,
}

impl ThreadTotals {
    fn of(thread: ThreadIndex) -> ThreadTotals {
        ThreadTotals {
            thread,
            allocations: 0,
            allocated_bytes: 0,
            frees: 0,
            foreign_frees: 0,
            temporary: 0,
            alive_bytes: 0,
            alive_blocks: 0,
            told: 0,
        }
    }

    /// How many allocations of the thread were told of since its allocation number `nth`, modulo 2^32.
    pub(super) fn allocations_since(&self, nth: u32) -> u32 {
        (self.told as u32).wrapping_sub(nth).wrapping_sub(1)
    }

    fn is_idle(&self) -> bool {
        self.allocations == 0 && self.frees == 0
    }
}

/// The threads of a trace while one process is replayed. One that still runs brings threads that were not there when it
/// began.
#[derive(Debug)]
pub(super) struct Threads {
    by_index: Vec<ThreadTotals>,
}

impl Threads {
    pub(super) fn new(threads: usize) -> Threads {
        Threads { by_index: (0..threads as u32).map(|index| ThreadTotals::of(ThreadIndex(index))).collect() }
    }

    #[inline]
    pub(super) fn at(&mut self, thread: ThreadIndex) -> &mut ThreadTotals {
        let place = thread.0 as usize;
        if place < self.by_index.len() { &mut self.by_index[place] } else { self.grow(thread) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, to: ThreadIndex) -> &mut ThreadTotals {
        let missing = self.by_index.len() as u32..=to.0;
        self.by_index.extend(missing.map(|index| ThreadTotals::of(ThreadIndex(index))));
        &mut self.by_index[to.0 as usize]
    }

    /// The threads that allocated or freed, ascending.
    pub(super) fn finish(self) -> Vec<ThreadTotals> {
        self.by_index.into_iter().filter(|thread| !thread.is_idle()).collect()
    }
}
