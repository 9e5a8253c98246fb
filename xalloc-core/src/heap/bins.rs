//! The doubly linked lists of free chunks: unsorted, small, large.
//!
//! # Invariant
//! A list is a ring through its bin: the links of its first and last chunk are the bin's number, which is smaller than
//! any chunk's address. The front is where chunks enter, the back where they leave. A large bin is sorted by size, the
//! largest in front; the first chunk of each size is the *head* of its group, and the heads form a ring of their own
//! (`smaller`, `larger`) that a search walks instead of the list. A chunk in the unsorted bin is no head.
//!
//! # Why numbers as ends
//! glibc lets the links of the ends point into the arena. Arena state is out of band here (a simulated heap has no
//! memory to put it in), and a number needs no address; telling the two apart costs one comparison.

use super::chunk::{LARGE_MIN, bin_index, round_down};
use super::fault::HeapFault;
use super::os::Memory;
use super::words::Words;

/// Number of bins, the unused bin 0 included.
pub(super) const BINS: usize = 127;
/// The queue of chunks that were freed or split off and not sorted yet.
pub(super) const UNSORTED: usize = 1;

/// The ends of one list: chunk addresses, or the bin's number if it is empty.
#[derive(Clone, Copy, Debug)]
struct Ends {
    front: u64,
    back: u64,
}

/// The bins of an arena.
#[derive(Debug)]
pub(super) struct Bins {
    ends: [Ends; BINS],
    /// One bit per bin that may hold something: only an index, it never changes a decision.
    occupied: [u64; 2],
}

impl Bins {
    pub(super) const fn new() -> Bins {
        let mut ends = [Ends { front: 0, back: 0 }; BINS];
        let mut bin = 0;
        while bin < BINS {
            ends[bin] = Ends { front: bin as u64, back: bin as u64 };
            bin += 1;
        }
        Bins { ends, occupied: [0; 2] }
    }

    /// The chunk that entered `bin` last, or of a large bin the head of the largest size.
    #[inline]
    pub(super) fn front(&self, bin: usize) -> Option<u64> {
        let chunk = self.ends[bin].front;
        (chunk >= BINS as u64).then_some(chunk)
    }

    /// The chunk that leaves `bin` next.
    #[inline]
    pub(super) fn back(&self, bin: usize) -> Option<u64> {
        let chunk = self.ends[bin].back;
        (chunk >= BINS as u64).then_some(chunk)
    }

    /// Takes the chunk that is at the back of the unsorted or a small bin; `ahead` is its link towards the front.
    #[inline(always)]
    pub(super) fn unlink_back<M: Memory>(&mut self, words: Words<'_, M>, bin: usize, ahead: u64) {
        self.ends[bin].back = ahead;
        if ahead == bin as u64 {
            self.ends[bin].front = ahead;
        } else {
            words.set_fd(ahead, bin as u64);
        }
    }

    /// The chunk after `chunk` on the way from back to front.
    pub(super) fn next_from_back<M: Memory>(&self, words: Words<'_, M>, chunk: u64) -> Option<u64> {
        let next = words.bk(chunk);
        (next >= BINS as u64).then_some(next)
    }

