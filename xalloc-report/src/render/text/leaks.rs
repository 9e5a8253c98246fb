//! What was alive at exit, and which of it is leaked.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Extent, frames, sampling};
use crate::analysis::{CheckView, HolderView, LeakClass, LeakSite, Leaks, Slope};
use crate::render::escape::printable;
use crate::render::number::{bytes, count, counted, percent, span};
use crate::render::style::{ASIDE, DOUBT, FIGURE, HEADING, PLAIN};
use crate::render::table::{Table, left, right};

/// Links of a chain of holders that are shown; the last one, the root, always is.
const HOLDERS_SHOWN: usize = 4;

/// Renders what was alive at exit by class, largest call stacks first.
#[must_use]
pub fn leaks(leaks: &Leaks, extent: Extent) -> String {
    let mut out = String::new();
    heading(&mut out, leaks);
    let mut table = Table::default();
    let shown = &leaks.sites[..leaks.sites.len().min(extent.sites)];
    for (nth, site) in shown.iter().enumerate() {
        table.row([
            right((nth + 1).to_string(), ASIDE),
            left(site.class.map(word).unwrap_or_default(), if is_leaked(site) { HEADING } else { PLAIN }),
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
        explain(&mut out, site);
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

/// The sums, and how far they can be trusted.
fn heading(out: &mut String, leaks: &Leaks) {
    let stacks: BTreeSet<_> = leaks.sites.iter().map(|site| &site.at.frames).collect();
    let check = leaks.check.and_then(|number| leaks.checks.iter().find(|check| check.number == number));
    let when = check.map_or("exit".to_owned(), |check| format!("{}, {}", of_process(check), span(check.at_ns)));
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{HEADING}alive at {when}: {} in {} from {}{HEADING:#}",
        bytes(leaks.bytes),
        counted(leaks.blocks, "block"),
        counted(stacks.len() as u64, "call stack")
    );
    let error = leaks.sampling.map(|sampling| {
        format!(
            "{} in {}",
            bytes(sampling.live_at_exit_bytes_error),
            counted(sampling.live_at_exit_blocks_error, "block")
        )
    });
    sampling::append(out, leaks.sampling.as_ref(), error);
    let checked = leaks.processes.iter().filter(|process| process.checked).count();
    if checked > 0 {
        let mut table = Table::default();
        for class in LeakClass::ALL {
            let sum = leaks.totals.of(class);
            if sum.blocks > 0 || class == LeakClass::Definite {
                let style = if class.is_leaked() && sum.blocks > 0 { HEADING } else { PLAIN };
                table.row([
                    left(word(class), style),
                    right(bytes(sum.bytes), FIGURE),
                    right(counted(sum.blocks, "block"), PLAIN),
                    left(meaning(class), ASIDE),
                ]);
            }
        }
        table.write(out, 2);
    }
    if let Some(reason) = &leaks.not_checked_reason {
        let which = match (leaks.processes.len(), checked) {
            (0 | 1, _) => String::new(),
            (all, checked) => format!(" {} of {}", all - checked, counted(all as u64, "process")),
        };
        let _ = writeln!(out, "{DOUBT}not checked for leaks{which}: {}{DOUBT:#}", printable(reason));
    }
    let doubts: u64 = leaks.processes.iter().filter_map(|process| process.running_threads).sum();
    if doubts > 0 {
        let _ = writeln!(
            out,
            "{DOUBT}{} did not stop for the check, so that leaks may have been missed{DOUBT:#}",
            counted(doubts, "thread")
        );
    }
    if let Some(paused_ns) = leaks.processes.first().and_then(|process| process.duration_ns).filter(|_| check.is_some())
    {
        let _ = writeln!(out, "{ASIDE}the process was stopped for {}{ASIDE:#}", span(paused_ns));
    }
    if leaks.suppressed.blocks > 0 {
        let _ = writeln!(
            out,
            "{ASIDE}of the leaked, {} in {} are suppressed by the program itself{ASIDE:#}",
            bytes(leaks.suppressed.bytes),
            counted(leaks.suppressed.blocks, "block")
        );
    }
    let is_shown = |number| leaks.check == Some(number);
    for check in leaks.checks.iter().filter(|check| !check.occasion.is_last() && !is_shown(check.number)) {
        let found = match &check.not_checked_reason {
            None => format!("{} leaked in {}", bytes(check.leaked.bytes), counted(check.leaked.blocks, "block")),
            Some(reason) => format!("not checked: {}", printable(reason)),
        };
        let _ = writeln!(out, "{ASIDE}{} at {}: {found}{ASIDE:#}", of_process(check), span(check.at_ns));
    }
    if leaks.inherited_blocks > 0 {
        let _ = writeln!(
            out,
            "{ASIDE}apart: {} in {} that forked children had from their parents{ASIDE:#}",
            bytes(leaks.inherited_bytes),
            counted(leaks.inherited_blocks, "block")
        );
    }
}

fn of_process(check: &CheckView) -> String {
    format!("check {} of process {}", check.number, check.pid)
}

fn is_leaked(site: &LeakSite) -> bool {
    site.class.is_some_and(LeakClass::is_leaked)
}

fn word(class: LeakClass) -> String {
    class.name().replace('_', " ")
}

fn meaning(class: LeakClass) -> &'static str {
    match class {
        LeakClass::Definite => "leaked: nothing points to them",
        LeakClass::Cycle => "leaked: only what they point to points to them",
        LeakClass::Indirect => "leaked: only leaked blocks point to them",
        LeakClass::Possible => "something points into their middle",
        LeakClass::Reachable => "still pointed to",
        LeakClass::Runtime => "the language runtime's own",
        LeakClass::Inherited => "from before the fork",
        LeakClass::OwnerActive => "nothing points to them, but who allocated them had not returned",
    }
}

/// What it holds, who holds it, and what else looks like a pointer to it.
fn explain(out: &mut String, site: &LeakSite) {
    if let Some(suppression) = &site.suppressed_by {
        let _ = writeln!(out, "      {ASIDE}suppressed by the program: {}{ASIDE:#}", printable(suppression));
    }
    if let Some(slope) = site.growth.filter(|slope| slope.rises) {
        let _ = writeln!(out, "      {DOUBT}{}{DOUBT:#}", growth(slope));
    }
    if site.holds.blocks > 0 {
        let _ = writeln!(
            out,
            "      {ASIDE}holds {} in {}{ASIDE:#}",
            bytes(site.holds.bytes),
            counted(site.holds.blocks, "block")
        );
    }
    let cut = site.holders.len() > HOLDERS_SHOWN;
    for (nth, holder) in site.holders.iter().enumerate() {
        if cut && nth == HOLDERS_SHOWN - 1 {
            let _ = writeln!(
                out,
                "      {ASIDE}held by … {}{ASIDE:#}",
                counted((site.holders.len() - HOLDERS_SHOWN) as u64, "more block")
            );
        } else if !cut || nth < HOLDERS_SHOWN - 1 || nth == site.holders.len() - 1 {
            let _ = writeln!(out, "      {ASIDE}held by {}{ASIDE:#}", told(holder));
        }
    }
    if let Some(hint) = &site.hint {
        let _ = writeln!(out, "      {DOUBT}{} exists at {}{DOUBT:#}", hint.pointer(), hint.at);
    }
}

/// A slope is only called a rate where it was seen for long enough to be one.
fn growth(slope: Slope) -> String {
    const LONG_ENOUGH_NS: u64 = 1_000_000_000;
    let rate = slope.rate().unwrap_or_default();
    let over = span(slope.over_ns);
    if slope.over_ns >= LONG_ENOUGH_NS {
        return format!("grows by {}/s, over {over}", bytes(rate));
    }
    let risen = u128::from(rate) * u128::from(slope.over_ns) / u128::from(LONG_ENOUGH_NS);
    format!("grew by some {} over {over}, too short a run for a rate", bytes(u64::try_from(risen).unwrap_or(u64::MAX)))
}

fn told(holder: &HolderView) -> String {
    match holder {
        HolderView::Root { name } => printable(name).into_owned(),
        HolderView::Block { size_bytes, offset_bytes, at } => {
            let by = at.frames.first().map_or_else(|| "unknown code".to_owned(), |frame| frame.name());
            format!("a block of {} from {}, at +{offset_bytes:#x}", bytes(*size_bytes), printable(&by))
        }
    }
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
