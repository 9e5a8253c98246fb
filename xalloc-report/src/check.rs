//! The verdict on recordings: what a build fails on.
//!
//! Judging is apart from reading and from writing: [`RunEvidence`] is what a trace gives, [`Policy`] what is asked, and
//! [`judge()`] makes of both a [`Verdict`], from which every report is rendered.
//!
//! # Clean is never confused with not known
//! A recording with dropped events, one that was cut, one of a program that never said anything, a process whose blocks
//! no scan looked at: each makes the verdict [`Outcome::Indeterminate`], whatever the figures say. A program that
//! failed by itself is told apart too, because its figures are those of another run than the one that was meant.
//!
//! # Which outcome decides
//! Of one process its doubts come before its leaks if they touch them: with dropped events a block may look lost that
//! was freed. Over processes and recordings the worst decides: program failed, fail, indeterminate, pass. A leak that
//! was found in one process stays found, however little is known of another.
//!
//! # What needs no rule
//! A pointer that is no block, or a heap that was overwritten, breaks every check ([`Fault`]).
//!
//! # What is counted
//! Leaked is what the scan calls definite or cycle, with the indirect blocks that these hold. Where no scan looked,
//! leaked is at most what was alive at exit: a budget that even this keeps is kept.

mod baseline;
mod budgets;
mod date;
mod evidence;
mod fault;
mod fingerprint;
mod judge;
mod leak;
mod own;
mod rules;
mod suppressions;
#[cfg(test)]
mod tests;
mod verdict;

pub use baseline::{Baseline, BaselineError};
pub use budgets::{BudgetLine, Budgets, Standing, Subject, Unit};
pub use date::Date;
pub use evidence::{ProcessEvidence, RunEvidence, Selection, Wanted};
pub use fault::{Fault, FaultBlock, FaultNeighbour};
pub use leak::{Disposition, Leak, Place};
pub use own::{OwnCode, Whose};
pub use rules::{HEAP_FAULT_ID, INDETERMINATE_ID, PROGRAM_FAILED_ID, Rule};
pub use suppressions::{ProgramsOwn, SuppressionError, SuppressionUse, Suppressions, suppress};
pub use verdict::{BaselineUse, Figures, Outcome, ProcessVerdict, RuleLine, RunVerdict, Verdict};

/// What is asked of recordings.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The rules that fail a check.
    pub fail_on: Vec<Rule>,
    /// Whether a recording without any leak scan is indeterminate; otherwise only its budgets are judged.
    pub leaks_required: bool,
    /// What a run may cost.
    pub budgets: Budgets,
    /// Whose leaks count, and where they are blamed.
    pub own: OwnCode,
    /// Leaks that are not to be reported.
    pub suppressions: Suppressions,
    /// Leaks that are known.
    pub baseline: Option<Baseline>,
    /// The day by which suppressions expire.
    pub today: Date,
}

impl Policy {
    /// What of a recording's blocks has to be kept to be judged by it.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let asks = |rule| self.fail_on.contains(&rule);
        Wanted { reachable: asks(Rule::Reachable) || asks(Rule::New), growth: asks(Rule::Growth) }
    }
}

/// Judges recordings.
#[must_use]
pub fn judge(runs: Vec<RunEvidence>, policy: &Policy) -> Verdict {
    let mut policy = policy.clone();
    let own = runs.iter().flat_map(|run| run.suppressions.iter().cloned()).collect();
    let unread = policy.suppressions.add_programs(own);
    let policy = &policy;
    let mut uses = policy.suppressions.uses(policy.today);
    let mut met = policy.baseline.as_ref().map(|_| BaselineUse::default());
    let mut runs: Vec<_> = runs.into_iter().map(|run| judge::judge(run, policy, &mut uses, &mut met)).collect();
    if let Some(run) = runs.first_mut() {
        run.notes.extend(unread.iter().map(|error| format!("not used: {error}")));
    }
    let outcome = runs.iter().map(|run| run.outcome).max().unwrap_or(Outcome::Indeterminate);
    if let (Some(met), Some(baseline)) = (&mut met, &policy.baseline) {
        let is_met = |class: &str, fingerprint: &str| {
            let mut leaks = runs.iter().flat_map(|run| &run.leaks);
            leaks.any(|leak| leak.class_name() == class && leak.fingerprint == fingerprint)
        };
        let gone = baseline.leaks().filter(|(class, fingerprint, _)| !is_met(class, fingerprint));
        met.gone =
            gone.map(|(class, fingerprint, known)| format!("{class} {fingerprint} {}", known.function)).collect();
    }
    Verdict {
        outcome,
        fail_on: policy.fail_on.clone(),
        runs,
        suppressions: uses,
        foreign_suppressions: policy.suppressions.foreign,
        baseline: met,
    }
}

/// The baseline that accepts what the verdict shows: leaks that fail or are known, and the runs' figures.
#[must_use]
pub fn accepted(verdict: &Verdict) -> Baseline {
    let mut baseline = Baseline::default();
    for run in &verdict.runs {
        for leak in &run.leaks {
            match leak.disposition {
                Disposition::Fails | Disposition::Known => baseline.accept(leak),
                Disposition::Suppressed | Disposition::NotOwn | Disposition::Listed => {}
            }
        }
        for (_, name, value) in judge::growing(&run.figures) {
            baseline.keep(&run.name, name, value);
        }
    }
    baseline
}
