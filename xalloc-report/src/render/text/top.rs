//! The call stacks that do most of something.

use std::fmt::Write;

use super::{Extent, frames, sampling};
use crate::analysis::{Order, Top, TopSite};
use crate::render::number::{bytes, count, counted, span};
use crate::render::style::{ASIDE, DOUBT, FIGURE, HEADING, PLAIN};
use crate::render::table::{Table, left, right};

/// Renders the ranking.
#[must_use]
pub fn top(top: &Top, extent: Extent) -> String {
    let mut out = String::new();
    let what = match top.by {
        Order::Bytes => "allocated bytes",
        Order::Count => "allocations",
        Order::Peak => "live bytes at the peak",
        Order::Temporary => "temporary allocations",
        Order::Live => "bytes alive at exit",
    };
    let value = |value: u64| if top.by.is_bytes() { bytes(value) } else { count(value) };
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{HEADING}{what}: {} from {}{HEADING:#}",
        value(top.total),
        counted(top.sites.len() as u64, "call stack")
    );
    if let Some(doubt) = &top.doubt {
        let _ = writeln!(out, "{DOUBT}note{DOUBT:#}  {doubt}");
    }
    let error = top.sampling.and_then(|sampling| match top.by {
        Order::Bytes => Some(bytes(sampling.allocated_bytes_error)),
        Order::Count => Some(count(sampling.allocations_error)),
        Order::Peak => Some(bytes(sampling.peak_live_bytes_error)),
        Order::Live => Some(bytes(sampling.live_at_exit_bytes_error)),
        Order::Temporary => None,
    });
    sampling::append(&mut out, top.sampling.as_ref(), error);
    if top.sites.is_empty() {
        return out;
    }
    let mut table = Table::default();
    let head = ["", what_short(top.by), "%"].map(|title| right(title, ASIDE));
    table.row(head.into_iter().chain([left("call", ASIDE)]).chain(columns(top.by).map(|title| right(title, ASIDE))));
    let shown = &top.sites[..top.sites.len().min(extent.sites)];
    for (nth, site) in shown.iter().enumerate() {
        let figures = [
            right((nth + 1).to_string(), ASIDE),
            right(value(site.value), FIGURE),
            right(format!("{:.1}", site.percent), PLAIN),
            left(site.at.call.clone(), PLAIN),
        ];
        table.row(figures.into_iter().chain(details(top.by, site).map(|text| right(text, PLAIN))));
    }
    let lines = table.lines(0);
    let mut lines = lines.iter();
    if let Some(head) = lines.next() {
        let _ = writeln!(out, "{head}");
    }
    for (line, site) in lines.zip(shown) {
        let _ = writeln!(out, "{line}");
        frames::append(&mut out, &site.at, extent.frames, 6);
    }
    let more = top.sites.len() - shown.len();
    if more > 0 {
        let _ = writeln!(out, "{ASIDE}… {}; --limit shows more{ASIDE:#}", counted(more as u64, "more call stack"));
    }
    out
}

fn what_short(by: Order) -> &'static str {
    match by {
        Order::Bytes => "bytes",
        Order::Count => "allocations",
        Order::Peak => "at peak",
        Order::Temporary => "temporary",
        Order::Live => "alive",
    }
}

/// Titles of the columns beside the ranked one.
fn columns(by: Order) -> [&'static str; 3] {
    match by {
        Order::Bytes => ["allocations", "temporary", "mean lifetime"],
        Order::Count | Order::Temporary => ["bytes", "mean size", "mean lifetime"],
        Order::Peak => ["blocks at peak", "allocations", "mean lifetime"],
        Order::Live => ["blocks", "allocations", "mean lifetime"],
    }
}

fn details(by: Order, site: &TopSite) -> [String; 3] {
    let lifetime = site.mean_lifetime_ns.map_or_else(|| "never freed".to_owned(), span);
    let mean = site.allocated_bytes.checked_div(site.allocations).unwrap_or(0);
    match by {
        Order::Bytes => [count(site.allocations), count(site.temporary_allocations), lifetime],
        Order::Count | Order::Temporary => [bytes(site.allocated_bytes), bytes(mean), lifetime],
        Order::Peak => [count(site.peak_blocks), count(site.allocations), lifetime],
        Order::Live => [count(site.live_at_exit_blocks), count(site.allocations), lifetime],
    }
}
