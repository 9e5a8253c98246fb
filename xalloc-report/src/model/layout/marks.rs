//! From a chunk's address to what it is: the heap's own headers, kept outside of it.
//!
//! A leaf holds one word for each 16 bytes of 1 MiB of addresses, as a chunk can begin at any of them. The word of a
//! chunk's first 16 bytes says its size and its place, all others are zero. A leaf is asked from the system zeroed and
//! touched where chunks begin, so it takes a quarter to half of what the chunks take.
//!
//! # Invariant
//! No word stands inside a chunk or inside a top: who merges or absorbs chunks takes their marks away. So a word that is
//! found at an address that a step names is current, and the classes can be counted as they change.
//!
//! # Why not a map by address
//! Neighbours in time are neighbours in address, as for the table by which the writer matches frees: a load of a line
//! that is there already against 45 to 100 ns of a hash map, three or four times an event.

use rustc_hash::FxHashMap;
use xalloc_core::units::PAGE_BYTES;

use crate::trace::ThreadIndex;

const LEAF_SHIFT: u32 = 20;
const LEAF_BYTES: u64 = 1 << LEAF_SHIFT;
const WORDS: usize = 1 << (LEAF_SHIFT - 4);
const PAGES: usize = (LEAF_BYTES / PAGE_BYTES) as usize;
/// Leaves found without the map: a direct-mapped cache by the low bits of the leaf's number.
const NEAR: usize = 64;
const NO_LEAF: (u64, u32) = (u64::MAX, 0);

/// What a chunk of an arena is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    /// The program's block in this slot.
    Live(u32),
    /// Taken from a bin or the top, and not told as a block yet.
    Handed,
    /// In the cache of this thread.
    Cached(ThreadIndex),
    /// In the fast bin of this number.
    Fast(u8),
    /// In the bin of this number: 1 unsorted, 2 to 63 small, 64 to 126 large.
    Binned(u8),
    /// The bookkeeping of a thread's cache.
    Bookkeeping,
    /// What ends a range that is not the top's.
    Fence,
}

const PAYLOAD_BITS: u32 = 29;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;

impl Mark {
    /// The word of a chunk: its size in units of 16 bytes above 3 bits of class and 29 of what belongs to the class.
    /// A chunk of 64 GiB and more is kept as one that is 16 bytes smaller than that.
    fn word(self, size_bytes: u64) -> u64 {
        let (class, payload) = match self {
            Mark::Live(slot) => (1, u64::from(slot)),
            Mark::Handed => (2, 0),
            Mark::Cached(thread) => (3, u64::from(thread.0)),
            Mark::Fast(bin) => (4, u64::from(bin)),
            Mark::Binned(bin) => (5, u64::from(bin)),
            Mark::Bookkeeping => (6, 0),
            Mark::Fence => (7, 0),
        };
        (size_bytes / 16).min(u64::from(u32::MAX)) << 32 | class << PAYLOAD_BITS | payload & PAYLOAD
    }

    fn of_word(word: u64) -> Option<(u64, Mark)> {
        let payload = (word & PAYLOAD) as u32;
        let mark = match (word >> PAYLOAD_BITS) & 7 {
            1 => Mark::Live(payload),
            2 => Mark::Handed,
            3 => Mark::Cached(ThreadIndex(payload)),
            4 => Mark::Fast(payload as u8),
            5 => Mark::Binned(payload as u8),
            6 => Mark::Bookkeeping,
            7 => Mark::Fence,
            _ => return None,
        };
        Some(((word >> 32) * 16, mark))
    }
}

#[derive(Debug)]
struct Leaf {
    words: Box<[u64]>,
    /// Pages that were written since they came from the system.
    touched: [u64; PAGES / 64],
}

/// The marks of one process.
#[derive(Debug)]
pub(super) struct Marks {
    leaves: Vec<Leaf>,
    by_number: FxHashMap<u64, u32>,
    near: [(u64, u32); NEAR],
    spare: Vec<u32>,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { leaves: Vec::new(), by_number: FxHashMap::default(), near: [NO_LEAF; NEAR], spare: Vec::new() }
    }
}

/// A walk through the marks: most neighbours lie in one leaf, which is looked up once.
pub(super) struct Walker<'m> {
    marks: &'m Marks,
    number: u64,
    /// The words of that leaf; none if there is no leaf.
    words: &'m [u64],
}

impl Walker<'_> {
    /// The chunk that begins at `addr`.
    #[inline]
    pub(super) fn get(&mut self, addr: u64) -> Option<(u64, Mark)> {
        let number = addr >> LEAF_SHIFT;
        if number != self.number {
            let place = self.marks.by_number.get(&number);
            self.words = place.map_or(&[], |&place| &self.marks.leaves[place as usize].words);
            self.number = number;
        }
        self.words.get(word_at(addr)).copied().and_then(Mark::of_word)
    }
}

const fn word_at(addr: u64) -> usize {
    ((addr >> 4) as usize) & (WORDS - 1)
}

const fn page_at(addr: u64) -> usize {
    ((addr / PAGE_BYTES) as usize) & (PAGES - 1)
}

impl Marks {
    #[inline]
    fn find(&mut self, addr: u64) -> Option<u32> {
        let number = addr >> LEAF_SHIFT;
        let near = &mut self.near[number as usize % NEAR];
        if near.0 != number {
            *near = (number, *self.by_number.get(&number)?);
        }
        Some(near.1)
    }

