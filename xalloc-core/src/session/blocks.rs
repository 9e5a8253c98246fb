//! How a process is told which of its blocks are live, and tells which of them it can still reach.
//!
//! Only the recorder knows what is live, and only the process can look at itself. So a process that wants to be checked
//! stops its threads, raises [`Handshake::request`] and waits. The recorder merges everything that was pushed before,
//! writes the live blocks into a file in the session's directory, and answers. The process maps the file, marks the
//! blocks ([`crate::reach`]), and says that it is done; it waits for nothing more. The recorder reads the marks when it
//! sees that, also after the process is gone, and says so for the next request.
//!
//! # On demand
//! The recorder raises [`Handshake::demand`] and sends SIGURG, which does nothing where nobody handles it, until the
//! demand is taken up. The process stops its threads, puts a mark into its events ([`crate::wire::HeapCall::Copied`]),
//! makes a copy of itself and goes on; the copy makes the request and marks the blocks. The list is of what was live at
//! the mark.
//!
//! # The file
//! A [`BlocksHeader`], then [`Region`]s and the program's own suppressions (filled in by the process), then the blocks,
//! ascending by address, then a mark for each. Its space is reserved by the recorder, so that a full file system is the
//! recorder's error and not a SIGBUS in the program. Its name is that of the segment with `blocks` for `segment`, and the
//! number of the request behind it.

use core::ops::Range;

use crate::primitive::{AtomicU32, AtomicU64};
use crate::reach::{Block, Mark};

/// First eight bytes of the file.
pub const BLOCKS_MAGIC: u64 = u64::from_le_bytes(*b"xaBLOC\0\x01");

/// The words by which process and recorder talk; the last field of the segment's header.
#[derive(Debug)]
#[repr(C)]
pub struct Handshake {
    /// Process: how many tables it has asked for. The recorder answers each.
    pub request: AtomicU32,
    /// Process: an [`occasion`], for the request.
    pub occasion: AtomicU32,
    /// Process: the stack of the call of `exit`, or [`crate::units::StackId::NONE`].
    pub exit_stack: AtomicU32,
    /// Recorder: number of the request that is answered. Futex word.
    pub answer: AtomicU32,
    /// Recorder: an [`answer`].
    pub answer_is: AtomicU32,
    /// Process: number of the request that is done with.
    pub done: AtomicU32,
    /// Process: a [`result`].
    pub result: AtomicU32,
    /// Recorder: number of the request whose outcome it has read. Futex word: the next request waits for that.
    pub read: AtomicU32,
    /// Recorder: how many checks were demanded from outside.
    pub demand: AtomicU32,
    /// Process: number of the demand that it took up last.
    pub taken: AtomicU32,
    /// Process: how often its handler of the signal that brings a demand has run.
    pub heard: AtomicU32,
    /// Process: how long its threads were stopped to be copied, microseconds; [`NOT_SAID`] until that is over.
    pub paused_us: AtomicU32,
    /// Process: the copy of it that does the work, 0 while there is none.
    pub copy: AtomicU32,
    /// Process: how many looks at its memory its threads have waited for or wait for ([`super::marks`]).
    pub looks_asked: AtomicU32,
    /// Recorder: how many of these are answered. Futex word.
    pub looks_answered: AtomicU32,
    /// Process: where the memory begins that holds the blocks of its positive control ([`control`]), for the request.
    pub control_addr: AtomicU64,
    /// Recorder: how many looks at itself it has asked the process for ([`super::own_look`]).
    pub own_look: AtomicU32,
    /// Process: number of the last of these that a thread took up.
    pub own_look_taken: AtomicU32,
    /// Process: number of the last of these that it is done with.
    pub own_look_done: AtomicU32,
}

/// The positive control of a check: blocks that no allocator gave, whose verdicts are known. The process lays them out in
/// its own memory, the recorder lists them among the live ones, and a check that does not say of each of them what it is
/// is not believed.
pub mod control {
    use core::ops::Range;

    use crate::reach::Verdict;

    /// Bytes of their memory: a page with the root and one with the blocks. Before, between and behind them lies one that
    /// cannot be read, so that neither is part of a neighbour's mapping.
    pub const BYTES: u64 = 5 * 4096;
    /// The page of the root.
    pub const ROOT: Range<u64> = 4096..2 * 4096;
    /// The page of the blocks.
    pub const BLOCKS: Range<u64> = 3 * 4096..4 * 4096;
    /// Requested bytes of each block.
    pub const SIZE_BYTES: u64 = 64;

    /// A block of it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Planted {
        /// Where it lies in the memory.
        pub at: u64,
        /// What it is.
        pub is: Verdict,
    }

    /// A word of it that points to a block.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Pointer {
        /// Where it lies in the memory.
        pub at: u64,
        /// Where in the memory it points.
        pub to: u64,
    }

    const HELD: u64 = BLOCKS.start + 0x100;
    const BEHIND: u64 = BLOCKS.start + 0x200;
    const MIDDLE: u64 = BLOCKS.start + 0x300;
    const LEAKED: u64 = BLOCKS.start + 0x400;
    const HANGING: u64 = BLOCKS.start + 0x500;

    /// The blocks, ascending: what the root points to, what hangs on that, what the root points into the middle of, what
    /// nothing points to, and what hangs on that.
    pub const PLANTED: [Planted; 5] = [
        Planted { at: HELD, is: Verdict::Reachable },
        Planted { at: BEHIND, is: Verdict::Reachable },
        Planted { at: MIDDLE, is: Verdict::Possible },
        Planted { at: LEAKED, is: Verdict::Definite },
        Planted { at: HANGING, is: Verdict::Indirect },
    ];
    /// The pointers that make them that.
    pub const POINTERS: [Pointer; 4] = [
        Pointer { at: ROOT.start + 64, to: HELD },
        Pointer { at: ROOT.start + 128, to: MIDDLE + 40 },
        Pointer { at: HELD + 8, to: BEHIND },
        Pointer { at: LEAKED + 8, to: HANGING },
    ];
}

