//! Where reading has come to in a process's events: the columns of the open block, and the mirror.
//!
//! What both ways of reading do alike is here ([`super::decode`] with addresses, [`super::skim`] without): whose an event
//! is, when it was, and which slot one means that ends a block's life.
//!
//! # Invariant
//! Nothing is believed: a slot is live before it is freed, a thread is in its table, a column is as long as its events
//! need.

use super::columns::Column;
use super::container::BlockHeader;
use super::error::Malformed;
use super::mirror::Mirror;
use super::ops::*;
use super::pipeline::{Columns, columns};
use super::varint::{unzigzag, unzigzag32};
use super::{StackIndex, rare};

pub(super) const WIDE: Malformed = Malformed::Bytes("a number exceeds 16 bits");
pub(super) const UNKNOWN_CALL: Malformed = Malformed::Bytes("a call is none that this version knows");
pub(super) const NO_ORIGIN: Malformed = Malformed::Bytes("an allocation's origin is not in its table");
pub(super) const NO_KIND: Malformed = Malformed::Bytes("a heap step's kind is not in its table");
const NOT_LIVE: Malformed = Malformed::Bytes("an event frees a slot that holds no block");
const NEVER_BEGAN: Malformed = Malformed::Bytes("a realloc ends in place that never began");

/// How many entries the tables of the contents have; an event that names another one is malformed.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) stacks: u32,
    pub(super) threads: u32,
}

impl Known {
    /// Sees that every stack is one that the trace has.
    pub(super) fn has_stacks<'a>(self, mut stacks: impl Iterator<Item = &'a u64>) -> Result<(), Malformed> {
        if stacks.any(|stack| *stack >= u64::from(self.stacks)) {
            return Err(Malformed::Bytes("an event names a stack that the trace does not have"));
        }
        Ok(())
    }
}

/// The open block and what is known before its next event.
pub(super) struct Course {
    pub(super) mirror: Mirror,
    pub(super) known: Known,
    columns: Columns,
    stated_slots: usize,
    run_left: u64,
    at_us: u64,
    next_seq: u64,
    left: usize,
    /// Whether the block says stacks by their neighbours, see [`super::container::FLAG_RELATIVE`].
    is_relative: bool,
    /// Stack of the last allocation that was read.
    stack: u32,
}

impl Course {
    /// Before the first block.
    pub(super) fn new(mirror: Mirror, known: Known) -> Course {
        Course {
            mirror,
            known,
            columns: columns(),
            stated_slots: 0,
            run_left: 0,
            at_us: 0,
            next_seq: 0,
            left: 0,
            is_relative: true,
            stack: 0,
        }
    }

    /// A block with this header and these columns begins; leaves those of the block before.
    pub(super) fn begin_block(&mut self, header: &BlockHeader, columns: &mut Columns) -> Result<(), Malformed> {
        std::mem::swap(&mut self.columns, columns);
        let events = header.items as usize;
        if events > MAX_BLOCK_EVENTS || self.column(Field::Op).bytes().len() != events {
            return Err(Malformed::Bytes("a block has not as many ops as events"));
        }
        self.mirror.begin_block();
        self.stated_slots = 0;
        self.run_left = 0;
        self.at_us = header.first_us;
        self.next_seq = header.first_item;
        self.left = events;
        self.is_relative = header.is_relative();
        self.stack = 0;
        Ok(())
    }

    #[inline]
    pub(super) fn column(&mut self, field: Field) -> &mut Column {
        &mut self.columns[field as usize]
    }

    /// The first of several columns that hold the bytes of a value by significance, and the others.
    #[inline]
    pub(super) fn planes(&self, first: Field, planes: usize) -> &[Column] {
        &self.columns[first as usize..][..planes]
    }

    /// Number of the next event in its process.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Events of the block that come yet.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// So many events were read.
    pub(super) fn passed(&mut self, events: usize) {
        self.left -= events;
        self.next_seq += events as u64;
    }

    /// How many of the next `most` events are of one thread, which is the mirror's from here on.
    #[inline]
    pub(super) fn run(&mut self, most: usize) -> Result<usize, Malformed> {
        if self.run_left == 0 {
            self.next_run()?;
        }
        let run = usize::try_from(self.run_left).unwrap_or(usize::MAX).min(most);
        self.run_left -= run as u64;
        Ok(run)
    }

    #[cold]
    fn next_run(&mut self) -> Result<(), Malformed> {
        let field = self.column(Field::Threads);
        let (thread, events) = (field.varint32()?, field.varint()?);
        if thread >= self.known.threads || events == 0 {
            return Err(Malformed::Bytes("an event is of a thread that the trace does not have"));
        }
        self.mirror.switch_to(thread);
        self.run_left = events;
        Ok(())
    }

    /// Whether the open block says things by their neighbours, as blocks do since version 3.
    pub(super) fn is_relative(&self) -> bool {
        self.is_relative
    }

    /// The stacks of the next `allocations` allocations; those that the trace does not have are refused.
    pub(super) fn stacks(&mut self, allocations: usize, stacks: &mut Vec<u64>) -> Result<(), Malformed> {
        self.column(Field::Stack).varints(allocations, stacks)?;
        if self.is_relative {
            let mut before = self.stack;
            for stack in &mut *stacks {
                before = before.wrapping_add(unzigzag32(*stack as u32));
                *stack = u64::from(before);
            }
            self.stack = before;
        }
        self.known.has_stacks(stacks.iter())
    }

