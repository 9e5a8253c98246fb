//! The lists of free slots, one for each class: last in first out, linked through the slots.
//!
//! # Invariant
//! A slot that is free has for neighbours those that were freed next before and next after it of its class, and the
//! ends of a list are the slots that lack one.

use super::super::error::Malformed;
use super::super::ops;
use super::{ADDR_MASK, END, HELD, Mirror, Slot};

impl Mirror {
    /// The slot that the next block of `class` gets, if it had `addr`.
    #[inline]
    pub(in crate::trace) fn take_if_at(&mut self, class: u8, addr: u64) -> Option<u32> {
        let newest = self.free[class as usize].newest;
        let found = self.slots.get(newest as usize).filter(|found| found.word & ADDR_MASK == addr)?;
        self.take_newest(class, found.older());
        Some(newest)
    }

    /// The slot that the next block of `class` gets, if one is free.
    #[inline]
    fn take_free(&mut self, class: u8) -> Option<u32> {
        let newest = self.free[class as usize].newest;
        self.take_newest(class, self.slots.get(newest as usize)?.older());
        Some(newest)
    }

    /// As [`Self::unlink`] of the newest slot of `class`, before which `older` was freed. What its own links were is left in
    /// it: who takes a slot occupies it.
    #[inline]
    fn take_newest(&mut self, class: u8, older: u32) {
        let list = &mut self.free[class as usize];
        list.newest = older;
        match self.slots.get_mut(older as usize) {
            Some(neighbour) => neighbour.has_no_newer(),
            None => list.oldest = END,
        }
    }

    /// The slot that the next block of `class` gets, where a new one may be made without asking for how many there are.
    #[inline]
    pub(in crate::trace) fn take_any(&mut self, class: u8) -> u32 {
        self.take_free(class).unwrap_or_else(|| self.add())
    }

    /// The slot that the next block of `class` gets.
    #[inline]
    pub(in crate::trace) fn take(&mut self, class: u8) -> Result<u32, Malformed> {
        match self.take_free(class) {
            Some(slot) => Ok(slot),
            None if self.slots.len() < self.limit as usize => Ok(self.add()),
            None => Err(Malformed::Slots(self.limit)),
        }
    }

    fn add(&mut self) -> u32 {
        self.slots.push(Slot::UNUSED);
        self.slots.len() as u32 - 1
    }

    /// Takes `slot` out of the free list of `class` if it is there and had `addr`; says how deep it lay there, if not too
    /// deep, or `None` if it is not there.
    #[inline]
    pub(in crate::trace) fn take_waiting(&mut self, class: u8, slot: u32, addr: u64) -> Option<Option<u8>> {
        let found = self.slots.get(slot as usize)?;
        let waits = found.is_free() && found.class() == class && found.word & ADDR_MASK == addr;
        waits.then(|| {
            let depth = self.depth_of(class, slot);
            self.unlink(slot);
            depth
        })
    }

    /// The free slot of `class` whose chunk the current thread's cache is expected to get next, when a request finds more
    /// chunks than it asked for (malloc.c, `_int_malloc`): the request itself gets the newest one, the cache those behind
    /// it, one after the other.
    #[inline]
    pub(in crate::trace) fn next_filled(&self, class: u8) -> Option<u32> {
        let is_there =
            |slot: &u32| self.slots.get(*slot as usize).is_some_and(|found| found.is_free() && found.class() == class);
        let before = self.threads[self.current].near.filled.filter(is_there);
        let before = before.unwrap_or(self.free[class as usize].newest);
        Some(self.slots.get(before as usize)?.older()).filter(is_there)
    }

    /// How deep in its list the free `slot` lies behind the one that is next, if not too deep.
    #[inline]
    fn depth_of(&self, class: u8, slot: u32) -> Option<u8> {
        let mut at = self.free[class as usize].newest;
        for depth in 0..ops::ALLOC_DEEP_COUNT {
            at = self.slots.get(at as usize)?.older();
            if at == slot {
                return Some(depth);
            }
        }
        None
    }

    /// The inverse of [`Self::depth_of`]; takes the slot.
    pub(in crate::trace) fn take_deep(&mut self, class: u8, depth: u8) -> Option<u32> {
        let mut slot = self.free[class as usize].newest;
        for _ in 0..=depth {
            slot = self.slots.get(slot as usize)?.older();
        }
        self.take_named(class, slot).then_some(slot)
    }

    /// Takes `slot` out of the free list of `class`; false if it is not there.
    #[inline]
    pub(in crate::trace) fn take_named(&mut self, class: u8, slot: u32) -> bool {
        let found = self.slots.get(slot as usize);
        let is_there = found.is_some_and(|found| found.is_free() && found.class() == class);
        if is_there {
            self.unlink(slot);
        }
        is_there
    }

    /// Puts a slot into the list of its class.
    #[inline]
    pub(super) fn link(&mut self, slot: u32) {
        let found = &mut self.slots[slot as usize];
        let class = found.class();
        let older = std::mem::replace(&mut self.free[class as usize].newest, slot);
        found.state = Slot::free(END, older);
        self.has_newer(older, slot, class);
    }

    /// The slot that was the newest of `class`, or none, has a newer one.
    #[inline]
    pub(super) fn has_newer(&mut self, older: u32, newer: u32, class: u8) {
        match self.slots.get_mut(older as usize) {
            Some(before) => before.state = Slot::free(newer, before.older()),
            None => self.free[class as usize].oldest = newer,
        }
    }

    /// Takes a free slot out of its list; nobody has it then.
    #[inline]
    fn unlink(&mut self, slot: u32) {
        let found = &mut self.slots[slot as usize];
        let (newer, older, class) = (found.newer(), found.older(), found.class());
        found.state = HELD;
        match self.slots.get_mut(newer as usize) {
            Some(neighbour) => neighbour.state = Slot::free(neighbour.newer(), older),
            None => self.free[class as usize].newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(neighbour) => neighbour.state = Slot::free(newer, neighbour.older()),
            None => self.free[class as usize].oldest = newer,
        }
    }
}
