//! The blocks that the measured allocator handed out, each in the slot that the requests name.
//!
//! # Safety
//! - `first` is null with `count` 0, or the first of a mapping of `count` slots that begins as zeros.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::null_mut;

use super::map;

/// A mapping of slots. A slot that is named beyond its end is empty, and stays so.
pub(super) struct Slots {
    first: *mut *mut c_void,
    count: usize,
}

impl Slots {
    /// No slot at all.
    pub(super) const fn none() -> Slots {
        Slots { first: null_mut(), count: 0 }
    }

    /// That many empty ones; `None` if there is no memory.
    pub(super) fn with_count(count: usize) -> Option<Slots> {
        let first = map(count * size_of::<*mut c_void>())?.cast();
        Some(Slots { first, count })
    }

    /// Empties a slot; null if it was empty.
    pub(super) fn take(&mut self, slot: usize) -> *mut c_void {
        if slot >= self.count {
            return null_mut();
        }
        // SAFETY: within the mapping; zeros are a null pointer.
        let found = unsafe { self.first.wrapping_add(slot).read() };
        self.put(slot, null_mut());
        found
    }

    /// Puts a block into a slot.
    pub(super) fn put(&mut self, slot: usize, block: *mut c_void) {
        if slot < self.count {
            // SAFETY: within the mapping.
            unsafe { self.first.wrapping_add(slot).write(block) };
        }
    }
}
