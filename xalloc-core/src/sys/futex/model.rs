//! The kernel's part in a model: one wait queue for all words, of which each model sleeps on one.

use loom::sync::{Condvar, Mutex};

use super::Scope;
use crate::primitive::{AtomicU32, Ordering};

struct Queue {
    lock: Mutex<()>,
    sleepers: Condvar,
}

loom::lazy_static! {
    static ref QUEUE: Queue = Queue { lock: Mutex::new(()), sleepers: Condvar::new() };
}

/// Sleeps while `word` is `expected`, until woken.
pub fn wait_untimed(word: &AtomicU32, expected: u32, _scope: Scope) {
    // A poisoned lock is one of a model that has failed already.
    let Ok(held) = QUEUE.lock.lock() else { return };
    if word.load(Ordering::Relaxed) == expected {
        drop(QUEUE.sleepers.wait(held));
    }
}

/// Wakes one of those that sleep.
pub fn wake(_word: &AtomicU32, _sleepers: i32, _scope: Scope) {
    let _held = QUEUE.lock.lock();
    QUEUE.sleepers.notify_one();
}
