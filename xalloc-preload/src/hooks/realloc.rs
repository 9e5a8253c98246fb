//! `realloc` and `reallocarray`, as C calls them: what is recorded is [`told`], all else is served here.
//!
//! # Safety
//! - The pointer that a C caller passes is null or a live block, by the contract of C `realloc`.
#![allow(unsafe_code)]

mod told;

use core::ffi::c_void;

use xalloc_core::heap::Resized;
use xalloc_core::units::Addr;
use xalloc_core::wire::Call;

use super::alloc::{leave_damaged, leave_with, malloc_briefly, malloc_for_realloc};
use crate::arch::Entry;
use crate::backend::bootstrap;
use crate::guard::{self, Brief};
use crate::sampled;
use told::reallocate;

/// C `realloc`.
pub(crate) unsafe extern "C" fn on_realloc(
    block: *mut c_void,
    bytes: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> *mut c_void {
    if block.is_null() {
        return match guard::enter_briefly() {
            Some(brief) => malloc_briefly(brief, bytes),
            None => malloc_for_realloc(bytes, ip, sp, fp),
        };
    }
    let addr = Addr(block.expose_provenance() as u64);
    if bytes == 0 || bootstrap::holds(addr) {
        // SAFETY: by the bullet of the module.
        return unsafe { realloc_fully(block, bytes, ip, sp, fp) };
    }
    match guard::enter_briefly() {
        // SAFETY: by the bullet of the module.
        Some(brief) => unsafe { resize_briefly(brief, block, bytes, ip, sp, fp) },
        // SAFETY: as above.
        None => unsafe { resize_told(block, bytes, ip, sp, fp) },
    }
}

/// `realloc` of a block of the heap's to more than nothing, where nothing is recorded.
///
/// # Safety
/// - As for [`reallocate`].
#[inline(always)]
unsafe fn resize_briefly(
    mut brief: Brief,
    block: *mut c_void,
    bytes: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> *mut c_void {
    let addr = Addr(block.expose_provenance() as u64);
    // SAFETY: by the contract.
    if unsafe { brief.heap().extend(brief.cache(), addr, bytes as u64) } {
        return leave_with(brief, Some(addr));
    }
    brief.keep_entry(Entry { ip, sp, fp });
    // SAFETY: by the contract; nothing has changed.
    unsafe { realloc_briefly(brief, block, bytes) }
}

/// The same where something is recorded, if only of some blocks.
///
/// # Safety
/// - As for [`reallocate`].
#[inline(never)]
unsafe extern "C" fn resize_told(block: *mut c_void, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    let Some(mut brief) = guard::enter_sampled() else {
        // SAFETY: by the contract.
        return unsafe { realloc_fully(block, bytes, ip, sp, fp) };
    };
    let addr = Addr(block.expose_provenance() as u64);
    if brief.countdown().passes(bytes as u64) && !sampled::may_be_marked(addr) {
        // SAFETY: by the contract.
        return unsafe { resize_briefly(brief, block, bytes, ip, sp, fp) };
    }
    brief.countdown().take_back(bytes as u64);
    drop(brief);
    // SAFETY: by the contract; nothing has changed.
    unsafe { realloc_fully(block, bytes, ip, sp, fp) }
}

/// What [`resize_briefly`] leaves to be done.
///
/// # Safety
/// - As for [`reallocate`].
#[inline(never)]
unsafe fn realloc_briefly(mut brief: Brief, block: *mut c_void, bytes: usize) -> *mut c_void {
    let addr = Addr(block.expose_provenance() as u64);
    // SAFETY: by the contract.
    let done = unsafe { brief.heap().realloc(brief.cache(), addr, bytes as u64) };
    if brief.cache().has_damage() {
        let entry = brief.entry();
        let made = match done {
            Resized::At(addr) => Some(addr),
            Resized::Failed | Resized::Refused(_) => None,
        };
        return leave_damaged(brief, Call::Realloc, entry, made);
    }
    match done {
        Resized::At(addr) => leave_with(brief, Some(addr)),
        Resized::Failed => leave_with(brief, None),
        // SAFETY: as above; nothing has changed.
        Resized::Refused(_) => unsafe { realloc_again(brief, block, bytes) },
    }
}

/// Finds a fault again, and tells it.
///
/// # Safety
/// - As for [`reallocate`].
#[cold]
#[inline(never)]
unsafe fn realloc_again(brief: Brief, block: *mut c_void, bytes: usize) -> *mut c_void {
    let Entry { ip, sp, fp } = brief.give_up();
    // SAFETY: by the contract.
    unsafe { realloc_fully(block, bytes, ip, sp, fp) }
}

/// `realloc` where something is to be recorded, or found out first.
///
/// # Safety
/// - As for [`reallocate`].
#[inline(never)]
unsafe fn realloc_fully(block: *mut c_void, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    // SAFETY: by the contract.
    unsafe { reallocate(block, Call::Realloc, bytes, Entry { ip, sp, fp }) }
}

/// C `reallocarray`: a product that overflows fails as a request for too much.
pub(crate) unsafe extern "C" fn on_reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> *mut c_void {
    // A product that overflows becomes more than there can be: it fails, and is told, like any such request.
    let bytes = count.saturating_mul(size);
    // SAFETY: by the bullet of the module.
    unsafe { reallocate(block, Call::Reallocarray, bytes, Entry { ip, sp, fp }) }
}
