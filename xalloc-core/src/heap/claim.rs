//! Before anything is done with a pointer that came back: whether it is a live block, and whether its words still agree
//! with those around it.
//!
//! Only a heap that keeps the set of its blocks ([`Heap::harden`]) asks. The answer is exact where that set says no, and
//! comes before any damage: the memory at a pointer that is no block is not looked at.
//!
//! # Two looks
//! [`Heap::claim`] needs no arena and no lock, so that a signal handler can make it; it says that something is wrong.
//! [`Heap::explain`] walks the heap to say what, and is asked once, on the way to a report.

use core::ops::Range;

use super::blocks::{Known, Spacing};
use super::chunk::{ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, NON_MAIN, OVERHEAD, PREV_INUSE};
use super::inspect::{Class, Span};
use super::os::Os;
use super::tcache::ThreadCache;
use super::words::Words;
use super::{Heap, HeapFault};
use crate::units::Addr;
use crate::wire::FaultKind;

/// Beyond this no chunk reaches: user memory ends at 2^47.
const CHUNK_LIMIT: u64 = 1 << 47;

/// A block near a faulty pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its address.
    pub addr: Addr,
    /// Bytes that its size word grants the program, or `None`: the word is no size.
    pub usable_bytes: Option<u64>,
}

/// What is at a faulty pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The kind of the fault.
    pub kind: FaultKind,
    /// The chunk or other part of a heap segment that the pointer is in, if it is in one.
    pub span: Option<Span>,
    /// The live block that starts next below, or at the pointer, within 64 MiB.
    pub below: Option<Neighbour>,
    /// The live block that starts next above, within 64 MiB.
    pub above: Option<Neighbour>,
}

impl<O: Os> Heap<O> {
    /// Keeps the set of live blocks from here on, so that every free and realloc of what is none is a fault before it
    /// does damage. Must come before the first allocation. `false`: there is no memory for the set.
    ///
    /// The set costs 1/32 of the memory that holds blocks, and two bytes written a block.
    pub fn harden(&self) -> bool {
        self.blocks.is_kept() || self.blocks.keep(&self.os)
    }

    /// Whether the set of live blocks is kept.
    #[must_use]
    pub fn is_hardened(&self) -> bool {
        self.blocks.is_kept()
    }

    /// Where the table lies that leads to the bytes of [`Heap::live_set_at`]; empty where the set is not kept. Who reads
    /// the process's memory leaves both out: no word there is the program's.
    #[must_use]
    pub fn live_set_root(&self) -> Range<u64> {
        self.blocks.root_place()
    }

    /// Where the bytes lie that say which blocks there are within some megabytes of `addr`; empty where nothing does.
    #[must_use]
    pub fn live_set_at(&self, addr: Addr) -> Range<u64> {
        self.blocks.leaf_place(addr.0)
    }

    /// Notes that the program has the block at `addr`.
    #[inline(always)]
    pub fn hand_out(&self, addr: Addr) {
        if let Some(blocks) = self.blocks.kept() {
            blocks.enter(&self.os, addr.0, Spacing::Chunk);
        }
    }

    /// [`Heap::hand_out`], if that needs no call: of all blocks but the first of a range. `false`: nothing was noted.
    #[inline(always)]
    pub fn hand_out_plain(&self, addr: Addr) -> bool {
        let Some(blocks) = self.blocks.kept() else { return true };
        let Some(place) = blocks.place(addr.0) else { return false };
        place.enter(Spacing::Chunk);
        true
    }

    /// Takes the block at `addr` from the program, which gives it back: the first half of a free, and all of it that can
    /// find a fault of the program's. A heap that is not hardened finds none here.
    ///
    /// # Errors
    /// It is no live block, or its size word does not agree with the one above; nothing was changed.
    #[inline(always)]
    pub fn claim(&self, addr: Addr) -> Result<(), HeapFault> {
        if self.claim_plain(addr) { Ok(()) } else { self.claim_slowly(addr) }
    }

