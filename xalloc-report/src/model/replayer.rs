//! Takes the events of one process and adds them up.

use xalloc_core::wire::{HeapCall, HeapEvent};

use super::aggregates::{Aggregates, Inherited, Peak, Reallocs, Totals};
use super::faults::Unexplained;
use super::live::{LiveBlock, LiveBlocks, Owner};
use super::scale::Scale;
use super::sites::Sites;
use super::spreads::{SpreadOut, Spreads};
use super::threads::Threads;
use super::timeline::Timeline;
use super::uncommon::Uncommon;
use super::{AddUp, Settings};
use crate::trace::{By, Contents, Event, Obtained, ProcessIndex, Tally, ThreadIndex};

/// A realloc that has begun: its block is not live, and whether that was a free is not known yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    block: LiveBlock,
    at_ns: u64,
    temporary: bool,
}

/// Adds up the events of one process; see [`super::Model`] for what is counted.
#[derive(Debug)]
pub struct Replayer {
    settings: Settings,
    scale: Scale,
    /// What neither sites nor threads count; the rest is added up at the end.
    totals: Totals,
    reallocs: Reallocs,
    inherited: Inherited,
    sites: Sites,
    threads: Threads,
    live: LiveBlocks,
    pending: Vec<(ThreadIndex, Pending)>,
    spreads: Spreads,
    timeline: Timeline,
    uncommon: Uncommon,
    last_at_ns: u64,
}

impl Replayer {
    /// For one process of a trace.
    #[must_use]
    pub fn of(contents: &Contents, process: ProcessIndex, settings: Settings) -> Replayer {
        let started_at_ns = contents.processes.get(process.0 as usize).map_or(0, |process| process.started_at_ns);
        Replayer {
            settings,
            scale: Scale::of(contents.recording.sampling),
            totals: Totals::default(),
            reallocs: Reallocs::default(),
            inherited: Inherited::default(),
            sites: Sites::new(contents.stacks.len()),
            threads: Threads::new(contents.threads.len()),
            live: LiveBlocks::default(),
            pending: Vec::new(),
            spreads: Spreads::default(),
            timeline: Timeline::default(),
            uncommon: Uncommon::of(contents, process),
            last_at_ns: started_at_ns,
        }
    }

    #[inline]
    fn occupy(&mut self, slot: u32, block: LiveBlock, at_ns: u64) {
        if let Some(displaced) = self.live.insert(slot, block) {
            // The reader reuses a slot only after a free; a trace that says otherwise is damaged, and the block gone.
            self.cease(displaced, at_ns);
        }
    }

    /// A block that is not counted as an allocation begins to live, or lives on.
    fn begin(&mut self, slot: u32, block: LiveBlock, at_ns: u64) {
        self.occupy(slot, block, at_ns);
        match block.owner {
            Owner::Own { site, .. } => {
                self.sites.live_up(site, self.scale.amount(&block), at_ns);
                self.scale.begins(&block, &self.sites);
            }
            Owner::Parent => return,
        }
        self.timeline.live(at_ns, self.sites.live().bytes);
    }

    /// A block no longer lives; whether it was freed is for the caller to count.
    #[inline]
    fn cease(&mut self, block: LiveBlock, at_ns: u64) {
        match block.owner {
            Owner::Own { site, .. } => {
                self.sites.live_down(site, self.scale.amount(&block));
                self.scale.ends(&block);
            }
            Owner::Parent => return,
        }
        self.timeline.ceased(at_ns, self.sites.live().bytes);
    }

    /// Takes a block out of its slot for a free or a realloc.
    #[inline(always)]
    fn take(&mut self, by: By, slot: u32) -> Option<Pending> {
        let live = self.live.remove(slot)?;
        self.cease(live, by.at_ns);
        let temporary = match live.owner {
            Owner::Own { thread, nth, .. } if thread == by.thread => {
                self.threads.at(thread).allocations_since(nth) < self.settings.temporary_threshold
            }
            Owner::Own { .. } | Owner::Parent => false,
        };
        Some(Pending { block: live, at_ns: by.at_ns, temporary })
    }

