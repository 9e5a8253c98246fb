//! Where blocks go back: pairs of the call site that allocated and the one that freed.
//!
//! Most frees have no call stack of their own, so a free is paired with the step of its thread that puts its chunk away
//! ([`puts_away`]), if one does.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::wire::Call;

use crate::analysis::frames::CallStack;
use crate::model::puts_away;
use crate::trace::{Block, Contents, Entry, Event, Replay, StackIndex};

/// Pairs that are told.
const MOST: usize = 100;

/// Where the blocks of one call site are freed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FreePairView {
    /// How many blocks.
    pub frees: u64,
    /// Their requested bytes.
    pub bytes: u64,
    /// Where they were allocated.
    pub allocated: CallStack,
    /// Where they were freed.
    pub freed: CallStack,
}

/// Pairs of an allocating and a freeing call site, over the process's whole life.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct FreePairsView {
    /// Frees that went past the thread's cache, whose call stack is known.
    pub known: u64,
    /// Frees that ended in a thread's cache, or of which no step is known: nobody says where they were.
    pub unknown: u64,
    /// Different pairs.
    pub pairs_total: u64,
    /// The pairs with the most frees, at most 100.
    pub pairs: Vec<FreePairView>,
}

/// A free that waits for its step.
#[derive(Clone, Copy, Debug)]
struct Freed {
    addr: u64,
    size_bytes: u64,
    stack: StackIndex,
}

/// Frees and their bytes.
#[derive(Clone, Copy, Default, Debug)]
struct Sum {
    frees: u64,
    bytes: u64,
}

/// The pairs of a process.
#[derive(Default, Debug)]
pub(super) struct FreePairs {
    /// By thread.
    waiting: Vec<Option<Freed>>,
    by_pair: FxHashMap<(StackIndex, StackIndex), Sum>,
    frees: u64,
}

impl FreePairs {
    /// What is told of them.
    pub(super) fn view(&self, contents: &Contents) -> FreePairsView {
        let mut pairs: Vec<_> = self.by_pair.iter().map(|(&pair, &sum)| (pair, sum)).collect();
        pairs.sort_by_key(|&(pair, sum)| (std::cmp::Reverse((sum.frees, sum.bytes)), pair));
        let known = pairs.iter().map(|(_, sum)| sum.frees).sum();
        let view = |&((allocated, freed), sum): &((StackIndex, StackIndex), Sum)| FreePairView {
            frees: sum.frees,
            bytes: sum.bytes,
            allocated: CallStack::of(contents, allocated, Call::Malloc),
            freed: CallStack::of(contents, freed, Call::Free),
        };
        FreePairsView {
            known,
            unknown: self.frees - known,
            pairs_total: pairs.len() as u64,
            pairs: pairs.iter().take(MOST).map(view).collect(),
        }
    }
}

impl Replay for FreePairs {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        let thread = entry.thread.0 as usize;
        match entry.event {
            Event::Free { block, .. } => {
                self.frees += 1;
                if thread >= self.waiting.len() {
                    self.waiting.resize(thread + 1, None);
                }
                self.waiting[thread] =
                    Some(Freed { addr: block.addr, size_bytes: block.size_bytes, stack: block.stack });
            }
            Event::Heap { step, .. } => {
                let Some(waiting) = self.waiting.get_mut(thread).filter(|_| entry.stack != StackIndex::NONE) else {
                    return;
                };
                let Some(freed) = waiting.take_if(|freed| puts_away(step, freed.addr)) else { return };
                let sum = self.by_pair.entry((freed.stack, entry.stack)).or_default();
                sum.frees += 1;
                sum.bytes = sum.bytes.saturating_add(freed.size_bytes);
            }
            Event::Alloc { .. } | Event::ReallocBegin { .. } => {
                // What the heap does from here on is for something else.
                if let Some(waiting) = self.waiting.get_mut(thread) {
                    *waiting = None;
                }
            }
            Event::AllocFailed { .. }
            | Event::ReallocUndo { .. }
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
