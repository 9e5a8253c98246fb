//! The live blocks of one process, by slot.
//!
//! The reader keeps blocks by slot too, but only for as long as it replays; what is alive at the end, and which blocks
//! came from the parent, is known here.

use crate::trace::ThreadIndex;

/// A live block: what is needed of it once its allocation was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LiveBlock {
    /// Who answers for it.
    pub(super) owner: Owner,
    /// Requested size.
    pub(super) size_bytes: u64,
    /// Allocation time, nanoseconds since the recording's start.
    pub(super) at_ns: u64,
}

/// Who allocated a live block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// This process: the site by number, and the thread.
    Own { site: u32, thread: ThreadIndex },
    /// The process it was forked from.
    Parent,
}

/// The live blocks by slot.
#[derive(Default, Debug)]
pub(super) struct LiveBlocks {
    slots: Vec<Option<LiveBlock>>,
}

impl LiveBlocks {
    /// Fills a slot; returns the block that was still there, which a sound trace never has.
    #[inline]
    pub(super) fn insert(&mut self, slot: u32, block: LiveBlock) -> Option<LiveBlock> {
        let slot = slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        self.slots[slot].replace(block)
    }

    /// Empties a slot.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> Option<LiveBlock> {
        self.slots.get_mut(slot as usize)?.take()
    }

    /// The blocks that live.
    pub(super) fn iter(&self) -> impl Iterator<Item = &LiveBlock> {
        self.slots.iter().flatten()
    }
}
