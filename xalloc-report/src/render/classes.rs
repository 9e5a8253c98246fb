//! The classes of a histogram in words, for bars of characters and for bars in a picture.

use super::number::{bytes, count, counted, exact_bytes, span};
use crate::analysis::{Histogram, Percentiles, Quantity};

/// A class as charts show it.
pub(super) struct Row {
    /// What lies in it.
    pub(super) class: String,
    /// How much.
    pub(super) count: u64,
    /// Sum of its bytes, where that means something.
    pub(super) bytes: Option<u64>,
}

/// The classes of a histogram.
pub(super) fn rows(histogram: &Histogram) -> Vec<Row> {
    match histogram {
        Histogram::Size(sizes) => sizes
            .buckets
            .iter()
            .map(|b| Row { class: sizes_of(b.from_bytes, b.to_bytes), count: b.count, bytes: Some(b.bytes) })
            .collect(),
        Histogram::Lifetime(lifetimes) => lifetimes
            .buckets
            .iter()
            .map(|b| Row { class: format!("{} to {}", span(b.from_ns), span(b.to_ns)), count: b.count, bytes: None })
            .collect(),
    }
}

/// What a histogram is of, in one line.
pub(super) fn title(histogram: &Histogram) -> String {
    match histogram {
        Histogram::Size(sizes) => {
            let what = if sizes.of == Quantity::Usable { "usable" } else { "requested" };
            format!("{what} size of {}, {} in all", counted(sizes.count, "allocation"), bytes(sizes.bytes))
        }
        Histogram::Lifetime(lifetimes) => format!(
            "lifetime of {}; {} alive at exit have none",
            counted(lifetimes.count, "freed block"),
            count(lifetimes.alive_at_exit_blocks)
        ),
    }
}

/// The percentiles, with their unit.
pub(super) fn percentiles(histogram: &Histogram) -> Vec<(&'static str, String)> {
    let (percentiles, text): (&Percentiles, fn(u64) -> String) = match histogram {
        Histogram::Size(sizes) => (&sizes.percentiles, exact_bytes),
        Histogram::Lifetime(lifetimes) => (&lifetimes.percentiles, span),
    };
    [
        ("p50", percentiles.p50),
        ("p90", percentiles.p90),
        ("p99", percentiles.p99),
        ("p99.9", percentiles.p99_9),
        ("max", percentiles.max),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, text(value?))))
    .collect()
}

/// `16 to 31 B`, `1 to 2 KiB`; from 1 KiB on the class ends just below its second figure.
fn sizes_of(from: u64, to: u64) -> String {
    match (from, to) {
        (from, to) if from + 1 == to => format!("{from} B"),
        (from, to) if to <= 1024 => format!("{from} to {} B", count(to - 1)),
        (from, to) => format!("{} to {}", binary(from), binary(to)),
    }
}

/// A power of two from 1 KiB on, without decimals.
fn binary(value: u64) -> String {
    bytes(value).replace(".0 ", " ")
}
