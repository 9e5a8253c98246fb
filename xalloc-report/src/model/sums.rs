//! What the summary shows, for as little as adding it up can cost.
//!
//! A recording's summary is added up while the program runs, by the thread that the program may have to wait for. It
//! shows no call stack's share of anything and no course over time, and those are most of what a [`super::Replayer`]
//! keeps: a site is two cache lines that an allocation and its free both touch, and each site has to be asked at each
//! event whether the peak has moved on. Here a block has 16 bytes, a call stack a bit and a span of time its maximum: of
//! 118 instructions for an event of the loop of `bench/programs/churn.c` 41 are left.
//!
//! # Invariant
//! Whatever [`Sums`] counts is what a `Replayer` counts that is told the same (`model/tests.rs`).

use xalloc_core::sys::prefetch;
use xalloc_core::wire::{HeapCall, HeapEvent};

use super::Settings;
use super::aggregates::{Aggregates, Inherited, Peak, Reallocs, Totals};
use super::sites::AtPeak;
use super::stacks::Stacks;
use super::threads::Threads;
use super::timeline::Timeline;
use super::uncommon::Uncommon;
use crate::trace::{By, Contents, Event, Obtained, ProcessIndex, StackIndex, Tally, ThreadIndex};

/// A live block, or one whose realloc is under way.
#[derive(Clone, Copy, Debug)]
struct Held {
    size_bytes: u64,
    /// Who allocated it, or one of the two below.
    thread: u32,
    /// How many allocations of the thread came before it, modulo 2^32.
    nth: u32,
}

/// In [`Held::thread`], of a slot without a block. Linux knows fewer threads than 2^32 - 2.
const VACANT: u32 = u32::MAX;
/// The same of a block that a forked process had from its parent.
const PARENT: u32 = u32::MAX - 1;

const NOTHING: Held = Held { size_bytes: 0, thread: VACANT, nth: 0 };

/// A realloc that has begun.
#[derive(Clone, Copy, Debug)]
struct Pending {
    by: ThreadIndex,
    block: Held,
    is_temporary: bool,
}

/// Adds up what the summary shows of a process all of whose blocks are recorded.
#[derive(Debug)]
pub struct Sums {
    temporary_threshold: u32,
    live: AtPeak,
    peak: AtPeak,
    peak_at_ns: Option<u64>,
    /// Where the timeline's last span ends, and the most that was live in it.
    span_ends_ns: u64,
    most_live_bytes: u64,
    /// Bytes of temporary allocations.
    temporary_bytes: u64,
    /// By slot.
    blocks: Vec<Held>,
    stacks: Stacks,
    threads: Threads,
    pending: Vec<Pending>,
    timeline: Timeline,
    pub(super) totals: Totals,
    reallocs: Reallocs,
    inherited: Inherited,
    pub(super) uncommon: Uncommon,
}

impl Sums {
    pub(super) fn of(contents: &Contents, process: ProcessIndex, settings: Settings) -> Sums {
        Sums {
            temporary_threshold: settings.temporary_threshold,
            live: AtPeak::default(),
            peak: AtPeak::default(),
            peak_at_ns: None,
            span_ends_ns: 0,
            most_live_bytes: 0,
            temporary_bytes: 0,
            blocks: Vec::new(),
            stacks: Stacks::new(contents.stacks.len()),
            threads: Threads::new(contents.threads.len()),
            pending: Vec::new(),
            timeline: Timeline::default(),
            totals: Totals::default(),
            reallocs: Reallocs::default(),
            inherited: Inherited::default(),
            uncommon: Uncommon::of(contents, process),
        }
    }

    /// Puts a block into a slot.
    #[inline(always)]
    fn occupy(&mut self, slot: u32, block: Held, at_ns: u64) {
        match self.blocks.get_mut(slot as usize) {
            // One by one: a copy of the whole would wait for the stores that put it together.
            Some(place) if place.thread == VACANT => {
                place.size_bytes = block.size_bytes;
                place.thread = block.thread;
                place.nth = block.nth;
            }
            Some(_) | None => self.occupy_otherwise(slot, block, at_ns),
        }
    }

