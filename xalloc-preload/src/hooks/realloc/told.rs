//! A realloc that is recorded: of a block that is live, and of what is none.
//!
//! A block that may move is given back and obtained in one call, and another thread may get the old place before this
//! one returns. So the giving back is stamped and published before the call, the obtaining after it; a call that fails
//! takes the first half back.
//!
//! # Safety
//! - The pointer that a C caller passes is null or a live block, by the contract of C `realloc`.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::null_mut;

use xalloc_core::heap::{HeapFault, NoSink, Verdict};
use xalloc_core::sampling::Step;
use xalloc_core::units::{Addr, ArenaId, PAGE_BYTES, StackId};
use xalloc_core::wire::{Call, Event};

use super::super::alloc::{allocate_for_realloc, block_at, made, note, tell_ignored};
use super::super::fault::{self, Asked};
use crate::arch::Entry;
use crate::backend::{self, Outcome, Request};
use crate::guard::{self, Access, Inside, Recorded};
use crate::host;
use crate::sampled;
use crate::segment::{self, Segment};
use crate::stacks::{self, Steps};
use crate::thread::{Own, Thread};

/// Changes a block's size.
///
/// # Safety
/// - By the bullet of the module.
#[inline(always)]
pub(super) unsafe fn reallocate(block: *mut c_void, call: Call, bytes: usize, entry: Entry) -> *mut c_void {
    if block.is_null() {
        return allocate_for_realloc(call, bytes, entry.ip, entry.sp, entry.fp);
    }
    let addr = Addr(block.expose_provenance() as u64);
    let request = Request::plain(call, bytes);
    match guard::enter_recorded() {
        // SAFETY: by the contract.
        Some(recorded) => unsafe { reallocate_quickly(recorded, addr, &request, entry) },
        // SAFETY: by the contract.
        None => unsafe { reallocate_otherwise(addr, &request, entry) },
    }
}

/// A realloc where events are recorded and the core's heap serves.
///
/// # Safety
/// - As for [`reallocate`].
#[inline(always)]
unsafe fn reallocate_quickly(mut recorded: Recorded, addr: Addr, request: &Request, entry: Entry) -> *mut c_void {
    if recorded.own().stream.wants_ring() {
        // SAFETY: by the contract.
        return unsafe { reallocate_inside(recorded.into_inside(), addr, request, entry) };
    }
    if let Err(fault) = backend::claim(addr) {
        // SAFETY: by the contract.
        return unsafe { reallocate_faulty(recorded.into_inside(), addr, request, entry, fault) };
    }
    let (thread, segment) = (recorded.thread(), recorded.segment());
    // SAFETY: by the contract, and the block was claimed.
    match unsafe { reallocate_told(recorded.own(), thread, segment, addr, request, entry) } {
        Outcome::Block(block) => block_at(recorded.leave(block.addr)),
        outcome @ (Outcome::Freed | Outcome::Failed | Outcome::Refused(_)) => {
            conclude(recorded.into_inside(), outcome, addr, request, entry)
        }
    }
}

/// A realloc in any other circumstances.
///
/// # Safety
/// - As for [`reallocate`].
#[inline(never)]
unsafe fn reallocate_otherwise(addr: Addr, request: &Request, entry: Entry) -> *mut c_void {
    let outcome = match guard::enter() {
        // SAFETY: by the contract.
        Access::Inside(inside) => return unsafe { reallocate_inside(inside, addr, request, entry) },
        Access::Nested(thread) => match backend::claim(addr) {
            // SAFETY: by the contract.
            Ok(()) => unsafe { reallocate_nested(thread, addr, request) },
            Err(fault) => {
                fault::refuse_blindly(Asked { call: request.call, addr, bytes: request.bytes() });
                host::set_errno(libc::ENOMEM);
                Outcome::Refused(fault)
            }
        },
        Access::Bare => {
            sampled::lose_end_of(addr);
            // SAFETY: by the contract.
            unsafe { backend::reallocate_bare(addr, request) }
        }
    };
    match outcome {
        Outcome::Block(block) => block.as_ptr(),
        Outcome::Freed | Outcome::Failed | Outcome::Refused(_) => null_mut(),
    }
}

/// # Safety
/// - As for [`reallocate`].
#[inline(never)]
unsafe fn reallocate_inside(mut inside: Inside<'static>, addr: Addr, request: &Request, entry: Entry) -> *mut c_void {
    if let Err(fault) = backend::claim(addr) {
        // SAFETY: by the contract.
        return unsafe { reallocate_faulty(inside, addr, request, entry, fault) };
    }
    // SAFETY: by the contract, and the block was claimed.
    let outcome = unsafe { reallocate_claimed(&mut inside, addr, request, entry) };
    conclude(inside, outcome, addr, request, entry)
}

