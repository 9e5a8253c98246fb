//! The columns of the open block, and the events on their way into them.
//!
//! What an event says is put down in rows, value by value, and some hundred rows then go into the columns at once. A row
//! costs a store a value, with room for all of its values asked for once; the loop that fills a column does nothing
//! else, asks for room once for many values, and most often copies bytes. The rows fit into a first-level cache.
//!
//! # Invariant
//! Each list holds values of one meaning, in the order of their events: a time for each op, an allocation's values for
//! each op that is one, a step's for each that is one, a stack for each that is neither.

use super::StackIndex;
use super::ops::{FIELDS, Field};
use super::step_stacks::StepStacks;
use super::varint::{put, put_all, zigzag32};

/// The columns of a block, in the order of [`Field`].
pub(super) type Fields = Box<[Vec<u8>; FIELDS]>;

/// Columns without a value.
pub(super) fn empty_fields() -> Fields {
    Box::new(std::array::from_fn(|_| Vec::new()))
}

/// Most events in rows.
const ROWS: usize = 1024;
/// In [`Rows::passed_us`], a time that is in [`Rows::long_us`]: 71 minutes or more.
const LONG: u32 = u32::MAX;

/// What an allocation says besides its op and its address.
#[derive(Clone, Copy)]
pub(super) struct Allocation {
    pub(super) size_bytes: u64,
    pub(super) stack: StackIndex,
    /// Its place in [`Field::Origins`].
    pub(super) origin: u32,
}

/// The columns, and events that are not in them yet.
pub(super) struct Rows {
    fields: Fields,
    /// Events in the columns.
    put: u32,
    /// Events in rows.
    events: usize,
    /// How many of these are allocations, and how many are steps.
    allocations: usize,
    steps: usize,
    ops: [u8; ROWS],
    /// Microseconds since the event before, or [`LONG`].
    passed_us: [u32; ROWS],
    long_us: Vec<u64>,
    sizes: [u64; ROWS],
    stacks: [u32; ROWS],
    origins: [u32; ROWS],
    /// Stack of the last allocation that is in the columns.
    last_stack: u32,
    /// How many events are neither allocations nor steps, and their stacks.
    others: usize,
    other_stacks: [u32; ROWS],
    /// Words of [`Field::HeapKind`].
    step_words: [u32; ROWS],
    /// Stack of each step, and how many allocations are in rows before it.
    step_stacks: [(u32, u32); ROWS],
    /// How steps' stacks are said.
    said_stacks: StepStacks,
    /// Events without a stack that [`Field::OtherStack`] does not hold yet: it stays empty if there are no others.
    without_stack: usize,
}

impl Rows {
    pub(super) fn new() -> Rows {
        Rows {
            fields: empty_fields(),
            put: 0,
            events: 0,
            allocations: 0,
            steps: 0,
            ops: [0; ROWS],
            passed_us: [0; ROWS],
            long_us: Vec::new(),
            sizes: [0; ROWS],
            stacks: [0; ROWS],
            origins: [0; ROWS],
            last_stack: 0,
            others: 0,
            other_stacks: [0; ROWS],
            step_words: [0; ROWS],
            step_stacks: [(0, 0); ROWS],
            said_stacks: StepStacks::default(),
            without_stack: 0,
        }
    }

