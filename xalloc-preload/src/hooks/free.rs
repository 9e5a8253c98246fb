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
use xalloc_core::units::{Addr, ArenaId, StackId};
use xalloc_core::wire::{Call, Event, PutAway, Stamped};

use super::alloc::note;
use super::fault::{self, Asked};
use crate::arch::Entry;
use crate::backend::{self, HEAP, bootstrap};
use crate::guard::{self, Access, Brief, Inside, Recorded};
use crate::host;
use crate::sampled;
use crate::segment::{self, Segment};
use crate::stacks::{self, Steps};
use crate::thread::{Own, Thread};

/// Takes a block back.
///
/// # Safety
/// - By the bullet of the module.
#[inline(always)]
unsafe fn free(block: *mut c_void, call: Call, ip: usize, sp: usize, fp: usize) {
    if block.is_null() {
        return;
    }
    let addr = Addr(block.expose_provenance() as u64);
    match guard::enter_recorded() {
        // SAFETY: by the contract.
        Some(recorded) => unsafe { free_recorded(recorded, addr, call, ip, sp, fp) },
        // SAFETY: by the contract.
        None => unsafe { free_otherwise(addr, call, ip, sp, fp) },
    }
}

/// A free where events are recorded and the core's heap serves. What seldom happens is done by calls at the very end, so
/// that nothing is kept over one.
///
/// # Safety
/// - As for [`free`].
#[inline(always)]
unsafe fn free_recorded(mut recorded: Recorded, addr: Addr, call: Call, ip: usize, sp: usize, fp: usize) {
    recorded.keep_entry(ip, sp, fp);
    // Before it is told that the block is free: what is none was not freed.
    if !HEAP.claim_plain(addr) {
        // SAFETY: by the contract.
        return unsafe { free_unlike_most(recorded, addr, call) };
    }
    // SAFETY: by the contract, and the block was claimed.
    unsafe { free_claimed_recorded(recorded, addr, call) };
}

/// The same of a block of another arena or with a mapping of its own, and of what is no block.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
unsafe fn free_unlike_most(mut recorded: Recorded, addr: Addr, call: Call) {
    match HEAP.claim(addr) {
        // SAFETY: by the contract, and the block was claimed.
        Ok(()) => unsafe { free_claimed_recorded(recorded, addr, call) },
        Err(fault) => {
            let entry = recorded.own().entry;
            // SAFETY: by the contract.
            unsafe { free_faulty(recorded.into_inside(), addr, call, entry, fault) };
        }
    }
}

/// The rest of [`free_recorded`]: most blocks go to the thread's cache.
///
/// # Safety
/// - As for [`free`]; the block was claimed.
#[inline(always)]
unsafe fn free_claimed_recorded(mut recorded: Recorded, addr: Addr, call: Call) {
    let segment = recorded.segment();
    let Own { cache, stream, .. } = recorded.own();
    let room = if segment.options.free_stacks == 0 { stream.room() } else { None };
    let Some(room) = room else {
        // SAFETY: by the contract.
        return unsafe { free_with_care(recorded, addr, call) };
    };
    // SAFETY: by the contract.
    match unsafe { HEAP.cacheable(cache, addr) } {
        Some(found) => {
            let event = Event::Free { addr, call };
            room.fill(Stamped { stamp: segment.now(), stack: StackId::NONE, event }.encode());
            HEAP.free_cached(cache, found);
            recorded.leave(addr);
        }
        // SAFETY: by the contract.
        None => unsafe { free_uncached_recorded(recorded, addr, call) },
    }
}

/// The same of a block that the thread's cache does not take. Most such blocks are small and go to a fast bin.
///
/// # Safety
/// - As for [`free`]; the block was claimed.
#[inline(never)]
unsafe fn free_uncached_recorded(mut recorded: Recorded, addr: Addr, call: Call) {
    let segment = recorded.segment();
    if segment.options.heap_steps == 0 {
        // SAFETY: by the contract.
        return unsafe { free_by_steps(recorded, addr, call, StackId::NONE) };
    }
    let stack = stacks::stack_of_kept(recorded.own());
    let Own { cache, stream, .. } = recorded.own();
    // SAFETY: by the contract, and the cache did not take the block.
    if let Some(found) = unsafe { HEAP.fast_binnable(cache, addr) }
        && let Some(room) = stream.room()
    {
        let put_away = PutAway::into_fast_bin(found.size_bytes);
        let seq = HEAP.free_fast(found);
        let event = Event::FreeBinned { addr, call, arena: ArenaId::MAIN, seq, put_away };
        room.fill(Stamped { stamp: segment.now(), stack, event }.encode());
        recorded.leave(addr);
        return;
    }
    // SAFETY: by the contract.
    unsafe { free_by_steps(recorded, addr, call, stack) };
}

