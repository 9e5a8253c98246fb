//! What a process asked for over its whole life: requested bytes against the heap's footprint, and the calls to the
//! system, in one pass that needs no layout.

use rustc_hash::FxHashMap;
use xalloc_core::heap::sim::SystemCalls;
use xalloc_core::wire::HeapEvent;

use super::layout::Layout;
use super::segments::{Moved, Segments, SystemCall};
use crate::trace::{Entry, Event, ProgramEvent, Replay, StackIndex, ThreadIndex};

/// An instant and the two figures there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mark {
    /// Events before it, and its own.
    pub seq: u64,
    /// Nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Requested bytes of the blocks that lived.
    pub requested_bytes: u64,
    /// Bytes that the heap had from the system.
    pub footprint_bytes: u64,
}

/// A move of the dynamic mmap threshold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThresholdMove {
    /// Where to.
    pub bytes: u64,
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// The free that did it.
    pub stack: StackIndex,
}

/// Calls to the system that a call stack caused.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SiteCalls {
    /// How many of each.
    pub calls: SystemCalls,
    /// Bytes by which the heap grew.
    pub grown_bytes: u64,
}

impl SiteCalls {
    /// Adds what another call stack caused.
    pub fn add(&mut self, other: &SiteCalls) {
        self.calls += other.calls;
        self.grown_bytes += other.grown_bytes;
    }

    fn count(&mut self, moved: Moved) {
        let calls = &mut self.calls;
        match moved.call {
            SystemCall::Brk => calls.brk += 1,
            SystemCall::Mmap => calls.mmap += 1,
            SystemCall::Munmap => calls.munmap += 1,
            SystemCall::Mremap => calls.mremap += 1,
            SystemCall::Madvise => calls.madvise += 1,
            // The simulated system counts none of these either.
            SystemCall::Mprotect => {}
        }
        self.grown_bytes += moved.grown_bytes;
    }
}

/// The sums of a process's life.
#[derive(Debug, Default)]
pub struct Survey {
    segments: Segments,
    requested_bytes: u64,
    pending: FxHashMap<ThreadIndex, u64>,
    seq: u64,
    at_ns: u64,
    started_ns: Option<u64>,
    steps: u64,
    /// The first moment with the most requested bytes.
    pub most_requested: Mark,
    /// The first moment with the largest footprint.
    pub largest: Mark,
    requested_byte_ns: u128,
    footprint_byte_ns: u128,
    /// The last move of the mmap threshold.
    pub threshold: Option<ThresholdMove>,
    /// By call stack.
    pub calls: FxHashMap<StackIndex, SiteCalls>,
    /// Calls that the program itself made, by call stack.
    pub program_calls: FxHashMap<StackIndex, SiteCalls>,
    /// Frees by another thread than the one that allocated, by the allocation's call stack: how many, and their bytes.
    pub cross_thread_frees: FxHashMap<StackIndex, (u64, u64)>,
}

impl Survey {
    /// A survey of a process that begins with this heap.
    #[must_use]
    pub fn beginning_with(layout: &Layout) -> Survey {
        Survey { segments: Segments::of(layout), ..Survey::default() }
    }

    /// Whether the heap told its steps.
    #[must_use]
    pub fn knows_steps(&self) -> bool {
        self.steps > 0
    }

    /// Events of the process.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.seq
    }

    /// First and last event, nanoseconds since the recording's start.
    #[must_use]
    pub fn life_ns(&self) -> (u64, u64) {
        (self.started_ns.unwrap_or(self.at_ns), self.at_ns)
    }

    /// Requested bytes and footprint, averaged over time.
    #[must_use]
    pub fn means(&self) -> (u64, u64) {
        let (from, to) = self.life_ns();
        let span = u128::from(to.saturating_sub(from)).max(1);
        ((self.requested_byte_ns / span) as u64, (self.footprint_byte_ns / span) as u64)
    }

    fn step(&mut self, stack: StackIndex, step: HeapEvent) {
        self.steps += 1;
        if let Some(moved) = self.segments.apply(step) {
            self.calls.entry(stack).or_default().count(moved);
        } else if let HeapEvent::Threshold { mmap_bytes: bytes } = step {
            self.threshold = Some(ThresholdMove { bytes, at_ns: self.at_ns, stack });
        }
    }
}

impl Survey {
    /// The program calls the system itself.
    fn program(&mut self, stack: StackIndex, program: ProgramEvent<'_>) {
        let site = self.program_calls.entry(stack).or_default();
        let (call, grown_bytes) = match program {
            ProgramEvent::Map { len_bytes, .. } => (SystemCall::Mmap, len_bytes),
            ProgramEvent::Unmap { .. } => (SystemCall::Munmap, 0),
            ProgramEvent::Remap { from_bytes, to_bytes, .. } => {
                (SystemCall::Mremap, to_bytes.saturating_sub(from_bytes))
            }
            ProgramEvent::Advise { .. } => (SystemCall::Madvise, 0),
            ProgramEvent::Brk { from, to } => (SystemCall::Brk, to.saturating_sub(from)),
        };
        site.count(Moved { call, grown_bytes, rule: None });
    }
}

impl Replay for Survey {
    fn inherited(&mut self, _slot: u32, block: &crate::trace::Block) {
        self.requested_bytes += block.size_bytes;
    }

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        if entry.at_ns > self.at_ns {
            if self.started_ns.is_some() {
                let span = u128::from(entry.at_ns - self.at_ns);
                self.requested_byte_ns += span * u128::from(self.requested_bytes);
                self.footprint_byte_ns += span * u128::from(self.segments.bytes());
            }
            self.at_ns = entry.at_ns;
        }
        self.started_ns.get_or_insert(entry.at_ns);
        self.seq = entry.seq + 1;
        match entry.event {
            Event::Alloc { block, .. } => {
                if !self.pending.is_empty() {
                    self.pending.remove(&entry.thread);
                }
                self.requested_bytes += block.size_bytes;
                if self.requested_bytes > self.most_requested.requested_bytes {
                    self.most_requested = self.mark();
                }
            }
            Event::Free { block, .. } => {
                if block.thread != entry.thread {
                    let frees = self.cross_thread_frees.entry(block.stack).or_default();
                    frees.0 += 1;
                    frees.1 += block.size_bytes;
                }
                self.requested_bytes = self.requested_bytes.saturating_sub(block.size_bytes);
            }
            Event::ReallocBegin { block, .. } => {
                self.requested_bytes = self.requested_bytes.saturating_sub(block.size_bytes);
                self.pending.insert(entry.thread, block.size_bytes);
            }
            Event::ReallocUndo { .. } => {
                self.requested_bytes += self.pending.remove(&entry.thread).unwrap_or(0);
            }
            Event::Heap { step, .. } => {
                self.step(entry.stack, step);
                if self.segments.bytes() > self.largest.footprint_bytes {
                    self.largest = self.mark();
                }
            }
            Event::Program(program) => self.program(entry.stack, program),
            Event::AllocFailed { .. }
            | Event::HeapCall { .. }
            | Event::Fault { .. }
            | Event::FreeUnknown { .. }
            | Event::Process(_)
            | Event::Marker { .. }
            | Event::Lost { .. } => {}
        }
    }
}

impl Survey {
    fn mark(&self) -> Mark {
        Mark {
            seq: self.seq,
            at_ns: self.at_ns,
            requested_bytes: self.requested_bytes,
            footprint_bytes: self.segments.bytes(),
        }
    }
}
