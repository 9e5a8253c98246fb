//! The closed sets of the wire format: each value has a number that never changes its meaning.

/// Defines a `u8` enum whose numbers are part of the format, with its total inverse.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $number,)* }

        impl $name {
            /// Every value, in the order of the format's numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The value with this number, or `None`: the record is from a newer writer or damaged.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }
        }
    };
}

numbered! {
    /// What a record is; see [`super::Event`] and [`super::HeapEvent`] for the meaning of each, and for the two kinds of
    /// allocations with their steps [`super::LedTo`].
    #[allow(missing_docs, reason = "each is documented at the event of the same name")]
    Kind {
        Alloc = 1, AllocFailed = 2, Free = 3, ReallocBegin = 4, ReallocUndo = 5, FreeBinned = 6, AllocSplit = 7,
        AllocFilled = 8,
        HeapBrk = 16, HeapTrim = 17, HeapRelease = 18, HeapChunkMap = 19, HeapChunkUnmap = 20,
        HeapChunkRemapFrom = 21, HeapChunkRemapTo = 22, HeapSplit = 23, HeapCoalesce = 24, HeapBin = 25,
        HeapTcacheFlush = 26, HeapConsolidate = 27, HeapArenaBirth = 28, HeapArenaIdle = 29, HeapArenaAttach = 30,
        HeapBirth = 31, HeapResize = 32, HeapDeath = 33, HeapThreshold = 34, HeapCacheBirth = 35, HeapCacheFill = 36,
        HeapMergeBinned = 37,
        ProgramMap = 64, ProgramUnmap = 65, ProgramRemapFrom = 66, ProgramRemapTo = 67, ProgramAdvise = 68,
        ProgramBrk = 69, HeapCall = 70,
        ThreadStart = 96, ThreadExit = 97, Fork = 98, Exec = 99, ExecFailed = 100, Exit = 101,
        Module = 112, ModuleRange = 113, ModulesClosed = 114, Marker = 115, Lost = 116,
        Fault = 117,
        Text = 255,
    }
}

numbered! {
    /// The function by which the program asked.
    #[allow(missing_docs, reason = "each is the C function of that name")]
    Call {
        Malloc = 0, Calloc = 1, Realloc = 2, Reallocarray = 3, Memalign = 4, AlignedAlloc = 5, PosixMemalign = 6,
        Valloc = 7, Pvalloc = 8, Free = 9, FreeSized = 10, FreeAlignedSized = 11,
        /// A Rust program's `GlobalAlloc`, without the C interface between.
        GlobalAlloc = 12,
    }
}

numbered! {
    /// What is asked of the heap besides blocks, and what a request for a block does not say itself.
    HeapCall {
        /// The thread's next allocation asks for an alignment of `value` bytes, more than every block has.
        Aligned = 0,
        /// `malloc_trim(value)`.
        MallocTrim = 1,
        /// `mallopt(argument, value)`.
        Mallopt = 2,
        /// The environment set the tunable of number `argument` to `value` before the first request.
        Tunable = 3,
        /// No check for leaks is to report the block at `value`, or what it holds: the program said so.
        Ignore = 4,
        /// The process was copied here, to be checked for leaks: what is live at this point of the order is wanted for the
        /// check of number `value`.
        Copied = 5,
        /// Where only some allocations are recorded: the thread's first one behind one that was, not recorded itself.
        Passed = 6,
    }
}

numbered! {
    /// The kind of bin that a free chunk went to.
    BinKind {
        /// Size 32 to 128, last in first out, not coalesced.
        Fast = 0,
        /// The queue that every freed or split chunk passes through.
        Unsorted = 1,
        /// One size each, below 1,024 bytes.
        Small = 2,
        /// A range of sizes, sorted.
        Large = 3,
        /// The cache of the thread that is in the arena: one size each, last in first out, not coalesced.
        Cache = 4,
    }
}

numbered! {
    /// Why the system had to be asked for memory.
    GrowthRule {
        /// Not a growth: the range shrank.
        Shrink = 0,
        /// The arena's first memory.
        First = 1,
        /// No bin held a chunk that was large enough, nor did the top.
        NoFit = 2,
        /// The break could not be moved; memory was mapped instead.
        BreakBlocked = 3,
        /// The sub-heap was full, a new one had to be made.
        HeapFull = 4,
    }
}

numbered! {
    /// What `madvise`, `mlock` or `munlock` asked for; advice that returns or pins memory has its own value.
    Advice {
        /// Any other advice.
        Other = 0,
        /// `MADV_DONTNEED`: the pages are given back at once.
        DontNeed = 1,
        /// `MADV_FREE`: the pages are given back when memory is short.
        Free = 2,
        /// `MADV_HUGEPAGE`.
        HugePage = 3,
        /// `MADV_NOHUGEPAGE`.
        NoHugePage = 4,
        /// `mlock` or `mlock2`.
        Lock = 5,
        /// `munlock`.
        Unlock = 6,
        /// `MADV_WILLNEED` or `MADV_POPULATE_*`.
        WillNeed = 7,
    }
}

