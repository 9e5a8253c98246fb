//! Call stacks weighed by a metric: what a flame graph draws.

use std::collections::{BTreeMap, BTreeSet};

use super::fragmentation::PinView;
use super::frames::{CallStack, FrameView, StackState};
use super::leaks;
use super::names::Named;
use super::process::peaks_apart;
use super::sampling::SamplingView;
use crate::model::{Model, Site};
use crate::trace::{Contents, StackIndex};
use xalloc_core::wire::Call;

/// What the width of a flame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// Requested bytes of all allocations.
    Allocated,
    /// Number of allocations.
    Count,
    /// Live bytes when the process's live bytes were largest.
    Peak,
    /// Bytes alive at exit.
    Alive,
    /// Bytes that a scan found leaked: definite, cycle and indirect.
    Leaked,
    /// Number of temporary allocations.
    Temporary,
    /// Free bytes that the site's blocks pin on their pages at some moment.
    Pinned,
}

impl Named for Metric {
    const ALL: &'static [Metric] = &[
        Metric::Allocated,
        Metric::Count,
        Metric::Peak,
        Metric::Alive,
        Metric::Leaked,
        Metric::Temporary,
        Metric::Pinned,
    ];

    fn name(self) -> &'static str {
        match self {
            Metric::Allocated => "allocated",
            Metric::Count => "count",
            Metric::Peak => "peak",
            Metric::Alive => "alive",
            Metric::Leaked => "leaked",
            Metric::Temporary => "temporary",
            Metric::Pinned => "pinned",
        }
    }
}

impl Metric {
    fn weight(self, site: &Site) -> u64 {
        match self {
            Metric::Allocated => site.allocated_bytes,
            Metric::Count => site.allocations,
            Metric::Peak => site.at_peak.bytes,
            Metric::Alive | Metric::Leaked => site.alive.bytes,
            Metric::Temporary => site.temporary,
            // Not a figure of the model: only the layout of the heap has it.
            Metric::Pinned => 0,
        }
    }

    /// Whether weights are bytes; otherwise they are allocations.
    #[must_use]
    pub fn is_bytes(self) -> bool {
        match self {
            Metric::Allocated | Metric::Peak | Metric::Alive | Metric::Leaked | Metric::Pinned => true,
            Metric::Count | Metric::Temporary => false,
        }
    }

    /// What the metric is, for a title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Metric::Allocated => "Allocated bytes",
            Metric::Count => "Allocations",
            Metric::Peak => "Live bytes at the peak",
            Metric::Alive => "Bytes alive at exit",
            Metric::Leaked => "Leaked bytes",
            Metric::Temporary => "Temporary allocations",
            Metric::Pinned => "Free bytes pinned by call site",
        }
    }
}

/// A stack with its weight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlameStack {
    /// Labels, outermost first; the last one says file and line.
    pub labels: Vec<String>,
    /// The ids of the call stacks that look so, in order.
    pub sites: Vec<String>,
    /// Bytes or allocations.
    pub weight: u64,
}

/// The stacks of a flame graph.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flame {
    /// What the weights are.
    pub metric: Metric,
    /// Their sum.
    pub total: u64,
    /// Why weights are not what the metric says: leaked bytes of what was never checked are bytes alive at exit, and
    /// peaks of several programs were at several times.
    pub doubt: Option<String>,
    /// How the weights were estimated; `None`: they are exact.
    pub sampling: Option<SamplingView>,
    /// Stacks with a weight above 0; each only once, in order of labels.
    pub stacks: Vec<FlameStack>,
}

impl Flame {
    pub(super) fn of(contents: &Contents, model: &Model, metric: Metric) -> Flame {
        Flame { sampling: SamplingView::of(model), ..Flame::by(contents, model, metric) }
    }

    fn by(contents: &Contents, model: &Model, metric: Metric) -> Flame {
        let of_sites = || model.sum.sites.iter().map(|site| (site.stack, site.call, metric.weight(site)));
        match metric {
            Metric::Allocated | Metric::Count | Metric::Alive | Metric::Temporary | Metric::Pinned => {
                Flame::weighed(contents, metric, of_sites())
            }
            Metric::Peak => Flame { doubt: peaks_apart(model), ..Flame::weighed(contents, metric, of_sites()) },
            Metric::Leaked => match leaks::unchecked(contents, model, leaks::ShownCheck::Last) {
                Some(reason) => {
                    let doubt = format!("not checked for leaks: {reason}");
                    Flame { doubt: Some(doubt), ..Flame::weighed(contents, Metric::Alive, of_sites()) }
                }
                None => {
                    let leaked = leaks::findings(contents, model, leaks::ShownCheck::Last)
                        .filter(|(_, finding)| finding.class.is_leaked());
                    let leaked = leaked.map(|(_, finding)| (finding.stack, finding.call, finding.bytes));
                    Flame::weighed(contents, metric, leaked)
                }
            },
        }
    }

