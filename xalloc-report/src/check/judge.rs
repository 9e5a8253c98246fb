//! From evidence and policy to the verdict on one run.

use std::collections::BTreeMap;

use super::Policy;
use super::budgets::{BudgetLine, Standing, Subject, growth, share};
use super::evidence::{ProcessEvidence, RunEvidence, Site};
use super::fingerprint::fingerprint;
use super::leak::{Disposition, Leak};
use super::rules::Rule;
use super::suppressions::SuppressionUse;
use super::verdict::{BaselineUse, Figures, Outcome, ProcessVerdict, RuleLine, RunVerdict};
use crate::analysis::{EndView, HintView, LeakSum};
use crate::trace::{Disguise, LeakClass};

/// What makes two sites one leak: class, fingerprint, and whether a suppression or the own-code filter takes them out.
type Key = (Option<LeakClass>, String, Option<usize>, bool);

/// Leaks that are being put together, with the bytes of the site that is shown.
type Leaks = BTreeMap<Key, (Leak, u64)>;

/// Judges one run; what its leaks have to do with suppressions and baseline is added to `uses` and `met`.
pub(super) fn judge(
    run: RunEvidence,
    policy: &Policy,
    uses: &mut [SuppressionUse],
    met: &mut Option<BaselineUse>,
) -> RunVerdict {
    let mut leaks = Leaks::new();
    let mut keys = Vec::new();
    for process in &run.processes {
        keys.push(
            process.sites.iter().map(|site| (include(&mut leaks, process, site, policy), site)).collect::<Vec<_>>(),
        );
    }
    for ((_, _, suppression, own), (leak, _)) in &mut leaks {
        settle(leak, *suppression, *own, policy, uses, met);
    }
    let processes: Vec<_> = run
        .processes
        .iter()
        .zip(&keys)
        .map(|(process, keys)| {
            let failing =
                keys.iter().filter(|(key, _)| leaks.get(key).is_some_and(|(leak, _)| !leak.breaks.is_empty()));
            let mut found: Vec<_> = failing.collect();
            let sum = found.iter().fold(LeakSum::default(), |sum, (_, site)| LeakSum {
                bytes: sum.bytes.saturating_add(site.found.bytes),
                blocks: sum.blocks.saturating_add(site.found.blocks),
            });
            found.dedup_by(|a, b| a.0 == b.0);
            verdict_on(process, found.len() as u64, sum, &run, policy)
        })
        .collect();
    let figures = figures(&run);
    let leaks = in_order(leaks);
    let doubts = run_doubts(&run, policy);
    let all_checked = processes.iter().all(|process| !is_due(&run, process.number));
    let rules = policy.fail_on.iter().map(|&rule| rule_line(rule, &leaks, all_checked)).collect();
    let mut notes = Vec::new();
    let budgets = budgets(&run, &figures, &leaks, policy, &mut notes);
    let failure = failure(run.end);
    // A dropped event takes the figures' worth; a leak scan that is missing does not.
    let figures_hold = doubts.is_empty() && run.processes.iter().all(|process| process.dropped_events == 0);
    let stands = |standing| budgets.iter().any(|line| line.standing == standing);
    let any = |outcome| processes.iter().any(|process| process.outcome == outcome);
    let outcome = if failure.is_some() {
        Outcome::ProgramFailed
    } else if doubts.is_empty() && any(Outcome::Fail) || figures_hold && stands(Standing::Broken) {
        Outcome::Fail
    } else if !doubts.is_empty() || any(Outcome::Indeterminate) || stands(Standing::Unknown) {
        Outcome::Indeterminate
    } else {
        Outcome::Pass
    };
    if !policy.leaks_required && !run.scanned && run.missing.is_none() {
        notes.push("not checked for leaks: the recording holds no leak scan".to_owned());
    }
    let of_processes = processes.iter().flat_map(|process| {
        let name = if processes.len() > 1 { format!("{}: ", process.program) } else { String::new() };
        process.reasons.iter().map(move |reason| format!("{name}{reason}"))
    });
    let mut reasons: Vec<_> = failure.into_iter().chain(doubts).chain(of_processes).collect();
    reasons.dedup();
    let RunEvidence { name, command, .. } = run;
    RunVerdict { name, command, outcome, reasons, notes, rules, budgets, processes, leaks, figures }
}

