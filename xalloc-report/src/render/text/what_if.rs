//! What the heap would have been under other rules.

use std::fmt::Write;

use super::frames;
use crate::analysis::{RunView, WhatIf};
use crate::render::escape::{command_line, printable};
use crate::render::number::{bytes, count, counted, instant, kib, kib_change, span};
use crate::render::style::{ASIDE, FIGURE, HEADING, PLAIN};
use crate::render::table::{Table, left, right};

/// Renders the runs, the baseline first.
#[must_use]
pub fn what_if(what_if: &WhatIf, frames_shown: usize) -> String {
    let mut out = String::new();
    let command = command_line(&what_if.command);
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{HEADING}{}: {} of pid {}, glibc {}, {}{HEADING:#}",
        printable(&command),
        counted(what_if.requests, "request"),
        what_if.pid,
        printable(&what_if.libc),
        counted(what_if.processors, "processor")
    );
    fidelity(&mut out, what_if, frames_shown);
    out.push('\n');
    table(&what_if.runs).write(&mut out, 0);
    out.push('\n');
    for caveat in &what_if.caveats {
        let _ = writeln!(out, "{ASIDE}note: {}{ASIDE:#}", printable(caveat));
    }
    out
}

fn fidelity(out: &mut String, what_if: &WhatIf, frames_shown: usize) {
    let WhatIf { fidelity, allocations, .. } = what_if;
    let blocks = counted(fidelity.compared_blocks, "block");
    let Some(parting) = &fidelity.parting else {
        let _ = match fidelity.compared_blocks {
            0 if *allocations == 0 => {
                writeln!(out, "{ASIDE}the process allocated nothing: there is no block to compare{ASIDE:#}")
            }
            0 => writeln!(
                out,
                "{ASIDE}the recorded heap was not glibc's: nothing to compare the simulated one with{ASIDE:#}"
            ),
            _ => {
                writeln!(out, "{ASIDE}simulated placement: {blocks} compared, each where the recording has it{ASIDE:#}")
            }
        };
        return;
    };
    let at = parting.at_ns.map_or_else(String::new, |at_ns| format!(" at {}", instant(at_ns)));
    let seq = parting.seq.map_or_else(|| "an event".to_owned(), |seq| format!("event {}", count(seq)));
    let _ = writeln!(
        out,
        "{FIGURE}the simulated heap parts from the recorded one with {seq}{at}, after {}{FIGURE:#}",
        counted(parting.allocation, "equal block")
    );
    let _ = writeln!(
        out,
        "  {} asked for: recorded at {} with {} to spare, simulated at {} with {}",
        parting.size_bytes.map_or_else(|| "?".to_owned(), bytes),
        parting.recorded_addr,
        bytes(parting.recorded_slack_bytes),
        parting.simulated_addr.as_deref().unwrap_or("another place outside the break"),
        bytes(parting.simulated_slack_bytes)
    );
    if let Some(at) = &parting.at {
        frames::append(out, at, frames_shown, 4);
    }
}

fn table(runs: &[RunView]) -> Table {
    let mut table = Table::default();
    let titles = [
        "peak",
        "change",
        "mean",
        "at end",
        "change",
        "resident",
        "brk",
        "mmap",
        "munmap",
        "free at end",
        "of it stuck",
        "faults",
        "time",
    ];
    table.row([left("run", ASIDE)].into_iter().chain(titles.map(|title| right(title, ASIDE))));
    for (nth, run) in runs.iter().enumerate() {
        let differs = |change: i64| if nth == 0 { String::new() } else { kib_change(change) };
        let known = |value: Option<u64>, show: fn(u64) -> String| value.map_or_else(|| "-".to_owned(), show);
        table.row([
            left(run.name.clone(), PLAIN),
            right(kib(run.peak_footprint_bytes), FIGURE),
            right(differs(run.peak_change_bytes), PLAIN),
            right(kib(run.mean_footprint_bytes), PLAIN),
            right(kib(run.end_footprint_bytes), PLAIN),
            right(differs(run.end_change_bytes), PLAIN),
            right(known(run.peak_rss_bytes, kib), PLAIN),
            right(known(run.brk_calls, count), PLAIN),
            right(known(run.mmap_calls, count), PLAIN),
            right(known(run.munmap_calls, count), PLAIN),
            right(known(run.free_bytes, kib), PLAIN),
            right(known(run.unreleasable_bytes, kib), PLAIN),
            right(known(run.page_faults, count), PLAIN),
            right(known(run.duration_ns, span), PLAIN),
        ]);
    }
    table
}
