//! The trace: what a recording is on disk, and as what it is read.
//!
//! A trace holds, for every process of a recording, the merged order of its events with coarse time (1 µs), and once
//! for all processes the threads, modules, stacks and symbols. The writer matches every free to its block, so a reader
//! needs no map of addresses: each block has a *slot*, the reader keeps an array of [`Block`] by slot.
//!
//! The types of this file are what the rest of the crate sees; how they lie in the file is the business of the
//! modules below.

use std::path::PathBuf;

use xalloc_core::units::ArenaId;
use xalloc_core::wire::{Call, LossReason, Record};

mod bins;
mod checkpoint;
mod columns;
mod container;
mod course;
mod decode;
mod dictionary;
mod encode;
mod error;
mod event;
mod footer;
mod heap_steps;
mod matcher;
mod mirror;
mod moment;
mod ops;
mod packing;
mod pipeline;
mod play;
mod rare;
mod reader;
mod records;
mod rows;
mod salvage;
mod sampling;
mod scan;
mod skim;
mod snapshot;
mod step_stacks;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod varint;
mod writer;

pub use container::{MAJOR, MINOR, is_trace};
pub use encode::LiveSet;
pub use error::TraceError;
pub use event::{Entry, Event, LiveChange, ProcessEvent, ProgramEvent};
pub use moment::{Moment, MomentError};
pub use reader::{Inheritance, Limits, Trace, is_no_file, read_untrusted};
pub use sampling::{Sampling, Variance};
pub use scan::{Checked, Disguise, Finding, Hint, Holder, LeakClass, Occasion, Scan, ScanOutcome};
pub use snapshot::{Mapping, PagesFrom, Reason, Snapshot};
pub use tally::{By, Obtained, Tally, Told};
pub use writer::{Tallied, Writer, Written};

/// Index into [`Contents::processes`]; the recorded command is process 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProcessIndex(pub u32);

/// Index into [`Contents::threads`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ThreadIndex(pub u32);

/// Index into [`Contents::modules`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModuleIndex(pub u32);

/// Index into [`Contents::frames`]: one distinct code location.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameIndex(pub u32);

/// Index into [`Contents::stacks`]: a call stack, named by its innermost frame's node.
///
/// [`StackIndex::NONE`] and [`StackIndex::UNKNOWN`] are nodes 0 and 1 of every trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StackIndex(pub u32);

impl StackIndex {
    /// The event has no stack.
    pub const NONE: StackIndex = StackIndex(0);
    /// The stack was lost: the process's stack table was full.
    pub const UNKNOWN: StackIndex = StackIndex(1);
}

/// Everything of a trace but the events.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// How and where it was recorded.
    pub recording: Recording,
    /// Every process that said hello, in order of its hello.
    pub processes: Vec<Process>,
    /// Every thread of every process.
    pub threads: Vec<Thread>,
    /// Every file with code that a stack goes through.
    pub modules: Vec<Module>,
    /// Every distinct code location.
    pub frames: Vec<Frame>,
    /// The stack trie; a parent's index is smaller than its child's.
    pub stacks: Vec<StackNode>,
    /// Every look at the blocks of a process, in order of their ends.
    pub scans: Vec<Scan>,
}

/// How and where the recording was made.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The command line, program first.
    pub command: Vec<String>,
    /// Start, nanoseconds since 1970-01-01 UTC.
    pub started_unix_ns: u64,
    /// From the launch to the end of the last drained process.
    pub duration_ns: u64,
    /// Version of xalloc that wrote the trace.
    pub tool_version: String,
    /// Name of the machine.
    pub host: String,
    /// The C library, as `gnu_get_libc_version` said.
    pub libc: String,
    /// Processors online when the recording was written: malloc's limit of arenas depends on them. 0: not known.
    pub processors: u32,
    /// How the recorded command itself ended; `None` while unknown (the trace was cut).
    pub end: Option<End>,
    /// Whether frames carry functions.
    pub symbolized: bool,
    /// Which blocks were recorded, if not all; it stands in the file's header.
    pub sampling: Option<Sampling>,
    /// What was cut off when the trace was read, if it is not whole.
    pub salvage: Option<String>,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It returned or called exit with this status.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// exec replaced it; the next process with the same pid goes on.
    Replaced,
    /// It still ran when the recording ended.
    Running,
    /// It is gone, and how is not known (not our child).
    Vanished,
}

/// Who serves the program's allocations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Allocator {
    /// xalloc's own heap, with glibc's placement.
    #[default]
    Core,
    /// The program's own allocator, recorded from outside.
    System,
}

