//! A request that is recorded: served by the heap, and told with its stack.
//!
//! An allocation is stamped after it was made and before it is returned: whoever else can know the address learns it
//! later. errno is the program's business: it changes only where null is returned.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use xalloc_core::heap::{AllocError, NoSink, ThreadCache};
use xalloc_core::units::{Addr, StackId, Stamp};
use xalloc_core::wire::{Call, Event, HeapCall, Stamped};

use super::super::fault;
use super::block_at;
use crate::arch::Entry;
use crate::backend::{self, Block, HEAP, Request};
use crate::guard::{self, Access, Inside, Recorded};
use crate::host;
use crate::sampled;
use crate::segment::{self, Segment};
use crate::stacks::{self, Steps};
use crate::thread::{Own, Thread};

/// The alignment that every block has: a request for more is recorded with it.
const EVERY_ALIGNMENT: u64 = 16;

/// Serves and records a request of `malloc`'s kind.
#[inline(always)]
pub(in super::super) fn allocate_plain(call: Call, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    match guard::enter_recorded() {
        Some(recorded) => allocate_quickly(recorded, call, bytes, ip, sp, fp),
        None => allocate_otherwise(call, bytes, ip, sp, fp),
    }
}

/// The same in any other circumstances than those of [`Recorded`].
#[inline(never)]
fn allocate_otherwise(call: Call, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    pointer(allocate_unlike_most(Request::plain(call, bytes), Entry { ip, sp, fp }))
}

/// What most requests come to: events are recorded, the core's heap serves, and the thread's cache has the block.
///
/// The stack is captured first, for then little must be kept over that call; what else is called is called at the end.
#[inline(always)]
fn allocate_quickly(mut recorded: Recorded, call: Call, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    let (segment, size_bytes) = (recorded.segment(), bytes as u64);
    recorded.keep_entry(ip, sp, fp);
    let stack = stacks::stack_of_kept(recorded.own());
    let Own { cache, stream, .. } = recorded.own();
    let Some(room) = stream.room() else { return allocate_for_want_of_room(recorded, call, bytes) };
    let Some(found) = HEAP.take_cached::<Steps<'_>>(cache, size_bytes) else {
        return allocate_uncached(recorded, call, bytes, stack);
    };
    let block = Block::from(found);
    let event = made(&block, size_bytes, call);
    room.fill(Stamped { stamp: segment.now(), stack, event }.encode());
    if recorded.thread().is_ignoring() || !HEAP.hand_out_plain(block.addr) {
        return hand_out(recorded, block.addr);
    }
    block_at(recorded.leave(block.addr))
}

/// Ends a hook that has told of a block which is to be ignored by checks, or is the first of its range.
#[cold]
#[inline(never)]
fn hand_out(mut recorded: Recorded, addr: Addr) -> *mut c_void {
    HEAP.hand_out(addr);
    if recorded.thread().is_ignoring() {
        let segment = recorded.segment();
        tell_ignored(recorded.own(), segment, addr, StackId::NONE);
    }
    block_at(recorded.leave(addr))
}

/// The same without a block in the thread's cache.
#[inline(never)]
fn allocate_uncached(mut recorded: Recorded, call: Call, bytes: usize, stack: StackId) -> *mut c_void {
    let (thread, segment) = (recorded.thread(), recorded.segment());
    let request = Request::plain(call, bytes);
    let result = allocate_told(recorded.own(), thread, segment, &request, stack, |cache, steps| {
        HEAP.malloc_uncached(cache, steps, bytes as u64).map(Block::from).ok_or(AllocError::NoMemory)
    });
    match result {
        Ok(block) if !recorded.own().cache.has_damage() => block_at(recorded.leave(block.addr)),
        result => {
            let entry = recorded.own().entry;
            pointer(conclude(recorded.into_inside(), request, entry, result))
        }
    }
}

