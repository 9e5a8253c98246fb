//! Stacks of heap steps, as what they have in common with their neighbours'.
//!
//! A request that finds no chunk in its thread's cache makes the heap split, merge and file others, each step of which has
//! the request's stack: that of the allocation which comes next. What a free leads to has its own. So a step's stack is
//! said by what is known beside it:
//!
//! | number | the stack |
//! |---|---|
//! | 0 | that of the step before, if no allocation came since; else that of the allocation that comes next in the block |
//! | 1 | that of the allocation that comes next |
//! | from 2 on | 2 less: the zigzag of the difference to the last stack that came |
//!
//! A stack comes with an allocation, or with a step that has not the next allocation's.
//! Behind the block's last allocation the next one's stack counts as [`StackIndex::NONE`]. Against plain numbers this takes
//! half the bytes or less on every program tried; differences are small because stacks are numbered as they first come.
//! A table of which stack followed which gained nothing on top.
//!
//! # Invariant
//! [`StepStacks`] and [`StepStacksRead`] hold the same [`Near`] after every event.

use super::StackIndex;
use super::error::Malformed;
use super::varint::{put, unzigzag, zigzag};

/// What a step's stack is said by.
#[derive(Clone, Copy, Default, Debug)]
struct Near {
    /// Stack of the last step, unless an allocation came since.
    step: Option<u32>,
    /// The last stack that came, of those that differences are taken to.
    last: u32,
}

impl Near {
    fn allocation(&mut self, stack: u32) {
        *self = Near { step: None, last: stack };
    }

    #[inline]
    fn step(&mut self, stack: u32, next: u32) {
        self.step = Some(stack);
        if stack != next {
            self.last = stack;
        }
    }

    /// The number by which a step's stack is said.
    #[inline]
    fn number(self, stack: u32, next: u32) -> u64 {
        if stack == self.step.unwrap_or(next) {
            0
        } else if stack == next {
            1
        } else {
            zigzag(u64::from(stack).wrapping_sub(u64::from(self.last))) + 2
        }
    }
}

/// The writer's side, within a block of events.
#[derive(Default)]
pub(super) struct StepStacks {
    near: Near,
    /// Stacks of steps whose next allocation has not come yet.
    waiting: Vec<u32>,
}

impl StepStacks {
    /// Appends what can be said of `steps`, each with the number of `allocations` before it.
    pub(super) fn put(&mut self, steps: &[(u32, u32)], allocations: &[u32], column: &mut Vec<u8>) {
        let Some(&first) = allocations.first() else {
            self.waiting.extend(steps.iter().map(|&(stack, _)| stack));
            return;
        };
        self.put_waiting(first, column);
        let mut near = self.near;
        let (mut next, mut before) = (first, 0);
        // Nearly all numbers are zeros, which are put together.
        let mut zeros = 0;
        let mut said = 0;
        for &(stack, so_many) in steps {
            if so_many != before {
                before = so_many;
                near.allocation(allocations[before as usize - 1]);
                let Some(&coming) = allocations.get(before as usize) else { break };
                next = coming;
            }
            said += 1;
            if stack == near.step.unwrap_or(next) {
                zeros += 1;
            } else {
                column.resize(column.len() + std::mem::take(&mut zeros), 0);
                put(column, near.number(stack, next));
            }
            near.step(stack, next);
        }
        column.resize(column.len() + zeros, 0);
        self.waiting.extend(steps[said..].iter().map(|&(stack, _)| stack));
        if before as usize != allocations.len() {
            near.allocation(allocations[allocations.len() - 1]);
        }
        self.near = near;
    }

    /// The block ends.
    pub(super) fn end(&mut self, column: &mut Vec<u8>) {
        self.put_waiting(StackIndex::NONE.0, column);
        self.near = Near::default();
    }

    fn put_waiting(&mut self, next: u32, column: &mut Vec<u8>) {
        for stack in self.waiting.drain(..) {
            put(column, self.near.number(stack, next));
            self.near.step(stack, next);
        }
    }
}

/// The reader's side.
#[derive(Clone, Copy, Default)]
pub(super) struct StepStacksRead {
    near: Near,
}

impl StepStacksRead {
    pub(super) fn allocation(&mut self, stack: u32) {
        self.near.allocation(stack);
    }

    /// The stack that `number` means of a step, where the next allocation has the stack `next`.
    #[inline]
    pub(super) fn step(&mut self, number: u64, next: u32) -> Result<u32, Malformed> {
        let Near { step, last } = self.near;
        let stack = match number {
            0 => step.unwrap_or(next),
            1 => next,
            _ => u32::try_from(unzigzag(number - 2).wrapping_add(u64::from(last)))
                .map_err(|_| Malformed::Bytes("a step's stack is none that a trace can have"))?,
        };
        self.near.step(stack, next);
        Ok(stack)
    }
}

#[cfg(test)]
mod tests {
    use super::super::varint::Cursor;
    use super::*;
    use proptest::prelude::*;

    /// A step with this stack, or an allocation.
    #[derive(Clone, Copy, Debug)]
    enum Of {
        Step(u32),
        Allocation(u32),
    }

    fn events() -> impl Strategy<Value = Vec<Of>> {
        let stack = prop_oneof![0u32..4, any::<u32>()];
        prop::collection::vec((any::<bool>(), stack), 0..60).prop_map(|events| {
            let of = |(is_step, stack)| if is_step { Of::Step(stack) } else { Of::Allocation(stack) };
            events.into_iter().map(of).collect()
        })
    }

    fn next_allocation(events: &[Of]) -> u32 {
        let stack = events.iter().find_map(|of| if let Of::Allocation(stack) = of { Some(*stack) } else { None });
        stack.unwrap_or(0)
    }

    proptest! {
        #[test]
        fn every_stack_reads_back_however_the_events_are_cut_into_rows(events in events(), at_once in 1usize..9) {
            let (mut writer, mut column) = (StepStacks::default(), Vec::new());
            for some in events.chunks(at_once) {
                let (mut steps, mut allocations) = (Vec::new(), Vec::new());
                for of in some {
                    match *of {
                        Of::Step(stack) => steps.push((stack, allocations.len() as u32)),
                        Of::Allocation(stack) => allocations.push(stack),
                    }
                }
                writer.put(&steps, &allocations, &mut column);
            }
            writer.end(&mut column);
            let (mut reader, mut column) = (StepStacksRead::default(), Cursor::new(&column));
            for (at, of) in events.iter().enumerate() {
                match *of {
                    Of::Allocation(stack) => reader.allocation(stack),
                    Of::Step(stack) => {
                        let number = column.varint().unwrap();
                        prop_assert_eq!(reader.step(number, next_allocation(&events[at..])), Ok(stack));
                    }
                }
            }
            prop_assert!(column.is_empty());
        }
    }

    #[test]
    fn a_step_with_the_stack_of_its_allocation_or_of_the_step_before_takes_a_zero() {
        let (mut writer, mut column) = (StepStacks::default(), Vec::new());
        writer.put(&[(9, 0), (9, 0), (7, 1), (7, 1)], &[9], &mut column);
        writer.end(&mut column);
        assert_eq!(column, [0, 0, 2 + 3, 0]);
    }
}
