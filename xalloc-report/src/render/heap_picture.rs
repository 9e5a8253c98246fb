//! The heap as pictures: addresses over time, what keeps the top, what would go back.

use std::fmt::Write;

use super::chart::{FIGURES, HEAD, LABELS, WIDTH, open};
use super::escape::{printable, xml};
use super::number::{bytes, instant, percent};
use crate::analysis::Named;
use crate::analysis::fragmentation::{Fragmentation, MapRange};

/// What is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Picture {
    /// Addresses from left to right, time from top to bottom; colour is the class, strength the live share.
    Map,
    /// The live chunks that keep the top, by what goes back with them.
    Staircase,
    /// The release ladder.
    Ladder,
}

impl Named for Picture {
    const ALL: &'static [Picture] = &[Picture::Map, Picture::Staircase, Picture::Ladder];

    fn name(self) -> &'static str {
        match self {
            Picture::Map => "map",
            Picture::Staircase => "staircase",
            Picture::Ladder => "ladder",
        }
    }
}

/// Room for the map, and heights of its rows, in pixels.
const MAP_WIDTH: f64 = (WIDTH - 2 * MARGIN) as f64;
const MARGIN: u32 = 20;
const MAP_HEIGHT: u32 = 480;
/// Gap between two ranges of a row.
const RANGE_GAP: f64 = 6.0;
const ROW: u32 = 30;

/// Colours that differ in lightness too: live, cached, free in a bin, top, the heap's own.
const COLOURS: [(char, &str, &str); 5] = [
    ('l', "#2563b0", "live"),
    ('c', "#d99b1f", "cached"),
    ('f', "#c9473d", "free in bins"),
    ('t', "#8fb98f", "top"),
    ('m', "#7a6f9b", "metadata"),
];

/// Draws the heap of a recording of `command`.
#[must_use]
pub fn heap_picture(of: &Fragmentation, picture: Picture, command: &str) -> String {
    match picture {
        Picture::Map => map(of, command),
        Picture::Staircase => staircase(of, command),
        Picture::Ladder => ladder(of, command),
    }
}

fn colour(class: char) -> &'static str {
    COLOURS.iter().find(|(known, ..)| *known == class).map_or("#888888", |(_, colour, _)| colour)
}

