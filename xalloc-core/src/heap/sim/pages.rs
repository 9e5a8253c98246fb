//! The pages of one simulated area: the words that the policy wrote, and which pages anything was written to.
//!
//! # What counts as resident
//! A page from its first write, by the heap or by the program ([`Pages::mark`]), until it is given back. The kernel
//! counts so too, but for what it maps ahead on its own (transparent huge pages).

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes of a simulated page.
pub(super) const PAGE: u64 = 4096;

/// The words of a page.
pub(super) type Page = Box<[u64; 512]>;

/// Pages of one area, by number of page from its anchored end.
#[derive(Debug, Default)]
pub(super) struct Pages {
    words: Vec<Option<Page>>,
    /// A bit for each page.
    written: Vec<u64>,
    resident: u64,
}

impl Pages {
    pub(super) fn word(&self, page: u64, slot: usize) -> u64 {
        self.words.get(page as usize).and_then(Option::as_ref).map_or(0, |page| page[slot])
    }

    pub(super) fn set_word(&mut self, page: u64, slot: usize, value: u64) {
        let number = page as usize;
        if number >= self.words.len() {
            if value == 0 {
                return;
            }
            self.words.resize_with(number + 1, || None);
        }
        if self.words[number].is_none() {
            self.mark(number, number);
        }
        self.words[number].get_or_insert_with(|| Box::new([0; 512]))[slot] = value;
    }

    /// Takes a page out; it is not resident any more.
    pub(super) fn take(&mut self, page: u64) -> Option<Page> {
        let number = page as usize;
        let taken = self.words.get_mut(number)?.take();
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
        let end = (last + 1).min(self.words.len());
        self.words.get_mut(first..end).unwrap_or_default().fill_with(|| None);
    }

    pub(super) fn is_resident(&self, page: usize) -> bool {
        self.written.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 != 0)
    }

    /// Pages that are resident.
    pub(super) fn resident(&self) -> u64 {
        self.resident
    }
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
        let mut pages = Pages::default();
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
        let mut pages = Pages::default();
        pages.set_word(64, 0, 9);
        assert_eq!(pages.take(64).map(|page| page[0]), Some(9));
        assert_eq!((pages.resident(), pages.word(64, 0)), (0, 0));
    }
}
