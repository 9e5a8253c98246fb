//! Whether the process put itself under a filter of system calls.
//!
//! A sandbox (seccomp(2)) often ends the process at a call that it does not expect, and what a program expects of its own
//! allocator are memory, futexes and the signal mask. So from the moment when a filter is there, this library does
//! without the rest: the name of a new thread is the recorder's to find, pages are reserved by futex and not by
//! `fallocate`, a foreign stack is probed by the signal mask, and the process is not checked for leaks.
//!
//! # How it is noticed
//! A filter is set by `prctl` or by `syscall`, for the call of its own has no function in libc; so both are ours. To ask the kernel
//! afterwards (`/proc/self/status`) would be such an unexpected call. A program that has its own instruction for system calls
//! is not noticed; and a filter that was there before the process began let libc's loader open and map files, which is
//! what this library does.
//!
//! # Safety
//! - [`arch::system_call`] is given the arguments that the program gave, which answers for them.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_long};
use core::sync::atomic::{AtomicBool, Ordering};

use super::set_errno;
use crate::arch;

static IS_CONFINED: AtomicBool = AtomicBool::new(false);

/// Whether the process set a filter for itself, in whichever of its threads.
pub(crate) fn is_confined() -> bool {
    // Relaxed: another thread's filter is not this one's, unless they agreed on it.
    IS_CONFINED.load(Ordering::Relaxed)
}

/// `syscall` with the number of `seccomp` or `prctl`.
pub(crate) unsafe extern "C" fn on_syscall(
    number: c_long,
    first: usize,
    second: usize,
    third: usize,
    fourth: usize,
    fifth: usize,
) -> c_long {
    // SAFETY: by the bullet of the module.
    let answer = unsafe { arch::system_call(number, [first, second, third, fourth, fifth]) };
    let operation = first as u32;
    let sets_filter = match number {
        libc::SYS_seccomp => matches!(operation, libc::SECCOMP_SET_MODE_STRICT | libc::SECCOMP_SET_MODE_FILTER),
        _ => operation == libc::PR_SET_SECCOMP as u32,
    };
    // What is positive is a thread that could not be brought under the same filter: nothing was set.
    if sets_filter && answer == 0 {
        IS_CONFINED.store(true, Ordering::Relaxed);
    }
    if answer < 0 {
        set_errno(-answer as c_int);
        return -1;
    }
    answer
}

/// `prctl`.
pub(crate) unsafe fn prctl(option: c_int, rest: [usize; 4]) -> c_int {
    let [second, third, fourth, fifth] = rest;
    // SAFETY: by the bullet of the module.
    unsafe { on_syscall(libc::SYS_prctl, option as usize, second, third, fourth, fifth) as c_int }
}
