//! Signals that would end the recorder before its trace is finished.
//!
//! The program sits in the recorder's process group, so Ctrl-C, Ctrl-\ and a hang-up of the terminal reach it without
//! our help; the recorder only has to outlive it. Handlers, unlike ignored signals, are reset by exec: the program
//! starts with the dispositions that it would have had.
//!
//! # What is passed on
//! A program that counts its interrupts may not get one twice. The kernel's own signals carry a positive `si_code` and
//! went to the whole group: they are never passed on. One that a process sent (`SI_USER`, `SI_TKILL`) went to the
//! recorder alone or, by `killpg`, to the group, and nothing tells the two apart.
//! - SIGTERM and SIGHUP from a process are passed on: a supervisor sends them to the one process that it knows, and
//!   without them the program would not end. After `killpg` it gets them twice.
//! - SIGINT and SIGQUIT are never passed on: whoever sends those plays the terminal and sends them to the group. The
//!   price is that `kill -INT` of the recorder alone does not reach the program.
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
static SNAPSHOTS: AtomicU32 = AtomicU32::new(0);
static CHECKS: AtomicU32 = AtomicU32::new(0);

/// Catches SIGINT, SIGTERM, SIGHUP and SIGQUIT from here on, and counts them from 0.
///
/// # Errors
/// What `sigaction` reports.
pub fn catch() -> io::Result<()> {
    RECEIVED.store(0, Ordering::Relaxed);
    CAUGHT.into_iter().try_for_each(|signal| handle(signal, on_signal))
}

/// A signal by which the recorder is asked for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskingSignal {
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// Counts, from here on and from 0, the signals that ask for a look at the memory of the processes, and those that ask
/// for a check of them for leaks: two different signals. To be called when the program has been started: what the program
/// finds of the signals is what the recorder found.
///
/// # Errors
/// What `sigaction` reports.
pub fn catch_asking(snapshots: Option<AskingSignal>, checks: Option<AskingSignal>) -> io::Result<()> {
    SNAPSHOTS.store(0, Ordering::Relaxed);
    CHECKS.store(0, Ordering::Relaxed);
    let number = |signal| match signal {
        AskingSignal::Usr1 => libc::SIGUSR1,
        AskingSignal::Usr2 => libc::SIGUSR2,
    };
    for (asked, handler) in [(snapshots, on_snapshot as Handler), (checks, on_check)] {
        asked.map_or(Ok(()), |signal| handle(number(signal), handler))?;
    }
    Ok(())
}

/// Signals so far that asked for a look at the memory.
#[must_use]
pub fn snapshots_asked() -> u32 {
    SNAPSHOTS.load(Ordering::Relaxed)
}

/// Signals so far that asked for a check for leaks.
#[must_use]
pub fn checks_asked() -> u32 {
    CHECKS.load(Ordering::Relaxed)
}

/// What `SA_SIGINFO` calls.
type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

fn handle(signal: libc::c_int, handler: Handler) -> io::Result<()> {
    // SAFETY: a zeroed `sigaction` is a valid value: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: second bullet of the module.
    if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Names the process that a SIGTERM or SIGHUP from another process is passed on to. Its descriptor stays open for good,
/// so that the handler can never meet one that was closed and used again.
pub fn pass_on_to(program: Pidfd) {
    // Relaxed: the handler needs the number and nothing that was written before.
    PROGRAM.store(program.into_raw_fd(), Ordering::Relaxed);
}

/// Signals caught so far.
#[must_use]
pub fn received() -> u32 {
    RECEIVED.load(Ordering::Relaxed)
}

extern "C" fn on_snapshot(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    SNAPSHOTS.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn on_check(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    CHECKS.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    RECEIVED.fetch_add(1, Ordering::Relaxed);
    let program = PROGRAM.load(Ordering::Relaxed);
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid `siginfo_t`.
    let code = unsafe { (*info).si_code };
    if program != NOBODY && is_passed_on(signal, code) {
        // SAFETY: first bullet of the module. No siginfo: the kernel makes the one of `kill`. errno is the only trace,
        // and it is written by failure alone, when the program is gone and the recorder about to end.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, program, signal, ptr::null::<u8>(), 0) };
    }
}

/// See the essay above.
fn is_passed_on(signal: libc::c_int, code: libc::c_int) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGHUP) && matches!(code, libc::SI_USER | libc::SI_TKILL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of the terminal's Ctrl-C and hang-up (asm-generic/siginfo.h).
    const SI_KERNEL: libc::c_int = 0x80;

    #[test]
    fn only_what_a_process_sent_to_end_the_program_is_passed_on() {
        for signal in CAUGHT {
            assert!(!is_passed_on(signal, SI_KERNEL), "{signal} reached the whole group");
            let ends = signal == libc::SIGTERM || signal == libc::SIGHUP;
            assert_eq!(is_passed_on(signal, libc::SI_USER), ends, "{signal}");
            assert_eq!(is_passed_on(signal, libc::SI_TKILL), ends, "{signal}");
        }
    }
}
