//! Budgets and the verdict on them: what a build fails on.
//!
//! A verdict has four outcomes, and *clean* is never confused with *not known*: a recording with dropped events, one
//! that was cut, or one of a program that never said anything gives [`Outcome::Indeterminate`], whatever the figures
//! say. A program that failed by itself is told apart too, because its figures are those of another run than the one
//! that was meant.
//!
//! When several hold, the first of this order decides: the program failed, indeterminate, budget exceeded, pass. The
//! budgets are shown in every case.

use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::{EndView, Summary};

/// What a recording may cost; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Budgets {
    /// Most requested bytes alive at exit.
    pub max_leaked_bytes: Option<u64>,
    /// Most blocks alive at exit.
    pub max_leaked_blocks: Option<u64>,
    /// Largest live requested bytes.
    pub max_peak_bytes: Option<u64>,
    /// Most allocations, reallocs included.
    pub max_allocations: Option<u64>,
}

impl Budgets {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Budgets::default()
    }

    fn limits_leaks(&self) -> bool {
        self.max_leaked_bytes.is_some() || self.max_leaked_blocks.is_some()
    }
}

/// What a budget limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Requested bytes alive at exit; whether something still points to them is not asked.
    AliveAtExitBytes,
    /// Blocks alive at exit, likewise.
    AliveAtExitBlocks,
    /// Largest live requested bytes.
    PeakLiveBytes,
    /// Allocations.
    Allocations,
}

/// One budget, with what was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BudgetLine {
    /// What is limited.
    pub subject: Subject,
    /// What was measured.
    pub value: u64,
    /// The most that is allowed.
    pub limit: u64,
    /// What is left of the limit; negative: by how much it is exceeded.
    pub margin: i64,
    /// Whether it is exceeded.
    pub exceeded: bool,
}

impl BudgetLine {
    fn of(subject: Subject, value: u64, limit: Option<u64>) -> Option<BudgetLine> {
        let limit = limit?;
        let distance = i64::try_from(limit.abs_diff(value)).unwrap_or(i64::MAX);
        let exceeded = value > limit;
        Some(BudgetLine { subject, value, limit, margin: if exceeded { -distance } else { distance }, exceeded })
    }
}

/// The verdict in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every budget is kept.
    Pass,
    /// At least one is not.
    BudgetExceeded,
    /// The recording does not allow a verdict.
    Indeterminate,
    /// The recorded program itself failed.
    ProgramFailed,
}

/// The verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Verdict {
    /// In a word.
    pub outcome: Outcome,
    /// Why it is not a verdict on the budgets; empty if it is.
    pub reasons: Vec<String>,
    /// Every budget that was set.
    pub budgets: Vec<BudgetLine>,
}

/// Judges a recording.
#[must_use]
pub fn check(summary: &Summary, budgets: &Budgets) -> Verdict {
    let lines: Vec<_> = [
        BudgetLine::of(Subject::AliveAtExitBytes, summary.live_at_exit_bytes, budgets.max_leaked_bytes),
        BudgetLine::of(Subject::AliveAtExitBlocks, summary.live_at_exit_blocks, budgets.max_leaked_blocks),
        BudgetLine::of(Subject::PeakLiveBytes, summary.peak_live_bytes, budgets.max_peak_bytes),
        BudgetLine::of(Subject::Allocations, summary.allocations, budgets.max_allocations),
    ]
    .into_iter()
    .flatten()
    .collect();
    let failure = failure(summary);
    let doubts = doubts(summary, budgets);
    let outcome = if failure.is_some() {
        Outcome::ProgramFailed
    } else if !doubts.is_empty() {
        Outcome::Indeterminate
    } else if lines.iter().any(|line| line.exceeded) {
        Outcome::BudgetExceeded
    } else {
        Outcome::Pass
    };
    Verdict { outcome, reasons: failure.into_iter().chain(doubts).collect(), budgets: lines }
}

fn failure(summary: &Summary) -> Option<String> {
    match summary.end? {
        EndView::Exited { status: 0 } | EndView::Replaced | EndView::Running | EndView::Vanished => None,
        EndView::Exited { status } => Some(format!("the program ended with exit status {status}")),
        EndView::Signalled { signal } => Some(format!("the program was ended by signal {signal}")),
    }
}

