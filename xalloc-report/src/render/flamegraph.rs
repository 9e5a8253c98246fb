//! Flame graphs as stand-alone SVG, drawn by inferno: searchable, zoomable, no network.

use std::io;

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Direction, Options, TextTruncateDirection};

use super::chart;
use super::escape::{folded, printable};
use super::number::{bytes, count, counted};
use super::text;
use crate::analysis::{Flame, FlameStack};

/// Frames with a smaller share of the total are not drawn: at the usual 1200 pixels they are a pixel wide.
const LEAST_PERCENT: f64 = 0.1;

/// Which end of a stack the graph grows from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// From `main` up: what each function and its callees account for.
    FromRoot,
    /// From the allocating functions down: who calls them.
    FromLeaf,
}

/// The stacks as lines `root;…;leaf weight`.
#[must_use]
pub fn folded_lines(flame: &Flame, growth: Growth) -> Vec<String> {
    let mut lines: Vec<_> = flame.stacks.iter().map(|stack| line(stack, growth)).collect();
    lines.sort_unstable();
    lines
}

fn line(stack: &FlameStack, growth: Growth) -> String {
    let mut labels: Vec<_> = stack.labels.iter().map(|label| folded(label)).collect();
    match growth {
        Growth::FromRoot => {}
        Growth::FromLeaf => labels.reverse(),
    }
    if let Some(tip) = labels.last_mut() {
        tip.push_str(&sites(&stack.sites));
    }
    format!("{} {}", labels.join(";"), stack.weight)
}

/// The ids by which other commands know the stacks of a flame, behind the name of its tip.
fn sites(ids: &[String]) -> String {
    match ids {
        [] => String::new(),
        [id] => format!(" [site {id}]"),
        [one, two] => format!(" [sites {one}, {two}]"),
        [one, two, more @ ..] => format!(" [sites {one}, {two} and {} more]", more.len()),
    }
}

