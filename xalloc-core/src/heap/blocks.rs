//! Which blocks the program has: one byte per 32 bytes of address space, where the program's stray writes do not reach.
//!
//! A byte says whether a block starts at the first or at the second half of its 32 bytes. It is written where a block is
//! handed out and where one is claimed back, so whether a pointer is a live block is answered exactly and without
//! touching the memory before it: for blocks of arenas and of mappings alike, for pointers into the stack, into other
//! files and into nowhere.
//!
//! # Layout
//! A root table has an entry for each 64 MiB of the lower 2^47 bytes; it points to the bytes of that range, a leaf of
//! 2 MiB, or is null where no block ever was. Root and leaves are reserved sparsely: of them only the pages are there
//! that cover memory with blocks, 1/32 of it, and at least 8 KiB.
//!
//! # Why bytes, and not bits
//! A bit per 16 bytes would take a quarter of the memory. But blocks of several threads would share its words, so that
//! each call would need an instruction that locks: two of them are 5 to 10 ns of a pair of calls, and a line that two
//! threads write is worse. No chunk is smaller than 32 bytes ([`MIN_CHUNK`]), so no two blocks of a heap share a byte, and
//! who hands out a block, or takes it back, is the only one to write there.
//!
//! # Why not a size beside each
//! It would say how long a block is and cost as much again or more. What it would find earlier, a size word that was
//! overwritten, is found by comparing the word with that of the chunk above, which says in its lowest bit that this one
//! is live.
//!
//! # Threads
//! Of two threads that free one block, the second is told so, unless the two meet within the few instructions between
//! the look and the write: what follows is then what follows in libc.
//!
//! # Safety
//! - The root has [`RANGES`] entries, each of them null, [`NO_LEAF`] or a leaf of [`LEAF_BYTES`] bytes; both come from
//!   [`Os::side_table`], zeroed, and stay as long as the heap.
#![allow(unsafe_code)]

use core::hint::cold_path;
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use super::chunk::{ALIGNMENT, MIN_CHUNK};
use super::os::Os;

/// Bytes of address space of one leaf: the usual size of a sub-heap, whose blocks thus share one.
const RANGE_BYTES: u64 = 64 << 20;
/// Ranges in the part of the address space that user memory can be in.
const RANGES: usize = ((1_u64 << 47) / RANGE_BYTES) as usize;
/// Bytes of the root table.
const ROOT_BYTES: u64 = (RANGES * size_of::<AtomicPtr<AtomicU8>>()) as u64;
/// Bytes of a leaf.
const LEAF_BYTES: u64 = RANGE_BYTES / MIN_CHUNK;
/// In place of a leaf: there was no memory for one, and nothing is known of the range for ever.
const NO_LEAF: *mut AtomicU8 = core::ptr::without_provenance_mut(8);

/// How far the starts of two blocks of a set are apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spacing {
    /// A chunk at least, as in our own heap: a byte is one block's.
    Chunk,
    /// Maybe less, as in somebody else's: two threads may write a byte at the same time.
    Any,
}

/// What was known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// A live block started there.
    Live,
    /// None did.
    Nothing,
    /// Its range has no leaf.
    Unknown,
}

/// The set of the program's blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Null: the set is not kept.
    root: AtomicPtr<AtomicPtr<AtomicU8>>,
}

/// The set of the program's blocks, which is kept.
#[derive(Clone, Copy)]
pub(super) struct Kept<'b> {
    root: *mut AtomicPtr<AtomicU8>,
    set: PhantomData<&'b Blocks>,
}