    /// The lowest bin above `index` that holds something.
    #[inline]
    pub(super) fn next_occupied(&mut self, index: usize) -> Option<usize> {
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
            if bin < BINS && self.ends[bin].back >= BINS as u64 {
                return Some(bin);
            }
            self.occupied[bin / 64] &= !(1 << (bin % 64));
            bin += 1;
        }
        None
    }

    #[inline]
    fn link_towards_back<M: Memory>(&mut self, words: Words<'_, M>, at: u64, next: u64) {
        if at < BINS as u64 {
            self.ends[at as usize].front = next;
        } else {
            words.set_fd(at, next);
        }
    }

    #[inline]
    fn link_towards_front<M: Memory>(&mut self, words: Words<'_, M>, at: u64, next: u64) {
        if at < BINS as u64 {
            self.ends[at as usize].back = next;
        } else {
            words.set_bk(at, next);
        }
    }

    /// Inserts `chunk` behind `ahead` (a chunk or the bin's number), nearer to the back.
    #[inline(always)]
    fn insert_behind<M: Memory>(&mut self, words: Words<'_, M>, ahead: u64, chunk: u64) {
        let Some(ends) = self.ends.get_mut(ahead as usize) else {
            let behind = words.fd(ahead);
            words.set_fd(chunk, behind);
            words.set_bk(chunk, ahead);
            words.set_fd(ahead, chunk);
            return self.link_towards_front(words, behind, chunk);
        };
        let behind = ends.front;
        words.set_fd(chunk, behind);
        words.set_bk(chunk, ahead);
        ends.front = chunk;
        if behind < BINS as u64 {
            ends.back = chunk;
        } else {
            words.set_bk(behind, chunk);
        }
    }

    /// Whether the neighbours of `chunk` in its list know it: what an overwritten link breaks.
    #[inline(always)]
    pub(super) fn links_meet<M: Memory>(&self, words: Words<'_, M>, chunk: u64) -> bool {
        self.is_known_by_behind(words, words.fd(chunk), chunk) && self.is_known_ahead(words, chunk)
    }

    /// Whether `behind`, the link of `chunk` towards the back, leads to what knows it.
    #[inline(always)]
    fn is_known_by_behind<M: Memory>(&self, words: Words<'_, M>, behind: u64, chunk: u64) -> bool {
        match self.ends.get(behind as usize) {
            Some(ends) if ends.back == chunk => true,
            Some(_) | None => leads_back(words, behind, chunk),
        }
    }

    /// Whether the neighbour nearer to the front knows `chunk`. A link that was overwritten is followed wherever it leads,
    /// as glibc follows it: a program that glibc lets the kernel end so is ended so here.
    #[inline(always)]
    pub(super) fn is_known_ahead<M: Memory>(&self, words: Words<'_, M>, chunk: u64) -> bool {
        self.is_known_by_ahead(words, words.bk(chunk), chunk)
    }

    /// The same of its link towards the front, `ahead`.
    #[inline(always)]
    fn is_known_by_ahead<M: Memory>(&self, words: Words<'_, M>, ahead: u64, chunk: u64) -> bool {
        match self.ends.get(ahead as usize) {
            Some(ends) if ends.front == chunk => true,
            Some(_) | None => leads_on(words, ahead, chunk),
        }
    }

    /// The same of a chunk at the back of `bin`.
    #[inline(always)]
    pub(super) fn is_behind<M: Memory>(&self, words: Words<'_, M>, bin: usize, ahead: u64, chunk: u64) -> bool {
        if ahead == bin as u64 && self.ends[bin].front == chunk { true } else { leads_on(words, ahead, chunk) }
    }

    /// Forgets what is in a bin whose links were overwritten.
    pub(super) fn abandon(&mut self, bin: usize) {
        self.ends[bin] = Ends { front: bin as u64, back: bin as u64 };
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
        if !self.is_known_by_behind(words, behind, chunk) || !self.is_known_by_ahead(words, ahead, chunk) {
            return Err(HeapFault::CorruptedLinks);
        }
        if size >= LARGE_MIN {
            let smaller = words.smaller(chunk);
            if smaller != 0 {
                Self::unlink_head(words, chunk, smaller, behind)?;
            }
        }
        self.link_towards_back(words, ahead, behind);
        self.link_towards_front(words, behind, ahead);
        Ok(())
    }

    /// Takes the head of a size group out of the ring of heads; the group's second chunk takes its place, if any.
    #[inline(always)]
    fn unlink_head<M: Memory>(words: Words<'_, M>, head: u64, smaller: u64, second: u64) -> Result<(), HeapFault> {
        let larger = words.larger(head);
        super::checks::size_links(words, head, smaller, larger)?;
        if second >= BINS as u64 && words.smaller(second) == 0 {
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
        self.insert_behind(words, UNSORTED as u64, chunk);
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
        let ahead = if size < LARGE_MIN { bin as u64 } else { self.place_large(words, bin, chunk, size)? };
        self.insert_behind(words, ahead, chunk);
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
        let Some(largest) = self.front(bin) else {
            words.set_smaller(chunk, chunk);
            words.set_larger(chunk, chunk);
            return Ok(bin as u64);
        };
        let smallest = Self::smallest_head(words, largest);
        // The head at or above `size`, searched from the smallest; `None`: a new largest.
        let mut head = smallest;
        while words.size(head) < size {
            head = words.larger(head);
            if head == smallest {
                self.check_place(words, largest)?;
                self.link_head(words, chunk, largest, smallest);
                return Ok(bin as u64);
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
            self.ends[bin].back
        } else {
            self.check_place(words, smaller)?;
            words.bk(smaller)
        };
        self.link_head(words, chunk, smaller, head);
        Ok(ahead)
    }

    /// Whether the links meet ahead of a head before which a chunk is to stand.
    fn check_place<M: Memory>(&self, words: Words<'_, M>, head: u64) -> Result<(), HeapFault> {
        let larger = words.larger(head);
        if words.smaller(round_down(larger, 8)) != head || !larger.is_multiple_of(8) {
            Err(HeapFault::LargeSizeLinks)
        } else if !self.is_known_ahead(words, head) {
            Err(HeapFault::LargeLinks)
        } else {
            Ok(())
        }
    }

    /// Links `chunk` as head between `smaller` and `larger` (which is the smallest when `chunk` is the largest).
    fn link_head<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, smaller: u64, larger: u64) {
        words.set_smaller(chunk, smaller);
        words.set_larger(chunk, larger);
        words.set_larger(smaller, chunk);
        words.set_smaller(larger, chunk);
    }

    /// The chunk of a large bin that serves `size`: of the smallest sufficient size the second chunk, or the head if it
    /// is alone (placement policy, section 3, step 7).
    #[inline]
    pub(super) fn best_in_large<M: Memory>(&self, words: Words<'_, M>, bin: usize, size: u64) -> Option<u64> {
        let largest = self.front(bin)?;
        if words.size(largest) < size {
            return None;
        }
        let mut head = Self::smallest_head(words, largest);
        while words.size(head) < size {
            head = words.larger(head);
        }
        if self.ends[bin].back == head {
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

/// Whether `link` is the place of a chunk whose link towards the front leads to `chunk`.
#[inline(always)]
fn leads_back<M: Memory>(words: Words<'_, M>, link: u64, chunk: u64) -> bool {
    if link.is_multiple_of(8) { words.bk(link) == chunk } else { leads_nowhere(move || words.bk(round_down(link, 8))) }
}

/// Whether `link` is the place of a chunk whose link towards the back leads to `chunk`.
#[inline(always)]
fn leads_on<M: Memory>(words: Words<'_, M>, link: u64, chunk: u64) -> bool {
    if link.is_multiple_of(8) { words.fd(link) == chunk } else { leads_nowhere(move || words.fd(round_down(link, 8))) }
}

/// What is said of a link that is no chunk's place, once it was followed: the kernel may end that.
#[cold]
#[inline(never)]
fn leads_nowhere(follow: impl FnOnce() -> u64) -> bool {
    follow();
    false
}
