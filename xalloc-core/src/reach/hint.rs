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
/// A byte in all eight places.
const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;
/// Without what lies above an address.
const UNTAGGED: u16 = 1;
/// Shifted left by the `nth` of [`SHIFTS`].
const fn left(nth: usize) -> u16 {
    2 << (2 * nth)
}
/// Shifted right by it.
const fn right(nth: usize) -> u16 {
    4 << (2 * nth)
}
/// Bits of the filter's hash: sixteen for each of a thousand leaders, in the first-level cache with the words.
const FILTER_BITS: u32 = 14;

/// What disguised pointers are looked for: where the leaders are.
#[derive(Debug)]
pub(super) struct Aim {
    /// What they lie in, and the byte behind the last one.
    extent: Range<u64>,
    /// The sixth byte of the leaders' addresses, the last that is not zero, in every byte; all memory of a process has one
    /// or two of them. `None`: they have more.
    sixth_bytes: Option<[u64; 2]>,
    /// The ways of moving a word that may bring it up to a leader ([`UNTAGGED`], [`left`], [`right`]), by the zeros that
    /// the word leads with: a pointer in its place has as many as the leaders, and every move takes it away from them.
    moves: [u16; 65],
    /// The eight bytes in which a leader begins, or ends, by a hash: most pointers lead to other blocks.
    filter: [u64; 1 << (FILTER_BITS - 6)],
}

impl Aim {
    /// No leader: nothing is a disguise.
    pub(super) const NOTHING: Aim =
        Aim { extent: 0..0, sixth_bytes: Some([0; 2]), moves: [0; 65], filter: [0; 1 << (FILTER_BITS - 6)] };

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
                for value in [block.addr, block.addr.saturating_add(7), block.end() - 1] {
                    let (word, bit) = filter_place(value);
                    if let Some(bits) = aim.filter.get_mut(word) {
                        *bits |= bit;
                    }
                }
            }
        }
        aim.moves = moves_to(&aim.extent);
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
        has(sixth_bytes[0]) || sixth_bytes[0] != sixth_bytes[1] && has(sixth_bytes[1])
    }

    /// The moves of a word that may bring it up to a leader.
    #[inline]
    fn moves_of(&self, word: u64) -> u16 {
        self.moves.get(word.leading_zeros() as usize).copied().unwrap_or(u16::MAX)
    }

    /// Whether a word, with the one before it, may hide a pointer to a leader.
    #[inline]
    fn suspects(&self, before: u64, word: u64) -> bool {
        let leads_when_moved = || {
            let untagged = self.takes(moved(word, UNTAGGED));
            // Without a branch for each.
            SHIFTS.into_iter().fold(untagged, |leads, by| leads | self.takes(word << by) | self.takes(word >> by))
        };
        let is_behind = self.has(word.wrapping_sub(1));
        self.takes_across(before, word) || is_behind || self.moves_of(word) != 0 && leads_when_moved()
    }

    /// Whether a value may lie in the first eight bytes of a leader, or be its last byte.
    #[inline]
    fn has(&self, value: u64) -> bool {
        let (word, bit) = filter_place(value);
        self.takes(value) && self.filter.get(word).is_none_or(|bits| bits & bit != 0)
    }
}

