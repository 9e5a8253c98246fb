//! Takes the events of one process and adds them up.

use xalloc_core::wire::Call;

use super::Settings;
use super::aggregates::{Aggregates, Inherited, Peak, Reallocs, Totals};
use super::distribution::{Distribution, Doubling, OneTwoFive};
use super::faults::Unexplained;
use super::live::{LiveBlock, LiveBlocks, Owner};
use super::marks::Marks;
use super::segments::Segments;
use super::sites::Sites;
use super::threads::Threads;
use super::timeline::Timeline;
use crate::trace::{Allocator, Block, Contents, Entry, Event, ProcessIndex, Replay, ThreadIndex};

/// A realloc that has begun: its block is not live, and whether that was a free is not known yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    block: LiveBlock,
    addr: u64,
    at_ns: u64,
    temporary: bool,
}

/// Adds up the events of one process; see [`super::Model`] for what is counted.
#[derive(Debug)]
pub struct Replayer {
    settings: Settings,
    /// What neither sites nor threads count; the rest is added up at the end.
    totals: Totals,
    reallocs: Reallocs,
    inherited: Inherited,
    sites: Sites,
    threads: Threads,
    live: LiveBlocks,
    pending: Vec<(ThreadIndex, Pending)>,
    requested: Distribution<Doubling>,
    usable: Distribution<Doubling>,
    lifetime: Distribution<OneTwoFive>,
    timeline: Timeline,
    marks: Marks,
    segments: Segments,
    heap_known: bool,
    unexplained: Unexplained,
    last_at_ns: u64,
}

impl Replayer {
    /// For one process of a trace.
    #[must_use]
    pub fn of(contents: &Contents, process: ProcessIndex, settings: Settings) -> Replayer {
        let process = contents.processes.get(process.0 as usize);
        Replayer {
            settings,
            totals: Totals::default(),
            reallocs: Reallocs::default(),
            inherited: Inherited::default(),
            sites: Sites::new(contents.stacks.len()),
            threads: Threads::new(contents.threads.len()),
            live: LiveBlocks::default(),
            pending: Vec::new(),
            requested: Distribution::default(),
            usable: Distribution::default(),
            lifetime: Distribution::default(),
            timeline: Timeline::default(),
            marks: Marks::default(),
            segments: Segments::default(),
            heap_known: process.is_some_and(|process| process.allocator == Allocator::Core && !process.forked),
            unexplained: Unexplained::default(),
            last_at_ns: process.map_or(0, |process| process.started_at_ns),
        }
    }

