//! The call stacks that do most of something.

use schemars::JsonSchema;
use serde::Serialize;

use super::frames::CallStack;
use super::histogram::LifetimeBucket;
use super::names::Named;
use super::process::peaks_apart;
use super::sampling::SamplingView;
use crate::model::{Model, Site};
use crate::trace::Contents;

/// By what call stacks are ranked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Requested bytes of all allocations.
    Bytes,
    /// Number of allocations.
    Count,
    /// Live bytes when the process's live bytes were largest.
    Peak,
    /// Number of temporary allocations.
    Temporary,
    /// Bytes alive at exit.
    Live,
}

impl Named for Order {
    const ALL: &'static [Order] = &[Order::Bytes, Order::Count, Order::Peak, Order::Temporary, Order::Live];

    fn name(self) -> &'static str {
        match self {
            Order::Bytes => "bytes",
            Order::Count => "count",
            Order::Peak => "peak",
            Order::Temporary => "temporary",
            Order::Live => "live",
        }
    }
}

impl Order {
    fn value(self, site: &Site) -> u64 {
        match self {
            Order::Bytes => site.allocated_bytes,
            Order::Count => site.allocations,
            Order::Peak => site.at_peak.bytes,
            Order::Temporary => site.temporary,
            Order::Live => site.alive.bytes,
        }
    }

    /// Whether its values are bytes; otherwise they are allocations.
    #[must_use]
    pub fn is_bytes(self) -> bool {
        match self {
            Order::Bytes | Order::Peak | Order::Live => true,
            Order::Count | Order::Temporary => false,
        }
    }
}

/// One ranked call stack.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct TopSite {
    /// What it is ranked by: bytes or allocations.
    pub value: u64,
    /// Its share of all call stacks' values, per cent.
    pub percent: f64,
    /// Allocations that were recorded: all of them, unless the recording is sampled. The fewer, the less is certain.
    pub recorded_allocations: u64,
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Requested bytes of all of them.
    pub allocated_bytes: u64,
    /// Of the allocations, those that were a realloc of a block; where only some are recorded, of no block too.
    pub reallocations: u64,
    /// Temporary allocations.
    pub temporary_allocations: u64,
    /// Live bytes when the process's live bytes were largest.
    pub peak_bytes: u64,
    /// Blocks at that instant.
    pub peak_blocks: u64,
    /// Bytes alive at exit.
    pub live_at_exit_bytes: u64,
    /// Blocks alive at exit.
    pub live_at_exit_blocks: u64,
    /// Mean lifetime of the freed blocks, nanoseconds; `null` if none was freed.
    pub mean_lifetime_ns: Option<u64>,
    /// Lifetimes of the freed blocks by powers of ten; classes without blocks are left out.
    pub lifetimes: Vec<LifetimeBucket>,
    /// Where they were allocated.
    #[serde(flatten)]
    pub at: CallStack,
}

/// The ranking.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Top {
    /// By what it is ranked.
    pub by: Order,
    /// How the figures were estimated, where only some allocations were recorded; else `null`.
    pub sampling: Option<SamplingView>,
    /// Sum of all values.
    pub total: u64,
    /// Why values are not what they are ranked by: peaks of several programs were at several times; else `null`.
    pub doubt: Option<String>,
    /// Call stacks with a value above 0, largest first, then by name.
    pub sites: Vec<TopSite>,
}

impl Top {
    pub(super) fn of(contents: &Contents, model: &Model, by: Order) -> Top {
        let total = model.sum.sites.iter().fold(0u64, |sum, site| sum.saturating_add(by.value(site)));
        let mut sites: Vec<_> = model
            .sum
            .sites
            .iter()
            .filter(|site| by.value(site) > 0)
            .map(|site| TopSite {
                value: by.value(site),
                percent: 100.0 * by.value(site) as f64 / total as f64,
                recorded_allocations: site.recorded,
                allocations: site.allocations,
                allocated_bytes: site.allocated_bytes,
                reallocations: site.reallocations,
                temporary_allocations: site.temporary,
                peak_bytes: site.at_peak.bytes,
                peak_blocks: site.at_peak.blocks,
                live_at_exit_bytes: site.alive.bytes,
                live_at_exit_blocks: site.alive.blocks,
                mean_lifetime_ns: site.lifetimes.total_ns.checked_div(site.frees),
                lifetimes: site
                    .lifetimes
                    .classes()
                    .map(|(from_ns, to_ns, count)| LifetimeBucket { from_ns, to_ns, count })
                    .collect(),
                at: CallStack::of(contents, site.stack, site.call),
            })
            .collect();
        sites.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| a.at.frames.cmp(&b.at.frames)));
        Top {
            by,
            sampling: SamplingView::of(model),
            total,
            doubt: if by == Order::Peak { peaks_apart(model) } else { None },
            sites,
        }
    }
}
