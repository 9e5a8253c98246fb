//! What a fork leaves of the heap.
//!
//! The child is a copy with one thread. An arena that another thread was changing at that instant is half changed in
//! the child, and stays so: nobody is left to finish. The child gives such an arena up: nothing is allocated from it and
//! what is freed into it stays where it is.
//!
//! # Why no lock is held over the fork
//! glibc takes every lock before a fork, after the program's handlers and inside `fork` itself. An allocator that is
//! not libc can only do so in a handler, too early: another handler, or libc's own lock of the stdio list, may then
//! wait for a thread that waits for the allocator. Owner ids in the locks cost nothing and cannot deadlock.

use core::sync::atomic::Ordering;

use super::os::Os;
use super::tcache::ThreadCache;
use super::{Heap, arena::ArenaRef};

impl<O: Os> Heap<O> {
    /// Called before a fork. Nothing is locked; it only makes sure that the thread knows its own id, by which the child
    /// tells its own locks from those of others.
    pub fn fork_prepare(&self, cache: &mut ThreadCache) {
        self.tid(cache);
    }

    /// Called in the child after a fork, before anything else allocates: locks of threads that are gone are given up,
    /// and all arenas but the caller's become free (placement policy, section 10).
    pub fn fork_child(&self, cache: &mut ThreadCache) {
        cache.set_thread_id(self.os.thread_id());
        if !self.is_multithreaded() {
            return;
        }
        self.arenas.reset_after_fork();
        let mut number: ArenaRef = 0;
        loop {
            if let Some(arena) = self.arenas.get(number, &self.main) {
                if arena.lock.owner().is_some() {
                    // The forking thread is not inside the heap, so the owner is another thread, which is gone.
                    self.arenas.lose_after_fork(arena);
                } else if arena.lost.load(Ordering::Relaxed) {
                    // An earlier fork lost it: it stays out of use.
                } else if cache.arena != Some(number) {
                    self.arenas.idle_after_fork(arena);
                } else {
                    arena.attached.store(1, Ordering::Relaxed);
                }
            }
            number = self.arenas.after(number);
            if number == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "blocks are filled and looked at")]
mod tests {
    use super::*;
    use crate::heap::{Allocation, Live, NoSink, Reallocated};

    /// A thread that does not exist.
    const GONE: u32 = 0x3f_ffff;

    /// A heap with a block in a thread's arena that another thread was changing when the process forked.
    fn forked_inside_an_arena(heap: &Heap<Live>, cache: &mut ThreadCache, bytes: u64) -> Allocation {
        heap.note_multithreaded();
        let block = heap.malloc(cache, &mut NoSink, bytes).expect("there is memory");
        let arena = heap.arenas.get(1, &heap.main).expect("a thread has an arena of its own");
        arena.lock.acquire(GONE);
        heap.fork_child(cache);
        assert!(arena.lost.load(Ordering::Relaxed));
        block
    }

    #[test]
    fn a_block_of_a_lost_arena_shrinks_into_another_arena_and_overwrites_nothing_there() {
        let heap = Heap::new(Live::new());
        let mut cache = ThreadCache::new();
        let block = forked_inside_an_arena(&heap, &mut cache, 1_032);
        // SAFETY: the block has that many bytes.
        unsafe { block.as_ptr().write_bytes(0xec, 1_032) };
        // SAFETY: the block is live.
        let moved = unsafe { heap.realloc(&mut cache, &mut NoSink, block.addr, 100) };
        let Ok(Reallocated::Moved(moved)) = moved else { unreachable!("{moved:?}") };
        assert_eq!(moved.usable_bytes, 104);
        // SAFETY: the block has 104 bytes, and the size word of the chunk above follows.
        let seen = unsafe { core::slice::from_raw_parts(moved.as_ptr(), 112) };
        assert_eq!(seen[..100], [0xec; 100]);
        assert_ne!(seen[104..], [0xec; 8]);
    }

    #[test]
    fn an_arena_that_one_fork_lost_serves_nobody_after_the_next_fork() {
        let heap = Heap::new(Live::new());
        let mut cache = ThreadCache::new();
        forked_inside_an_arena(&heap, &mut cache, 100);
        heap.malloc(&mut cache, &mut NoSink, 2_000).expect("another arena serves");
        heap.fork_child(&mut cache);
        let mut successor = ThreadCache::new();
        heap.malloc(&mut successor, &mut NoSink, 2_000).expect("a new thread is served");
        assert!(successor.bookkeeping().is_some(), "its first request is refused: the arena that it took is lost");
    }

    #[test]
    fn a_child_that_lost_every_arena_makes_another_beyond_the_limit() {
        let heap = Heap::new(Live::new());
        let mut cache = ThreadCache::new();
        heap.malloc(&mut cache, &mut NoSink, 2_000).expect("there is memory");
        heap.settings.arena_max.set(1);
        heap.note_multithreaded();
        heap.main.lock.acquire(GONE);
        heap.fork_child(&mut cache);
        let block = heap.malloc(&mut cache, &mut NoSink, 2_000).expect("the child is served");
        assert_eq!(heap.arena_of(block.addr.0 - super::super::chunk::HEADER), 1);
        heap.malloc(&mut ThreadCache::new(), &mut NoSink, 2_000).expect("a second thread shares it");
        assert_eq!(heap.arena_count(), 2);
    }

    #[test]
    fn a_thread_that_shares_passes_lost_arenas_by() {
        let heap = Heap::new(Live::new());
        let mut cache = ThreadCache::new();
        forked_inside_an_arena(&heap, &mut cache, 100);
        heap.main.lost.store(true, Ordering::Relaxed);
        heap.arenas.reset_after_fork();
        heap.malloc(&mut cache, &mut NoSink, 2_000).expect("an arena is made");
        heap.settings.arena_max.set(1);
        let last = heap.arenas.get(2, &heap.main).expect("it was made");
        std::thread::scope(|scope| {
            last.lock.acquire(GONE);
            let sharer = scope.spawn(|| heap.malloc(&mut ThreadCache::new(), &mut NoSink, 2_000));
            std::thread::sleep(std::time::Duration::from_millis(50));
            last.lock.release();
            let block = sharer.join().expect("it ends").expect("it waits for the arena that is left");
            assert_eq!(heap.arena_of(block.addr.0 - super::super::chunk::HEADER), 2);
        });
    }
}
