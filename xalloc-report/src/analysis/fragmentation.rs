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
use schemars::JsonSchema;
use serde::Serialize;

use super::frames::CallStack;
use super::process::{ThreadName, pid};
use crate::model::Recorded;
use crate::model::layout::{Books, Imbalance, Layout, Place, RangeKind, Span};
use crate::model::survey::{Mark, Survey};
use crate::trace::{Allocator, Contents, Entry, ProcessIndex, Replay, StackIndex};

mod fixes;
mod free;
mod growth;
mod isolation;
mod ladder;
mod lives;
mod padding;
mod pages;
mod pins;
mod rss;
mod sites;
mod staircase;
#[cfg(test)]
mod tests;
mod watch;

pub use fixes::{EVENTS_UNASKED, FixView, FixesView, FootprintView, Predict, Suggested};
pub use free::{BinView, CacheView, FreeView, SizeCount, UnusableView};
pub use padding::PaddingView;
pub use rss::{LookView, RssView, Segment, SegmentView, UntouchedView};
pub use sites::{
    CoverView, CrossThreadSiteView, CrossThreadView, GrowthView, PinView, StepView, SystemCallView, SystemCallsView,
    ThresholdView,
};
pub use watch::{ColumnView, MapRange};

use free::Recent;
use isolation::{Births, Neighbours};
use ladder::Ladder;
use lives::Lives;
use pages::Residency;
use pins::Pins;
use rss::Measured;
use watch::{Target, Watch};

/// The moment that a report is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// When the requested bytes were most, for the first time.
    Peak,
    /// After the last event.
    Exit,
    /// After the last event that is not later, in nanoseconds since the recording's start.
    Time(u64),
    /// After the event of that number.
    Seq(u64),
}

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

/// Bytes by class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct BooksView {
    /// In chunks that the program has, headers and padding included.
    pub live: u64,
    /// In threads' caches: given back by the program, and nobody else's.
    pub tcache: u64,
    /// In fast bins.
    pub fastbin: u64,
    /// In the unsorted, small and large bins.
    pub bin_free: u64,
    /// In tops.
    pub top: u64,
    /// The heap's own: headers, arena state, fences, bookkeeping of caches.
    pub metadata: u64,
    /// All that the heap has from the system; the sum of the above.
    pub segments: u64,
}

impl From<Books> for BooksView {
    fn from(books: Books) -> BooksView {
        BooksView {
            live: books.live_bytes,
            tcache: books.tcache_bytes,
            fastbin: books.fastbin_bytes,
            bin_free: books.bin_free_bytes,
            top: books.top_bytes,
            metadata: books.metadata_bytes,
            segments: books.segments_bytes,
        }
    }
}

/// The books of one arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ArenaView {
    /// Number of the arena, 0 for that of the break; `null` for chunks with a mapping of their own.
    pub arena: Option<u16>,
    /// Its bytes by class.
    #[serde(flatten)]
    pub books: BooksView,
}

/// The release ladder: bytes of resident memory of the arenas that would go back, each step with those before it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct LadderView {
    /// By an automatic trim of the top, as the next large free would do.
    pub systrim: u64,
    /// By `malloc_trim(0)`.
    pub malloc_trim: u64,
    /// By emptying all threads' caches and `malloc_trim(0)` after that.
    pub after_flush: u64,
    /// If what is in use lay close together.
    pub ideal: u64,
    /// Resident bytes of the arenas.
    pub resident: u64,
    /// Free bytes on resident pages that none of the steps but the ideal one would give back.
    pub unreleasable: u64,
}

/// What the heap takes for what the program asked for.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct RatiosView {
    /// Footprint to requested bytes, both averaged over time (Johnstone and Wilson's first ratio, of the means).
    pub mean: Option<f64>,
    /// Footprint when most was requested, to that (their second).
    pub at_most_requested: Option<f64>,
    /// The largest footprint to what was requested then (their third).
    pub at_largest: Option<f64>,
    /// The largest footprint to the most that was ever requested (their fourth).
    pub largest_to_most: Option<f64>,
    /// Resident bytes of the heap to requested bytes, less 1, at this report's moment: the realized fragmentation if
    /// that is the peak.
    pub realized: Option<f64>,
}

