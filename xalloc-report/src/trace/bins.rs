//! Where the free chunks of an arena wait, as its steps tell: what a step is expected to be about.
//!
//! malloc's bins are lists, and which end is taken is fixed: a fast bin gives what it got last, a small one what it got
//! first, the unsorted one is sorted into the others from its oldest chunk on, and the fast ones are emptied by size (malloc.c,
//! `_int_malloc`, `malloc_consolidate`). So most steps name a chunk that an earlier step put where this one takes it from.
//! Of the bytes of a compiler's and of perl's steps two thirds go by this, of python3's nearly all.
//!
//! The lists are no copy of the heap's bins. Chunks leave those unseen: a neighbour is freed and they are merged with
//! it. Such an entry is dropped when one behind it turns out to have been taken, so what is expected may be wrong, and then
//! the difference is stored.
//!
//! # Invariant
//! Writer and reader are told the same in the same order, by the same functions, and begin anew at the same blocks
//! ([`super::container::FLAG_ANEW`]): those behind a checkpoint, which does not hold the lists. What they hold is bounded,
//! for a file can claim to have freed anything.

use std::collections::VecDeque;

use xalloc_core::units::ArenaId;
use xalloc_core::wire::BinKind;

use super::heap_steps::{BIN, COALESCE, Chunk, Flat, SPLIT};
use super::mirror::{NO_CHUNK, Near};

/// Fast bins that a policy may have: of 32 to 176 bytes.
const FAST_BINS: usize = 10;
/// Small bins, by a sixteenth of their size.
const SMALL_BINS: usize = 64;
/// Arenas that have lists of their own; others share theirs.
const ARENAS: usize = 64;
/// Most entries of all lists when a block of events begins; with more they begin anew.
const MOST_ENTRIES: usize = 4 << 20;
/// How far an entry is looked for behind the one that was expected.
const REACH: usize = 64;
/// Bits of a merge's small operand: with the chunk below, with the one above.
const WITH_PREVIOUS: u8 = 1;
const WITH_NEXT: u8 = 2;

/// A free chunk that waits: its address and its bytes.
type Waiting = (u64, u64);

/// The lists of all arenas.
#[derive(Default)]
pub(super) struct Bins {
    arenas: Vec<Lists>,
}

/// The lists of an arena, each in the order in which its chunks came.
struct Lists {
    unsorted: VecDeque<Waiting>,
    fast: [Vec<u64>; FAST_BINS],
    /// A bit for each fast list that has entries.
    has_fast: u16,
    small: [VecDeque<u64>; SMALL_BINS],
}

impl Lists {
    fn new() -> Lists {
        Lists {
            unsorted: VecDeque::new(),
            fast: std::array::from_fn(|_| Vec::new()),
            has_fast: 0,
            small: std::array::from_fn(|_| VecDeque::new()),
        }
    }

    fn len(&self) -> usize {
        let fast: usize = self.fast.iter().map(Vec::len).sum();
        let small: usize = self.small.iter().map(VecDeque::len).sum();
        self.unsorted.len() + fast + small
    }

    /// The fast list of a chunk size.
    #[inline]
    fn fast_of(size_bytes: u64) -> Option<usize> {
        let bin = (size_bytes / 16).checked_sub(2)?;
        (bin < FAST_BINS as u64).then_some(bin as usize)
    }

    /// The chunk that is taken next when the fast bins are emptied.
    fn next_fast(&self) -> Option<Waiting> {
        let bin = self.has_fast.trailing_zeros() as usize;
        let &chunk = self.fast.get(bin)?.last()?;
        Some((chunk, (bin as u64 + 2) * 16))
    }

