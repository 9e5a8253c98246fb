//! Where everything lies: each chunk of each range of the heap at one event of the recording.
//!
//! A [`Layout`] takes the events of a process and keeps, outside of the program, what the heap keeps in the words
//! before each chunk. It can be asked at any event: [`Layout::spans`] goes through all ranges in order of address,
//! chunk by chunk, as a walk of the heap itself would.
//!
//! # What determines it
//! Every step of an arena that moves a chunk from one class to another is an event, but for three, which follow from
//! the program's own events: a free that ends in the thread's cache (a freed chunk that no step names is there), the
//! allocation from it, and the allocation of a whole chunk from a bin. A test drives the simulated heap at random and
//! compares this layout with the heap's own walk, chunk for chunk.
//!
//! # Books
//! The classes are counted twice, once as the steps come and once by walking: [`Layout::books`] compares both, and a
//! difference is a defect of this tool or a trace with lost events. In the middle of an operation (a `realloc` that
//! has cut its block and not been told yet) they may differ; they agree at its end.
//!
//! # Which pages are resident
//! Not known between two looks at the kernel's tables. It is modelled: a page is resident once a chunk that reaches
//! into it was handed out or a header was written there, until it is trimmed, discarded or unmapped.

use rustc_hash::FxHashMap;
use xalloc_core::heap::{Parameter, Policy, Tunable};
use xalloc_core::units::{ArenaId, PAGE_BYTES};
use xalloc_core::wire::{Call, HeapCall};

use crate::trace::{Block, Contents, Entry, Event, Replay, StackIndex, ThreadIndex};

mod books;
mod marks;
mod ranges;
mod spans;
mod steps;
#[cfg(test)]
mod tests;

pub use books::{Books, Imbalance};
pub use ranges::{Range, RangeKind};
pub use spans::{Place, Span};

use marks::{Mark, Marks};
use ranges::Ranges;

/// From a chunk's address to its block's.
const HEADER: u64 = 16;
/// Size of the top from which a free trims, while nobody has moved it (placement policy, section 1).
const TRIM_THRESHOLD: u64 = 131_072;
/// What an automatic trim leaves, unless tuned (placement policy, section 1).
const TOP_PAD: u64 = 131_072;

/// A block that lives, as its allocation told it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// User address.
    pub addr: u64,
    /// Requested size.
    pub size_bytes: u64,
    /// Usable minus requested size.
    pub slack_bytes: u16,
    /// Allocation time, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Number of the event that told it.
    pub seq: u64,
    /// Where it was allocated.
    pub stack: StackIndex,
    /// Who allocated it.
    pub thread: ThreadIndex,
    /// The call that made it.
    pub call: Call,
    /// Whether it lives.
    is_live: bool,
}

/// The heap of one process at one event.
#[derive(Debug)]
pub struct Layout {
    marks: Marks,
    ranges: Ranges,
    counted: books::Counted,
    blocks: Vec<Held>,
    requested_bytes: u64,
    /// Requested bytes of the realloc that each thread is in.
    pending: FxHashMap<ThreadIndex, u64>,
    header_bytes: u64,
    trim_threshold_bytes: u64,
    top_pad_bytes: u64,
    /// Pages that a write of each call stack's blocks, or of the heap for them, took first.
    faults: FxHashMap<StackIndex, u64>,
    arena_bytes: u64,
    /// Number of events taken.
    seq: u64,
    at_ns: u64,
    steps: u64,
}

impl Layout {
    /// An empty heap, by the rules of the recorded libc.
    #[must_use]
    pub fn of(contents: &Contents) -> Layout {
        let policy = Policy::nearest_to(&contents.recording.libc);
        Layout {
            marks: Marks::default(),
            ranges: Ranges::default(),
            counted: books::Counted::default(),
            blocks: Vec::new(),
            requested_bytes: 0,
            pending: FxHashMap::default(),
            header_bytes: policy.heap_header_bytes,
            trim_threshold_bytes: TRIM_THRESHOLD,
            top_pad_bytes: TOP_PAD,
            faults: FxHashMap::default(),
            arena_bytes: policy.arena_bytes,
            seq: 0,
            at_ns: 0,
            steps: 0,
        }
    }

    /// Requested bytes of the blocks that live.
    #[must_use]
    pub fn requested_bytes(&self) -> u64 {
        self.requested_bytes
    }

    /// Bytes that the heap has from the system.
    #[must_use]
    pub fn footprint_bytes(&self) -> u64 {
        self.ranges.bytes()
    }

