//! The allocation sites: one for each distinct stack, with the share each has of the peak.
//!
//! # The peak by stack, in one pass
//! A copy of all sites at each growth of the maximum would cost their number at each allocation. Instead a global
//! *epoch* advances whenever the live bytes reach a new maximum. A site whose epoch is behind has not been touched
//! since that maximum, so its live bytes are those at the maximum: they are folded into `at_peak` just before it is
//! next changed, and once more at the end. Invariant: for a site with `epoch == sites.epoch`, `at_peak` is its share
//! of the maximum; for any other, its present live bytes are.

use xalloc_core::wire::Call;

use super::aggregates::Totals;
use super::distribution::{OneTwoFive, Scale};
use super::scale::Amount;
use super::stacks::Stacks;
use crate::trace::{StackIndex, ThreadIndex};

/// Lifetimes of one site have a class below 1 µs and one for each power of ten; the last takes 10^10 µs and more.
const LIFETIME_CLASSES: usize = 12;

/// How long the freed blocks of one site lived.
///
/// The classes are few and lie in the site itself: a free touches its site and nothing beyond.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LifetimeClasses {
    counts: [u64; LIFETIME_CLASSES],
    /// Sum of all lifetimes, nanoseconds.
    pub total_ns: u64,
}

impl LifetimeClasses {
    #[inline]
    fn record(&mut self, lifetime_ns: u64, blocks: u64) {
        // The distribution of all lifetimes divides each power of ten in three, and has asked for the class as well.
        let class = OneTwoFive::class_of(lifetime_ns).div_ceil(3);
        self.counts[class.min(LIFETIME_CLASSES - 1)] += blocks;
        self.total_ns = self.total_ns.saturating_add(lifetime_ns.saturating_mul(blocks));
    }

    fn absorb(&mut self, other: &LifetimeClasses) {
        for (into, from) in self.counts.iter_mut().zip(&other.counts) {
            *into += from;
        }
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
    }

    /// The classes that hold blocks, ascending: shortest lifetime, first lifetime above (both nanoseconds), blocks.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let edge = |class: usize| 1_000 * 10u64.pow(class as u32);
        let from = move |class: usize| class.checked_sub(1).map_or(0, edge);
        let to = move |class: usize| if class == LIFETIME_CLASSES - 1 { u64::MAX } else { edge(class) };
        let held = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        held.map(move |(class, &count)| (from(class), to(class), count))
    }
}

/// What a site held when the live bytes of its process were largest.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AtPeak {
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

/// What a site holds when the recording ends.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Alive {
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Age of the oldest block at its process's last event, nanoseconds.
    pub oldest_ns: u64,
    /// Age of the youngest, nanoseconds.
    pub youngest_ns: u64,
    /// The threads that allocated them, ascending.
    pub threads: Vec<ThreadIndex>,
}

impl Alive {
    fn include(&mut self, age_ns: u64, amount: Amount, thread: ThreadIndex) {
        self.oldest_ns = self.oldest_ns.max(age_ns);
        self.youngest_ns = if self.blocks == 0 { age_ns } else { self.youngest_ns.min(age_ns) };
        self.bytes = self.bytes.saturating_add(amount.bytes);
        self.blocks += amount.blocks;
        if let Err(place) = self.threads.binary_search(&thread) {
            self.threads.insert(place, thread);
        }
    }

    fn absorb(&mut self, other: Alive) {
        if other.blocks == 0 {
            return;
        }
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
        self.youngest_ns = if self.blocks == 0 { other.youngest_ns } else { self.youngest_ns.min(other.youngest_ns) };
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.blocks += other.blocks;
        self.threads.extend(other.threads);
        self.threads.sort_unstable();
        self.threads.dedup();
    }
}