    /// [`Heap::claim`] of what most blocks are: one of the break or of a sub-heap, with words that agree. `false`: nothing
    /// has changed, and [`Heap::claim`] says what it is. It makes no call.
    #[inline(always)]
    pub fn claim_plain(&self, addr: Addr) -> bool {
        let Some(blocks) = self.blocks.kept() else { return true };
        let Some(place) = blocks.place(addr.0) else { return false };
        addr.0.is_multiple_of(ALIGNMENT)
            && place.is_live()
            && self.has_plain_words(addr.0 - HEADER)
            && place.leave(Spacing::Chunk)
    }

    /// Whether a claim of the block at `addr` would succeed: the part of [`Heap::claim`] that changes nothing.
    #[inline(always)]
    pub(super) fn look(&self, addr: Addr) -> Result<(), HeapFault> {
        if self.blocks.is_kept() { self.look_at(addr) } else { Ok(()) }
    }

    /// Takes a block that is to be claimed although [`Heap::claim`] found fault with its words.
    ///
    /// # Errors
    /// It is no live block.
    pub fn claim_faulty(&self, addr: Addr) -> Result<(), HeapFault> {
        if self.take_back(addr) { Ok(()) } else { Err(HeapFault::NotABlock) }
    }

    /// Gives a block that was claimed back to the program, which never lost it.
    pub fn restore(&self, addr: Addr) {
        self.hand_out(addr);
    }

    /// [`Heap::claim`] of what [`Heap::claim_plain`] denied.
    #[inline(never)]
    fn claim_slowly(&self, addr: Addr) -> Result<(), HeapFault> {
        self.look_at(addr)?;
        if self.take_back(addr) { Ok(()) } else { Err(HeapFault::NotABlock) }
    }

    /// Takes the block at `addr` out of the set. `false`: it is not in it.
    #[inline(always)]
    pub(super) fn take_back(&self, addr: Addr) -> bool {
        !self.blocks.is_kept() || self.leave_block(addr)
    }

    #[inline(never)]
    fn leave_block(&self, addr: Addr) -> bool {
        self.blocks.leave(addr.0, Spacing::Chunk) != Known::Nothing
    }

    #[inline(never)]
    fn look_at(&self, addr: Addr) -> Result<(), HeapFault> {
        match self.blocks.look(addr.0) {
            Known::Live => self.check_words(addr.0 - HEADER),
            Known::Unknown => Ok(()),
            Known::Nothing => Err(HeapFault::NotABlock),
        }
    }

    /// Whether a live block's chunk lies in the break or a sub-heap, and [`Heap::check_words`] would find no fault with it.
    #[inline(always)]
    fn has_plain_words(&self, chunk: u64) -> bool {
        let words = Words(&self.os);
        let head = words.head(chunk);
        let size = head & !FLAGS;
        if head & (IS_MMAPPED | OVERHEAD) != 0 || !(MIN_CHUNK..CHUNK_LIMIT).contains(&size) {
            return false;
        }
        let (base, break_end) = (self.break_base.get(), self.break_end.get());
        let is_in_break = chunk.wrapping_sub(base) < break_end.wrapping_sub(base);
        let end = match (is_in_break, head & NON_MAIN != 0) {
            (true, false) => break_end,
            (false, true) => {
                let heap = self.heap_of(chunk);
                heap + words.heap_size(heap)
            }
            // An overwritten flag, or memory that was mapped because the break was blocked.
            (true, true) | (false, false) => return false,
        };
        let next = chunk + size;
        if next + HEADER > end {
            return false;
        }
        let next_head = words.head(next);
        next_head & (IS_MMAPPED | OVERHEAD | PREV_INUSE) == PREV_INUSE && (HEADER..CHUNK_LIMIT).contains(&next_head)
    }

