//! Marking: what the roots reach, and what only pointers into the middle reach.
//!
//! # Invariant
//! A block whose verdict is no longer [`Verdict::Lost`] has been pushed once for the phase that gave it the verdict, so
//! the stack never holds more numbers than there are blocks.

use core::ops::Range;

use super::hint::Aim;
use super::index::Index;
use super::{Block, Mark, Memory, Scratch, Verdict, flag, shape};
use crate::units::PAGE_BYTES;

/// Words that are copied at once.
pub(super) const AT_ONCE: usize = 256;

/// A scan in progress.
#[derive(Debug)]
pub struct Marker<'s, M> {
    pub(super) blocks: &'s [Block],
    pub(super) marks: &'s mut [Mark],
    pub(super) memory: M,
    pub(super) index: Index<'s>,
    stack: &'s mut [u32],
    depth: usize,
    /// For the order in what is lost.
    pub(super) rest: &'s mut [u32],
    pub(super) aim: Aim,
    is_strong: bool,
    read_words: u64,
    unreadable_pages: u64,
}

impl<'s, M: Memory> Marker<'s, M> {
    /// A scan of `blocks`, ascending by address, whose marks are zeroes. `None`: the memory is too small.
    pub fn new(blocks: &'s [Block], marks: &'s mut [Mark], scratch: Scratch<'s>, memory: M) -> Option<Marker<'s, M>> {
        let count = blocks.len();
        let Scratch { words, spans } = scratch;
        if marks.len() != count || spans.len() < count || words.len() < Scratch::words_for(count) {
            return None;
        }
        let (slots, rest) = words.split_at_mut(super::index::slots_for(count));
        let (stack, rest) = rest.split_at_mut(count);
        let index = Index::new(blocks, spans, slots);
        let mut marker = Marker {
            blocks,
            marks,
            memory,
            index,
            stack,
            depth: 0,
            rest,
            aim: Aim::NOTHING,
            is_strong: true,
            read_words: 0,
            unreadable_pages: 0,
        };
        for number in 0..count as u32 {
            if blocks.get(number as usize).is_some_and(|block| block.has(flag::ROOT)) {
                marker.give(number, Verdict::Reachable, 0);
            }
        }
        Some(marker)
    }

    /// Takes the words in `range` as roots; only whole words at multiples of 8 are.
    pub fn root(&mut self, range: Range<u64>) {
        self.read(range.start.next_multiple_of(8)..range.end / 8 * 8);
        self.drain();
    }

    /// Takes one value as a root, a register's. `holder` is what the mark of its block will say of where it was.
    pub fn value(&mut self, holder: u64, value: u64) {
        if self.index.extent().contains(&value) {
            self.hit(value, holder);
        }
        self.drain();
    }

    /// Takes `sp` as the stack pointer of a stack that may lie in a block: such a block is at work.
    pub fn holding(&mut self, sp: u64) {
        if let Some(number) = self.index.find(self.blocks, sp) {
            self.value(sp, self.block(number).addr);
        }
    }

    /// The blocks, and the memory that they are in.
    pub fn parts(&mut self) -> (&'s [Block], &mut M) {
        (self.blocks, &mut self.memory)
    }

    /// Whether anything of the program's was leaked; after [`Marker::finish`].
    #[must_use]
    pub fn has_leaders(&self) -> bool {
        let is_leader = |mark: &Mark| mark.verdict == Verdict::Definite as u8 || mark.verdict == Verdict::Cycle as u8;
        self.marks.iter().zip(self.blocks).any(|(mark, block)| is_leader(mark) && !block.has(flag::CONTROL))
    }

    /// Gives every block its verdict. Nothing may be marked afterwards.
    pub fn finish(&mut self) {
        self.is_strong = false;
        for number in 0..self.blocks.len() as u32 {
            if self.verdict(number) == Verdict::Possible {
                self.push(number);
            }
        }
        self.drain();
        self.order_lost();
        self.aim = Aim::at(self.blocks, self.marks);
    }

    /// Words that were read, of roots and of blocks.
    pub fn read_words(&self) -> u64 {
        self.read_words
    }

    /// Pages that could not be read and were passed over.
    pub fn unreadable_pages(&self) -> u64 {
        self.unreadable_pages
    }

    pub(super) fn block(&self, number: u32) -> Block {
        self.blocks.get(number as usize).copied().unwrap_or(Block::new(0, 0, 0))
    }

    pub(super) fn verdict(&self, number: u32) -> Verdict {
        let mark = self.marks.get(number as usize);
        mark.and_then(|mark| Verdict::from_number(mark.verdict)).unwrap_or(Verdict::Reachable)
    }

    pub(super) fn set(&mut self, number: u32, verdict: Verdict) {
        if let Some(mark) = self.marks.get_mut(number as usize) {
            mark.verdict = verdict as u8;
        }
    }

    fn push(&mut self, number: u32) {
        if let Some(place) = self.stack.get_mut(self.depth) {
            *place = number;
            self.depth += 1;
        }
    }

    fn give(&mut self, number: u32, verdict: Verdict, at: u64) {
        if let Some(mark) = self.marks.get_mut(number as usize) {
            mark.verdict = verdict as u8;
            mark.at = at;
        }
        self.push(number);
    }

    /// Reads the blocks that wait.
    fn drain(&mut self) {
        while let Some(depth) = self.depth.checked_sub(1) {
            self.depth = depth;
            let number = self.stack.get(depth).copied().unwrap_or(0);
            self.read(self.block(number).words());
        }
    }

    fn read(&mut self, range: Range<u64>) {
        let extent = self.index.extent();
        let width = extent.end - extent.start;
        let mut at = range.start;
        let mut words = [0; AT_ONCE];
        while at < range.end {
            let wanted = ((range.end - at) / 8).min(AT_ONCE as u64) as usize;
            let copied = self.memory.copy(at, &mut words[..wanted]);
            self.read_words += copied as u64;
            for (nth, &value) in words[..copied].iter().enumerate() {
                if value.wrapping_sub(extent.start) < width {
                    self.hit(value, at + 8 * nth as u64);
                }
            }
            at += 8 * copied as u64;
            if copied < wanted {
                self.unreadable_pages += 1;
                at = (at + 1).next_multiple_of(PAGE_BYTES);
            }
        }
    }

    /// A word at `at` has a value that may be a pointer to a block.
    fn hit(&mut self, value: u64, at: u64) {
        let Some(number) = self.index.find(self.blocks, value) else { return };
        let verdict = self.verdict(number);
        if verdict == Verdict::Reachable || (verdict == Verdict::Possible && !self.is_strong) {
            return;
        }
        if !self.is_strong {
            return self.give(number, Verdict::Possible, at);
        }
        let block = self.block(number);
        let is_start = value - block.addr < 8;
        if is_start || shape::explains(&block, value, at, &mut self.memory) {
            self.give(number, Verdict::Reachable, at);
        } else if verdict == Verdict::Lost
            && let Some(mark) = self.marks.get_mut(number as usize)
        {
            mark.verdict = Verdict::Possible as u8;
            mark.at = at;
        }
    }
}
