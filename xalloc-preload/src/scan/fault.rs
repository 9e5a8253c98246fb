//! Reading memory that may not be there.
//!
//! The list of mappings says what can be read, but other threads may not have stopped, a file may have been cut, and a
//! page of the heap may be protected. So while a check reads, a fault of its own copying ends the copying and nothing
//! else. Any other fault is the program's: its own handler is put back and the instruction tried again.
//!
//! # Why not `process_vm_readv`
//! It reads without faults, costs a system call for each block, and is what filters of system calls forbid first.
//!
//! # Safety
//! - The handler is installed from [`Guard::new`] to its drop only, and what it found is put back.
//! - [`xalloc_copy_words`] has one instruction that reads the program's memory, between two labels, and the handler moves on
//!   from there to the second one; the registers at that place say how many words are left, by the definition of `rep`.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;

use super::stop;

unsafe extern "C" {
    /// glibc's `sigaction` by the name that a program does not define.
    fn __sigaction(signal: c_int, action: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
    /// The instruction of [`xalloc_copy_words`] that may fault, and the one behind it.
    static xalloc_copy_may_fault: u8;
    static xalloc_copy_goes_on: u8;
}

/// Sets a handler, or asks for it.
pub(super) fn set_action(signal: c_int, action: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    let action = action.map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: both point to an action, or the first to nothing.
    let answer = unsafe { __sigaction(signal, action, old.as_mut_ptr()) };
    // SAFETY: zeroes are an action, and the call filled it in.
    (answer == 0).then(|| unsafe { old.assume_init() })
}

/// An action that calls `handler` with no other signal blocked than its own.
pub(super) fn action(handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)) -> libc::sigaction {
    // SAFETY: zeroes are an action.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    action
}

/// An action that calls `handler` and lets no other signal's handler run meanwhile, but for a fault's.
pub(super) fn action_alone(handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)) -> libc::sigaction {
    let mut action = action(handler);
    // SAFETY: the set is the action's own.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    for signal in SIGNALS {
        // SAFETY: as above; the numbers are those of signals.
        unsafe { libc::sigdelset(&raw mut action.sa_mask, signal) };
    }
    action
}

core::arch::global_asm!(
    ".pushsection .text.xalloc_copy,\"ax\",@progbits",
    ".hidden xalloc_copy_words",
    ".hidden xalloc_copy_may_fault",
    ".hidden xalloc_copy_goes_on",
    ".globl xalloc_copy_words",
    ".globl xalloc_copy_may_fault",
    ".globl xalloc_copy_goes_on",
    ".type xalloc_copy_words,@function",
    "xalloc_copy_words:",
    ".cfi_startproc",
    "mov rcx, rdx",
    "xalloc_copy_may_fault:",
    "rep movsq",
    "xalloc_copy_goes_on:",
    "mov rax, rcx",
    "ret",
    ".cfi_endproc",
    ".size xalloc_copy_words, . - xalloc_copy_words",
    ".popsection",
);

unsafe extern "C" {
    /// Copies words; returns how many were left when it faulted, 0 if it did not.
    fn xalloc_copy_words(to: *mut u64, from: u64, words: usize) -> usize;
}

struct Before(UnsafeCell<[Option<libc::sigaction>; 2]>);

// SAFETY: written while a guard is made, of which there is one at a time (`super::check`); read by its handler.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new([None; 2]));
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// While it exists, [`Guard::copy`] survives what it meets.
pub(super) struct Guard(());

impl Guard {
    pub(super) fn new() -> Guard {
        let mut action = action(on_fault);
        // The thread may have been on its stack for signal handlers, and a check is on one of its own (`super::apart`): the
        // kernel would begin again at the end of the former.
        action.sa_flags &= !libc::SA_ONSTACK;
        // SAFETY: there is one guard at a time.
        let before = unsafe { &mut *BEFORE.0.get() };
        for (signal, place) in SIGNALS.into_iter().zip(before) {
            *place = set_action(signal, None);
            set_action(signal, Some(&action));
        }
        Guard(())
    }

    /// Copies the words from `addr` on; returns how many could be read.
    #[inline]
    pub(super) fn copy(&self, addr: u64, into: &mut [u64]) -> usize {
        // SAFETY: the destination is that long; a fault of the source ends it, by the bullets of the module.
        let left = unsafe { xalloc_copy_words(into.as_mut_ptr(), addr, into.len()) };
        into.len() - left
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        put_back();
    }
}

fn put_back() {
    // SAFETY: there is one guard at a time.
    let before = unsafe { &*BEFORE.0.get() };
    for (signal, place) in SIGNALS.into_iter().zip(before) {
        if let Some(action) = place {
            set_action(signal, Some(action));
        }
    }
}

extern "C" fn on_fault(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(registers) = stop::registers_of(context) else { return };
    let fault = (&raw const xalloc_copy_may_fault) as i64;
    if registers[libc::REG_RIP as usize] == fault {
        registers[libc::REG_RIP as usize] = (&raw const xalloc_copy_goes_on) as i64;
        return;
    }
    // Somebody else's: it happens again, and its own handler sees it.
    put_back();
}
