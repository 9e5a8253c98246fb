//! The verdict: what reports are made of.

use schemars::JsonSchema;
use serde::Serialize;

use super::budgets::{BudgetLine, Standing};
use super::fault::Fault;
use super::leak::Leak;
use super::rules::Rule;
use super::suppressions::SuppressionUse;
use crate::analysis::{EndView, LeakSum, LeakTotals, SamplingView};

/// A verdict in a word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every rule and every budget is kept.
    Pass,
    /// The recording does not allow a verdict.
    Indeterminate,
    /// At least one rule or budget is broken.
    Fail,
    /// The recorded program itself failed.
    ProgramFailed,
}

/// The verdict on all recordings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Verdict {
    /// The worst of the recordings' outcomes: program failed, fail, indeterminate, pass.
    pub outcome: Outcome,
    /// The rules that were asked for.
    pub fail_on: Vec<Rule>,
    /// Each recording.
    pub runs: Vec<RunVerdict>,
    /// Each suppression, used or not.
    pub suppressions: Vec<SuppressionUse>,
    /// Entries of suppression files that are about other errors than leaks.
    pub foreign_suppressions: u64,
    /// How the leaks compare with the baseline; `null` without one.
    pub baseline: Option<BaselineUse>,
}

/// The verdict on one recording: a command with its children.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct RunVerdict {
    /// File name of the command's program.
    pub name: String,
    /// The command line.
    pub command: Vec<String>,
    /// In a word.
    pub outcome: Outcome,
    /// Why it is no verdict on rules and budgets; empty if it is.
    pub reasons: Vec<String>,
    /// What else a reader has to know.
    pub notes: Vec<String>,
    /// Every rule that was asked for.
    pub rules: Vec<RuleLine>,
    /// Every budget that was set.
    pub budgets: Vec<BudgetLine>,
    /// Every process that was looked at, by program and command line.
    pub processes: Vec<ProcessVerdict>,
    /// What the programs did wrong with their heaps.
    pub faults: Vec<Fault>,
    /// Leaks by disposition, then most bytes first.
    pub leaks: Vec<Leak>,
    /// What the run took.
    pub figures: Figures,
    /// How these figures were estimated, where only some allocations were recorded; else `null`.
    pub sampling: Option<SamplingView>,
}

/// What a run took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct Figures {
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Temporary allocations.
    pub temporary_allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Requested bytes of all allocations.
    pub allocated_bytes: u64,
    /// Largest live requested bytes of a process.
    pub peak_live_bytes: u64,
    /// What was alive at the processes' ends.
    pub alive_at_exit: LeakSum,
    /// The classes, over all processes that were checked; suppressed leaks are among them.
    pub classes: LeakTotals,
}

/// One rule, and the leaks that break it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct RuleLine {
    /// Which rule.
    pub rule: Rule,
    /// Whether it is kept; unknown if nothing breaks it and not every process was checked.
    pub standing: Standing,
    /// Leaks that break it.
    pub leaks: u64,
    /// Requested bytes of these.
    pub bytes: u64,
    /// Their blocks.
    pub blocks: u64,
}

/// The verdict on one process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ProcessVerdict {
    /// Its number in the recording, from 0; not in reports, because children that run together are numbered as they
    /// come.
    #[serde(skip)]
    pub number: u32,
    /// File name of its program.
    pub program: String,
    /// Its command line.
    pub command: Vec<String>,
    /// How it ended.
    pub end: EndView,
    /// In a word; a process never has `program_failed`, because a child may fail on purpose.
    pub outcome: Outcome,
    /// Why it is no verdict; empty if it is.
    pub reasons: Vec<String>,
    /// Whether its blocks have classes.
    pub checked: bool,
    /// Why not; `null` if they have.
    pub not_checked_reason: Option<String>,
    /// Faults of it that are told.
    pub faults: u64,
    /// Leaks of it that break a rule.
    pub leaks: u64,
    /// Requested bytes of these.
    pub bytes: u64,
    /// Their blocks.
    pub blocks: u64,
}

/// How the leaks compare with the baseline.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct BaselineUse {
    /// Leaks that it knows.
    pub known: u64,
    /// Leaks that it does not know.
    pub missing: u64,
    /// Leaks that have more bytes or blocks than it says.
    pub grown: u64,
    /// Its entries that were not met, as `class fingerprint function`: mended, or not run.
    pub gone: Vec<String>,
}

impl Verdict {
    /// Leaks that break a rule, with their runs, most bytes first.
    #[must_use]
    pub fn failing(&self) -> Vec<(&RunVerdict, &Leak)> {
        let mut failing: Vec<_> = self.runs.iter().flat_map(|run| run.failing().map(move |leak| (run, leak))).collect();
        // Stable: of equals, the runs' order.
        failing.sort_by_key(|(_, leak)| std::cmp::Reverse((leak.whole_bytes(), leak.whole_blocks())));
        failing
    }

    /// Whether nothing that was asked for is broken or unknown.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.outcome == Outcome::Pass
    }
}

impl RunVerdict {
    /// Leaks that break a rule, most bytes first.
    pub fn failing(&self) -> impl Iterator<Item = &Leak> {
        self.leaks.iter().filter(|leak| !leak.breaks.is_empty())
    }

    /// The command line as a shell would take it.
    #[must_use]
    pub fn command_line(&self) -> String {
        self.command.join(" ")
    }
}
