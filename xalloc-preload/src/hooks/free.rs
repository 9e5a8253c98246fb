//! `free` and its relatives.
//!
//! A free is stamped and published before the memory goes back, so that no other thread can be seen to get the block
//! earlier.
//!
//! # Safety
//! - The pointer that a C caller passes is null or a live block, by the contract of C `free`.
#![allow(unsafe_code)]

use core::ffi::c_void;

use xalloc_core::heap::{HeapFault, NoSink, Verdict};
use xalloc_core::units::Addr;
use xalloc_core::wire::{Call, Event};

use super::alloc::note;
use super::fault::{self, Asked};
use crate::arch::Entry;
use crate::backend::{self, HEAP, bootstrap};
use crate::guard::{self, Access, Brief, Inside};
use crate::host;
use crate::segment::Segment;
use crate::stacks::{self, Steps};
use crate::thread::{Own, Thread};

/// Takes a block back.
///
/// # Safety
/// - By the bullet of the module.
#[inline(always)]
unsafe fn free(block: *mut c_void, call: Call, entry: Entry) {
    if block.is_null() {
        return;
    }
    let addr = Addr(block.expose_provenance() as u64);
    match guard::enter() {
        Access::Inside(mut inside) => {
            // Before it is told that the block is free: what is none was not freed.
            if let Err(fault) = backend::look(addr) {
                // SAFETY: by the contract.
                return unsafe { free_faulty(inside, addr, call, entry, fault) };
            }
            // SAFETY: by the contract, and the look found no fault.
            if unsafe { !free_cached(&mut inside, addr, call, entry) } {
                // SAFETY: as above.
                unsafe { free_inside(inside, addr, call, entry) };
            }
        }
        Access::Nested(thread) => match backend::claim(addr) {
            // SAFETY: by the contract.
            Ok(()) => unsafe { free_nested(thread, addr, call) },
            Err(_) => fault::refuse_blindly(Asked { call, addr, bytes: 0 }),
        },
        // SAFETY: by the contract.
        Access::Bare => unsafe { backend::free_bare(addr) },
    }
}

/// What most frees come to: the thread's cache takes the block. False: it does not, and nothing has happened.
///
/// # Safety
/// - As for [`free`]; [`backend::look`] found no fault.
#[inline(always)]
unsafe fn free_cached(inside: &mut Inside<'_>, addr: Addr, call: Call, entry: Entry) -> bool {
    if !backend::is_core() || bootstrap::holds(addr) {
        return false;
    }
    // SAFETY: by the contract.
    let Some(found) = (unsafe { HEAP.cacheable(&inside.own().cache, addr) }) else { return false };
    if let Some(segment) = inside.recording() {
        inside.flush_spare();
        let Own { stream, capture, .. } = inside.own();
        let stack = stacks::stack_of_free(capture, stream, segment, entry);
        stream.event(segment, segment.now(), stack, Event::Free { addr, call });
    }
    HEAP.free_cached(&mut inside.own().cache, found);
    true
}

/// # Safety
/// - As for [`free`]; [`backend::look`] found no fault.
#[inline(never)]
unsafe fn free_inside(mut inside: Inside<'static>, addr: Addr, call: Call, entry: Entry) {
    // SAFETY: by the contract.
    if let Err(fault) = unsafe { free_seen(&mut inside, addr, call, entry) } {
        fault::refuse(inside, entry, Asked { call, addr, bytes: 0 }, fault);
    }
}

/// # Safety
/// - As for [`free`]; [`backend::look`] found no fault.
#[inline(always)]
unsafe fn free_seen(inside: &mut Inside<'_>, addr: Addr, call: Call, entry: Entry) -> Result<(), HeapFault> {
    backend::claim_seen(addr).and_then(|()| match inside.recording() {
        // SAFETY: by the contract.
        Some(segment) => unsafe { free_recorded(inside, segment, addr, call, entry) },
        // SAFETY: by the contract.
        None => unsafe { backend::free(&mut inside.own().cache, &mut NoSink, addr) },
    })
}