    /// Events of the block.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.put + self.events as u32
    }

    /// A column whose values are put there at once.
    #[inline]
    pub(super) fn field(&mut self, field: Field) -> &mut Vec<u8> {
        &mut self.fields[field as usize]
    }

    /// A row for an event.
    #[inline]
    fn event(&mut self, op: u8, passed_us: u64) {
        if self.events >= ROWS {
            self.put_down();
        }
        let row = self.events % ROWS;
        self.events = row + 1;
        self.ops[row] = op;
        self.passed_us[row] = passed_us as u32;
        if passed_us >= u64::from(LONG) {
            self.passed_us[row] = LONG;
            self.long_us.push(passed_us);
        }
    }

    /// An allocation.
    #[inline]
    pub(super) fn allocation(&mut self, op: u8, passed_us: u64, allocation: Allocation) {
        self.event(op, passed_us);
        let at = self.allocations % ROWS;
        self.allocations = at + 1;
        let Allocation { size_bytes, stack, origin } = allocation;
        (self.sizes[at], self.stacks[at], self.origins[at]) = (size_bytes, stack.0, origin);
    }

    /// A step of a heap; its word of [`Field::HeapKind`] follows by [`Self::step_word`].
    #[inline]
    pub(super) fn step(&mut self, op: u8, passed_us: u64, stack: StackIndex) {
        self.event(op, passed_us);
        let at = self.steps % ROWS;
        self.steps = at + 1;
        self.step_stacks[at] = (stack.0, self.allocations as u32);
    }

    /// What the step that was put down last says.
    #[inline]
    pub(super) fn step_word(&mut self, word: u32) {
        self.step_words[self.steps.wrapping_sub(1) % ROWS] = word;
    }

    /// Any other event.
    #[inline]
    pub(super) fn other(&mut self, op: u8, passed_us: u64, stack: StackIndex) {
        self.event(op, passed_us);
        let at = self.others % ROWS;
        self.others = at + 1;
        self.other_stacks[at] = stack.0;
    }

    /// Puts the rows into the columns.
    #[inline(never)]
    pub(super) fn put_down(&mut self) {
        let column = |field: Field| field as usize;
        let (events, allocations) = (self.events, self.allocations);
        let (steps, stacks) = (&self.step_stacks[..self.steps], &mut self.stacks[..allocations]);
        let fields = &mut self.fields;
        self.said_stacks.put(steps, stacks, &mut fields[column(Field::StepStack)]);
        for stack in &mut *stacks {
            let before = std::mem::replace(&mut self.last_stack, *stack);
            *stack = zigzag32(stack.wrapping_sub(before));
        }
        fields[column(Field::Op)].extend_from_slice(&self.ops[..events]);
        put_times(&mut fields[column(Field::Time)], &self.passed_us[..events], &self.long_us);
        put_all(&mut fields[column(Field::Size)], &self.sizes[..allocations]);
        put_all(&mut fields[column(Field::Stack)], stacks);
        put_all(&mut fields[column(Field::Origin)], &self.origins[..allocations]);
        put_all(&mut fields[column(Field::HeapKind)], &self.step_words[..self.steps]);
        self.put_other_stacks();
        self.put += self.events as u32;
        (self.events, self.allocations, self.steps, self.others) = (0, 0, 0, 0);
        self.long_us.clear();
    }

    fn put_other_stacks(&mut self) {
        let stacks = &self.other_stacks[..self.others];
        let column = &mut self.fields[Field::OtherStack as usize];
        if column.is_empty() && stacks.iter().all(|stack| *stack == StackIndex::NONE.0) {
            self.without_stack += stacks.len();
            return;
        }
        let before = std::mem::take(&mut self.without_stack);
        column.resize(column.len() + before, StackIndex::NONE.0 as u8);
        put_all(column, stacks);
    }

    /// The columns of the block, which ends; the next one is put into `next`, which is empty.
    pub(super) fn take(&mut self, next: Fields) -> Fields {
        self.put_down();
        self.said_stacks.end(&mut self.fields[Field::StepStack as usize]);
        self.last_stack = 0;
        self.put = 0;
        self.without_stack = 0;
        std::mem::replace(&mut self.fields, next)
    }
}

fn put_times(column: &mut Vec<u8>, passed_us: &[u32], long_us: &[u64]) {
    if long_us.is_empty() {
        return put_all(column, passed_us);
    }
    let mut long_us = long_us.iter();
    for &us in passed_us {
        let us = if us == LONG { long_us.next().copied() } else { Some(u64::from(us)) };
        put(column, us.expect("each time that is marked as long was put down"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::ops::{ALLOC_SAME, FREE_RECENT};

    #[test]
    fn every_value_gets_into_its_column_however_long_the_time_before_it_and_however_many_rows_there_are() {
        let hour_us = 3_600_000_000;
        let (mut rows, mut times, mut stacks) = (Rows::new(), Vec::new(), Vec::new());
        for at in 0..3 * ROWS as u64 {
            let passed_us = if at % 700 == 1 { at * hour_us } else { at % 300 };
            put(&mut times, passed_us);
            if at % 3 == 0 {
                let allocation = Allocation { size_bytes: at << 40, stack: StackIndex(9), origin: 0 };
                rows.allocation(ALLOC_SAME, passed_us, allocation);
            } else {
                // The first that has a stack comes when the columns hold others without one.
                let stack = StackIndex(if at < 2 * ROWS as u64 { 0 } else { at as u32 });
                put(&mut stacks, u64::from(stack.0));
                rows.other(FREE_RECENT, passed_us, stack);
            }
        }
        assert_eq!(rows.len(), 3 * ROWS as u32);
        let fields = rows.take(empty_fields());
        assert_eq!(fields[Field::Time as usize], times);
        assert_eq!(fields[Field::OtherStack as usize], stacks);
        let mut differences = vec![0; ROWS];
        differences[0] = 18;
        assert_eq!(fields[Field::Stack as usize], differences);
        assert_eq!(rows.len(), 0);
    }
}
