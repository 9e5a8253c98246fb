//! The doubly linked lists of free chunks: unsorted, small, large.
//!
//! # Invariant
//! A list is a ring through its bin's *end*: two words that a link leads to as if a chunk began 16 bytes before them. The
//! front is where chunks enter, the back where they leave. A large bin is sorted by size, the largest in front; the first
//! chunk of each size is the *head* of its group, and the heads form a ring of their own (`smaller`, `larger`) that a search
//! walks instead of the list. A chunk in the unsorted bin is no head.
//!
//! # Why ends that look like chunks
//! Half of all links lead to an end, in no order that a processor could guess. Where the ends are read and written as chunks
//! are, as in glibc, nothing asks which it was. The price is an address that the ends must know of themselves
//! ([`Bins::settle`]), and in a simulated heap, which has no memory to put them in, a table of their own.

use core::sync::atomic::AtomicU64;

use super::chunk::{LARGE_MIN, bin_index, round_down};
use super::fault::HeapFault;
use super::os::Memory;
use super::words::Words;

/// Number of bins, the unused bin 0 included.
pub(super) const BINS: usize = 127;
/// The queue of chunks that were freed or split off and not sorted yet.
pub(super) const UNSORTED: usize = 1;

/// Bytes of an end.
const END_BYTES: u64 = 16;
/// Bytes from where a chunk begins, or seems to, to its links.
const LINKS: u64 = 16;

/// The ends of the bins from 1 on, front and back of each, and of one bin more, which stays empty: so each end is followed by
/// a word that is not 0, as a chunk that is no head of its size is not.
#[derive(Debug)]
pub(super) struct Ends([AtomicU64; 2 * BINS]);

impl Ends {
    pub(super) const fn new() -> Ends {
        Ends([const { AtomicU64::new(0) }; 2 * BINS])
    }

    /// Where they are, for accesses as to words of the heap.
    #[inline(always)]
    pub(super) fn expose(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }
}

/// The bins of an arena.
#[derive(Debug)]
pub(super) struct Bins {
    /// Where the ends are, or 0: they are not linked yet.
    ends: u64,
    /// One bit per bin that may hold something: only an index, it never changes a decision.
    occupied: [u64; 2],
}

impl Bins {
    pub(super) const fn new() -> Bins {
        Bins { ends: 0, occupied: [0; 2] }
    }

    /// Says where the ends are. Before anything else is asked of the bins, and again whenever they have moved.
    #[inline(always)]
    pub(super) fn settle<M: Memory>(&mut self, words: Words<'_, M>, ends: u64) {
        if self.ends != ends {
            self.link_ends(words, ends);
        }
    }

    /// Links the ends that lie at `ends`: what they hold was copied there with them.
    #[cold]
    #[inline(never)]
    fn link_ends<M: Memory>(&mut self, words: Words<'_, M>, ends: u64) {
        let before = Bins { ends: self.ends, ..*self };
        self.ends = ends;
        for bin in UNSORTED..=BINS {
            let (old, end) = (before.end(bin), self.end(bin));
            let (front, back) = (words.fd(end), words.bk(end));
            if before.ends == 0 || front == old {
                self.set_empty(words, bin);
            } else {
                words.set_bk(front, end);
                words.set_fd(back, end);
            }
        }
    }

    fn set_empty<M: Memory>(&self, words: Words<'_, M>, bin: usize) {
        let end = self.end(bin);
        words.set_fd(end, end);
        words.set_bk(end, end);
    }

    /// What a link to the end of `bin` leads to.
    #[inline(always)]
    pub(super) fn end(&self, bin: usize) -> u64 {
        (self.ends + bin as u64 * END_BYTES).wrapping_sub(UNSORTED as u64 * END_BYTES + LINKS)
    }

    /// The chunk that entered `bin` last, or of a large bin the head of the largest size.
    #[inline]
    pub(super) fn front<M: Memory>(&self, words: Words<'_, M>, bin: usize) -> Option<u64> {
        let end = self.end(bin);
        let chunk = words.fd(end);
        (chunk != end).then_some(chunk)
    }

    /// The chunk that leaves `bin` next.
    #[inline]
    pub(super) fn back<M: Memory>(&self, words: Words<'_, M>, bin: usize) -> Option<u64> {
        self.next_from_back(words, bin, self.end(bin))
    }

    /// Takes the chunk that is at the back of the unsorted or a small bin; `ahead` is its link towards the front.
    #[inline(always)]
    pub(super) fn unlink_back<M: Memory>(&mut self, words: Words<'_, M>, bin: usize, ahead: u64) {
        let end = self.end(bin);
        words.set_bk(end, ahead);
        words.set_fd(ahead, end);
    }

