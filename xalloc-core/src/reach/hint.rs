//! Disguised pointers to what was leaked: no evidence, but a reason to look again.
//!
//! Each word may hide a pointer in some twenty ways, and all of memory is looked at. So most words are passed over by
//! what they cannot be ([`Aim`]) before they are taken apart.

use core::ops::Range;

use super::mark::AT_ONCE;
use super::{Block, Mark, Marker, Memory, Verdict, disguise};
use crate::units::PAGE_BYTES;

/// Bits by which a pointer may be shifted either way: what packs pointers into fewer bits uses these.
const SHIFTS: [u32; 5] = [1, 3, 4, 12, 16];
/// Bits of an address in the lower half of the address space.
const ADDRESS_BITS: u32 = 48;
/// The widest of [`SHIFTS`].
const WIDEST_SHIFT: u32 = 16;
/// A byte in all eight places.
const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;

/// What disguised pointers are looked for: where the leaders are.
#[derive(Debug)]
pub(super) struct Aim {
    /// What they lie in, and the byte behind the last one.
    extent: Range<u64>,
    /// The sixth byte of the leaders' addresses, the last that is not zero, in every byte; all memory of a process has one
    /// or two of them. `None`: they have more.
    sixth_bytes: Option<[u64; 2]>,
}

impl Aim {
    /// No leader: nothing is a disguise.
    pub(super) const NOTHING: Aim = Aim { extent: 0..0, sixth_bytes: Some([0; 2]) };

    /// At the leaders of `blocks`.
    pub(super) fn at(blocks: &[Block], marks: &[Mark]) -> Aim {
        let mut aim = Aim::NOTHING;
        for (block, mark) in blocks.iter().zip(marks) {
            if matches!(Verdict::from_number(mark.verdict), Some(Verdict::Definite | Verdict::Cycle)) {
                let is_first = aim.extent.is_empty();
                aim.extent.start = if is_first { block.addr } else { aim.extent.start.min(block.addr) };
                aim.extent.end = aim.extent.end.max(block.end().saturating_add(1));
                aim.sixth_bytes = aim.sixth_bytes.and_then(|bytes| {
                    let (first, last) = (sixth_byte(block.addr)?, sixth_byte(block.end())?);
                    joined(joined(if is_first { [first; 2] } else { bytes }, first)?, last)
                });
            }
        }
        aim
    }

    /// Whether a value may lead to a leader.
    #[inline]
    fn takes(&self, value: u64) -> bool {
        value.wrapping_sub(self.extent.start) < self.extent.end - self.extent.start
    }

    /// Whether one of the seven words that lie across these two may: it has its sixth byte among the upper two bytes of
    /// the first and the lower five of the second, and a zero behind it. A pointer in its place mostly has neither.
    #[inline]
    fn takes_across(&self, before: u64, word: u64) -> bool {
        let Some(sixth_bytes) = self.sixth_bytes else { return true };
        let sixths = before >> 48 | word << 16;
        let behind = zero_bytes(before >> 56 | word << 8);
        // The eighth byte is none of the seven.
        let has = |byte: u64| zero_bytes((sixths ^ byte) | 0xff << 56) & behind != 0;
        has(sixth_bytes[0]) || has(sixth_bytes[1])
    }

    /// Whether no shift would bring a value up to a leader.
    #[inline]
    fn is_too_small(&self, value: u64) -> bool {
        value < self.extent.start >> WIDEST_SHIFT
    }
}

/// `None`: the address has more than six bytes, which no system gives out unasked.
fn sixth_byte(addr: u64) -> Option<u64> {
    (addr >> ADDRESS_BITS == 0).then_some((addr >> 40) * EVERY_BYTE)
}

/// The upper bit of each byte that is zero, and sometimes of one above such a byte (Mycroft's test).
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(EVERY_BYTE) & !word & (EVERY_BYTE << 7)
}

/// The two with a third; `None` if that is another one.
fn joined([first, second]: [u64; 2], third: u64) -> Option<[u64; 2]> {
    if third == first || third == second {
        Some([first, second])
    } else if first == second {
        Some([first, third])
    } else {
        None
    }
}