/// One recorded process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// The process it was forked from, if that was recorded.
    pub parent: Option<ProcessIndex>,
    /// True if it began as a fork of `parent` (and inherits its blocks), false if by exec or as the command itself.
    pub forked: bool,
    /// Path of its executable.
    pub exe: PathBuf,
    /// Its command line.
    pub command: Vec<String>,
    /// First event, nanoseconds since the recording's start.
    pub started_at_ns: u64,
    /// Last event, likewise.
    pub ended_at_ns: u64,
    /// How it ended.
    pub end: End,
    /// Who served its allocations.
    pub allocator: Allocator,
    /// Records taken from its rings, of every kind.
    pub events: u64,
    /// What is known to be missing from it.
    pub losses: Vec<Loss>,
    /// Repairs that ordering made: frees that arrived before their allocation, addresses reused without a free.
    pub repairs: Repairs,
    /// Times at which its threads waited for the recorder.
    pub waits: Waits,
}

/// What a lossless recording costs a program that is faster than the recorder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waits {
    /// How often a thread found its ring full.
    pub times: u64,
    /// How long the threads waited, added up, nanoseconds.
    pub waited_ns: u64,
}

/// Events known to be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// How many.
    pub events: u64,
}

/// What the matcher had to repair; each is shown in the summary when it is not zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Repairs {
    /// Frees of addresses that were never seen allocated: memory from before the recording, or a foreign pointer.
    pub unknown_frees: u64,
    /// Allocations at an address that was still live: the free between was not seen.
    pub implied_frees: u64,
    /// Events whose stamp was older than what had been merged already.
    pub late_events: u64,
}

/// One thread of a recorded process.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its process.
    pub process: ProcessIndex,
    /// Kernel thread id.
    pub tid: u32,
    /// Its name at its first event.
    pub name: String,
    /// First event, nanoseconds since the recording's start.
    pub started_at_ns: u64,
    /// Its exit; `None` if it never said so.
    pub ended_at_ns: Option<u64>,
}

/// A file with code.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Module {
    /// Path as the process saw it, or a name in brackets (`[vdso]`).
    pub path: PathBuf,
    /// GNU build-id; empty if it has none.
    pub build_id: Vec<u8>,
}

/// One code location.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The module it lies in; `None` for code without a file (JIT).
    pub module: Option<ModuleIndex>,
    /// Return address as an ELF virtual address of the module, or the raw address without one.
    pub address: u64,
    /// The functions there, innermost inlined first; empty if not symbolised or unknown.
    pub functions: Vec<Function>,
    /// Demangled name of the function that the call there names, where stacks show another one in its place: it ended
    /// with a jump to that one and left no frame.
    pub jumped: Option<String>,
}

/// A function at a code location.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Function {
    /// Demangled name.
    pub name: String,
    /// Source file.
    pub file: Option<PathBuf>,
    /// Line in it, from 1.
    pub line: Option<u32>,
    /// True if it was inlined into the next function of the list.
    pub inlined: bool,
}

/// A node of the stack trie: a frame and its caller's node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StackNode {
    /// The caller's node; [`StackIndex::NONE`] at the root.
    pub parent: StackIndex,
    /// The frame; `None` for nodes 0 and 1, and for the mark of a stack that was cut at its root end.
    pub frame: Option<FrameIndex>,
}

/// A live block as the reader knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// User address.
    pub addr: u64,
    /// Requested size.
    pub size_bytes: u64,
    /// Allocation time, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Where it was allocated.
    pub stack: StackIndex,
    /// Who allocated it.
    pub thread: ThreadIndex,
    /// Number of the thread's allocation (from 0), to tell temporary allocations.
    pub nth_of_thread: u32,
    /// Usable minus requested size.
    pub slack_bytes: u16,
    /// The arena it came from.
    pub arena: ArenaId,
    /// The call that made it.
    pub call: Call,
}

/// Takes the entries of one process in order.
///
/// The reader calls `inherited` first, once for every block that a forked process has from its parent, then `entry`
/// for every event.
pub trait Replay {
    /// A block that the process had from its parent at its start.
    fn inherited(&mut self, slot: u32, block: &Block);
    /// The next event.
    fn entry(&mut self, entry: Entry<'_>);
}

/// One event on its way to the writer: a ring's record with its time told, its thread named, its stack resolved.
///
/// The record stays as it came: nearly all of them are told apart by a byte and need two words read.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// What it was, and its stamp. The stack in it is the process's own name for it, and is not looked at.
    pub record: Record,
    /// Microseconds since the recording's start: what a trace keeps of a time.
    pub at_us: u64,
    /// Who did it.
    pub thread: ThreadIndex,
    /// The stack, as a node of [`Contents::stacks`].
    pub stack: StackIndex,
}

impl Incoming {
    /// The event, where the record is one that this version knows.
    #[must_use]
    pub fn event(&self) -> Option<xalloc_core::wire::Event> {
        self.record.decode().map(|stamped| stamped.event)
    }
}