/// Adds a site to its leak and returns which that is.
fn include(leaks: &mut Leaks, process: &ProcessEvidence, site: &Site, policy: &Policy) -> Key {
    let Site { found, growth_bytes_per_s } = site;
    let blamed = policy.own.blamed(&found.at);
    let own = policy.own.counts(&found.at);
    let suppression = policy.suppressions.matching(found.class, &found.at, &process.program, policy.today);
    let key = (found.class, fingerprint(found.class, &found.at, blamed), suppression, own);
    let (leak, shown_bytes) = leaks.entry(key.clone()).or_insert_with(|| (empty(&key), 0));
    leak.stacks += u64::from(found.blocks > 0);
    leak.bytes = leak.bytes.saturating_add(found.bytes);
    leak.blocks = leak.blocks.saturating_add(found.blocks);
    leak.holds.bytes = leak.holds.bytes.saturating_add(found.holds.bytes);
    leak.holds.blocks = leak.holds.blocks.saturating_add(found.holds.blocks);
    leak.growth_bytes_per_s = leak.growth_bytes_per_s.max(*growth_bytes_per_s);
    if leak.hint.is_none() {
        leak.hint = found.hint.as_ref().map(in_words);
    }
    if let Err(place) = leak.programs.binary_search(&process.program) {
        leak.programs.insert(place, process.program.clone());
    }
    // Ties go to the frames that come first, so that the order of the processes does not show.
    let frames = Leak::places(&found.at, &policy.own);
    if found.bytes > *shown_bytes || leak.frames.is_empty() || (found.bytes == *shown_bytes && frames < leak.frames) {
        *shown_bytes = found.bytes;
        leak.frames = frames;
        leak.call.clone_from(&found.at.call);
        leak.stack = found.at.stack;
        leak.blamed = blamed.map(|place| place as u32);
    }
    key
}

fn empty((class, fingerprint, ..): &Key) -> Leak {
    Leak {
        class: *class,
        fingerprint: fingerprint.clone(),
        disposition: Disposition::Listed,
        breaks: Vec::new(),
        bytes: 0,
        blocks: 0,
        holds: LeakSum::default(),
        growth_bytes_per_s: None,
        baseline: None,
        suppressed_by: None,
        programs: Vec::new(),
        stacks: 0,
        call: String::new(),
        stack: crate::analysis::StackState::None,
        blamed: None,
        frames: Vec::new(),
        hint: None,
    }
}

fn in_words(hint: &HintView) -> String {
    let pointer = match hint.disguise {
        Disguise::Unaligned => "an unaligned pointer to it",
        Disguise::OnePastEnd => "a pointer just behind it",
        Disguise::TopTagged => "a pointer to it with a tag in its upper 16 bits",
        Disguise::Shifted => "a shifted pointer to it",
    };
    format!("{pointer} exists")
}

/// Decides what a leak breaks.
fn settle(
    leak: &mut Leak,
    suppression: Option<usize>,
    own: bool,
    policy: &Policy,
    uses: &mut [SuppressionUse],
    met: &mut Option<BaselineUse>,
) {
    if let Some(entry) = suppression.and_then(|number| uses.get_mut(number)) {
        entry.blocks = entry.blocks.saturating_add(leak.whole_blocks());
        entry.bytes = entry.bytes.saturating_add(leak.whole_bytes());
        leak.suppressed_by = Some(format!("{} ({}:{})", entry.name, entry.file, entry.line));
        leak.disposition = Disposition::Suppressed;
        return;
    }
    if !own {
        leak.disposition = Disposition::NotOwn;
        return;
    }
    let asked = |rule: &Rule| policy.fail_on.contains(rule);
    let known = policy.baseline.as_ref().and_then(|baseline| baseline.known(leak.class, &leak.fingerprint));
    leak.baseline = known.map(|known| LeakSum { bytes: known.bytes, blocks: known.blocks });
    let grown = known.is_some_and(|known| leak.whole_bytes() > known.bytes || leak.whole_blocks() > known.blocks);
    let accepted = known.is_some() && !grown;
    let of_class = leak.class.and_then(Rule::of);
    if !accepted {
        leak.breaks.extend(of_class.filter(asked));
        leak.breaks.extend(leak.growth_bytes_per_s.map(|_| Rule::Growth).filter(asked));
        let unknown = policy.baseline.is_some() && known.is_none() && of_class.is_some();
        leak.breaks.extend(unknown.then_some(Rule::New).filter(asked));
    }
    leak.disposition = match (leak.breaks.is_empty(), accepted) {
        (false, _) => Disposition::Fails,
        (true, true) => Disposition::Known,
        (true, false) => Disposition::Listed,
    };
    if let Some(met) = met {
        met.known += u64::from(accepted);
        met.grown += u64::from(grown);
        met.missing += u64::from(known.is_none() && !leak.breaks.is_empty());
    }
}