/// Everything that one call stack allocated.
///
/// What every allocation and every free touches comes first, and lies in one cache line: a program has more call stacks
/// than a cache has lines.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Site {
    live: AtPeak,
    epoch: u64,
    /// Its share of the peak; of the sum of peaks when processes were added up.
    pub at_peak: AtPeak,
    /// Frees of its blocks, whoever freed them.
    pub frees: u64,
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Requested bytes of all of them.
    pub allocated_bytes: u64,
    /// Of the frees, those that make an allocation temporary.
    pub temporary: u64,
    /// Requested bytes of the temporary allocations.
    pub temporary_bytes: u64,
    /// How long its freed blocks lived.
    pub lifetimes: LifetimeClasses,
    /// Of the allocations, those that were a realloc of a block; where only some are recorded, of no block too.
    pub reallocations: u64,
    /// Allocations that were recorded: all of them, unless the recording is sampled.
    pub recorded: u64,
    /// What is left at the end.
    pub alive: Alive,
    /// The stack.
    pub stack: StackIndex,
    /// The call of its first allocation.
    pub call: Call,
}

impl Site {
    fn of(stack: StackIndex, call: Call, epoch: u64) -> Site {
        Site {
            stack,
            call,
            allocations: 0,
            allocated_bytes: 0,
            reallocations: 0,
            recorded: 0,
            frees: 0,
            temporary: 0,
            temporary_bytes: 0,
            lifetimes: LifetimeClasses::default(),
            at_peak: AtPeak::default(),
            alive: Alive::default(),
            live: AtPeak::default(),
            epoch,
        }
    }

    pub(super) fn absorb(&mut self, other: Site) {
        self.allocations += other.allocations;
        self.allocated_bytes = self.allocated_bytes.saturating_add(other.allocated_bytes);
        self.reallocations += other.reallocations;
        self.recorded += other.recorded;
        self.frees += other.frees;
        self.temporary += other.temporary;
        self.temporary_bytes = self.temporary_bytes.saturating_add(other.temporary_bytes);
        self.lifetimes.absorb(&other.lifetimes);
        self.at_peak.bytes = self.at_peak.bytes.saturating_add(other.at_peak.bytes);
        self.at_peak.blocks += other.at_peak.blocks;
        self.alive.absorb(other.alive);
    }

    /// A block was freed after so long.
    #[inline]
    pub(super) fn lived(&mut self, lifetime_ns: u64, blocks: u64) {
        self.lifetimes.record(lifetime_ns, blocks);
    }

    /// A block that was just freed was temporary.
    pub(super) fn was_temporary(&mut self, amount: Amount) {
        self.temporary += amount.blocks;
        self.temporary_bytes = self.temporary_bytes.saturating_add(amount.bytes);
    }

    pub(super) fn outlived(&mut self, age_ns: u64, amount: Amount, thread: ThreadIndex) {
        self.alive.include(age_ns, amount, thread);
    }
}

/// The sites of one process while it is replayed.
#[derive(Debug)]
pub(super) struct Sites {
    /// Site number by stack, one more than the index; 0: none yet. A process that still runs brings stacks that were
    /// not there when it began.
    by_stack: Vec<u32>,
    sites: Vec<Site>,
    epoch: u64,
    live: AtPeak,
    peak: AtPeak,
    peak_at_ns: Option<u64>,
}

impl Sites {
    /// For a trace with `stacks` stack nodes.
    pub(super) fn new(stacks: usize) -> Sites {
        Sites {
            // Nodes 0 and 1 exist in every trace.
            by_stack: vec![0; stacks.max(2)],
            sites: Vec::new(),
            epoch: 0,
            live: AtPeak::default(),
            peak: AtPeak::default(),
            peak_at_ns: None,
        }
    }

    /// Number of the site of `stack`, made at its first use.
    #[inline]
    pub(super) fn number(&mut self, stack: StackIndex, call: Call) -> u32 {
        match self.by_stack.get(stack.0 as usize) {
            Some(&number) if number != 0 => number - 1,
            Some(_) | None => self.make(stack, call),
        }
    }

    #[cold]
    #[inline(never)]
    fn make(&mut self, stack: StackIndex, call: Call) -> u32 {
        let at = stack.0 as usize;
        if at >= self.by_stack.len() {
            self.by_stack.resize((at + 1).next_power_of_two(), 0);
        }
        self.sites.push(Site::of(stack, call, self.epoch));
        let number = self.sites.len() as u32;
        self.by_stack[at] = number;
        number - 1
    }

