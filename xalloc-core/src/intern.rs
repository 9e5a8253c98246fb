//! The stack trie in shared memory: a call stack becomes a four-byte id.
//!
//! A node is a frame and the node of its caller, so a stack is named by its innermost frame's node and two stacks
//! share the nodes of their common callers. The program's threads insert, the recorder reads; nobody waits, and a
//! thread that is killed half way leaves nothing that another would trip over.
//!
//! # Invariant
//! Nodes are taken by counting up and written before their id is stored anywhere; an id that can be seen (in a parent, in the
//! index, in a record) names a node that is whole. Of a node nothing is ever changed but that it gets its first child. A
//! parent's id is smaller than its child's.
//!
//! # The first child is named by its parent
//! Frames that only one frame calls are most of a trie, so a node names the first child that it got, and the index holds the
//! others. A stack that is interned takes its nodes one behind the other: whoever comes along there again finds four
//! to a cache line, and goes to the index, each of whose places is in another line, only where stacks part. In a compiler three
//! in four nodes are first children, and so are three in five of those that are looked up. A list of all children through their
//! siblings would need no index, but dispatchers have a thousand.
//!
//! # The index grows by levels
//! A table for four million nodes would be touched all over by the first thousand, and cost a small program 32 MiB. So
//! there are four tables, each eight times the last but one; new entries go into the smallest that is at most half
//! full, look-ups begin there and fall back to the older, and what they find is entered again above. Two threads that
//! insert the same stack at once can both succeed (a lost race, or a level that changes between): the recorder merges
//! equal nodes, so that costs 16 bytes and is never wrong.
//!
//! # Nothing is touched before it is reserved
//! The trie lies in a file that is larger than what it holds; to touch a page for which the file system has no room is
//! a SIGBUS in the program. So nodes are asked for in steps ([`Reserve`]), with the level of the index that they go
//! into, and counted into `limit` once they are there. Nodes are taken by a compare-exchange below the limit and never by
//! an addition that is taken back: meanwhile the limit could rise, and one number be handed out twice.

use core::ops::Range;

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::units::StackId;

mod frame_word;
#[cfg(all(test, not(xalloc_loom)))]
mod tests;

pub use frame_word::{FrameMeaning, FrameWord};

/// Bits of an id. The other bits of an index entry hold a tag, so that most mismatches touch no node.
const ID_BITS: u32 = 22;

/// Most nodes that a process can have: ids 0 and 1 are reserved ([`StackId::NONE`], [`StackId::UNKNOWN`]).
pub const CAPACITY: usize = 1 << ID_BITS;

/// Entries of each level of the index.
pub const LEVELS: [usize; 4] = [1 << 14, 1 << 17, 1 << 20, 1 << 23];

/// Entries of all levels together.
pub const INDEX_ENTRIES: usize = LEVELS[0] + LEVELS[1] + LEVELS[2] + LEVELS[3];

/// One node.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Node {
    frame: AtomicU64,
    parent: AtomicU32,
    /// The node that was first called by this one; 0: none was.
    first_child: AtomicU32,
}

impl Node {
    /// A node that was never taken. (Zeroed shared memory is the same.)
    #[must_use]
    pub fn empty() -> Self {
        Node { frame: AtomicU64::new(0), parent: AtomicU32::new(0), first_child: AtomicU32::new(0) }
    }
}

/// The shared counters of a trie.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Counters {
    /// Nodes taken beyond the two reserved ones.
    taken: AtomicU32,
    /// Nodes, counted from the first, that may be touched, and with them the level of the index that they go into.
    limit: AtomicU32,
    /// Stacks that could not be interned because there was no room for a node.
    lost: AtomicU64,
}

impl Counters {
    /// The counters of an empty trie. (Zeroed shared memory is the same.)
    #[must_use]
    pub fn new() -> Self {
        Counters { taken: AtomicU32::new(0), limit: AtomicU32::new(0), lost: AtomicU64::new(0) }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Counters::new()
    }
}

