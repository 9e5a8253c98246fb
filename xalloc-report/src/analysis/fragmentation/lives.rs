//! How many blocks each call site made in the process's life, and how long they lived.

use crate::trace::{Block, Entry, Event, Replay, StackIndex, ThreadIndex};

/// The blocks of one call site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Lived {
    /// Allocations, reallocs included.
    pub(super) allocations: u64,
    frees: u64,
    lifetimes_ns: u64,
}

impl Lived {
    /// Of the blocks that were freed; `None` if none was.
    pub(super) fn mean_lifetime_ns(&self) -> Option<u64> {
        self.lifetimes_ns.checked_div(self.frees)
    }

    fn freed(&mut self, lifetime_ns: u64) {
        self.frees += 1;
        self.lifetimes_ns = self.lifetimes_ns.saturating_add(lifetime_ns);
    }
}

/// All call sites of a process. A realloc frees the old block if it succeeds.
#[derive(Default, Debug)]
pub(super) struct Lives {
    by_stack: Vec<Lived>,
    /// The reallocs that threads are within: whose block it was, and how long it had lived.
    changing: Vec<(ThreadIndex, StackIndex, u64)>,
}

impl Lives {
    /// The blocks of a call site.
    pub(super) fn of(&self, stack: StackIndex) -> Lived {
        self.by_stack.get(stack.0 as usize).copied().unwrap_or_default()
    }

    #[inline]
    fn at(&mut self, stack: StackIndex) -> &mut Lived {
        let at = stack.0 as usize;
        if at >= self.by_stack.len() {
            self.by_stack.resize(at + 1, Lived::default());
        }
        &mut self.by_stack[at]
    }

    #[inline]
    fn change_of(&mut self, thread: ThreadIndex) -> Option<(StackIndex, u64)> {
        let place = self.changing.iter().position(|(by, ..)| *by == thread)?;
        let (_, stack, lifetime_ns) = self.changing.swap_remove(place);
        Some((stack, lifetime_ns))
    }
}

impl Replay for Lives {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        match entry.event {
            Event::Alloc { block, .. } => {
                if let Some((stack, lifetime_ns)) = self.change_of(entry.thread) {
                    self.at(stack).freed(lifetime_ns);
                }
                self.at(block.stack).allocations += 1;
            }
            Event::Free { block, .. } => self.at(block.stack).freed(entry.at_ns.saturating_sub(block.at_ns)),
            Event::ReallocBegin { block, .. } => {
                let lifetime_ns = entry.at_ns.saturating_sub(block.at_ns);
                self.changing.push((entry.thread, block.stack, lifetime_ns));
            }
            Event::ReallocUndo { .. } => {
                let _kept = self.change_of(entry.thread);
            }
            Event::AllocFailed { .. }
            | Event::Heap { .. }
            | Event::HeapCall { .. }
            | Event::Fault { .. }
            | Event::FreeUnknown { .. }
            | Event::Program(_)
            | Event::Process(_)
            | Event::Marker { .. }
            | Event::Lost { .. } => {}
        }
    }
}
