//! What recorder and program share: one control page, and a segment of memory for each recorded process.
//!
//! # Rendezvous
//! The recorder makes a directory that only its user may enter and puts a file `control` into it ([`Control`]). Its
//! path travels in the environment (`XALLOC_SESSION`), so it reaches children that close every file descriptor and
//! programs started by exec. Each process maps the control page, makes a segment file of its own
//! (`segment.<pid>.<n>`, [`layout`]), fills in the [`Header`], and says hello by setting its state and ringing the
//! control page's doorbell. One that cannot do so leaves a note of the reason ([`Refusal`]). The recorder maps the segment and drains it; when the process is gone it removes the file.
//!
//! Without a recorder (`XALLOC_OUT=file`) the process makes the same segment as that file, and instead of waiting for
//! a consumer it appends the contents of a full ring behind the segment ([`SpillHeader`]).
//!
//! # What the recorder trusts
//! Nothing: a segment is written by the recorded program, which may be broken or hostile. Every count is clamped to
//! the layout, every number decoded with a check.

use crate::intern;
use crate::primitive::{AtomicU32, AtomicU64};
use crate::ring;

pub mod blocks;
pub mod layout;
pub mod own_look;
mod refusal;

pub use refusal::{REFUSED_PREFIX, Refusal};

/// First eight bytes of a control page.
pub const CONTROL_MAGIC: u64 = u64::from_le_bytes(*b"xaCTRL\0\x01");
/// First eight bytes of a segment.
pub const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"xaSEGM\0\x01");
/// First eight bytes of a spilled batch.
pub const SPILL_MAGIC: u64 = u64::from_le_bytes(*b"xaSPIL\0\x01");

/// Environment variable with the path of the session's directory.
pub const SESSION_VARIABLE: &str = "XALLOC_SESSION";
/// Environment variable with the file that a recording without a recorder goes to (`%p` is the process id).
pub const OUT_VARIABLE: &str = "XALLOC_OUT";
/// Name of the control file in the session's directory.
pub const CONTROL_NAME: &str = "control";

/// Values of [`Control::state`].
pub mod control_state {
    /// Events are wanted.
    pub const RECORDING: u32 = 1;
    /// The recorder is done: push nothing more, run on.
    pub const FINISHED: u32 = 2;
}

/// Values of [`Options::allocator`].
pub mod allocator {
    /// The core's heap serves the program.
    pub const CORE: u32 = 0;
    /// The program's own allocator serves it; we record around it.
    pub const SYSTEM: u32 = 1;
    /// Core if the program would use libc's malloc, else system.
    pub const AUTO: u32 = 2;
}

/// Values of [`Options::overflow`].
pub mod overflow {
    /// A thread whose ring is full waits for the recorder.
    pub const WAIT: u32 = 0;
    /// It drops the event and counts it.
    pub const DROP: u32 = 1;
}

/// Bits of [`Options::leak_check`].
pub mod leak_check {
    /// Blocks are looked at when the process ends.
    pub const AT_EXIT: u32 = 1;
    /// SIGTERM and SIGINT, where the program leaves them alone, do so too before they end it.
    pub const ON_SIGNAL: u32 = 2;
    /// SIGURG asks for it while the process runs, when the recorder has raised its demand ([`super::blocks`]).
    pub const ON_DEMAND: u32 = 4;
}

/// Values of [`Options::marks`]: what a program does that sets a mark.
pub mod marks {
    /// It goes on.
    pub const GO_ON: u32 = 0;
    /// Its thread waits until the recorder has looked at the process's memory.
    pub const WAIT_FOR_LOOK: u32 = 1;
}

/// Values of [`Options::clock`] and [`Header::clock`].
pub mod clock {
    /// Stamps are ticks of the invariant time-stamp counter.
    pub const TSC: u32 = 0;
    /// Stamps are nanoseconds of `CLOCK_MONOTONIC`.
    pub const MONOTONIC: u32 = 1;
}

/// Values of [`Options::harden`]: when the core's heap keeps the set of the program's blocks, by which it refuses every
/// pointer that is none.
pub mod harden {
    /// Never: what glibc's malloc would notice is noticed.
    pub const NEVER: u32 = 0;
    /// In programs that are recorded.
    pub const RECORDED: u32 = 1;
    /// In every program that the core's heap serves.
    pub const ALWAYS: u32 = 2;
}

