//! What the recorder was given by its parent and must hand on to the program unchanged: which signals are ignored, and
//! which are blocked.
//!
//! Rust's runtime ignores SIGPIPE before `main`, and its `Command` gives a child the default disposition and an empty
//! mask: a program that was started with SIGPIPE ignored, or by `nohup`, would notice the recorder. So all is read
//! before the runtime begins, and put back between fork and exec where it is anything else.
//!
//! # Safety
//! - `sigaction` and `sigprocmask` read or write one struct that lives through the call; both may be called between fork
//!   and exec, and before `main`.
//! - The constructor runs once, before any other code of the program, with libc initialised.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Signals that the kernel can have: 1 to 64.
const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=64;

/// Bit n - 1: signal n was ignored.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// Bit n - 1: signal n was blocked.
static BLOCKED: AtomicU64 = AtomicU64::new(0);

const fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

extern "C" fn look() {
    let mut ignored = 0;
    for signal in SIGNALS {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: first bullet of the module.
        let answer = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
        // SAFETY: zeroed, or written by the call: a value either way.
        if answer == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN {
            ignored |= bit(signal);
        }
    }
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: first bullet of the module.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr()) };
    // SAFETY: zeroed, or written by the call: a value either way.
    let mask = unsafe { mask.assume_init() };
    // SAFETY: first bullet of the module; `sigismember` looks into the set.
    let is_blocked = |signal: &libc::c_int| unsafe { libc::sigismember(&raw const mask, *signal) == 1 };
    let blocked = SIGNALS.filter(is_blocked).fold(0, |all, signal| all | bit(signal));
    IGNORED.store(ignored, Ordering::Relaxed);
    BLOCKED.store(blocked, Ordering::Relaxed);
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = look;

/// Lets `command` start with the dispositions and the mask that this process was started with.
pub fn hand_on(command: &mut Command) {
    if IGNORED.load(Ordering::Relaxed) | BLOCKED.load(Ordering::Relaxed) == 0 {
        // What a `Command` gives a child by itself, and then without copying this process's page tables first.
        return;
    }
    // SAFETY: the closure makes system calls only, which first bullet of the module allows there.
    unsafe { command.pre_exec(restore) };
}

fn restore() -> io::Result<()> {
    let ignored = IGNORED.load(Ordering::Relaxed);
    let blocked = BLOCKED.load(Ordering::Relaxed);
    // SAFETY: a zeroed `sigaction` is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    for signal in SIGNALS {
        let is_ignored = ignored & bit(signal) != 0;
        action.sa_sigaction = if is_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        // The kernel refuses for SIGKILL and SIGSTOP, libc for its own: those are as they were.
        // SAFETY: first bullet of the module.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        if blocked & bit(signal) != 0 {
            // SAFETY: first bullet of the module; `sigaddset` changes the set.
            unsafe { libc::sigaddset(mask.as_mut_ptr(), signal) };
        }
    }
    // SAFETY: first bullet of the module.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut()) };
    Ok(())
}