    /// Events taken so far.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Time of the last event, nanoseconds since the recording's start.
    #[must_use]
    pub fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// Whether the heap told its steps: without them only the blocks are known.
    #[must_use]
    pub fn knows_steps(&self) -> bool {
        self.steps > 0
    }

    /// Size of the top from which a free gives memory back: as it began, was tuned, or followed the mmap threshold.
    #[must_use]
    pub fn trim_threshold_bytes(&self) -> u64 {
        self.trim_threshold_bytes
    }

    /// What such a free leaves of the top.
    #[must_use]
    pub fn top_pad_bytes(&self) -> u64 {
        self.top_pad_bytes
    }

    /// By call stack, how many pages were written to first since they came from the system, if the program writes to all
    /// of each block that it gets: its page faults, but for what the kernel maps ahead.
    #[must_use]
    pub fn faults(&self) -> &FxHashMap<StackIndex, u64> {
        &self.faults
    }

    /// The block of a slot, if it lives.
    #[must_use]
    pub fn block(&self, slot: u32) -> Option<&Held> {
        self.blocks.get(slot as usize).filter(|held| held.is_live)
    }

    /// The ranges that the heap has from the system, by address.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges.iter()
    }

    /// All blocks that live.
    pub fn blocks(&self) -> impl Iterator<Item = &Held> {
        self.blocks_by_slot().map(|(_, held)| held)
    }

    /// All blocks that live, with their slots.
    pub fn blocks_by_slot(&self) -> impl Iterator<Item = (u32, &Held)> {
        (0..).zip(&self.blocks).filter(|(_, held)| held.is_live)
    }

    /// Whether the model takes the page at `addr` for resident.
    #[must_use]
    pub fn is_touched(&self, addr: u64) -> bool {
        self.marks.is_touched(addr)
    }

    /// Where the top of an arena begins, and where its range ends; `None` before the arena has memory.
    #[must_use]
    pub fn top(&self, arena: u16) -> Option<(u64, u64)> {
        let range = self.ranges.current(arena)?;
        Some((self.ranges.arenas.get(usize::from(arena))?.top, range.end))
    }

    fn put(&mut self, addr: u64, size_bytes: u64, mark: Mark) {
        self.counted.add(mark, size_bytes);
        self.marks.set(addr, size_bytes, mark);
    }

    /// The chunk at `addr` is something else from here on; returns its size.
    #[inline]
    fn remark(&mut self, addr: u64, mark: Mark) -> Option<u64> {
        let (size_bytes, was) = self.marks.change(addr, mark)?;
        self.counted.subtract(was, size_bytes);
        self.counted.add(mark, size_bytes);
        Some(size_bytes)
    }

    fn take(&mut self, addr: u64) -> Option<(u64, Mark)> {
        let found = self.marks.take(addr)?;
        self.counted.subtract(found.1, found.0);
        Some(found)
    }

    /// Something that belongs to `stack` is written to.
    #[inline]
    fn touch(&mut self, stack: StackIndex, addr: u64, len_bytes: u64) {
        let pages = self.marks.touch(addr, len_bytes);
        if pages > 0 {
            *self.faults.entry(stack).or_default() += pages;
        }
    }

    /// The program or its environment asks for another rule.
    fn tune(&mut self, call: HeapCall, argument: i32, value: u64) {
        let parameter = match call {
            HeapCall::Mallopt => Parameter::from_number(argument),
            HeapCall::Tunable => match usize::try_from(argument).ok().and_then(|at| Tunable::ALL.get(at)) {
                Some(Tunable::TrimThreshold) => Some(Parameter::TrimThreshold),
                Some(Tunable::TopPad) => Some(Parameter::TopPad),
                Some(_) | None => None,
            },
            HeapCall::Aligned | HeapCall::MallocTrim | HeapCall::Ignore | HeapCall::Copied | HeapCall::Passed => None,
        };
        // A parameter of mallopt is an int; -1 means never.
        let value = if call == HeapCall::Mallopt { i64::from(value as i32) as u64 } else { value };
        if parameter == Some(Parameter::TrimThreshold) {
            self.trim_threshold_bytes = value;
        } else if parameter == Some(Parameter::TopPad) {
            self.top_pad_bytes = value;
        }
    }

    /// Takes the mark of a chunk that becomes free with `freed_bytes`. What it had beyond that is what an aligned
    /// allocation keeps, and not told yet.
    fn take_freed(&mut self, addr: u64, freed_bytes: u64) {
        if let Some((size_bytes, _)) = self.take(addr)
            && size_bytes > freed_bytes
        {
            self.put(addr + freed_bytes, size_bytes - freed_bytes, Mark::Handed);
        }
    }

    fn remember(&mut self, slot: u32, seq: u64, block: &Block) {
        let &Block { addr, size_bytes, slack_bytes, at_ns, stack, thread, call, .. } = block;
        let held = Held { addr, size_bytes, slack_bytes, at_ns, seq, stack, thread, call, is_live: true };
        let at = slot as usize;
        if at >= self.blocks.len() {
            self.blocks.resize(at + 1, Held { is_live: false, ..held });
        }
        let was = std::mem::replace(&mut self.blocks[at], held);
        // A forked process is told its parent's blocks, with which its heap begins already.
        if was.is_live {
            self.requested_bytes -= was.size_bytes;
        }
        self.requested_bytes += size_bytes;
    }

    #[inline]
    fn alloc(&mut self, slot: u32, seq: u64, block: &Block) {
        if !self.pending.is_empty() {
            self.pending.remove(&block.thread);
        }
        self.remember(slot, seq, block);
        let chunk = block.addr.wrapping_sub(HEADER);
        if block.arena == ArenaId::NONE {
            if let Some(range) = self.ranges.around(chunk)
                && range.kind == RangeKind::Mapped
            {
                // Of a mapping that was resized, pages that it had before count again.
                let pages = (block.addr + block.size_bytes).div_ceil(PAGE_BYTES) - range.start / PAGE_BYTES;
                range.slot = Some(slot);
                *self.faults.entry(block.stack).or_default() += pages;
            }
            return;
        }
        if self.steps == 0 {
            return;
        }
        let size_bytes = block.size_bytes + u64::from(block.slack_bytes) + 8;
        let mut covered = self.remark(chunk, Mark::Live(slot)).unwrap_or(0);
        // One chunk mostly; a realloc in place takes in what lies above.
        if covered != size_bytes {
            self.take(chunk);
            while covered < size_bytes {
                let Some((under_bytes, _)) = self.take(chunk + covered) else { break };
                covered += under_bytes;
            }
            self.put(chunk, size_bytes, Mark::Live(slot));
        }
        self.touch(block.stack, chunk, size_bytes);
    }

    #[inline]
    fn free(&mut self, slot: u32, block: &Block, by: ThreadIndex) {
        let Some(held) = self.blocks.get_mut(slot as usize).filter(|held| held.is_live) else { return };
        held.is_live = false;
        self.requested_bytes -= held.size_bytes;
        if block.arena != ArenaId::NONE {
            self.remark(block.addr.wrapping_sub(HEADER), Mark::Cached(by));
        }
    }
}

