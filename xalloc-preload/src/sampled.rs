//! Which of the program's blocks are recorded, where only some are to be.
//!
//! A thread counts down the bytes that it asks for ([`xalloc_core::sampling`]). The request that meets the end of the count is
//! recorded with its stack, as any is where all are, and its block marked; every other one is served as where nothing is
//! recorded. A block that comes back is looked up in the set of the marks: only a marked one is recorded as freed, so no
//! trace has a free without its allocation.
//!
//! # What is not sampled
//! A request that a signal handler makes while its thread is in a hook: the count is the interrupted hook's. Such blocks
//! are mappings of their own, of which a program has few.
//!
//! # Why not a mark in the block's size word
//! It would cost nothing to look at, for a free reads that word anyway. But the word is changed by the neighbours'
//! frees, under a lock that the mark would have to take too, and every reader of it in the heap would have to know a bit
//! that glibc does not have.

use xalloc_core::heap::Marked;
use xalloc_core::sampling::Step;
use xalloc_core::units::{Addr, StackId};
use xalloc_core::wire::{Event, HeapCall, LossReason};

use crate::backend::HEAP;
use crate::host;
use crate::lifecycle::{self, Phase};
use crate::segment::{self, Segment};
use crate::thread::Own;

/// The blocks whose allocations were recorded. A forked child has its parent's.
static MARKED: Marked = Marked::new();

/// Lets blocks be marked. Without memory for that none is, and [`mark`] counts each as lost.
pub(crate) fn begin() {
    let _has_memory = MARKED.begin(HEAP.system());
}

/// Whether the block may have a mark: [`unmark`] says it exactly.
#[inline(always)]
pub(crate) fn may_be_marked(addr: Addr) -> bool {
    MARKED.holds(addr)
}

/// Marks a block that is to be recorded. False: there is no memory for that, and it must not be, for its end would not be
/// noticed; an event that is lost, and counted.
pub(crate) fn mark(segment: &Segment, addr: Addr) -> bool {
    let is_marked = MARKED.enter(HEAP.system(), addr);
    if !is_marked {
        segment.count_lost(LossReason::NoRing, 1);
    }
    is_marked
}

/// Takes the mark from a block that comes back; says whether it had one.
pub(crate) fn unmark(addr: Addr) -> bool {
    MARKED.leave(addr)
}

/// Whether what happens to a block that comes back is told, of which this must be asked once.
pub(crate) fn tells_end_of(segment: &Segment, addr: Addr) -> bool {
    !segment.is_sampled() || unmark(addr)
}

/// Takes the mark from a block that comes back where there is no ring to tell it in: an event that is lost, and counted. Where
/// nothing is recorded (a child that is not followed has its parent's marks and segment) nothing is lost.
pub(crate) fn lose_end_of(addr: Addr) {
    if unmark(addr)
        && lifecycle::phase() == Phase::Live
        && let Some(segment) = segment::current()
    {
        segment.count_lost(LossReason::NoRing, 1);
    }
}

/// Counts a request, and tells of it if it is to be told of though not recorded; says whether it is to be recorded.
pub(crate) fn count(own: &mut Own, segment: &'static Segment, bytes: u64) -> bool {
    let step = step(own, segment, bytes);
    tell_passed(own, segment, step);
    step == Step::Hit
}

/// Counts a request; [`tell_passed`] follows, behind the end of a block that the request gives back.
pub(crate) fn step(own: &mut Own, segment: &'static Segment, bytes: u64) -> Step {
    let seed = || segment.now().0 ^ (u64::from(host::tid()) << 32);
    own.countdown.step(bytes, segment.options.sample_mean_bytes, seed)
}

/// Tells of a request that is not recorded, if it is the first one behind one that is.
pub(crate) fn tell_passed(own: &mut Own, segment: &'static Segment, step: Step) {
    match step {
        Step::PassesNext => {
            let event = Event::HeapCall { call: HeapCall::Passed, argument: 0, value: 0 };
            own.stream.event(segment, segment.now(), StackId::NONE, event);
        }
        Step::Hit | Step::Passes => {}
    }
}