    /// The chunk of `bin` after `chunk` on the way from back to front.
    #[inline(always)]
    pub(super) fn next_from_back<M: Memory>(&self, words: Words<'_, M>, bin: usize, chunk: u64) -> Option<u64> {
        let next = words.bk(chunk);
        (next != self.end(bin)).then_some(next)
    }

    /// The lowest bin above `index` that holds something, and the chunk at its back.
    #[inline]
    pub(super) fn next_occupied<M: Memory>(&mut self, words: Words<'_, M>, index: usize) -> Option<(usize, u64)> {
        let mut bin = index + 1;
        while bin < BINS {
            let mut rest = self.occupied[bin / 64] >> (bin % 64);
            if rest == 0 {
                rest = self.occupied[1];
                if bin >= 64 || rest == 0 {
                    return None;
                }
                bin = 64;
            }
            bin += rest.trailing_zeros() as usize;
            if bin < BINS
                && let Some(chunk) = self.back(words, bin)
            {
                return Some((bin, chunk));
            }
            self.occupied[bin / 64] &= !(1 << (bin % 64));
            bin += 1;
        }
        None
    }

    /// Inserts `chunk` behind `ahead` (a chunk or the end), nearer to the back.
    #[inline(always)]
    fn insert_behind<M: Memory>(words: Words<'_, M>, ahead: u64, chunk: u64) {
        let behind = words.fd(ahead);
        words.set_fd(chunk, behind);
        words.set_bk(chunk, ahead);
        words.set_fd(ahead, chunk);
        words.set_bk(behind, chunk);
    }

    /// Forgets what is in a bin whose links were overwritten.
    pub(super) fn abandon<M: Memory>(&mut self, words: Words<'_, M>, bin: usize) {
        self.set_empty(words, bin);
    }

    /// Takes a chunk of `size` bytes out of whatever list it is in.
    ///
    /// # Errors
    /// Its size or its links were overwritten ([`checks::unlink`](super::checks::unlink)); nothing was changed.
    #[inline(always)]
    pub(super) fn unlink<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, size: u64) -> Result<(), HeapFault> {
        if words.prev_size(chunk.wrapping_add(round_down(size, 8))) != size {
            return Err(HeapFault::SizeMismatch);
        }
        let (behind, ahead) = (words.fd(chunk), words.bk(chunk));
        if !do_meet(words, behind, ahead, chunk) {
            return Err(HeapFault::CorruptedLinks);
        }
        if size >= LARGE_MIN {
            let smaller = words.smaller(chunk);
            if smaller != 0 {
                Self::unlink_head(words, chunk, smaller, behind)?;
            }
        }
        words.set_fd(ahead, behind);
        words.set_bk(behind, ahead);
        Ok(())
    }

    /// Takes the head of a size group out of the ring of heads; the group's second chunk takes its place, if any.
    #[inline(always)]
    fn unlink_head<M: Memory>(words: Words<'_, M>, head: u64, smaller: u64, second: u64) -> Result<(), HeapFault> {
        let larger = words.larger(head);
        super::checks::size_links(words, head, smaller, larger)?;
        if words.smaller(second) == 0 {
            let alone = smaller == head;
            let (smaller, larger) = if alone { (second, second) } else { (smaller, larger) };
            words.set_smaller(second, smaller);
            words.set_larger(second, larger);
            words.set_larger(smaller, second);
            words.set_smaller(larger, second);
        } else {
            words.set_larger(smaller, larger);
            words.set_smaller(larger, smaller);
        }
        Ok(())
    }

    /// Puts a chunk of `size` bytes in front of the unsorted bin.
    #[inline(always)]
    pub(super) fn push_unsorted<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, size: u64) {
        if size >= LARGE_MIN {
            words.set_smaller(chunk, 0);
            words.set_larger(chunk, 0);
        }
        Self::insert_behind(words, self.end(UNSORTED), chunk);
    }

    /// Puts a chunk of `size` bytes into the bin of its size and returns that bin: in front of a small bin; behind the
    /// head of its size, or as head at its place, in a large one (placement policy, section 3, step 6c).
    ///
    /// # Errors
    /// The links at its place do not meet; the chunk is in no bin.
    #[inline(always)]
    pub(super) fn insert_sorted<M: Memory>(
        &mut self,
        words: Words<'_, M>,
        chunk: u64,
        size: u64,
    ) -> Result<usize, HeapFault> {
        let bin = bin_index(size);
        let ahead = if size < LARGE_MIN { self.end(bin) } else { self.place_large(words, bin, chunk, size)? };
        Self::insert_behind(words, ahead, chunk);
        self.occupied[bin / 64] |= 1 << (bin % 64);
        Ok(bin)
    }

    /// Links a chunk into the ring of heads, if it is one, and returns what stands ahead of its place in the list.
    #[inline(always)]
    fn place_large<M: Memory>(
        &mut self,
        words: Words<'_, M>,
        bin: usize,
        chunk: u64,
        size: u64,
    ) -> Result<u64, HeapFault> {
        let Some(largest) = self.front(words, bin) else {
            words.set_smaller(chunk, chunk);
            words.set_larger(chunk, chunk);
            return Ok(self.end(bin));
        };
        let smallest = Self::smallest_head(words, largest);
        // The head at or above `size`, searched from the smallest; `None`: a new largest.
        let mut head = smallest;
        while words.size(head) < size {
            head = words.larger(head);
            if head == smallest {
                Self::check_place(words, largest)?;
                Self::link_head(words, chunk, largest, smallest);
                return Ok(self.end(bin));
            }
        }
        if words.size(head) == size {
            words.set_smaller(chunk, 0);
            words.set_larger(chunk, 0);
            return Ok(head);
        }
        // `head` is the next larger size: the chunk comes behind the last of its group.
        let smaller = words.smaller(head);
        let ahead = if head == smallest {
            // glibc checks nothing where the chunk is the smallest of all.
            words.bk(self.end(bin))
        } else {
            Self::check_place(words, smaller)?;
            words.bk(smaller)
        };
        Self::link_head(words, chunk, smaller, head);
        Ok(ahead)
    }

    /// Whether the links meet ahead of a head before which a chunk is to stand.
    fn check_place<M: Memory>(words: Words<'_, M>, head: u64) -> Result<(), HeapFault> {
        let larger = words.larger(head);
        if words.smaller(round_down(larger, 8)) != head || !larger.is_multiple_of(8) {
            Err(HeapFault::LargeSizeLinks)
        } else if !is_known_ahead(words, words.bk(head), head) {
            Err(HeapFault::LargeLinks)
        } else {
            Ok(())
        }
    }

    /// Links `chunk` as head between `smaller` and `larger` (which is the smallest when `chunk` is the largest).
    fn link_head<M: Memory>(words: Words<'_, M>, chunk: u64, smaller: u64, larger: u64) {
        words.set_smaller(chunk, smaller);
        words.set_larger(chunk, larger);
        words.set_larger(smaller, chunk);
        words.set_smaller(larger, chunk);
    }

    /// The chunk of a large bin that serves `size`: of the smallest sufficient size the second chunk, or the head if it
    /// is alone (placement policy, section 3, step 7).
    #[inline]
    pub(super) fn best_in_large<M: Memory>(&self, words: Words<'_, M>, bin: usize, size: u64) -> Option<u64> {
        let largest = self.front(words, bin)?;
        if words.size(largest) < size {
            return None;
        }
        let mut head = Self::smallest_head(words, largest);
        while words.size(head) < size {
            head = words.larger(head);
        }
        if words.bk(self.end(bin)) == head {
            return Some(head);
        }
        let second = words.fd(head);
        Some(if words.size(second) == words.size(head) { second } else { head })
    }

    /// The head of the smallest size, from that of the largest: the ring closes there.
    #[inline]
    fn smallest_head<M: Memory>(words: Words<'_, M>, largest: u64) -> u64 {
        words.larger(largest)
    }
}