/// Values of [`Options::on_error`]: what follows the report of a pointer that was refused.
pub mod on_error {
    /// What libc does: its message and `abort`, or nothing where it notices nothing.
    pub const ABORT: u32 = 0;
    /// Nothing: the call is without effect, and the program goes on.
    pub const REPORT: u32 = 1;
}

/// What the user asked for. In the control page, and parsed from `XALLOC_*` variables where there is no recorder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Options {
    /// See [`allocator`].
    pub allocator: u32,
    /// See [`overflow`].
    pub overflow: u32,
    /// See [`clock`].
    pub clock: u32,
    /// 1: children are recorded too. 0: the environment is cleaned for them.
    pub follow: u32,
    /// Frames that a stack keeps, innermost first; 1 to 1024.
    pub depth: u32,
    /// Compare every n-th captured stack with a plain walk; 0: never.
    pub verify_every: u32,
    /// 1: the heap's own steps (split, coalesce, bin) are recorded too.
    pub heap_steps: u32,
    /// See [`leak_check`].
    pub leak_check: u32,
    /// See [`harden`].
    pub harden: u32,
    /// See [`on_error`].
    pub on_error: u32,
    /// See [`marks`].
    pub marks: u32,
    /// 1: frees carry their call stacks too.
    pub free_stacks: u32,
    /// Bytes of which one, on average, has its allocation recorded ([`crate::sampling`]); 0: every allocation is, and
    /// every other event.
    pub sample_mean_bytes: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

