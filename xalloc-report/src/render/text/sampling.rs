//! That figures are estimates, in the words of every report.

use std::fmt::Write;

use crate::analysis::SamplingView;
use crate::render::number::{bytes, count, counted};
use crate::render::style::DOUBT;

/// The sentence for a recording of which one byte in `mean_interval_bytes` was looked at.
#[must_use]
pub fn sampled(mean_interval_bytes: u64) -> String {
    format!("all figures are estimates: of the bytes asked for, one in {} was sampled", bytes(mean_interval_bytes))
}

/// Says that a report's figures are estimates, if they are; `error` is the standard error of its total, with its unit.
pub(super) fn append(out: &mut String, sampling: Option<&SamplingView>, error: Option<String>) {
    let Some(sampling) = sampling else { return };
    let known = counted(sampling.recorded_allocations, "recorded allocation");
    let error = error.map_or_else(String::new, |error| format!("; standard error of the total {error}"));
    let sentence = sampled(sampling.mean_interval_bytes);
    let unseen = unseen(sampling);
    // Writing to a String does not fail.
    let _ = writeln!(out, "{DOUBT}note{DOUBT:#}  {sentence}, {known}{error}; {unseen}");
}

/// What no standard error knows of.
pub(super) fn unseen(sampling: &SamplingView) -> String {
    format!("of what asks for less than {} in all, nothing may have been seen", bytes(sampling.unseen_bytes()))
}

/// `± 1.5 MiB, ` before the words behind an estimated sum of bytes: its standard error. Where nothing was seen there is
/// none, and `at most 192.0 KiB, ` is what it may have been.
pub(super) fn plus_minus_bytes(
    sampling: Option<&SamplingView>,
    estimate: u64,
    error: fn(&SamplingView) -> u64,
) -> String {
    match sampling {
        None => String::new(),
        Some(sampling) if estimate == 0 => format!("at most {}, ", bytes(sampling.unseen_bytes())),
        Some(sampling) => format!("± {}, ", bytes(error(sampling))),
    }
}

/// ` ± 12` behind a number of things; nothing behind none, of which there is no standard error.
pub(super) fn plus_minus(sampling: Option<&SamplingView>, estimate: u64, error: fn(&SamplingView) -> u64) -> String {
    match sampling {
        Some(sampling) if estimate > 0 => format!(" ± {}", count(error(sampling))),
        Some(_) | None => String::new(),
    }
}
