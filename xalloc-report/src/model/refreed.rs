//! Blocks that were freed twice.
//!
//! The writer matches a free to the block that lives at its address. A second free of it finds none there, and looks
//! like one of memory from before the recording. What was freed before is known only by looking back, so a process with
//! such frees is replayed once more; all others, which are nearly all, pay nothing.

use rustc_hash::{FxHashMap, FxHashSet};

use xalloc_core::wire::FaultKind;

use crate::trace::{Block, Entry, Event, Replay, StackIndex};

/// Addresses of unknown frees that are looked into, in each process.
const MOST_ADDRESSES: usize = 4096;

/// A block that was freed, and freed again before its address was given out anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoubleFree {
    /// User address.
    pub addr: u64,
    /// Requested size of the block.
    pub size_bytes: u64,
    /// Where the block was allocated.
    pub stack: StackIndex,
    /// When it was given back, nanoseconds since the recording's start.
    pub freed_at_ns: u64,
    /// When it was freed again.
    pub again_at_ns: u64,
    /// By whom, if the heap refused it; a free that is not refused carries no call stack.
    pub again_stack: StackIndex,
}

/// The addresses of frees that no recorded allocation explains.
#[derive(Default, Debug)]
pub(super) struct Unexplained(FxHashSet<u64>);

impl Unexplained {
    pub(super) fn add(&mut self, addr: u64) {
        if self.0.len() < MOST_ADDRESSES {
            self.0.insert(addr);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Finds those that were freed before.
#[derive(Debug)]
pub(super) struct LookBack {
    unexplained: Unexplained,
    /// The blocks that were freed, by address, with the time.
    freed: FxHashMap<u64, (Block, u64)>,
    found: Vec<DoubleFree>,
}

impl LookBack {
    pub(super) fn at(unexplained: Unexplained) -> LookBack {
        LookBack { unexplained, freed: FxHashMap::default(), found: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<DoubleFree> {
        self.found
    }

    fn freed(&mut self, entry: &Entry<'_>, block: &Block) {
        if self.unexplained.0.contains(&block.addr) {
            self.freed.insert(block.addr, (*block, entry.at_ns));
        }
    }
}

impl Replay for LookBack {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    fn entry(&mut self, entry: Entry<'_>) {
        match entry.event {
            Event::Free { block, .. } | Event::ReallocBegin { block, .. } => self.freed(&entry, block),
            Event::Alloc { block, .. } | Event::ReallocUndo { block, .. } => {
                self.freed.remove(&block.addr);
            }
            Event::FreeUnknown { addr } | Event::Fault { addr, kind: FaultKind::DoubleFree } => {
                if let Some(&(Block { size_bytes, stack, .. }, freed_at_ns)) = self.freed.get(&addr) {
                    let (again_at_ns, again_stack) = (entry.at_ns, entry.stack);
                    self.found.push(DoubleFree { addr, size_bytes, stack, freed_at_ns, again_at_ns, again_stack });
                }
            }
            Event::AllocFailed { .. }
            | Event::Heap { .. }
            | Event::Program(_)
            | Event::HeapCall { .. }
            | Event::Process(_)
            | Event::Fault { .. }
            | Event::Marker { .. }
            | Event::Lost { .. } => {}
        }
    }
}
