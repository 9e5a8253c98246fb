//! Service without any thread state.
//!
//! # Safety
//! - As for [`super`].
#![allow(unsafe_code)]

use xalloc_core::heap::{AllocError, NoSink};
use xalloc_core::units::Addr;

use super::{Block, HEAP, Outcome, Request, bootstrap, is_core, next, usable_bytes};
use crate::arch;

/// Allocates; zeroed if the call is `calloc`.
#[cold]
#[inline(never)]
pub(crate) fn allocate(request: &Request) -> Result<Block, AllocError> {
    if arch::is_relocated() {
        if is_core() {
            return super::nested::detached(request);
        }
        if next::is_resolved() {
            return next::allocate(request);
        }
    }
    bootstrap::allocate(request.bytes(), request.align).ok_or(AllocError::NoMemory)
}

/// Frees `addr`, which is not null, if that can be done without state; else it is leaked, which happens to a few blocks
/// of a thread's set-up at most.
///
/// # Safety
/// - The program handed it back.
#[cold]
#[inline(never)]
pub(crate) unsafe fn free(addr: Addr) {
    if bootstrap::holds(addr) || !arch::is_relocated() {
        return;
    }
    if is_core() {
        // SAFETY: by the contract.
        let _is_freed = unsafe { HEAP.free_detached(&mut NoSink, addr) };
    } else if next::is_resolved() {
        // SAFETY: by the contract.
        unsafe { next::free(addr) };
    }
}

/// Changes the size of `addr`, which is not null.
///
/// # Safety
/// - The program handed it back.
#[cold]
#[inline(never)]
pub(crate) unsafe fn reallocate(addr: Addr, request: &Request) -> Outcome {
    let bytes = request.bytes();
    if bootstrap::holds(addr) {
        // SAFETY: a block of the arena; the new one is as large as asked for.
        return unsafe { bootstrap::leave(addr, bytes, || allocate(request).ok()) };
    }
    if !is_core() {
        // SAFETY: by the contract; the block is not of the arena, so the next allocator gave it out.
        return unsafe { next::reallocate(addr, bytes) };
    }
    // SAFETY: the block is freed only once its contents were copied, or it was given up.
    let free = |addr| unsafe { free(addr) };
    // SAFETY: by the contract.
    unsafe { move_block(addr, request, free) }
}

/// A new block with the old one's contents, which is then given to `free`.
///
/// # Safety
/// - `addr` is live and the caller's; `free` may take it.
pub(super) unsafe fn move_block(addr: Addr, request: &Request, free: impl FnOnce(Addr)) -> Outcome {
    if request.bytes() == 0 {
        free(addr);
        return Outcome::Freed;
    }
    let Ok(block) = super::nested::detached(request) else { return Outcome::Failed };
    // SAFETY: by the contract the block is live.
    let length = unsafe { usable_bytes(addr) }.min(request.bytes());
    let from = core::ptr::with_exposed_provenance::<u8>(addr.0 as usize);
    // SAFETY: both blocks have that many bytes, and the new one is distinct.
    unsafe { from.copy_to_nonoverlapping(block.as_ptr().cast(), length as usize) };
    free(addr);
    Outcome::Block(block)
}
