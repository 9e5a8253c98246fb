//! The replayed recording: what its events add up to.
//!
//! A [`Model`] is made in one pass over the events of each process. Its memory grows with the live blocks, the
//! distinct stacks and the threads, never with the number of events; of a process that was replayed only its row and
//! its share of the sums stay.
//!
//! # What is counted, and how
//! - A `realloc` is a free of the old block and an allocation of the new one, whether the block moved or not, as
//!   heaptrack counts. While it runs the old block is not live. A `realloc` that fails leaves no trace in the counts.
//! - An allocation is *temporary* if its own thread frees it before that thread's next N allocations
//!   ([`Settings::temporary_threshold`]).
//! - Blocks that a forked child has from its parent are the parent's. The child neither allocated nor leaks them; what
//!   it does with them is counted apart, in [`Inherited`].
//! - The *peak* is the first instant at which the live bytes of one process are largest. For several processes the
//!   peaks are added, as the call stacks' shares of them are. How much they held together is bounded by the timeline:
//!   never more than the largest sum, over one of its spans, of what each held at most within it.
//!
//! - Where only some blocks were recorded, each counts for as many as it stands for ([`crate::trace::Sampling`]): all
//!   figures are estimates then, and [`Aggregates::errors`] says how far off they may be.
//!
//! # Why processes are not merged by time
//! A merged replay would need all processes' live sets at once and one file position each. What it would buy is the
//! simultaneous peak to the byte instead of a bound that is as close as a thousandth of the recording is short.

use self::faults::{LookBack, Unexplained};
use crate::trace::{Contents, Inheritance, Moment, ProcessIndex, Replay, Snapshot, Tally, Told, Trace, TraceError};

mod aggregates;
mod brief;
mod distribution;
mod faults;
pub mod layout;
mod live;
mod marks;
mod percentiles;
mod put_away;
mod replayer;
#[cfg(test)]
pub(crate) mod sample;
mod scale;
mod segments;
mod sites;
mod sizes;
mod spreads;
mod stacks;
mod sums;
pub mod survey;
#[cfg(test)]
mod tests;
mod threads;
mod timeline;
mod uncommon;

pub use aggregates::{Aggregates, Inherited, Peak, ProcessRow, Reallocs, Totals};
pub use brief::Brief;
pub use distribution::{Class, Distribution, Doubling, OneTwoFive, Scale};
pub use faults::{Fault, Freed, Involved};
pub use marks::{Mark, Marks};
pub(crate) use put_away::puts_away;
pub use replayer::Replayer;
pub use scale::StandardErrors;
pub(crate) use segments::{Moved, Segments};
pub use sites::{Alive, AtPeak, LifetimeClasses, Site};
pub use stacks::Stacks;
pub use threads::ThreadTotals;
pub use timeline::{BUCKETS_MAX, Bucket, Timeline};

/// What can be replayed: a trace, or in tests a recording made by hand.
pub trait Recorded {
    /// Why a replay stopped.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Everything but the events.
    fn contents(&self) -> &Contents;

    /// How many events of one process there are: what a replay tells, of which a record of the process may be several.
    fn events(&self, process: ProcessIndex) -> u64;

    /// Hands the events of one process to `to`, in order.
    ///
    /// # Errors
    /// When the events cannot be read; what was handed over before stays valid.
    fn replay(&self, process: ProcessIndex, to: &mut impl Replay) -> Result<(), Self::Error>;

    /// Hands to `to` what of the events of one process is added up.
    ///
    /// # Errors
    /// As [`Self::replay`].
    fn tally(&self, process: ProcessIndex, to: &mut impl Tally) -> Result<(), Self::Error> {
        self.replay(process, &mut Told::to(to))
    }

    /// As [`Self::replay`], for somebody who wants the events from `first` to `last`, both included: of what lies
    /// outside as little is told as the recording allows.
    ///
    /// # Errors
    /// As [`Self::replay`].
    fn replay_within(
        &self,
        process: ProcessIndex,
        first: Moment,
        last: Option<Moment>,
        to: &mut impl Replay,
    ) -> Result<(), Self::Error> {
        let _ = (first, last);
        self.replay(process, to)
    }

    /// What a process had from its parent when it began.
    ///
    /// # Errors
    /// When it cannot be read.
    fn inheritance(&self, process: ProcessIndex) -> Result<Inheritance, Self::Error>;

    /// What the kernel said of the process's memory, in order of time.
    ///
    /// # Errors
    /// When that cannot be read.
    fn snapshots(&self, process: ProcessIndex) -> Result<Vec<Snapshot>, Self::Error>;
}

/// A way of adding up what is told of a process.
trait AddUp: Tally {
    /// The addresses of faults, and of frees that no recorded allocation explains.
    fn unexplained(&mut self) -> &mut Unexplained;