    fn take_pending(&mut self, thread: ThreadIndex) -> Option<Pending> {
        let place = self.pending.iter().position(|(of, _)| *of == thread)?;
        Some(self.pending.swap_remove(place).1)
    }

    /// Ends the realloc that the thread has begun, if it has: the block is gone.
    #[inline(never)]
    fn end_realloc(&mut self, thread: ThreadIndex) -> Option<Pending> {
        let pending = self.take_pending(thread)?;
        self.settle(thread, pending);
        Some(pending)
    }

    /// The block was freed by `by`: counts it.
    #[inline(always)]
    fn settle(&mut self, by: ThreadIndex, freed: Pending) {
        let amount = self.scale.amount(&freed.block);
        match freed.block.owner {
            Owner::Parent => {
                self.inherited.freed_blocks += amount.blocks;
                self.inherited.freed_bytes = self.inherited.freed_bytes.saturating_add(amount.bytes);
            }
            Owner::Own { site, thread, nth: _ } => {
                let lifetime_ns = freed.at_ns.saturating_sub(freed.block.at_ns);
                self.spreads.lived(lifetime_ns, amount.blocks);
                self.sites.at(site).lived(lifetime_ns, amount.blocks);
                self.sites.at(site).frees += amount.blocks;
                let freeing = self.threads.at(by);
                freeing.frees += amount.blocks;
                if thread != by {
                    freeing.foreign_frees += amount.blocks;
                    self.totals.foreign_frees += amount.blocks;
                }
                if freed.temporary {
                    self.sites.at(site).was_temporary(amount);
                    freeing.temporary += amount.blocks;
                }
            }
        }
    }
}

impl AddUp for Replayer {
    fn unexplained(&mut self) -> &mut Unexplained {
        &mut self.uncommon.unexplained
    }

    fn has_lost(&self) -> bool {
        self.totals.lost_events > 0
    }

    /// Ends the replay: a realloc whose outcome was not seen has given its block back, every other block is alive.
    fn finish(mut self) -> Aggregates {
        for (thread, pending) in std::mem::take(&mut self.pending) {
            self.settle(thread, pending);
        }
        for block in self.live.iter() {
            let Owner::Own { site, thread, nth: _ } = block.owner else { continue };
            let age_ns = self.last_at_ns.saturating_sub(block.at_ns);
            let amount = self.scale.amount(&block);
            self.scale.outlived(&block);
            self.sites.at(site).outlived(age_ns, amount, thread);
            let totals = self.threads.at(thread);
            totals.alive_bytes = totals.alive_bytes.saturating_add(amount.bytes);
            totals.alive_blocks += amount.blocks;
            self.totals.alive_bytes = self.totals.alive_bytes.saturating_add(amount.bytes);
            self.totals.alive_blocks += amount.blocks;
        }
        self.sites.total(&mut self.totals);
        let (peak, at_ns) = self.sites.peak();
        let SpreadOut { requested, usable, lifetime } = self.spreads.finish();
        Aggregates {
            totals: self.totals,
            reallocs: self.reallocs,
            inherited: self.inherited,
            peak: Peak { bytes: peak.bytes, blocks: peak.blocks, at_ns },
            stacks: self.sites.stacks(),
            sites: self.sites.finish(),
            threads: self.threads.finish(),
            requested,
            usable,
            lifetime,
            timeline: self.timeline,
            marks: self.uncommon.marks,
            heap_unknown_processes: u32::from(!self.uncommon.is_heap_known),
            processes: 1,
            errors: self.scale.errors(),
        }
    }
}

