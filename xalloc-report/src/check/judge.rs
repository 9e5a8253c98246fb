//! From evidence and policy to the verdict on one run.

mod budgets;
mod leaks;

use super::Policy;
use super::budgets::Standing;
use super::evidence::{ProcessEvidence, RunEvidence};
use super::fault::Fault;
use super::leak::Leak;
use super::rules::Rule;
use super::suppressions::SuppressionUse;
use super::verdict::{BaselineUse, Figures, Outcome, ProcessVerdict, RuleLine, RunVerdict};
use crate::analysis::{EndView, LeakSum, SamplingView};

pub(super) use budgets::growing;
use leaks::Leaks;

/// Judges one run; what its leaks have to do with suppressions and baseline is added to `uses` and `met`.
pub(super) fn judge(
    run: RunEvidence,
    policy: &Policy,
    uses: &mut [SuppressionUse],
    met: &mut Option<BaselineUse>,
) -> RunVerdict {
    let mut leaks = Leaks::default();
    let mut sites_of = Vec::new();
    for process in &run.processes {
        let sites = process.sites.iter().map(|site| (leaks.include(process, site, policy), site));
        sites_of.push(sites.collect::<Vec<_>>());
    }
    leaks.settle(policy, uses, met);
    let with_sites = run.processes.iter().zip(&sites_of);
    let processes: Vec<_> =
        with_sites.map(|(process, sites)| verdict_on(process, leaks.failing(sites), &run, policy)).collect();
    let figures = figures(&run);
    let mut faults = Vec::new();
    for process in &run.processes {
        process.faults.iter().for_each(|fault| Fault::of(fault, &process.program, &policy.own).join(&mut faults));
    }
    let leaks = leaks.in_order();
    let doubts = run_doubts(&run, policy);
    let all_checked = !run.processes.iter().any(is_unchecked);
    let sampling = sampling(&run);
    let rules = policy.fail_on.iter().map(|&rule| rule_line(rule, &leaks, all_checked, sampling.as_ref())).collect();
    let mut notes = Vec::new();
    let budgets = budgets::lines(&run, &figures, sampling.as_ref(), &leaks, policy, &mut notes);
    let failure = failure(run.end);
    // A dropped event takes the figures' worth; a leak scan that is missing does not.
    let figures_hold = doubts.is_empty() && run.processes.iter().all(|process| process.dropped_events == 0);
    let stands = |standing| budgets.iter().any(|line| line.standing == standing);
    let any = |outcome| processes.iter().any(|process| process.outcome == outcome);
    let outcome = if failure.is_some() {
        Outcome::ProgramFailed
    } else if !faults.is_empty() || doubts.is_empty() && any(Outcome::Fail) || figures_hold && stands(Standing::Broken)
    {
        Outcome::Fail
    } else if !doubts.is_empty() || any(Outcome::Indeterminate) || stands(Standing::Unknown) {
        Outcome::Indeterminate
    } else {
        Outcome::Pass
    };
    if !policy.leaks_required && !run.scanned && run.missing.is_none() {
        notes.push(match sampling {
            Some(_) => "not checked for leaks: with --sample, what holds a block is mostly not known".to_owned(),
            None => "not checked for leaks: the recording holds no leak scan".to_owned(),
        });
    }
    let of_processes = processes.iter().flat_map(|process| {
        let name = if processes.len() > 1 { format!("{}: ", process.program) } else { String::new() };
        process.reasons.iter().map(move |reason| format!("{name}{reason}"))
    });
    let mut reasons: Vec<_> = failure.into_iter().chain(doubts).chain(of_processes).collect();
    reasons.dedup();
    let RunEvidence { name, command, .. } = run;
    RunVerdict { name, command, outcome, reasons, notes, rules, budgets, processes, faults, leaks, figures, sampling }
}

/// How the run's figures were estimated: those of its processes together. A peak is that of one process.
fn sampling(run: &RunEvidence) -> Option<SamplingView> {
    let of_processes = || run.processes.iter().filter_map(|process| Some((process.peak_live_bytes, process.sampling?)));
    let (_, of_peak) = of_processes().max_by_key(|(peak, _)| *peak)?;
    let error = |of: fn(&SamplingView) -> u64| {
        of_processes().map(|(_, sampling)| (of(&sampling) as f64).powi(2)).sum::<f64>().sqrt().ceil() as u64
    };
    Some(SamplingView {
        recorded_allocations: of_processes().map(|(_, sampling)| sampling.recorded_allocations).sum(),
        allocations_error: error(|of| of.allocations_error),
        allocated_bytes_error: error(|of| of.allocated_bytes_error),
        live_at_exit_bytes_error: error(|of| of.live_at_exit_bytes_error),
        live_at_exit_blocks_error: error(|of| of.live_at_exit_blocks_error),
        ..of_peak
    })
}

