//! What the fixes would do that a report's findings suggest: each is tried on the recorded requests.
//!
//! A finding says who holds memory; whether the obvious fix gives it back, nobody knows before it was tried. Here it is:
//! the simulator ([`crate::simulate`]) serves the requests of the whole process once more after each fix, and the report
//! quotes peak and end. `what-if` with the same option gives the same figures.
//!
//! # How long it takes
//! A run takes as long as reading the trace, and there are up to [`FIXES`] of them. So a long recording's fixes are tried
//! only on request ([`Predict`]), and the report says so.

use std::num::NonZero;

use rustc_hash::FxHashSet;
use schemars::JsonSchema;
use serde::Serialize;

use super::Fragmentation;
use crate::analysis::{CallStack, Named, Sites};
use crate::model::Recorded;
use crate::model::survey::Survey;
use crate::simulate::{Fix, GatherError, Kind, Measured, Requests, Run, Settings, gather, run_all};
use crate::trace::{Contents, ProcessIndex};

/// Fixes that are tried at most.
const FIXES: usize = 8;
/// Call sites of one finding whose fix is tried.
const SITES: usize = 3;
/// What a fix should at least bring to be worth a run: this part of the heap, and never less than [`LEAST_BYTES`].
const MATERIAL: u64 = 100;
/// See [`MATERIAL`].
const LEAST_BYTES: u64 = 64 << 10;
/// Trimming by the clock is tried this often in a process's life, and at most once a second.
const TRIMS: u64 = 16;
/// The mmap threshold of a process in which it never moved, in bytes.
const MMAP_THRESHOLD: u64 = 128 << 10;

/// Up to how many events a process's fixes are tried unasked: some two seconds on two processors.
pub const EVENTS_UNASKED: u64 = 1_500_000;

/// Whether fixes are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Predict {
    /// However long it takes.
    Always,
    /// If the process has at most [`EVENTS_UNASKED`] events.
    IfShort,
    /// Not at all.
    Never,
}

impl Named for Predict {
    const ALL: &'static [Predict] = &[Predict::IfShort, Predict::Always, Predict::Never];

    fn name(self) -> &'static str {
        match self {
            Predict::IfShort => "auto",
            Predict::Always => "always",
            Predict::Never => "never",
        }
    }
}

/// What suggests a fix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Suggested {
    /// Live chunks keep a top from being returned.
    Staircase,
    /// Live chunks pin pages.
    Pins,
    /// Live chunks lay between free ones when the heap grew although enough was free.
    Separator,
    /// A block that is resized made the heap grow although enough was free.
    Growth,
    /// The dynamic mmap threshold moved, so large blocks come from the heap.
    MmapThreshold,
    /// `malloc_trim` would give much back.
    Trim,
    /// Threads' caches hold much.
    Caches,
    /// Several arenas hold free memory.
    Arenas,
}

/// The memory of a simulated run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FootprintView {
    /// Most bytes that the heap held from the system at once (virtual).
    pub peak_footprint_bytes: u64,
    /// What it held after the last request.
    pub end_footprint_bytes: u64,
    /// Most resident bytes, if the program writes to all of each block.
    pub peak_resident_bytes: u64,
    /// Resident bytes after the last request, likewise.
    pub end_resident_bytes: u64,
}

impl From<&Measured> for FootprintView {
    fn from(measured: &Measured) -> FootprintView {
        FootprintView {
            peak_footprint_bytes: measured.peak_footprint_bytes,
            end_footprint_bytes: measured.end_footprint_bytes,
            peak_resident_bytes: measured.peak_resident_bytes,
            end_resident_bytes: measured.end_resident_bytes,
        }
    }
}

/// A fix that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FixView {
    /// The finding that suggests it.
    pub finding: Suggested,
    /// What the finding is about, in bytes: pinned, kept, cached, grown, or given back by a trim.
    pub finding_bytes: u64,
    /// The option of `what-if` that tries it.
    pub option: String,
    /// Calls that it changes; `null` for a setting.
    pub calls: Option<u64>,
    /// The memory after it.
    #[serde(flatten)]
    pub predicted: FootprintView,
    /// The call site that is fixed; `null` for a setting.
    pub at: Option<CallStack>,
}

impl FixView {
    /// Whether any of its figures is less than without the fix.
    #[must_use]
    pub fn saves(&self, unfixed: &FootprintView) -> bool {
        let FootprintView { peak_footprint_bytes, end_footprint_bytes, peak_resident_bytes, end_resident_bytes } =
            self.predicted;
        peak_footprint_bytes < unfixed.peak_footprint_bytes
            || end_footprint_bytes < unfixed.end_footprint_bytes
            || peak_resident_bytes < unfixed.peak_resident_bytes
            || end_resident_bytes < unfixed.end_resident_bytes
    }
}