    #[inline]
    fn alloc(&mut self, entry: &Entry<'_>, slot: u32, block: &Block) {
        let replaced = self.take_pending(entry.thread);
        if let Some(pending) = replaced {
            self.settle(entry.thread, pending);
        }
        let site = self.sites.number(block.stack, block.call);
        {
            let site = self.sites.at(site);
            site.allocations += 1;
            site.allocated_bytes = site.allocated_bytes.saturating_add(block.size_bytes);
        }
        if let (Some(old), Call::Realloc | Call::Reallocarray) = (replaced, block.call) {
            self.sites.at(site).reallocations += 1;
            if old.addr == block.addr {
                self.reallocs.in_place += 1;
            } else {
                self.reallocs.moved += 1;
                let copied = old.block.size_bytes.min(block.size_bytes);
                self.reallocs.copied_bytes = self.reallocs.copied_bytes.saturating_add(copied);
            }
        }
        let thread = self.threads.at(block.thread);
        thread.allocations += 1;
        thread.allocated_bytes = thread.allocated_bytes.saturating_add(block.size_bytes);
        thread.next_nth = block.nth_of_thread.wrapping_add(1);

        self.requested.record(block.size_bytes);
        self.usable.record(block.size_bytes.saturating_add(u64::from(block.slack_bytes)));
        let owner = Owner::Own { site, thread: block.thread };
        let live = LiveBlock { owner, size_bytes: block.size_bytes, at_ns: block.at_ns };
        self.occupy(slot, live, entry.at_ns);
        self.sites.live_up(site, block.size_bytes, entry.at_ns);
        self.timeline.allocated(entry.at_ns, block.size_bytes, self.sites.live().bytes);
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
            Owner::Own { site, .. } => self.sites.live_up(site, block.size_bytes, at_ns),
            Owner::Parent => return,
        }
        self.timeline.live(at_ns, self.sites.live().bytes);
    }

    /// A block no longer lives; whether it was freed is for the caller to count.
    #[inline]
    fn cease(&mut self, block: LiveBlock, at_ns: u64) {
        match block.owner {
            Owner::Own { site, .. } => self.sites.live_down(site, block.size_bytes),
            Owner::Parent => return,
        }
        self.timeline.live(at_ns, self.sites.live().bytes);
    }

    /// Takes a block out of its slot for a free or a realloc by `entry.thread`.
    #[inline]
    fn take(&mut self, entry: &Entry<'_>, slot: u32, block: &Block) -> Option<Pending> {
        let live = self.live.remove(slot)?;
        self.cease(live, entry.at_ns);
        let temporary = match live.owner {
            Owner::Own { thread, .. } if thread == entry.thread => {
                let since = self.threads.at(thread).allocations_since(block.nth_of_thread);
                since < self.settings.temporary_threshold
            }
            Owner::Own { .. } | Owner::Parent => false,
        };
        Some(Pending { block: live, addr: block.addr, at_ns: entry.at_ns, temporary })
    }

    #[inline]
    fn take_pending(&mut self, thread: ThreadIndex) -> Option<Pending> {
        if self.pending.is_empty() {
            return None;
        }
        let place = self.pending.iter().position(|(of, _)| *of == thread)?;
        Some(self.pending.swap_remove(place).1)
    }

    /// The block was freed by `by`: counts it.
    #[inline]
    fn settle(&mut self, by: ThreadIndex, freed: Pending) {
        let size_bytes = freed.block.size_bytes;
        match freed.block.owner {
            Owner::Parent => {
                self.inherited.freed_blocks += 1;
                self.inherited.freed_bytes = self.inherited.freed_bytes.saturating_add(size_bytes);
            }
            Owner::Own { site, thread } => {
                let lifetime_ns = freed.at_ns.saturating_sub(freed.block.at_ns);
                self.lifetime.record(lifetime_ns);
                self.sites.at(site).freed(lifetime_ns);
                let freeing = self.threads.at(by);
                freeing.frees += 1;
                if thread != by {
                    freeing.foreign_frees += 1;
                    self.totals.foreign_frees += 1;
                }
                if freed.temporary {
                    self.sites.at(site).was_temporary(size_bytes);
                    freeing.temporary += 1;
                }
            }
        }
    }

    /// The addresses of faults, and of frees that no recorded allocation explains.
    pub(super) fn take_unexplained(&mut self) -> Unexplained {
        std::mem::take(&mut self.unexplained)
    }

    /// Ends the replay: a realloc whose outcome was not seen has given its block back, every other block is alive.
    #[must_use]
    pub fn finish(mut self) -> Aggregates {
        for (thread, pending) in std::mem::take(&mut self.pending) {
            self.settle(thread, pending);
        }
        for block in self.live.iter() {
            let Owner::Own { site, thread } = block.owner else { continue };
            let age_ns = self.last_at_ns.saturating_sub(block.at_ns);
            self.sites.at(site).outlived(age_ns, block.size_bytes, thread);
            let totals = self.threads.at(thread);
            totals.alive_bytes = totals.alive_bytes.saturating_add(block.size_bytes);
            totals.alive_blocks += 1;
            self.totals.alive_bytes = self.totals.alive_bytes.saturating_add(block.size_bytes);
            self.totals.alive_blocks += 1;
        }
        self.sites.total(&mut self.totals);
        let (peak, at_ns) = self.sites.peak();
        Aggregates {
            totals: self.totals,
            reallocs: self.reallocs,
            inherited: self.inherited,
            peak: Peak { bytes: peak.bytes, blocks: peak.blocks, at_ns },
            sites: self.sites.finish(),
            threads: self.threads.finish(),
            requested: self.requested,
            usable: self.usable,
            lifetime: self.lifetime,
            timeline: self.timeline,
            marks: self.marks,
            heap_unknown_processes: u32::from(!self.heap_known),
            processes: 1,
        }
    }
}

impl Replay for Replayer {
    fn inherited(&mut self, slot: u32, block: &Block) {
        self.inherited.blocks += 1;
        self.inherited.bytes = self.inherited.bytes.saturating_add(block.size_bytes);
        let block = LiveBlock { owner: Owner::Parent, size_bytes: block.size_bytes, at_ns: block.at_ns };
        self.begin(slot, block, self.last_at_ns);
    }

    /// Inlined at every call: each caller knows the variant, and only what is done with that one remains.
    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        self.totals.events += 1;
        self.last_at_ns = self.last_at_ns.max(entry.at_ns);
        match entry.event {
            Event::Alloc { slot, block, arena_seq: _ } => self.alloc(&entry, slot, block),
            Event::AllocFailed { .. } => self.totals.failed += 1,
            Event::Free { slot, block } => {
                if let Some(freed) = self.take(&entry, slot, block) {
                    self.settle(entry.thread, freed);
                }
            }
            Event::FreeUnknown { addr } => {
                self.totals.unknown_frees += 1;
                self.unexplained.add(addr);
            }
            Event::ReallocBegin { slot, block } => {
                if let Some(unfinished) = self.take_pending(entry.thread) {
                    self.settle(entry.thread, unfinished);
                }
                if let Some(pending) = self.take(&entry, slot, block) {
                    self.pending.push((entry.thread, pending));
                }
            }
            Event::ReallocUndo { slot, .. } => {
                // Without a realloc that has begun nothing was taken away, so nothing comes back.
                if let Some(pending) = self.take_pending(entry.thread) {
                    self.reallocs.undone += 1;
                    self.begin(slot, pending.block, entry.at_ns);
                }
            }
            Event::Heap { step, .. } => {
                if self.heap_known && self.segments.apply(step).is_some() {
                    self.timeline.heap(entry.at_ns, self.segments.bytes());
                }
            }
            Event::Fault { addr, .. } => self.unexplained.add(addr),
            Event::Lost { events, .. } => self.totals.lost_events = self.totals.lost_events.saturating_add(events),
            Event::Marker { text } => self.marks.add(entry.at_ns, text),
            Event::Program(_) | Event::HeapCall { .. } | Event::Process(_) => {}
        }
    }
}
