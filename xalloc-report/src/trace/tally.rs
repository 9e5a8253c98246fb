//! What adds up, told without where it lies.
//!
//! Most reports are sums by call stack, thread and size. They ask which blocks come and go, and never for an address;
//! nor do they ask how the heap cut and joined its chunks, which is half of all events where programs allocate most.
//! Addresses and such steps are what reading a trace takes longest over, and nothing else in it depends on them. So who
//! only adds up is a [`Tally`]: [`super::skim`] reads for it what it is told, and passes over the rest unread. Who has a
//! tally while the trace is written need not read at all: [`super::Writer`] tells it the same as it goes.
//!
//! [`Told`] tells a tally what a full replay says; what is read for it alone has to say the same.

use rustc_hash::FxHashMap;
use xalloc_core::wire::{Call, HeapEvent};

use super::heap_steps::Flat;
use super::{Block, Entry, Event, Replay, StackIndex, ThreadIndex};

/// Who did something, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct By {
    /// The thread.
    pub thread: ThreadIndex,
    /// Nanoseconds since the recording's start, to the microsecond.
    pub at_ns: u64,
}

/// A block that comes: what an allocation says of it but its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Obtained {
    /// Requested size.
    pub size_bytes: u64,
    /// Usable minus requested size.
    pub slack_bytes: u16,
    /// Where it was allocated.
    pub stack: StackIndex,
    /// The call that made it.
    pub call: Call,
    /// Whether it is where the block was whose realloc this ends.
    pub in_place: bool,
}

/// Takes the events of one process in order, each by what it is.
///
/// `inherited` is called first, once for every block that a forked process has from its parent.
pub trait Tally {
    /// A block that the process had from its parent at its start.
    fn inherited(&mut self, slot: u32, size_bytes: u64);
    /// So many events lie behind, the last of them at that time; told at least once after the last one.
    fn passed(&mut self, events: u64, at_ns: u64);
    /// A block in this slot may come or go within the next events: who has memory for it can ask the processor for that.
    #[inline]
    fn prefetch(&self, _slot: u32) {}
    /// A block was obtained; by a realloc, it replaces what this thread's last [`Self::realloc_begins`] named.
    fn obtained(&mut self, by: By, slot: u32, obtained: Obtained);
    /// A block was given back.
    fn freed(&mut self, by: By, slot: u32);
    /// A realloc begins: the block is gone until the next block that the thread obtains, or the undo.
    fn realloc_begins(&mut self, by: By, slot: u32);
    /// The realloc of that block failed: it lives on, in this slot.
    fn realloc_undone(&mut self, by: By, slot: u32);
    /// A step of the heap by which more happened than that chunks were split, merged or moved between bins.
    fn heap(&mut self, by: By, step: HeapEvent);
    /// Anything else.
    fn other(&mut self, by: By, event: Event<'_>);
}

/// Who wants to know nothing.
impl Tally for () {
    #[inline]
    fn inherited(&mut self, _slot: u32, _size_bytes: u64) {}
    #[inline]
    fn passed(&mut self, _events: u64, _at_ns: u64) {}
    #[inline]
    fn obtained(&mut self, _by: By, _slot: u32, _obtained: Obtained) {}
    #[inline]
    fn freed(&mut self, _by: By, _slot: u32) {}
    #[inline]
    fn realloc_begins(&mut self, _by: By, _slot: u32) {}
    #[inline]
    fn realloc_undone(&mut self, _by: By, _slot: u32) {}
    #[inline]
    fn heap(&mut self, _by: By, _step: HeapEvent) {}
    #[inline]
    fn other(&mut self, _by: By, _event: Event<'_>) {}
}

/// Tells a tally what a replay is told.
pub struct Told<'a, T: Tally> {
    tally: &'a mut T,
    /// The address whose realloc each thread has begun.
    begun: FxHashMap<ThreadIndex, u64>,
}

impl<'a, T: Tally> Told<'a, T> {
    /// For this tally.
    pub fn to(tally: &'a mut T) -> Told<'a, T> {
        Told { tally, begun: FxHashMap::default() }
    }
}

impl<T: Tally> Replay for Told<'_, T> {
    fn inherited(&mut self, slot: u32, block: &Block) {
        self.tally.inherited(slot, block.size_bytes);
    }

    fn entry(&mut self, entry: Entry<'_>) {
        let by = By { thread: entry.thread, at_ns: entry.at_ns };
        match entry.event {
            Event::Alloc { slot, block, arena_seq: _ } => {
                let Block { addr, size_bytes, slack_bytes, stack, call, .. } = *block;
                let in_place = call.is_realloc() && self.begun.remove(&by.thread) == Some(addr);
                self.tally.obtained(by, slot, Obtained { size_bytes, slack_bytes, stack, call, in_place });
            }
            Event::Free { slot, block: _ } => self.tally.freed(by, slot),
            Event::ReallocBegin { slot, block } => {
                self.begun.insert(by.thread, block.addr);
                self.tally.realloc_begins(by, slot);
            }
            Event::ReallocUndo { slot, block: _ } => {
                self.begun.remove(&by.thread);
                self.tally.realloc_undone(by, slot);
            }
            Event::Heap { step, .. } => {
                if !Flat::of(step).stays_within() {
                    self.tally.heap(by, step);
                }
            }
            Event::AllocFailed { .. }
            | Event::FreeUnknown { .. }
            | Event::Fault { .. }
            | Event::HeapCall { .. }
            | Event::Program(_)
            | Event::Process(_)
            | Event::Marker { .. }
            | Event::Lost { .. } => self.tally.other(by, entry.event),
        }
        self.tally.passed(1, by.at_ns);
    }
}