/// What the fixes would do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct FixesView {
    /// Why none was tried; `null` if all were that the findings suggest.
    pub skipped: Option<String>,
    /// The simulated memory without a fix; `null` if none was tried.
    pub unfixed: Option<FootprintView>,
    /// Whether the simulated heap without a fix put every block where the recording has it; if not, the figures are
    /// estimates. `null` if none was tried.
    pub identical: Option<bool>,
    /// The fixes, least memory at the end first.
    pub tried: Vec<FixView>,
}

impl FixesView {
    fn skipped(why: impl Into<String>) -> FixesView {
        FixesView { skipped: Some(why.into()), ..FixesView::default() }
    }
}

/// What is changed.
enum Change {
    Site(Fix, CallStack),
    Setting(String),
    TrimEvery(String),
}

impl Change {
    fn option(&self) -> String {
        match self {
            Change::Site(Fix::Without, at) => format!("--without {}", at.id),
            Change::Site(Fix::Pool, at) => format!("--pool {}", at.id),
            Change::Site(Fix::Reserve, at) => format!("--reserve {}", at.id),
            Change::Setting(setting) => format!("--set {setting}"),
            Change::TrimEvery(seconds) => format!("--trim-every {seconds}"),
        }
    }
}

struct Candidate {
    finding: Suggested,
    bytes: u64,
    change: Change,
}

/// Tries the fixes that the findings of `seen` suggest.
pub(super) fn tried<R: Recorded>(
    recorded: &R,
    process: ProcessIndex,
    seen: &Fragmentation,
    survey: &Survey,
    predict: Predict,
) -> Result<FixesView, R::Error> {
    if !seen.core {
        return Ok(FixesView::skipped("the recorded heap was another allocator's"));
    }
    let ((from_ns, to_ns), events) = (survey.life_ns(), survey.events());
    let candidates = candidates(seen, to_ns.saturating_sub(from_ns));
    if candidates.is_empty() {
        return Ok(FixesView::default());
    }
    if let Some(why) = refusal(predict, events) {
        return Ok(FixesView::skipped(why));
    }
    let requests = match gather(recorded, process) {
        Ok(requests) => requests,
        Err(GatherError::Unreadable(error)) => return Err(error),
        Err(error @ (GatherError::Forked { .. } | GatherError::TooManyThreads)) => {
            return Ok(FixesView::skipped(error.to_string()));
        }
    };
    Ok(run(recorded.contents(), &requests, candidates))
}

/// Why no fix is tried although some are suggested.
fn refusal(predict: Predict, events: u64) -> Option<String> {
    match predict {
        Predict::Never => Some("not asked for".to_owned()),
        Predict::IfShort if events > EVENTS_UNASKED => {
            let millions = events as f64 / 1e6;
            Some(format!("{millions:.1} million events take a while; --fixes always tries them all the same"))
        }
        Predict::IfShort | Predict::Always => None,
    }
}

/// A fix that is ready to be run.
struct Prepared {
    candidate: Candidate,
    calls: Option<u64>,
    /// The requests after it, if it changes them.
    fixed: Option<Requests>,
    settings: Settings,
}

impl Prepared {
    /// `None` if there is nothing that the fix would change.
    fn of(contents: &Contents, requests: &Requests, recorded: &Settings, candidate: Candidate) -> Option<Prepared> {
        let mut prepared = Prepared { candidate, calls: None, fixed: None, settings: *recorded };
        match &prepared.candidate.change {
            Change::Site(fix, at) => {
                let sites = Sites::with_id(contents, requests, &at.id);
                if sites.stacks == 0 || *fix == Fix::Reserve && !resizes(requests, &sites) {
                    return None;
                }
                prepared.calls = Some(sites.allocations);
                prepared.fixed = Some(fix.apply(requests, |stack| sites.contains(stack)));
            }
            Change::Setting(setting) => prepared.settings.apply(setting).ok()?,
            Change::TrimEvery(seconds) => prepared.settings.set("trim_every", seconds).ok()?,
        }
        Some(prepared)
    }

    fn run<'r>(&'r self, recorded: &'r Requests) -> Run<'r> {
        let requests = self.fixed.as_ref().unwrap_or(recorded);
        Run { name: String::new(), requests, settings: self.settings, compares: false }
    }

    fn view(self, measured: &Measured) -> FixView {
        let Candidate { finding, bytes, change } = self.candidate;
        FixView {
            finding,
            finding_bytes: bytes,
            option: change.option(),
            calls: self.calls,
            predicted: measured.into(),
            at: if let Change::Site(_, at) = change { Some(at) } else { None },
        }
    }
}