/// The word of the filter and its bit that stand for a value's eight bytes.
#[inline]
fn filter_place(value: u64) -> (usize, u64) {
    // Fibonacci hashing (Knuth, TAOCP 6.4): blocks' addresses have regular distances.
    let hash = (value >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

/// For every number of leading zeros the moves that bring some word with so many into `extent`.
fn moves_to(extent: &Range<u64>) -> [u16; 65] {
    let meets = |least: u64, most: u64| least < extent.end && extent.start <= most;
    core::array::from_fn(|zeros| {
        let zeros = zeros as u32;
        let (least, most) = ((1_u64 << 63).checked_shr(zeros).unwrap_or(0), u64::MAX.checked_shr(zeros).unwrap_or(0));
        let is_tagged = least >> ADDRESS_BITS != 0;
        let mut moves = if is_tagged && meets(0, (1 << ADDRESS_BITS) - 1) { UNTAGGED } else { 0 };
        for (nth, shift) in SHIFTS.into_iter().enumerate() {
            // Of a word that loses its upper bits nothing is known.
            let lefts = if zeros < shift { (0, u64::MAX) } else { (least << shift, most << shift) };
            moves |= if meets(lefts.0, lefts.1) { left(nth) } else { 0 };
            moves |= if meets(least >> shift, most >> shift) { right(nth) } else { 0 };
        }
        moves
    })
}

/// A word moved in one of the ways.
#[inline]
fn moved(word: u64, way: u16) -> u64 {
    let nth = (way.trailing_zeros().saturating_sub(1) / 2) as usize;
    let shift = SHIFTS.get(nth).copied().unwrap_or(0);
    match way {
        UNTAGGED => word & ((1 << ADDRESS_BITS) - 1),
        _ if way == left(nth) => word << shift,
        _ => word >> shift,
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
        self.hint_by(&mut [0; AT_ONCE], range)
    }

    /// Looks for them in the blocks that are not lost, in up to `words` words.
    pub fn hint_in_blocks(&mut self, mut words: u64) {
        let mut copies = [0; AT_ONCE];
        for number in 0..self.blocks.len() as u32 {
            if words == 0 {
                return;
            }
            if matches!(self.verdict(number), Verdict::Reachable | Verdict::Possible) {
                let Range { start, end } = self.block(number).words();
                let end = end.min(start.saturating_add(8 * words));
                words = words.saturating_sub(self.hint_by(&mut copies, start..end));
            }
        }
    }

    fn hint_by(&mut self, copies: &mut [u64; AT_ONCE], range: Range<u64>) -> u64 {
        let end = range.end / 8 * 8;
        let mut at = range.start.next_multiple_of(8);
        let mut before = 0;
        let mut read = 0;
        while at < end {
            let wanted = ((end - at) / 8).min(AT_ONCE as u64) as usize;
            let copied = self.memory.copy(at, &mut copies[..wanted]);
            read += copied as u64;
            for (nth, &word) in copies[..copied].iter().enumerate() {
                if self.aim.suspects(before, word) {
                    self.unmask(at + 8 * nth as u64, before, word);
                }
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

    /// Takes apart a word, the one before it, and what lies across both.
    #[cold]
    #[inline(never)]
    fn unmask(&mut self, place: u64, before: u64, word: u64) {
        if self.aim.takes_across(before, word) {
            for bytes in 1..8_u32 {
                let across = before >> (8 * bytes) | word << (64 - 8 * bytes);
                self.suggest(across, place - 8 + u64::from(bytes), disguise::UNALIGNED);
            }
        }
        self.unmask_end(place, word);
        let mut moves = self.aim.moves_of(word);
        while moves != 0 {
            let way = moves & moves.wrapping_neg();
            moves ^= way;
            let disguise = if way == UNTAGGED { disguise::TOP_TAGGED } else { disguise::SHIFTED };
            self.suggest(moved(word, way), place, disguise);
        }
    }

    fn unmask_end(&mut self, place: u64, word: u64) {
        if self.aim.has(word.wrapping_sub(1))
            && let Some(last) = self.index.find(self.blocks, word - 1)
            && self.block(last).end() == word
        {
            self.suggest(word - 1, place, disguise::ONE_PAST_END);
        }
    }

    fn suggest(&mut self, value: u64, at: u64, disguise: u8) {
        if !self.aim.has(value) {
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
            prop_assert!(aim.takes_across(before, word) && aim.suspects(before, word));
            for value in [value, of.get(&blocks).addr + inside % 8, of.get(&blocks).end() - 1] {
                for shift in SHIFTS {
                    for word in [value >> shift, value << shift, value | noise[0] << 48, noise[0], noise[1] >> shift] {
                        for way in (0..11).map(|bit| 1 << bit).filter(|&way| way != UNTAGGED || word >> 48 != 0) {
                            let is_taken = aim.moves_of(word) & way != 0;
                            prop_assert!(is_taken || !aim.takes(moved(word, way)), "{word:#x} {way}");
                            prop_assert!(aim.suspects(0, word) || !aim.takes(moved(word, way)), "{word:#x} {way}");
                        }
                    }
                    prop_assert_eq!(moved(value << shift, right_of(shift)), value);
                    prop_assert_eq!(moved(value >> shift, left_of(shift)), value >> shift << shift);
                }
            }
            prop_assert!(aim.has(of.get(&blocks).addr + inside % 8) && aim.suspects(0, of.get(&blocks).end()));
        }
    }

    fn nth(shift: u32) -> usize {
        SHIFTS.iter().position(|&other| other == shift).expect("one of them")
    }

    fn left_of(shift: u32) -> u16 {
        left(nth(shift))
    }

    fn right_of(shift: u32) -> u16 {
        right(nth(shift))
    }

    #[test]
    fn small_numbers_and_pointers_in_their_place_are_not_taken_apart() {
        let blocks = [Block::new(0x5555_5570_0000, 64, 0)];
        let aim = Aim::at(&blocks, &[Mark { verdict: Verdict::Definite as u8, ..Mark::default() }]);
        assert!(!aim.takes_across(0x5555_5570_1000, 0x5555_5570_2000) && !aim.suspects(0, 0x5555_5570_0010));
        assert!(!aim.takes_across(0, 1000));
        assert!([0, 1000, 0x5555_5570_1000, 0x7fff_1234_5678].map(|word| aim.moves_of(word)) == [0; 4]);
        assert!(!aim.has(0x5555_5570_0020), "inside, but neither at the beginning nor at the end");
        let nothing = Aim::at(&blocks, &[Mark::default()]);
        assert!(!nothing.takes(0) && !nothing.takes(u64::MAX));
        assert!((0..=64).all(|zeros| nothing.moves_of(u64::MAX.checked_shr(zeros).unwrap_or(0)) == 0));
    }
}
