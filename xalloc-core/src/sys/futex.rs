//! Sleeping on a word of memory, between threads or between processes.
//!
//! # Safety
//! The futex system call reads the word it is given, compares, and sleeps; it writes nothing. A word that a safe
//! reference points to is readable for the whole call.
#![allow(unsafe_code)]

#[cfg(xalloc_loom)]
mod model;
#[cfg(xalloc_loom)]
pub use model::{wait_untimed, wake};

#[cfg(not(xalloc_loom))]
use super::errno;
#[cfg(not(xalloc_loom))]
use crate::primitive::AtomicU32;

/// Who else may sleep on the word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Threads of this process only: the cheaper kind.
    Process,
    /// Other processes that map the same memory.
    Shared,
}

#[cfg(not(xalloc_loom))]
impl Scope {
    const fn flag(self) -> i32 {
        match self {
            Scope::Process => libc::FUTEX_PRIVATE_FLAG,
            Scope::Shared => 0,
        }
    }
}

/// Sleeps while `word` is `expected`, until woken or for `timeout_ns` at most. May return early for any reason: the
/// caller looks again. errno is left as it was.
#[cfg(not(xalloc_loom))]
pub fn wait(word: &AtomicU32, expected: u32, scope: Scope, timeout_ns: u64) {
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
    };
    sleep(word, expected, scope, &raw const timeout);
}

/// As [`wait`], for as long as it takes.
#[cfg(not(xalloc_loom))]
pub fn wait_untimed(word: &AtomicU32, expected: u32, scope: Scope) {
    sleep(word, expected, scope, core::ptr::null());
}

/// `timeout` is null or points to a `timespec` that lives through the call.
#[cfg(not(xalloc_loom))]
fn sleep(word: &AtomicU32, expected: u32, scope: Scope, timeout: *const libc::timespec) {
    // SAFETY: the word is readable (module), the timeout is null or alive.
    errno::preserving(|| unsafe {
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT | scope.flag(), expected, timeout, 0_usize, 0_usize)
    });
}

/// Wakes up to `sleepers` threads that sleep on `word`. errno is left as it was.
#[cfg(not(xalloc_loom))]
pub fn wake(word: &AtomicU32, sleepers: i32, scope: Scope) {
    // SAFETY: the word is only an address to this operation.
    errno::preserving(|| unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | scope.flag(), sleepers) });
}