/// The same where the ring has no room, or there is no ring.
#[cold]
#[inline(never)]
fn allocate_for_want_of_room(mut recorded: Recorded, call: Call, bytes: usize) -> *mut c_void {
    let entry = recorded.own().entry;
    pointer(allocate_inside(recorded.into_inside(), Request::plain(call, bytes), entry))
}

/// Serves and records any request.
#[inline(never)]
pub(super) fn allocate(request: Request, entry: Entry) -> Result<Block, AllocError> {
    match guard::enter_recorded() {
        Some(recorded) => allocate_recorded(recorded, request, entry),
        None => allocate_unlike_most(request, entry),
    }
}

/// What is asked of an arena at once, where events are recorded and the core's heap serves.
#[inline(always)]
fn allocate_recorded(mut recorded: Recorded, request: Request, entry: Entry) -> Result<Block, AllocError> {
    if recorded.own().stream.wants_ring() {
        return allocate_inside(recorded.into_inside(), request, entry);
    }
    let (thread, segment) = (recorded.thread(), recorded.segment());
    let stack = stacks::stack_of(recorded.own(), entry);
    let result =
        allocate_told(recorded.own(), thread, segment, &request, stack, |cache, steps| serve(&request, cache, steps));
    match result {
        Ok(block) if !recorded.own().cache.has_damage() => {
            recorded.leave(block.addr);
            result
        }
        result => conclude(recorded.into_inside(), request, entry, result),
    }
}

/// Has a request served whose steps are recorded.
#[inline(never)]
fn serve(request: &Request, cache: &mut ThreadCache, steps: &mut Steps<'_>) -> Result<Block, AllocError> {
    backend::allocate(request, cache, steps)
}

/// A request in any other circumstances than those of [`Recorded`].
#[inline(never)]
fn allocate_unlike_most(request: Request, entry: Entry) -> Result<Block, AllocError> {
    match guard::enter() {
        Access::Inside(inside) => allocate_inside(inside, request, entry),
        Access::Nested(thread) => allocate_nested(thread, &request),
        Access::Bare => backend::allocate_bare(&request),
    }
}

#[inline(never)]
pub(super) fn allocate_inside(mut inside: Inside<'_>, request: Request, entry: Entry) -> Result<Block, AllocError> {
    let result = match inside.recording() {
        Some(segment) if segment.is_sampled() => allocate_sampled(&mut inside, segment, &request, entry),
        Some(segment) => {
            inside.flush_spare();
            let thread = inside.thread();
            let stack = stacks::stack_of(inside.own(), entry);
            allocate_told(inside.own(), thread, segment, &request, stack, |cache, steps| {
                thread.served(|| serve(&request, cache, steps))
            })
        }
        None => backend::allocate(&request, &mut inside.own().cache, &mut NoSink),
    };
    conclude(inside, request, entry, result)
}

/// Ends a hook whose request was served or refused.
#[inline(always)]
fn conclude(
    mut inside: Inside<'_>,
    request: Request,
    entry: Entry,
    result: Result<Block, AllocError>,
) -> Result<Block, AllocError> {
    if let Some(damage) = inside.own().cache.take_damage() {
        fault::damaged(inside, entry, request.call, damage);
        // The user wants to go on: what was damaged is not used any more.
        return result.or_else(|_| allocate(request, entry));
    }
    if let Err(error) = result {
        inside.set_errno(errno_of(error));
    }
    result
}