    /// Whether the size word of a live block's chunk is one, and the chunk above says that the one below it is live.
    fn check_words(&self, chunk: u64) -> Result<(), HeapFault> {
        let words = Words(&self.os);
        let head = words.head(chunk);
        let size = head & !FLAGS;
        if head & OVERHEAD != 0 || !(MIN_CHUNK..CHUNK_LIMIT).contains(&size) {
            return Err(HeapFault::InvalidSize);
        }
        if head & IS_MMAPPED != 0 {
            let is_whole = self.mapping_bytes(chunk).is_multiple_of(self.os.page_bytes());
            return if is_whole { Ok(()) } else { Err(HeapFault::InvalidMapping) };
        }
        // An overwritten size could lead anywhere: only what is the heap's own is looked at.
        if self.end_around(chunk, head).is_some_and(|end| chunk + size + HEADER > end) {
            return Err(HeapFault::InvalidSize);
        }
        let next = words.head(chunk + size);
        let next_size = next & !FLAGS;
        // The second of the two fences that end a sub-heap may have no size.
        let is_size = next_size == 0 || (HEADER..CHUNK_LIMIT).contains(&next_size);
        let is_plausible = next & (IS_MMAPPED | OVERHEAD) == 0 && next & PREV_INUSE != 0 && is_size;
        if is_plausible { Ok(()) } else { Err(HeapFault::InvalidNextSize) }
    }

    /// Where the segment ends that a chunk is in, as far as that is known without its size word: 0 if the word's flags
    /// deny the segment, `None` for memory that was mapped because the break was blocked.
    fn end_around(&self, chunk: u64, head: u64) -> Option<u64> {
        let in_sub_heap = head & NON_MAIN != 0;
        if (self.break_base.get()..self.break_end.get()).contains(&chunk) {
            return Some(if in_sub_heap { 0 } else { self.break_end.get() });
        }
        let heap = self.heap_of(chunk);
        in_sub_heap.then(|| heap + Words(&self.os).heap_size(heap))
    }

    /// Notes what was unmapped, so that a second free of it is known as one.
    pub(super) fn note_unmapped(&self, chunk: u64) {
        if self.blocks.is_kept() {
            let at = self.unmapped_count.add(1) as usize % self.unmapped.len();
            self.unmapped[at].set(chunk + HEADER);
        }
    }

    fn neighbour(&self, addr: u64) -> Neighbour {
        let head = Words(&self.os).head(addr - HEADER);
        let size = head & !FLAGS;
        let is_size = head & OVERHEAD == 0 && (MIN_CHUNK..CHUNK_LIMIT).contains(&size);
        let overhead = if head & IS_MMAPPED != 0 { HEADER } else { OVERHEAD };
        Neighbour { addr: Addr(addr), usable_bytes: is_size.then(|| size - overhead) }
    }

    /// Says what is at a pointer that [`Heap::claim`], a free or a realloc found fault with.
    pub fn explain(&self, cache: &mut ThreadCache, addr: Addr, fault: HeapFault) -> Explanation {
        let below = self.blocks.at_or_below(addr.0).map(|at| self.neighbour(at));
        let above = self.blocks.above(addr.0).map(|at| self.neighbour(at));
        let mut span = None;
        // A walk that cannot go on has at least seen what it passed.
        let _whole = self.walk(cache, |here| {
            let is_it = (here.addr.0..here.addr.0 + here.size_bytes).contains(&addr.0);
            if is_it {
                span = Some(here);
            }
            !is_it
        });
        Explanation { kind: self.kind_of(addr, fault, below, span), span, below, above }
    }