/// How the resident pages are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResidencyView {
    /// By the model: resident from its first use to its release.
    Modelled,
    /// As the kernel said, close to this moment.
    Measured,
}

/// The heap of one process at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Fragmentation {
    /// Process id.
    pub pid: u32,
    /// Its number in the trace.
    pub process: u32,
    /// Who serves its allocations; under another allocator than xalloc's only the blocks are known.
    pub core: bool,
    /// Events up to this moment.
    pub seq: u64,
    /// The moment, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// From the process's first event to its last, nanoseconds.
    pub life_ns: u64,
    /// Blocks that live.
    pub blocks: u64,
    /// Bytes that the program asked for and has.
    pub requested: u64,
    /// What its blocks have beyond that.
    pub padding: u64,
    /// What stands before the blocks, 8 bytes of a heap chunk and 16 of a mapped one, and what rounding to pages adds to
    /// mappings.
    pub headers: u64,
    /// Bytes by class.
    pub books: BooksView,
    /// The same by arena.
    pub arenas: Vec<ArenaView>,
    /// What is free, by who could use it.
    pub free: FreeView,
    /// How the resident pages are known.
    pub residency: ResidencyView,
    /// Resident pages that hold something live.
    pub live_pages: u64,
    /// Free bytes on these.
    pub pinned_bytes: u64,
    /// The release ladder.
    pub ladder: LadderView,
    /// What an automatic trim leaves of the top, as it was tuned.
    pub top_pad_bytes: u64,
    /// Size of the top from which a free trims, as it was tuned or has followed the mmap threshold.
    pub trim_threshold_bytes: u64,
    /// Call sites whose blocks keep pages, largest share first.
    pub pins: Vec<PinView>,
    /// The sites that together release most.
    pub cover: Vec<CoverView>,
    /// What keeps tops from being returned, most first.
    pub staircase: Vec<StepView>,
    /// The sizes that waste most.
    pub padding_by_size: Vec<PaddingView>,
    /// The process's resident memory, from what was asked for to the kernel's sum, at the look that is nearest; `null` if
    /// the recording has none.
    pub rss: Option<RssView>,
    /// All looks at the process's memory, in order of time.
    pub looks: Vec<LookView>,
    /// Where the dynamic mmap threshold was moved to last; `null` if it never was, or the thresholds are fixed.
    pub mmap_threshold: Option<ThresholdView>,
    /// Growths of the heap in its whole life.
    pub growths: u64,
    /// Those of them for which enough was free, by requester and rule, most bytes first.
    pub external: Vec<GrowthView>,
    /// What the heap takes for what is asked.
    pub ratios: RatiosView,
    /// Calls to the system by the heap in the process's whole life.
    pub system_calls: SystemCallsView,
    /// Calls that change the address space by the program itself, in its whole life.
    pub program_calls: SystemCallsView,
    /// Frees by another thread than the one that allocated, in the process's whole life.
    pub cross_thread_frees: CrossThreadView,
    /// The heap over time.
    pub map: Vec<ColumnView>,
    /// What the fixes would do that these findings suggest.
    pub fixes: FixesView,
}

/// Everything of a report that needs the layout at its moment.
struct Picture {
    seq: u64,
    at_ns: u64,
    books: Books,
    arenas: Vec<ArenaView>,
    free: FreeView,
    ladder: LadderView,
    top_pad_bytes: u64,
    trim_threshold_bytes: u64,
    pins: Pins,
    steps: Vec<StepView>,
    blocks: u64,
    requested: u64,
    headers: u64,
    padding: (Vec<PaddingView>, u64),
    live: sites::LiveSites,
    isolated: FxHashMap<StackIndex, Neighbours>,
}