impl Replay for Layout {
    fn inherited(&mut self, slot: u32, block: &Block) {
        self.remember(slot, 0, block);
    }

    /// Inlined at every call: each caller knows the variant, and only what is done with that one remains.
    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        self.seq = entry.seq + 1;
        self.at_ns = entry.at_ns;
        match entry.event {
            Event::Alloc { slot, block, .. } => self.alloc(slot, entry.seq, block),
            Event::Free { slot, block } => self.free(slot, block, entry.thread),
            Event::FreeUnknown { addr } => {
                self.remark(addr.wrapping_sub(HEADER), Mark::Cached(entry.thread));
            }
            // The block counts as given back until the realloc has ended; its chunk is the program's for as long as no
            // step says otherwise.
            Event::ReallocBegin { slot, block } => {
                if let Some(held) = self.blocks.get_mut(slot as usize).filter(|held| held.is_live) {
                    held.is_live = false;
                    self.requested_bytes -= held.size_bytes;
                    self.pending.insert(entry.thread, block.size_bytes);
                }
            }
            Event::ReallocUndo { slot, .. } => {
                if let Some(size_bytes) = self.pending.remove(&entry.thread)
                    && let Some(held) = self.blocks.get_mut(slot as usize)
                {
                    held.is_live = true;
                    self.requested_bytes += size_bytes;
                }
            }
            Event::Heap { arena, step, .. } => self.step(arena.0, step, entry.thread, entry.stack),
            Event::HeapCall { call, argument, value } => self.tune(call, argument, value),
            Event::AllocFailed { .. }
            | Event::Fault { .. }
            | Event::Program(_)
            | Event::Process(_)
            | Event::Marker { .. }
            | Event::Lost { .. } => {}
        }
    }
}