/// Its functions are inlined where they are called, which for each is one place: in a reader's loop over events.
impl Tally for Replayer {
    fn inherited(&mut self, slot: u32, size_bytes: u64) {
        let at_ns = self.last_at_ns;
        let stands_for = self.scale.stands_for(size_bytes);
        let block = LiveBlock { owner: Owner::Parent, size_bytes, stands_for, at_ns };
        let amount = self.scale.amount(&block);
        self.inherited.blocks += amount.blocks;
        self.inherited.bytes = self.inherited.bytes.saturating_add(amount.bytes);
        self.begin(slot, block, at_ns);
    }

    #[inline]
    fn passed(&mut self, events: u64, at_ns: u64) {
        self.totals.events += events;
        self.last_at_ns = self.last_at_ns.max(at_ns);
    }

    #[inline(always)]
    fn obtained(&mut self, by: By, slot: u32, obtained: Obtained) {
        let Obtained { size_bytes, slack_bytes, stack, call, in_place } = obtained;
        let replaced = if self.pending.is_empty() { None } else { self.end_realloc(by.thread) };
        let number = self.sites.number(stack, call);
        let stands_for = self.scale.stands_for(size_bytes);
        if let Some(sampling) = self.scale.sampling() {
            self.spreads.estimated(sampling, size_bytes, slack_bytes, u64::from(stands_for));
            let site = self.sites.at(number);
            site.recorded += 1;
            // Which block was resized is known by accident only: where both were recorded.
            if call.is_realloc() {
                site.reallocations += u64::from(stands_for);
            }
        } else {
            self.spreads.asked(size_bytes, slack_bytes);
            if let Some(old) = replaced.filter(|_| call.is_realloc()) {
                self.sites.at(number).reallocations += 1;
                if in_place {
                    self.reallocs.in_place += 1;
                } else {
                    self.reallocs.moved += 1;
                    let copied = old.block.size_bytes.min(size_bytes);
                    self.reallocs.copied_bytes = self.reallocs.copied_bytes.saturating_add(copied);
                }
            }
        }
        let thread = self.threads.at(by.thread);
        let nth = thread.told as u32;
        thread.told += 1;
        let owner = Owner::Own { site: number, thread: by.thread, nth };
        let block = LiveBlock { owner, size_bytes, stands_for, at_ns: by.at_ns };
        let amount = self.scale.amount(&block);
        thread.allocations += amount.blocks;
        thread.allocated_bytes = thread.allocated_bytes.saturating_add(amount.bytes);

        self.occupy(slot, block, by.at_ns);
        self.sites.allocated(number, amount, by.at_ns);
        self.scale.begins(&block, &self.sites);
        self.scale.allocated(&block);
        self.timeline.allocated(by.at_ns, amount, self.sites.live().bytes);
    }

    #[inline(always)]
    fn freed(&mut self, by: By, slot: u32) {
        if let Some(freed) = self.take(by, slot) {
            self.settle(by.thread, freed);
        }
    }

    fn realloc_begins(&mut self, by: By, slot: u32) {
        // One whose outcome was not seen.
        self.end_realloc(by.thread);
        if let Some(pending) = self.take(by, slot) {
            self.pending.push((by.thread, pending));
        }
    }

    fn realloc_undone(&mut self, by: By, slot: u32) {
        // Without a realloc that has begun nothing was taken away, so nothing comes back.
        if let Some(pending) = self.take_pending(by.thread) {
            self.reallocs.undone += 1;
            self.begin(slot, pending.block, by.at_ns);
        }
    }

    fn heap(&mut self, by: By, step: HeapEvent) {
        if let Some(heap_bytes) = self.uncommon.heap_bytes_after(step) {
            self.timeline.heap(by.at_ns, heap_bytes);
        }
    }

    fn other(&mut self, by: By, event: Event<'_>) {
        if let Event::HeapCall { call: HeapCall::Passed, .. } = event {
            self.threads.at(by.thread).told += 1;
        }
        if let Event::AllocFailed { size_bytes, .. } = event {
            self.totals.failed += u64::from(self.scale.stands_for(size_bytes));
        }
        self.uncommon.take(by, event, &mut self.totals);
    }
}