impl Options {
    /// What holds when nothing was asked for.
    #[must_use]
    pub const fn new() -> Options {
        Options {
            allocator: allocator::CORE,
            overflow: overflow::WAIT,
            clock: clock::TSC,
            follow: 1,
            depth: 1024,
            verify_every: 0,
            heap_steps: 1,
            leak_check: leak_check::AT_EXIT | leak_check::ON_DEMAND,
            harden: harden::RECORDED,
            on_error: on_error::ABORT,
            marks: marks::GO_ON,
            free_stacks: 0,
            sample_mean_bytes: 0,
            reserved: [0; 3],
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

/// The control page, written by the recorder save for the doorbell.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Control {
    /// [`CONTROL_MAGIC`].
    pub magic: u64,
    /// [`crate::wire::VERSION`] of the recorder.
    pub version: u32,
    /// See [`control_state`].
    pub state: AtomicU32,
    /// Futex word: the recorder sleeps on it, producers add one and wake it (segment born, ring half full, exit).
    pub doorbell: AtomicU32,
    /// 1 while the recorder sleeps on the doorbell, so that producers skip the system call when it does not.
    pub sleeping: AtomicU32,
    /// Segments made so far: the recorder looks into the directory when this changes.
    pub hellos: AtomicU32,
    /// Numbers forks, so that a child's segment can name the fork it came from.
    pub forks: AtomicU32,
    /// What the user asked for; constant.
    pub options: Options,
}

/// Values of [`Header::state`].
pub mod segment_state {
    /// Being made: not to be looked at.
    pub const EMPTY: u32 = 0;
    /// Complete, events arrive.
    pub const LIVE: u32 = 1;
    /// The process said its last word (exit or exec); rings may still hold events.
    pub const ENDED: u32 = 2;
}

/// How a process began.
pub mod birth {
    /// By exec: nothing is inherited.
    pub const EXEC: u32 = 0;
    /// By fork of the process that announced [`super::Header::fork_serial`].
    pub const FORK: u32 = 1;
}

/// Bytes for a path or a command line in the header; longer ones are cut.
pub const PATH_BYTES: usize = 4096;

/// The start of a segment: who the process is. Constant once `state` is set, save for the atomics.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Header {
    /// [`SEGMENT_MAGIC`].
    pub magic: u64,
    /// [`crate::wire::VERSION`] of the preload.
    pub version: u32,
    /// See [`segment_state`].
    pub state: AtomicU32,
    /// Process id, in the recorder's or a nested pid namespace.
    pub pid: u32,
    /// Parent's process id.
    pub parent_pid: u32,
    /// See [`birth`].
    pub birth: u32,
    /// With [`birth::FORK`]: the serial of the fork event in the parent's stream.
    pub fork_serial: u32,
    /// See [`clock`].
    pub clock: u32,
    /// See [`allocator`]; never `AUTO`: what was chosen.
    pub allocator: u32,
    /// See [`Options::sample_mean_bytes`].
    pub sample_mean_bytes: u32,
    /// Stamp when the segment was made.
    pub started: u64,
    /// `CLOCK_MONOTONIC` at the same moment, nanoseconds.
    pub started_monotonic_ns: u64,
    /// `CLOCK_REALTIME` at the same moment, nanoseconds.
    pub started_realtime_ns: u64,
    /// Threads that ever claimed a ring; their serial numbers count up from 0.
    pub threads: AtomicU32,
    /// Rings that were ever claimed: one more than the highest number of one. It can exceed `threads`, for a thread that
    /// calls again after it gave its ring back claims another.
    pub rings: AtomicU32,
    /// Spill mode: end of the file, where the next batch goes; bytes.
    pub spill_end: AtomicU64,
    /// Spill mode: records in batches that are whole in the file. One may be in the file and not yet counted here.
    pub spilled: AtomicU64,
    /// Events lost because no ring was free, or nobody could be told of them in a ring; by [`crate::wire::LossReason`].
    pub lost: [AtomicU64; 8],
    /// Stack captures that were compared with a plain walk, and how many differed.
    pub verified_stacks: AtomicU64,
    /// See `verified_stacks`.
    pub differing_stacks: AtomicU64,
    /// Stacks that were cut at the depth limit.
    pub cut_stacks: AtomicU64,
    /// How often a thread found its ring full and waited for the recorder.
    pub waits: AtomicU64,
    /// How long they waited in all, nanoseconds of each thread added up.
    pub waited_ns: AtomicU64,
    /// Counters of the stack trie.
    pub stacks: intern::Counters,
    /// `gnu_get_libc_version()`, NUL-terminated.
    pub libc_version: [u8; 32],
    /// Path of the executable, NUL-terminated.
    pub exe: [u8; PATH_BYTES],
    /// Arguments, each NUL-terminated, an empty one at the end.
    pub command: [u8; PATH_BYTES],
    /// For the check of what is still reachable.
    pub handshake: blocks::Handshake,
}

/// Values of [`RingHeader::state`].
pub mod ring_state {
    /// Nobody's: a thread may claim it.
    pub const FREE: u32 = 0;
    /// A thread writes to it.
    pub const CLAIMED: u32 = 1;
    /// Its thread has ended; the recorder frees it once it is drained.
    pub const CLOSING: u32 = 2;
}

/// A ring's place in the segment, with the thread that owns it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct RingHeader {
    /// See [`ring_state`]. Claimed by compare-exchange FREE -> CLAIMED, freed by the recorder.
    pub state: AtomicU32,
    /// Serial number of the owning thread in this process.
    pub thread: AtomicU32,
    /// Head, tail and the words for waiting.
    pub indices: ring::Indices,
}

/// What precedes a batch of records that a process without a recorder appended to its file.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SpillHeader {
    /// [`SPILL_MAGIC`].
    pub magic: u64,
    /// Serial number of the thread.
    pub thread: u32,
    /// Records that follow.
    pub records: u32,
}

impl SpillHeader {
    /// The header as it lies in the file: field behind field, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<SpillHeader>()] {
        let mut bytes = [0; size_of::<SpillHeader>()];
        bytes[..8].copy_from_slice(&self.magic.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.thread.to_le_bytes());
        bytes[12..].copy_from_slice(&self.records.to_le_bytes());
        bytes
    }

    /// What [`Self::to_bytes`] gives; whether it is a header is for its `magic` to say.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; size_of::<SpillHeader>()]) -> SpillHeader {
        let [first, second] = [0, 8].map(|at| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word)));
        SpillHeader { magic: first, thread: second as u32, records: (second >> 32) as u32 }
    }
}
