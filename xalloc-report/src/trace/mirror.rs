//! What writer and reader both know while they go through a process's events.
//!
//! The writer names a block in as few bits as it can by saying how it relates to what went before: *the block that
//! this thread allocated three allocations ago*, *at the address that the slot had before*. The reader has to
//! understand that, so both keep this state and change it by the same functions; neither changes it otherwise.
//!
//! # Slots
//! A block has a slot from its allocation to its free. Freed slots wait in a list by size class, last in first out, as
//! the chunks do in an allocator's caches: the slot that an allocation gets was mostly freed with the very address
//! that the allocator hands out again, so the address costs nothing. Where the allocator takes another chunk of the
//! class, the slot that had it is taken out of the list by name: if another were, every prediction after it would be
//! off by one. The lists are linked through the slots, so that this costs the same anywhere.
//!
//! # Invariant
//! Every slot is live, or held by one thread between the two halves of a realloc, or in exactly one free list: that of
//! its class. A mirror that was restored from a checkpoint ([`restore`]) answers every question the writer relies on as
//! the writer's own does: what could differ (entries for blocks that are gone) the writer forgets when it writes a
//! checkpoint.

use rustc_hash::FxHashMap;
use xalloc_core::sys::prefetch;

use super::ops;

mod classes;
mod lists;
mod restore;

use classes::CLASSES;
pub(super) use classes::{chunk_class, class_of};
pub(super) use restore::{Place, Restored};

/// Recent allocations of a thread that can be named by their distance; the distance fits the byte in [`Slot`].
const RECENT: usize = 256;
/// Allocations of the process, newest first, that can be named by their number.
pub(super) const NUMBERED: u64 = 1 << 20;
/// No slot.
pub(super) const NONE: u32 = u32::MAX;

const ADDR_BITS: u32 = 48;
const ADDR_MASK: u64 = (1 << ADDR_BITS) - 1;

/// In [`Near::resized`], no chunk.
pub(super) const NO_CHUNK: (u64, u64) = (0, 0);

/// The end of a free list; slots have 31 bits, and this is none.
const END: u32 = u32::MAX >> 1;
/// Most slots: below [`END`].
pub(super) const MOST_SLOTS: u32 = END;
/// In [`Slot::state`] of a slot without a live block.
const NOT_LIVE: u64 = 1 << 63;
/// [`Slot::state`] of a slot that a realloc holds: it has no neighbours, and no slot's links read like that.
const HELD: u64 = u64::MAX;

/// A slot, in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot {
    /// Address (48 bits), class (8), place among the recent allocations of its thread (8). After the free the address
    /// stays as the prediction for the slot's next block.
    word: u64,
    /// Of a live block, the number of its allocation in the process. Of a free slot, [`NOT_LIVE`] and its neighbours
    /// in the list: the one freed next after it in bits 32 to 62, the one before it in bits 0 to 31. Or [`HELD`].
    state: u64,
}

impl Slot {
    const UNUSED: Slot = Slot { word: 0, state: HELD };

    fn free(newer: u32, older: u32) -> u64 {
        NOT_LIVE | u64::from(newer) << 32 | u64::from(older)
    }

    fn newer(self) -> u32 {
        (self.state >> 32) as u32 & END
    }

    /// A free slot becomes the newest of its list.
    fn has_no_newer(&mut self) {
        self.state |= u64::from(END) << 32;
    }

    fn older(self) -> u32 {
        self.state as u32
    }

    fn is_live(self) -> bool {
        self.state & NOT_LIVE == 0
    }

    fn is_free(self) -> bool {
        !self.is_live() && self.state != HELD
    }

    fn class(self) -> u8 {
        (self.word >> ADDR_BITS) as u8
    }
}

/// The ends of a free list.
#[derive(Clone, Copy)]
struct List {
    newest: u32,
    oldest: u32,
}

/// What is remembered of a thread.
#[derive(Clone)]
pub(super) struct ThreadState {
    /// Index into the contents' threads.
    pub(super) index: u32,
    /// Allocations it has made.
    pub(super) allocs: u32,
    /// The slot of its realloc that is under way, and the number of the allocation there.
    pub(super) held: Option<(u32, u64)>,
    recent: [u32; RECENT],
    /// What it did in this block of events.
    pub(super) near: Near,
}

/// References that begin anew with every block of events, so that a checkpoint need not hold them.
#[derive(Clone, Copy, Default)]
pub(super) struct Near {
    /// Allocation number of the block it freed last.
    pub(super) freed_number: u64,
    /// Slot of the block it freed last.
    pub(super) freed_slot: u32,
    /// Chunk that became free last, by a free or a step of the heap: address and bytes.
    pub(super) free_chunk: (u64, u64),
    /// Chunk of the block whose realloc is under way, or [`NO_CHUNK`].
    pub(super) resized: (u64, u64),
    /// Whether a chunk went into a bin since one became free, so that the next one is another.
    pub(super) is_filed: bool,
    /// Whether a chunk went to its cache since its last allocation.
    pub(super) is_filling: bool,
    /// Where the next block after its last allocation would begin.
    pub(super) end: u64,
    /// The same for its last allocation that was not predicted by the slot.
    pub(super) missed_end: u64,
    /// Where the block of the chunk that was split last would begin.
    pub(super) split: u64,
    /// Slot of the chunk that went to its cache last as its class's free list had it, since its last allocation.
    pub(super) filled: Option<u32>,
}