    fn kind_of(&self, addr: Addr, fault: HeapFault, below: Option<Neighbour>, span: Option<Span>) -> FaultKind {
        match fault {
            HeapFault::NotABlock => {}
            HeapFault::InvalidPointer | HeapFault::ReallocInvalidPointer => return FaultKind::NotABlock,
            HeapFault::DoubleFreeCached
            | HeapFault::DoubleFreeFast
            | HeapFault::DoubleFreeTop
            | HeapFault::DoubleFree => {
                return FaultKind::DoubleFree;
            }
            HeapFault::InvalidSize
            | HeapFault::InvalidMapping
            | HeapFault::InvalidNextSize
            | HeapFault::InvalidNextSizeFast
            | HeapFault::BeyondTop
            | HeapFault::ReallocInvalidSize
            | HeapFault::ReallocInvalidNextSize
            | HeapFault::ReallocInvalidMapping
            | HeapFault::FastSize
            | HeapFault::ConsolidatedSize
            | HeapFault::UnsortedSize
            | HeapFault::UnsortedNextSize
            | HeapFault::UnsortedMismatch
            | HeapFault::UnsortedInUse
            | HeapFault::SizeMismatchBelow
            | HeapFault::SizeMismatch
            | HeapFault::ConsolidatedBelow
            | HeapFault::TopSize
            | HeapFault::TopShape => {
                return FaultKind::Overwritten;
            }
            HeapFault::CorruptedLinks
            | HeapFault::CorruptedSizeLinks
            | HeapFault::UnsortedAtFree
            | HeapFault::CacheLink
            | HeapFault::CacheLinkAtFree
            | HeapFault::CacheLinkAtExit
            | HeapFault::FastHead
            | HeapFault::FastLink
            | HeapFault::ConsolidatedLink
            | HeapFault::SmallLinks
            | HeapFault::UnsortedLinks
            | HeapFault::UnsortedAtSplit
            | HeapFault::UnsortedAtBestFit
            | HeapFault::LargeSizeLinks
            | HeapFault::LargeLinks => return FaultKind::CorruptedLists,
        }
        if let Some(Neighbour { addr: start, usable_bytes: Some(usable_bytes) }) = below
            && addr.0 - start.0 < usable_bytes
        {
            return FaultKind::InsideBlock;
        }
        let was_unmapped = self.unmapped.iter().any(|place| place.get() == addr.0);
        match span.map(|span| span.class) {
            Some(Class::Cached | Class::Fast | Class::Binned | Class::Top) if addr.0.is_multiple_of(ALIGNMENT) => {
                FaultKind::DoubleFree
            }
            // A chunk begins there that looks live, and the program does not have it: what told that it was freed was
            // overwritten since, or it is the bookkeeping of a cache, which no program comes upon by chance.
            Some(Class::Live) if span.is_some_and(|span| span.addr.up(HEADER) == addr) => FaultKind::DoubleFree,
            Some(_) => FaultKind::NotABlock,
            None if was_unmapped => FaultKind::DoubleFree,
            None => FaultKind::NotABlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::sim::Simulation;
    use crate::heap::{Class, NoSink, Policy, Reallocated, Tunables};

    fn hardened() -> Simulation {
        let process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
        assert!(process.heap().harden());
        process
    }

    #[test]
    fn a_second_free_is_a_fault_wherever_the_block_went_after_the_first() {
        // To the cache, to a fast bin, to the unsorted bin, into the top, back to the system.
        for (name, bytes, frees_before, tail) in [
            ("cache", 24, 0, true),
            ("fast", 24, 7, true),
            ("binned", 5_000, 0, true),
            ("top", 5_000, 0, false),
            ("mapping", 300_000, 0, true),
        ] {
            let mut process = hardened();
            let filler: Vec<_> =
                (0..frees_before).map(|_| process.malloc(0, &mut NoSink, bytes).unwrap().addr).collect();
            let block = process.malloc(0, &mut NoSink, bytes).unwrap().addr;
            if tail {
                process.malloc(0, &mut NoSink, 24).unwrap();
            }
            for addr in filler {
                process.free(0, &mut NoSink, addr).unwrap();
            }
            process.free(0, &mut NoSink, block).unwrap();
            let fault = process.free(0, &mut NoSink, block).expect_err(name);
            assert_eq!(fault, HeapFault::NotABlock, "{name}");
            assert_eq!(process.explain(block, fault).kind, FaultKind::DoubleFree, "{name}");
            assert!(process.realloc(0, &mut NoSink, block, 10).is_err(), "{name}");
            process.validate().expect("nothing was changed");
        }
    }

    #[test]
    fn a_pointer_into_a_block_is_told_from_one_into_nowhere() {
        let mut process = hardened();
        let block = process.malloc(0, &mut NoSink, 1_000).unwrap().addr;
        let behind = process.malloc(0, &mut NoSink, 24).unwrap().addr;
        for (at, kind) in [
            (block.up(16), FaultKind::InsideBlock),
            (block.up(17), FaultKind::InsideBlock),
            (Addr(0x7ffd_1234_5670), FaultKind::NotABlock),
            (Addr(16), FaultKind::NotABlock),
            (Addr(u64::MAX - 15), FaultKind::NotABlock),
        ] {
            let fault = process.free(0, &mut NoSink, at).expect_err("it is no block");
            assert_eq!(process.explain(at, fault).kind, kind, "{at:x?}");
        }
        let told = process.explain(block.up(16), HeapFault::NotABlock);
        assert_eq!(told.below, Some(Neighbour { addr: block, usable_bytes: Some(1_000) }));
        assert_eq!(told.above, Some(Neighbour { addr: behind, usable_bytes: Some(24) }));
        assert_eq!(told.span.map(|span| span.class), Some(Class::Live));
    }

    #[test]
    fn a_size_word_that_was_overwritten_is_found_when_the_block_below_or_the_block_itself_is_freed() {
        for word in [0x4141_4141_4141_4141_u64, 0, 0x20, 0x2f, u64::MAX, 1 << 60 | 1] {
            for frees_the_lower in [true, false] {
                let mut process = hardened();
                let lower = process.malloc(0, &mut NoSink, 24).unwrap().addr;
                let upper = process.malloc(0, &mut NoSink, 24).unwrap().addr;
                process.malloc(0, &mut NoSink, 24).unwrap();
                Words(process.heap().system()).set_head(upper.0 - HEADER, word);
                let freed = if frees_the_lower { lower } else { upper };
                let is_noticed = process.free(0, &mut NoSink, freed).is_err();
                // A size that is one, and only lacks the flag of the block below, says nothing about its own block.
                assert!(is_noticed || (!frees_the_lower && word == 0x20), "{word:x} {frees_the_lower}");
            }
        }
    }

    #[test]
    fn programs_that_do_nothing_wrong_are_never_at_fault() {
        let mut process = hardened();
        let threads = [0, process.spawn(), process.spawn()];
        let mut blocks = Vec::new();
        let mut state = 7_u64;
        let mut draw = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..40_000 {
            let thread = threads[draw(3) as usize];
            let bytes = match draw(50) {
                0 => draw(400_000),
                1..10 => draw(5_000),
                _ => draw(200),
            };
            if draw(100) < 52 || blocks.is_empty() {
                let block = match draw(4) {
                    0 => process.calloc(thread, &mut NoSink, 1, bytes),
                    1 => process.memalign(thread, &mut NoSink, 16 << draw(6), bytes).ok(),
                    _ => process.malloc(thread, &mut NoSink, bytes),
                };
                blocks.push(block.expect("there is memory").addr);
            } else {
                let at = draw(blocks.len() as u64) as usize;
                if draw(3) == 0 {
                    let done = process.realloc(thread, &mut NoSink, blocks[at], bytes + 1).expect("the block is live");
                    let (Reallocated::InPlace(block) | Reallocated::Moved(block)) = done else {
                        unreachable!("{done:?}")
                    };
                    blocks[at] = block.addr;
                } else {
                    process.free(thread, &mut NoSink, blocks.swap_remove(at)).expect("the block is live");
                }
            }
        }
        for thread in threads.into_iter().rev() {
            process.exit(thread, &mut NoSink);
        }
        process.validate().expect("the books balance");
    }
}
