//! The nodes of the stack trie that a thread met lately.
//!
//! The trie is shared by all threads and large: a look-up there goes to two places that are often in no near cache. What
//! a thread looks up repeats itself, so it keeps the answers in a small table of its own.
//!
//! # Invariant
//! An entry with a frame is a node of the trie that the thread uses; nodes never change.

use xalloc_core::intern::{FrameWord, Trie};
use xalloc_core::units::StackId;

/// 4 KiB: few enough to stay in the nearest cache.
const NODES: usize = 256;

#[derive(Clone, Copy)]
struct Node {
    /// 0 if the entry is empty: no frame is.
    frame: u64,
    parent: StackId,
    id: StackId,
}

/// The table. Zeroed memory is an empty one.
pub(super) struct Nodes([Node; NODES]);

impl Nodes {
    pub(super) const fn new() -> Nodes {
        Nodes([Node { frame: 0, parent: StackId::NONE, id: StackId::NONE }; NODES])
    }

    /// The node of `frame` called by `parent`, as [`Trie::insert`] has it.
    #[inline(always)]
    pub(super) fn insert(&mut self, trie: &Trie<'_>, parent: StackId, frame: FrameWord) -> StackId {
        let mixed = (frame.0 ^ u64::from(parent.0) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = &mut self.0[(mixed >> (64 - NODES.trailing_zeros())) as usize];
        if place.frame == frame.0 && place.parent == parent {
            return place.id;
        }
        let id = trie.insert(parent, frame);
        // An unknown node is to be asked for again, so that each loss is counted.
        if id != StackId::UNKNOWN {
            *place = Node { frame: frame.0, parent, id };
        }
        id
    }
}
