//! The pages of the heap: the calls of [`Os`] that give a range back or change it.
//!
//! Like `words`, this room is inside the boundary of trust that [`super`] describes: its functions are safe to call
//! within the heap, because the ranges that reach them are the heap's own.
//!
//! # Safety
//! - Every range was handed out by [`Os`] and has not been taken back.
//! - What is given back holds no live block: it is the upper part of a top, an emptied sub-heap, the inside of a free
//!   chunk, or the mapping of a chunk that was freed.
//! - What may move is the mapping of a chunk whose owner called `realloc` and does not use it meanwhile.
#![allow(unsafe_code)]

use super::Heap;
use super::os::Os;

/// A door to the heap's pages.
pub(super) struct Pages<'h, O: Os>(&'h O);

impl<O: Os> Heap<O> {
    /// The heap's pages.
    pub(super) fn pages(&self) -> Pages<'_, O> {
        Pages(&self.os)
    }
}

impl<O: Os> Pages<'_, O> {
    /// See [`Os::break_by`].
    pub(super) fn break_by(&self, delta: i64) -> Option<u64> {
        // SAFETY: by the second bullet; the break moves down by the upper part of the top only.
        unsafe { self.0.break_by(delta) }
    }

    /// See [`Os::unmap`].
    pub(super) fn unmap(&self, addr: u64, len: u64) -> bool {
        // SAFETY: by the first two bullets.
        unsafe { self.0.unmap(addr, len) }
    }

    /// See [`Os::remap`].
    pub(super) fn remap(&self, addr: u64, old_len: u64, new_len: u64) -> Option<u64> {
        // SAFETY: by the third bullet.
        unsafe { self.0.remap(addr, old_len, new_len) }
    }

    /// See [`Os::commit`].
    pub(super) fn commit(&self, addr: u64, len: u64) -> bool {
        // SAFETY: by the first bullet.
        unsafe { self.0.commit(addr, len) }
    }

    /// See [`Os::discard`].
    pub(super) fn discard(&self, addr: u64, len: u64) -> bool {
        // SAFETY: by the first two bullets.
        unsafe { self.0.discard(addr, len) }
    }

    /// See [`Os::advise_huge`].
    pub(super) fn advise_huge(&self, addr: u64, len: u64) {
        // SAFETY: by the first bullet.
        unsafe { self.0.advise_huge(addr, len) };
    }

    /// See [`Os::decommit`].
    pub(super) fn decommit(&self, addr: u64, len: u64) -> bool {
        // SAFETY: by the first two bullets.
        unsafe { self.0.decommit(addr, len) }
    }
}
