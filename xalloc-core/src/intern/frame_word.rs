//! What a node of the stack trie stands for, in one word.

/// A code address with its kind, or one of the three marks; never zero.
///
/// Bits 0 to 47 hold the address or the generation, bit 62 tells an interrupted instruction from a return address, and
/// the two top bits together tell a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct FrameWord(pub u64);

/// The reading of a [`FrameWord`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameMeaning {
    /// The address behind a call: the call itself is one byte before it, or more.
    ReturnAddress(u64),
    /// The very instruction that a signal interrupted.
    Interrupted(u64),
    /// The stack was cut at its root end: deeper than the limit, or not walkable any further.
    Cut,
    /// No stack was captured, because recording was paused.
    Paused,
    /// The root of all stacks that were captured after the n-th time that code was unmapped. Addresses of different
    /// generations can belong to different files.
    Generation(u32),
}

const ADDRESS: u64 = (1 << 48) - 1;
const INTERRUPTED: u64 = 1 << 62;
const MARK: u64 = 0b11 << 62;
const CUT: u64 = MARK | 1 << 48;
const PAUSED: u64 = MARK | 1 << 49;

impl FrameWord {
    /// The stack was cut here.
    pub const CUT: FrameWord = FrameWord(CUT);

    /// Recording was paused.
    pub const PAUSED: FrameWord = FrameWord(PAUSED);

    /// A frame that was found by its return address.
    #[must_use]
    pub const fn return_address(address: u64) -> FrameWord {
        FrameWord(address & ADDRESS)
    }

    /// A frame that a signal interrupted at `address`.
    #[must_use]
    pub const fn interrupted(address: u64) -> FrameWord {
        FrameWord((address & ADDRESS) | INTERRUPTED)
    }

    /// The root of a generation. Generation 0 needs none: its stacks begin at [`crate::units::StackId::NONE`].
    #[must_use]
    pub const fn generation(number: u32) -> FrameWord {
        FrameWord(MARK | number as u64)
    }

    /// What the word says.
    #[must_use]
    pub const fn meaning(self) -> FrameMeaning {
        if self.0 == CUT {
            FrameMeaning::Cut
        } else if self.0 == PAUSED {
            FrameMeaning::Paused
        } else if self.0 & MARK == MARK {
            FrameMeaning::Generation(self.0 as u32)
        } else if self.0 & INTERRUPTED != 0 {
            FrameMeaning::Interrupted(self.0 & ADDRESS)
        } else {
            FrameMeaning::ReturnAddress(self.0 & ADDRESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_says_what_it_was_made_of() {
        assert_eq!(
            FrameWord::return_address(0x7fff_1234_5678).meaning(),
            FrameMeaning::ReturnAddress(0x7fff_1234_5678)
        );
        assert_eq!(FrameWord::interrupted(0x40_1000).meaning(), FrameMeaning::Interrupted(0x40_1000));
        assert_eq!(FrameWord::CUT.meaning(), FrameMeaning::Cut);
        assert_eq!(FrameWord::PAUSED.meaning(), FrameMeaning::Paused);
        assert_eq!(FrameWord::generation(0).meaning(), FrameMeaning::Generation(0));
        assert_eq!(FrameWord::generation(u32::MAX).meaning(), FrameMeaning::Generation(u32::MAX));
    }
}
