//! Quantities that travel between the crates, each with its unit in its type.
//!
//! They are plain integers at the edge (a ring record, a file column) and newtypes everywhere else, so that an address
//! is never added to a size by accident and a stack id never indexes a table of threads.

/// Bytes of a page of x86-64, the unit in which the kernel maps and counts memory.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes of a chunk before its block (malloc.c, `CHUNK_HDR_SZ`).
pub const CHUNK_HEADER_BYTES: u64 = 16;

/// Bytes of a live chunk that its block cannot have: the size word (malloc.c, `SIZE_SZ`).
pub const CHUNK_OVERHEAD_BYTES: u64 = 8;

/// Bytes of the chunk that serves a request: 8 more, rounded up to 16, at least 32 (malloc.c, `request2size`).
#[must_use]
#[inline(always)]
pub const fn chunk_bytes(size_bytes: u64) -> u64 {
    let chunk = size_bytes.saturating_add(CHUNK_OVERHEAD_BYTES + 15) & !15;
    if chunk < 32 { 32 } else { chunk }
}

/// Bytes beyond a request that its block has in the chunk that serves it, unless that was left larger.
#[must_use]
#[inline(always)]
pub const fn slack_expected(size_bytes: u64) -> u16 {
    (chunk_bytes(size_bytes) - CHUNK_OVERHEAD_BYTES).wrapping_sub(size_bytes) as u16
}

/// A virtual address of the recorded process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Addr(pub u64);

impl Addr {
    /// Largest address that a record can carry: user space on x86-64 without five-level paging ends at 2^47.
    pub const MAX: Addr = Addr((1 << 48) - 1);

    /// The address `bytes` further up. Wraps like the machine does; callers stay inside a mapping.
    #[must_use]
    pub const fn up(self, bytes: u64) -> Addr {
        Addr(self.0.wrapping_add(bytes))
    }
}

impl core::fmt::LowerHex for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::LowerHex::fmt(&self.0, f)
    }
}

/// An id of an interned call stack: the index of its innermost frame in the process's stack trie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct StackId(pub u32);

impl StackId {
    /// No stack was captured: the event does not need one (a free) or none could be had.
    pub const NONE: StackId = StackId(0);
    /// The stack table was full; the frames are lost, and the loss is counted in the segment's header.
    pub const UNKNOWN: StackId = StackId(1);
}

/// Number of an arena in creation order; 0 is the main arena, which lives in the break.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct ArenaId(pub u16);

impl ArenaId {
    /// The arena of the program break.
    pub const MAIN: ArenaId = ArenaId(0);
    /// No arena: a chunk that has a mapping of its own, or a block of an allocator that is not ours.
    pub const NONE: ArenaId = ArenaId(u16::MAX);
}

/// A point in time as the hooks see it: ticks of the time-stamp counter, or nanoseconds of `CLOCK_MONOTONIC` where
/// that counter is not invariant (the segment's header says which).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Stamp(pub u64);
