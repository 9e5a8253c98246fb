//! Bar charts as stand-alone SVG.

use std::fmt::Write;

use super::classes::{self, Row};
use super::escape::xml;
use super::number::{bytes, count, percent};
use super::text;
use crate::analysis::Histogram;

/// Geometry, in user units (pixels at full size).
pub(super) const LABELS: u32 = 150;
const BARS: u32 = 560;
pub(super) const FIGURES: u32 = 250;
const ROW: u32 = 24;
pub(super) const HEAD: u32 = 76;
const FOOT: u32 = 66;
pub(super) const WIDTH: u32 = LABELS + BARS + FIGURES;

/// Style of every chart; text stays text, so that it can be searched and read aloud.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2430}.t{font-size:17px;font-weight:600}\
.s,.a{fill:#667085}.r{text-anchor:end}.m{text-anchor:middle}.b{fill:#3b76c4}.g{stroke:#e3e6ec}\
@media(prefers-color-scheme:dark){svg{background:#14171e}text{fill:#e6e8ee}.s,.a{fill:#98a2b3}.g{stroke:#2b303b}}";

/// Draws a histogram of a recording of `command` as horizontal bars.
#[must_use]
pub fn histogram(histogram: &Histogram, command: &str) -> String {
    let rows = classes::rows(histogram);
    let height = HEAD + ROW * rows.len() as u32 + FOOT;
    let estimated = histogram.sampling().map(|sampling| text::sampled(sampling.mean_interval_bytes));
    let subtitle: Vec<_> = [Some(command.to_owned()), estimated].into_iter().flatten().collect();
    let mut svg = open(height, &classes::title(histogram), &subtitle.join(" · "));
    let largest = rows.iter().map(|row| row.count).max().unwrap_or(0).max(1);
    let total: u64 = rows.iter().map(|row| row.count).sum();
    let bottom = HEAD + ROW * rows.len() as u32;
    grid(&mut svg, bottom, largest);
    for (nth, row) in rows.iter().enumerate() {
        bar(&mut svg, HEAD + ROW * nth as u32, row, largest, total);
    }
    let axis = match histogram {
        Histogram::Size(_) => ("size", "allocations"),
        Histogram::Lifetime(_) => ("lifetime", "freed blocks"),
    };
    // Writing to a String does not fail, here and below.
    let _ = writeln!(svg, r#"<text class="a r" x="{}" y="{}">{}</text>"#, LABELS - 10, HEAD - 8, axis.0);
    let _ = writeln!(svg, r#"<text class="a m" x="{}" y="{}">{}</text>"#, LABELS + BARS / 2, bottom + 36, axis.1);
    let words: Vec<_> = classes::percentiles(histogram).iter().map(|(name, value)| format!("{name} {value}")).collect();
    let _ = writeln!(svg, r#"<text class="s" x="20" y="{}">{}</text>"#, height - 10, xml(&words.join(" · ")));
    svg.push_str("</svg>\n");
    svg
}

/// A picture that only says something.
#[must_use]
pub(super) fn message(title: &str, subtitle: &str) -> String {
    format!("{}</svg>\n", open(HEAD, title, subtitle))
}

/// The beginning of a picture, with its title and what it is of.
pub(super) fn open(height: u32, title: &str, subtitle: &str) -> String {
    let (title, subtitle) = (xml(title), xml(subtitle));
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">
<title>{title}</title>
<style>{STYLE}</style>
<text class="t" x="20" y="28">{title}</text>
<text class="s" x="20" y="48">{subtitle}</text>
"#
    )
}

/// Vertical lines at round counts, with their labels.
fn grid(svg: &mut String, bottom: u32, largest: u64) {
    let step = round_step(largest);
    for tick in (0..=largest / step).map(|nth| nth * step) {
        let x = LABELS as f64 + BARS as f64 * tick as f64 / largest as f64;
        let top = HEAD - 4;
        let _ = writeln!(svg, r#"<path class="g" d="M{x:.1} {top}V{bottom}"/>"#);
        let _ = writeln!(svg, r#"<text class="a m" x="{x:.1}" y="{}">{}</text>"#, bottom + 17, count(tick));
    }
}

/// A step of 1, 2 or 5 times a power of ten that gives at most five ticks above 0.
fn round_step(largest: u64) -> u64 {
    let mut power = 1u64;
    loop {
        for step in [1, 2, 5].map(|digit| power.saturating_mul(digit)) {
            if largest / step <= 5 {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn bar(svg: &mut String, top: u32, row: &Row, largest: u64, total: u64) {
    let width = BARS as f64 * row.count as f64 / largest as f64;
    // A value above 0 is never invisible.
    let width = if row.count > 0 { width.max(1.0) } else { 0.0 };
    let class = xml(&row.class);
    let share = percent(row.count, total);
    let figures = match row.bytes {
        _ if row.count == 0 => String::new(),
        Some(sum) => format!("{} · {share} · {}", count(row.count), bytes(sum)),
        None => format!("{} · {share}", count(row.count)),
    };
    let text_y = top + 16;
    let _ = writeln!(svg, r#"<g><title>{class}: {}</title>"#, count(row.count));
    let _ = writeln!(svg, r#"<text class="r" x="{}" y="{text_y}">{class}</text>"#, LABELS - 10);
    let _ = writeln!(
        svg,
        r#"<rect class="b" x="{LABELS}" y="{}" width="{width:.1}" height="{}" rx="2"/>"#,
        top + 3,
        ROW - 6
    );
    let x = LABELS as f64 + width + 8.0;
    let _ = writeln!(svg, r#"<text class="s" x="{x:.1}" y="{text_y}">{figures}</text></g>"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!([1, 5, 6, 54, 1_000, 7_000_000].map(round_step), [1, 1, 2, 10, 200, 2_000_000]);
        assert!(round_step(u64::MAX) > 0);
    }

    #[test]
    fn a_hostile_command_is_text_in_the_picture() {
        let svg = message("title", "<script>alert(1)</script>\u{1b}");
        assert!(svg.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}") && !svg.contains("<script"));
    }
}