/// The same of a block that leads to steps of any kind.
///
/// # Safety
/// - As for [`free`]; the block was claimed.
#[inline(never)]
unsafe fn free_by_steps(mut recorded: Recorded, addr: Addr, call: Call, stack: StackId) {
    let (thread, segment) = (recorded.thread(), recorded.segment());
    // SAFETY: by the contract.
    match unsafe { free_told(recorded.own(), thread, segment, addr, call, stack) } {
        Ok(()) => {
            recorded.leave(addr);
        }
        Err(fault) => {
            let entry = recorded.own().entry;
            fault::refuse(recorded.into_inside(), entry, Asked { call, addr, bytes: 0 }, fault);
        }
    }
}

/// The same where the ring has no room or there is no ring, and where every free is to have its stack.
///
/// # Safety
/// - As for [`free`]; the block was claimed.
#[cold]
#[inline(never)]
unsafe fn free_with_care(mut recorded: Recorded, addr: Addr, call: Call) {
    let entry = recorded.own().entry;
    // SAFETY: by the contract.
    unsafe { free_claimed(recorded.into_inside(), addr, call, entry) };
}

/// A free in any other circumstances.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
unsafe fn free_otherwise(addr: Addr, call: Call, ip: usize, sp: usize, fp: usize) {
    let entry = Entry { ip, sp, fp };
    match guard::enter() {
        // SAFETY: by the contract.
        Access::Inside(inside) => unsafe { free_inside(inside, addr, call, entry) },
        Access::Nested(thread) => match backend::claim(addr) {
            // SAFETY: by the contract.
            Ok(()) => unsafe { free_nested(thread, addr, call) },
            Err(_) => fault::refuse_blindly(Asked { call, addr, bytes: 0 }),
        },
        Access::Bare => {
            sampled::lose_end_of(addr);
            // SAFETY: by the contract.
            unsafe { backend::free_bare(addr) }
        }
    }
}

/// # Safety
/// - As for [`free`].
unsafe fn free_inside(inside: Inside<'static>, addr: Addr, call: Call, entry: Entry) {
    match backend::claim(addr) {
        // SAFETY: by the contract.
        Ok(()) => unsafe { free_claimed(inside, addr, call, entry) },
        // SAFETY: by the contract.
        Err(fault) => unsafe { free_faulty(inside, addr, call, entry, fault) },
    }
}

/// # Safety
/// - As for [`free`]; the block was claimed.
unsafe fn free_claimed(mut inside: Inside<'static>, addr: Addr, call: Call, entry: Entry) {
    // SAFETY: by the contract.
    if let Err(fault) = unsafe { try_to_free(&mut inside, addr, call, entry) } {
        fault::refuse(inside, entry, Asked { call, addr, bytes: 0 }, fault);
    }
}

/// A free of a block that was claimed.
///
/// # Safety
/// - As for [`free`]; the block was claimed.
unsafe fn try_to_free(inside: &mut Inside<'_>, addr: Addr, call: Call, entry: Entry) -> Result<(), HeapFault> {
    let Some(segment) = inside.recording().filter(|segment| sampled::tells_end_of(segment, addr)) else {
        // SAFETY: by the contract.
        return unsafe { backend::free(&mut inside.own().cache, &mut NoSink, addr) };
    };
    inside.flush_spare();
    let thread = inside.thread();
    let stack = stacks::stack_of_free(inside.own(), segment, entry);
    // SAFETY: by the contract.
    unsafe { free_told(inside.own(), thread, segment, addr, call, stack) }
}