impl Near {
    /// The block in `slot`, which is `found`, was freed.
    #[inline]
    fn freed(&mut self, slot: u32, found: Slot) {
        self.freed_number = found.state;
        self.freed_slot = slot;
        self.free_chunk = ((found.word & ADDR_MASK).wrapping_sub(16), u64::from(found.class()) * 16);
        self.is_filed = false;
    }

    /// An allocation whose op was `op` ended at `end`.
    #[inline]
    pub(super) fn ended(&mut self, op: u8, end: u64) {
        self.end = end;
        self.filled = None;
        self.is_filling = false;
        self.resized = NO_CHUNK;
        if (ops::ALLOC_SPLIT..=ops::ALLOC_STATED).contains(&op) {
            self.missed_end = end;
        }
    }
}

/// How a free names its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FreedAs {
    /// As the one that the thread allocated so many allocations ago.
    Recent(u8),
    /// By its allocation's number: so far above the one that is [`ops::NUMBER_REACH`] below that of the block which the
    /// thread freed last.
    Numbered(u8),
    /// By its slot.
    Slot,
}

/// Slots and threads of one process.
#[derive(Clone)]
pub(super) struct Mirror {
    slots: Vec<Slot>,
    free: [List; CLASSES],
    /// Allocations ever made.
    allocs: u64,
    /// Slot by allocation number, modulo [`NUMBERED`].
    numbered: Vec<u32>,
    threads: Vec<ThreadState>,
    by_index: FxHashMap<u32, u32>,
    current: usize,
    limit: u32,
}

impl Mirror {
    /// A mirror that refuses to hold more than `limit` slots.
    pub(super) fn new(limit: u32) -> Mirror {
        Mirror {
            slots: Vec::new(),
            free: [List { newest: END, oldest: END }; CLASSES],
            allocs: 0,
            numbered: Vec::new(),
            threads: Vec::new(),
            by_index: FxHashMap::default(),
            current: 0,
            limit: limit.min(MOST_SLOTS),
        }
    }