    /// What came last into a fast list, down to `chunk`, is gone.
    #[inline]
    fn leave_fast(&mut self, bin: usize, chunk: u64) -> bool {
        let list = &mut self.fast[bin];
        let Some(&last) = list.last() else { return false };
        let left = if last == chunk { Some(list.len() - 1) } else { Lists::below(list, chunk) };
        if let Some(left) = left {
            list.truncate(left);
            self.has_fast &= !(u16::from(left == 0) << bin);
        }
        left.is_some()
    }

    /// How many entries lie before `chunk`, which is not the last one.
    #[inline(never)]
    fn below(list: &[u64], chunk: u64) -> Option<usize> {
        let below = list.iter().rev().take(REACH).position(|&entry| entry == chunk)?;
        Some(list.len() - 1 - below)
    }

    /// What came first into a small list, up to `chunk`, is gone.
    fn leave_small(&mut self, units: usize, chunk: u64) {
        let list = &mut self.small[units];
        match list.iter().take(REACH).position(|&entry| entry == chunk) {
            Some(at) => drop(list.drain(..=at)),
            // Those before it left unseen: what is known of the list is of no use.
            None if list.len() > REACH => list.clear(),
            None => {}
        }
    }

    /// A chunk that no fast list has went to a cache.
    #[inline(never)]
    fn leave_slowly(&mut self, chunk: u64, size_bytes: u64) {
        if self.unsorted.front() == Some(&(chunk, size_bytes)) {
            self.unsorted.pop_front();
        } else if size_bytes < SMALL_BINS as u64 * 16 {
            self.leave_small((size_bytes / 16) as usize, chunk);
        }
    }

    /// What came first into the unsorted list, up to `chunk`, is gone. If that is not found, the list is of no use.
    fn leave_unsorted(&mut self, chunk: Waiting) {
        match self.unsorted.iter().take(REACH).position(|&entry| entry == chunk) {
            Some(at) => drop(self.unsorted.drain(..=at)),
            None if self.unsorted.len() > REACH => self.unsorted.clear(),
            None => {}
        }
    }

    /// The chunk at `addr` was merged with another: if it came last into the unsorted list, it is gone.
    fn merged(&mut self, addr: u64) {
        if self.unsorted.back().is_some_and(|&(last, _)| last == addr) {
            self.unsorted.pop_back();
        }
    }
}

impl Bins {
    /// All lists are empty.
    pub(super) fn clear(&mut self) {
        self.arenas.clear();
    }

    #[inline]
    fn lists(&mut self, arena: ArenaId) -> &mut Lists {
        let at = usize::from(arena.0) % ARENAS;
        if at >= self.arenas.len() {
            self.arenas.resize_with(at + 1, Lists::new);
        }
        &mut self.arenas[at]
    }

    /// A block of events begins. Until it ends, lists gain no more entries than it has events.
    pub(super) fn begin_block(&mut self) {
        if self.arenas.iter().map(Lists::len).sum::<usize>() > MOST_ENTRIES {
            self.clear();
        }
    }

    /// The chunk that a step of this kind, by a thread whose state is `near`, is expected to be about.
    #[inline(always)]
    pub(super) fn expected(&mut self, arena: ArenaId, kind: u8, sub: u8, near: &Near) -> Chunk {
        const FAST: u8 = BinKind::Fast as u8;
        const UNSORTED: u8 = BinKind::Unsorted as u8;
        const SMALL: u8 = BinKind::Small as u8;
        const LARGE: u8 = BinKind::Large as u8;
        const CACHE: u8 = BinKind::Cache as u8;
        let chunk = match (kind, sub) {
            (COALESCE, _) => return self.expected_merge(arena, sub, near),
            // What is left of a split goes elsewhere.
            (BIN, FAST | CACHE) if near.resized != NO_CHUNK => near.resized,
            (BIN, SMALL | LARGE) => self.lists(arena).unsorted.front().copied().unwrap_or(near.free_chunk),
            (BIN, UNSORTED) if near.is_filed => self.lists(arena).next_fast().unwrap_or(near.free_chunk),
            _ => near.free_chunk,
        };
        chunk.into()
    }