/// Tells of a free, and does it.
///
/// # Safety
/// - As for [`free`]; the block was claimed.
#[inline(always)]
unsafe fn free_told(
    own: &mut Own,
    thread: &Thread,
    segment: &'static Segment,
    addr: Addr,
    call: Call,
    stack: StackId,
) -> Result<(), HeapFault> {
    if bootstrap::holds(addr) {
        return Ok(());
    }
    let Own { cache, stream, .. } = own;
    let mut steps = Steps::new(segment, stream, stack);
    steps.free(addr, call);
    // SAFETY: by the contract.
    let freed = thread.served(|| unsafe { backend::free(cache, &mut steps, addr) });
    steps.settle();
    freed
}

/// A free that [`backend::claim`] found fault with. A live block whose words were overwritten is freed by what they say, as
/// libc frees it.
///
/// # Safety
/// - As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_faulty(mut inside: Inside<'static>, addr: Addr, call: Call, entry: Entry, fault: HeapFault) {
    if bootstrap::holds(addr) {
        return;
    }
    let asked = Asked { call, addr, bytes: 0 };
    if fault == HeapFault::NotABlock || backend::claim_faulty(addr).is_err() {
        return fault::refuse(inside, entry, asked, HeapFault::NotABlock);
    }
    fault::warn(&mut inside, entry, asked, fault);
    // SAFETY: by the contract; the block is live, was claimed, and libc's own checks of its words follow.
    if let Err(fault) = unsafe { try_to_free(&mut inside, addr, call, entry) } {
        drop(inside);
        fault::follow(Verdict::Aborts(fault));
    }
}

/// # Safety
/// - As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_nested(thread: &Thread, addr: Addr, call: Call) {
    host::keeping_errno(|| {
        if segment::current().is_none_or(|segment| sampled::tells_end_of(segment, addr)) {
            note(thread, |_| Event::Free { addr, call });
        }
        // SAFETY: by the contract.
        unsafe { backend::free_nested(thread, addr) }
    });
}

/// C `free` and `cfree`.
pub(crate) unsafe extern "C" fn on_free(block: *mut c_void, ip: usize, sp: usize, fp: usize) {
    if block.is_null() {
        return;
    }
    match guard::enter_briefly() {
        // SAFETY: by the bullet of the module.
        Some(brief) => unsafe { free_briefly(brief, block, ip, sp, fp) },
        // SAFETY: as above.
        None => unsafe { free_told_of(block, ip, sp, fp) },
    }
}

/// `free` where something is recorded, if only of some blocks; a function of its own, as [`free_fully`] is.
///
/// # Safety
/// - As for [`free`].
#[inline(never)]
unsafe extern "C" fn free_told_of(block: *mut c_void, ip: usize, sp: usize, fp: usize) {
    let Some(brief) = guard::enter_sampled() else {
        // SAFETY: by the contract.
        return unsafe { free_fully(block, ip, sp, fp) };
    };
    let addr = Addr(block.expose_provenance() as u64);
    if sampled::may_be_marked(addr) {
        // SAFETY: by the contract.
        return unsafe { free_marked(block, ip, sp, fp, brief) };
    }
    // SAFETY: by the contract.
    unsafe { free_briefly(brief, block, ip, sp, fp) };
}

/// The same of a block that is recorded.
///
/// # Safety
/// - As for [`free`].
#[cold]
#[inline(never)]
unsafe fn free_marked(block: *mut c_void, ip: usize, sp: usize, fp: usize, brief: Brief) {
    let addr = Addr(block.expose_provenance() as u64);
    // SAFETY: by the contract.
    unsafe { free_inside(brief.into_inside(), addr, Call::Free, Entry { ip, sp, fp }) };
}

/// `free` where nothing is recorded.
///
/// # Safety
/// - As for [`free`].
#[inline(always)]
unsafe fn free_briefly(mut brief: Brief, block: *mut c_void, ip: usize, sp: usize, fp: usize) {
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
    unsafe { free(block, Call::Free, ip, sp, fp) };
}

/// C23 `free_sized`.
pub(crate) unsafe extern "C" fn on_free_sized(block: *mut c_void, _size: usize, ip: usize, sp: usize, fp: usize) {
    // SAFETY: by the bullet of the module.
    unsafe { free(block, Call::FreeSized, ip, sp, fp) };
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
    unsafe { free(block, Call::FreeAlignedSized, ip, sp, fp) };
}