    /// Whether the recording says that events are missing where these came.
    fn has_lost(&self) -> bool;

    /// Ends it: a realloc whose outcome was not seen has given its block back, every other block is alive.
    fn finish(self) -> Aggregates;
}

/// What the reader of a report may choose about counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// An allocation is temporary if freed by its thread before its next so many allocations; 0 counts none.
    pub temporary_threshold: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { temporary_threshold: 1 }
    }
}

/// A replayed recording.
#[derive(Debug)]
pub struct Model {
    /// How it was counted.
    pub settings: Settings,
    /// The selected processes added up.
    pub sum: Aggregates,
    /// The selected processes, in the order of the trace.
    pub processes: Vec<ProcessRow>,
}

impl Model {
    /// Replays `processes` one after another.
    ///
    /// # Errors
    /// The first error of [`Recorded::replay`].
    pub fn of<R: Recorded>(
        recorded: &R,
        processes: impl IntoIterator<Item = ProcessIndex>,
        settings: Settings,
    ) -> Result<Model, R::Error> {
        Model::with(recorded, processes, settings, Replayer::of)
    }

    /// As [`Self::of`], for who shows a summary and no more: which call stacks allocated is known and not what each of them
    /// did, of time what was live at most, and no distribution.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn brief<R: Recorded>(
        recorded: &R,
        processes: impl IntoIterator<Item = ProcessIndex>,
        settings: Settings,
    ) -> Result<Model, R::Error> {
        Model::with(recorded, processes, settings, Brief::of)
    }

    fn with<R: Recorded, A: AddUp>(
        recorded: &R,
        processes: impl IntoIterator<Item = ProcessIndex>,
        settings: Settings,
        of: impl Fn(&Contents, ProcessIndex, Settings) -> A,
    ) -> Result<Model, R::Error> {
        let mut model = Model { settings, sum: Aggregates::default(), processes: Vec::new() };
        for process in processes {
            let mut sums = of(recorded.contents(), process, settings);
            recorded.tally(process, &mut sums)?;
            let mut unexplained = std::mem::take(sums.unexplained());
            let recorded_as = recorded.contents().processes.get(process.0 as usize);
            let has_gaps = sums.has_lost() || recorded_as.is_some_and(|process| !process.losses.is_empty());
            if has_gaps {
                unexplained.forget_frees();
            }
            let mut faults = Vec::new();
            if !unexplained.is_empty() {
                let mut look_back = LookBack::at(&unexplained);
                if has_gaps {
                    look_back = look_back.with_gaps();
                }
                recorded.replay(process, &mut look_back)?;
                faults = look_back.finish();
            }
            model.add(process, sums, faults);
        }
        Ok(model)
    }

    /// The recording of which these, made with `settings`, were told everything: one for each process, in the order of
    /// the trace; it is as brief as [`Self::brief`]'s. `None` if a process did something wrong with its heap: to whose block,
    /// only its events say.
    #[must_use]
    pub fn of_tallied(mut tallies: Vec<Brief>, settings: Settings) -> Option<Model> {
        for tally in &mut tallies {
            if tally.has_lost() {
                tally.unexplained().forget_frees();
            }
            if !tally.unexplained().is_empty() {
                return None;
            }
        }
        let mut model = Model { settings, sum: Aggregates::default(), processes: Vec::new() };
        for (process, tally) in (0..).map(ProcessIndex).zip(tallies) {
            model.add(process, tally, Vec::new());
        }
        Some(model)
    }

    fn add(&mut self, process: ProcessIndex, sums: impl AddUp, faults: Vec<Fault>) {
        let aggregates = sums.finish();
        self.processes.push(ProcessRow { faults, ..ProcessRow::of(process, &aggregates) });
        self.sum.absorb(aggregates);
    }
}

impl Recorded for Trace {
    type Error = TraceError;

    fn contents(&self) -> &Contents {
        self.contents()
    }

    fn events(&self, process: ProcessIndex) -> u64 {
        self.events(process)
    }

    fn replay(&self, process: ProcessIndex, to: &mut impl Replay) -> Result<(), TraceError> {
        self.replay(process, to)
    }

    fn tally(&self, process: ProcessIndex, to: &mut impl Tally) -> Result<(), TraceError> {
        self.tally(process, to, &mut |_| {})
    }

    fn replay_within(
        &self,
        process: ProcessIndex,
        first: Moment,
        last: Option<Moment>,
        to: &mut impl Replay,
    ) -> Result<(), TraceError> {
        self.replay_within(process, first, last, to)
    }

    fn inheritance(&self, process: ProcessIndex) -> Result<Inheritance, TraceError> {
        self.inheritance(process)
    }

    fn snapshots(&self, process: ProcessIndex) -> Result<Vec<Snapshot>, TraceError> {
        self.snapshots(process)
    }
}
