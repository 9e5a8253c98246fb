//! Bars of sizes and lifetimes.

use std::fmt::Write;

use super::sampling;
use crate::analysis::Histogram;
use crate::render::classes::{percentiles, rows, title};
use crate::render::number::{bytes, count, percent};
use crate::render::style::{ASIDE, BAR, FIGURE, HEADING, PLAIN};
use crate::render::table::{Table, left, right};

const BAR_COLUMNS: u64 = 40;

/// Renders the histogram as bars.
#[must_use]
pub fn histogram(histogram: &Histogram) -> String {
    let rows = rows(histogram);
    let mut out = String::new();
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "{HEADING}{}{HEADING:#}", title(histogram));
    sampling::append(&mut out, histogram.sampling().as_ref(), None);
    out.push('\n');
    let largest = rows.iter().map(|row| row.count).max().unwrap_or(0);
    let total: u64 = rows.iter().map(|row| row.count).sum();
    let sized = rows.iter().any(|row| row.bytes.is_some());
    let mut table = Table::default();
    let mut head =
        vec![right(if sized { "size" } else { "lifetime" }, ASIDE), right("count", ASIDE), right("%", ASIDE)];
    if sized {
        head.push(right("bytes", ASIDE));
    }
    table.row(head);
    for row in &rows {
        let mut cells = vec![
            right(row.class.clone(), PLAIN),
            right(count(row.count), FIGURE),
            right(percent(row.count, total).trim_end_matches(" %"), PLAIN),
        ];
        cells.extend(row.bytes.map(|sum| right(bytes(sum), PLAIN)));
        cells.push(left(bar(row.count, largest), BAR));
        table.row(cells);
    }
    table.write(&mut out, 2);
    let percentiles = percentiles(histogram);
    if !percentiles.is_empty() {
        let words: Vec<_> = percentiles.iter().map(|(name, value)| format!("{ASIDE}{name}{ASIDE:#} {value}")).collect();
        let _ = writeln!(out, "\n  {}", words.join("   "));
    }
    out
}

/// A bar to an eighth of a column; a value above 0 is never invisible.
fn bar(value: u64, largest: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if value == 0 || largest == 0 {
        return String::new();
    }
    let eighths = (value as f64 / largest as f64 * (BAR_COLUMNS * 8) as f64).round().max(1.0) as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}