impl<M: Memory> Marker<'_, M> {
    /// Looks in `range` for disguised pointers to leaders; after [`Marker::finish`]. Returns the words that were read.
    pub fn hint(&mut self, range: Range<u64>) -> u64 {
        let end = range.end / 8 * 8;
        let mut at = range.start.next_multiple_of(8);
        let mut words = [0; AT_ONCE];
        let mut before = 0;
        let mut read = 0;
        while at < end {
            let wanted = ((end - at) / 8).min(AT_ONCE as u64) as usize;
            let copied = self.memory.copy(at, &mut words[..wanted]);
            read += copied as u64;
            for (nth, &word) in words[..copied].iter().enumerate() {
                let place = at + 8 * nth as u64;
                self.unmask(place, before, word);
                before = word;
            }
            at += 8 * copied as u64;
            if copied < wanted {
                before = 0;
                at = (at + 1).next_multiple_of(PAGE_BYTES);
            }
        }
        read
    }

    /// Looks for them in the blocks that are not lost, in up to `words` words.
    pub fn hint_in_blocks(&mut self, mut words: u64) {
        for number in 0..self.blocks.len() as u32 {
            if words == 0 {
                return;
            }
            if matches!(self.verdict(number), Verdict::Reachable | Verdict::Possible) {
                let Range { start, end } = self.block(number).words();
                words = words.saturating_sub(self.hint(start..end.min(start.saturating_add(8 * words))));
            }
        }
    }

    /// Looks at a word, the one before it, and what lies across both.
    #[inline]
    fn unmask(&mut self, place: u64, before: u64, word: u64) {
        if self.aim.takes_across(before, word) {
            self.unmask_across(place, before, word);
        }
        if !self.aim.is_too_small(word) {
            self.unmask_whole(place, word);
        }
    }

    fn unmask_across(&mut self, place: u64, before: u64, word: u64) {
        for bytes in 1..8_u32 {
            let across = before >> (8 * bytes) | word << (64 - 8 * bytes);
            self.suggest(across, place - 8 + u64::from(bytes), disguise::UNALIGNED);
        }
    }

    fn unmask_whole(&mut self, place: u64, word: u64) {
        if self.aim.takes(word)
            && let Some(last) = word.checked_sub(1).and_then(|inside| self.index.find(self.blocks, inside))
            && self.block(last).end() == word
        {
            self.suggest(word - 1, place, disguise::ONE_PAST_END);
        }
        if word >> ADDRESS_BITS != 0 {
            self.suggest(word & ((1 << ADDRESS_BITS) - 1), place, disguise::TOP_TAGGED);
        }
        for shift in SHIFTS {
            for moved in [word << shift, word >> shift] {
                self.suggest(moved, place, disguise::SHIFTED);
            }
        }
    }

    #[inline]
    fn suggest(&mut self, value: u64, at: u64, disguise: u8) {
        if !self.aim.takes(value) {
            return;
        }
        let Some(number) = self.index.find(self.blocks, value) else { return };
        let is_leader = matches!(self.verdict(number), Verdict::Definite | Verdict::Cycle);
        let inside = disguise == disguise::ONE_PAST_END || value - self.block(number).addr < 8;
        if let Some(mark) = self.marks.get_mut(number as usize).filter(|mark| is_leader && inside && mark.disguise == 0)
        {
            mark.disguise = disguise;
            mark.at = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_word_is_passed_over_that_hides_a_pointer_to_a_leader(
            starts in prop::collection::vec((0_u64..3, 0_u64..1 << 41), 1..6),
            (of, inside) in (any::<prop::sample::Index>(), 0_u64..=100),
            (bytes, noise) in (1_u32..8, any::<[u64; 2]>()),
        ) {
            // Where programs, mappings and, with a third, code at fixed addresses lie.
            let base = [0x5555_0000_0000, 0x7f00_0000_0000, 0x0000_1000_0000];
            let block = |&(of, offset): &(usize, u64)| Block::new(base[of] + offset, 100, 0);
            let mut blocks: Vec<Block> = starts.iter().map(|(of, offset)| block(&(*of as usize, *offset))).collect();
            blocks.sort_unstable_by_key(|block| block.addr);
            let leader = Mark { verdict: Verdict::Definite as u8, ..Mark::default() };
            let marks = vec![leader; blocks.len()];
            let aim = Aim::at(&blocks, &marks);
            let value = of.get(&blocks).addr + inside;

            prop_assert!(aim.takes(value));
            // The value across two words, the rest of which is anything.
            let (low, high) = (8 * bytes, 64 - 8 * bytes);
            let before = value << low | noise[0] & ((1 << low) - 1);
            let word = value >> high | noise[1] << low;
            prop_assert_eq!(before >> low | word << high, value);
            prop_assert!(aim.takes_across(before, word));
            for shift in SHIFTS {
                prop_assert!(!aim.is_too_small(value >> shift) && !aim.is_too_small(value << shift));
            }
            prop_assert!(!aim.is_too_small(value) && !aim.is_too_small(value | 0xab << 56));
        }
    }

    #[test]
    fn small_numbers_and_pointers_in_their_place_are_not_taken_apart() {
        let blocks = [Block::new(0x5555_5570_0000, 64, 0)];
        let aim = Aim::at(&blocks, &[Mark { verdict: Verdict::Definite as u8, ..Mark::default() }]);
        assert!(!aim.takes_across(0x5555_5570_1000, 0x5555_5570_2000));
        assert!(!aim.takes_across(0, 1000) && aim.is_too_small(1000));
        let nothing = Aim::at(&blocks, &[Mark::default()]);
        assert!(!nothing.takes(0) && !nothing.takes(u64::MAX));
    }
}