    /// A slot that is new, or that a damaged trace uses before its free: what was there is gone.
    #[cold]
    #[inline(never)]
    fn occupy_otherwise(&mut self, slot: u32, block: Held, at_ns: u64) {
        let at = slot as usize;
        if at >= self.blocks.len() {
            self.blocks.resize(at + 1, NOTHING);
        }
        let displaced = std::mem::replace(&mut self.blocks[at], block);
        if displaced.thread < PARENT {
            self.live_down(displaced.size_bytes, at_ns);
        }
    }

    /// Goes to the span of the timeline in which the next event happened, before what it changes.
    #[inline(always)]
    fn reach(&mut self, at_ns: u64) {
        if at_ns >= self.span_ends_ns {
            self.turn(at_ns);
        }
    }

    #[inline(never)]
    fn turn(&mut self, at_ns: u64) {
        self.timeline.settle(self.live.bytes, self.most_live_bytes);
        (self.span_ends_ns, self.most_live_bytes) = self.timeline.reach(at_ns);
    }

    #[inline(always)]
    fn live_up(&mut self, size_bytes: u64, at_ns: u64) {
        self.reach(at_ns);
        // Saturating: a hostile trace can claim more live bytes than 64 bits count.
        self.live.bytes = self.live.bytes.saturating_add(size_bytes);
        self.live.blocks += 1;
        self.most_live_bytes = self.most_live_bytes.max(self.live.bytes);
    }

    #[inline(always)]
    fn live_down(&mut self, size_bytes: u64, at_ns: u64) {
        self.reach(at_ns);
        self.live.bytes = self.live.bytes.saturating_sub(size_bytes);
        self.live.blocks -= 1;
    }

    #[inline(always)]
    fn note_peak(&mut self, at_ns: u64) {
        if self.live.bytes > self.peak.bytes {
            self.peak = self.live;
            self.peak_at_ns = Some(at_ns);
        }
    }

    /// Takes a block out of its slot, and says whether that makes it temporary.
    #[inline(always)]
    fn take(&mut self, by: By, slot: u32) -> Option<(Held, bool)> {
        let place = self.blocks.get_mut(slot as usize)?;
        let block = *place;
        place.thread = VACANT;
        if block.thread >= PARENT {
            return (block.thread == PARENT).then_some((block, false));
        }
        self.live_down(block.size_bytes, by.at_ns);
        let is_temporary = block.thread == by.thread.0
            && self.threads.at(by.thread).allocations_since(block.nth) < self.temporary_threshold;
        Some((block, is_temporary))
    }

    /// The block was freed by `by`: counts it.
    #[inline(always)]
    fn count_free(&mut self, by: ThreadIndex, block: Held, is_temporary: bool) {
        if block.thread == PARENT {
            self.inherited.freed_blocks += 1;
            self.inherited.freed_bytes = self.inherited.freed_bytes.saturating_add(block.size_bytes);
            return;
        }
        let freeing = self.threads.at(by);
        freeing.frees += 1;
        if block.thread != by.0 {
            freeing.foreign_frees += 1;
        } else if is_temporary {
            freeing.temporary += 1;
            self.temporary_bytes = self.temporary_bytes.saturating_add(block.size_bytes);
        }
    }

    fn take_pending(&mut self, thread: ThreadIndex) -> Option<Pending> {
        let place = self.pending.iter().position(|pending| pending.by == thread)?;
        Some(self.pending.swap_remove(place))
    }

    /// Ends the realloc that the thread has begun, if it has: the block is gone.
    #[inline(never)]
    fn end_realloc(&mut self, thread: ThreadIndex) -> Option<Held> {
        let Pending { by, block, is_temporary } = self.take_pending(thread)?;
        self.count_free(by, block, is_temporary);
        Some(block)
    }

    /// A block comes while reallocs are under way.
    #[inline(never)]
    fn replace(&mut self, thread: ThreadIndex, obtained: &Obtained) {
        let Some(old) = self.end_realloc(thread).filter(|_| obtained.call.is_realloc()) else { return };
        if obtained.in_place {
            self.reallocs.in_place += 1;
        } else {
            self.reallocs.moved += 1;
            let copied_bytes = old.size_bytes.min(obtained.size_bytes);
            self.reallocs.copied_bytes = self.reallocs.copied_bytes.saturating_add(copied_bytes);
        }
    }