/// Draws the flame graph of a recording of `command`.
///
/// # Errors
/// Those of `out`.
pub fn flamegraph(flame: &Flame, growth: Growth, command: &str, out: &mut impl io::Write) -> io::Result<()> {
    let total = if flame.metric.is_bytes() {
        format!("{} ({} bytes)", bytes(flame.total), count(flame.total))
    } else {
        counted(flame.total, "allocation")
    };
    let doubt = flame.doubt.as_ref().map_or_else(String::new, |doubt| format!(" ({})", printable(doubt)));
    let title = format!("{}: {total}{doubt}", flame.metric.title());
    let estimated = flame.sampling.as_ref().map(|sampling| text::sampled(sampling.mean_interval_bytes));
    if flame.total == 0 {
        let subtitle = [Some(printable(command).into_owned()), estimated];
        let subtitle: Vec<_> = subtitle.into_iter().flatten().collect();
        return out.write_all(chart::message(&title, &subtitle.join(" · ")).as_bytes());
    }
    let mut options = Options::default();
    options.title = title;
    // Deep recursion has thousands of frames that are thinner than a line, and would be most of the picture's height.
    options.min_width = LEAST_PERCENT;
    let hidden = flame.stacks.iter().any(|stack| (stack.weight as f64) < flame.total as f64 * LEAST_PERCENT / 100.0);
    let mut subtitle = vec![printable(command).into_owned()];
    if hidden {
        subtitle.push(format!("functions below {LEAST_PERCENT} % are not drawn"));
    }
    subtitle.extend(estimated);
    subtitle.retain(|part| !part.is_empty());
    options.subtitle = Some(subtitle.join(" · ")).filter(|subtitle| !subtitle.is_empty());
    options.count_name = if flame.metric.is_bytes() { "bytes" } else { "allocations" }.to_owned();
    options.name_type = "Function:".to_owned();
    options.colors = Palette::Basic(BasicPalette::Mem);
    // Functions are known by how their names begin.
    options.text_truncate_direction = TextTruncateDirection::Right;
    // The same trace gives the same picture.
    options.deterministic = true;
    options.direction = match growth {
        Growth::FromRoot => Direction::Straight,
        Growth::FromLeaf => Direction::Inverted,
    };
    let lines = folded_lines(flame, growth);
    inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{self, Metric};
    use crate::model::sample::server;
    use crate::model::{Model, Settings};
    use crate::trace::ProcessIndex;

    fn drawn(metric: Metric, growth: Growth) -> String {
        let sample = server();
        let model = Model::of(&sample, [ProcessIndex(0)], Settings::default()).expect("a sample has no errors");
        let flame = analysis::flame(&sample.contents, &model, metric);
        let mut svg = Vec::new();
        flamegraph(&flame, growth, "./server", &mut svg).expect("writing to memory does not fail");
        String::from_utf8(svg).expect("an SVG is text")
    }

    #[test]
    fn the_picture_names_functions_files_totals_and_the_unit() {
        let svg = drawn(Metric::Alive, Growth::FromRoot);
        for text in [
            "Bytes alive at exit: 17.8 KiB (18,192 bytes)",
            "cache_insert cache.cc:120",
            "10,000 bytes",
            "plugin.so+0x77",
        ] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_hostile_name_stays_a_name() {
        let svg = drawn(Metric::Count, Growth::FromRoot);
        assert!(svg.contains("&lt;b&gt;&amp;&quot;evil&quot;&lt;/b&gt;:\\u{1b}[31m\u{a0}12"));
        assert!(!svg.contains('\u{1b}') && !svg.contains("<b>"));
        assert!(svg.contains("Allocations: 54 allocations"));
    }

    #[test]
    fn inverted_stacks_begin_with_the_function_that_allocates() {
        let sample = server();
        let model = Model::of(&sample, [ProcessIndex(0)], Settings::default()).expect("a sample has no errors");
        let flame = analysis::flame(&sample.contents, &model, Metric::Alive);
        let lines = folded_lines(&flame, Growth::FromLeaf);
        let id = |nth: usize| &flame.stacks[nth].sites[0];
        let expected = [
            format!("cache_insert cache.cc:120;main;_start [site {}] 10000", id(0)),
            format!("plugin.so+0x77;main;_start [site {}] 8192", id(1)),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_tip_of_a_flame_names_the_stacks_that_look_like_it() {
        let ids = |count: usize| -> Vec<String> { (0..count).map(|id| format!("{id:012x}")).collect() };
        assert_eq!(sites(&ids(0)), "");
        assert_eq!(sites(&ids(1)), " [site 000000000000]");
        assert_eq!(sites(&ids(2)), " [sites 000000000000, 000000000001]");
        assert_eq!(sites(&ids(5)), " [sites 000000000000, 000000000001 and 3 more]");
    }

    #[test]
    fn the_same_trace_gives_the_same_picture() {
        assert_eq!(drawn(Metric::Peak, Growth::FromLeaf), drawn(Metric::Peak, Growth::FromLeaf));
    }

    #[test]
    fn a_recursion_of_little_weight_does_not_make_the_picture_tall() {
        let stack =
            |depth: usize, weight| FlameStack { labels: vec!["recurse".to_owned(); depth], sites: Vec::new(), weight };
        let svg = |stacks: Vec<FlameStack>| {
            let flame = Flame {
                metric: Metric::Allocated,
                total: stacks.iter().map(|s| s.weight).sum(),
                stacks,
                doubt: None,
                sampling: None,
            };
            let mut svg = Vec::new();
            flamegraph(&flame, Growth::FromRoot, "./deep", &mut svg).expect("writing to memory does not fail");
            String::from_utf8(svg).expect("an SVG is text")
        };
        let height = |svg: &str| {
            let from = svg.find("height=\"").expect("an SVG has a height") + 8;
            svg[from..].split('"').next().and_then(|digits| digits.parse::<u32>().ok()).expect("a number")
        };
        let (shallow, deep) = (svg(vec![stack(3, 10_000)]), svg(vec![stack(3, 10_000), stack(300, 5)]));
        assert_eq!(height(&shallow), height(&deep));
        assert!(deep.contains("functions below 0.1 % are not drawn") && !shallow.contains("not drawn"));
        assert!(height(&svg(vec![stack(300, 10_000)])) > 10 * height(&shallow));
    }

    #[test]
    fn nothing_to_show_is_a_picture_that_says_so() {
        let flame = Flame { metric: Metric::Alive, total: 0, doubt: None, sampling: None, stacks: Vec::new() };
        let mut svg = Vec::new();
        flamegraph(&flame, Growth::FromRoot, "./clean", &mut svg).expect("writing to memory does not fail");
        assert!(String::from_utf8_lossy(&svg).contains("Bytes alive at exit: 0 B (0 bytes)"));
    }
}