/// Pages by the model of the layout.
struct Modelled<'l>(&'l Layout);

impl Residency for Modelled<'_> {
    fn is_resident(&self, addr: u64) -> bool {
        // Where the steps are not known, nothing is said of pages but that blocks lie there.
        !self.0.knows_steps() || self.0.is_touched(addr)
    }
}

impl Picture {
    fn of(
        contents: &Contents,
        layout: &Layout,
        measured: Option<&Measured>,
        recent: &Recent,
        births: &Births,
    ) -> Result<Picture, Imbalance> {
        match measured {
            Some(measured) => Picture::with(contents, layout, measured, recent, births),
            None => Picture::with(contents, layout, &Modelled(layout), recent, births),
        }
    }

    fn with(
        contents: &Contents,
        layout: &Layout,
        residency: &impl Residency,
        recent: &Recent,
        births: &Births,
    ) -> Result<Picture, Imbalance> {
        let books = layout.books()?;
        let pins = Pins::of(layout, residency);
        let arenas = arenas(layout);
        let in_arenas = arenas.iter().filter(|view| view.arena.is_some());
        let used_bytes = in_arenas.map(|view| view.books.live + view.books.metadata).sum();
        let ladder = Ladder::of(layout, residency, used_bytes);
        let padding = padding::of(contents, layout);
        let requested = layout.requested_bytes();
        Ok(Picture {
            seq: layout.seq(),
            at_ns: layout.at_ns(),
            books,
            arenas,
            free: FreeView::of(contents, layout, recent),
            ladder: LadderView {
                systrim: ladder.systrim,
                malloc_trim: ladder.malloc_trim,
                after_flush: ladder.after_flush,
                ideal: ladder.ideal,
                resident: ladder.resident,
                unreleasable: ladder.resident.saturating_sub(pins.used_bytes).saturating_sub(ladder.after_flush),
            },
            top_pad_bytes: layout.top_pad_bytes(),
            trim_threshold_bytes: layout.trim_threshold_bytes(),
            pins,
            steps: sites::steps(contents, layout),
            blocks: layout.blocks().count() as u64,
            requested,
            headers: books.live_bytes.saturating_sub(requested).saturating_sub(padding.1),
            padding,
            live: sites::LiveSites::of(layout),
            isolated: births.neighbours(layout),
        })
    }
}

fn arenas(layout: &Layout) -> Vec<ArenaView> {
    let mut arenas: std::collections::BTreeMap<Option<u16>, Books> = std::collections::BTreeMap::new();
    layout.spans(|Span { range, place, size_bytes, .. }| {
        let arena = (range.kind != RangeKind::Mapped).then_some(range.arena);
        arenas.entry(arena).or_default().enter(place, size_bytes);
    });
    let mut views: Vec<_> = arenas.into_iter().map(|(arena, books)| ArenaView { arena, books: books.into() }).collect();
    views.sort_by_key(|view| view.arena.map_or(u32::MAX, u32::from));
    views
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
    let mut first = Both(Both(Survey::beginning_with(&layout), Lives::default()), Around::of(at));
    recorded.replay(process, &mut first).map_err(FragmentationError::Recorded)?;
    let Both(Both(survey, lives), around) = first;
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
    if is_core && !survey.knows_steps() && !layout.knows_steps() {
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
        At::Exit => Still { from_ns: last_ns, to_ns: u64::MAX },
        At::Seq(_) => Still { from_ns: around.at_ns.unwrap_or(last_ns), to_ns: around.next_ns.unwrap_or(u64::MAX) },
    };
    let nearest = snapshots.iter().min_by_key(|snapshot| still.distance_ns(snapshot.at_ns));
    let mut watch = Watch::new(contents, layout, target, &survey);
    watch.lay_over(nearest, still);
    recorded.replay(process, &mut watch).map_err(FragmentationError::Recorded)?;
    let mut watched = watch.finish()?;
    if let Some(rss) = &mut watched.rss {
        rss.looks = snapshots.len() as u64;
        rss.looks_cost_ns = snapshots.iter().map(|snapshot| snapshot.cost_ns).sum();
    }
    let life = Life { survey: &survey, lives: &lives };
    let mut seen = assemble(contents, process, is_core, &life, watched);
    seen.looks = snapshots.iter().map(LookView::from).collect();
    seen.fixes = fixes::tried(recorded, process, &seen, &survey, predict).map_err(FragmentationError::Recorded)?;
    Ok(seen)
}