/// What [`Handshake::paused_us`] is until it is known.
pub const NOT_SAID: u32 = u32::MAX;

/// Values of [`Handshake::occasion`].
pub mod occasion {
    /// The process is about to end.
    pub const EXIT: u32 = 0;
    /// Somebody asked from outside.
    pub const DEMAND: u32 = 1;
    /// The program asked.
    pub const PROGRAM: u32 = 2;
    /// The program asked for the check that stands for the one at its end.
    pub const FINAL: u32 = 3;
}

/// Values of [`Handshake::answer_is`].
pub mod answer {
    /// The table is there.
    pub const TABLE: u32 = 1;
    /// There will be none: the recorder knows why.
    pub const REFUSED: u32 = 2;
}

/// Values of [`Handshake::result`].
pub mod result {
    /// The marks are in the file.
    pub const MARKED: u32 = 1;
    /// The recorder did not answer in time.
    pub const NO_ANSWER: u32 = 2;
    /// The table could not be opened or mapped.
    pub const NO_TABLE: u32 = 3;
    /// There was no memory to work in.
    pub const NO_MEMORY: u32 = 4;
    /// The list of the process's mappings could not be read.
    pub const NO_MAPS: u32 = 5;
    /// The program says that it does not want to be checked.
    pub const TURNED_OFF: u32 = 6;
    /// The process ends from within a call of its allocator.
    pub const INSIDE: u32 = 7;
    /// The recorder refused, see [`super::answer::REFUSED`].
    pub const REFUSED: u32 = 8;
    /// The program's options say that it does not want to be checked.
    pub const OFF_BY_OPTIONS: u32 = 9;
    /// The process could not be copied.
    pub const NO_COPY: u32 = 10;
    /// The program confined itself by a filter of system calls, which may end it for what a check does.
    pub const CONFINED: u32 = 11;
}

/// The start of the file.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4096))]
pub struct BlocksHeader {
    /// [`BLOCKS_MAGIC`].
    pub magic: u64,
    /// Number of the request.
    pub request: u64,
    /// Blocks in the file.
    pub blocks: u64,
    /// Process: how long its threads were stopped, nanoseconds.
    pub paused_ns: u64,
    /// Process: bytes of roots that were read.
    pub root_bytes: u64,
    /// Process: pages that could not be read.
    pub unreadable_pages: u64,
    /// Process: threads whose registers and stack pointer are known.
    pub threads: u64,
    /// Process: threads that did not stop.
    pub running_threads: u64,
    /// Process: regions in the file.
    pub regions: u64,
    /// Process: bytes of its suppressions in the file.
    pub suppressions_bytes: u64,
}

/// What kind of memory a root lies in.
pub mod region {
    /// The file whose path is given: data of a module, or a mapped file.
    pub const FILE: u32 = 1;
    /// Zeroed data of the module whose path is given.
    pub const ZEROED: u32 = 2;
    /// Memory without a file.
    pub const ANONYMOUS: u32 = 3;
    /// The stack of the first thread.
    pub const STACK: u32 = 4;
}

/// Bytes of a region's path; of a longer one the end stays.
pub const REGION_PATH: usize = 224;

/// Memory in which roots lie: what a holder's address means.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Behind the last address.
    pub end: u64,
    /// Where the file that it belongs to is mapped.
    pub base: u64,
    /// A [`region`].
    pub kind: u32,
    /// Bytes of the path.
    pub path_bytes: u32,
    /// The path.
    pub path: [u8; REGION_PATH],
}

/// Regions that are told of; holders in further ones are named by their address.
pub const MOST_REGIONS: usize = 1024;

/// Holders of marks below this are no addresses: the register of the thread with that number, from 1.
pub const FIRST_ADDRESS: u64 = 1 << 16;

/// Byte range of the regions.
pub const REGIONS: Range<usize> =
    size_of::<BlocksHeader>()..size_of::<BlocksHeader>() + MOST_REGIONS * size_of::<Region>();

/// Byte range of what the program itself says to suppress, in LeakSanitizer's words; what does not fit is cut.
pub const SUPPRESSIONS: Range<usize> = REGIONS.end..REGIONS.end + (64 << 10);

/// Byte range of so many blocks.
#[must_use]
pub const fn blocks_in_file(blocks: usize) -> Range<usize> {
    SUPPRESSIONS.end..SUPPRESSIONS.end + blocks * size_of::<Block>()
}

/// Byte range of their marks.
#[must_use]
pub const fn marks_in_file(blocks: usize) -> Range<usize> {
    let start = blocks_in_file(blocks).end;
    start..start + blocks * size_of::<Mark>()
}

const _: () = assert!(REGIONS.end.is_multiple_of(4096) && size_of::<Block>() == 16 && size_of::<Mark>() == 16);