    /// The stack of the allocation behind those that were read; none if the block has no other.
    pub(super) fn next_stack(&self) -> Result<u32, Malformed> {
        let mut column = self.columns[Field::Stack as usize].cursor();
        if column.is_empty() {
            return Ok(StackIndex::NONE.0);
        }
        Ok(self.stack.wrapping_add(unzigzag32(column.varint()? as u32)))
    }

    /// The times of the next `events` events, microseconds since the recording's start; in nanoseconds each has 64 bits.
    pub(super) fn times_us(&mut self, events: usize, at_us: &mut Vec<u64>) -> Result<(), Malformed> {
        const PAST: Malformed = Malformed::Bytes("time runs past its end");
        self.column(Field::Time).varints(events, at_us)?;
        // One addition after the other: nothing else is to be waited for, so what runs over is seen at the end.
        let (mut now_us, mut has_passed_end) = (self.at_us, false);
        for time in at_us {
            let (sum_us, passes_end) = now_us.overflowing_add(*time);
            has_passed_end |= passes_end;
            now_us = sum_us;
            *time = now_us;
        }
        self.at_us = now_us;
        if has_passed_end {
            return Err(PAST);
        }
        self.at_us.checked_mul(1000).map(|_| ()).ok_or(PAST)
    }

    /// An event that ends a block's life, or undoes that; returns its slot.
    #[inline(always)]
    pub(super) fn end(&mut self, op: u8) -> Result<u32, Malformed> {
        match op {
            FREE_RECENT..FREE_NUMBER => {
                let slot = self.mirror.recent((op - FREE_RECENT) as usize);
                self.vacate(slot)
            }
            FREE_NUMBER..FREE_SLOT => {
                let near = self.mirror.thread().near.freed_number;
                let number = near.wrapping_add(u64::from(op - FREE_NUMBER)).wrapping_sub(u64::from(NUMBER_REACH));
                let slot = self.mirror.by_number(number);
                self.vacate(slot)
            }
            FREE_SLOT => {
                let slot = self.stated_slot();
                self.vacate(slot)
            }
            REALLOC_RECENT..REALLOC_SLOT => {
                let slot = self.mirror.recent((op - REALLOC_RECENT) as usize);
                self.hold(slot)
            }
            REALLOC_SLOT => {
                let slot = self.stated_slot();
                self.hold(slot)
            }
            // REALLOC_UNDO: whoever calls has allocations and what comes after it in cases of their own.
            _ => self.mirror.revive_held().ok_or(Malformed::Bytes("a realloc is undone that never began")),
        }
    }

    /// The slot of the realloc that ends in place.
    #[inline]
    pub(super) fn in_place(&mut self) -> Result<u32, Malformed> {
        let held = self.mirror.thread().held.take();
        held.map(|(slot, _)| slot).ok_or(NEVER_BEGAN)
    }

    /// The slot that an allocation states, taken from the free list of `class`.
    pub(super) fn take_stated(&mut self, class: u8) -> Result<u32, Malformed> {
        let slot = self.stated_slot();
        if !self.mirror.take_named(class, slot) {
            return Err(Malformed::Bytes("an allocation's slot is not in its free list"));
        }
        Ok(slot)
    }

    /// The slot that lies deeper in the free list of `class`, taken from there.
    pub(super) fn take_deep(&mut self, class: u8, depth: u8) -> Result<u32, Malformed> {
        let slot = self.mirror.take_deep(class, depth);
        slot.ok_or(Malformed::Bytes("an allocation's slot is deeper than its free list"))
    }

    /// Reads the rare event whose op is `op`, and appends it to `rare` as it lies in its column.
    #[cold]
    pub(super) fn rare(&mut self, op: u8, rare: &mut Vec<u8>) -> Result<(), Malformed> {
        if op != RARE {
            return Err(Malformed::Bytes("an op is none that this version knows"));
        }
        let column = self.column(Field::Rare);
        let mut cursor = column.cursor();
        rare::decode(&mut cursor)?;
        let bytes = column.cursor().left_bytes() - cursor.left_bytes();
        rare.extend_from_slice(column.take(bytes)?);
        Ok(())
    }

    fn stated_slot(&mut self) -> u32 {
        let at = self.stated_slots;
        self.stated_slots += 1;
        let difference = unzigzag(gather(self.planes(Field::Slot, SLOT_PLANES), at));
        u64::from(self.mirror.thread().near.freed_slot).wrapping_add(difference) as u32
    }

    #[inline]
    fn vacate(&mut self, slot: u32) -> Result<u32, Malformed> {
        if self.mirror.vacate(slot) { Ok(slot) } else { Err(NOT_LIVE) }
    }

    fn hold(&mut self, slot: u32) -> Result<u32, Malformed> {
        if self.mirror.hold(slot) { Ok(slot) } else { Err(NOT_LIVE) }
    }
}

/// The value whose bytes lie at `at` of the planes; planes that are absent are zero.
#[inline]
pub(super) fn gather(planes: &[Column], at: usize) -> u64 {
    let byte = |plane: &Column| u64::from(plane.bytes().get(at).copied().unwrap_or(0));
    planes.iter().rev().fold(0, |value, plane| value << 8 | byte(plane))
}