/// A stretch of time in which the heap is as it is at the moment that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Still {
    from_ns: u64,
    to_ns: u64,
}

impl Still {
    fn at(at_ns: u64) -> Still {
        Still { from_ns: at_ns, to_ns: at_ns }
    }

    /// How far from it a time is; 0 within.
    fn distance_ns(self, at_ns: u64) -> u64 {
        self.from_ns.saturating_sub(at_ns).max(at_ns.saturating_sub(self.to_ns))
    }
}

/// When an event happened, and when the one behind it.
struct Around {
    seq: u64,
    at_ns: Option<u64>,
    next_ns: Option<u64>,
}

impl Around {
    /// The event that `at` names, if it does.
    fn of(at: At) -> Around {
        let seq = match at {
            At::Seq(seq) => seq,
            At::Peak | At::Exit | At::Time(_) => u64::MAX,
        };
        Around { seq, at_ns: None, next_ns: None }
    }
}

impl Replay for Around {
    fn inherited(&mut self, _slot: u32, _block: &crate::trace::Block) {}

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        if entry.seq < self.seq || self.next_ns.is_some() {
            return;
        }
        if self.at_ns.is_none() {
            self.at_ns = Some(entry.at_ns);
        } else {
            self.next_ns = Some(entry.at_ns);
        }
    }
}

/// The layout with which a process begins: empty, or what its parent's was at the fork.
fn begin<R: Recorded>(recorded: &R, process: ProcessIndex) -> Result<Layout, FragmentationError<R::Error>> {
    let contents = recorded.contents();
    let told = contents.processes.get(process.0 as usize);
    let Some((told, parent)) = told.filter(|told| told.forked).and_then(|told| Some((told, told.parent?))) else {
        return Ok(Layout::of(contents));
    };
    // A parent's index is smaller than its child's; a damaged trace could otherwise go round for ever.
    if parent >= process {
        return Ok(Layout::of(contents));
    }
    let mut survey = Survey::looking_for_fork(told.started_at_ns);
    recorded.replay(parent, &mut survey).map_err(FragmentationError::Recorded)?;
    let mut until = Until { layout: begin(recorded, parent)?, seq: survey.fork_seq.unwrap_or(u64::MAX) };
    recorded.replay(parent, &mut until).map_err(FragmentationError::Recorded)?;
    Ok(until.layout)
}

/// A layout that takes the events before a number.
struct Until {
    layout: Layout,
    seq: u64,
}

impl Replay for Until {
    fn inherited(&mut self, slot: u32, block: &crate::trace::Block) {
        self.layout.inherited(slot, block);
    }

    fn entry(&mut self, entry: Entry<'_>) {
        if entry.seq < self.seq {
            self.layout.entry(entry);
        }
    }
}

/// Two replays in one pass.
struct Both<A, B>(A, B);

impl<A: Replay, B: Replay> Replay for Both<A, B> {
    fn inherited(&mut self, slot: u32, block: &crate::trace::Block) {
        self.0.inherited(slot, block);
        self.1.inherited(slot, block);
    }

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        self.0.entry(entry);
        self.1.entry(entry);
    }
}

/// What is known of the process's whole life.
struct Life<'l> {
    survey: &'l Survey,
    lives: &'l Lives,
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
        arenas: picture.arenas,
        free: picture.free,
        ladder: picture.ladder,
        padding_by_size: picture.padding.0,
        map,
        fixes: FixesView::default(),
    }
}
