//! The requests of one process, in the order in which the heap served them.
//!
//! # Why a list in memory, and how large
//! A sweep serves the same requests twenty times; reading the trace takes as long as serving them. A request takes 16
//! bytes, an allocation 12 more: 10 million events of a program that allocates and frees are about 220 MB.

use rustc_hash::FxHashMap;
use xalloc_core::heap::Tunables;

use crate::trace::StackIndex;

/// What a request asks for. The comments say what the other fields of [`Request`] mean with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `malloc(size)` into `slot`.
    Malloc,
    /// `calloc(1, size)` into `slot`.
    Calloc,
    /// `memalign(1 << align_log2, size)` into `slot`.
    Memalign,
    /// Names the block that the next request, a [`Kind::Realloc`] or [`Kind::ReallocFailed`], changes.
    ReallocOf,
    /// `realloc(…, size)` of the block that the request before named, into `slot`.
    Realloc,
    /// A `malloc`, `calloc` or `memalign` of `size` that failed in the recording. A request that fails may have moved
    /// the break before it did.
    Failed,
    /// A `realloc(…, size)` that failed in the recording, of the block that the request before named.
    ReallocFailed,
    /// `free` of the block in `slot`.
    Free,
    /// The block that was in the slot of number `size` is in `slot` from here on; nothing is asked of the heap.
    Move,
    /// A block of `size` bytes of the pool of a counterfactual, into `slot`.
    PoolMalloc,
    /// The pool's block that the request before named gets `size` bytes, into `slot`.
    PoolRealloc,
    /// The pool's block in `slot` goes back to it.
    PoolFree,
    /// The thread begins.
    Start,
    /// The thread ends.
    Exit,
    /// The program moves the break by `size`, a signed number.
    Break,
    /// `malloc_trim(size)`.
    Trim,
    /// `mallopt(slot, size)`, both signed numbers.
    Mallopt,
    /// It is `size` nanoseconds after the recording's start.
    Tick,
}

impl Kind {
    /// Whether it obtains a block: such requests have an entry in [`Requests::placed`] and [`Requests::stacks`].
    #[must_use]
    pub fn obtains(self) -> bool {
        match self {
            Kind::Malloc | Kind::Calloc | Kind::Memalign | Kind::Realloc => true,
            Kind::ReallocOf
            | Kind::Failed
            | Kind::ReallocFailed
            | Kind::Free
            | Kind::Move
            | Kind::PoolMalloc
            | Kind::PoolRealloc
            | Kind::PoolFree
            | Kind::Start
            | Kind::Exit
            | Kind::Break
            | Kind::Trim
            | Kind::Mallopt
            | Kind::Tick => false,
        }
    }
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Bytes, or what [`Kind`] says.
    pub size: u64,
    /// The block's slot: it names a block from its allocation to its free and is then used again.
    pub slot: u32,
    /// The thread, 0 the main one.
    pub thread: u16,
    /// What is asked for.
    pub kind: Kind,
    /// Logarithm of the alignment.
    pub align_log2: u8,
}

const _: () = assert!(size_of::<Request>() == 16);

/// Where the recording has a block: its user address and how much larger it is than asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed(u64);

impl Placed {
    /// A user address of at most 48 bits, and usable minus requested size; 65,535 stands for all above.
    #[must_use]
    pub fn new(addr: u64, slack_bytes: u16) -> Placed {
        Placed(addr & ((1 << 48) - 1) | u64::from(slack_bytes) << 48)
    }

    /// The user address.
    #[must_use]
    pub fn addr(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    /// Usable minus requested size.
    #[must_use]
    pub fn slack_bytes(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// The requests of a process.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// In the order of the recording.
    pub list: Vec<Request>,
    /// For each request that obtains a block, where the recording has it.
    pub placed: Vec<Placed>,
    /// For each of them, the call stack.
    pub stacks: Vec<StackIndex>,
    /// By number of such a request, how many bytes of the block lay on resident pages when most did: of blocks of a page
    /// and more that a look at the process's memory met.
    pub written: FxHashMap<u32, u64>,
    /// Slots are below this.
    pub slots: u32,
    /// Threads are below this.
    pub threads: u16,
    /// What the environment set before the first request.
    pub tunables: Tunables,
    /// Where the recorded main arena begins, if it ever did.
    pub break_base: Option<u64>,
    /// First event, nanoseconds since the recording's start.
    pub from_ns: u64,
    /// Last event, likewise.
    pub to_ns: u64,
    /// Calls for much memory that failed in the recording, which the machine refused: they are not served.
    pub failed: u64,
    /// Frees of memory that no recorded allocation made: they are not served.
    pub unknown_frees: u64,
    /// Events that the recording lost.
    pub lost: u64,
}

impl Requests {
    /// Requests that ask something of the heap: all but the clock's ticks and the names of blocks to change.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.list.iter().filter(|request| !matches!(request.kind, Kind::Tick | Kind::ReallocOf | Kind::Move)).count()
            as u64
    }
}