fn map(of: &Fragmentation, command: &str) -> String {
    let mut svg = open(HEAD + MAP_HEIGHT + 70, "The heap over time", &printable(command));
    // Writing to a String does not fail, here and below.
    let mut x = MARGIN;
    for (_, colour, name) in COLOURS {
        let _ = writeln!(svg, r#"<rect x="{x}" y="{}" width="12" height="12" fill="{colour}"/>"#, HEAD - 18);
        let _ = writeln!(svg, r#"<text class="s" x="{}" y="{}">{name}</text>"#, x + 17, HEAD - 8);
        x += 130;
    }
    let _ = writeln!(svg, r#"<text class="s r" x="{}" y="{}">pale: little is live</text>"#, WIDTH - MARGIN, HEAD - 8);
    let columns = &of.map;
    let most = |of: &Fragmentation| {
        let rows = of.map.iter().map(|column| column.ranges.iter().map(|range| range.size_bytes).sum::<u64>());
        rows.max().unwrap_or(0).max(1)
    };
    let ranges = columns.iter().map(|column| column.ranges.len()).max().unwrap_or(0).max(1);
    let scale = (MAP_WIDTH - RANGE_GAP * (ranges - 1) as f64) / most(of) as f64;
    let (from, to) = match (columns.first(), columns.last()) {
        (Some(first), Some(last)) => (first.at_ns, last.at_ns.max(first.at_ns + 1)),
        _ => (0, 1),
    };
    // Rows and cells begin and end with pixels: between smoothed edges, or sharp ones that are rounded apart, a pale line
    // would show.
    let y = |at_ns: u64| (f64::from(HEAD) + f64::from(MAP_HEIGHT) * (at_ns - from) as f64 / (to - from) as f64).round();
    svg.push_str("<g shape-rendering=\"crispEdges\">\n");
    for (nth, column) in columns.iter().enumerate() {
        let above = nth.checked_sub(1).map_or(y(column.at_ns), |before| y(columns[before].at_ns));
        let height = (y(column.at_ns) - above).max(1.0);
        let mut x = f64::from(MARGIN);
        for range in &column.ranges {
            cells(&mut svg, range, x, above, height, scale);
            x += range.size_bytes as f64 * scale + RANGE_GAP;
        }
    }
    svg.push_str("</g>\n");
    let bottom = HEAD + MAP_HEIGHT + 18;
    let _ = writeln!(svg, r#"<text class="a" x="{MARGIN}" y="{bottom}">address → (each arena from its lowest)</text>"#);
    let _ = writeln!(
        svg,
        r#"<text class="a r" x="{}" y="{bottom}">time ↓ {} to {}</text>"#,
        WIDTH - MARGIN,
        instant(from),
        instant(to)
    );
    svg.push_str("</svg>\n");
    svg
}

/// The cells of one range at one time; equal neighbours are one rectangle.
fn cells(svg: &mut String, range: &MapRange, x: f64, y: f64, height: f64, scale: f64) {
    let cells: Vec<_> = range.classes.chars().zip(range.live_tenths.chars()).collect();
    let mut at = 0;
    while let Some(&cell) = cells.get(at) {
        let run = cells[at..].iter().take_while(|&&other| other == cell).count();
        let from = at as u64 * range.cell_bytes;
        let to = ((at + run) as u64 * range.cell_bytes).min(range.size_bytes);
        let (class, tenths) = cell;
        let left = (x + from as f64 * scale).round();
        // Strength is the live share where something lives; what is free is shown at half strength.
        let strength = if class == 'l' { 0.3 + 0.077 * f64::from(tenths.to_digit(10).unwrap_or(0)) } else { 0.75 };
        let _ = writeln!(
            svg,
            r#"<rect x="{left}" y="{y}" width="{}" height="{height}" fill="{}" fill-opacity="{strength:.2}"/>"#,
            (x + to as f64 * scale).round().max(left + 1.0) - left,
            colour(class)
        );
        at += run;
    }
}

/// A bar of a chart: its name, its length, what stands behind it, its colour.
struct Bar {
    name: String,
    bytes: u64,
    figure: String,
    colour: &'static str,
}

fn bars(title: &str, subtitle: &str, names_width: u32, bars: &[Bar]) -> String {
    let mut svg = open(HEAD + ROW * bars.len().max(1) as u32 + 20, title, subtitle);
    let room = f64::from(WIDTH - names_width - FIGURES);
    let most = bars.iter().map(|bar| bar.bytes).max().unwrap_or(0).max(1);
    for (nth, bar) in (0..).zip(bars) {
        let top = HEAD + ROW * nth;
        let width = room * bar.bytes as f64 / most as f64;
        let _ = writeln!(
            svg,
            r#"<text class="r" x="{}" y="{}">{}</text><rect x="{names_width}" y="{}" width="{:.1}" height="{}" rx="2" fill="{}"/><text class="s" x="{:.1}" y="{}">{}</text>"#,
            names_width - 10,
            top + 19,
            xml(&bar.name),
            top + 5,
            width.max(1.0),
            ROW - 10,
            bar.colour,
            f64::from(names_width) + width + 8.0,
            top + 19,
            xml(&bar.figure)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn staircase(of: &Fragmentation, command: &str) -> String {
    let mut steps: Vec<_> = of.staircase.iter().collect();
    steps.sort_by_key(|step| (step.arena, step.gain_bytes));
    let shown: Vec<_> = steps
        .iter()
        .map(|step| {
            let site = step.at.frames.first().map_or_else(|| "unknown".to_owned(), |leaf| leaf.name());
            let name: String = printable(&site).chars().take(34).collect();
            let what = match step.chunks {
                1 => format!("1 chunk of {}", bytes(step.size)),
                more => format!("{more} chunks, {}", bytes(step.live_bytes)),
            };
            let figure = format!("{} · {what}", bytes(step.gain_bytes));
            Bar { name, bytes: step.gain_bytes, figure, colour: colour('f') }
        })
        .collect();
    let subtitle = if shown.is_empty() {
        format!("{}: nothing lies above free memory", printable(command))
    } else {
        format!("{}: bytes of the top that go back if this and all above it go", printable(command))
    };
    bars("What keeps the top", &subtitle, 2 * LABELS, &shown)
}

fn ladder(of: &Fragmentation, command: &str) -> String {
    let ladder = of.ladder;
    let rungs = [
        ("automatic trim", ladder.systrim, 't'),
        ("malloc_trim(0)", ladder.malloc_trim, 't'),
        ("after a flush", ladder.after_flush, 'c'),
        ("ideal", ladder.ideal, 'm'),
        ("unreleasable", ladder.unreleasable, 'f'),
        ("resident", ladder.resident, 'l'),
    ];
    let shown = rungs.map(|(name, value, class)| Bar {
        name: name.to_owned(),
        bytes: value,
        figure: format!("{} · {}", bytes(value), percent(value, ladder.resident)),
        colour: colour(class),
    });
    let subtitle = format!("{}: of the arenas' resident memory at {}", printable(command), instant(of.at_ns));
    bars("What would go back", &subtitle, LABELS, &shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::fragmentation::{At, Predict, fragmentation};
    use crate::model::sample::fragmented;
    use crate::trace::ProcessIndex;

    fn drawn(picture: Picture) -> String {
        let seen = fragmentation(&fragmented(), ProcessIndex(0), At::Exit, Predict::Never).expect("the books balance");
        heap_picture(&seen, picture, "<script>alert(1)</script>")
    }

    #[test]
    fn each_picture_shows_what_it_is_named_after_and_no_hostile_text() {
        for &picture in Picture::ALL {
            let svg = drawn(picture);
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("<script"), "{picture:?}");
        }
        let map = drawn(Picture::Map);
        for (class, colour, _) in COLOURS.iter().filter(|(class, ..)| "lft".contains(*class)) {
            assert!(map.matches(colour).count() > 1, "{class}");
        }
        assert!(drawn(Picture::Staircase).contains("plugin_register") && drawn(Picture::Ladder).contains("1.9 MiB"));
    }
}