fn failure(end: Option<EndView>) -> Option<String> {
    match end? {
        EndView::Exited { status: 0 } | EndView::Replaced | EndView::Running | EndView::Vanished => None,
        EndView::Exited { status } => Some(format!("the program ended with exit status {status}")),
        EndView::Signalled { signal } => Some(format!("the program was ended by signal {signal}")),
    }
}

/// What keeps the figures from being those of the whole run.
fn run_doubts(run: &RunEvidence, policy: &Policy) -> Vec<String> {
    if let Some(why) = &run.missing {
        return vec![format!("nothing was recorded: {why}")];
    }
    let mut doubts = run.doubts.clone();
    if run.processes.iter().all(|process| process.events == 0) {
        doubts.push("nothing was recorded: the program never reported an event".to_owned());
    }
    if let Some(salvage) = &run.salvage {
        doubts.push(format!("the trace is not whole: {salvage}"));
    }
    if run.end.is_none() {
        doubts.push("how the program ended is not in the trace".to_owned());
    }
    let running = run.processes.iter().filter(|process| process.end == EndView::Running).count();
    let limits_alive = policy.budgets.max_alive_bytes.is_some() || policy.budgets.max_alive_blocks.is_some();
    if running > 0 && limits_alive {
        let processes = if running == 1 { "1 process".to_owned() } else { format!("{running} processes") };
        doubts.push(format!("{processes} still ran at the end of the recording, so nothing is alive *at exit* yet"));
    }
    doubts
}

/// Whether leaks of the process could have been missed. A process that exec replaced has nothing left; one that ended by
/// itself and left nothing has leaked nothing.
fn is_unchecked(process: &ProcessEvidence) -> bool {
    let left_nothing = match process.end {
        EndView::Replaced => true,
        // Of a sampled process nobody knows what it left.
        EndView::Exited { .. } | EndView::Vanished => process.alive.blocks == 0 && process.sampling.is_none(),
        EndView::Signalled { .. } | EndView::Running => false,
    };
    process.not_checked.is_some() && !left_nothing
}

fn verdict_on(
    process: &ProcessEvidence,
    (leaks, sum): (u64, LeakSum),
    run: &RunEvidence,
    policy: &Policy,
) -> ProcessVerdict {
    let mut reasons = Vec::new();
    if process.dropped_events > 0 {
        reasons.push(format!("{} events were dropped", process.dropped_events));
    }
    let asked = policy.leaks_required || run.scanned;
    if let Some(why) =
        process.not_checked.as_ref().filter(|_| asked && !policy.fail_on.is_empty() && is_unchecked(process))
    {
        reasons.push(format!("not checked for leaks: {why}"));
    }
    let outcome = match (leaks, process.dropped_events, reasons.is_empty()) {
        _ if !process.faults.is_empty() => Outcome::Fail,
        (1.., 0, _) => Outcome::Fail,
        (_, _, false) => Outcome::Indeterminate,
        (_, _, true) => Outcome::Pass,
    };
    ProcessVerdict {
        number: process.number,
        program: process.program.clone(),
        command: process.command.clone(),
        end: process.end,
        outcome,
        reasons,
        checked: process.not_checked.is_none(),
        not_checked_reason: process.not_checked.clone(),
        faults: process.faults.len() as u64,
        leaks,
        bytes: sum.bytes,
        blocks: sum.blocks,
    }
}

fn rule_line(rule: Rule, leaks: &[Leak], all_checked: bool, sampling: Option<&SamplingView>) -> RuleLine {
    let breaking = || leaks.iter().filter(|leak| leak.breaks.contains(&rule));
    let needs_scan = match rule {
        Rule::Definite | Rule::Cycle | Rule::Possible | Rule::Reachable | Rule::New => true,
        // A few recorded blocks rise and fall by chance.
        Rule::Growth => sampling.is_some(),
    };
    let standing = match breaking().next() {
        Some(_) => Standing::Broken,
        None if needs_scan && !all_checked => Standing::Unknown,
        None => Standing::Kept,
    };
    RuleLine {
        rule,
        standing,
        leaks: breaking().count() as u64,
        bytes: breaking().fold(0, |sum, leak| sum.saturating_add(leak.whole_bytes())),
        blocks: breaking().fold(0, |sum, leak| sum.saturating_add(leak.whole_blocks())),
    }
}

fn figures(run: &RunEvidence) -> Figures {
    let mut figures = Figures::default();
    for process in &run.processes {
        figures.allocations = figures.allocations.saturating_add(process.allocations);
        figures.temporary_allocations = figures.temporary_allocations.saturating_add(process.temporary);
        figures.frees = figures.frees.saturating_add(process.frees);
        figures.allocated_bytes = figures.allocated_bytes.saturating_add(process.allocated_bytes);
        figures.peak_live_bytes = figures.peak_live_bytes.max(process.peak_live_bytes);
        figures.alive_at_exit.add(process.alive.bytes, process.alive.blocks);
        figures.classes.absorb(&process.totals);
    }
    figures
}
