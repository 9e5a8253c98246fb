//! The blocks of a process that its program wants checks for leaks to leave alone.
//!
//! A block is known by its thread and its number among that thread's allocations, so that another block which gets the
//! address later is not taken for it, and nothing has to be done when one is freed.

use rustc_hash::FxHashSet;

use crate::trace::{Block, ThreadIndex};

/// The blocks, some of which may be gone.
#[derive(Debug, Default)]
pub(crate) struct Ignored(FxHashSet<(ThreadIndex, u32)>);

impl Ignored {
    /// Whether the block is one of them.
    pub(crate) fn has(&self, block: &Block) -> bool {
        !self.0.is_empty() && self.0.contains(&name(block))
    }
}

impl Extend<Block> for Ignored {
    fn extend<I: IntoIterator<Item = Block>>(&mut self, blocks: I) {
        self.0.extend(blocks.into_iter().map(|block| name(&block)));
    }
}

fn name(block: &Block) -> (ThreadIndex, u32) {
    (block.thread, block.nth_of_thread)
}
