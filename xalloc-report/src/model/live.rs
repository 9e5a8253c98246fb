//! The live blocks of one process, by slot.
//!
//! A tally is told of a block once, when it comes; what is asked when it goes is kept here.

use crate::trace::ThreadIndex;

/// A live block: what is needed of it once its allocation was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LiveBlock {
    /// Who answers for it.
    pub(super) owner: Owner,
    /// Requested size.
    pub(super) size_bytes: u64,
    /// Blocks that it stands for, itself included: 1 where all are recorded.
    pub(super) stands_for: u32,
    /// Allocation time, nanoseconds since the recording's start.
    pub(super) at_ns: u64,
}

/// Who allocated a live block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// This process: the site by number, the thread, and the number of the thread's allocation, which wraps.
    Own { site: u32, thread: ThreadIndex, nth: u32 },
    /// The process it was forked from.
    Parent,
}

/// [`Slot::site`] of an empty slot. Sites are numbered by stacks, of which no trace holds so many.
const EMPTY: u32 = u32::MAX;
/// [`Slot::site`] of a block of the parent's.
const PARENT: u32 = u32::MAX - 1;

/// A slot, in 32 bytes.
#[derive(Clone, Copy, Debug)]
struct Slot {
    size_bytes: u64,
    at_ns: u64,
    site: u32,
    thread: ThreadIndex,
    nth: u32,
    stands_for: u32,
}

impl Slot {
    const VACANT: Slot = Slot { size_bytes: 0, at_ns: 0, site: EMPTY, thread: ThreadIndex(0), nth: 0, stands_for: 0 };

    #[inline]
    fn of(block: LiveBlock) -> Slot {
        let LiveBlock { owner, size_bytes, stands_for, at_ns } = block;
        match owner {
            Owner::Own { site, thread, nth } => Slot { size_bytes, at_ns, site, thread, nth, stands_for },
            Owner::Parent => Slot { size_bytes, at_ns, site: PARENT, stands_for, ..Slot::VACANT },
        }
    }

    #[inline]
    fn block(self) -> Option<LiveBlock> {
        let Slot { size_bytes, at_ns, site, thread, nth, stands_for } = self;
        let owner = match site {
            EMPTY => return None,
            PARENT => Owner::Parent,
            site => Owner::Own { site, thread, nth },
        };
        Some(LiveBlock { owner, size_bytes, stands_for, at_ns })
    }
}

const _: () = assert!(size_of::<Slot>() == 32);

/// The live blocks by slot.
#[derive(Default, Debug)]
pub(super) struct LiveBlocks {
    slots: Vec<Slot>,
}

impl LiveBlocks {
    /// Fills a slot; returns the block that was still there, which a sound trace never has.
    #[inline]
    pub(super) fn insert(&mut self, slot: u32, block: LiveBlock) -> Option<LiveBlock> {
        let slot = slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, Slot::VACANT);
        }
        std::mem::replace(&mut self.slots[slot], Slot::of(block)).block()
    }

    /// Empties a slot.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> Option<LiveBlock> {
        let entry = self.slots.get_mut(slot as usize)?;
        let block = entry.block();
        entry.site = EMPTY;
        block
    }

    /// The blocks that live.
    pub(super) fn iter(&self) -> impl Iterator<Item = LiveBlock> {
        self.slots.iter().filter_map(|slot| slot.block())
    }
}
