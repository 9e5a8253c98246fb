//! What a replay leaves behind, and how the processes of a recording add up.

use rustc_hash::FxHashMap;

use super::distribution::{Distribution, Doubling, OneTwoFive};
use super::faults::Fault;
use super::marks::Marks;
use super::scale::StandardErrors;
use super::sites::Site;
use super::stacks::Stacks;
use super::threads::ThreadTotals;
use super::timeline::Timeline;
use crate::trace::ProcessIndex;

/// Plain counts over all events.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Requested bytes of all of them.
    pub allocated_bytes: u64,
    /// Frees of the process's own blocks, reallocs included.
    pub frees: u64,
    /// Calls for memory that failed.
    pub failed: u64,
    /// Temporary allocations.
    pub temporary: u64,
    /// Requested bytes of these.
    pub temporary_bytes: u64,
    /// Frees of addresses that no recorded allocation made.
    pub unknown_frees: u64,
    /// Frees by another thread than the one that allocated.
    pub foreign_frees: u64,
    /// Allocations whose stack was lost.
    pub unknown_stacks: u64,
    /// Requested bytes alive at the end.
    pub alive_bytes: u64,
    /// Blocks alive at the end.
    pub alive_blocks: u64,
    /// Events that were replayed.
    pub events: u64,
    /// Events that the stream itself says are missing.
    pub lost_events: u64,
}

/// What came of reallocs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reallocs {
    /// The block stayed where it was.
    pub in_place: u64,
    /// The block moved.
    pub moved: u64,
    /// Bytes that had to be copied for the moves: the smaller of old and new requested size of each.
    pub copied_bytes: u64,
    /// The call failed or kept the block as it was; not counted as allocation or free.
    pub undone: u64,
}

/// The blocks that a forked child had from its parent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inherited {
    /// Blocks at the fork.
    pub blocks: u64,
    /// Requested bytes of these.
    pub bytes: u64,
    /// Of the blocks, those that the child freed.
    pub freed_blocks: u64,
    /// Requested bytes of these.
    pub freed_bytes: u64,
}

/// The largest sum of live requested bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peak {
    /// The bytes; of several processes the sum of each one's peak.
    pub bytes: u64,
    /// The blocks at that instant, added likewise.
    pub blocks: u64,
    /// When it was first reached, nanoseconds since the recording's start; `None` without allocations, and for
    /// several processes, which peak at different times.
    pub at_ns: Option<u64>,
}

impl Peak {
    fn absorb(&mut self, other: Peak) {
        self.at_ns = match (self.bytes, other.bytes) {
            (_, 0) => self.at_ns,
            (0, _) => other.at_ns,
            (_, _) => None,
        };
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.blocks += other.blocks;
    }
}

/// Everything that the events of one or more processes add up to.
#[derive(Clone, Default, Debug)]
pub struct Aggregates {
    /// Plain counts.
    pub totals: Totals,
    /// What came of reallocs.
    pub reallocs: Reallocs,
    /// Blocks from before a fork.
    pub inherited: Inherited,
    /// The peak.
    pub peak: Peak,
    /// The call stacks that allocated.
    pub stacks: Stacks,
    /// What each of them did, in order of its first allocation; nothing in a brief model.
    pub sites: Vec<Site>,
    /// Threads that allocated or freed, ascending.
    pub threads: Vec<ThreadTotals>,
    /// Requested sizes, bytes.
    pub requested: Distribution<Doubling>,
    /// Usable sizes, bytes.
    pub usable: Distribution<Doubling>,
    /// Lifetimes of freed blocks, nanoseconds.
    pub lifetime: Distribution<OneTwoFive>,
    /// Live and heap bytes over time.
    pub timeline: Timeline,
    /// Marks that the programs set, by time.
    pub marks: Marks,
    /// Processes whose heap segments are not known: another allocator served them, or they began as a fork.
    pub heap_unknown_processes: u32,
    /// How many processes these are.
    pub processes: u32,
    /// How far off the totals may be; `None`: they are exact.
    pub errors: Option<StandardErrors>,
}

