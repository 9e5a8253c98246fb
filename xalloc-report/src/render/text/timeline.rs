//! Live bytes and heap bytes over time, as a plot of characters.

use std::fmt::Write;

use super::sampling;
use crate::analysis::{Moment, TimelineView};
use crate::render::escape::printable;
use crate::render::number::{bytes, count, span};
use crate::render::style::{ASIDE, BAR, DOUBT, FIGURE, HEADING};

const PLOT_ROWS: u64 = 12;
/// Marks whose names are shown.
const MARKS_SHOWN: usize = 20;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns left of the plot: the label, a blank and the axis.
const LABEL_COLUMNS: usize = 10;

/// Columns of a plot that is `width` columns wide with its labels.
fn plot_columns(width: usize) -> usize {
    width.saturating_sub(LABEL_COLUMNS + 3).max(10)
}

/// One column of the plot.
struct Column {
    live_bytes: u64,
    heap_bytes: Option<u64>,
    allocations_per_s: f64,
}

/// Renders the timeline in `width` columns.
#[must_use]
pub fn timeline(timeline: &TimelineView, width: usize) -> String {
    let mut out = String::new();
    let columns = columns(timeline, plot_columns(width));
    // What is plotted: of several programs the sum of what each held at most within a span.
    let peak = timeline.buckets.iter().map(|bucket| bucket.live_max_bytes).max().unwrap_or(0);
    let heap = columns.iter().any(|column| column.heap_bytes.is_some());
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{HEADING}live bytes{HEADING:#} {BAR}█{BAR:#}{}   {ASIDE}peak{ASIDE:#} {FIGURE}{}{FIGURE:#}{}",
        if heap { format!("   {HEADING}heap{HEADING:#} {DOUBT}•{DOUBT:#}") } else { String::new() },
        bytes(peak),
        if timeline.processes > 1 {
            format!(" {ASIDE}at most, of {} programs together{ASIDE:#}", timeline.processes)
        } else {
            String::new()
        },
    );
    let error = timeline.sampling.map(|sampling| bytes(sampling.peak_live_bytes_error));
    sampling::append(&mut out, timeline.sampling.as_ref(), error);
    if columns.is_empty() {
        let _ = writeln!(out, "  no events");
        return out;
    }
    let highest = |column: &Column| column.live_bytes.max(column.heap_bytes.unwrap_or(0));
    let top = columns.iter().map(highest).max().unwrap_or(0).max(1);
    for row in (0..PLOT_ROWS).rev() {
        let label = if row == PLOT_ROWS - 1 || row % 4 == 3 { bytes(scaled(top, row + 1)) } else { String::new() };
        let axis = if label.is_empty() { '│' } else { '┤' };
        let _ = write!(out, "{ASIDE}{label:>LABEL_COLUMNS$} {axis}{ASIDE:#}");
        let mut blanks = 0;
        for column in &columns {
            plot(&mut out, &mut blanks, column, row, top);
        }
        out.push('\n');
    }
    axis(&mut out, &columns, timeline.buckets.len() as u64 * timeline.bucket_ns);
    rate(&mut out, &columns);
    marks(&mut out, timeline, columns.len());
    // Of a sampled recording they never are, and what it is has been said.
    if timeline.heap_unknown_processes > 0 && timeline.sampling.is_none() {
        let _ = writeln!(
            out,
            "{DOUBT}note{DOUBT:#}  heap bytes unknown for {} of {}: not served by the core allocator, or begun by fork",
            timeline.heap_unknown_processes,
            if timeline.processes == 1 { "1 process".to_owned() } else { format!("{} processes", timeline.processes) }
        );
    }
    out
}

/// The value at the upper edge of `row` rows.
fn scaled(top: u64, rows: u64) -> u64 {
    (u128::from(top) * u128::from(rows) / u128::from(PLOT_ROWS)) as u64
}

/// One column of one row: live bytes filled from below, the heap as a dot in the row where it ends. Blanks are held
/// back in `blanks` until something follows them.
fn plot(out: &mut String, blanks: &mut usize, column: &Column, row: u64, top: u64) {
    let eighths = |value: u64| (value as f64 / top as f64 * (PLOT_ROWS * 8) as f64).ceil() as u64;
    let filled = eighths(column.live_bytes).saturating_sub(row * 8).min(8);
    let heap_row = column.heap_bytes.filter(|heap| *heap > 0).map(|heap| eighths(heap).saturating_sub(1) / 8);
    let (style, mark) = match filled {
        0 if heap_row == Some(row) => (DOUBT, '•'),
        0 => {
            *blanks += 1;
            return;
        }
        _ => (BAR, BLOCKS[filled as usize]),
    };
    // Writing to a String does not fail.
    let _ = write!(out, "{:blanks$}{style}{mark}{style:#}", "", blanks = *blanks);
    *blanks = 0;
}

