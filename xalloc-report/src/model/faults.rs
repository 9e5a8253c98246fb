//! What the program did wrong with its heap, and the blocks that it did it to.
//!
//! A fault is an event with an address and nothing more, and so is a free of what no allocation explains. Whose block
//! that was, who had freed it and what lies beside it is known only by looking back; so a process with such events is
//! replayed once more. All others, which are nearly all, pay nothing.
//!
//! # Where a block was freed
//! A free is recorded without its call stack unless the user asked for those (`record --free-stacks`), because to capture
//! it would cost as much as the allocation's. A step of the heap may tell it ([`puts_away`]), or the allocation of a
//! `realloc` that moved the block.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use xalloc_core::wire::FaultKind;

use super::put_away::puts_away;
use crate::trace::{Block, Entry, Event, Replay, StackIndex, ThreadIndex};

/// Addresses that are looked into, in each process.
const MOST_ADDRESSES: usize = 4096;
/// Faults that are kept, in each process.
const MOST_FAULTS: usize = 4096;
/// Bytes around an address in which its neighbours are looked for.
const NEAR_BYTES: u64 = 64 << 10;

/// A call that gave the heap a pointer which is no block, or that came upon damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The pointer, or the block at which the damage was noticed.
    pub addr: u64,
    /// What was wrong.
    pub kind: FaultKind,
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// In which thread.
    pub thread: ThreadIndex,
    /// By which calls; none if the heap did not notice, and only the recording shows it.
    pub stack: StackIndex,
    /// Whether the heap noticed it.
    pub is_reported: bool,
    /// The block that the address is in, or last was in.
    pub block: Option<Involved>,
    /// The live block below, unless it is far.
    pub below: Option<Block>,
    /// The live block above, unless it is far.
    pub above: Option<Block>,
}

/// The block that a fault is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Involved {
    /// The block with its allocation.
    pub block: Block,
    /// How it had ceased to live; `None` if it lived.
    pub freed: Option<Freed>,
}

/// A free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freed {
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// By which thread.
    pub thread: ThreadIndex,
    /// By which calls, if that is known.
    pub stack: StackIndex,
}

/// The addresses of faults, and of frees that no recorded allocation explains.
#[derive(Default, Debug)]
pub(super) struct Unexplained {
    faults: FxHashSet<u64>,
    frees: FxHashSet<u64>,
}

impl Unexplained {
    pub(super) fn add_fault(&mut self, addr: u64) {
        if self.faults.len() < MOST_ADDRESSES {
            self.faults.insert(addr);
        }
    }

    pub(super) fn add_free(&mut self, addr: u64) {
        if self.frees.len() < MOST_ADDRESSES {
            self.frees.insert(addr);
        }
    }

    /// Events are missing: that a free's allocation is among them is no fault.
    pub(super) fn forget_frees(&mut self) {
        self.frees.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty() && self.frees.is_empty()
    }

    /// The ranges around them, in order and apart from each other.
    fn surroundings(&self) -> Vec<(u64, u64)> {
        let mut addresses: Vec<_> = self.faults.union(&self.frees).copied().collect();
        addresses.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for addr in addresses {
            let (from, to) = (addr.saturating_sub(NEAR_BYTES), addr.saturating_add(NEAR_BYTES));
            match ranges.last_mut() {
                Some((_, end)) if from <= *end => *end = to,
                _ => ranges.push((from, to)),
            }
        }
        ranges
    }
}

/// How a block ended, and so what tells where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FreedBy {
    /// A step that puts its chunk away.
    Free,
    /// The allocation that replaces it.
    Realloc,
}

/// What a thread freed last.
#[derive(Clone, Copy, Debug)]
struct LastFreed {
    addr: u64,
    by: FreedBy,
}

/// Looks at the blocks around those addresses as they come and go.
#[derive(Debug)]
pub(super) struct LookBack {
    /// What lies outside is not looked at.
    ranges: Vec<(u64, u64)>,
    /// Whether the allocation of what looks like freed twice may be among events that are missing.
    has_gaps: bool,
    live: BTreeMap<u64, Block>,
    /// Blocks that are free and whose memory no other has got.
    freed: BTreeMap<u64, (Block, Freed)>,
    /// What threads freed by their last events, steps aside: what follows may say where.
    last_freed: FxHashMap<ThreadIndex, LastFreed>,
    found: Vec<Fault>,
}

impl LookBack {
    pub(super) fn at(unexplained: &Unexplained) -> LookBack {
        LookBack {
            ranges: unexplained.surroundings(),
            has_gaps: false,
            live: BTreeMap::new(),
            freed: BTreeMap::new(),
            last_freed: FxHashMap::default(),
            found: Vec::new(),
        }
    }

    /// Of a process of which events are missing: a second free is one only if the heap itself noticed it.
    pub(super) fn with_gaps(self) -> LookBack {
        LookBack { has_gaps: true, ..self }
    }

    pub(super) fn finish(self) -> Vec<Fault> {
        self.found
    }

