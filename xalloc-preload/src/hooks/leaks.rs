//! What the program wants checks for leaks to leave alone, by LeakSanitizer's names.
//!
//! A block that is ignored is no leak, and neither is what it points to. The recorder learns it by an event, in the
//! order of all others, so a block that gets the address later is not meant.

use core::ffi::c_void;

use xalloc_core::units::Addr;

use super::alloc::tell_ignored;
use crate::arch::Entry;
use crate::guard::{self, Access};
use crate::stacks;
use crate::thread::Thread;

/// The calling thread's part that its handlers see too, if it has one.
fn with_thread(work: impl FnOnce(&Thread)) {
    match guard::enter() {
        Access::Inside(inside) => work(inside.thread()),
        Access::Nested(thread) => work(thread),
        Access::Bare => {}
    }
}

/// `__lsan_disable`: from here on the thread's blocks are ignored.
pub(crate) fn disable() {
    with_thread(Thread::begin_ignoring);
}

/// `__lsan_enable`: takes one `__lsan_disable` back.
pub(crate) fn enable() {
    with_thread(Thread::end_ignoring);
}

/// `__lsan_ignore_object`: the block that a pointer points into is ignored.
pub(crate) extern "C" fn on_ignore(object: *const c_void, ip: usize, sp: usize, fp: usize) {
    let Access::Inside(mut inside) = guard::enter() else { return };
    let Some(segment) = inside.recording() else { return };
    inside.flush_spare();
    let stack = stacks::stack_of(inside.own(), Entry { ip, sp, fp });
    tell_ignored(inside.own(), segment, Addr(object.addr() as u64), stack);
}