    #[inline]
    fn make(&mut self, addr: u64) -> &mut Leaf {
        let place = match self.find(addr) {
            Some(place) => place,
            None => self.add(addr >> LEAF_SHIFT),
        };
        &mut self.leaves[place as usize]
    }

    #[cold]
    fn add(&mut self, number: u64) -> u32 {
        let leaf = Leaf { words: vec![0; WORDS].into_boxed_slice(), touched: [0; PAGES / 64] };
        let place = match self.spare.pop() {
            Some(place) => {
                self.leaves[place as usize] = leaf;
                place
            }
            None => {
                self.leaves.push(leaf);
                self.leaves.len() as u32 - 1
            }
        };
        self.by_number.insert(number, place);
        place
    }

    /// The chunk that begins at `addr`.
    pub(super) fn get(&self, addr: u64) -> Option<(u64, Mark)> {
        self.walker().get(addr)
    }

    /// Looks at chunks in order of address.
    pub(super) fn walker(&self) -> Walker<'_> {
        Walker { marks: self, number: u64::MAX, words: &[] }
    }

    /// Marks the chunk at `addr` otherwise and leaves its size as it is; returns what it was.
    #[inline]
    pub(super) fn change(&mut self, addr: u64, mark: Mark) -> Option<(u64, Mark)> {
        let place = self.find(addr)?;
        let word = &mut self.leaves[place as usize].words[word_at(addr)];
        let found = Mark::of_word(*word)?;
        *word = mark.word(found.0);
        Some(found)
    }

    /// Takes the mark of the chunk that begins at `addr` away.
    #[inline]
    pub(super) fn take(&mut self, addr: u64) -> Option<(u64, Mark)> {
        let place = self.find(addr)?;
        Mark::of_word(std::mem::take(&mut self.leaves[place as usize].words[word_at(addr)]))
    }

    /// Marks the chunk at `addr`.
    #[inline]
    pub(super) fn set(&mut self, addr: u64, size_bytes: u64, mark: Mark) {
        self.make(addr).words[word_at(addr)] = mark.word(size_bytes);
    }

    /// The first chunk that begins in `[from, to)`.
    pub(super) fn next(&self, from: u64, to: u64) -> Option<u64> {
        let mut at = from.next_multiple_of(16);
        while at < to {
            let end = ((at | (LEAF_BYTES - 1)) + 1).min(to);
            if let Some(&place) = self.by_number.get(&(at >> LEAF_SHIFT)) {
                let words = &self.leaves[place as usize].words;
                let last = word_at(end - 1);
                if let Some(found) = words[word_at(at)..=last].iter().position(|&word| word != 0) {
                    return Some(at + 16 * found as u64);
                }
            }
            at = end;
        }
        None
    }

    /// The pages of `[addr, addr + len_bytes)` are written to; returns how many were not before.
    #[inline]
    pub(super) fn touch(&mut self, addr: u64, len_bytes: u64) -> u64 {
        let mut fresh = 0;
        let last = addr + len_bytes.max(1) - 1;
        let mut page = addr & !(PAGE_BYTES - 1);
        while page <= last {
            let leaf = self.make(page);
            let at = page_at(page);
            if at == 0 && last - page >= LEAF_BYTES - 1 {
                fresh += leaf.touched.iter().map(|word| u64::from(word.count_zeros())).sum::<u64>();
                leaf.touched = [u64::MAX; PAGES / 64];
                page += LEAF_BYTES;
                continue;
            }
            fresh += !leaf.touched[at / 64] >> (at % 64) & 1;
            leaf.touched[at / 64] |= 1 << (at % 64);
            page += PAGE_BYTES;
        }
        fresh
    }

    /// The whole pages of `[addr, addr + len_bytes)` went back to the system.
    pub(super) fn release(&mut self, addr: u64, len_bytes: u64) {
        let mut page = addr.next_multiple_of(PAGE_BYTES);
        let end = (addr + len_bytes) & !(PAGE_BYTES - 1);
        while page < end {
            let Some(place) = self.find(page) else {
                page = (page | (LEAF_BYTES - 1)) + 1;
                continue;
            };
            let at = page_at(page);
            self.leaves[place as usize].touched[at / 64] &= !(1 << (at % 64));
            page += PAGE_BYTES;
        }
    }

    /// Whether the page at `addr` was written to since it came from the system.
    pub(super) fn is_touched(&self, addr: u64) -> bool {
        self.by_number.get(&(addr >> LEAF_SHIFT)).is_some_and(|&place| {
            let at = page_at(addr);
            self.leaves[place as usize].touched[at / 64] & 1 << (at % 64) != 0
        })
    }

    /// Forgets a range that was unmapped; it begins and ends where leaves do, as sub-heaps of 64 MiB do.
    pub(super) fn forget(&mut self, addr: u64, len_bytes: u64) {
        for number in addr >> LEAF_SHIFT..(addr + len_bytes).div_ceil(LEAF_BYTES) {
            let Some(place) = self.by_number.remove(&number) else { continue };
            self.near[number as usize % NEAR] = NO_LEAF;
            self.leaves[place as usize].words = Box::default();
            self.spare.push(place);
        }
    }
}
