//! From the ids of one process's trie to the trace's stacks.
//!
//! An id is resolved when the first event names it: up the callers to the nearest one that is known, then down again.
//! The process writes the trie and is not trusted: a caller must have a smaller id, as the trie promises, so every walk
//! ends; what breaks the rule reads as a stack that was cut there.

use xalloc_core::intern::{CAPACITY, FrameMeaning, FrameWord};
use xalloc_core::units::StackId;

use super::dictionary::Dictionary;
use super::modules::ModuleTables;
use crate::os::segment::Segment;
use crate::trace::{FrameIndex, StackIndex};

/// What is known of a process's nodes.
#[derive(Debug)]
pub(crate) struct LocalStacks {
    process: u32,
    /// By id; grows to the largest id met.
    known: Vec<Known>,
    /// Frames whose address was in no module when they were met.
    homeless: Vec<Homeless>,
    /// The path of the walk in progress; kept for its memory.
    path: Vec<(StackId, FrameWord)>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    stack: StackIndex,
    generation: u32,
}

/// Resolving yields [`StackIndex::NONE`] for no id but 0, so it can say "not yet" for all others.
const NOT_YET: Known = Known { stack: StackIndex::NONE, generation: 0 };

#[derive(Clone, Copy, Debug)]
struct Homeless {
    frame: FrameIndex,
    generation: u32,
    address: u64,
    code_at: u64,
}

impl LocalStacks {
    pub(crate) fn new(process: u32) -> LocalStacks {
        LocalStacks { process, known: Vec::new(), homeless: Vec::new(), path: Vec::new() }
    }

    /// The trace's stack for `id`.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        id: StackId,
        segment: &Segment,
        modules: &ModuleTables,
        dictionary: &mut Dictionary,
    ) -> StackIndex {
        match self.known.get(id.0 as usize) {
            Some(known) if known.stack != StackIndex::NONE => known.stack,
            _ if id == StackId::NONE => StackIndex::NONE,
            _ => self.walk(id, segment, modules, dictionary),
        }
    }

    #[cold]
    fn walk(
        &mut self,
        id: StackId,
        segment: &Segment,
        modules: &ModuleTables,
        dictionary: &mut Dictionary,
    ) -> StackIndex {
        if id == StackId::UNKNOWN || id.0 as usize >= CAPACITY {
            return StackIndex::UNKNOWN;
        }
        self.path.clear();
        let mut at = id;
        let mut above = loop {
            if at == StackId::NONE {
                break NOT_YET;
            }
            if let Some(&known) = self.known.get(at.0 as usize)
                && known.stack != StackIndex::NONE
            {
                break known;
            }
            let Some((parent, frame)) = segment.node(at).filter(|(parent, _)| parent.0 < at.0) else {
                // An id that names nothing: the whole stack is unknown; a caller that does: it was cut there.
                if at == id {
                    return StackIndex::UNKNOWN;
                }
                break Known { stack: dictionary.stack(StackIndex::NONE, None), generation: 0 };
            };
            self.path.push((at, frame));
            at = parent;
        };
        while let Some((id, frame)) = self.path.pop() {
            above = self.child(above, frame, modules, dictionary);
            self.remember(id, above);
        }
        // A stack of nothing but the mark of its generation has no frame.
        if above.stack == StackIndex::NONE { StackIndex::UNKNOWN } else { above.stack }
    }

    fn child(&mut self, above: Known, frame: FrameWord, modules: &ModuleTables, dictionary: &mut Dictionary) -> Known {
        let Known { stack, generation } = above;
        let (address, code_at) = match frame.meaning() {
            FrameMeaning::Generation(generation) => return Known { stack, generation },
            FrameMeaning::Paused => return Known { stack: dictionary.paused(), generation },
            FrameMeaning::Cut => return Known { stack: dictionary.stack(stack, None), generation },
            FrameMeaning::ReturnAddress(address) => (address, address.saturating_sub(1)),
            // Stored as if it were a return address, one further on, so that every reader finds the instruction itself.
            FrameMeaning::Interrupted(address) => (address + 1, address),
        };
        let frame = match modules.locate(generation, address, code_at) {
            Some(located) => dictionary.frame_in(located),
            None => {
                let frame = dictionary.frame_elsewhere(self.process, generation, address);
                self.homeless.push(Homeless { frame, generation, address, code_at });
                frame
            }
        };
        Known { stack: dictionary.stack(stack, Some(frame)), generation }
    }

    fn remember(&mut self, id: StackId, known: Known) {
        let at = id.0 as usize;
        if at >= self.known.len() {
            self.known.resize((at + 1).next_power_of_two().min(CAPACITY), NOT_YET);
        }
        self.known[at] = known;
    }

    /// Looks again for the files of frames that had none: a library's own constructors allocate before the process
    /// announces it.
    pub(crate) fn place_homeless(&mut self, modules: &ModuleTables, dictionary: &mut Dictionary) {
        self.homeless.retain(|&Homeless { frame, generation, address, code_at }| {
            match modules.locate(generation, address, code_at) {
                Some(located) => {
                    dictionary.place(frame, located);
                    false
                }
                None => true,
            }
        });
    }
}
