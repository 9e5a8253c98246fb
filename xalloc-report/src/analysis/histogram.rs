//! How sizes and lifetimes are spread, in classes.

use schemars::JsonSchema;
use serde::Serialize;

use super::names::Named;
use super::sampling::SamplingView;
use crate::model::{Distribution, Doubling, Model, Scale};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// The sizes that the program asked for.
    Requested,
    /// The sizes that it was given.
    Usable,
    /// The time from allocation to free of the blocks that were freed.
    Lifetime,
}

impl Named for Quantity {
    const ALL: &'static [Quantity] = &[Quantity::Requested, Quantity::Usable, Quantity::Lifetime];

    fn name(self) -> &'static str {
        match self {
            Quantity::Requested => "requested",
            Quantity::Usable => "usable",
            Quantity::Lifetime => "lifetime",
        }
    }
}

/// Values at or below which so many per cent lie, to 0.1 %; `null` without values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<u64>,
    /// 90 %.
    pub p90: Option<u64>,
    /// 99 %.
    pub p99: Option<u64>,
    /// 99.9 %.
    pub p99_9: Option<u64>,
    /// The largest value, exactly.
    pub max: Option<u64>,
}

impl Percentiles {
    fn of<S: Scale>(distribution: &Distribution<S>) -> Percentiles {
        Percentiles {
            p50: distribution.percentile(50.0),
            p90: distribution.percentile(90.0),
            p99: distribution.percentile(99.0),
            p99_9: distribution.percentile(99.9),
            max: distribution.max(),
        }
    }
}

/// The allocations of one size class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SizeBucket {
    /// Smallest size of the class.
    pub from_bytes: u64,
    /// First size above the class.
    pub to_bytes: u64,
    /// Allocations.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The sizes of all allocations, reallocs included.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SizeHistogram {
    /// Requested or usable sizes.
    pub of: Quantity,
    /// How the figures were estimated, where only some allocations were recorded; else `null`.
    pub sampling: Option<SamplingView>,
    /// Allocations.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Classes without a gap from the smallest to the largest size; 0 has a class of its own, then each power of two.
    pub buckets: Vec<SizeBucket>,
    /// Percentiles, bytes.
    pub percentiles: Percentiles,
}

/// The freed blocks of one class of lifetimes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LifetimeBucket {
    /// Shortest lifetime of the class, nanoseconds.
    pub from_ns: u64,
    /// First lifetime above the class, nanoseconds.
    pub to_ns: u64,
    /// Blocks.
    pub count: u64,
}

/// The lifetimes of all blocks that were freed, to the microsecond.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LifetimeHistogram {
    /// Always `lifetime`.
    pub of: Quantity,
    /// How the figures were estimated, where only some allocations were recorded; else `null`.
    pub sampling: Option<SamplingView>,
    /// Blocks that were freed.
    pub count: u64,
    /// Blocks that were not: they have no lifetime.
    pub alive_at_exit_blocks: u64,
    /// Classes without a gap from the shortest to the longest lifetime: below 1 µs, then steps of 1, 2 and 5.
    pub buckets: Vec<LifetimeBucket>,
    /// Percentiles, nanoseconds.
    pub percentiles: Percentiles,
}

/// One of the histograms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Histogram {
    /// Of requested or usable sizes.
    Size(SizeHistogram),
    /// Of lifetimes.
    Lifetime(LifetimeHistogram),
}

impl Histogram {
    /// See [`SizeHistogram::sampling`].
    #[must_use]
    pub fn sampling(&self) -> Option<SamplingView> {
        match self {
            Histogram::Size(sizes) => sizes.sampling,
            Histogram::Lifetime(lifetimes) => lifetimes.sampling,
        }
    }

    pub(super) fn of(model: &Model, of: Quantity) -> Histogram {
        match of {
            Quantity::Requested => Histogram::Size(sizes(of, model, &model.sum.requested)),
            Quantity::Usable => Histogram::Size(sizes(of, model, &model.sum.usable)),
            Quantity::Lifetime => Histogram::Lifetime(lifetimes(model)),
        }
    }
}

fn sizes(of: Quantity, model: &Model, distribution: &Distribution<Doubling>) -> SizeHistogram {
    let buckets = distribution
        .classes()
        .map(|(from_bytes, to_bytes, class)| SizeBucket { from_bytes, to_bytes, count: class.count, bytes: class.sum })
        .collect();
    SizeHistogram {
        of,
        sampling: SamplingView::of(model),
        count: distribution.count(),
        bytes: distribution.sum(),
        buckets,
        percentiles: Percentiles::of(distribution),
    }
}

fn lifetimes(model: &Model) -> LifetimeHistogram {
    let distribution = &model.sum.lifetime;
    let buckets = distribution
        .classes()
        .map(|(from_ns, to_ns, class)| LifetimeBucket { from_ns, to_ns, count: class.count })
        .collect();
    LifetimeHistogram {
        of: Quantity::Lifetime,
        sampling: SamplingView::of(model),
        count: distribution.count(),
        alive_at_exit_blocks: model.sum.totals.alive_blocks,
        buckets,
        percentiles: Percentiles::of(distribution),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settings;
    use crate::model::sample::server;
    use crate::trace::ProcessIndex;

    #[test]
    fn classes_follow_each_other_without_a_gap_and_hold_every_allocation() {
        let model = Model::of(&server(), [ProcessIndex(0)], Settings::default()).expect("a sample has no errors");
        let Histogram::Size(sizes) = Histogram::of(&model, Quantity::Requested) else { panic!("sizes were asked for") };
        assert!(sizes.buckets.windows(2).all(|pair| pair[0].to_bytes == pair[1].from_bytes));
        assert_eq!(sizes.buckets.iter().map(|b| b.count).sum::<u64>(), model.sum.totals.allocations);
        assert_eq!(sizes.buckets.iter().map(|b| b.bytes).sum::<u64>(), model.sum.totals.allocated_bytes);
        assert_eq!(sizes.buckets[0].from_bytes, 0);
    }
}