impl<'b> Kept<'b> {
    /// The entry of the range that `addr` is in.
    #[inline(always)]
    fn entry(self, addr: u64) -> Option<&'b AtomicPtr<AtomicU8>> {
        let range = (addr / RANGE_BYTES) as usize;
        if range >= RANGES {
            cold_path();
            return None;
        }
        // SAFETY: by the bullet of the module the root has that many entries.
        let entry = unsafe { self.root.add(range) };
        // SAFETY: as above; entries are only accessed as atomics.
        unsafe { entry.as_ref() }
    }

    /// The leaf of `addr`: null, [`NO_LEAF`], or one.
    #[inline(always)]
    fn leaf(self, addr: u64) -> *mut AtomicU8 {
        // ORDERING: pairs with the exchange in `make_leaf`; a leaf starts as the kernel's zeroes.
        self.entry(addr).map_or(core::ptr::null_mut(), |entry| entry.load(Ordering::Acquire))
    }

    /// The place of a block at `addr`, a multiple of 16. `None`: its range has no leaf.
    #[inline(always)]
    pub(super) fn place(self, addr: u64) -> Option<Place> {
        let leaf = self.leaf(addr);
        if leaf.addr() <= NO_LEAF.addr() {
            cold_path();
            return None;
        }
        Some(Blocks::place(leaf, addr))
    }

    /// A block that starts at `addr` was handed out.
    #[inline(always)]
    pub(super) fn enter<O: Os>(self, os: &O, addr: u64, spacing: Spacing) {
        match self.place(addr) {
            Some(place) => place.enter(spacing),
            None => self.enter_first(os, addr, spacing),
        }
    }

    /// The first block of a range was handed out, or one of a range for which there was no memory.
    #[cold]
    #[inline(never)]
    fn enter_first<O: Os>(self, os: &O, addr: u64, spacing: Spacing) {
        if self.leaf(addr) != NO_LEAF && self.make_leaf(os, addr) != NO_LEAF {
            self.enter(os, addr, spacing);
        }
    }

    fn make_leaf<O: Os>(self, os: &O, addr: u64) -> *mut AtomicU8 {
        let Some(entry) = self.entry(addr) else { return NO_LEAF };
        let made = os.side_table(LEAF_BYTES).map_or(NO_LEAF, |table| table.as_ptr().cast());
        // ORDERING: pairs with the Acquire load in `leaf`. A thread that comes second leaves its reservation unused.
        match entry.compare_exchange(core::ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            Err(other) => other,
        }
    }
}

/// A byte, and the bit of it that stands for one of its two places.
#[derive(Clone, Copy)]
pub(super) struct Place {
    byte: &'static AtomicU8,
    bit: u8,
}

impl Place {
    /// Whether a block starts there.
    #[inline(always)]
    pub(super) fn is_live(self) -> bool {
        // Relaxed here and below: the bit travels with the block, from thread to thread as the program hands it over.
        self.byte.load(Ordering::Relaxed) & self.bit != 0
    }

    /// A block was handed out there.
    #[inline(always)]
    pub(super) fn enter(self, spacing: Spacing) {
        match spacing {
            Spacing::Chunk => self.byte.store(self.bit, Ordering::Relaxed),
            Spacing::Any => {
                self.byte.fetch_or(self.bit, Ordering::Relaxed);
            }
        }
    }

    /// The block there is taken back; says whether there was one.
    #[inline(always)]
    pub(super) fn leave(self, spacing: Spacing) -> bool {
        match spacing {
            Spacing::Chunk => {
                let was_live = self.is_live();
                if was_live {
                    self.byte.store(0, Ordering::Relaxed);
                }
                was_live
            }
            Spacing::Any => self.byte.fetch_and(!self.bit, Ordering::Relaxed) & self.bit != 0,
        }
    }
}

