//! What a run's figures are against its budgets.

use super::super::Policy;
use super::super::budgets::{BudgetLine, Subject, growth, share};
use super::super::evidence::RunEvidence;
use super::super::leak::{Disposition, Leak};
use super::super::verdict::Figures;
use super::is_unchecked;
use crate::analysis::{LeakSum, SamplingView};
use crate::trace::LeakClass;

/// Every budget that was set, with its value; what cannot be judged becomes a note.
pub(super) fn lines(
    run: &RunEvidence,
    figures: &Figures,
    sampling: Option<&SamplingView>,
    leaks: &[Leak],
    policy: &Policy,
    notes: &mut Vec<String>,
) -> Vec<BudgetLine> {
    let budgets = &policy.budgets;
    let counted = || {
        leaks.iter().filter(|leak| leak.class.is_some_and(LeakClass::is_leaked)).filter(|leak| match leak.disposition {
            Disposition::Suppressed | Disposition::NotOwn => false,
            Disposition::Fails | Disposition::Known | Disposition::Listed => true,
        })
    };
    // What is alive bounds what is leaked, where no scan looked.
    let mut unchecked = LeakSum::default();
    for process in run.processes.iter().filter(|process| is_unchecked(process)) {
        unchecked.add(process.alive.bytes, process.alive.blocks);
    }
    if sampling.is_some() {
        // An estimate bounds nothing.
        unchecked = LeakSum { bytes: u64::MAX, blocks: u64::MAX };
    }
    let leaked = |subject, values: &mut dyn Iterator<Item = u64>, unchecked: u64, limit: Option<u64>| {
        let value = if subject == Subject::LeakedBytesPerStack {
            values.max().unwrap_or_default()
        } else {
            values.fold(0, u64::saturating_add)
        };
        limit.map(|limit| BudgetLine::between(subject, value, value.saturating_add(unchecked), limit))
    };
    let line = |subject, value, limit: Option<u64>| {
        Some(match (sampling, limit?) {
            (None, limit) => BudgetLine::of(subject, value, limit),
            (Some(sampling), limit) => match error_of(subject, sampling) {
                Some(error) => BudgetLine::estimated(subject, value, error, sampling.unseen_bytes(), limit),
                None => BudgetLine::estimated_share(subject, value, limit),
            },
        })
    };
    let bytes = || counted().map(Leak::whole_bytes);
    let alive = figures.alive_at_exit;
    let temporary = run.processes.iter().map(|process| share(process.temporary, process.allocations)).max();
    let mut lines: Vec<_> = [
        leaked(Subject::LeakedBytes, &mut bytes(), unchecked.bytes, budgets.max_leaked_bytes),
        leaked(
            Subject::LeakedBlocks,
            &mut counted().map(Leak::whole_blocks),
            unchecked.blocks,
            budgets.max_leaked_blocks,
        ),
        leaked(Subject::LeakedBytesPerStack, &mut bytes(), unchecked.bytes, budgets.max_leaked_bytes_per_stack),
        line(Subject::AliveAtExitBytes, alive.bytes, budgets.max_alive_bytes),
        line(Subject::AliveAtExitBlocks, alive.blocks, budgets.max_alive_blocks),
        line(Subject::PeakLiveBytes, figures.peak_live_bytes, budgets.max_peak_bytes),
        line(Subject::Allocations, figures.allocations, budgets.max_allocations),
        line(Subject::TemporaryShare, temporary.unwrap_or_default(), budgets.max_temporary),
    ]
    .into_iter()
    .flatten()
    .collect();
    if sampling.is_some() && budgets.max_temporary.is_some() {
        notes.push(
            "the share of temporary allocations is not judged: how far off an estimated share is is not known".into(),
        );
    }
    if let (Some(limit), Some(baseline)) = (budgets.max_growth, &policy.baseline) {
        for (subject, name, value) in growing(figures) {
            match baseline.figure(&run.name, name) {
                Some(was) => {
                    // What a figure may be off by, its growth may be off by as a share of what it was.
                    let of_was = |doubt: u64| growth(was, was.saturating_add(doubt));
                    let grown = growth(was, value);
                    let doubt =
                        sampling.and_then(|sampling| Some((error_of(subject, sampling)?, sampling.unseen_bytes())));
                    lines.push(match doubt {
                        None => BudgetLine::of(subject, grown, limit),
                        Some((error, unseen)) => {
                            BudgetLine::estimated(subject, grown, of_was(error), of_was(unseen), limit)
                        }
                    });
                }
                None => notes.push(format!("the baseline has no {name} of {}, so its growth is not judged", run.name)),
            }
        }
    }
    lines
}

/// Standard error of the figure that a budget limits, or whose growth it limits. Of a share, and of what only a scan
/// finds, it is not known.
fn error_of(subject: Subject, sampling: &SamplingView) -> Option<u64> {
    Some(match subject {
        Subject::AliveAtExitBytes | Subject::AliveAtExitBytesGrowth => sampling.live_at_exit_bytes_error,
        Subject::AliveAtExitBlocks => sampling.live_at_exit_blocks_error,
        Subject::PeakLiveBytes | Subject::PeakLiveBytesGrowth => sampling.peak_live_bytes_error,
        Subject::Allocations | Subject::AllocationsGrowth => sampling.allocations_error,
        Subject::TemporaryShare | Subject::LeakedBytes | Subject::LeakedBlocks | Subject::LeakedBytesPerStack => {
            return None;
        }
    })
}

/// The figures whose growth is measured, with their names in a baseline.
pub(in crate::check) fn growing(figures: &Figures) -> [(Subject, &'static str, u64); 3] {
    [
        (Subject::PeakLiveBytesGrowth, "peak_live_bytes", figures.peak_live_bytes),
        (Subject::AllocationsGrowth, "allocations", figures.allocations),
        (Subject::AliveAtExitBytesGrowth, "alive_at_exit_bytes", figures.alive_at_exit.bytes),
    ]
}