fn in_order(leaks: Leaks) -> Vec<Leak> {
    let mut leaks: Vec<_> = leaks.into_values().map(|(leak, _)| leak).collect();
    leaks.sort_by(|a, b| {
        let rank = |leak: &Leak| (leak.disposition, std::cmp::Reverse((leak.whole_bytes(), leak.whole_blocks())));
        (rank(a), a.class, &a.frames, &a.fingerprint).cmp(&(rank(b), b.class, &b.frames, &b.fingerprint))
    });
    leaks
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

/// Whether leaks of the process could have been missed.
fn is_due(run: &RunEvidence, number: u32) -> bool {
    run.processes.iter().any(|process| process.number == number && is_unchecked(process))
}

/// A process that exec replaced has nothing left; one that ended by itself and left nothing has leaked nothing.
fn is_unchecked(process: &ProcessEvidence) -> bool {
    let left_nothing = match process.end {
        EndView::Replaced => true,
        EndView::Exited { .. } | EndView::Vanished => process.alive.blocks == 0,
        EndView::Signalled { .. } | EndView::Running => false,
    };
    process.not_checked.is_some() && !left_nothing
}

fn verdict_on(
    process: &ProcessEvidence,
    leaks: u64,
    sum: LeakSum,
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
        leaks,
        bytes: sum.bytes,
        blocks: sum.blocks,
    }
}

fn rule_line(rule: Rule, leaks: &[Leak], all_checked: bool) -> RuleLine {
    let breaking = || leaks.iter().filter(|leak| leak.breaks.contains(&rule));
    let needs_scan = match rule {
        Rule::Definite | Rule::Cycle | Rule::Possible | Rule::Reachable | Rule::New => true,
        Rule::Growth => false,
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

fn budgets(
    run: &RunEvidence,
    figures: &Figures,
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
    let leaked = |subject, values: &mut dyn Iterator<Item = u64>, unchecked: u64, limit: Option<u64>| {
        let value = if subject == Subject::LeakedBytesPerStack {
            values.max().unwrap_or_default()
        } else {
            values.fold(0, u64::saturating_add)
        };
        limit.map(|limit| BudgetLine::between(subject, value, value.saturating_add(unchecked), limit))
    };
    let line = |subject, value, limit: Option<u64>| limit.map(|limit| BudgetLine::of(subject, value, limit));
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
    if let (Some(limit), Some(baseline)) = (budgets.max_growth, &policy.baseline) {
        for (subject, name, value) in growing(figures) {
            match baseline.figure(&run.name, name) {
                Some(was) => lines.push(BudgetLine::of(subject, growth(was, value), limit)),
                None => notes.push(format!("the baseline has no {name} of {}, so its growth is not judged", run.name)),
            }
        }
    }
    lines
}

/// The figures whose growth is measured, with their names in a baseline.
pub(super) fn growing(figures: &Figures) -> [(Subject, &'static str, u64); 3] {
    [
        (Subject::PeakLiveBytesGrowth, "peak_live_bytes", figures.peak_live_bytes),
        (Subject::AllocationsGrowth, "allocations", figures.allocations),
        (Subject::AliveAtExitBytesGrowth, "alive_at_exit_bytes", figures.alive_at_exit.bytes),
    ]
}