    pub(super) fn pinned(pins: &[PinView]) -> Flame {
        let pins = pins.iter().filter(|pin| pin.share_bytes > 0);
        Flame::of_stacks(Metric::Pinned, pins.map(|pin| (pin.at.clone(), pin.share_bytes)))
    }

    fn weighed(contents: &Contents, metric: Metric, weights: impl Iterator<Item = (StackIndex, Call, u64)>) -> Flame {
        let weights = weights.filter(|(_, _, weight)| *weight > 0);
        Flame::of_stacks(metric, weights.map(|(stack, call, weight)| (CallStack::of(contents, stack, call), weight)))
    }

    fn of_stacks(metric: Metric, weights: impl Iterator<Item = (CallStack, u64)>) -> Flame {
        // Stacks that differ only in return addresses look the same and are one flame.
        let mut stacks: BTreeMap<Vec<String>, (u64, BTreeSet<String>)> = BTreeMap::new();
        for (stack, more) in weights {
            let (weight, sites) = stacks.entry(labels(&stack)).or_default();
            *weight = weight.saturating_add(more);
            sites.insert(stack.id);
        }
        let stack = |(labels, (weight, sites)): (_, (_, BTreeSet<String>))| FlameStack {
            labels,
            sites: sites.into_iter().collect(),
            weight,
        };
        let stacks: Vec<_> = stacks.into_iter().map(stack).collect();
        let total = stacks.iter().fold(0u64, |sum, stack| sum.saturating_add(stack.weight));
        Flame { metric, total, doubt: None, sampling: None, stacks }
    }
}

fn labels(stack: &CallStack) -> Vec<String> {
    let mut labels = Vec::with_capacity(stack.frames.len() + 1);
    match stack.stack {
        StackState::Whole => {}
        StackState::Cut => labels.push("[deeper than recorded]".to_owned()),
        StackState::Lost => labels.push("[stack lost: the stack table was full]".to_owned()),
        StackState::None => labels.push("[no stack]".to_owned()),
    }
    if let Some((leaf, callers)) = stack.frames.split_first() {
        labels.extend(callers.iter().rev().map(FrameView::name));
        labels.push(leaf.place().map_or_else(|| leaf.name(), |place| format!("{} {place}", leaf.name())));
    }
    if labels.is_empty() {
        labels.push("[inside the allocator]".to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settings;
    use crate::model::sample::{checked_server, server, server_with_child};
    use crate::trace::ProcessIndex;

    fn flame(metric: Metric) -> Flame {
        let sample = server();
        let model = Model::of(&sample, [ProcessIndex(0)], Settings::default()).expect("a sample has no errors");
        Flame::of(&sample.contents, &model, metric)
    }

    #[test]
    fn stacks_begin_at_the_root_and_end_with_file_and_line() {
        let flame = flame(Metric::Alive);
        let cache = ["_start", "main", "cache_insert cache.cc:120"];
        let found = flame.stacks.iter().find(|stack| stack.labels == cache).expect("cache_insert keeps blocks");
        assert_eq!(found.weight, 10_000);
        assert_eq!(flame.total, 10_000 + 8_192);
    }

    #[test]
    fn every_metric_adds_up_to_its_total() {
        for &metric in Metric::ALL {
            let flame = flame(metric);
            assert_eq!(flame.total, flame.stacks.iter().map(|stack| stack.weight).sum::<u64>(), "{}", metric.name());
        }
    }

    #[test]
    fn only_a_scan_calls_bytes_leaked() {
        let unchecked = flame(Metric::Leaked);
        assert_eq!(unchecked.metric, Metric::Alive);
        assert!(unchecked.doubt.is_some_and(|doubt| doubt.starts_with("not checked for leaks: ")));
        let sample = checked_server();
        let model = Model::of(&sample, [ProcessIndex(0)], Settings::default()).expect("a sample has no errors");
        let checked = Flame::of(&sample.contents, &model, Metric::Leaked);
        assert_eq!((checked.metric, checked.total, checked.doubt), (Metric::Leaked, 4_000, None));
    }

    #[test]
    fn peaks_of_several_programs_are_not_passed_off_as_one() {
        let sample = server_with_child();
        let of = |processes: &[u32]| {
            let processes = processes.iter().copied().map(ProcessIndex);
            let model = Model::of(&sample, processes, Settings::default()).expect("a sample has no errors");
            Flame::of(&sample.contents, &model, Metric::Peak).doubt
        };
        assert!(of(&[0, 1]).is_some_and(|doubt| doubt.starts_with("each of 2 programs at its own peak")));
        assert_eq!(of(&[0]), None);
    }

    #[test]
    fn no_label_names_the_allocator_or_the_hook() {
        let flame = flame(Metric::Count);
        let labels = flame.stacks.iter().flat_map(|stack| &stack.labels);
        assert!(labels.into_iter().all(|label| !label.contains("malloc") && !label.contains("operator new")));
    }
}
