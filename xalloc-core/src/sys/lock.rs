//! A lock that knows its owner: a futex word that holds the thread id of whoever has it.
//!
//! The allocator's locks are taken inside `malloc`, where neither pthread mutexes (their type may be interposed, and a
//! child of `fork` cannot tell who held them) nor `std` are available. Here the word is the owner's kernel thread id,
//! so that a child process can give up exactly those locks whose owners did not survive the fork.
//!
//! # Invariant
//! The word is 0 (free), `tid` (held, nobody sleeps) or `tid | WAITERS` (held, someone may sleep). Only the owner
//! makes it 0; a sleeper that wins takes it with `WAITERS` set, because it cannot know whether it was the last.
//!
//! # Why not a bare three-state lock
//! The three states of the textbook futex fit into the tid word (a kernel tid is at most 2^22); an owner field beside
//! them would be a second word that a fork can catch between two stores.

use super::futex::{self, Scope};
use crate::primitive::{AtomicU32, Ordering, spin_loop};

/// Set beside the owner's tid when a waiter may be asleep; the kernel's own priority-inheriting futexes use this bit.
const WAITERS: u32 = 0x8000_0000;

/// Attempts before a waiter sleeps: the heap's critical sections last tens of nanoseconds, a sleep costs microseconds.
const SPINS: u32 = if cfg!(xalloc_loom) { 0 } else { 100 };

/// A mutual-exclusion lock that is owned by a kernel thread.
#[derive(Debug)]
pub struct Lock {
    word: AtomicU32,
}

impl Lock {
    /// A free lock.
    #[cfg(not(xalloc_loom))]
    #[must_use]
    pub const fn new() -> Lock {
        Lock { word: AtomicU32::new(0) }
    }

    /// A free lock.
    #[cfg(xalloc_loom)]
    #[must_use]
    pub fn new() -> Lock {
        Lock { word: AtomicU32::new(0) }
    }

    /// Takes the lock for thread `tid` (not 0) unless somebody has it.
    #[inline]
    pub fn try_acquire(&self, tid: u32) -> bool {
        // ORDERING: Acquire pairs with the Release swap in `release`: what the last owner wrote is seen.
        self.word.compare_exchange(0, tid, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock for thread `tid` (not 0); waits for as long as it is held.
    #[inline]
    pub fn acquire(&self, tid: u32) {
        if !self.try_acquire(tid) {
            self.acquire_slowly(tid);
        }
    }

    #[cold]
    #[inline(never)]
    fn acquire_slowly(&self, tid: u32) {
        for _ in 0..SPINS {
            spin_loop();
            if self.word.load(Ordering::Relaxed) == 0 && self.try_acquire(tid) {
                return;
            }
        }
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            // ORDERING: Acquire on success pairs with the Release swap in `release`.
            let take = |from, to| self.word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok();
            if seen == 0 {
                if take(0, tid | WAITERS) {
                    return;
                }
            } else if seen & WAITERS != 0 || take(seen, seen | WAITERS) {
                futex::wait_untimed(&self.word, seen | WAITERS, Scope::Process);
            }
        }
    }

    /// Gives the lock back and wakes one sleeper, if there may be one.
    #[inline]
    pub fn release(&self) {
        // ORDERING: Release publishes what was written under the lock; pairs with the Acquire in `try_acquire`.
        if self.word.swap(0, Ordering::Release) & WAITERS != 0 {
            futex::wake(&self.word, 1, Scope::Process);
        }
    }

    /// The kernel id of the thread that has the lock, or `None`.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        match self.word.load(Ordering::Relaxed) & !WAITERS {
            0 => None,
            tid => Some(tid),
        }
    }

    /// Frees the lock whoever had it: for the only thread of a forked child, whose siblings were left behind.
    pub fn abandon(&self) {
        self.word.store(0, Ordering::Relaxed);
    }
}

impl Default for Lock {
    fn default() -> Lock {
        Lock::new()
    }
}

#[cfg(all(test, not(xalloc_loom)))]
#[allow(unsafe_code, reason = "a test counts without atomics, to see that the lock is one")]
mod tests {
    use super::*;
    use std::cell::UnsafeCell;

    struct Counter(UnsafeCell<u64>);
    // SAFETY: the test only touches the cell while it holds the lock.
    unsafe impl Sync for Counter {}

    #[test]
    fn threads_that_contend_lose_no_increment() {
        let lock = Lock::new();
        let counter = Counter(UnsafeCell::new(0));
        std::thread::scope(|scope| {
            for tid in 1..=4 {
                let (lock, counter) = (&lock, &counter);
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        lock.acquire(tid);
                        let at = counter.0.get();
                        // SAFETY: the lock is held, nobody else touches the cell.
                        unsafe { *at += 1 };
                        lock.release();
                    }
                });
            }
        });
        assert_eq!(counter.0.into_inner(), 80_000);
        assert_eq!(lock.owner(), None);
    }

    #[test]
    fn the_lock_names_its_owner_and_can_be_abandoned() {
        let lock = Lock::new();
        lock.acquire(7);
        assert_eq!(lock.owner(), Some(7));
        assert!(!lock.try_acquire(8));
        lock.abandon();
        assert!(lock.try_acquire(8));
    }
}
