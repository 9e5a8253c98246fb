//! Signals that would end the recorder before its trace is finished.
//!
//! The program sits in the same process group, so Ctrl-C, Ctrl-\ and a hang-up reach it without our help; the recorder
//! only has to outlive it. A signal that somebody sent to the recorder alone (`kill`, a supervisor's SIGTERM) was meant
//! for the program, and is passed on. Handlers, unlike ignored signals, are reset by exec: the program starts with the
//! dispositions that it would have had.
//!
//! # Safety
//! - The handler does what is allowed in one: two atomics and a system call that touches no memory.
//! - `sigaction` reads one struct, whose handler is a function of the type that `SA_SIGINFO` asks for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::pidfd::Pidfd;

const CAUGHT: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
const NOBODY: RawFd = -1;

static RECEIVED: AtomicU32 = AtomicU32::new(0);
static PROGRAM: AtomicI32 = AtomicI32::new(NOBODY);

/// Catches SIGINT, SIGTERM, SIGHUP and SIGQUIT from here on, and counts them from 0.
///
/// # Errors
/// What `sigaction` reports.
pub fn catch() -> io::Result<()> {
    RECEIVED.store(0, Ordering::Relaxed);
    for signal in CAUGHT {
        // SAFETY: a zeroed `sigaction` is a valid value: no flags, an empty mask, the default handler.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: second bullet of the module.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Names the process that signals sent to the recorder alone are passed on to. Its descriptor stays open for good, so
/// that the handler can never meet one that was closed and used again.
pub fn pass_on_to(program: Pidfd) {
    // Relaxed: the handler needs the number and nothing that was written before.
    PROGRAM.store(program.into_raw_fd(), Ordering::Relaxed);
}

/// Signals caught so far.
#[must_use]
pub fn received() -> u32 {
    RECEIVED.load(Ordering::Relaxed)
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    RECEIVED.fetch_add(1, Ordering::Relaxed);
    let program = PROGRAM.load(Ordering::Relaxed);
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid `siginfo_t`.
    let code = unsafe { (*info).si_code };
    // The kernel's own signals (from the terminal) have a positive code and went to the whole group.
    if program != NOBODY && code <= 0 {
        // SAFETY: first bullet of the module. No siginfo: the kernel makes the one of `kill`. errno is the only trace,
        // and it is written by failure alone, when the program is gone and the recorder about to end.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, program, signal, ptr::null::<u8>(), 0) };
    }
}