/// A free that [`backend::look`] found fault with. A live block whose words were overwritten is freed by what they say, as
/// libc frees it.
///
/// # Safety
/// - As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_faulty(mut inside: Inside<'static>, addr: Addr, call: Call, entry: Entry, fault: HeapFault) {
    let asked = Asked { call, addr, bytes: 0 };
    if fault == HeapFault::NotABlock {
        return fault::refuse(inside, entry, asked, fault);
    }
    fault::warn(&mut inside, entry, asked, fault);
    // SAFETY: by the contract; the block is live, and libc's own checks of its words follow.
    if let Err(fault) = unsafe { free_seen(&mut inside, addr, call, entry) } {
        drop(inside);
        fault::follow(Verdict::Aborts(fault));
    }
}

/// # Safety
/// - As for [`free`].
#[inline(always)]
unsafe fn free_recorded(
    inside: &mut Inside<'_>,
    segment: &'static Segment,
    addr: Addr,
    call: Call,
    entry: Entry,
) -> Result<(), HeapFault> {
    if bootstrap::holds(addr) {
        return Ok(());
    }
    inside.flush_spare();
    let thread = inside.thread();
    let Own { cache, stream, capture, .. } = inside.own();
    let mut steps = Steps::new(segment, stream, capture, entry);
    steps.free(addr, call);
    // SAFETY: by the contract.
    let freed = thread.served(|| unsafe { backend::free(cache, &mut steps, addr) });
    steps.settle();
    freed
}

/// # Safety
/// - As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_nested(thread: &Thread, addr: Addr, call: Call) {
    host::keeping_errno(|| {
        note(thread, |_| Event::Free { addr, call });
        // SAFETY: by the contract.
        unsafe { backend::free_nested(thread, addr) }
    });
}

/// C `free` and `cfree`.
pub(crate) unsafe extern "C" fn on_free(block: *mut c_void, ip: usize, sp: usize, fp: usize) {
    if block.is_null() {
        return;
    }
    let Some(mut brief) = guard::enter_briefly() else {
        // SAFETY: by the bullet of the module.
        return unsafe { free_fully(block, ip, sp, fp) };
    };
    let addr = Addr(block.expose_provenance() as u64);
    // The word before a block of the bootstrap arena is no size that a cache takes.
    // SAFETY: by the bullet of the module.
    if unsafe { brief.heap().free_cached(brief.cache(), addr) } {
        brief.leave(addr);
        return;
    }
    brief.keep_entry(Entry { ip, sp, fp });
    // SAFETY: by the bullet of the module.
    unsafe { free_uncached(brief, block) };
}

/// `free` where nothing is recorded and the thread's cache does not take the block.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
unsafe fn free_uncached(mut brief: Brief, block: *mut c_void) {
    let addr = Addr(block.expose_provenance() as u64);
    if bootstrap::holds(addr) {
        return;
    }
    // SAFETY: by the contract.
    if unsafe { brief.heap().free_uncached(brief.cache(), addr) }.is_err() {
        // SAFETY: as above; nothing has changed.
        unsafe { free_again(brief, block) };
    } else if brief.cache().has_damage() {
        let entry = brief.entry();
        fault::damaged_briefly(brief, entry, Call::Free);
    }
}

/// Finds a fault again, and tells it.
///
/// # Safety
/// - As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_again(brief: Brief, block: *mut c_void) {
    let Entry { ip, sp, fp } = brief.give_up();
    // SAFETY: by the contract.
    unsafe { free_fully(block, ip, sp, fp) };
}

/// `free` but for the case that needs least; a function of its own, so that the other has no frame.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
unsafe extern "C" fn free_fully(block: *mut c_void, ip: usize, sp: usize, fp: usize) {
    // SAFETY: by the contract.
    unsafe { free(block, Call::Free, Entry { ip, sp, fp }) };
}

/// C23 `free_sized`.
pub(crate) unsafe extern "C" fn on_free_sized(block: *mut c_void, _size: usize, ip: usize, sp: usize, fp: usize) {
    // SAFETY: by the bullet of the module.
    unsafe { free(block, Call::FreeSized, Entry { ip, sp, fp }) };
}

/// C23 `free_aligned_sized`.
pub(crate) unsafe extern "C" fn on_free_aligned_sized(
    block: *mut c_void,
    _align: usize,
    _size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) {
    // SAFETY: by the bullet of the module.
    unsafe { free(block, Call::FreeAlignedSized, Entry { ip, sp, fp }) };
}