/// The time axis, with a label at its beginning, middle and end.
fn axis(out: &mut String, columns: &[Column], end_ns: u64) {
    let width = columns.len();
    let mut ticks: Vec<char> = vec!['─'; width];
    ticks[width / 2] = '┬';
    ticks[width - 1] = '┬';
    let _ = writeln!(out, "{ASIDE}{:>LABEL_COLUMNS$} └{}{ASIDE:#}", "0 B", ticks.iter().collect::<String>());
    let (first, middle, last) = (span(0), span(end_ns / 2), span(end_ns));
    let middle_at = (width / 2).saturating_sub(middle.chars().count() / 2);
    let last_at = (width + 1).saturating_sub(last.chars().count());
    let mut line = first;
    for (at, label) in [(middle_at, middle), (last_at, last)] {
        let so_far = line.chars().count();
        if at > so_far {
            let _ = write!(line, "{:blanks$}{label}", "", blanks = at - so_far);
        }
    }
    let _ = writeln!(out, "{ASIDE}{:>LABEL_COLUMNS$}  {line}{ASIDE:#}", "");
}

/// Allocations per second, one row of blocks.
fn rate(out: &mut String, columns: &[Column]) {
    let most = columns.iter().map(|column| column.allocations_per_s).fold(0.0, f64::max);
    let height = |rate: f64| if rate > 0.0 { (rate / most * 8.0).ceil() as usize } else { 0 };
    let bars: String = columns.iter().map(|column| BLOCKS[height(column.allocations_per_s).min(8)]).collect();
    let _ = writeln!(out, "{ASIDE}{:>LABEL_COLUMNS$} │{ASIDE:#}{BAR}{}{BAR:#}", "rate", bars.trim_end());
    let most = count(most.round() as u64);
    let _ = writeln!(out, "{ASIDE}{:>LABEL_COLUMNS$}  up to {most} allocations/s{ASIDE:#}", "");
}

/// Where the marks lie, and the names of the first.
fn marks(out: &mut String, timeline: &TimelineView, width: usize) {
    let end_ns = timeline.buckets.len() as u64 * timeline.bucket_ns;
    if timeline.marks.is_empty() || end_ns == 0 {
        return;
    }
    let mut places = vec![' '; width];
    for mark in &timeline.marks {
        let at = u128::from(mark.at_ns.min(end_ns - 1)) * width as u128 / u128::from(end_ns);
        places[at as usize] = '▲';
    }
    let places: String = places.iter().collect();
    let _ = writeln!(out, "{ASIDE}{:>LABEL_COLUMNS$}  {}{ASIDE:#}", "marks", places.trim_end());
    for mark in timeline.marks.iter().take(MARKS_SHOWN) {
        let _ =
            writeln!(out, "{:>LABEL_COLUMNS$}  {ASIDE}{}{ASIDE:#}  {}", "", span(mark.at_ns), printable(&mark.name));
    }
    let more = timeline.marks_in_all.saturating_sub(MARKS_SHOWN as u64);
    if more > 0 {
        let _ = writeln!(
            out,
            "{ASIDE}{:>LABEL_COLUMNS$}  … {} more; events --kind marker lists them{ASIDE:#}",
            "",
            count(more)
        );
    }
}

/// The buckets spread over exactly `columns` columns: several to a column, or one over several.
fn columns(timeline: &TimelineView, columns: usize) -> Vec<Column> {
    let buckets = &timeline.buckets;
    let edge = |column: usize| column * buckets.len() / columns;
    let columns = if buckets.is_empty() { 0 } else { columns };
    (0..columns)
        .map(|column| {
            let shown: &[Moment] = &buckets[edge(column)..edge(column + 1).max(edge(column) + 1)];
            let allocations: u64 = shown.iter().map(|bucket| bucket.allocations).sum();
            Column {
                live_bytes: shown.iter().map(|bucket| bucket.live_max_bytes).max().unwrap_or(0),
                heap_bytes: shown.iter().filter_map(|bucket| bucket.heap_max_bytes).max(),
                allocations_per_s: allocations as f64 * 1e9 / (shown.len() as f64 * timeline.bucket_ns as f64),
            }
        })
        .collect()
}