    pub(super) fn finish(mut self) -> Aggregates {
        for Pending { by, block, is_temporary } in std::mem::take(&mut self.pending) {
            self.count_free(by, block, is_temporary);
        }
        self.timeline.settle(self.live.bytes, self.most_live_bytes);
        let mut totals = self.totals;
        for block in self.blocks.iter().filter(|block| block.thread < PARENT) {
            let owner = self.threads.at(ThreadIndex(block.thread));
            owner.alive_bytes = owner.alive_bytes.saturating_add(block.size_bytes);
            owner.alive_blocks += 1;
        }
        let threads = self.threads.finish();
        for thread in &threads {
            totals.allocations += thread.allocations;
            totals.allocated_bytes = totals.allocated_bytes.saturating_add(thread.allocated_bytes);
            totals.frees += thread.frees;
            totals.foreign_frees += thread.foreign_frees;
            totals.temporary += thread.temporary;
            totals.alive_bytes = totals.alive_bytes.saturating_add(thread.alive_bytes);
            totals.alive_blocks += thread.alive_blocks;
        }
        totals.temporary_bytes = self.temporary_bytes;
        Aggregates {
            totals,
            reallocs: self.reallocs,
            inherited: self.inherited,
            peak: Peak { bytes: self.peak.bytes, blocks: self.peak.blocks, at_ns: self.peak_at_ns },
            stacks: self.stacks,
            threads,
            timeline: self.timeline,
            marks: self.uncommon.marks,
            heap_unknown_processes: u32::from(!self.uncommon.is_heap_known),
            processes: 1,
            ..Aggregates::default()
        }
    }
}

impl Tally for Sums {
    fn inherited(&mut self, slot: u32, size_bytes: u64) {
        self.inherited.blocks += 1;
        self.inherited.bytes = self.inherited.bytes.saturating_add(size_bytes);
        self.occupy(slot, Held { size_bytes, thread: PARENT, nth: 0 }, 0);
    }

    #[inline(always)]
    fn prefetch(&self, slot: u32) {
        if let Some(block) = self.blocks.get(slot as usize) {
            prefetch(block);
        }
    }

    #[inline]
    fn passed(&mut self, events: u64, _at_ns: u64) {
        self.totals.events += events;
    }

    #[inline(always)]
    fn obtained(&mut self, by: By, slot: u32, obtained: Obtained) {
        if !self.pending.is_empty() {
            self.replace(by.thread, &obtained);
        }
        let size_bytes = obtained.size_bytes;
        let thread = self.threads.at(by.thread);
        let block = Held { size_bytes, thread: by.thread.0, nth: thread.told as u32 };
        thread.told += 1;
        thread.allocations += 1;
        thread.allocated_bytes = thread.allocated_bytes.saturating_add(size_bytes);
        self.totals.unknown_stacks += u64::from(obtained.stack == StackIndex::UNKNOWN);
        self.stacks.insert(obtained.stack);
        self.occupy(slot, block, by.at_ns);
        self.live_up(size_bytes, by.at_ns);
        self.note_peak(by.at_ns);
    }

    #[inline(always)]
    fn freed(&mut self, by: By, slot: u32) {
        if let Some((block, is_temporary)) = self.take(by, slot) {
            self.count_free(by.thread, block, is_temporary);
        }
    }

    fn realloc_begins(&mut self, by: By, slot: u32) {
        // One whose outcome was not seen.
        self.end_realloc(by.thread);
        if let Some((block, is_temporary)) = self.take(by, slot) {
            self.pending.push(Pending { by: by.thread, block, is_temporary });
        }
    }

    fn realloc_undone(&mut self, by: By, slot: u32) {
        // Without a realloc that has begun nothing was taken away, so nothing comes back.
        let Some(Pending { block, .. }) = self.take_pending(by.thread) else { return };
        self.reallocs.undone += 1;
        self.occupy(slot, block, by.at_ns);
        if block.thread != PARENT {
            self.live_up(block.size_bytes, by.at_ns);
            self.note_peak(by.at_ns);
        }
    }

    fn heap(&mut self, by: By, step: HeapEvent) {
        if self.uncommon.heap_bytes_after(step).is_some() {
            self.reach(by.at_ns);
        }
    }

    fn other(&mut self, by: By, event: Event<'_>) {
        if let Event::HeapCall { call: HeapCall::Passed, .. } = event {
            self.threads.at(by.thread).told += 1;
        }
        self.totals.failed += u64::from(matches!(event, Event::AllocFailed { .. }));
        self.uncommon.take(by, event, &mut self.totals);
    }
}
