//! Which blocks a program can still reach: marking from its roots, and an order in what is lost.
//!
//! A word that lies in a root or in a reachable block and whose value is an address inside a live block is a pointer to
//! it. There is no other knowledge: what the program means by a word cannot be known from outside. So the verdict leans
//! to the side of the program. A pointer to a block's first byte (or, with a tag in its low three bits, to its first
//! eight) makes it reachable; one into its middle makes it [`Verdict::Possible`], unless the words around the pointer have
//! a shape that such pointers are known to have ([`shape`]).
//!
//! # Phases
//! 1. [`Marker::root`] and [`Marker::value`] take the roots; whatever a reachable block points to is reachable.
//! 2. [`Marker::finish`] goes on from the possible blocks: what hangs on them alone is possible too.
//! 3. What is left is lost. Its blocks form a graph; the strongly connected components to which no other component points
//!    are what was leaked, each with one block as its leader, and everything else hangs on them ([`lost`]).
//! 4. [`Marker::hint`] may be shown the same memory again: it looks for disguised pointers to leaders, which change no
//!    verdict.
//!
//! # Cost
//! Every word of roots and live blocks is read once, and compared with the range that all blocks lie in; what is in it is
//! looked up in a table with two slots for each block ([`index`]). A block is pushed once. All memory is the caller's
//! ([`Scratch`]), for this runs in a program whose allocator must not be called.
//!
//! # Why not in another process
//! The recorder could read the program's memory, but the right to do that is the first thing that a container or a
//! hardened kernel takes away, and copying a heap costs more than looking at it. Pointers in registers could not be had
//! that way without ptrace.

mod hint;
mod index;
mod lost;
mod mark;
mod shape;
#[cfg(test)]
mod tests;

use core::ops::Range;

pub use index::Span;
pub use mark::Marker;

/// A live block, as the recorder knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Block {
    /// User address.
    pub addr: u64,
    /// Requested size in the low 56 bits, [`flag`]s above.
    size_and_flags: u64,
}

/// What is known of a block beforehand.
pub mod flag {
    /// It counts as reachable whoever points to it: the loader's own, or one that the program wants ignored.
    pub const ROOT: u8 = 1;
    /// A forked process had it from its parent: it is no leak of this process, and nothing is lost because of it.
    pub const INHERITED: u8 = 2;
    /// The program does not have it: the scan is tried by it.
    pub const CONTROL: u8 = 4;
}

const SIZE_BITS: u32 = 56;

impl Block {
    /// A block of that many requested bytes; more than 2^56 are none that a machine has, and are cut.
    #[must_use]
    pub const fn new(addr: u64, size_bytes: u64, flags: u8) -> Block {
        let most = (1 << SIZE_BITS) - 1;
        let size_bytes = if size_bytes > most { most } else { size_bytes };
        Block { addr, size_and_flags: size_bytes | (flags as u64) << SIZE_BITS }
    }

    /// The block as it lies in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        (u128::from(self.size_and_flags) << 64 | u128::from(self.addr)).to_ne_bytes()
    }

    /// Requested bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_and_flags & ((1 << SIZE_BITS) - 1)
    }

    /// Behind the last address that counts as inside: a block without bytes has its first.
    #[must_use]
    pub const fn end(&self) -> u64 {
        let size_bytes = self.size_bytes();
        self.addr.saturating_add(if size_bytes == 0 { 1 } else { size_bytes })
    }

    /// Whether it has the [`flag`].
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        (self.size_and_flags >> SIZE_BITS) as u8 & flag != 0
    }

    /// The words that are read of it: whole ones within its requested bytes.
    fn words(&self) -> Range<u64> {
        let start = self.addr.next_multiple_of(8);
        start..(self.addr + self.size_bytes()) / 8 * 8
    }
}

/// What a scan says of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verdict {
    /// Nothing that the program can reach points to it. Of a finished scan only blocks with [`flag::INHERITED`] are that.
    Lost = 0,
    /// Something reachable points to it, or it is a root itself.
    Reachable = 1,
    /// Something points into its middle.
    Possible = 2,
    /// Lost, and no other lost block points to it.
    Definite = 3,
    /// Lost, and of a component of several blocks to which no other lost block points: the one that stands for it.
    Cycle = 4,
    /// Lost, and hanging on the leader whose number is [`Mark::other`].
    Indirect = 5,
}

impl Verdict {
    /// The verdict with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Verdict> {
        Some(match number {
            0 => Verdict::Lost,
            1 => Verdict::Reachable,
            2 => Verdict::Possible,
            3 => Verdict::Definite,
            4 => Verdict::Cycle,
            5 => Verdict::Indirect,
            _ => return None,
        })
    }
}

/// How a hint is disguised; 0 is none.
pub mod disguise {
    /// It lies at an address that is no multiple of 8.
    pub const UNALIGNED: u8 = 1;
    /// It points just behind the block.
    pub const ONE_PAST_END: u8 = 2;
    /// Something else is in its upper 16 bits.
    pub const TOP_TAGGED: u8 = 3;
    /// It is shifted.
    pub const SHIFTED: u8 = 4;
}

/// What was found out of one block. Zeroes are the first value.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Mark {
    /// Reachable, possible: where the pointer lies that was met first, or what [`Marker::value`] was told. A leader:
    /// where the disguised pointer lies. Else 0.
    pub at: u64,
    /// Indirect: the number of its leader. Else 0.
    pub other: u32,
    /// A [`Verdict`] by number.
    pub verdict: u8,
    /// A [`disguise`], for leaders.
    pub disguise: u8,
    reserved: [u8; 2],
}

impl Mark {
    /// The mark that lies in memory like this; what is missing is zero.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Mark {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let word = |at: usize| u32::from_ne_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
        Mark {
            at: u64::from(word(4)) << 32 | u64::from(word(0)),
            other: word(8),
            verdict: byte(12),
            disguise: byte(13),
            reserved: [0; 2],
        }
    }
}

/// The memory that is looked at.
pub trait Memory {
    /// Copies the words from `addr`, a multiple of 8, up to the first that cannot be read. Returns how many those are.
    fn copy(&mut self, addr: u64, into: &mut [u64]) -> usize;

    /// Whether the address lies in data of a module that the program cannot write: where tables of virtual functions are.
    fn is_constant(&self, addr: u64) -> bool;

    /// Whether the address lies in code.
    fn is_code(&self, addr: u64) -> bool;

    /// The word at `addr`.
    fn word(&mut self, addr: u64) -> Option<u64> {
        let mut word = [0];
        (addr.is_multiple_of(8) && self.copy(addr, &mut word) == 1).then_some(word[0])
    }
}

/// The memory that a scan of so many blocks needs besides the blocks and their marks; all of it zeroes at first.
#[derive(Debug)]
pub struct Scratch<'s> {
    /// Of length [`Scratch::words_for`].
    pub words: &'s mut [u32],
    /// One for each block: of runs of blocks without a large gap between them there can be as many.
    pub spans: &'s mut [Span],
}

impl Scratch<'_> {
    /// Words that a scan of that many blocks needs. All but the first third is touched only where blocks are lost.
    #[must_use]
    pub const fn words_for(blocks: usize) -> usize {
        index::slots_for(blocks) + blocks + lost::WORDS_PER_BLOCK * blocks
    }
}
