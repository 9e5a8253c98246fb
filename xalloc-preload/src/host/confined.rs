//! Whether the process put itself under a filter of system calls.
//!
//! A sandbox (seccomp(2)) often ends the process at a call that it does not expect, and what it expects of a program with
//! threads and an allocator are memory, futexes, the signal mask and the numbers of process and thread. So from the
//! moment when a filter is there, this library does without the rest: the name of a new thread is the recorder's to
//! find, pages are reserved by futex and not by `fallocate`, a foreign stack is probed by the signal mask, and the
//! process is not checked for leaks.
//!
//! # How it is noticed
//! A filter is set by `prctl` or by `syscall`, for the call of its own has no function in libc; so both are ours. To ask
//! the kernel afterwards (`/proc/self/status`) would be such an unexpected call. A program that has its own instruction
//! for system calls is not noticed; and a filter that was there before the process began let libc's loader open and map
//! files, which is what this library does, but for one question about a mapping (`ioctl`), which such a filter has to
//! let pass or deny. Of both the recorder knows from outside, and refuses the check for leaks.
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
    if has_set_filter(number, first as u32, second, answer) {
        IS_CONFINED.store(true, Ordering::Relaxed);
    }
    if answer < 0 {
        set_errno(-answer as c_int);
        return -1;
    }
    answer
}

/// Whether a call of `seccomp` or `prctl` with these first two arguments and this answer has set a filter.
fn has_set_filter(number: c_long, operation: u32, flags: usize, answer: c_long) -> bool {
    match number {
        // A descriptor by which somebody hears of the calls.
        libc::SYS_seccomp
            if operation == libc::SECCOMP_SET_MODE_FILTER
                && flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as usize != 0 =>
        {
            answer >= 0
        }
        // What is positive is a thread that could not be brought under the same filter: nothing was set.
        libc::SYS_seccomp => {
            matches!(operation, libc::SECCOMP_SET_MODE_STRICT | libc::SECCOMP_SET_MODE_FILTER) && answer == 0
        }
        _ => operation == libc::PR_SET_SECCOMP as u32 && answer == 0,
    }
}

/// `prctl`.
pub(crate) unsafe fn prctl(option: c_int, rest: [usize; 4]) -> c_int {
    let [second, third, fourth, fifth] = rest;
    // SAFETY: by the bullet of the module.
    unsafe { on_syscall(libc::SYS_prctl, option as usize, second, third, fourth, fifth) as c_int }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_set_by_each_call_that_can_and_by_none_that_failed_or_only_asked() {
        let filter = libc::SECCOMP_SET_MODE_FILTER;
        let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC as usize;
        let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as usize;
        for (number, operation, flags, answer, is_set) in [
            (libc::SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 0, 0, true),
            (libc::SYS_seccomp, filter, 0, 0, true),
            (libc::SYS_seccomp, filter, 0, -14, false),
            (libc::SYS_seccomp, filter, all_threads, 4711, false),
            (libc::SYS_seccomp, filter, listener, 3, true),
            (libc::SYS_seccomp, filter, listener, -22, false),
            (libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, 0, false),
            (libc::SYS_prctl, libc::PR_SET_SECCOMP as u32, 2, 0, true),
            (libc::SYS_prctl, libc::PR_SET_SECCOMP as u32, 2, -1, false),
            (libc::SYS_prctl, libc::PR_SET_NAME as u32, 0, 0, false),
        ] {
            let told = has_set_filter(number, operation, flags, answer);
            assert_eq!(told, is_set, "{number} {operation} {flags} {answer}");
        }
    }
}