    fn expected_merge(&mut self, arena: ArenaId, sub: u8, near: &Near) -> Chunk {
        let with_previous = sub & WITH_PREVIOUS != 0;
        let lists = self.lists(arena);
        match lists.next_fast().filter(|_| near.is_filed) {
            // Where chunks are merged one after the other, the one below is mostly what came of the last merge.
            Some((_, size_bytes)) if with_previous => {
                Chunk { addr: near.free_chunk.0, size_bytes, beside_bytes: near.free_chunk.1 }
            }
            Some(chunk) => chunk.into(),
            None => match lists.unsorted.back().filter(|_| with_previous) {
                Some(&(addr, beside_bytes)) => Chunk { addr, size_bytes: near.free_chunk.1, beside_bytes },
                None => near.free_chunk.into(),
            },
        }
    }

    /// The chunk of `units` sixteenths that goes next to the cache of the thread whose state is `near`.
    ///
    /// It comes out of the bin from which a request was served, behind the one that the request gets.
    #[inline]
    pub(super) fn next_to_cache(&mut self, arena: ArenaId, units: u8, near: &Near) -> Option<u64> {
        let behind = usize::from(!near.is_filling);
        let lists = self.lists(arena);
        if let Some(list) = Lists::fast_of(u64::from(units) * 16).map(|bin| &lists.fast[bin])
            && !list.is_empty()
        {
            return list.iter().rev().nth(behind).copied();
        }
        lists.small.get(usize::from(units))?.get(behind).copied()
    }

    /// A chunk went to its thread's cache.
    #[inline]
    pub(super) fn moved_to_cache(&mut self, arena: ArenaId, chunk: u64, size_bytes: u64, near: &mut Near) {
        near.is_filling = true;
        let lists = self.lists(arena);
        if let Some(bin) = Lists::fast_of(size_bytes)
            && lists.leave_fast(bin, chunk)
        {
            return;
        }
        lists.leave_slowly(chunk, size_bytes);
    }

    /// A chunk went to the fast bin of its size.
    #[inline]
    pub(super) fn moved_to_fast(&mut self, arena: ArenaId, chunk: u64, size_bytes: u64, near: &mut Near) {
        near.is_filed = true;
        if let Some(bin) = Lists::fast_of(size_bytes) {
            let lists = self.lists(arena);
            lists.fast[bin].push(chunk);
            lists.has_fast |= 1 << bin;
        }
    }

    /// A step happened.
    pub(super) fn happened(&mut self, arena: ArenaId, flat: Flat, near: &mut Near) {
        let Flat { kind, sub, addr, first, second } = flat;
        match kind {
            SPLIT => {
                near.is_filed = false;
                let lists = self.lists(arena);
                if lists.unsorted.front().is_some_and(|&(chunk, _)| chunk == addr) {
                    lists.unsorted.pop_front();
                }
                let total_bytes = first.wrapping_add(second);
                if let Some(list) = lists.small.get_mut(usize::try_from(total_bytes / 16).unwrap_or(usize::MAX))
                    && list.front() == Some(&addr)
                {
                    list.pop_front();
                }
            }
            COALESCE => {
                let lists = self.lists(arena);
                let freed = if near.is_filed { lists.next_fast() } else { Some(near.free_chunk) };
                if near.is_filed
                    && let Some((chunk, size_bytes)) = freed
                    && let Some(bin) = Lists::fast_of(size_bytes)
                {
                    lists.leave_fast(bin, chunk);
                }
                if sub & WITH_PREVIOUS != 0 {
                    lists.merged(addr);
                }
                if sub & WITH_NEXT != 0
                    && let Some((chunk, size_bytes)) = freed
                {
                    lists.merged(chunk.wrapping_add(size_bytes));
                }
                near.is_filed = false;
            }
            BIN => self.filed(arena, sub, (addr, first), near),
            _ => {}
        }
    }

