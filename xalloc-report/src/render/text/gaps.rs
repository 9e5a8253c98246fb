//! What is missing from a recording, in the words of every report.

use crate::analysis::LossView;
use crate::render::escape::printable;
use crate::render::number::counted;

/// A sentence for each thing that is missing: what was cut off when the trace was read, and the events that each process
/// lost, by reason. None if the recording is whole.
#[must_use]
pub fn gaps(salvage: Option<&str>, losses: &[LossView]) -> Vec<String> {
    let cut = salvage.map(|salvage| format!("the trace is not whole: {}", printable(salvage)));
    let lost = losses.iter().map(|LossView { pid, reason, events }| {
        // The process stops counting with that.
        let later = if reason == "recorder-gone" { " and all later ones are" } else { "" };
        format!("pid {pid}: {}{later} missing ({reason})", counted(*events, "event"))
    });
    cut.into_iter().chain(lost).collect()
}