/// What keeps the figures from being those of the whole run.
fn doubts(summary: &Summary, budgets: &Budgets) -> Vec<String> {
    let mut doubts = Vec::new();
    if summary.processes == 0 || summary.events == 0 {
        doubts.push("nothing was recorded: the program never reported an event".to_owned());
    }
    if summary.dropped_events > 0 {
        doubts.push(format!("{} events were dropped", summary.dropped_events));
    }
    if let Some(salvage) = &summary.salvage {
        doubts.push(format!("the trace is not whole: {salvage}"));
    }
    if summary.end.is_none() {
        doubts.push("how the program ended is not in the trace".to_owned());
    }
    let running = summary.by_process.iter().filter(|process| process.end == EndView::Running).count();
    if running > 0 && budgets.limits_leaks() {
        let processes = if running == 1 { "1 process".to_owned() } else { format!("{running} processes") };
        doubts.push(format!("{processes} still ran at the end of the recording, so nothing is alive *at exit* yet"));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis;
    use crate::model::sample::{Sample, server};
    use crate::model::{Model, Settings};
    use crate::trace::{End, Loss, ProcessIndex};
    use xalloc_core::wire::LossReason;

    fn judged(sample: &Sample, budgets: Budgets) -> Verdict {
        let all = (0..sample.streams.len() as u32).map(ProcessIndex);
        let model = Model::of(sample, all, Settings::default()).expect("a sample has no errors");
        check(&analysis::summary(&sample.contents, &model), &budgets)
    }

    fn leaked_bytes(limit: u64) -> Budgets {
        Budgets { max_leaked_bytes: Some(limit), ..Budgets::default() }
    }

    #[test]
    fn a_budget_is_kept_up_to_its_last_byte() {
        let kept = judged(&server(), leaked_bytes(18_192));
        assert_eq!((kept.outcome, kept.budgets[0].margin), (Outcome::Pass, 0));
        let exceeded = judged(&server(), leaked_bytes(18_191));
        assert_eq!((exceeded.outcome, exceeded.budgets[0].margin), (Outcome::BudgetExceeded, -1));
    }

    #[test]
    fn every_budget_shows_value_limit_and_margin_though_another_is_exceeded() {
        let budgets = Budgets {
            max_leaked_bytes: Some(0),
            max_leaked_blocks: Some(100),
            max_peak_bytes: Some(1 << 20),
            max_allocations: Some(53),
        };
        let verdict = judged(&server(), budgets);
        let lines: Vec<_> = verdict.budgets.iter().map(|line| (line.value, line.margin, line.exceeded)).collect();
        assert_eq!(lines[0], (18_192, -18_192, true));
        assert_eq!(lines[1], (11, 89, false));
        assert!(!lines[2].2);
        assert_eq!(lines[3], (54, -1, true));
    }

    #[test]
    fn dropped_events_make_the_verdict_indeterminate_even_if_the_figures_fit() {
        let mut sample = server();
        sample.contents.processes[0].losses = vec![Loss { reason: LossReason::RingFull, events: 1 }];
        assert_eq!(judged(&sample, leaked_bytes(u64::MAX)).outcome, Outcome::Indeterminate);
    }

    #[test]
    fn a_cut_trace_and_an_empty_one_are_indeterminate() {
        let mut cut = server();
        cut.contents.recording.salvage = Some("the last 3 blocks are missing".to_owned());
        assert_eq!(judged(&cut, leaked_bytes(u64::MAX)).outcome, Outcome::Indeterminate);
        let mut empty = Sample::default();
        empty.contents.recording.end = Some(End::Exited(0));
        assert_eq!(judged(&empty, leaked_bytes(0)).outcome, Outcome::Indeterminate);
    }

    #[test]
    fn a_program_that_failed_is_not_judged_by_its_budgets() {
        let mut sample = server();
        for end in [End::Exited(3), End::Signalled(11)] {
            sample.contents.recording.end = Some(end);
            let verdict = judged(&sample, leaked_bytes(0));
            assert_eq!(verdict.outcome, Outcome::ProgramFailed);
            assert!(verdict.budgets[0].exceeded, "the figures are shown all the same");
        }
    }

    #[test]
    fn what_a_running_process_holds_is_no_leak_yet_but_its_peak_counts() {
        let mut sample = server();
        sample.contents.processes[0].end = End::Running;
        assert_eq!(judged(&sample, leaked_bytes(u64::MAX)).outcome, Outcome::Indeterminate);
        let peak = Budgets { max_peak_bytes: Some(u64::MAX), ..Budgets::default() };
        assert_eq!(judged(&sample, peak).outcome, Outcome::Pass);
    }
}