    /// The site with a number that [`Sites::number`] gave.
    #[inline]
    pub(super) fn at(&mut self, number: u32) -> &mut Site {
        &mut self.sites[number as usize]
    }

    /// Adds up in `totals` what the sites count.
    pub(super) fn total(&self, totals: &mut Totals) {
        for site in &self.sites {
            totals.allocations += site.allocations;
            totals.allocated_bytes = totals.allocated_bytes.saturating_add(site.allocated_bytes);
            totals.frees += site.frees;
            totals.temporary += site.temporary;
            totals.temporary_bytes = totals.temporary_bytes.saturating_add(site.temporary_bytes);
            if site.stack == StackIndex::UNKNOWN {
                totals.unknown_stacks += site.allocations;
            }
        }
    }

    /// A block of the site is allocated.
    #[inline]
    pub(super) fn allocated(&mut self, number: u32, amount: Amount, at_ns: u64) {
        let site = &mut self.sites[number as usize];
        site.allocations += amount.blocks;
        site.allocated_bytes = site.allocated_bytes.saturating_add(amount.bytes);
        self.live_up(number, amount, at_ns);
    }

    /// A block of the site begins to live.
    #[inline]
    pub(super) fn live_up(&mut self, number: u32, amount: Amount, at_ns: u64) {
        let Amount { bytes, blocks } = amount;
        let site = Self::folded(&mut self.sites[number as usize], self.epoch);
        // Saturating: a hostile trace can claim more live bytes than 64 bits count.
        site.live.bytes = site.live.bytes.saturating_add(bytes);
        site.live.blocks += blocks;
        self.live.bytes = self.live.bytes.saturating_add(bytes);
        self.live.blocks += blocks;
        if self.live.bytes > self.peak.bytes {
            self.peak = self.live;
            self.peak_at_ns = Some(at_ns);
            self.epoch += 1;
        }
    }

    /// A block of the site ceases to live.
    #[inline]
    pub(super) fn live_down(&mut self, number: u32, amount: Amount) {
        let Amount { bytes, blocks } = amount;
        let site = Self::folded(&mut self.sites[number as usize], self.epoch);
        site.live.bytes = site.live.bytes.saturating_sub(bytes);
        site.live.blocks -= blocks;
        self.live.bytes = self.live.bytes.saturating_sub(bytes);
        self.live.blocks -= blocks;
    }

    #[inline]
    fn folded(site: &mut Site, epoch: u64) -> &mut Site {
        if site.epoch != epoch {
            site.at_peak = site.live;
            site.epoch = epoch;
        }
        site
    }

    #[inline]
    pub(super) fn live(&self) -> AtPeak {
        self.live
    }

    pub(super) fn peak(&self) -> (AtPeak, Option<u64>) {
        (self.peak, self.peak_at_ns)
    }

    /// Their call stacks.
    pub(super) fn stacks(&self) -> Stacks {
        self.sites.iter().map(|site| site.stack).collect()
    }

    /// The sites in order of their first allocation, every share of the peak settled.
    pub(super) fn finish(mut self) -> Vec<Site> {
        for site in &mut self.sites {
            Self::folded(site, self.epoch);
            if site.recorded == 0 {
                // Not sampled, so nobody counted.
                site.recorded = site.allocations;
            }
        }
        self.sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_fall_into_powers_of_ten_and_none_is_too_long() {
        let mut lifetimes = LifetimeClasses::default();
        for lifetime_ns in [0, 999, 1_000, 9_999, 10_000, u64::MAX] {
            lifetimes.record(lifetime_ns, 1);
        }
        let last = 1_000 * 10u64.pow(10);
        let classes: Vec<_> = lifetimes.classes().collect();
        assert_eq!(classes, [(0, 1_000, 2), (1_000, 10_000, 2), (10_000, 100_000, 1), (last, u64::MAX, 1)]);
    }
}
