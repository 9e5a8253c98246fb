//! What the reader tells, event by event.
//!
//! Kinds that few analyses look at are grouped, so that a match over [`Event`] names what it leaves alone in a few
//! lines and still does not compile when a kind is added.

use xalloc_core::units::ArenaId;
use xalloc_core::wire::{Advice, Call, FaultKind, HeapCall, HeapEvent, LossReason, Protection};

use super::{Block, StackIndex, ThreadIndex};

/// One event, in the merged order of its process.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Number in the process, from 0.
    pub seq: u64,
    /// Nanoseconds since the recording's start, to the microsecond.
    pub at_ns: u64,
    /// Who did it.
    pub thread: ThreadIndex,
    /// The stack that caused it.
    pub stack: StackIndex,
    /// What it was.
    pub event: Event<'a>,
}

/// What an entry is about. Slots name a block from its allocation to its free and are then used again.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields are explained with their variant")]
pub enum Event<'a> {
    /// A block was obtained; with [`Call::Realloc`] it replaces what this thread's last [`Event::ReallocBegin`] named.
    /// `arena_seq` is its number in the order of its arena's steps, if the arena itself served it.
    Alloc { slot: u32, block: &'a Block, arena_seq: Option<u16> },
    /// A call for memory failed.
    AllocFailed { size_bytes: u64, call: Call },
    /// A block was given back.
    Free { slot: u32, block: &'a Block },
    /// An address was freed that no recorded allocation made.
    FreeUnknown { addr: u64 },
    /// A realloc begins: the block is gone until the alloc or the undo that follows in the same thread.
    ReallocBegin { slot: u32, block: &'a Block },
    /// The realloc of that block failed: it lives on, in this slot.
    ReallocUndo { slot: u32, block: &'a Block },
    /// The program gave an address to a free or a realloc, which was refused.
    Fault { addr: u64, kind: FaultKind },
    /// A step inside the heap.
    Heap { arena: ArenaId, seq: u16, step: HeapEvent },
    /// The program, or its environment, asked something of the heap besides a block.
    HeapCall { call: HeapCall, argument: i32, value: u64 },
    /// The program itself changed its address space.
    Program(ProgramEvent<'a>),
    /// A thread or the process began, changed or ended.
    Process(ProcessEvent<'a>),
    /// A mark.
    Marker { text: &'a str },
    /// Events of this thread are missing here.
    Lost { events: u64, reason: LossReason },
}

/// What the program did to its address space by a system call of its own.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields are explained with their variant")]
pub enum ProgramEvent<'a> {
    /// It mapped memory; `path` is empty for anonymous memory.
    Map { addr: u64, len_bytes: u64, protection: Protection, shared: bool, path: &'a str },
    /// It unmapped memory.
    Unmap { addr: u64, len_bytes: u64 },
    /// It moved or resized a mapping.
    Remap { from: u64, from_bytes: u64, to: u64, to_bytes: u64 },
    /// It advised or locked a range.
    Advise { addr: u64, len_bytes: u64, advice: Advice },
    /// It moved the break.
    Brk { from: u64, to: u64 },
}

/// A step in the life of a process and its threads.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields are explained with their variant")]
pub enum ProcessEvent<'a> {
    /// A thread's first event.
    ThreadStart,
    /// A thread's last event.
    ThreadExit,
    /// The process forked.
    Fork,
    /// exec was called with this path.
    Exec { path: &'a str },
    /// The exec failed.
    ExecFailed,
    /// The process began to end in an orderly way.
    Exit { status: i32 },
    /// dlclose unmapped modules.
    ModulesClosed,
}

/// What an event does to the set of live blocks.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields are explained with their variant")]
pub enum LiveChange<'a> {
    /// The block is live from here on.
    Begins { slot: u32, block: &'a Block },
    /// The block is no longer live.
    Ends { slot: u32, block: &'a Block },
}

impl<'a> Event<'a> {
    /// The block that comes or goes with the event. A realloc is one that goes and one that comes.
    #[inline(always)]
    #[must_use]
    pub fn live_change(&self) -> Option<LiveChange<'a>> {
        match *self {
            Event::Alloc { slot, block, .. } | Event::ReallocUndo { slot, block } => {
                Some(LiveChange::Begins { slot, block })
            }
            Event::Free { slot, block } | Event::ReallocBegin { slot, block } => Some(LiveChange::Ends { slot, block }),
            Event::AllocFailed { .. }
            | Event::FreeUnknown { .. }
            | Event::Fault { .. }
            | Event::Heap { .. }
            | Event::HeapCall { .. }
            | Event::Program(_)
            | Event::Process(_)
            | Event::Marker { .. }
            | Event::Lost { .. } => None,
        }
    }
}
