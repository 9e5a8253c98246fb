//! Who keeps the memory: the heap at one moment, by class, by page and by call site.
//!
//! The definitions are those of the literature where it has some: internal and external fragmentation (Randell 1969),
//! the ratios of Johnstone and Wilson (ISMM 1998), the unusable free space index (Gorman and Whitcroft), the Shapley
//! value for what several call sites pin together. `docs/fragmentation.md` explains each figure.
//!
//! # How it is made
//! Two passes over the process's events. The first finds the moment that is asked for and the sums over the whole life;
//! the second rebuilds the layout, looks at it at that moment, and now and then on the way.
//!
//! # Which pages are resident
//! Where the recording has no look at the kernel's tables, pages count as resident by the model of
//! [`crate::model::layout`]; [`Fragmentation::residency`] says which it was.

use rustc_hash::FxHashMap;

use super::process::pid;
use crate::model::Recorded;
use crate::model::layout::Imbalance;
use crate::model::survey::{Mark, Survey};
use crate::trace::{Allocator, Contents, ProcessIndex, Snapshot};

mod fixes;
mod free;
mod free_pairs;
mod growth;
mod isolation;
mod ladder;
mod lives;
mod moment;
mod padding;
mod pages;
mod picture;
mod pins;
mod replays;
mod rss;
mod sites;
mod staircase;
#[cfg(test)]
mod tests;
mod views;
mod watch;

pub use fixes::{EVENTS_UNASKED, FixView, FixesView, FootprintView, Predict, Suggested};
pub use free::{BinView, CacheView, FreeView, SizeCount, UnusableView};
pub use free_pairs::{FreePairView, FreePairsView};
pub use moment::At;
pub use padding::PaddingView;
pub use rss::{LookView, PagesView, RssView, Segment, SegmentView, UntouchedView};
pub use sites::{
    CoverView, CrossThreadSiteView, CrossThreadView, GrowthView, PinView, StepView, SystemCallView, SystemCallsView,
    ThresholdView,
};
pub use views::{ArenaView, BooksView, Fragmentation, LadderView, RatiosView, ResidencyView};
pub use watch::{ColumnView, MapRange};

use free_pairs::FreePairs;
use lives::Lives;
use moment::{Around, Still};
use replays::{Both, begin};
use watch::{Target, Watch};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum FragmentationError<E: std::error::Error + 'static> {
    /// The events could not be read.
    #[error(transparent)]
    Recorded(E),
    /// The process has no events.
    #[error("the process has no events")]
    NoEvents,
    /// The moment that was asked for lies behind the last event.
    #[error("the process ended before that: its last event has number {last_seq} and the time {}", seconds(*last_ns))]
    AfterTheEnd {
        /// Number of the last event.
        last_seq: u64,
        /// Its time, nanoseconds since the recording's start.
        last_ns: u64,
    },
    /// The heap's steps were not recorded.
    #[error("the steps of the heap were not recorded, so where chunks lie is not known")]
    NoSteps,
    /// The heap's books do not balance.
    #[error(transparent)]
    Imbalance(#[from] Imbalance),
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09} s", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// Describes the heap of `process` at a moment, and tries what its findings suggest if `predict` allows it.
///
/// # Errors
/// [`FragmentationError`].
pub fn fragmentation<R: Recorded>(
    recorded: &R,
    process: ProcessIndex,
    at: At,
    predict: Predict,
) -> Result<Fragmentation, FragmentationError<R::Error>> {
    let contents = recorded.contents();
    let layout = begin(recorded, process)?;
    let lives = Both(Lives::default(), FreePairs::default());
    let mut first = Both(Both(Survey::beginning_with(&layout), lives), Around::of(at));
    recorded.replay(process, &mut first).map_err(FragmentationError::Recorded)?;
    let Both(Both(survey, Both(lives, free_pairs)), around) = first;
    if survey.events() == 0 {
        return Err(FragmentationError::NoEvents);
    }
    let (_, last_ns) = survey.life_ns();
    let last_seq = survey.events().saturating_sub(1);
    if matches!(at, At::Time(at_ns) if at_ns > last_ns) || matches!(at, At::Seq(seq) if seq > last_seq) {
        return Err(FragmentationError::AfterTheEnd { last_seq, last_ns });
    }
    let told = contents.processes.get(process.0 as usize);
    let is_core = told.is_some_and(|process| process.allocator == Allocator::Core);
    // Who never allocated has an empty heap, which took no step.
    let has_blocks = survey.most_requested.requested_bytes > 0;
    if is_core && has_blocks && !survey.knows_steps() && !layout.knows_steps() {
        return Err(FragmentationError::NoSteps);
    }
    let target = match at {
        At::Peak => Target::Seq(survey.most_requested.seq),
        At::Exit => Target::Seq(survey.events()),
        At::Seq(seq) => Target::Seq(seq.saturating_add(1)),
        At::Time(at_ns) => Target::Time(at_ns),
    };
    let snapshots = recorded.snapshots(process).map_err(FragmentationError::Recorded)?;
    let still = match at {
        At::Peak => Still::at(survey.most_requested.at_ns),
        At::Time(at_ns) => Still::at(at_ns),
        At::Exit => Still { from_ns: around.changed_ns.unwrap_or(last_ns), to_ns: u64::MAX },
        At::Seq(_) => Still { from_ns: around.at_ns.unwrap_or(last_ns), to_ns: around.next_ns.unwrap_or(u64::MAX) },
    };
    // Of several that are as near the last is the one at the end, where that is meant.
    let by_distance = |snapshot: &&Snapshot| still.distance_ns(snapshot.at_ns);
    let nearest = match at {
        At::Exit => snapshots.iter().rev().min_by_key(by_distance),
        At::Peak | At::Time(_) | At::Seq(_) => snapshots.iter().min_by_key(by_distance),
    };
    let mut watch = Watch::new(contents, layout, target, &survey);
    watch.lay_over(nearest, still);
    recorded.replay(process, &mut watch).map_err(FragmentationError::Recorded)?;
    let mut watched = watch.finish()?;
    if let Some(rss) = &mut watched.rss {
        rss.looks = snapshots.len() as u64;
        rss.looks_cost_ns = snapshots.iter().map(|snapshot| snapshot.cost_ns).sum();
    }
    let life = Life { survey: &survey, lives: &lives, free_pairs: &free_pairs };
    let mut seen = assemble(contents, process, is_core, &life, watched);
    seen.looks = snapshots.iter().map(LookView::from).collect();
    seen.fixes = fixes::tried(recorded, process, &seen, &survey, predict).map_err(FragmentationError::Recorded)?;
    Ok(seen)
}

