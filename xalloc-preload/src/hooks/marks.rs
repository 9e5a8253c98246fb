//! What the program says about its own run: marks, and pauses of the recording.
//!
//! # What a pause is
//! While recording is paused, every event goes on its way as always, so that the books, the heap's layout and the set of
//! live blocks stay true; but no call stack is captured: all that happens has the one stack of the pause. The recorder
//! takes blocks with that stack for roots, so none of them is a leak, nor is what they hold. A pause is the process's, not
//! a thread's, and lasts as long as more were begun than ended.
//!
//! # Safety
//! - A name that a C caller passes is null or ends with a NUL, by the contract of `xalloc.h`.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};

use xalloc_core::wire::Event;

use crate::arch::Entry;
use crate::guard::{self, Access};
use crate::host;
use crate::stacks;

/// Bytes of a mark's name that count.
const NAME_BYTES: usize = 1000;

/// `__xalloc_marker`.
pub(crate) unsafe extern "C" fn on_marker(name: *const c_char, ip: usize, sp: usize, fp: usize) {
    if !name.is_null() {
        // SAFETY: by the bullet of the module.
        mark(unsafe { CStr::from_ptr(name) }.to_bytes(), Entry { ip, sp, fp });
    }
}

/// `__xalloc_pause`.
pub(crate) extern "C" fn on_pause(_: usize, ip: usize, sp: usize, fp: usize) {
    // Told before, so that it has the call's own stack.
    if stacks::pauses() == 0 {
        mark(b"recording paused", Entry { ip, sp, fp });
    }
    stacks::pause();
}

/// `__xalloc_resume`.
pub(crate) extern "C" fn on_resume(_: usize, ip: usize, sp: usize, fp: usize) {
    if stacks::resume() {
        mark(b"recording resumed", Entry { ip, sp, fp });
    }
}

/// Sets a mark. In a handler that interrupts a hook there is no way to: it is left out.
fn mark(name: &[u8], entry: Entry) {
    let Access::Inside(mut inside) = guard::enter() else { return };
    let Some(segment) = inside.recording() else { return };
    inside.flush_spare();
    let stack = stacks::stack_of(inside.own(), entry);
    let stream = &mut inside.own().stream;
    let name = name.get(..NAME_BYTES).unwrap_or(name);
    stream.push_text(segment, stack, name, |text_bytes| Event::Marker { text_bytes });
    // A handler that comes while the thread waits is recorded like any other.
    drop(inside);
    host::keeping_errno(|| segment.wait_at_mark());
}
