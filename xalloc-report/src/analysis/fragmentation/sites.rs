//! What the report says of call sites.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::heap::sim::SystemCalls;
use xalloc_core::wire::Call;

use super::growth::Growths;
use super::isolation::Neighbours;
use super::lives::Lives;
use super::picture::Picture;
use super::pins::Pins;
use super::staircase;
use crate::analysis::frames::CallStack;
use crate::analysis::names;
use crate::analysis::process::{ThreadName, ThreadNames};
use crate::model::layout::Layout;
use crate::model::survey::{SiteCalls, Survey};
use crate::trace::{Contents, StackIndex};

/// A call site whose blocks keep pages.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct PinView {
    /// Bytes of its blocks that live.
    pub live_bytes: u64,
    /// Blocks of it that live.
    pub live_blocks: u64,
    /// What these have beyond what was asked for.
    pub padding_bytes: u64,
    /// Pages that hold a byte of them.
    pub pages: u64,
    /// Its share of the free bytes on these pages; the shares of all sites sum up to what is pinned.
    pub share_bytes: u64,
    /// By how much the resident memory falls if only its blocks go.
    pub marginal_bytes: u64,
    /// `marginal_bytes` for each live byte.
    pub leverage: f64,
    /// Free bytes that it has pinned over the process's life, in byte-seconds; from looks at the heap on the way.
    pub pin_byte_seconds: f64,
    /// Of the blocks that were born on the same pages within 256 events of one of its blocks, the share that is dead, 0 to
    /// 1: near 1 its blocks are what outlived its surroundings. `null` if there were none.
    pub isolation: Option<f64>,
    /// Age of the oldest and the youngest of the blocks, nanoseconds.
    pub oldest_ns: u64,
    /// Age of the youngest.
    pub youngest_ns: u64,
    /// Allocations in the process's life.
    pub allocations: u64,
    /// Its bytes when the requested bytes of the process were most.
    pub peak_bytes: u64,
    /// Mean lifetime of the blocks that were freed, nanoseconds; `null` if none was.
    pub mean_lifetime_ns: Option<u64>,
    /// Where they were allocated.
    #[serde(flatten)]
    pub at: CallStack,
}

/// One of the sites that together release most.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CoverView {
    /// By how much the resident memory falls if the blocks of this site and of those before it go.
    pub released_bytes: u64,
    /// The site.
    #[serde(flatten)]
    pub at: CallStack,
}

/// Live chunks that keep a top from being returned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct StepView {
    /// The arena.
    pub arena: u16,
    /// Live chunks, close together.
    pub chunks: u64,
    /// Requested size of the uppermost block.
    pub size: u64,
    /// Bytes of all chunks of the step.
    pub live_bytes: u64,
    /// Bytes that would go back if these and everything live above them were freed.
    pub gain_bytes: u64,
    /// What this step adds to that.
    pub step_bytes: u64,
    /// Age of the uppermost block, nanoseconds.
    pub age_ns: u64,
    /// Address of the uppermost block.
    pub addr: String,
    /// The thread that allocated it.
    pub thread: ThreadName,
    /// Whether the blocks are of several call stacks; `frames` are those of the uppermost.
    pub is_mixed: bool,
    /// Where the uppermost block was allocated.
    #[serde(flatten)]
    pub at: CallStack,
}

/// Growths of the heap although enough was free.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct GrowthView {
    /// How often.
    pub events: u64,
    /// By how much the heap grew.
    pub grown_bytes: u64,
    /// The rule that forced it.
    pub rule: String,
    /// Largest chunk that was needed.
    pub needed_bytes: u64,
    /// What was free then, in bins, caches and the top.
    pub free_bytes: u64,
    /// The largest free chunk then; `null` if it was not looked for.
    pub largest_free_bytes: Option<u64>,
    /// Whose blocks lay between the two largest free chunks then, most bytes; `null` if nobody's or not looked for.
    pub separated_by: Option<CallStack>,
    /// Who asked.
    #[serde(flatten)]
    pub at: CallStack,
}

/// A move of the dynamic mmap threshold: from then on requests up to that size come from the heap, where they can be
/// pinned, instead of having a mapping of their own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ThresholdView {
    /// Chunk size from which a request has a mapping of its own.
    pub bytes: u64,
    /// When it moved, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Who freed the mapping that moved it.
    #[serde(flatten)]
    pub at: CallStack,
}

/// Calls to the system.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct CallCounts {
    /// Moves of the break.
    pub brk: u64,
    /// Mappings made.
    pub mmap: u64,
    /// Mappings given back.
    pub munmap: u64,
    /// Mappings resized.
    pub mremap: u64,
    /// Ranges discarded.
    pub madvise: u64,
    /// Bytes by which the heap grew.
    pub grown_bytes: u64,
    /// Pages that were written to first since they came from the system, if the program writes to all of each block: page
    /// faults by the model; 0 for calls of the program's own.
    pub page_faults: u64,
}