    /// A chunk went into a bin.
    fn filed(&mut self, arena: ArenaId, bin: u8, chunk: Waiting, near: &mut Near) {
        let (addr, size_bytes) = chunk;
        match BinKind::from_number(bin) {
            Some(BinKind::Fast) => self.moved_to_fast(arena, addr, size_bytes, near),
            Some(BinKind::Cache) => self.moved_to_cache(arena, addr, size_bytes, near),
            Some(BinKind::Unsorted) => {
                near.is_filed = true;
                let lists = self.lists(arena);
                if let Some(bin) = Lists::fast_of(size_bytes) {
                    lists.leave_fast(bin, addr);
                }
                lists.unsorted.push_back(chunk);
            }
            Some(bin @ (BinKind::Small | BinKind::Large)) => {
                near.is_filed |= near.free_chunk == chunk;
                let lists = self.lists(arena);
                lists.leave_unsorted(chunk);
                if bin == BinKind::Small && size_bytes < SMALL_BINS as u64 * 16 {
                    lists.small[(size_bytes / 16) as usize].push_back(addr);
                }
            }
            None => {}
        }
    }

    /// A request was served by the arena itself, with a chunk that ends where `end` minus its header says.
    #[inline(never)]
    pub(super) fn served(&mut self, arena: ArenaId, addr: u64, end: u64) {
        let (chunk, size_bytes) = (addr.wrapping_sub(16), end.wrapping_sub(addr));
        let lists = self.lists(arena);
        if lists.unsorted.front() == Some(&(chunk, size_bytes)) {
            lists.unsorted.pop_front();
        } else if let Some(list) = lists.small.get_mut(usize::try_from(size_bytes / 16).unwrap_or(usize::MAX))
            && list.front() == Some(&chunk)
        {
            list.pop_front();
        } else if let Some(bin) = Lists::fast_of(size_bytes)
            && lists.fast[bin].last() == Some(&chunk)
        {
            lists.leave_fast(bin, chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::BLOCK_EVENTS;
    use super::*;

    const ARENA: ArenaId = ArenaId(0);

    fn bin(bin: BinKind, addr: u64, size_bytes: u64) -> Flat {
        Flat { kind: BIN, sub: bin as u8, addr, first: size_bytes, second: 0 }
    }

    /// Each chunk is freed and goes into that bin.
    fn freed_into(bins: &mut Bins, to: BinKind, near: &mut Near, chunks: &[Waiting]) {
        for &(addr, size_bytes) in chunks {
            near.free_chunk = (addr, size_bytes);
            near.is_filed = false;
            bins.happened(ARENA, bin(to, addr, size_bytes), near);
        }
    }

    fn expected_in(bins: &mut Bins, to: BinKind, near: &Near) -> Waiting {
        let Chunk { addr, size_bytes, .. } = bins.expected(ARENA, BIN, to as u8, near);
        (addr, size_bytes)
    }

    #[test]
    fn the_unsorted_bin_is_sorted_into_the_others_from_its_oldest_chunk_on() {
        let (mut bins, mut near) = (Bins::default(), Near::default());
        freed_into(
            &mut bins,
            BinKind::Unsorted,
            &mut near,
            &[(0x1000, 256), (0x2000, 2048), (0x3000, 512), (0x4000, 64)],
        );
        assert_eq!(expected_in(&mut bins, BinKind::Small, &near), (0x1000, 256));
        bins.happened(ARENA, bin(BinKind::Small, 0x1000, 256), &mut near);
        assert_eq!(expected_in(&mut bins, BinKind::Large, &near), (0x2000, 2048));
        // One that left unseen is passed over, and what is served is gone.
        bins.happened(ARENA, bin(BinKind::Small, 0x3000, 512), &mut near);
        assert_eq!(expected_in(&mut bins, BinKind::Small, &near), (0x4000, 64));
        bins.served(ARENA, 0x4010, 0x4010 + 64);
        assert_eq!(expected_in(&mut bins, BinKind::Small, &near), near.free_chunk);
    }

    #[test]
    fn fast_bins_are_emptied_by_size_and_each_from_its_newest_chunk_on() {
        let (mut bins, mut near) = (Bins::default(), Near::default());
        freed_into(&mut bins, BinKind::Fast, &mut near, &[(0x1000, 48), (0x2000, 32), (0x3000, 48)]);
        let mut emptied = Vec::new();
        for _ in 0..3 {
            let chunk = expected_in(&mut bins, BinKind::Unsorted, &near);
            bins.happened(ARENA, bin(BinKind::Unsorted, chunk.0, chunk.1), &mut near);
            emptied.push(chunk.0);
        }
        assert_eq!(emptied, [0x2000, 0x3000, 0x1000]);
    }

    #[test]
    fn a_cache_is_filled_from_behind_the_chunk_that_the_request_gets() {
        for (to, next) in [(BinKind::Fast, [0x3000, 0x2000, 0x1000]), (BinKind::Small, [0x2000, 0x3000, 0x4000])] {
            let (mut bins, mut near) = (Bins::default(), Near::default());
            freed_into(&mut bins, to, &mut near, &[0x1000, 0x2000, 0x3000, 0x4000].map(|addr| (addr, 64)));
            for next in next {
                assert_eq!(bins.next_to_cache(ARENA, 4, &near), Some(next), "{to:?}");
                bins.moved_to_cache(ARENA, next, 64, &mut near);
            }
            assert_eq!(bins.next_to_cache(ARENA, 4, &near), None, "{to:?}");
        }
    }

    #[test]
    fn a_chunk_that_is_merged_with_the_last_unsorted_one_takes_it_out() {
        let (mut bins, mut near) = (Bins::default(), Near::default());
        freed_into(&mut bins, BinKind::Unsorted, &mut near, &[(0x1000, 256), (0x3000, 256)]);
        (near.free_chunk, near.is_filed) = ((0x3100, 256), false);
        let expected = Chunk { addr: 0x3000, size_bytes: 256, beside_bytes: 256 };
        assert_eq!(bins.expected(ARENA, COALESCE, WITH_PREVIOUS, &near), expected);
        let merge = Flat { kind: COALESCE, sub: WITH_PREVIOUS, addr: 0x3000, first: 256, second: 512 };
        bins.happened(ARENA, merge, &mut near);
        assert_eq!(bins.arenas[0].unsorted, [(0x1000, 256)]);
    }

    #[test]
    fn the_chunk_that_a_realloc_moved_away_from_goes_to_a_cache_after_the_split_for_the_other() {
        let (mut bins, mut near) = (Bins::default(), Near::default());
        (near.resized, near.free_chunk) = ((0x1000, 32), (0x9000, 4096));
        assert_eq!(expected_in(&mut bins, BinKind::Cache, &near), (0x1000, 32));
        assert_eq!(expected_in(&mut bins, BinKind::Unsorted, &near), (0x9000, 4096));
    }

    #[test]
    fn what_the_lists_hold_is_bounded_however_much_is_freed_in_however_many_arenas() {
        let (mut bins, mut near) = (Bins::default(), Near::default());
        let mut most = 0;
        for block in 0..2 * (MOST_ENTRIES / BLOCK_EVENTS) as u64 {
            bins.begin_block();
            for at in 0..BLOCK_EVENTS as u64 {
                bins.moved_to_fast(ArenaId(at as u16), (block << 16 | at) * 16, 32, &mut near);
            }
            most = most.max(bins.arenas.iter().map(Lists::len).sum());
        }
        assert!((MOST_ENTRIES..=MOST_ENTRIES + BLOCK_EVENTS).contains(&most), "{most}");
        assert!(bins.arenas.len() <= ARENAS);
    }
}
