//! The pages of one simulated area: the words that the policy wrote, and which pages anything was written to.
//!
//! # What counts as resident
//! A page from its first write, by the heap or by the program ([`Pages::mark`]), until it is given back. The kernel
//! counts so too, but for what it maps ahead on its own (transparent huge pages).

use alloc::vec::Vec;

use super::slab::{Density, SLAB, Slab};
use crate::sys::prefetch;
use crate::units::PAGE_BYTES;

const PAGE_WORDS: usize = PAGE_BYTES as usize / 8;
const SLAB_PAGES: usize = SLAB / PAGE_BYTES as usize;

/// The words of a page.
pub(super) type Page = [u64; PAGE_WORDS];

/// Pages of one area, by number of page from its anchored end.
#[derive(Debug)]
pub(super) struct Pages {
    slabs: Vec<Option<Slab>>,
    density: Density,
    /// A bit for each page that has words other than zero, or had.
    worded: Vec<u64>,
    /// A bit for each page that was written to.
    written: Vec<u64>,
    resident: u64,
}

/// First word of a page in its slab.
fn word_at(page: usize) -> usize {
    page % SLAB_PAGES * PAGE_WORDS
}

impl Pages {
    pub(super) fn new(density: Density) -> Pages {
        Pages { slabs: Vec::new(), density, worded: Vec::new(), written: Vec::new(), resident: 0 }
    }

    #[inline]
    pub(super) fn word(&self, page: u64, slot: usize) -> u64 {
        let number = page as usize;
        let slab = self.slabs.get(number / SLAB_PAGES).and_then(Option::as_ref);
        slab.map_or(0, |slab| slab[word_at(number) + slot])
    }

    /// A word will be read soon.
    #[inline]
    pub(super) fn expect(&self, page: u64, slot: usize) {
        let number = page as usize;
        if let Some(Some(slab)) = self.slabs.get(number / SLAB_PAGES) {
            prefetch(&slab[word_at(number) + slot]);
        }
    }

    #[inline]
    pub(super) fn set_word(&mut self, page: u64, slot: usize, value: u64) {
        let number = page as usize;
        if !is_set(&self.worded, number) {
            if value == 0 {
                return;
            }
            self.begin(number);
        }
        if let Some(Some(slab)) = self.slabs.get_mut(number / SLAB_PAGES) {
            slab[word_at(number) + slot] = value;
        }
    }

    /// A page gets its first word.
    #[cold]
    fn begin(&mut self, number: usize) {
        self.mark(number, number);
        if number / 64 >= self.worded.len() {
            self.worded.resize(number / 64 + 1, 0);
        }
        self.worded[number / 64] |= 1 << (number % 64);
        let at = number / SLAB_PAGES;
        if at >= self.slabs.len() {
            self.slabs.resize_with(at + 1, || None);
        }
        self.slabs[at].get_or_insert_with(|| Slab::new(self.density));
    }

    /// Takes the words of a page away; it is not resident any more. `None`: it has none.
    pub(super) fn take(&mut self, page: u64) -> Option<Page> {
        let number = page as usize;
        let slab = self.slabs.get(number / SLAB_PAGES).and_then(Option::as_ref);
        let mut words = [0; PAGE_WORDS];
        let taken = slab.filter(|_| is_set(&self.worded, number)).map(|slab| {
            words.copy_from_slice(&slab[word_at(number)..][..PAGE_WORDS]);
            words
        });
        self.clear(number, number);
        taken
    }

    /// Something is written to the pages `first..=last`.
    pub(super) fn mark(&mut self, first: usize, last: usize) {
        if last / 64 >= self.written.len() {
            self.written.resize(last / 64 + 1, 0);
        }
        for word in first / 64..=last / 64 {
            let bits = bits_of(word, first, last);
            self.resident += u64::from((bits & !self.written[word]).count_ones());
            self.written[word] |= bits;
        }
    }

    /// The pages `first..=last` are given back.
    pub(super) fn clear(&mut self, first: usize, last: usize) {
        for word in first / 64..(last / 64 + 1).min(self.written.len()) {
            let bits = bits_of(word, first, last);
            self.resident -= u64::from((bits & self.written[word]).count_ones());
            self.written[word] &= !bits;
        }
        for word in first / 64..(last / 64 + 1).min(self.worded.len()) {
            let mut given_back = bits_of(word, first, last) & self.worded[word];
            self.worded[word] &= !given_back;
            while given_back != 0 {
                self.zero(word * 64 + given_back.trailing_zeros() as usize);
                given_back &= given_back - 1;
            }
        }
    }

    fn zero(&mut self, number: usize) {
        if let Some(Some(slab)) = self.slabs.get_mut(number / SLAB_PAGES) {
            slab[word_at(number)..][..PAGE_WORDS].fill(0);
        }
    }

    pub(super) fn is_resident(&self, page: usize) -> bool {
        is_set(&self.written, page)
    }

    /// Pages that are resident.
    pub(super) fn resident(&self) -> u64 {
        self.resident
    }
}

#[inline]
fn is_set(bits: &[u64], number: usize) -> bool {
    bits.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 != 0)
}

/// The bits of the `word`th 64 pages that belong to `first..=last`.
fn bits_of(word: usize, first: usize, last: usize) -> u64 {
    let start = first.saturating_sub(word * 64).min(63);
    let end = (last - word * 64).min(63);
    (u64::MAX << start) & (u64::MAX >> (63 - end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_resident_from_its_first_write_until_it_is_given_back() {
        let mut pages = Pages::new(Density::Sparse);
        pages.set_word(3, 7, 1);
        pages.mark(3, 200);
        assert_eq!((pages.resident(), pages.is_resident(3), pages.is_resident(201)), (198, true, false));
        pages.clear(60, 130);
        assert_eq!((pages.resident(), pages.is_resident(59), pages.is_resident(60)), (127, true, false));
        assert_eq!(pages.word(3, 7), 1);
        pages.clear(0, 10_000);
        assert_eq!((pages.resident(), pages.word(3, 7)), (0, 0));
    }

    #[test]
    fn a_page_that_is_taken_out_to_move_leaves_nothing_behind() {
        let mut pages = Pages::new(Density::Sparse);
        pages.set_word(64, 0, 9);
        assert_eq!(pages.take(64).map(|page| page[0]), Some(9));
        assert_eq!((pages.resident(), pages.word(64, 0)), (0, 0));
        assert_eq!(pages.take(64), None, "it has no words any more");
    }
}
