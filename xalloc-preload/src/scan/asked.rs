//! Checks that the program asks for, by LeakSanitizer's names.
//!
//! | function | what it does |
//! |---|---|
//! | `__lsan_do_recoverable_leak_check` | checks, and says whether blocks are leaked; as often as the program likes |
//! | `__lsan_do_leak_check` | checks in the place of the check at the process's end, which is left out then; later calls do nothing |
//!
//! Under LeakSanitizer the second one ends a process that leaks, with a status of its own. Here it returns: how a
//! program ends is the program's business, and what a leak is worth is decided by whoever reads the trace.
//!
//! # Safety
//! - [`Registers`] is what the stubs of `exports` lay down on the stack, and is used before they return.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering};

use xalloc_core::session::blocks::occasion;

use super::way_out::Registers;
use crate::process;

/// Whether the program has had its check, in this process or in the one that this one was forked from.
static IS_FINISHED: AtomicBool = AtomicBool::new(false);

/// Whether a check that the program has asked for stands for the one on this occasion.
pub(super) fn stands_for(now: u32) -> bool {
    now == occasion::EXIT && IS_FINISHED.load(Ordering::Relaxed)
}

/// `__lsan_do_leak_check`.
///
/// # Safety
/// - By the bullet of the module.
pub(crate) unsafe extern "C" fn on_final_check(registers: &Registers) {
    // Relaxed: one of several callers is enough to do it.
    if process::own_segment().is_some() && !IS_FINISHED.swap(true, Ordering::Relaxed) {
        ask(occasion::FINAL, registers);
    }
}

/// `__lsan_do_recoverable_leak_check`.
///
/// # Safety
/// - By the bullet of the module.
pub(crate) unsafe extern "C" fn on_check(registers: &Registers) -> c_int {
    ask(occasion::PROGRAM, registers)
}

fn ask(occasion: u32, registers: &Registers) -> c_int {
    let Some(segment) = process::own_segment() else { return 0 };
    c_int::from(super::check(segment, occasion, &registers.boundary_of_call()))
}