fn run(contents: &Contents, requests: &Requests, candidates: Vec<Candidate>) -> FixesView {
    let recorded = Settings::recorded(contents, requests);
    let mut fixes = FixesView::default();
    // A fixed list of requests is as large as the recorded one: as many are made at a time as run at a time.
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut left =
        candidates.into_iter().filter_map(|candidate| Prepared::of(contents, requests, &recorded, candidate));
    loop {
        let is_first = fixes.unfixed.is_none();
        let prepared: Vec<_> = left.by_ref().take(at_once - usize::from(is_first && at_once > 1)).collect();
        let mut runs = Vec::new();
        if is_first {
            runs.push(Run { name: String::new(), requests, settings: recorded, compares: true });
        }
        runs.extend(prepared.iter().map(|fix| fix.run(requests)));
        if runs.is_empty() {
            break;
        }
        let mut outcomes = run_all(&runs).into_iter();
        if is_first && let Some(unfixed) = outcomes.next() {
            fixes.unfixed = Some((&unfixed.measured).into());
            fixes.identical = Some(unfixed.parting.is_none());
        }
        fixes.tried.extend(prepared.into_iter().zip(outcomes).map(|(fix, outcome)| fix.view(&outcome.measured)));
    }
    fixes.tried.sort_by_key(|fix| {
        let FootprintView { end_footprint_bytes, end_resident_bytes, peak_footprint_bytes, .. } = fix.predicted;
        (end_footprint_bytes, end_resident_bytes, peak_footprint_bytes)
    });
    fixes
}

/// Whether any of the sites resizes a block.
fn resizes(requests: &Requests, sites: &Sites) -> bool {
    let obtaining = requests.list.iter().filter(|request| request.kind.obtains());
    obtaining.zip(&requests.stacks).any(|(request, &stack)| request.kind == Kind::Realloc && sites.contains(stack))
}

/// The fixes that the findings suggest, each once, those of the most certain findings first.
fn candidates(seen: &Fragmentation, life_ns: u64) -> Vec<Candidate> {
    let material = (seen.books.segments / MATERIAL).max(LEAST_BYTES);
    let mut found: Vec<Candidate> = Vec::new();
    let mut push = |finding, bytes: u64, change| {
        if bytes >= material {
            found.push(Candidate { finding, bytes, change });
        }
    };
    let pool = |at: &CallStack| Change::Site(Fix::Pool, at.clone());
    for step in seen.staircase.iter().filter(|step| !step.is_mixed).take(1) {
        push(Suggested::Staircase, step.step_bytes, pool(&step.at));
    }
    for pin in seen.pins.iter().take(SITES) {
        push(Suggested::Pins, pin.share_bytes, pool(&pin.at));
    }
    if let Some(growth) = seen.external.first() {
        if let Some(separator) = &growth.separated_by {
            push(Suggested::Separator, growth.grown_bytes, pool(separator));
        }
        push(Suggested::Growth, growth.grown_bytes, Change::Site(Fix::Reserve, growth.at.clone()));
    }
    if let Some(threshold) = &seen.mmap_threshold {
        let setting = format!("mmap_threshold={MMAP_THRESHOLD}");
        push(Suggested::MmapThreshold, threshold.bytes, Change::Setting(setting));
    }
    let trims_ns = (life_ns / TRIMS).clamp(100_000, 1_000_000_000);
    let seconds = format!("{:.4}", trims_ns as f64 / 1e9);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.').to_owned();
    // A healthy heap has its top's padding, which a trim takes too.
    if seen.ladder.malloc_trim >= material + seen.top_pad_bytes {
        push(Suggested::Trim, seen.ladder.malloc_trim, Change::TrimEvery(seconds));
    }
    push(Suggested::Caches, seen.books.tcache, Change::Setting("tcache_count=0".to_owned()));
    let arenas = seen.arenas.iter().filter(|view| view.arena.is_some_and(|arena| arena > 0));
    let beside = arenas.map(|view| view.books.bin_free + view.books.top + view.books.fastbin).sum();
    push(Suggested::Arenas, beside, Change::Setting("arena_max=1".to_owned()));
    let mut options = FxHashSet::default();
    found.retain(|candidate| options.insert(candidate.change.option()));
    found.truncate(FIXES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_recording_is_served_again_only_on_request() {
        assert_eq!(refusal(Predict::IfShort, EVENTS_UNASKED), None);
        let why = refusal(Predict::IfShort, EVENTS_UNASKED + 1).expect("one event too many");
        assert!(why.contains("1.5 million") && why.contains("--fixes always"), "{why}");
        assert_eq!(refusal(Predict::Always, u64::MAX), None);
        assert!(refusal(Predict::Never, 1).is_some());
    }
}
