//! Service for a signal handler whose thread is in a hook.
//!
//! The core's heap may be half-way through a change, so a block gets a mapping of its own, and one that cannot be freed
//! so is kept until the interrupted hook ends. The program's own allocator is called as it would be without us: whether
//! that is allowed in a handler is between the two of them.
//!
//! # Safety
//! - As for [`super`].
#![allow(unsafe_code)]

use xalloc_core::heap::{AllocError, NoSink};
use xalloc_core::units::{Addr, PAGE_BYTES};
use xalloc_core::wire::Call;

use super::{Block, HEAP, Outcome, Request, bootstrap, is_core, next};
use crate::thread::Thread;

/// Allocates by a mapping; zeroed, for the mapping is new.
pub(super) fn detached(request: &Request) -> Result<Block, AllocError> {
    let is_power = request.align.is_power_of_two();
    let align = match request.call {
        Call::PosixMemalign if !is_power || !request.align.is_multiple_of(8) => return Err(AllocError::BadAlignment),
        Call::AlignedAlloc if !is_power => return Err(AllocError::BadAlignment),
        Call::Valloc | Call::Pvalloc => PAGE_BYTES,
        Call::Memalign | Call::AlignedAlloc | Call::PosixMemalign => {
            request.align.max(16).checked_next_power_of_two().ok_or(AllocError::BadAlignment)?
        }
        Call::Malloc
        | Call::Calloc
        | Call::Realloc
        | Call::Reallocarray
        | Call::GlobalAlloc
        | Call::Free
        | Call::FreeSized
        | Call::FreeAlignedSized => 16,
    };
    if align > PAGE_BYTES {
        return Err(AllocError::NoMemory);
    }
    HEAP.malloc_detached(&mut NoSink, request.bytes(), align).map(Block::from).ok_or(AllocError::NoMemory)
}

/// Allocates.
#[cold]
pub(crate) fn allocate(request: &Request) -> Result<Block, AllocError> {
    if is_core() { detached(request) } else { next::allocate(request) }
}

/// Frees `addr`, which is not null and was claimed.
///
/// # Safety
/// - The program handed it back.
#[cold]
pub(crate) unsafe fn free(thread: &Thread, addr: Addr) {
    if bootstrap::holds(addr) {
        return;
    }
    if !is_core() {
        // SAFETY: by the contract.
        return unsafe { next::free(addr) };
    }
    // SAFETY: by the contract.
    if !unsafe { HEAP.free_detached_claimed(&mut NoSink, addr) } {
        // SAFETY: by the contract; every block has at least 24 bytes, aligned to 16.
        unsafe { thread.defer(addr.0 as usize) };
    }
}

/// Changes the size of `addr`, which is not null and was claimed.
///
/// # Safety
/// - The program handed it back.
#[cold]
pub(crate) unsafe fn reallocate(thread: &Thread, addr: Addr, request: &Request) -> Outcome {
    if bootstrap::holds(addr) {
        // SAFETY: a block of the arena; the new one is as large as asked for.
        return unsafe { bootstrap::leave(addr, request.bytes(), || allocate(request).ok()) };
    }
    if !is_core() {
        // SAFETY: by the contract.
        return unsafe { next::reallocate(addr, request.bytes()) };
    }
    // SAFETY: the block is freed only once its contents were copied, or it was given up.
    let free = |addr| unsafe { free(thread, addr) };
    // SAFETY: by the contract.
    unsafe { super::bare::move_block(addr, request, free) }
}