/// What a trie is about to touch for the first time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Growth {
    /// These nodes, by number.
    pub nodes: Range<usize>,
    /// And the whole of this level of the index.
    pub level: Option<usize>,
}

/// Who gets the memory of a trie ready.
pub trait Reserve: core::fmt::Debug + Sync {
    /// Sees to it that touching `growth` cannot fail. False: there is no room for it. Threads may ask for the same at
    /// once, and for what was granted before.
    fn reserve(&self, growth: &Growth) -> bool;
}

/// Memory that is all there.
#[derive(Debug)]
struct Whole;

impl Reserve for Whole {
    fn reserve(&self, _: &Growth) -> bool {
        true
    }
}

/// A trie: counters, nodes and index, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub struct Trie<'a> {
    counters: &'a Counters,
    nodes: &'a [Node],
    levels: &'a [&'a [AtomicU32]],
    memory: &'a dyn Reserve,
}

const FIRST: u32 = 2;
/// Most nodes that are reserved at once: 1 MiB of them.
const STEP: usize = (1 << 20) / size_of::<Node>();
/// Lost stacks between two attempts to reserve where there was no room: each is a system call or two.
const PATIENCE: u64 = 1024;

impl<'a> Trie<'a> {
    /// The trie over this memory, which is all there. `levels` are powers of two in rising order, and the last is at
    /// least twice `nodes`.
    #[must_use]
    pub fn new(counters: &'a Counters, nodes: &'a [Node], levels: &'a [&'a [AtomicU32]]) -> Self {
        Trie::growing(counters, nodes, levels, &Whole)
    }

    /// As [`Trie::new`], over memory of which only that may be touched which `memory` has reserved.
    #[must_use]
    pub fn growing(
        counters: &'a Counters,
        nodes: &'a [Node],
        levels: &'a [&'a [AtomicU32]],
        memory: &'a dyn Reserve,
    ) -> Self {
        debug_assert!(levels.iter().all(|level| level.len().is_power_of_two()));
        Trie { counters, nodes, levels, memory }
    }

    /// The id of the stack whose innermost frame is `frame` and whose callers are `parent`, which this trie has named.
    ///
    /// [`StackId::UNKNOWN`], and one more on the count of lost stacks, if there is no room for a node.
    #[inline]
    pub fn insert(&self, parent: StackId, frame: FrameWord) -> StackId {
        if parent == StackId::UNKNOWN {
            return StackId::UNKNOWN;
        }
        // Before the first node no memory is reserved.
        // ORDERING: pairs with the Release exchange in `take`: what was reserved for the first node is there.
        if self.counters.taken.load(Ordering::Acquire) != 0
            && let Some(node) = self.nodes.get(parent.0 as usize)
            // ORDERING: pairs with the Release exchange in `adopt`: the child is whole.
            && let first = node.first_child.load(Ordering::Acquire)
            && self.is_child(first, frame)
        {
            return StackId(first);
        }
        self.insert_otherwise(parent, frame)
    }

    /// Whether node `first`, which is its parent's first child unless it is 0, is `frame`. (Node 0 has no frame.)
    #[inline(always)]
    fn is_child(&self, first: u32, frame: FrameWord) -> bool {
        // Relaxed: ordered by the Acquire that gave us the id.
        self.nodes.get(first as usize).is_some_and(|child| child.frame.load(Ordering::Relaxed) == frame.0)
    }

    /// The same of what is not its parent's first child.
    #[inline(never)]
    fn insert_otherwise(&self, parent: StackId, frame: FrameWord) -> StackId {
        let Some(current) = self.current_level() else { return self.lose() };
        let Some(node) = self.nodes.get(parent.0 as usize) else { return self.lose() };
        let hash = hash(parent, frame);
        // Relaxed: no node is looked at because of it.
        if node.first_child.load(Ordering::Relaxed) == 0 {
            let Some(id) = self.take(parent, frame) else { return self.lose() };
            return match self.adopt(node, id, frame) {
                Some(first) => first,
                None => self.enter(current, hash, id, parent, frame),
            };
        }
        if let Some(found) = self.find(current, hash, parent, frame) {
            return found;
        }
        let older = (0..current).rev().find_map(|level| self.find(level, hash, parent, frame));
        let Some(id) = older.or_else(|| self.take(parent, frame)) else { return self.lose() };
        self.enter(current, hash, id, parent, frame)
    }

    /// Makes node `id`, which is `frame`, the first child of `parent`, and says which node stands for the frame. `None`: another
    /// frame was first.
    fn adopt(&self, parent: &Node, id: StackId, frame: FrameWord) -> Option<StackId> {
        // ORDERING: Release publishes the node to `insert`; Acquire, when another child is there, pairs with its Release, so
        // that it can be compared.
        match parent.first_child.compare_exchange(0, id.0, Ordering::Release, Ordering::Acquire) {
            Ok(_) => Some(id),
            Err(first) => self.is_child(first, frame).then_some(StackId(first)),
        }
    }

    #[cold]
    fn lose(&self) -> StackId {
        // Relaxed: a statistic.
        self.counters.lost.fetch_add(1, Ordering::Relaxed);
        StackId::UNKNOWN
    }

    /// The level that takes new entries: the smallest that is at most half full. `None`: there is no room for any.
    #[inline]
    fn current_level(&self) -> Option<usize> {
        // ORDERING: pairs with the Release exchange in `take`: a level that a node was taken for is reserved. Any recent
        // value will do, a stale one puts an entry into an older level.
        let taken = self.counters.taken.load(Ordering::Acquire) as usize;
        if taken == 0 {
            self.make_room(FIRST as usize)?;
        }
        self.levels.iter().position(|level| taken < level.len() / 2).or(self.levels.len().checked_sub(1))
    }

    fn find(&self, level: usize, hash: u64, parent: StackId, frame: FrameWord) -> Option<StackId> {
        let table = self.levels[level];
        let mask = table.len() - 1;
        for probe in 0..table.len() {
            // ORDERING: pairs with the Release exchange in `enter`: the node that the id names is whole.
            let entry = table[(hash as usize + probe) & mask].load(Ordering::Acquire);
            if entry == 0 {
                return None;
            }
            if let Some(id) = self.matches(entry, hash, parent, frame) {
                return Some(id);
            }
        }
        None
    }

    #[inline(always)]
    fn matches(&self, entry: u32, hash: u64, parent: StackId, frame: FrameWord) -> Option<StackId> {
        if entry >> ID_BITS != tag(hash) {
            return None;
        }
        let id = entry & (CAPACITY as u32 - 1);
        let node = self.nodes.get(id as usize)?;
        // Relaxed: ordered by the Acquire load that gave us the entry.
        let equal = node.frame.load(Ordering::Relaxed) == frame.0 && node.parent.load(Ordering::Relaxed) == parent.0;
        equal.then_some(StackId(id))
    }

    fn take(&self, parent: StackId, frame: FrameWord) -> Option<StackId> {
        let mut taken = self.counters.taken.load(Ordering::Relaxed);
        let id = loop {
            let id = taken.checked_add(FIRST)?;
            self.make_room(id as usize)?;
            // ORDERING: Release pairs with the Acquire load in `current_level`: the memory that `make_room` saw reserved
            // is so for whoever sees the node taken. The node itself is published by the parent, the index entry or the
            // record that names it.
            match self.counters.taken.compare_exchange(taken, taken + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break id,
                Err(newer) => taken = newer,
            }
        };
        let node = self.nodes.get(id as usize)?;
        node.parent.store(parent.0, Ordering::Relaxed);
        node.frame.store(frame.0, Ordering::Relaxed);
        Some(StackId(id))
    }

    /// Sees to it that node `id` may be touched. `None`: there is no room for it.
    #[inline]
    fn make_room(&self, id: usize) -> Option<()> {
        loop {
            // ORDERING: pairs with the Release maximum in `grow`.
            let limit = self.counters.limit.load(Ordering::Acquire) as usize;
            if id < limit {
                return Some(());
            }
            self.grow(limit)?;
        }
    }

    /// Reserves the nodes from `limit` on, as many as go into one level of the index.
    #[cold]
    fn grow(&self, limit: usize) -> Option<()> {
        let half = |level: usize| self.levels.get(level).map_or(0, |entries| entries.len() / 2);
        let last = self.levels.len().checked_sub(1)?;
        let level = (0..last).find(|&level| limit < half(level)).unwrap_or(last);
        let most = if level == last { self.nodes.len() } else { half(level).min(self.nodes.len()) };
        let end = (limit + STEP).min(most);
        let is_first_of_its_level = limit == level.checked_sub(1).map_or(0, half);
        let growth = Growth { nodes: limit..end, level: is_first_of_its_level.then_some(level) };
        let lost = self.counters.lost.load(Ordering::Relaxed);
        if growth.nodes.is_empty() || !lost.is_multiple_of(PATIENCE) || !self.memory.reserve(&growth) {
            return None;
        }
        // ORDERING: Release says that the memory is there; pairs with the Acquire load in `make_room`.
        self.counters.limit.fetch_max(end as u32, Ordering::Release);
        Some(())
    }

    /// Enters `id` at its place in `level`; if another thread entered the same stack meanwhile, its id is the answer.
    fn enter(&self, level: usize, hash: u64, id: StackId, parent: StackId, frame: FrameWord) -> StackId {
        let table = self.levels[level];
        let mask = table.len() - 1;
        let entry = id.0 | tag(hash) << ID_BITS;
        for probe in 0..table.len() {
            let place = &table[(hash as usize + probe) & mask];
            // ORDERING: Release publishes the node to `find`; Acquire, when another entry is there, pairs with its
            // Release, so that its node can be compared.
            match place.compare_exchange(0, entry, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return id,
                Err(other) => {
                    if let Some(other) = self.matches(other, hash, parent, frame) {
                        return other;
                    }
                }
            }
        }
        // The level is full: only possible when many threads raced past its half at once. The node stands all the same.
        id
    }

    /// One more than the largest id in use. Nodes below it can be read, save those that a thread is just writing,
    /// which no record names yet.
    #[must_use]
    pub fn end(&self) -> StackId {
        // Relaxed: whoever reads a record with an id synchronised with its thread through the ring.
        StackId((self.counters.taken.load(Ordering::Relaxed).saturating_add(FIRST)).min(self.nodes.len() as u32))
    }

    /// The caller's node and the frame of node `id`; `None` for the reserved ids, for ids out of range, and for a
    /// node that was taken but not yet written.
    #[must_use]
    pub fn get(&self, id: StackId) -> Option<(StackId, FrameWord)> {
        if id < StackId(FIRST) || id >= self.end() {
            return None;
        }
        let node = self.nodes.get(id.0 as usize)?;
        // Relaxed: the reader synchronised with the writer through the ring that carried the id.
        let frame = node.frame.load(Ordering::Relaxed);
        let parent = node.parent.load(Ordering::Relaxed);
        (frame != 0).then_some((StackId(parent), FrameWord(frame)))
    }

    /// Stacks that were lost because there was no room for a node.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counters.lost.load(Ordering::Relaxed)
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> (64 - (32 - ID_BITS))) as u32
}

/// Mixes both keys so that the low bits (the place) and the high bits (the tag) depend on all of them: a multiply by
/// an odd constant with the fractional bits of the golden ratio, folded, as Fibonacci hashing does it.
fn hash(parent: StackId, frame: FrameWord) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (frame.0 ^ (parent.0 as u64) << 40).wrapping_mul(GOLDEN) ^ (parent.0 as u64).wrapping_mul(GOLDEN);
    let folded = mixed ^ mixed >> 29;
    let spread = folded.wrapping_mul(GOLDEN);
    spread ^ spread >> 32
}