    fn is_near(&self, block: &Block) -> bool {
        let behind = self.ranges.partition_point(|&(_, to)| to < block.addr);
        self.ranges.get(behind).is_some_and(|&(from, _)| from <= end(block))
    }

    fn begins(&mut self, block: &Block) {
        if self.is_near(block) {
            self.forget_freed_within(block);
            self.live.insert(block.addr, *block);
        }
    }

    /// The memory of freed blocks that the block has got is no longer theirs.
    fn forget_freed_within(&mut self, block: &Block) {
        let begins_below = self.freed.range(..block.addr).next_back();
        let reaches_in = begins_below.filter(|(_, (below, _))| end(below) > block.addr).map(|(&addr, _)| addr);
        let inside: Vec<_> = self.freed.range(block.addr..end(block)).map(|(&addr, _)| addr).collect();
        for addr in reaches_in.into_iter().chain(inside) {
            self.freed.remove(&addr);
        }
    }

    fn ends(&mut self, entry: &Entry<'_>, block: &Block, by: FreedBy) {
        if let Some(block) = self.live.remove(&block.addr) {
            let freed = Freed { at_ns: entry.at_ns, thread: entry.thread, stack: entry.stack };
            self.freed.insert(block.addr, (block, freed));
            self.last_freed.insert(entry.thread, LastFreed { addr: block.addr, by });
        }
    }

    fn freed_at(&mut self, addr: u64, stack: StackIndex) {
        if let Some((_, freed)) = self.freed.get_mut(&addr)
            && freed.stack == StackIndex::NONE
        {
            freed.stack = stack;
        }
    }

    fn add(&mut self, entry: &Entry<'_>, addr: u64, kind: FaultKind) {
        if self.found.len() == MOST_FAULTS {
            return;
        }
        let live = self.live.range(..=addr).next_back().map(|(_, block)| Involved { block: *block, freed: None });
        let live = live.filter(|live| addr < end(&live.block));
        let freed = self.freed.range(..=addr).next_back();
        let freed = freed.map(|(_, &(block, freed))| Involved { block, freed: Some(freed) });
        let freed = freed.filter(|freed| addr < end(&freed.block));
        let block = match kind {
            FaultKind::InsideBlock | FaultKind::Overwritten => live.or(freed),
            FaultKind::DoubleFree | FaultKind::CorruptedLists | FaultKind::NotABlock => freed.or(live),
            FaultKind::OnStack => None,
        };
        let (from, to) = block.map_or((addr, addr), |found| (found.block.addr, end(&found.block)));
        let is_beside = |block: &&Block| {
            kind != FaultKind::OnStack
                && from.saturating_sub(end(block)).max(block.addr.saturating_sub(to)) < NEAR_BYTES
        };
        let below = self.live.range(..from).next_back().map(|(_, block)| block).filter(is_beside).copied();
        let above = self.live.range(from.saturating_add(1)..).next().map(|(_, block)| block).filter(is_beside).copied();
        let Entry { at_ns, thread, stack, .. } = *entry;
        let is_reported = matches!(entry.event, Event::Fault { .. });
        self.found.push(Fault { addr, kind, at_ns, thread, stack, is_reported, block, below, above });
    }
}

/// Where the block's memory ends.
fn end(block: &Block) -> u64 {
    block.addr.saturating_add(block.size_bytes.saturating_add(u64::from(block.slack_bytes)).max(1))
}

impl Replay for LookBack {
    fn inherited(&mut self, _slot: u32, block: &Block) {
        self.begins(block);
    }

    fn entry(&mut self, entry: Entry<'_>) {
        let last_freed = self.last_freed.remove(&entry.thread);
        match entry.event {
            Event::Free { block, .. } => self.ends(&entry, block, FreedBy::Free),
            Event::ReallocBegin { block, .. } => self.ends(&entry, block, FreedBy::Realloc),
            Event::Alloc { block, .. } => {
                if let Some(LastFreed { addr, by: FreedBy::Realloc, .. }) = last_freed {
                    self.freed_at(addr, block.stack);
                }
                self.begins(block);
            }
            Event::ReallocUndo { block, .. } => self.begins(block),
            Event::Heap { step, .. } => match last_freed {
                Some(LastFreed { addr, by: FreedBy::Free, .. }) if puts_away(step, addr) => {
                    self.freed_at(addr, entry.stack);
                }
                // A threshold moves before its mapping goes, and a realloc takes steps before it is done.
                Some(last) => {
                    self.last_freed.insert(entry.thread, last);
                }
                None => {}
            },
            Event::Fault { addr, kind } => self.add(&entry, addr, kind),
            Event::FreeUnknown { addr } => {
                if !self.has_gaps && self.freed.contains_key(&addr) {
                    self.add(&entry, addr, FaultKind::DoubleFree);
                }
            }
            Event::AllocFailed { .. }
            | Event::Program(_)
            | Event::HeapCall { .. }
            | Event::Process(_)
            | Event::Marker { .. }
            | Event::Lost { .. } => {}
        }
    }
}