/// Ends a hook with what became of a block that was claimed.
#[inline(never)]
fn conclude(mut inside: Inside<'static>, outcome: Outcome, addr: Addr, request: &Request, entry: Entry) -> *mut c_void {
    match outcome {
        Outcome::Block(block) => block.as_ptr(),
        Outcome::Freed => null_mut(),
        Outcome::Failed => {
            inside.set_errno(libc::ENOMEM);
            null_mut()
        }
        Outcome::Refused(fault) => {
            fault::refuse(inside, entry, Asked { call: request.call, addr, bytes: request.bytes() }, fault);
            substitute(addr, request, entry)
        }
    }
}

/// # Safety
/// - As for [`reallocate`]; the block was claimed.
#[inline(always)]
unsafe fn reallocate_claimed(inside: &mut Inside<'_>, addr: Addr, request: &Request, entry: Entry) -> Outcome {
    match inside.recording() {
        // SAFETY: by the contract.
        Some(segment) if segment.is_sampled() => unsafe { reallocate_sampled(inside, segment, addr, request, entry) },
        Some(segment) => {
            inside.flush_spare();
            let thread = inside.thread();
            // SAFETY: by the contract.
            unsafe { reallocate_told(inside.own(), thread, segment, addr, request, entry) }
        }
        // SAFETY: by the contract.
        None => unsafe {
            backend::reallocate(&mut inside.own().cache, &mut NoSink, addr, request.call, request.bytes())
        },
    }
}

/// A realloc that [`backend::claim`] found fault with. A live block whose words were overwritten is resized by what they
/// say, as libc does it.
///
/// # Safety
/// - As for [`reallocate`].
#[cold]
#[inline(never)]
unsafe fn reallocate_faulty(
    mut inside: Inside<'static>,
    addr: Addr,
    request: &Request,
    entry: Entry,
    fault: HeapFault,
) -> *mut c_void {
    let asked = Asked { call: request.call, addr, bytes: request.bytes() };
    if fault == HeapFault::NotABlock || backend::claim_faulty(addr).is_err() {
        fault::refuse(inside, entry, asked, HeapFault::NotABlock);
        return substitute(addr, request, entry);
    }
    fault::warn(&mut inside, entry, asked, fault);
    // SAFETY: by the contract; the block is live, was claimed, and libc's own checks of its words follow.
    let outcome = unsafe { reallocate_claimed(&mut inside, addr, request, entry) };
    if let Outcome::Refused(fault) = outcome {
        drop(inside);
        fault::follow(Verdict::Aborts(fault));
        return substitute(addr, request, entry);
    }
    conclude(inside, outcome, addr, request, entry)
}

/// What a program gets for a pointer that is no block, where it is to go on: a block of its own, with what lies at the
/// pointer, for libc would have taken that memory as one.
#[cold]
#[inline(never)]
fn substitute(addr: Addr, request: &Request, entry: Entry) -> *mut c_void {
    if request.bytes() == 0 {
        return null_mut();
    }
    let Entry { ip, sp, fp } = entry;
    let made = allocate_for_realloc(request.call, request.bytes() as usize, ip, sp, fp);
    let mut at = 0;
    while !made.is_null() && at < request.bytes() && host::is_readable((addr.0 + at) as usize) {
        // What can be read at one place of a page can be read up to its end.
        let to_page_end = PAGE_BYTES - (addr.0 + at) % PAGE_BYTES;
        let part = to_page_end.min(request.bytes() - at);
        let from = core::ptr::with_exposed_provenance::<u8>((addr.0 + at) as usize);
        // SAFETY: the block has the bytes asked for, of which these are some.
        let to = unsafe { made.byte_add(at as usize) }.cast::<u8>();
        // SAFETY: the kernel has just read there; the block is new and so lies elsewhere.
        unsafe { core::ptr::copy_nonoverlapping(from, to, part as usize) };
        at += part;
    }
    made
}

/// Tells of a realloc, and does it.
///
/// # Safety
/// - As for [`reallocate`]; the block was claimed.
#[inline(never)]
unsafe fn reallocate_told(
    own: &mut Own,
    thread: &Thread,
    segment: &'static Segment,
    addr: Addr,
    request: &Request,
    entry: Entry,
) -> Outcome {
    own.stream.event(segment, segment.now(), StackId::NONE, first_half(addr, request));
    let stack = stacks::stack_of(own, entry);
    let Own { cache, stream, .. } = own;
    let mut steps = Steps::new(segment, stream, stack);
    // SAFETY: by the contract.
    let reallocate = || unsafe { backend::reallocate(cache, &mut steps, addr, request.call, request.bytes()) };
    let outcome = thread.served(reallocate);
    steps.settle();
    if let Outcome::Freed = outcome {
        return outcome;
    }
    if let Some(event) = second_half(addr, request, &outcome) {
        stream.event(segment, segment.now(), stack, event);
    }
    if let Outcome::Failed = outcome {
        let event = Event::AllocFailed { size_bytes: request.bytes(), call: request.call };
        stream.event(segment, segment.now(), stack, event);
    }
    if let Outcome::Block(block) = &outcome
        && thread.is_ignoring()
    {
        tell_ignored(own, segment, block.addr, StackId::NONE);
    }
    outcome
}

