//! Disguised pointers to what was leaked: no evidence, but a reason to look again.

use core::ops::Range;

use super::mark::AT_ONCE;
use super::{Marker, Memory, Verdict, disguise};
use crate::units::PAGE_BYTES;

/// Bits by which a pointer may be shifted either way: what packs pointers into fewer bits uses these.
const SHIFTS: [u32; 5] = [1, 3, 4, 12, 16];
/// Bits of an address in the lower half of the address space.
const ADDRESS_BITS: u32 = 48;

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
    fn unmask(&mut self, place: u64, before: u64, word: u64) {
        if word == 0 && before == 0 {
            return;
        }
        for bytes in 1..8_u32 {
            let across = before >> (8 * bytes) | word << (64 - 8 * bytes);
            self.suggest(across, place - 8 + u64::from(bytes), disguise::UNALIGNED);
        }
        if let Some(last) = word.checked_sub(1).and_then(|inside| self.index.find(self.blocks, inside))
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

    fn suggest(&mut self, value: u64, at: u64, disguise: u8) {
        if !self.index.extent().contains(&value) {
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
