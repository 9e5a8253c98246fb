//! Which blocks the program has: one bit per 16 bytes of address space, where the program's stray writes do not reach.
//!
//! A bit is set where a block was handed out and cleared when it is claimed back, so whether a pointer is a live block
//! is answered exactly and without touching the memory before it: for blocks of arenas and of mappings alike, for
//! pointers into the stack, into other files and into nowhere.
//!
//! # Layout
//! A root table has an entry for each 64 MiB of the lower 2^47 bytes; it points to the bits of that range, a leaf of
//! 512 KiB, or is null where no block ever was. Root and leaves are reserved sparsely: of them only the pages are there
//! that cover memory with blocks, 1/128 of it, and at least 8 KiB.
//!
//! # Why not a size beside each bit
//! A second plane with a bit at each end would say how long a block is and cost the same again. What it would find
//! earlier, a size word that was overwritten, is found by comparing the word with that of the chunk above, which says
//! in its lowest bit that this one is live.
//!
//! # Threads
//! Blocks of two threads may share a word. While the process has one thread, plain loads and stores change it; later
//! one atomic operation does, which also decides which of two racing frees of a block is the first.
//!
//! # Safety
//! - The root has [`RANGES`] entries, each of them null, [`NO_LEAF`] or a leaf of [`LEAF_WORDS`] words; both come from
//!   [`Os::side_table`], zeroed, and stay as long as the heap.
#![allow(unsafe_code)]

use core::hint::cold_path;
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::chunk::ALIGNMENT;
use super::os::Os;

/// Bytes of address space of one leaf: the usual size of a sub-heap, whose blocks thus share one.
const RANGE_BYTES: u64 = 64 << 20;
/// Ranges in the part of the address space that user memory can be in.
const RANGES: usize = ((1_u64 << 47) / RANGE_BYTES) as usize;
/// Bytes of the root table.
const ROOT_BYTES: u64 = (RANGES * size_of::<AtomicPtr<AtomicU64>>()) as u64;
/// Words of a leaf.
const LEAF_WORDS: usize = (RANGE_BYTES / ALIGNMENT / 64) as usize;
/// Bytes of a leaf.
const LEAF_BYTES: u64 = (LEAF_WORDS * size_of::<AtomicU64>()) as u64;
/// In place of a leaf: there was no memory for one, and nothing is known of the range for ever.
const NO_LEAF: *mut AtomicU64 = core::ptr::without_provenance_mut(8);

/// Whether other threads may change a word at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Threads {
    One,
    Several,
}

/// What was known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// A live block started there.
    Live,
    /// None did.
    Nothing,
    /// Its range has no bits.
    Unknown,
}

/// The set of the program's blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Null: the set is not kept.
    root: AtomicPtr<AtomicPtr<AtomicU64>>,
}

/// The set of the program's blocks, which is kept.
#[derive(Clone, Copy)]
pub(super) struct Kept<'b> {
    root: *mut AtomicPtr<AtomicU64>,
    set: PhantomData<&'b Blocks>,
}

impl<'b> Kept<'b> {
    /// The entry of the range that `addr` is in.
    #[inline(always)]
    fn entry(self, addr: u64) -> Option<&'b AtomicPtr<AtomicU64>> {
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
    fn leaf(self, addr: u64) -> *mut AtomicU64 {
        // ORDERING: pairs with the exchange in `make_leaf`; a leaf starts as the kernel's zeroes.
        self.entry(addr).map_or(core::ptr::null_mut(), |entry| entry.load(Ordering::Acquire))
    }

    /// The place of a block at `addr`, a multiple of 16. `None`: its range has no bits.
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
    pub(super) fn enter<O: Os>(self, os: &O, addr: u64, threads: Threads) {
        match self.place(addr) {
            Some(place) => place.enter(threads),
            None => self.enter_first(os, addr, threads),
        }
    }

    /// The first block of a range was handed out, or one of a range for which there was no memory.
    #[cold]
    #[inline(never)]
    fn enter_first<O: Os>(self, os: &O, addr: u64, threads: Threads) {
        if self.leaf(addr) != NO_LEAF && self.make_leaf(os, addr) != NO_LEAF {
            self.enter(os, addr, threads);
        }
    }

    fn make_leaf<O: Os>(self, os: &O, addr: u64) -> *mut AtomicU64 {
        let Some(entry) = self.entry(addr) else { return NO_LEAF };
        let made = os.side_table(LEAF_BYTES).map_or(NO_LEAF, |table| table.as_ptr().cast());
        // ORDERING: pairs with the Acquire load in `leaf`. A thread that comes second leaves its reservation unused.
        match entry.compare_exchange(core::ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            Err(other) => other,
        }
    }
}

/// A word of bits and one of them.
#[derive(Clone, Copy)]
pub(super) struct Place {
    word: &'static AtomicU64,
    bit: u64,
}

impl Place {
    /// Whether a block starts there.
    #[inline(always)]
    pub(super) fn is_live(self) -> bool {
        self.word.load(Ordering::Relaxed) & self.bit != 0
    }

    /// A block was handed out there.
    #[inline(always)]
    pub(super) fn enter(self, threads: Threads) {
        // Relaxed here and below: the bit travels with the block, from thread to thread as the program hands it over.
        match threads {
            Threads::One => self.word.store(self.word.load(Ordering::Relaxed) | self.bit, Ordering::Relaxed),
            Threads::Several => {
                self.word.fetch_or(self.bit, Ordering::Relaxed);
            }
        }
    }

