//! What was alive at exit.

use std::fmt::Write;

use super::{Extent, frames};
use crate::analysis::{LeakSite, Leaks};
use crate::render::escape::printable;
use crate::render::number::{bytes, count, counted, percent, span};
use crate::render::style::{ASIDE, FIGURE, HEADING, PLAIN};
use crate::render::table::{Table, left, right};

/// Renders what was alive at exit, largest call stacks first.
#[must_use]
pub fn leaks(leaks: &Leaks, extent: Extent) -> String {
    let mut out = String::new();
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{HEADING}alive at exit: {} in {} from {}{HEADING:#}",
        bytes(leaks.bytes),
        counted(leaks.blocks, "block"),
        counted(leaks.sites.len() as u64, "call stack")
    );
    if leaks.blocks > 0 {
        let _ = writeln!(
            out,
            "{ASIDE}not freed when the program ended; whether still pointed to is not examined here{ASIDE:#}"
        );
    }
    if leaks.inherited_blocks > 0 {
        let _ = writeln!(
            out,
            "{ASIDE}apart: {} in {} that forked children had from their parents{ASIDE:#}",
            bytes(leaks.inherited_bytes),
            counted(leaks.inherited_blocks, "block")
        );
    }
    let mut table = Table::default();
    let shown = &leaks.sites[..leaks.sites.len().min(extent.sites)];
    for (nth, site) in shown.iter().enumerate() {
        table.row([
            right((nth + 1).to_string(), ASIDE),
            right(bytes(site.bytes), FIGURE),
            right(percent(site.bytes, leaks.bytes), PLAIN),
            left(format!("{} of {} {}", count(site.blocks), counted(site.allocations, "allocation"), by(site)), PLAIN),
            left(age(site), ASIDE),
            left(threads(site, leaks.threads), ASIDE),
        ]);
    }
    for (line, site) in table.lines(0).iter().zip(shown) {
        let _ = writeln!(out, "\n{line}");
        frames::append(&mut out, &site.at, extent.frames, 6);
    }
    let more = leaks.sites.len() - shown.len();
    if more > 0 {
        let rest: u64 = leaks.sites[shown.len()..].iter().fold(0, |sum, site| sum.saturating_add(site.bytes));
        let _ = writeln!(
            out,
            "\n{ASIDE}… {} from {}; --limit shows more{ASIDE:#}",
            bytes(rest),
            counted(more as u64, "more call stack")
        );
    }
    out
}

fn by(site: &LeakSite) -> String {
    format!("by {}", site.at.call)
}

fn age(site: &LeakSite) -> String {
    if site.oldest_ns == site.youngest_ns {
        format!("age {}", span(site.oldest_ns))
    } else {
        format!("age {} to {}", span(site.youngest_ns), span(site.oldest_ns))
    }
}

/// The threads, if there is more than one to tell apart.
fn threads(site: &LeakSite, in_all: u64) -> String {
    match &site.threads[..] {
        _ if in_all < 2 => String::new(),
        [] => String::new(),
        [only] => format!("t{} {}", only.number, printable(&only.name)),
        [first, second] => {
            format!("t{} {}, t{} {}", first.number, printable(&first.name), second.number, printable(&second.name))
        }
        [first, others @ ..] => {
            format!("t{} {} and {} more threads", first.number, printable(&first.name), others.len())
        }
    }
}
