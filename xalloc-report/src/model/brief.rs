//! The summary's figures, exact or estimated.
//!
//! Where only some blocks are recorded, a [`Replayer`] adds up: events are few there, and each has a weight and an error.

use xalloc_core::wire::HeapEvent;

use super::aggregates::Aggregates;
use super::faults::Unexplained;
use super::replayer::Replayer;
use super::sums::Sums;
use super::{AddUp, Settings};
use crate::trace::{By, Contents, Event, Obtained, ProcessIndex, Tally};

/// Adds up what the summary shows of a process.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are the large one, and each event would load a pointer to it")]
pub enum Brief {
    /// All of its blocks are recorded.
    Exact(Sums),
    /// Some are.
    Estimated(Box<Replayer>),
}

impl Brief {
    /// For one process of a trace.
    #[must_use]
    pub fn of(contents: &Contents, process: ProcessIndex, settings: Settings) -> Brief {
        match contents.recording.sampling {
            None => Brief::Exact(Sums::of(contents, process, settings)),
            Some(_) => Brief::Estimated(Box::new(Replayer::of(contents, process, settings))),
        }
    }
}

impl AddUp for Brief {
    fn unexplained(&mut self) -> &mut Unexplained {
        match self {
            Brief::Exact(sums) => &mut sums.uncommon.unexplained,
            Brief::Estimated(replayer) => replayer.unexplained(),
        }
    }

    fn has_lost(&self) -> bool {
        match self {
            Brief::Exact(sums) => sums.totals.lost_events > 0,
            Brief::Estimated(replayer) => replayer.has_lost(),
        }
    }

    fn finish(self) -> Aggregates {
        match self {
            Brief::Exact(sums) => sums.finish(),
            Brief::Estimated(replayer) => (*replayer).finish(),
        }
    }
}

/// What is told of a sampled process goes to the [`Replayer`] by functions of their own: the loops that tell hold the code
/// for [`Sums`] alone.
impl Tally for Brief {
    fn inherited(&mut self, slot: u32, size_bytes: u64) {
        match self {
            Brief::Exact(sums) => sums.inherited(slot, size_bytes),
            Brief::Estimated(replayer) => replayer.inherited(slot, size_bytes),
        }
    }

    #[inline(always)]
    fn prefetch(&self, slot: u32) {
        match self {
            Brief::Exact(sums) => sums.prefetch(slot),
            Brief::Estimated(_) => {}
        }
    }

    #[inline]
    fn passed(&mut self, events: u64, at_ns: u64) {
        match self {
            Brief::Exact(sums) => sums.passed(events, at_ns),
            Brief::Estimated(replayer) => replayer.passed(events, at_ns),
        }
    }

    #[inline(always)]
    fn obtained(&mut self, by: By, slot: u32, obtained: Obtained) {
        match self {
            Brief::Exact(sums) => sums.obtained(by, slot, obtained),
            Brief::Estimated(replayer) => obtained_by_estimate(replayer, by, slot, obtained),
        }
    }

    #[inline(always)]
    fn freed(&mut self, by: By, slot: u32) {
        match self {
            Brief::Exact(sums) => sums.freed(by, slot),
            Brief::Estimated(replayer) => freed_by_estimate(replayer, by, slot),
        }
    }

    fn realloc_begins(&mut self, by: By, slot: u32) {
        match self {
            Brief::Exact(sums) => sums.realloc_begins(by, slot),
            Brief::Estimated(replayer) => replayer.realloc_begins(by, slot),
        }
    }

    fn realloc_undone(&mut self, by: By, slot: u32) {
        match self {
            Brief::Exact(sums) => sums.realloc_undone(by, slot),
            Brief::Estimated(replayer) => replayer.realloc_undone(by, slot),
        }
    }

    fn heap(&mut self, by: By, step: HeapEvent) {
        match self {
            Brief::Exact(sums) => sums.heap(by, step),
            Brief::Estimated(replayer) => replayer.heap(by, step),
        }
    }

    fn other(&mut self, by: By, event: Event<'_>) {
        match self {
            Brief::Exact(sums) => sums.other(by, event),
            Brief::Estimated(replayer) => replayer.other(by, event),
        }
    }
}

#[inline(never)]
fn obtained_by_estimate(replayer: &mut Replayer, by: By, slot: u32, obtained: Obtained) {
    replayer.obtained(by, slot, obtained);
}

#[inline(never)]
fn freed_by_estimate(replayer: &mut Replayer, by: By, slot: u32) {
    replayer.freed(by, slot);
}
