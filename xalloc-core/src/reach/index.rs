//! From an address to the block that holds it.
//!
//! Blocks lie close together in a few spans of the address space: the break, sub-heaps, mappings. Each span has an array
//! of slots, each for the same power of two of bytes, chosen so that there are about two slots for each block. A slot
//! names the first block that ends behind its beginning; the block that is looked for is that one or one before the
//! next slot's.
//!
//! # Why not a binary search over all blocks
//! It costs twenty dependent loads for a million blocks, and this is asked once for each word that may be a pointer.

use core::ops::Range;

use super::Block;

/// A gap between two blocks of at least this many bytes ends a span.
const GAP_BYTES: u64 = 1 << 20;
/// Smallest slot: blocks are 16 bytes apart.
const MIN_SHIFT: u32 = 4;

/// Blocks without a large gap between them, and their slots.
#[derive(Clone, Copy, Default, Debug)]
pub struct Span {
    start: u64,
    end: u64,
    first_slot: u32,
    shift: u32,
    blocks: (u32, u32),
}

/// Slots that so many blocks need at most.
pub(super) const fn slots_for(blocks: usize) -> usize {
    // A span has at most two slots for each block and two more; there are no more spans than blocks.
    4 * blocks
}

/// The table.
#[derive(Debug)]
pub(super) struct Index<'s> {
    spans: &'s [Span],
    slots: &'s [u32],
    /// The span in which an address was found last: pointers that are met one after another mostly lead into one.
    span: Span,
    /// What all blocks lie in.
    extent: Range<u64>,
}

impl<'s> Index<'s> {
    /// The table of `blocks`, ascending by address, in memory that is large enough for them.
    pub(super) fn new(blocks: &[Block], spans: &'s mut [Span], slots: &'s mut [u32]) -> Index<'s> {
        let mut count = 0;
        let mut used = 0;
        let mut first = 0;
        while let Some(start) = blocks.get(first).map(|block| block.addr) {
            let mut end = start;
            let mut last = first;
            while let Some(block) = blocks.get(last).filter(|block| last == first || block.addr < end + GAP_BYTES) {
                end = end.max(block.end());
                last += 1;
            }
            let most_slots = 2 * (last - first) as u64;
            let mut shift = MIN_SHIFT;
            while (end - start) >> shift >= most_slots {
                shift += 1;
            }
            let span = Span { start, end, first_slot: used as u32, shift, blocks: (first as u32, last as u32) };
            let wanted = ((end - start) >> shift) as usize + 2;
            let (Some(slots), Some(place)) = (slots.get_mut(used..used + wanted), spans.get_mut(count)) else { break };
            fill(slots, blocks, &span);
            *place = span;
            used += wanted;
            count += 1;
            first = last;
        }
        let (spans, slots): (&'s [Span], &'s [u32]) = (spans, slots);
        let spans = spans.get(..count).unwrap_or_default();
        let extent = spans.first().map_or(0, |span| span.start)..spans.last().map_or(0, |span| span.end);
        Index { spans, slots, span: Span::default(), extent }
    }

    /// What all blocks lie in.
    pub(super) fn extent(&self) -> Range<u64> {
        self.extent.clone()
    }

    /// The slot of `addr`.
    #[inline]
    fn slot(&mut self, addr: u64) -> Option<usize> {
        if !self.span.holds(addr) {
            let after = self.spans.partition_point(|span| span.start <= addr);
            self.span = *self.spans.get(after.checked_sub(1)?).filter(|span| span.holds(addr))?;
        }
        Some(self.span.first_slot as usize + ((addr - self.span.start) >> self.span.shift) as usize)
    }

    /// The number of the block that holds `addr`.
    #[inline]
    pub(super) fn find(&mut self, blocks: &[Block], addr: u64) -> Option<u32> {
        let slot = self.slot(addr)?;
        let (&from, &to) = (self.slots.get(slot)?, self.slots.get(slot + 1)?);
        let begins_before = |block: &Block| block.addr <= addr;
        // The next slot's block may begin in this slot. Mostly the address is in this slot's block or in the one behind
        // that, and which of the two it is cannot be predicted: the choice is one that needs no branch.
        let found = if to <= from + 1 {
            if blocks.get(to as usize).is_some_and(begins_before) { to } else { from }
        } else {
            let several = blocks.get(from as usize..(to as usize + 1).min(blocks.len()))?;
            from + (several.partition_point(begins_before) as u32).checked_sub(1)?
        };
        blocks.get(found as usize).filter(|block| block.addr <= addr && addr < block.end()).map(|_| found)
    }
}

impl Span {
    #[inline]
    fn holds(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.start) < self.end - self.start
    }
}

/// Names in each slot of `span` the first block that ends behind the slot's beginning.
fn fill(slots: &mut [u32], blocks: &[Block], span: &Span) {
    let mut number = span.blocks.0;
    for (slot, place) in slots.iter_mut().enumerate() {
        let from = span.start + ((slot as u64) << span.shift);
        while number < span.blocks.1 && blocks.get(number as usize).is_some_and(|block| block.end() <= from) {
            number += 1;
        }
        *place = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_table_finds_what_looking_at_every_block_finds(
            shape in prop::collection::vec((0_u64..5000, 0_u64..3000, 0_u32..40), 1..200),
            probes in prop::collection::vec((any::<prop::sample::Index>(), -40_i64..3000), 200),
        ) {
            let mut at = 0x5555_0000_0000_u64;
            let mut blocks = Vec::new();
            for (gap, size, leap) in shape {
                at += gap / 16 * 16 + if leap == 0 { 3 << 20 } else { 16 };
                blocks.push(Block::new(at, size, 0));
                at += (size + 8).next_multiple_of(16);
            }
            let mut spans = vec![Span::default(); blocks.len()];
            let mut slots = vec![0; slots_for(blocks.len())];
            let mut index = Index::new(&blocks, &mut spans, &mut slots);
            for (of, offset) in probes {
                let addr = of.get(&blocks).addr.wrapping_add_signed(offset);
                let naive = blocks.iter().position(|block| (block.addr..block.end()).contains(&addr));
                prop_assert_eq!(index.find(&blocks, addr).map(|found| found as usize), naive);
            }
        }
    }

    #[test]
    fn no_blocks_hold_nothing() {
        let mut index = Index::new(&[], &mut [], &mut []);
        assert_eq!(index.find(&[], 0x1000), None);
        assert!(index.extent().is_empty());
    }
}