/// Whether the neighbours of `chunk` in its list know it: what an overwritten link breaks.
pub(super) fn links_meet<M: Memory>(words: Words<'_, M>, chunk: u64) -> bool {
    do_meet(words, words.fd(chunk), words.bk(chunk), chunk)
}

/// The same of its links. One that was overwritten is followed wherever it leads, as glibc follows it: a program that glibc
/// lets the kernel end so is ended so here.
#[inline(always)]
fn do_meet<M: Memory>(words: Words<'_, M>, behind: u64, ahead: u64, chunk: u64) -> bool {
    if (behind | ahead).is_multiple_of(8) {
        words.bk(behind) == chunk && words.fd(ahead) == chunk
    } else {
        lead_nowhere(words, behind, ahead, chunk)
    }
}

/// Whether `ahead`, the link of `chunk` towards the front, leads to what knows it.
#[inline(always)]
pub(super) fn is_known_ahead<M: Memory>(words: Words<'_, M>, ahead: u64, chunk: u64) -> bool {
    if ahead.is_multiple_of(8) { words.fd(ahead) == chunk } else { leads_nowhere(words, ahead) }
}

/// What is said of links of which one is no chunk's place, once they were followed as far as libc follows them.
#[cold]
#[inline(never)]
fn lead_nowhere<M: Memory>(words: Words<'_, M>, behind: u64, ahead: u64, chunk: u64) -> bool {
    let is_known_behind = words.bk(round_down(behind, 8)) == chunk;
    is_known_behind && behind.is_multiple_of(8) && leads_nowhere(words, ahead)
}

/// The same of one link towards the front.
#[cold]
#[inline(never)]
fn leads_nowhere<M: Memory>(words: Words<'_, M>, ahead: u64) -> bool {
    words.fd(round_down(ahead, 8));
    false
}