impl Aggregates {
    /// Adds the aggregates of another process.
    pub fn absorb(&mut self, other: Aggregates) {
        let (into, from) = (&mut self.totals, other.totals);
        into.allocations += from.allocations;
        into.allocated_bytes = into.allocated_bytes.saturating_add(from.allocated_bytes);
        into.frees += from.frees;
        into.failed += from.failed;
        into.temporary += from.temporary;
        into.temporary_bytes = into.temporary_bytes.saturating_add(from.temporary_bytes);
        into.unknown_frees += from.unknown_frees;
        into.foreign_frees += from.foreign_frees;
        into.unknown_stacks += from.unknown_stacks;
        into.alive_bytes = into.alive_bytes.saturating_add(from.alive_bytes);
        into.alive_blocks += from.alive_blocks;
        into.events += from.events;
        into.lost_events = into.lost_events.saturating_add(from.lost_events);

        self.reallocs.in_place += other.reallocs.in_place;
        self.reallocs.moved += other.reallocs.moved;
        self.reallocs.copied_bytes = self.reallocs.copied_bytes.saturating_add(other.reallocs.copied_bytes);
        self.reallocs.undone += other.reallocs.undone;

        self.inherited.blocks += other.inherited.blocks;
        self.inherited.bytes = self.inherited.bytes.saturating_add(other.inherited.bytes);
        self.inherited.freed_blocks += other.inherited.freed_blocks;
        self.inherited.freed_bytes = self.inherited.freed_bytes.saturating_add(other.inherited.freed_bytes);

        self.peak.absorb(other.peak);
        self.stacks.absorb(&other.stacks);
        self.absorb_sites(other.sites);
        // Threads belong to one process each, and processes come in the order of the trace; sorted all the same.
        self.threads.extend(other.threads);
        self.threads.sort_by_key(|thread| thread.thread);
        self.requested.absorb(&other.requested);
        self.usable.absorb(&other.usable);
        self.lifetime.absorb(&other.lifetime);
        self.timeline.absorb(other.timeline);
        self.marks.absorb(other.marks);
        self.heap_unknown_processes += other.heap_unknown_processes;
        self.processes += other.processes;
        self.errors = match (self.errors, other.errors) {
            (Some(of_these), Some(of_other)) => Some(of_these.and(of_other)),
            (one, other) => one.or(other),
        };
    }

    fn absorb_sites(&mut self, sites: Vec<Site>) {
        if self.sites.is_empty() {
            self.sites = sites;
            return;
        }
        let mut by_stack: FxHashMap<_, _> =
            self.sites.iter().enumerate().map(|(index, site)| (site.stack, index)).collect();
        for site in sites {
            match by_stack.get(&site.stack) {
                Some(&index) => self.sites[index].absorb(site),
                None => {
                    by_stack.insert(site.stack, self.sites.len());
                    self.sites.push(site);
                }
            }
        }
    }

    /// Whether heap bytes are known for at least one process.
    #[must_use]
    pub fn heap_known(&self) -> bool {
        self.heap_unknown_processes < self.processes
    }
}

/// What stays of one process when several are added up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessRow {
    /// Which process.
    pub process: ProcessIndex,
    /// Its counts.
    pub totals: Totals,
    /// Its peak.
    pub peak: Peak,
    /// What it had from its parent.
    pub inherited: Inherited,
    /// Its threads that allocated or freed.
    pub threads: u64,
    /// What it did wrong with its heap, in order of time.
    pub faults: Vec<Fault>,
}

impl ProcessRow {
    pub(super) fn of(process: ProcessIndex, aggregates: &Aggregates) -> ProcessRow {
        ProcessRow {
            process,
            totals: aggregates.totals,
            peak: aggregates.peak,
            inherited: aggregates.inherited,
            threads: aggregates.threads.len() as u64,
            faults: Vec::new(),
        }
    }
}