    /// Slots ever used.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn allocs(&self) -> u64 {
        self.allocs
    }

    pub(super) fn threads(&self) -> &[ThreadState] {
        &self.threads
    }

    /// The thread whose events are being told.
    #[inline]
    pub(super) fn thread(&mut self) -> &mut ThreadState {
        &mut self.threads[self.current]
    }

    /// Goes to the thread with that index.
    #[inline]
    pub(super) fn switch_to(&mut self, index: u32) {
        if self.threads.get(self.current).is_none_or(|thread| thread.index != index) {
            self.switch(index);
        }
    }

    #[inline(never)]
    fn switch(&mut self, index: u32) {
        let next = self.threads.len() as u32;
        let place = *self.by_index.entry(index).or_insert(next);
        if place == next {
            let recent = [NONE; RECENT];
            self.threads.push(ThreadState { index, allocs: 0, held: None, recent, near: Near::default() });
        }
        self.current = place as usize;
    }

    /// A block of events begins.
    pub(super) fn begin_block(&mut self) {
        for thread in &mut self.threads {
            thread.near = Near::default();
        }
    }

    /// The current thread's new block is in `slot`; returns its number among the thread's allocations, and what begins anew
    /// with every block of events.
    #[inline(always)]
    pub(super) fn occupy(&mut self, slot: u32, addr: u64, class: u8) -> (u32, &mut Near) {
        let number = self.allocs;
        self.allocs += 1;
        let place = (number % NUMBERED) as usize;
        match self.numbered.get_mut(place) {
            Some(entry) => *entry = slot,
            None => self.numbered.push(slot),
        }
        let thread = &mut self.threads[self.current];
        let nth = thread.allocs;
        thread.allocs = nth.wrapping_add(1);
        thread.recent[nth as usize % RECENT] = slot;
        self.slots[slot as usize] =
            Slot { word: addr & ADDR_MASK | u64::from(class) << ADDR_BITS | u64::from(nth as u8) << 56, state: number };
        (nth, &mut thread.near)
    }

    /// Asks the processor for a slot, if it exists.
    #[inline(always)]
    pub(super) fn prefetch(&self, slot: u32) {
        if let Some(slot) = self.slots.get(slot as usize) {
            prefetch(slot);
        }
    }

    /// The block of `slot` is freed by the current thread; false, and nothing happens, if no live block is there.
    #[inline]
    pub(super) fn vacate(&mut self, slot: u32) -> bool {
        let is_live = self.leave(slot);
        if is_live {
            self.link(slot);
        }
        is_live
    }

    /// The block of `slot` is freed by the first half of a realloc of the current thread.
    ///
    /// A hold that the thread already had is given up: its second half was lost. False if no live block is there.
    pub(super) fn hold(&mut self, slot: u32) -> bool {
        self.release_held();
        if !self.leave(slot) {
            return false;
        }
        let thread = &mut self.threads[self.current];
        thread.held = Some((slot, thread.near.freed_number));
        thread.near.resized = thread.near.free_chunk;
        true
    }

    /// The slot that the current thread holds goes to its free list.
    pub(super) fn release_held(&mut self) {
        if let Some((slot, _)) = self.threads[self.current].held.take() {
            self.link(slot);
        }
    }

    /// The slot that the thread with that index holds.
    pub(super) fn held_by(&self, index: u32) -> Option<u32> {
        let place = *self.by_index.get(&index)?;
        self.threads[place as usize].held.map(|(slot, _)| slot)
    }

    /// The block that the current thread holds is live again.
    pub(super) fn revive_held(&mut self) -> Option<u32> {
        let (slot, number) = self.threads[self.current].held.take()?;
        self.slots[slot as usize].state = number;
        Some(slot)
    }

    /// The block of `slot` is no longer live; false if none was.
    #[inline]
    fn leave(&mut self, slot: u32) -> bool {
        let Some(found) = self.slots.get_mut(slot as usize).filter(|found| found.is_live()) else { return false };
        self.threads[self.current].near.freed(slot, *found);
        found.state = HELD;
        true
    }

    /// The address of the block that is, or was, in `slot`.
    #[inline]
    pub(super) fn addr(&self, slot: u32) -> u64 {
        self.slots[slot as usize].word & ADDR_MASK
    }

    /// Number of the allocation of the live block in `slot`.
    pub(super) fn number(&self, slot: u32) -> u64 {
        self.slots[slot as usize].state
    }

    /// Whether a live block is in `slot`; false for a slot that does not exist.
    #[inline]
    pub(super) fn is_live(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|found| found.is_live())
    }

    /// How many allocations ago the current thread made the block in `slot`, if it did within the last 256.
    #[inline]
    pub(super) fn recency(&self, slot: u32) -> Option<usize> {
        let thread = &self.threads[self.current];
        let place = (self.slots[slot as usize].word >> 56) as usize;
        (thread.recent[place] == slot).then(|| (thread.allocs as usize).wrapping_sub(1 + place) % RECENT)
    }

    /// As [`Self::vacate`] of a block that is known to be live; says how that is told, by the first of the ways that reaches
    /// it, and what slot was freed before.
    #[inline(always)]
    pub(super) fn vacate_live(&mut self, slot: u32) -> (FreedAs, u32) {
        let thread = &mut self.threads[self.current];
        let found = &mut self.slots[slot as usize];
        debug_assert!(found.is_live(), "the matcher's table holds live slots only");
        let (number, place, class) = (found.state, (found.word >> 56) as usize, found.class());
        let ago = (thread.allocs as usize).wrapping_sub(1 + place) % RECENT;
        let reach = u64::from(ops::NUMBER_REACH);
        let distance = number.wrapping_sub(thread.near.freed_number).wrapping_add(reach);
        let freed_as = if thread.recent[place] == slot && ago < usize::from(ops::FREE_RECENT_COUNT) {
            FreedAs::Recent(ago as u8)
        } else if distance <= 2 * reach && self.allocs.wrapping_sub(number) <= NUMBERED {
            FreedAs::Numbered(distance as u8)
        } else {
            FreedAs::Slot
        };
        let before = thread.near.freed_slot;
        thread.near.freed(slot, *found);
        let older = std::mem::replace(&mut self.free[class as usize].newest, slot);
        found.state = Slot::free(END, older);
        self.has_newer(older, slot, class);
        (freed_as, before)
    }

    /// The inverse of [`Self::recency`].
    #[inline]
    pub(super) fn recent(&self, allocations_ago: usize) -> u32 {
        let thread = &self.threads[self.current];
        thread.recent[(thread.allocs as usize).wrapping_sub(1 + allocations_ago) % RECENT]
    }

    /// The slot of the allocation with that number.
    #[inline]
    pub(super) fn by_number(&self, number: u64) -> u32 {
        self.numbered.get((number % NUMBERED) as usize).copied().unwrap_or(NONE)
    }

    /// What a fork inherits: everything but the reallocs under way, whose threads do not exist there. Their blocks stay
    /// gone: nobody knows whether the old place or a new one is the child's.
    pub(super) fn forked(&self) -> Mirror {
        let mut child = self.clone();
        for current in 0..child.threads.len() {
            child.current = current;
            child.release_held();
        }
        child
    }
}