impl From<SiteCalls> for CallCounts {
    fn from(SiteCalls { calls, grown_bytes }: SiteCalls) -> CallCounts {
        let SystemCalls { brk, mmap, munmap, mremap, madvise } = calls;
        CallCounts { brk, mmap, munmap, mremap, madvise, grown_bytes, page_faults: 0 }
    }
}

/// Calls to the system that one call stack caused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SystemCallView {
    /// How many of each.
    #[serde(flatten)]
    pub calls: CallCounts,
    /// Who caused them.
    #[serde(flatten)]
    pub at: CallStack,
}

/// Calls to the system by the heap, or by the program itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct SystemCallsView {
    /// In all.
    pub total: CallCounts,
    /// By call stack, most calls first, then most page faults.
    pub sites: Vec<SystemCallView>,
}

/// Frees of one site's blocks by another thread than the one that allocated them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CrossThreadSiteView {
    /// How many.
    pub frees: u64,
    /// Requested bytes of these blocks.
    pub bytes: u64,
    /// Where they were allocated.
    #[serde(flatten)]
    pub at: CallStack,
}

/// Frees by another thread than the one that allocated: the chunks go into a cache, or an arena, that is not where they
/// came from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct CrossThreadView {
    /// In all.
    pub frees: u64,
    /// Requested bytes of these blocks.
    pub bytes: u64,
    /// By the call stack that allocated, most first.
    pub sites: Vec<CrossThreadSiteView>,
}

/// The live blocks of one site.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveSite {
    bytes: u64,
    blocks: u64,
    padding_bytes: u64,
    first_ns: u64,
    last_ns: u64,
    call: Call,
}

/// The live blocks by site, and when that was.
#[derive(Debug)]
pub(super) struct LiveSites {
    by_site: FxHashMap<StackIndex, LiveSite>,
    at_ns: u64,
}

impl LiveSites {
    pub(super) fn of(layout: &Layout) -> LiveSites {
        let mut by_site = FxHashMap::default();
        for held in layout.blocks() {
            let site = by_site.entry(held.stack).or_insert(LiveSite {
                bytes: 0,
                blocks: 0,
                padding_bytes: 0,
                first_ns: held.at_ns,
                last_ns: held.at_ns,
                call: held.call,
            });
            site.bytes += held.size_bytes;
            site.blocks += 1;
            site.padding_bytes += u64::from(held.slack_bytes);
            site.first_ns = site.first_ns.min(held.at_ns);
            site.last_ns = site.last_ns.max(held.at_ns);
        }
        LiveSites { by_site, at_ns: layout.at_ns() }
    }

    /// Bytes of each site.
    pub(super) fn bytes(self) -> FxHashMap<StackIndex, u64> {
        self.by_site.into_iter().map(|(site, live)| (site, live.bytes)).collect()
    }

    fn stack(&self, contents: &Contents, site: StackIndex) -> CallStack {
        CallStack::of(contents, site, self.by_site.get(&site).map_or(Call::Malloc, |live| live.call))
    }
}

/// What is told of call sites beyond one moment.
pub(super) struct OverTime<'l> {
    /// Bytes times nanoseconds that each has pinned.
    pub(super) pin_time: FxHashMap<StackIndex, u128>,
    /// Bytes of each when the requested bytes of the process were most.
    pub(super) peak_bytes: FxHashMap<StackIndex, u64>,
    pub(super) lives: &'l Lives,
}

pub(super) fn pins(contents: &Contents, picture: &Picture, over_time: &OverTime<'_>) -> Vec<PinView> {
    let Picture { pins, live, isolated, .. } = picture;
    let mut views: Vec<_> = pins.by_site.iter().filter(|(site, _)| live.by_site.contains_key(site)).collect();
    views.sort_by_key(|(site, pin)| (std::cmp::Reverse((pin.share_bytes, pin.marginal_bytes)), **site));
    let view = |(&site, pin): (&StackIndex, &super::pins::Pin)| {
        let held = live.by_site[&site];
        let lived = over_time.lives.of(site);
        PinView {
            live_bytes: held.bytes,
            live_blocks: held.blocks,
            padding_bytes: held.padding_bytes,
            pages: pin.pages,
            share_bytes: pin.share_bytes,
            marginal_bytes: pin.marginal_bytes,
            leverage: pin.marginal_bytes as f64 / held.bytes.max(1) as f64,
            pin_byte_seconds: over_time.pin_time.get(&site).map_or(0.0, |&sum| sum as f64 / 1e9),
            isolation: isolated.get(&site).and_then(Neighbours::dead_share),
            oldest_ns: live.at_ns.saturating_sub(held.first_ns),
            youngest_ns: live.at_ns.saturating_sub(held.last_ns),
            allocations: lived.allocations,
            peak_bytes: over_time.peak_bytes.get(&site).copied().unwrap_or(0),
            mean_lifetime_ns: lived.mean_lifetime_ns(),
            at: live.stack(contents, site),
        }
    };
    views.into_iter().map(view).collect()
}