impl Blocks {
    pub(super) const fn new() -> Blocks {
        Blocks { root: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Whether the set is kept.
    #[inline(always)]
    pub(super) fn is_kept(&self) -> bool {
        // Relaxed: it is set before the first block is handed out, or another thread knows of the heap.
        !self.root.load(Ordering::Relaxed).is_null()
    }

    /// Keeps the set from here on. `false`: there is no memory for it.
    pub(super) fn keep<O: Os>(&self, os: &O) -> bool {
        let Some(root) = os.side_table(ROOT_BYTES) else { return false };
        self.root.store(root.as_ptr().cast(), Ordering::Relaxed);
        true
    }

    /// The set as it is kept, or `None`.
    #[inline(always)]
    pub(super) fn kept(&self) -> Option<Kept<'_>> {
        // Relaxed: as in `is_kept`.
        let root = self.root.load(Ordering::Relaxed);
        if root.is_null() { None } else { Some(Kept { root, set: PhantomData }) }
    }

    fn found(&self, addr: u64) -> Option<Place> {
        self.kept()?.place(addr)
    }

    /// The leaf of `addr`: null, [`NO_LEAF`], or one.
    fn leaf(&self, addr: u64) -> *mut AtomicU8 {
        self.kept().map_or(core::ptr::null_mut(), |kept| kept.leaf(addr))
    }

    /// A byte of a leaf that is one.
    #[inline(always)]
    fn byte(leaf: *mut AtomicU8, index: u64) -> &'static AtomicU8 {
        // SAFETY: by the bullet of the module the leaf has that many bytes; the index is taken within them.
        let byte = unsafe { leaf.add((index % LEAF_BYTES) as usize) };
        // SAFETY: as above; bytes are only accessed as atomics, and the heap of a process never ends while one of its
        // functions runs.
        unsafe { &*byte }
    }

    #[inline(always)]
    fn place(leaf: *mut AtomicU8, addr: u64) -> Place {
        Place { byte: Blocks::byte(leaf, addr % RANGE_BYTES / MIN_CHUNK), bit: 1 << (addr / ALIGNMENT % 2) }
    }

    /// The bytes of the range of `addr` in which a block starts, of those numbered `which`, with their numbers.
    fn marked(&self, addr: u64, which: Range<u64>) -> impl DoubleEndedIterator<Item = (u64, u8)> {
        let leaf = self.leaf(addr);
        let which = if leaf.addr() <= NO_LEAF.addr() { 0..0 } else { which };
        which
            .map(move |index| (index, Blocks::byte(leaf, index).load(Ordering::Relaxed)))
            .filter(|&(_, bits)| bits != 0)
    }

    /// The block at `addr` is taken back; says whether there was one.
    #[inline]
    pub(super) fn leave(&self, addr: u64, spacing: Spacing) -> Known {
        match self.found(addr) {
            None if self.leaf(addr) == NO_LEAF => Known::Unknown,
            Some(place) if addr.is_multiple_of(ALIGNMENT) && place.leave(spacing) => Known::Live,
            None | Some(_) => Known::Nothing,
        }
    }

    /// Whether a block starts at `addr`.
    pub(super) fn look(&self, addr: u64) -> Known {
        match self.found(addr) {
            None if self.leaf(addr) == NO_LEAF => Known::Unknown,
            Some(place) if addr.is_multiple_of(ALIGNMENT) && place.is_live() => Known::Live,
            None | Some(_) => Known::Nothing,
        }
    }

    /// Where the root table lies; empty if the set is not kept.
    pub(super) fn root_place(&self) -> Range<u64> {
        place_of(self.root.load(Ordering::Relaxed).addr(), ROOT_BYTES)
    }

    /// Where the leaf of `addr` lies; empty if it has none.
    pub(super) fn leaf_place(&self, addr: u64) -> Range<u64> {
        let leaf = self.leaf(addr);
        place_of(if leaf == NO_LEAF { 0 } else { leaf.addr() }, LEAF_BYTES)
    }

    /// The nearest block that starts at or below `addr`, in the same 64 MiB.
    pub(super) fn at_or_below(&self, addr: u64) -> Option<u64> {
        let (range, own) = (addr - addr % RANGE_BYTES, addr % RANGE_BYTES / MIN_CHUNK);
        let mut blocks = self.marked(addr, 0..own + 1).rev().flat_map(|(index, bits)| starts(range, index, bits).rev());
        blocks.find(|&start| start <= addr)
    }

    /// The nearest block that starts above `addr`, in the same 64 MiB.
    pub(super) fn above(&self, addr: u64) -> Option<u64> {
        let (range, own) = (addr - addr % RANGE_BYTES, addr % RANGE_BYTES / MIN_CHUNK);
        let mut blocks = self.marked(addr, own..LEAF_BYTES).flat_map(|(index, bits)| starts(range, index, bits));
        blocks.find(|&start| start > addr)
    }
}

