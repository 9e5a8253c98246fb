//! All that depends on x86-64: how a call enters the library, and two registers.
//!
//! # Safety
//! - `fs` points to the thread's descriptor from the loader's first step on; its words 0 and 2 are its own address
//!   (System V ABI for x86-64, thread-local storage).
#![allow(unsafe_code)]

use core::arch::asm;

/// The registers of the program at the instruction behind its call: where a stack walk begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Entry {
    /// Return address of the call.
    pub ip: usize,
    /// Stack pointer after the return.
    pub sp: usize,
    /// Frame pointer register (`rbp`), whatever the caller uses it for.
    pub fp: usize,
}

/// The address of the calling thread's descriptor: its identity while it lives, and never 0.
#[must_use]
#[inline(always)]
pub fn thread_pointer() -> usize {
    let address: usize;
    // SAFETY: by the bullet of the module.
    unsafe { asm!("mov {}, fs:[0x10]", out(reg) address, options(nostack, preserves_flags, readonly, pure)) };
    address
}