pub(super) fn cover(contents: &Contents, pins: &Pins, live: &LiveSites) -> Vec<CoverView> {
    let views = pins.cover().into_iter();
    views.map(|(site, released_bytes)| CoverView { released_bytes, at: live.stack(contents, site) }).collect()
}

pub(super) fn steps(contents: &Contents, layout: &Layout) -> Vec<StepView> {
    let thread_names = ThreadNames::of(contents);
    let view = |step: staircase::Step| {
        let held = layout.block(step.slot?)?;
        Some(StepView {
            arena: step.arena,
            chunks: step.chunks,
            size: held.size_bytes,
            live_bytes: step.live_bytes,
            gain_bytes: step.gain_bytes,
            step_bytes: step.step_bytes,
            age_ns: layout.at_ns().saturating_sub(held.at_ns),
            addr: names::address(held.addr),
            thread: thread_names.at(held.thread),
            is_mixed: step.is_mixed,
            at: CallStack::of(contents, held.stack, held.call),
        })
    };
    staircase::steps(layout).into_iter().filter_map(view).collect()
}

pub(super) fn threshold(contents: &Contents, survey: &Survey) -> Option<ThresholdView> {
    let moved = survey.threshold?;
    let at = CallStack::of(contents, moved.stack, Call::Free);
    Some(ThresholdView { bytes: moved.bytes, at_ns: moved.at_ns, at })
}

pub(super) fn external(contents: &Contents, growths: &Growths) -> Vec<GrowthView> {
    let mut found: Vec<_> = growths.by_site.iter().collect();
    found.sort_by_key(|((site, rule), growth)| (std::cmp::Reverse(growth.grown_bytes), *site, *rule));
    let view = |(&(site, rule), growth): (&(StackIndex, _), &super::growth::Growth)| GrowthView {
        events: growth.events,
        grown_bytes: growth.grown_bytes,
        rule: names::rule(rule).to_owned(),
        needed_bytes: growth.needed_bytes,
        free_bytes: growth.free_bytes,
        largest_free_bytes: growth.largest_free_bytes,
        separated_by: growth.separator.map(|site| CallStack::of(contents, site, Call::Malloc)),
        at: CallStack::of(contents, site, Call::Malloc),
    };
    found.into_iter().map(view).collect()
}

pub(super) fn system_calls(
    contents: &Contents,
    calls: &FxHashMap<StackIndex, SiteCalls>,
    faults: &FxHashMap<StackIndex, u64>,
) -> SystemCallsView {
    let mut total = SiteCalls::default();
    calls.values().for_each(|site| total.add(site));
    let mut counts: FxHashMap<StackIndex, (u64, CallCounts)> =
        calls.iter().map(|(&site, &told)| (site, (told.calls.total(), told.into()))).collect();
    for (&site, &pages) in faults {
        counts.entry(site).or_default().1.page_faults = pages;
    }
    let mut sites: Vec<_> = counts.into_iter().collect();
    sites.sort_by_key(|(site, (calls, counts))| (std::cmp::Reverse((*calls, counts.page_faults)), *site));
    let view = |(site, (_, calls)): (StackIndex, (u64, CallCounts))| SystemCallView {
        calls,
        at: CallStack::of(contents, site, Call::Malloc),
    };
    let total = CallCounts { page_faults: faults.values().sum(), ..total.into() };
    SystemCallsView { total, sites: sites.into_iter().map(view).collect() }
}

pub(super) fn cross_thread_frees(contents: &Contents, survey: &Survey) -> CrossThreadView {
    let mut sites: Vec<_> = survey.cross_thread_frees.iter().collect();
    sites.sort_by_key(|(site, frees)| (std::cmp::Reverse(**frees), **site));
    let view = |(&site, &(frees, bytes)): (&StackIndex, &(u64, u64))| CrossThreadSiteView {
        frees,
        bytes,
        at: CallStack::of(contents, site, Call::Malloc),
    };
    CrossThreadView {
        frees: sites.iter().map(|(_, (frees, _))| frees).sum(),
        bytes: sites.iter().map(|(_, (_, bytes))| bytes).sum(),
        sites: sites.into_iter().map(view).collect(),
    }
}