/// A realloc where only some blocks are recorded: the block that goes may be one of them, and the one that comes, each for
/// itself.
///
/// # Safety
/// - As for [`reallocate`]; the block was claimed.
#[inline(never)]
unsafe fn reallocate_sampled(
    inside: &mut Inside<'_>,
    segment: &'static Segment,
    addr: Addr,
    request: &Request,
    entry: Entry,
) -> Outcome {
    inside.flush_spare();
    let thread = inside.thread();
    let own = inside.own();
    let step = if request.bytes() == 0 { Step::Passes } else { sampled::step(own, segment, request.bytes()) };
    let is_hit = step == Step::Hit;
    let was_marked = sampled::unmark(addr);
    if was_marked {
        let goes = if is_hit { first_half(addr, request) } else { Event::Free { addr, call: request.call } };
        own.stream.event(segment, segment.now(), StackId::NONE, goes);
    }
    // The old block ends before the thread's next allocation, which may be this one.
    sampled::tell_passed(own, segment, step);
    let cache = &mut own.cache;
    // SAFETY: by the contract.
    let reallocate = || unsafe { backend::reallocate(cache, &mut NoSink, addr, request.call, request.bytes()) };
    let outcome = thread.served(reallocate);
    let comes = match &outcome {
        Outcome::Block(block) if is_hit && sampled::mark(segment, block.addr) => {
            Some(made(block, request.bytes(), request.call))
        }
        Outcome::Block(_) | Outcome::Freed => None,
        Outcome::Failed | Outcome::Refused(_) => {
            // Told as gone, it comes back; of one that was not to be resized into a recorded block, the size asked for is
            // not known any more.
            let returns = was_marked && sampled::mark(segment, addr);
            // SAFETY: the block was claimed, and both outcomes leave it as it was.
            returns.then(|| if is_hit { Event::ReallocUndo { addr } } else { unsafe { returned(addr, request) } })
        }
    };
    let failed = match &outcome {
        Outcome::Failed if is_hit => Some(Event::AllocFailed { size_bytes: request.bytes(), call: request.call }),
        Outcome::Block(_) | Outcome::Freed | Outcome::Failed | Outcome::Refused(_) => None,
    };
    if comes.is_some() || failed.is_some() {
        let stack = stacks::stack_of(own, entry);
        for event in [comes, failed].into_iter().flatten() {
            own.stream.event(segment, segment.now(), stack, event);
        }
    }
    outcome
}

/// The event of a block that was told to be free and is not; its size is what its size word says.
///
/// # Safety
/// - The block at `addr` was claimed, and is as it was then: the realloc has failed or was refused.
unsafe fn returned(addr: Addr, request: &Request) -> Event {
    // SAFETY: by the contract the block's words are there, and nobody else has it.
    let usable_bytes = unsafe { backend::usable_bytes(addr) };
    Event::Alloc {
        addr,
        size_bytes: usable_bytes,
        slack_bytes: 0,
        arena: ArenaId::NONE,
        arena_seq: None,
        call: request.call,
    }
}

/// What is said before the call. A size of 0 frees, as libc has it.
fn first_half(addr: Addr, request: &Request) -> Event {
    if request.bytes() == 0 { Event::Free { addr, call: request.call } } else { Event::ReallocBegin { addr } }
}

/// What is said after it.
fn second_half(addr: Addr, request: &Request, outcome: &Outcome) -> Option<Event> {
    match outcome {
        Outcome::Block(block) => Some(made(block, request.bytes(), request.call)),
        Outcome::Freed => None,
        Outcome::Failed | Outcome::Refused(_) => Some(Event::ReallocUndo { addr }),
    }
}

/// # Safety
/// - As for [`reallocate`].
#[cold]
#[inline(never)]
unsafe fn reallocate_nested(thread: &Thread, addr: Addr, request: &Request) -> Outcome {
    let sampled_in = segment::current().filter(|segment| segment.is_sampled());
    let outcome = host::keeping_errno(|| {
        if sampled_in.is_some() {
            // The block that comes is not recorded; what the one that goes was is over.
            if sampled::unmark(addr) {
                note(thread, |_| Event::Free { addr, call: request.call });
            }
            // SAFETY: by the contract.
            return unsafe { backend::reallocate_nested(thread, addr, request) };
        }
        note(thread, |_| first_half(addr, request));
        // SAFETY: by the contract.
        let outcome = unsafe { backend::reallocate_nested(thread, addr, request) };
        if let Some(event) = second_half(addr, request, &outcome) {
            note(thread, |_| event);
        }
        outcome
    });
    if let Outcome::Failed = outcome {
        backend::restore(addr);
        host::set_errno(libc::ENOMEM);
    }
    outcome
}
