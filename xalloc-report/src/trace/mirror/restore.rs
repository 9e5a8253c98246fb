//! The mirror as a checkpoint has it: what the writer puts there, and how a reader gets from it to the same state.
//!
//! # Invariant
//! As that of [`super`]. What a checkpoint says is not believed: a slot is named once, numbers are those of allocations
//! that were made.

use super::super::error::Malformed;
use super::{ADDR_BITS, ADDR_MASK, END, Mirror, NONE, NOT_LIVE, NUMBERED, RECENT, Slot};

const MANY: Malformed = Malformed::Bytes("a checkpoint counts more allocations than a process can make");

/// A slot as a checkpoint has it.
pub(in crate::trace) struct Restored {
    pub(in crate::trace) addr: u64,
    pub(in crate::trace) class: u8,
    pub(in crate::trace) nth: u32,
    pub(in crate::trace) place: Place,
}

/// Where a slot stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::trace) enum Place {
    /// In its class's list, behind those that were restored before it.
    Free,
    /// Live; its allocation's number in the process, and its thread.
    Live { number: u64, thread: u32 },
    /// Held by the realloc of the thread `holder`.
    Held { number: u64, thread: u32, holder: u32 },
}

impl Mirror {
    /// The free lists, one after the other and each from its oldest slot on, with their classes.
    pub(in crate::trace) fn free_slots(&self) -> impl Iterator<Item = (u32, u8)> {
        let is_slot = |slot: u32| (slot != END).then_some(slot);
        let class = |at: usize| at as u8;
        self.free.iter().enumerate().flat_map(move |(at, list)| {
            let next = move |&slot: &u32| is_slot(self.slots[slot as usize].newer());
            std::iter::successors(is_slot(list.oldest), next).map(move |slot| (slot, class(at)))
        })
    }

    /// Forgets which blocks threads made recently; [`Self::remember_recent`] tells those that are still there.
    pub(in crate::trace) fn forget_recent(&mut self) {
        for thread in &mut self.threads {
            thread.recent.fill(NONE);
        }
    }

    /// The live block in `slot` was the allocation `nth` of the thread with that index.
    pub(in crate::trace) fn remember_recent(&mut self, slot: u32, thread: u32, nth: u32) {
        if let Some(&place) = self.by_index.get(&thread) {
            let thread = &mut self.threads[place as usize];
            if thread.allocs.wrapping_sub(nth) as usize <= RECENT {
                thread.recent[nth as usize % RECENT] = slot;
            }
        }
    }

    /// The thread with that index has made `allocs` allocations; restores a mirror.
    pub(in crate::trace) fn restore_thread(&mut self, index: u32, allocs: u32) {
        self.switch_to(index);
        self.thread().allocs = allocs;
    }

    /// Makes room for slots and numbers; restores a mirror.
    pub(in crate::trace) fn restore_sizes(&mut self, slots: u32, allocs: u64) -> Result<(), Malformed> {
        if slots > self.limit {
            return Err(Malformed::Slots(self.limit));
        }
        if allocs >= NOT_LIVE / 2 {
            return Err(MANY);
        }
        self.slots.resize(slots as usize, Slot::UNUSED);
        self.allocs = allocs;
        self.numbered.resize(allocs.min(NUMBERED) as usize, NONE);
        Ok(())
    }

    /// What a slot holds; restores a mirror. `number` is that of the block's allocation, `None` if the slot is free.
    pub(in crate::trace) fn restore_slot(&mut self, slot: u32, restored: Restored) -> Result<(), Malformed> {
        const TWICE: Malformed = Malformed::Bytes("a checkpoint names a slot that it does not have, or names it twice");
        let Restored { addr, class, nth, place } = restored;
        let entry = self.slots.get_mut(slot as usize).filter(|entry| **entry == Slot::UNUSED);
        let entry = entry.ok_or(TWICE)?;
        if let Place::Live { number, .. } | Place::Held { number, .. } = place
            && number >= NOT_LIVE
        {
            return Err(MANY);
        }
        entry.word = addr & ADDR_MASK | u64::from(class) << ADDR_BITS | u64::from(nth as u8) << 56;
        match place {
            Place::Free => {
                self.link(slot);
                return Ok(());
            }
            Place::Live { number, thread } => {
                entry.state = number;
                self.restore_number(number, slot);
                self.remember_recent(slot, thread, nth);
            }
            Place::Held { number, thread, holder } => {
                self.restore_number(number, slot);
                self.remember_recent(slot, thread, nth);
                self.switch_to(holder);
                if self.thread().held.replace((slot, number)).is_some() {
                    return Err(TWICE);
                }
            }
        }
        Ok(())
    }

    fn restore_number(&mut self, number: u64, slot: u32) {
        let age = self.allocs.wrapping_sub(number);
        if (1..=NUMBERED).contains(&age)
            && let Some(entry) = self.numbered.get_mut((number % NUMBERED) as usize)
        {
            *entry = slot;
        }
    }
}
