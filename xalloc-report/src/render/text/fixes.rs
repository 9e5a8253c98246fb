//! What fixes would do.

use std::fmt::Write;

use super::fragmentation::{heading, leaf};
use crate::analysis::fragmentation::{FixView, FixesView, FootprintView, Suggested};
use crate::render::number::{bytes, kib, kib_change};
use crate::render::style::{ASIDE, DOUBT, FIGURE, FUNCTION, PLAIN};
use crate::render::table::{Table, left, right};

/// Appends the fixes that were tried, or why none was.
pub(super) fn append(out: &mut String, of: &FixesView) {
    const TITLE: &str = "what a fix would do";
    const UNFIXED: &str = "as it is";
    if let Some(why) = &of.skipped {
        heading(out, TITLE, &format!("not tried: {why}"));
        return;
    }
    let Some(unfixed) = &of.unfixed else { return };
    heading(out, TITLE, "to the heap of the whole run, by the simulator; `what-if TRACE` with the option says more");
    let mut table = Table::default();
    table.row(["", "at peak", "", "at the end", "", "resident then", ""].map(|head| right(head, ASIDE)));
    let row = |name: &str, now: &FootprintView, aside: String| {
        let is_fixed = name != UNFIXED;
        let mut cells = vec![left(name, PLAIN)];
        for (now, before) in [
            (now.peak_footprint_bytes, unfixed.peak_footprint_bytes),
            (now.end_footprint_bytes, unfixed.end_footprint_bytes),
            (now.end_resident_bytes, unfixed.end_resident_bytes),
        ] {
            cells.push(right(kib(now), FIGURE));
            let change = kib_change(now.wrapping_sub(before) as i64);
            cells.push(right(if is_fixed { change } else { String::new() }, PLAIN));
        }
        cells.push(left(aside, FUNCTION));
        cells
    };
    table.row(row(UNFIXED, unfixed, String::new()));
    for fix in of.tried.iter().filter(|fix| fix.saves(unfixed)) {
        table.row(row(&fix.option, &fix.predicted, reason(fix)));
    }
    table.write(out, 2);
    // Writing to a String does not fail, here and below.
    let idle: Vec<_> = of.tried.iter().filter(|fix| !fix.saves(unfixed)).map(|fix| fix.option.as_str()).collect();
    if !idle.is_empty() {
        let _ = writeln!(out, "  {ASIDE}would save nothing: {}{ASIDE:#}", idle.join(", "));
    }
    if of.identical == Some(false) {
        let _ = writeln!(
            out,
            "  {DOUBT}the simulated heap parts from the recorded one: these are estimates; what-if says where{DOUBT:#}"
        );
    }
}

/// Why the fix was tried.
fn reason(fix: &FixView) -> String {
    let size = bytes(fix.finding_bytes);
    let site = fix.at.as_ref().map_or_else(String::new, |at| leaf(&at.frames));
    match fix.finding {
        Suggested::Staircase => format!("{site} keeps {size} of the top"),
        Suggested::Pins => format!("{site} pins {size}"),
        Suggested::Separator => format!("{site} lay between free chunks when the heap grew by {size}"),
        Suggested::Growth => format!("{site} resizes, and made the heap grow by {size}"),
        Suggested::MmapThreshold => format!("the threshold moved to {size}"),
        Suggested::Trim => format!("a trim would give {size} back"),
        Suggested::Caches => format!("caches hold {size}"),
        Suggested::Arenas => format!("other arenas have {size} free"),
    }
}