/// What is known of the process's whole life.
struct Life<'l> {
    survey: &'l Survey,
    lives: &'l Lives,
    free_pairs: &'l FreePairs,
}

fn assemble(
    contents: &Contents,
    process: ProcessIndex,
    core: bool,
    life: &Life<'_>,
    watched: watch::Watched,
) -> Fragmentation {
    let survey = life.survey;
    let watch::Watched { picture, growths, pin_time, peak_bytes, map, rss, residency, faults } = watched;
    let (mean_requested, mean_footprint) = survey.means();
    let ratio = |of: u64, to: u64| (to > 0).then(|| of as f64 / to as f64);
    let of = |mark: &Mark| ratio(mark.footprint_bytes, mark.requested_bytes);
    let mapped = picture.arenas.iter().find(|view| view.arena.is_none()).map_or(0, |view| view.books.segments);
    Fragmentation {
        pid: pid(contents, process),
        process: process.0,
        core,
        seq: picture.seq,
        at_ns: picture.at_ns,
        life_ns: survey.life_ns().1.saturating_sub(survey.life_ns().0),
        blocks: picture.blocks,
        requested: picture.requested,
        padding: picture.padding.1,
        headers: picture.headers,
        books: picture.books.into(),
        residency,
        rss,
        looks: Vec::new(),
        top_pad_bytes: picture.top_pad_bytes,
        trim_threshold_bytes: picture.trim_threshold_bytes,
        live_pages: picture.pins.pages,
        pinned_bytes: picture.pins.pinned_bytes,
        pins: sites::pins(contents, &picture, &sites::OverTime { pin_time, peak_bytes, lives: life.lives }),
        cover: sites::cover(contents, &picture.pins, &picture.live),
        staircase: picture.steps,
        mmap_threshold: sites::threshold(contents, survey),
        growths: growths.growths,
        external: sites::external(contents, &growths),
        ratios: RatiosView {
            mean: ratio(mean_footprint, mean_requested),
            at_most_requested: of(&survey.most_requested),
            at_largest: of(&survey.largest),
            largest_to_most: ratio(survey.largest.footprint_bytes, survey.most_requested.requested_bytes),
            realized: ratio(picture.ladder.resident + mapped, picture.requested).map(|ratio| ratio - 1.0),
        },
        system_calls: sites::system_calls(contents, &survey.calls, &faults),
        program_calls: sites::system_calls(contents, &survey.program_calls, &FxHashMap::default()),
        cross_thread_frees: sites::cross_thread_frees(contents, survey),
        free_pairs: life.free_pairs.view(contents),
        arenas: picture.arenas,
        free: picture.free,
        ladder: picture.ladder,
        padding_by_size: picture.padding.0,
        map,
        fixes: FixesView::default(),
    }
}