numbered! {
    /// Why events were lost.
    LossReason {
        /// The ring was full and the user asked to drop rather than to wait.
        RingFull = 0,
        /// No ring was free: more threads than the segment has rings. Or a sampled block could not be marked for want of
        /// memory, and was not recorded.
        NoRing = 1,
        /// The recorder died or the recording's disk was full.
        RecorderGone = 2,
        /// A signal handler interrupted a hook and its own events did not fit into the spare buffer.
        Nested = 3,
        /// A text did not fit.
        Text = 4,
        /// The file of a recording without recorder lost its end before it was read.
        Cut = 5,
    }
}

numbered! {
    /// What was wrong with a pointer that a free or a realloc was given, or with the heap around it.
    FaultKind {
        /// It is no block and not in one: a pointer of somebody else's.
        NotABlock = 0,
        /// It is inside of a live block.
        InsideBlock = 1,
        /// It is in a thread's stack.
        OnStack = 2,
        /// It is in memory of the heap that is free: the block was freed before.
        DoubleFree = 3,
        /// A size word does not agree with its neighbour: something wrote beyond a block.
        Overwritten = 4,
        /// The links of a list of free chunks do not meet: something wrote to a block after it was freed.
        CorruptedLists = 5,
    }
}

impl Call {
    /// The function's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Call::Malloc => "malloc",
            Call::Calloc => "calloc",
            Call::Realloc => "realloc",
            Call::Reallocarray => "reallocarray",
            Call::Memalign => "memalign",
            Call::AlignedAlloc => "aligned_alloc",
            Call::PosixMemalign => "posix_memalign",
            Call::Valloc => "valloc",
            Call::Pvalloc => "pvalloc",
            Call::Free => "free",
            Call::FreeSized => "free_sized",
            Call::FreeAlignedSized => "free_aligned_sized",
            Call::GlobalAlloc => "GlobalAlloc",
        }
    }

    /// Whether it is given a block, to take it back or to resize it.
    #[must_use]
    pub const fn takes_block(self) -> bool {
        self.is_realloc() || self.is_free()
    }

    /// Whether it resizes a block; of an allocation, whether it is the second half of that.
    #[must_use]
    #[inline(always)]
    pub const fn is_realloc(self) -> bool {
        matches!(self, Call::Realloc | Call::Reallocarray)
    }

    /// Whether it takes a block back and does nothing else.
    #[must_use]
    pub const fn is_free(self) -> bool {
        matches!(self, Call::Free | Call::FreeSized | Call::FreeAlignedSized)
    }
}

impl BinKind {
    /// The number of the bin for chunks of `size_bytes`, where the kind and the size alone say it: fast bins and those of a
    /// cache count from 0 for 32 bytes, small ones from 2, and the unsorted bin is number 1 (malloc.c, `fastbin_index`,
    /// `csize2tidx`, `smallbin_index_unsafe`).
    #[must_use]
    #[inline(always)]
    pub const fn index_of(self, size_bytes: u64) -> Option<u8> {
        const LARGEST_OF_SMALL: u64 = 64 * 16;
        const LARGEST_OF_CACHE: u64 = 65 * 16;
        let units = size_bytes / 16;
        match self {
            BinKind::Unsorted => Some(1),
            BinKind::Small if size_bytes < LARGEST_OF_SMALL => Some(units as u8),
            BinKind::Fast | BinKind::Cache if 2 <= units && size_bytes <= LARGEST_OF_CACHE => Some((units - 2) as u8),
            BinKind::Small | BinKind::Fast | BinKind::Cache | BinKind::Large => None,
        }
    }
}

/// Which neighbours a freed chunk merged with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Merged {
    /// The chunk below was free.
    pub previous: bool,
    /// The chunk above was free.
    pub next: bool,
    /// The result borders the top and became part of it.
    pub top: bool,
}

impl Merged {
    pub(super) const fn to_bits(self) -> u8 {
        self.previous as u8 | (self.next as u8) << 1 | (self.top as u8) << 2
    }

    pub(super) const fn from_bits(bits: u8) -> Merged {
        Merged { previous: bits & 1 != 0, next: bits & 2 != 0, top: bits & 4 != 0 }
    }
}

/// Access rights of a mapping: the low three bits of `mmap`'s `prot`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Protection {
    /// `PROT_READ`.
    pub read: bool,
    /// `PROT_WRITE`.
    pub write: bool,
    /// `PROT_EXEC`.
    pub execute: bool,
}

impl Protection {
    /// The rights that `mmap`'s `prot` argument names (Linux: 1 read, 2 write, 4 execute).
    #[must_use]
    pub const fn from_prot(prot: i32) -> Protection {
        Protection { read: prot & 1 != 0, write: prot & 2 != 0, execute: prot & 4 != 0 }
    }

    pub(super) const fn to_bits(self) -> u8 {
        self.read as u8 | (self.write as u8) << 1 | (self.execute as u8) << 2
    }
}
