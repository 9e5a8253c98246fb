//! The few things that the library asks of libc and the kernel, behind small functions.
//!
//! Nothing here allocates from the program's heap, and nothing takes a lock of libc's.
//!
//! # Safety
//! - `__errno_location` returns the calling thread's word, valid for the life of the thread.
//! - `syscall` is given numbers whose arguments are integers, or buffers that outlive the call and have the stated
//!   length; strings are [`CStr`]s.
//!   An argument that the kernel takes as a whole word is passed as one: of a narrower one the upper half is undefined.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_long};

mod confined;
mod file;
mod memory;
pub(crate) mod own;
mod threads;

pub(crate) use confined::{is_confined, on_syscall, prctl};
pub(crate) use file::{
    File, Reservation, file_size_limit, is_program, is_readable_path, make_empty_file, read_link, remove_file,
};
pub(crate) use memory::{is_mapped, is_readable, map_anonymous, populate, protect, residency, unmap, wipe_on_fork};
pub(crate) use threads::{each_thread, is_thread, signal_thread, thread_name, tid, yield_now};

/// Where the calling thread's errno is. It does not leave the thread.
#[derive(Clone, Copy)]
pub(crate) struct ErrnoPlace(*mut c_int);

/// Where the calling thread's errno is.
#[inline(always)]
pub(crate) fn errno_place() -> ErrnoPlace {
    // SAFETY: first bullet of the module.
    ErrnoPlace(unsafe { libc::__errno_location() })
}

/// The errno at `place`.
#[inline(always)]
pub(crate) fn errno_at(place: ErrnoPlace) -> c_int {
    // SAFETY: first bullet of the module.
    unsafe { place.0.read() }
}

/// Sets the errno at `place`.
#[inline(always)]
pub(crate) fn set_errno_at(place: ErrnoPlace, value: c_int) {
    // SAFETY: first bullet of the module.
    unsafe { place.0.write(value) };
}

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    errno_at(errno_place())
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(value: c_int) {
    set_errno_at(errno_place(), value);
}

/// Runs `work` and leaves errno as it was.
pub(crate) fn keeping_errno<R>(work: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = work();
    set_errno(before);
    result
}

/// Runs `work` while no handler can interrupt the calling thread.
pub(crate) fn without_signals<R>(work: impl FnOnce() -> R) -> R {
    let before = change_signal_mask(u64::MAX);
    let result = work();
    change_signal_mask(before);
    result
}

/// Blocks every signal but those that the calling thread's own faults raise, for good.
pub(crate) fn block_signals() {
    change_signal_mask(!(1 << (libc::SIGSEGV - 1) | 1 << (libc::SIGBUS - 1)));
}

/// Sets which signals are blocked, bit n - 1 for signal n; returns which were. Asked of the kernel, for libc's function
/// leaves its own two signals out.
fn change_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: second bullet of the module; the kernel reads eight bytes and writes eight.
    keeping_errno(|| unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            word(libc::SIG_SETMASK),
            &raw const mask,
            &raw mut before,
            size_of::<u64>(),
        )
    });
    before
}

/// Makes a copy of the process with the calling thread alone, of whose end nobody is told. 0 in the copy, the copy's
/// number in the process itself; `None`: the kernel refuses.
pub(crate) fn copy_process() -> Option<u32> {
    // SAFETY: second bullet of the module: no flags, no signal at its end, no stack of its own, nothing to be written.
    let made = unsafe { libc::syscall(libc::SYS_clone, 0_usize, 0_usize, 0_usize, 0_usize, 0_usize) };
    u32::try_from(made).ok()
}

/// Closes every file, in a copy of the process that its program knows nothing of: the other ends are to notice at once
/// when the program closes its own.
pub(crate) fn close_all_files() {
    // SAFETY: second bullet of the module.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 0_usize, u32::MAX as usize, 0_usize) };
    if closed != 0 {
        // Before Linux 5.9, and where it is forbidden.
        threads::each_number(c"/proc/self/fd", |file, list| {
            if file != list.0 as u32 {
                // SAFETY: second bullet of the module.
                unsafe { libc::syscall(libc::SYS_close, word(file as c_int)) };
            }
        });
    }
}

/// Ends the calling process, without a word to anybody.
pub(crate) fn end_process() -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, 0_usize) };
    }
}

/// Waits for a copy of [`copy_process`] if it is over; whether there is none any more.
pub(crate) fn reap(copy: u32) -> bool {
    let (copy, options) = (word(copy as c_int), word(libc::WNOHANG | libc::__WCLONE));
    // SAFETY: second bullet of the module; nothing is written.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_wait4, copy, 0_usize, options, 0_usize) }) != 0
}

/// The calling process, asked of the kernel: right in a child of any kind.
pub(crate) fn pid() -> u32 {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// The calling process's parent.
pub(crate) fn parent_pid() -> u32 {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_getppid) as u32 }
}

/// An argument that the kernel takes as a whole word.
pub(crate) fn word(argument: c_int) -> c_long {
    c_long::from(argument)
}

/// Writes to standard error, as much as it takes at once.
pub(crate) fn print_error(text: &[u8]) {
    // SAFETY: second bullet of the module.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, text.as_ptr(), text.len()) });
}

/// Writes `message` to standard error, as libc does before it aborts, and aborts.
pub(crate) fn abort_with(message: &str) -> ! {
    for part in [message, "\n"] {
        print_error(part.as_bytes());
    }
    // SAFETY: takes nothing and does not return.
    unsafe { libc::abort() }
}

/// The calling thread's stack for signal handlers.
pub(crate) fn signal_stack() -> libc::stack_t {
    let mut stack = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: asks only, and fills the value in or leaves it.
    unsafe { libc::syscall(libc::SYS_sigaltstack, core::ptr::null::<libc::stack_t>(), &raw mut stack) };
    stack
}

/// A value of the auxiliary vector, 0 if there is none.
pub(crate) fn auxiliary(kind: u64) -> u64 {
    // SAFETY: only looks into the vector that the kernel passed.
    unsafe { libc::getauxval(kind) }
}

/// The version of the running libc ("2.36").
pub(crate) fn libc_version() -> &'static CStr {
    // SAFETY: returns a constant string of libc.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: as above.
    unsafe { CStr::from_ptr(version) }
}
