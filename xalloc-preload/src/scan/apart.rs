//! The stack that a check runs on.
//!
//! # Why a stack of its own
//! A check takes some 30 KiB. The program's may have room for little more than the kernel's frame: a coroutine's, the one
//! for signal handlers. And what a check leaves on its stack are addresses of blocks; on a stack that the program made
//! itself nothing tells them from the program's own.
//!
//! # Safety
//! - The stack is a mapping of [`STACK_BYTES`] that is made once and stays; it is used by whom [`super::begin`] let
//!   through, and by the copy of a process, which has one of its own by then.
//! - [`call_on`] keeps what a callee must keep, and comes back to the stack that it was called on.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::host;

/// Room for a check; what is not touched costs nothing.
const STACK_BYTES: usize = 256 << 10;

static STACK: AtomicPtr<u8> = AtomicPtr::new(null_mut());

/// Makes the stack, unless it is there. False: there is no memory for it. To be called while the process boots, or by whom
/// [`super::begin`] let through.
pub(super) fn make() -> bool {
    // Relaxed: one thread at a time comes here.
    if STACK.load(Ordering::Relaxed).is_null() {
        // SAFETY: a new mapping, wherever the kernel likes.
        let Some(made) = (unsafe { host::map_anonymous(STACK_BYTES, null_mut()) }) else { return false };
        STACK.store(made.as_ptr(), Ordering::Relaxed);
    }
    true
}

/// Does `work` on the stack, by whom [`super::begin`] let through and who is not there already. `None`: there is no memory
/// for it, and nothing was done.
pub(super) fn on_own_stack<R>(work: impl FnOnce() -> R) -> Option<R> {
    /// What is to be done, and what came of it.
    struct Call<W, R>(Option<W>, Option<R>);

    extern "C" fn done<W: FnOnce() -> R, R>(call: *mut c_void) {
        // SAFETY: it is the call below, which nobody else looks at meanwhile.
        let Call(work, result) = unsafe { &mut *call.cast::<Call<W, R>>() };
        *result = work.take().map(|work| work());
    }

    fn of<W: FnOnce() -> R, R>(_: &Call<W, R>) -> extern "C" fn(*mut c_void) {
        done::<W, R>
    }

    if !make() {
        return None;
    }
    let mut call = Call(Some(work), None);
    let done = of(&call);
    // SAFETY: the mapping is that long (first bullet); its end is page-aligned.
    let end = unsafe { STACK.load(Ordering::Relaxed).add(STACK_BYTES) };
    // SAFETY: by the first bullet, and the contract of this function; `done` takes such a call.
    unsafe { call_on(end, (&raw mut call).cast(), done) };
    call.1
}

/// Calls `work` with `argument` on the stack that ends at `stack_end`.
///
/// # Safety
/// - Nobody else uses that stack, and it is long enough.
#[unsafe(naked)]
unsafe extern "C" fn call_on(stack_end: *mut u8, argument: *mut c_void, work: extern "C" fn(*mut c_void)) {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "push rbp",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbp, 0",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdi",
        "mov rdi, rsi",
        "call rdx",
        "mov rsp, rbp",
        ".cfi_def_cfa_register rsp",
        "pop rbp",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbp",
        "ret",
        ".cfi_endproc"
    )
}