/// Where the blocks start that the byte numbered `index` of a range tells of.
fn starts(range: u64, index: u64, bits: u8) -> impl DoubleEndedIterator<Item = u64> {
    let first = range + index * MIN_CHUNK;
    [(1, first), (2, first + ALIGNMENT)].into_iter().filter(move |&(bit, _)| bits & bit != 0).map(|(_, start)| start)
}

fn place_of(start: usize, bytes: u64) -> Range<u64> {
    let start = start as u64;
    if start == 0 { 0..0 } else { start..start + bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Live;

    #[test]
    fn the_memory_of_the_set_is_known_once_there_is_a_set_and_a_block_in_the_range() {
        let (os, blocks) = (Live::new(), Blocks::new());
        let base = 0x5555_0000_0000;
        assert!(blocks.root_place().is_empty());
        assert!(blocks.leaf_place(base).is_empty());
        assert!(blocks.keep(&os));
        assert!(blocks.leaf_place(base).is_empty());
        blocks.kept().unwrap().enter(&os, base, Spacing::Chunk);
        let entry: *const _ = blocks.kept().unwrap().entry(base).unwrap();
        assert!(blocks.root_place().contains(&(entry.addr() as u64)));
        for addr in [base, base + RANGE_BYTES - base % RANGE_BYTES - ALIGNMENT] {
            let byte: *const _ = Blocks::place(blocks.leaf(addr), addr).byte;
            assert!(blocks.leaf_place(base).contains(&(byte.addr() as u64)), "{addr:x}");
        }
        assert!(blocks.leaf_place(base + RANGE_BYTES).is_empty());
    }

    #[test]
    fn a_block_is_known_from_when_it_enters_until_it_leaves_and_only_at_its_start() {
        for spacing in [Spacing::Chunk, Spacing::Any] {
            let (os, blocks) = (Live::new(), Blocks::new());
            assert!(!blocks.is_kept());
            assert!(blocks.keep(&os));
            let base = 0x5555_0000_0000;
            for addr in [base, base + 16, base + 1040, base + RANGE_BYTES, (1 << 47) - 16] {
                assert_eq!(blocks.leave(addr, spacing), Known::Nothing, "{addr:x}");
                blocks.kept().unwrap().enter(&os, addr, spacing);
                assert_eq!(blocks.leave(addr + 8, spacing), Known::Nothing, "not at its start: {addr:x}");
                assert_eq!(blocks.leave(addr, spacing), Known::Live, "{addr:x}");
                assert_eq!(blocks.leave(addr, spacing), Known::Nothing, "twice: {addr:x}");
            }
            assert_eq!(blocks.leave(u64::MAX - 15, spacing), Known::Nothing);
            assert_eq!(blocks.leave(0, spacing), Known::Nothing);
        }
    }

    #[test]
    fn the_blocks_around_an_address_are_found_over_any_distance_within_64_mib() {
        let (os, blocks) = (Live::new(), Blocks::new());
        assert!(blocks.keep(&os));
        let base = 0x5555_0000_0000_u64.next_multiple_of(RANGE_BYTES);
        let starts = [base, base + 64, base + 1_008, base + 1_040, base + RANGE_BYTES - 16];
        for addr in starts {
            blocks.kept().unwrap().enter(&os, addr, Spacing::Chunk);
        }
        for (at, below, above) in [
            (base, Some(starts[0]), Some(starts[1])),
            (base + 63, Some(starts[0]), Some(starts[1])),
            (base + 1_039, Some(starts[2]), Some(starts[3])),
            (base + 5_000_000, Some(starts[3]), Some(starts[4])),
            (base + RANGE_BYTES - 1, Some(starts[4]), None),
            (base - 1, None, None),
        ] {
            assert_eq!((blocks.at_or_below(at), blocks.above(at)), (below, above), "{:x}", at.wrapping_sub(base));
        }
    }
}
