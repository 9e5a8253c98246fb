//! The positive control: blocks that each check must judge rightly, or it is not believed.
//!
//! `xalloc_core::session::blocks::control` says what lies where. The root's page is like any memory of the program's, so a
//! check that reads no such memory, follows no pointers, or finds everything reachable is noticed by the recorder.
//!
//! # Why not a block of the allocator's
//! It would move the program's own blocks.
//!
//! # Safety
//! - The mapping is [`BYTES`] long and goes with the value.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use xalloc_core::session::blocks::control::{BLOCKS, BYTES, POINTERS, ROOT};
use xalloc_core::units::PAGE_BYTES;

use crate::host;

/// The memory of the control, laid out.
pub(super) struct Control(NonNull<u8>);

impl Control {
    /// Lays it out. `None`: there is no memory for it.
    pub(super) fn planted() -> Option<Control> {
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { host::map_anonymous(BYTES as usize, core::ptr::null_mut()) }?;
        // This library's own memory is no root, and this is to be one.
        host::own::forget(base);
        let control = Control(base);
        for page in (0..BYTES).step_by(PAGE_BYTES as usize).filter(|at| !ROOT.contains(at) && !BLOCKS.contains(at)) {
            // SAFETY: the page is in the mapping, and nothing is on it.
            let answer = unsafe { libc::syscall(libc::SYS_mprotect, control.addr() + page, PAGE_BYTES, 0_usize) };
            if answer != 0 {
                return None;
            }
        }
        for pointer in POINTERS {
            control.put(pointer.at, control.addr() + pointer.to);
        }
        Some(control)
    }

    /// Where it lies.
    pub(super) fn addr(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    fn put(&self, at: u64, word: u64) {
        // SAFETY: by the bullet of the module `at`, a place of [`POINTERS`], lies in the mapping.
        let place = unsafe { self.0.add(at as usize) }.cast::<u64>();
        // SAFETY: as above, on a page that can be written and at a multiple of 8; nobody else uses it.
        unsafe { place.write(word) };
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's.
        unsafe { host::unmap(self.0, BYTES as usize) };
    }
}
