//! The questions that a recording answers: each a pure function from the model to plain structs.
//!
//! Text, JSON and pictures are all made from these structs, so they cannot disagree. The structs are also the JSON
//! contract: their names and units are those that a script sees, bytes are integers, addresses are strings such as
//! `"0x5555555792a0"`, lists have a stable order, and what is not known is `null` or said in a field of its own.
//!
//! # Words
//! *Alive at exit* is a fact: the block was not freed before its process's last event. *Leaked* is the verdict of a scan,
//! which asked whether anything still pointed to the block; where no scan looked, nothing is called so.

mod allocator_frames;
mod checks;
mod events;
mod faults;
mod flame;
pub mod fragmentation;
mod frames;
mod growth;
mod histogram;
mod leaks;
mod marker;
mod names;
mod pattern;
mod process;
mod sampling;
mod sites;
mod summary;
mod timeline;
mod top;
mod what_if;

pub use allocator_frames::is_allocator;
pub use checks::CheckView;
pub use events::{EventKind, EventView, EventWindow, Observer, What};
pub use faults::{
    BlockView, DoubleFreeView, FaultKind, FaultStack, FaultView, FreedView, InvolvedView, NeighbourView, faults,
    reported_faults,
};
pub use flame::{Flame, FlameStack, Metric};
pub use frames::{CallStack, FrameView, StackState};
pub use growth::{Growth, Slope};
pub use histogram::{Histogram, LifetimeBucket, LifetimeHistogram, Percentiles, Quantity, SizeBucket, SizeHistogram};
use leaks::ShownCheck;
pub use leaks::{HintView, HolderView, LeakSite, LeakSum, LeakTotals, Leaks, ProcessCheck};
pub use marker::first_mark;
pub use names::Named;
pub use pattern::Pattern;
pub use process::{EndView, ThreadName};
pub use sampling::SamplingView;
pub use sites::Sites;
pub use summary::{AllocatorView, LossView, ProcessSummary, Span, Summary, ThreadSummary};
pub use timeline::{MarkView, Moment, TimelineView};
pub use top::{Order, Top, TopSite};
pub use what_if::{Engine, Fidelity, PartingView, RunView, WhatIf};

pub use crate::trace::{Disguise, LeakClass, Occasion};

/// Describes a recording as a whole.
#[must_use]
pub fn summary(contents: &crate::trace::Contents, model: &crate::model::Model) -> Summary {
    Summary::of(contents, model)
}

/// Lists what was alive at exit by class and call stack, the worst class first and largest first in it.
#[must_use]
pub fn leaks(contents: &crate::trace::Contents, model: &crate::model::Model) -> Leaks {
    Leaks::of(contents, model, ShownCheck::Last)
}

/// As [`leaks()`], of what one check found, whenever it was. The model is that of its process.
#[must_use]
pub fn leaks_at(contents: &crate::trace::Contents, model: &crate::model::Model, check: u64) -> Leaks {
    Leaks::of(contents, model, ShownCheck::Number(check))
}

/// Tells how the live bytes of each call stack of a process changed over its run.
///
/// # Errors
/// That of the replay.
pub fn growth<R: crate::model::Recorded>(
    recorded: &R,
    process: crate::trace::ProcessIndex,
) -> Result<Growth, R::Error> {
    Growth::of(recorded, process)
}

/// Ranks the call stacks.
#[must_use]
pub fn top(contents: &crate::trace::Contents, model: &crate::model::Model, by: Order) -> Top {
    Top::of(contents, model, by)
}

/// Shows how sizes or lifetimes are spread.
#[must_use]
pub fn histogram(model: &crate::model::Model, of: Quantity) -> Histogram {
    Histogram::of(model, of)
}

/// Shows live bytes, heap bytes and allocation rate over time, in at most `buckets` steps.
#[must_use]
pub fn timeline(model: &crate::model::Model, buckets: usize) -> TimelineView {
    TimelineView::of(model, buckets)
}

/// Weighs call stacks by what they pin, for a flame graph.
#[must_use]
pub fn flame_of_pins(fragmentation: &fragmentation::Fragmentation) -> Flame {
    Flame::pinned(&fragmentation.pins)
}

/// Weighs every call stack by a metric, for a flame graph. [`Metric::Pinned`] needs the layout of the heap:
/// [`flame_of_pins`].
#[must_use]
pub fn flame(contents: &crate::trace::Contents, model: &crate::model::Model, metric: Metric) -> Flame {
    Flame::of(contents, model, metric)
}