    /// The block there is taken back; says whether there was one.
    #[inline(always)]
    pub(super) fn leave(self, threads: Threads) -> bool {
        let before = match threads {
            Threads::One => {
                let before = self.word.load(Ordering::Relaxed);
                self.word.store(before & !self.bit, Ordering::Relaxed);
                before
            }
            Threads::Several => self.word.fetch_and(!self.bit, Ordering::Relaxed),
        };
        before & self.bit != 0
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
    fn leaf(&self, addr: u64) -> *mut AtomicU64 {
        self.kept().map_or(core::ptr::null_mut(), |kept| kept.leaf(addr))
    }

    /// A word of a leaf that is one.
    #[inline(always)]
    fn word(leaf: *mut AtomicU64, index: usize) -> &'static AtomicU64 {
        // SAFETY: by the bullet of the module the leaf has that many words; the index is taken within them.
        let word = unsafe { leaf.add(index % LEAF_WORDS) };
        // SAFETY: as above; words are only accessed as atomics, and the heap of a process never ends while one of its
        // functions runs.
        unsafe { &*word }
    }

    #[inline(always)]
    fn place(leaf: *mut AtomicU64, addr: u64) -> Place {
        let granule = addr % RANGE_BYTES / ALIGNMENT;
        Place { word: Blocks::word(leaf, (granule / 64) as usize), bit: 1 << (granule % 64) }
    }

    /// The block at `addr` is taken back; says whether there was one.
    #[inline]
    pub(super) fn leave(&self, addr: u64, threads: Threads) -> Known {
        match self.found(addr) {
            None if self.leaf(addr) == NO_LEAF => Known::Unknown,
            Some(place) if addr.is_multiple_of(ALIGNMENT) && place.leave(threads) => Known::Live,
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

    /// Where the bits of the range lie that `addr` is in; empty if it has none.
    pub(super) fn leaf_place(&self, addr: u64) -> Range<u64> {
        let leaf = self.leaf(addr);
        place_of(if leaf == NO_LEAF { 0 } else { leaf.addr() }, LEAF_BYTES)
    }

    /// The nearest block that starts at or below `addr`, in the same 64 MiB.
    pub(super) fn at_or_below(&self, addr: u64) -> Option<u64> {
        let leaf = self.leaf(addr);
        if leaf.is_null() || leaf == NO_LEAF {
            return None;
        }
        let granule = addr % RANGE_BYTES / ALIGNMENT;
        let mut mask = u64::MAX >> (63 - granule % 64);
        for index in (0..=granule / 64).rev() {
            let bits = Blocks::word(leaf, index as usize).load(Ordering::Relaxed) & mask;
            if bits != 0 {
                let found = index * 64 + u64::from(63 - bits.leading_zeros());
                return Some(addr / RANGE_BYTES * RANGE_BYTES + found * ALIGNMENT);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The nearest block that starts above `addr`, in the same 64 MiB.
    pub(super) fn above(&self, addr: u64) -> Option<u64> {
        let leaf = self.leaf(addr);
        if leaf.is_null() || leaf == NO_LEAF {
            return None;
        }
        let granule = addr % RANGE_BYTES / ALIGNMENT;
        let mut mask = (u64::MAX << (granule % 64)) << 1;
        for index in granule / 64..LEAF_WORDS as u64 {
            let bits = Blocks::word(leaf, index as usize).load(Ordering::Relaxed) & mask;
            if bits != 0 {
                let found = index * 64 + u64::from(bits.trailing_zeros());
                return Some(addr / RANGE_BYTES * RANGE_BYTES + found * ALIGNMENT);
            }
            mask = u64::MAX;
        }
        None
    }
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
        blocks.kept().unwrap().enter(&os, base, Threads::One);
        let entry: *const _ = blocks.kept().unwrap().entry(base).unwrap();
        assert!(blocks.root_place().contains(&(entry.addr() as u64)));
        for addr in [base, base + RANGE_BYTES - base % RANGE_BYTES - ALIGNMENT] {
            let word: *const _ = Blocks::place(blocks.leaf(addr), addr).word;
            assert!(blocks.leaf_place(base).contains(&(word.addr() as u64)), "{addr:x}");
        }
        assert!(blocks.leaf_place(base + RANGE_BYTES).is_empty());
    }

    #[test]
    fn a_block_is_known_from_when_it_enters_until_it_leaves_and_only_at_its_start() {
        for threads in [Threads::One, Threads::Several] {
            let (os, blocks) = (Live::new(), Blocks::new());
            assert!(!blocks.is_kept());
            assert!(blocks.keep(&os));
            let base = 0x5555_0000_0000;
            for addr in [base, base + 16, base + 1040, base + RANGE_BYTES, (1 << 47) - 16] {
                assert_eq!(blocks.leave(addr, threads), Known::Nothing, "{addr:x}");
                blocks.kept().unwrap().enter(&os, addr, threads);
                assert_eq!(blocks.leave(addr + 8, threads), Known::Nothing, "not at its start: {addr:x}");
                assert_eq!(blocks.leave(addr, threads), Known::Live, "{addr:x}");
                assert_eq!(blocks.leave(addr, threads), Known::Nothing, "twice: {addr:x}");
            }
            assert_eq!(blocks.leave(u64::MAX - 15, threads), Known::Nothing);
            assert_eq!(blocks.leave(0, threads), Known::Nothing);
        }
    }

    #[test]
    fn the_blocks_around_an_address_are_found_over_any_distance_within_64_mib() {
        let (os, blocks) = (Live::new(), Blocks::new());
        assert!(blocks.keep(&os));
        let base = 0x5555_0000_0000_u64.next_multiple_of(RANGE_BYTES);
        let starts = [base, base + 64, base + 1_024, base + 1_040, base + RANGE_BYTES - 16];
        for addr in starts {
            blocks.kept().unwrap().enter(&os, addr, Threads::One);
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
