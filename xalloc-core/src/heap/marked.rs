//! Blocks that somebody wants to know again when they are given back, whoever serves them.
//!
//! The set is the one that a hardened heap keeps of all its blocks, so one look costs three loads, takes no lock, and
//! may be made in a signal handler. It lies apart from the blocks: these are what they would be without a mark.

use super::blocks::{Blocks, Known, Spacing};
use super::os::Os;
use crate::units::Addr;

/// A set of blocks, known by their addresses.
#[derive(Debug)]
pub struct Marked {
    blocks: Blocks,
}

impl Marked {
    /// A set that takes nothing yet.
    #[must_use]
    pub const fn new() -> Marked {
        Marked { blocks: Blocks::new() }
    }

    /// Lets the set take blocks, once. `false`: there is no memory for it.
    pub fn begin<O: Os>(&self, os: &O) -> bool {
        self.blocks.is_kept() || self.blocks.keep(os)
    }

    /// Marks the block at `addr`. `false`: there is no memory to do so, and it is not marked.
    pub fn enter<O: Os>(&self, os: &O, addr: Addr) -> bool {
        let Some(kept) = self.blocks.kept() else { return false };
        kept.enter(os, addr.0, Spacing::Any);
        self.holds(addr)
    }

    /// Whether a block that starts at `addr`, or within 16 bytes below it, is marked.
    #[inline(always)]
    pub fn holds(&self, addr: Addr) -> bool {
        self.blocks.kept().and_then(|kept| kept.place(addr.0)).is_some_and(|place| place.is_live())
    }

    /// Takes the mark from the block at `addr`; says whether it had one. Of two that ask at once, one is told so.
    pub fn leave(&self, addr: Addr) -> bool {
        self.holds(addr) && self.blocks.leave(addr.0, Spacing::Any) == Known::Live
    }
}

impl Default for Marked {
    fn default() -> Marked {
        Marked::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Live;

    #[test]
    fn a_block_has_its_mark_until_it_is_taken_once() {
        let (os, marked) = (Live::new(), Marked::new());
        let block = Addr(0x7000_0000_0010);
        assert!(!marked.enter(&os, block), "it takes nothing before it has begun");
        assert!(marked.begin(&os));
        assert!(!marked.holds(block) && !marked.leave(block));
        assert!(marked.enter(&os, block) && marked.holds(block));
        assert!(!marked.leave(Addr(block.0 + 8)) && !marked.holds(Addr(block.0 + 16)));
        assert!(marked.leave(block) && !marked.leave(block));
    }

    #[test]
    fn blocks_that_are_closer_than_ours_have_marks_of_their_own() {
        let (os, marked) = (Live::new(), Marked::new());
        assert!(marked.begin(&os));
        let blocks = [Addr(0x7000_0000_0020), Addr(0x7000_0000_0030)];
        assert!(blocks.into_iter().all(|block| marked.enter(&os, block)));
        assert!(marked.leave(blocks[1]) && marked.holds(blocks[0]) && !marked.holds(blocks[1]));
        assert!(marked.leave(blocks[0]) && !marked.holds(blocks[0]));
    }
}