/// Has a request served, and tells what came of it.
#[inline(always)]
fn allocate_told(
    own: &mut Own,
    thread: &Thread,
    segment: &'static Segment,
    request: &Request,
    stack: StackId,
    serve: impl FnOnce(&mut ThreadCache, &mut Steps<'_>) -> Result<Block, AllocError>,
) -> Result<Block, AllocError> {
    let Own { cache, stream, .. } = own;
    let mut steps = Steps::new(segment, stream, stack);
    if request.is_unaligned() {
        steps.want(request.bytes(), request.call);
    }
    let result = serve(cache, &mut steps);
    steps.settle();
    if request.align > EVERY_ALIGNMENT {
        steps.tell_event(Event::HeapCall { call: HeapCall::Aligned, argument: 0, value: request.align });
    }
    if !steps.has_told_block() {
        steps.tell_event(event_of(request, &result));
    }
    if let Ok(block) = &result
        && thread.is_ignoring()
    {
        tell_ignored(own, segment, block.addr, StackId::NONE);
    }
    result
}

/// Has a request served where only some are recorded; tells what came of it if it is one of them.
#[inline(never)]
fn allocate_sampled(
    inside: &mut Inside<'_>,
    segment: &'static Segment,
    request: &Request,
    entry: Entry,
) -> Result<Block, AllocError> {
    inside.flush_spare();
    let thread = inside.thread();
    let own = inside.own();
    let is_hit = sampled::count(own, segment, request.bytes());
    let result = thread.served(|| backend::allocate(request, &mut own.cache, &mut NoSink));
    let is_told = |result: &Result<Block, AllocError>| match result {
        Ok(block) => sampled::mark(segment, block.addr),
        Err(_) => true,
    };
    if !is_hit || !is_told(&result) {
        return result;
    }
    let stack = stacks::stack_of(own, entry);
    allocate_told(own, thread, segment, request, stack, |_, _| result)
}

/// Says that checks for leaks are to ignore a block; after the event that made it.
#[cold]
#[inline(never)]
pub(in super::super) fn tell_ignored(own: &mut Own, segment: &'static Segment, addr: Addr, stack: StackId) {
    own.stream.event(segment, segment.now(), stack, ignored(addr));
}

/// The event that says so.
fn ignored(addr: Addr) -> Event {
    Event::HeapCall { call: HeapCall::Ignore, argument: 0, value: addr.0 }
}

/// The event of a request that was served or refused.
#[inline(always)]
fn event_of(request: &Request, result: &Result<Block, AllocError>) -> Event {
    let size_bytes = request.bytes();
    match result {
        Ok(block) => made(block, size_bytes, request.call),
        Err(_) => Event::AllocFailed { size_bytes, call: request.call },
    }
}

/// The event of a block that was handed out.
#[inline(always)]
pub(in super::super) fn made(block: &Block, size_bytes: u64, call: Call) -> Event {
    let slack = block.usable_bytes.saturating_sub(size_bytes);
    Event::Alloc {
        addr: block.addr,
        size_bytes,
        slack_bytes: if slack > u16::MAX as u64 { u16::MAX } else { slack as u16 },
        arena: block.arena,
        arena_seq: block.arena_seq,
        call,
    }
}

#[cold]
#[inline(never)]
fn allocate_nested(thread: &Thread, request: &Request) -> Result<Block, AllocError> {
    let result = backend::allocate_nested(request);
    if !segment::current().is_some_and(Segment::is_sampled) {
        note(thread, |_| event_of(request, &result));
    }
    if let Err(error) = result {
        host::set_errno(errno_of(error));
    }
    result
}

/// Notes an event of a nested call, without a stack: the capture state is the interrupted hook's.
pub(in super::super) fn note(thread: &Thread, event: impl FnOnce(Stamp) -> Event) {
    if let Some(segment) = segment::current()
        && !thread.is_serving()
    {
        let stamp = segment.now();
        let event = event(stamp);
        thread.note(Stamped { stamp, stack: StackId::NONE, event }.encode());
        if let Event::Alloc { addr, .. } = event
            && thread.is_ignoring()
        {
            thread.note(Stamped { stamp, stack: StackId::NONE, event: ignored(addr) }.encode());
        }
    }
}

pub(super) fn errno_of(error: AllocError) -> c_int {
    match error {
        AllocError::NoMemory => libc::ENOMEM,
        AllocError::BadAlignment => libc::EINVAL,
    }
}

#[inline(always)]
pub(super) fn pointer(result: Result<Block, AllocError>) -> *mut c_void {
    match result {
        Ok(block) => block.as_ptr(),
        Err(_) => null_mut(),
    }
}
