//! Verdicts on hand-made recordings.

use std::path::PathBuf;

use super::*;
use crate::analysis::Pattern;
use crate::model::sample::{Sample, Stream, checked_server, server, server_with_child};
use crate::trace::{
    Checked, End, Event, Finding, LeakClass, LiveChange, Loss, Occasion, ProcessIndex, Scan, ScanOutcome, StackIndex,
};
use xalloc_core::wire::{Call, FaultKind, LossReason};

fn usual() -> Policy {
    Policy {
        fail_on: Rule::USUAL.to_vec(),
        leaks_required: true,
        budgets: Budgets::default(),
        own: OwnCode::of(&[], Some("/srv/app".into())),
        suppressions: Suppressions::default(),
        baseline: None,
        today: "2026-11-22".parse().expect("a date"),
    }
}

fn budgets(budgets: Budgets) -> Policy {
    Policy { fail_on: Vec::new(), leaks_required: false, budgets, ..usual() }
}

fn evidence(sample: &Sample, policy: &Policy) -> RunEvidence {
    let all: Vec<_> = (0..sample.streams.len() as u32).map(ProcessIndex).collect();
    let Ok(run) = RunEvidence::of(sample, &all, &Selection::default(), policy.wanted());
    run
}

fn judged(sample: &Sample, policy: &Policy) -> Verdict {
    judge(vec![evidence(sample, policy)], policy)
}

fn outcome(sample: &Sample, policy: &Policy) -> Outcome {
    judged(sample, policy).outcome
}

fn only_leak(verdict: &Verdict) -> &Leak {
    let [run] = &verdict.runs[..] else { panic!("one run") };
    let failing: Vec<_> = run.failing().collect();
    let [leak] = failing[..] else { panic!("{} leaks fail", failing.len()) };
    leak
}

/// A process that ended well and was found clean.
fn add_process(sample: &mut Sample, exe: &str, outcome: ScanOutcome) -> usize {
    let stack = sample.streams[0].entries[2].stack;
    let mut stream = Stream::default();
    stream.alloc(0, stack, 10);
    let process = sample.process(5_000, exe, &["worker"], stream);
    sample.contents.scans.push(Scan { process, at_ns: 1, occasion: Occasion::Exit, outcome });
    process.0 as usize
}

fn clean() -> ScanOutcome {
    ScanOutcome::Checked(Checked::default())
}

#[test]
fn a_definite_leak_fails_and_is_blamed_on_its_function() {
    let verdict = judged(&checked_server(), &usual());
    assert_eq!(verdict.outcome, Outcome::Fail);
    let leak = only_leak(&verdict);
    assert_eq!((leak.class, leak.bytes, leak.blocks), (Some(LeakClass::Definite), 4_000, 4));
    assert_eq!((leak.function().as_str(), &leak.breaks[..]), ("cache_insert", &[Rule::Definite][..]));
    assert_eq!(leak.place().and_then(Place::source).as_deref(), Some("src/cache.cc:120"));
}

#[test]
fn reachable_blocks_fail_only_when_that_is_asked_for() {
    let asked = Policy { fail_on: vec![Rule::Reachable], ..usual() };
    let verdict = judged(&checked_server(), &asked);
    assert_eq!(only_leak(&verdict).class, Some(LeakClass::Reachable));
    let possible = Policy { fail_on: vec![Rule::Possible], ..usual() };
    assert_eq!(outcome(&checked_server(), &possible), Outcome::Pass);
}

#[test]
fn without_a_scan_leaks_are_not_known_and_budgets_are_judged_all_the_same() {
    assert_eq!(outcome(&server(), &usual()), Outcome::Indeterminate);
    let limit = |limit| Budgets { max_peak_bytes: Some(limit), ..Budgets::default() };
    let policy = |limit_bytes| Policy { leaks_required: false, budgets: limit(limit_bytes), ..usual() };
    let kept = judged(&server(), &policy(u64::MAX));
    assert_eq!(kept.outcome, Outcome::Pass);
    assert!(kept.runs[0].notes[0].starts_with("not checked for leaks"), "{:?}", kept.runs[0].notes);
    assert_eq!(outcome(&server(), &policy(1)), Outcome::Fail);
}

#[test]
fn a_scan_that_failed_is_indeterminate_even_if_only_budgets_were_asked_for() {
    let mut sample = checked_server();
    sample.contents.scans[0].outcome = ScanOutcome::NotChecked { reason: "it was stopped by a fault".to_owned() };
    let policy = Policy {
        leaks_required: false,
        budgets: Budgets { max_peak_bytes: Some(u64::MAX), ..Budgets::default() },
        ..usual()
    };
    let verdict = judged(&sample, &policy);
    assert_eq!(verdict.outcome, Outcome::Indeterminate);
    assert_eq!(verdict.runs[0].reasons, ["not checked for leaks: it was stopped by a fault"]);
}

#[test]
fn what_the_heap_noticed_fails_a_check_behind_any_number_of_doubtful_faults_of_a_recording_with_gaps() {
    let mut sample = checked_server();
    sample.contents.scans[0].outcome = clean();
    sample.contents.processes[0].losses = vec![Loss { reason: LossReason::RingFull, events: 1 }];
    let stream = &mut sample.streams[0];
    let freed = stream.entries.iter().rev().find_map(|entry| match entry.event.live_change() {
        Some(LiveChange::Ends { block, .. }) => Some(block.addr),
        _ => None,
    });
    let addr = freed.expect("the server frees");
    (0..20).for_each(|_| stream.push(0, StackIndex::NONE, Event::FreeUnknown { addr }));
    assert_eq!(outcome(&sample, &usual()), Outcome::Indeterminate);
    sample.streams[0].push(0, StackIndex::NONE, Event::Fault { addr, kind: FaultKind::DoubleFree });
    assert_eq!(outcome(&sample, &usual()), Outcome::Fail);
}

#[test]
fn what_was_alive_bounds_what_is_leaked() {
    let leaked = |limit| budgets(Budgets { max_leaked_bytes: Some(limit), ..Budgets::default() });
    assert_eq!(outcome(&server(), &leaked(18_192)), Outcome::Pass);
    assert_eq!(outcome(&server(), &leaked(18_191)), Outcome::Indeterminate);
    assert_eq!(outcome(&checked_server(), &leaked(4_000)), Outcome::Pass);
    assert_eq!(outcome(&checked_server(), &leaked(3_999)), Outcome::Fail);
}

#[test]
fn every_budget_shows_value_limit_and_margin_though_another_is_exceeded() {
    let verdict = judged(
        &checked_server(),
        &budgets(Budgets {
            max_leaked_bytes: Some(0),
            max_leaked_blocks: Some(4),
            max_leaked_bytes_per_stack: Some(5_000),
            max_alive_bytes: Some(18_191),
            max_alive_blocks: Some(100),
            max_peak_bytes: Some(1 << 20),
            max_allocations: Some(53),
            max_temporary: Some(7_592),
            max_growth: None,
        }),
    );
    let lines = verdict.runs[0].budgets.iter().map(|line| (line.value, line.margin, line.standing));
    let expected = [
        (4_000, -4_000, Standing::Broken),
        (4, 0, Standing::Kept),
        (4_000, 1_000, Standing::Kept),
        (18_192, -1, Standing::Broken),
        (11, 89, Standing::Kept),
        (48_912, 999_664, Standing::Kept),
        (54, -1, Standing::Broken),
        (7_592, 0, Standing::Kept),
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[test]
fn dropped_events_make_the_verdict_indeterminate_whatever_the_figures_say() {
    let mut sample = checked_server();
    sample.contents.processes[0].losses = vec![Loss { reason: LossReason::RingFull, events: 1 }];
    for policy in [usual(), budgets(Budgets { max_alive_bytes: Some(0), ..Budgets::default() })] {
        assert_eq!(outcome(&sample, &policy), Outcome::Indeterminate);
    }
}

#[test]
fn a_cut_trace_an_empty_one_and_one_without_an_end_are_indeterminate() {
    let mut cut = checked_server();
    cut.contents.recording.salvage = Some("the last 3 blocks are missing".to_owned());
    let mut empty = Sample::default();
    empty.contents.recording.end = Some(End::Exited(0));
    let mut endless = checked_server();
    endless.contents.recording.end = None;
    for sample in [cut, empty, endless] {
        assert_eq!(outcome(&sample, &usual()), Outcome::Indeterminate);
    }
    let missing = RunEvidence::missing(vec!["./app".to_owned()], Some("it is statically linked".to_owned()));
    let verdict = judge(vec![missing], &usual());
    assert_eq!(verdict.outcome, Outcome::Indeterminate);
    assert_eq!(verdict.runs[0].reasons, ["nothing was recorded: it is statically linked"]);
}

#[test]
fn a_program_that_failed_is_not_judged_by_its_leaks() {
    let mut sample = checked_server();
    for end in [End::Exited(3), End::Signalled(11)] {
        sample.contents.recording.end = Some(end);
        let verdict = judged(&sample, &usual());
        assert_eq!(verdict.outcome, Outcome::ProgramFailed);
        assert_eq!(verdict.failing().len(), 1, "the leak is shown all the same");
    }
}

#[test]
fn a_leak_in_one_process_outweighs_what_is_not_known_of_another() {
    let mut sample = checked_server();
    let child = add_process(&mut sample, "/srv/app/child", clean());
    assert_eq!(outcome(&sample, &usual()), Outcome::Fail);
    sample.contents.scans.truncate(1);
    sample.contents.processes[child].end = End::Signalled(9);
    let verdict = judged(&sample, &usual());
    assert_eq!(verdict.outcome, Outcome::Fail);
    let processes = verdict.runs[0].processes.iter().map(|process| (process.program.as_str(), process.outcome));
    assert_eq!(processes.collect::<Vec<_>>(), [("child", Outcome::Indeterminate), ("server", Outcome::Fail)]);
    assert_eq!(verdict.runs[0].reasons, ["child: not checked for leaks: ended by signal 9"]);
}

#[test]
fn a_child_that_was_killed_makes_a_clean_run_indeterminate_unless_it_is_left_out() {
    let mut sample = checked_server();
    sample.contents.scans[0].outcome = clean();
    let child = add_process(&mut sample, "/srv/app/child", clean());
    sample.contents.scans.truncate(1);
    sample.contents.processes[child].end = End::Signalled(9);
    assert_eq!(outcome(&sample, &usual()), Outcome::Indeterminate);
    let selection = Selection { only: Vec::new(), skip: vec![Pattern::whole("ch*")] };
    let policy = usual();
    let Ok(run) = RunEvidence::of(&sample, &[ProcessIndex(0), ProcessIndex(1)], &selection, policy.wanted());
    assert_eq!(judge(vec![run], &policy).outcome, Outcome::Pass);
    // What exec replaced has nothing left to check.
    sample.contents.processes[child].end = End::Replaced;
    assert_eq!(outcome(&sample, &usual()), Outcome::Pass);
}

#[test]
fn what_a_running_process_holds_is_not_alive_at_exit_yet_but_its_peak_counts() {
    let mut sample = server();
    sample.contents.processes[0].end = End::Running;
    let alive = budgets(Budgets { max_alive_bytes: Some(u64::MAX), ..Budgets::default() });
    assert_eq!(outcome(&sample, &alive), Outcome::Indeterminate);
    let peak = budgets(Budgets { max_peak_bytes: Some(u64::MAX), ..Budgets::default() });
    assert_eq!(outcome(&sample, &peak), Outcome::Pass);
}

#[test]
fn a_suppressed_leak_passes_and_its_bytes_are_counted_with_the_suppression() {
    let mut policy = usual();
    policy.budgets.max_leaked_bytes = Some(0);
    policy.suppressions.read("lsan.supp", "leak:nothing\nleak:^cache_*\n").expect("a file");
    let verdict = judged(&checked_server(), &policy);
    assert_eq!(verdict.outcome, Outcome::Pass);
    let uses: Vec<_> = verdict.suppressions.iter().map(|entry| (entry.blocks, entry.bytes)).collect();
    assert_eq!(uses, [(0, 0), (4, 4_000)]);
    let leak = &verdict.runs[0].leaks[0];
    assert_eq!(leak.disposition, Disposition::Suppressed);
    assert_eq!(leak.suppressed_by.as_deref(), Some("leak:^cache_* (lsan.supp:2)"));
}

#[test]
fn a_leak_without_a_frame_of_ours_does_not_fail() {
    for (own, expected) in [("/srv/app/src/cache.cc", Outcome::Fail), ("/srv/app/lib", Outcome::Pass)] {
        let policy = Policy { own: OwnCode::of(&[PathBuf::from(own)], None), ..usual() };
        assert_eq!(outcome(&checked_server(), &policy), expected, "{own}");
    }
}

#[test]
fn a_known_leak_passes_until_it_grows() {
    let baseline = accepted(&judged(&checked_server(), &usual()));
    let text = baseline.text();
    let policy = Policy { baseline: Some(Baseline::parse(&text).expect("its own text")), ..usual() };
    let verdict = judged(&checked_server(), &policy);
    assert_eq!(verdict.outcome, Outcome::Pass);
    assert_eq!(verdict.baseline, Some(BaselineUse { known: 1, ..BaselineUse::default() }));
    assert_eq!(accepted(&verdict), baseline, "writing it again changes nothing");

    let mut grown = checked_server();
    let ScanOutcome::Checked(checked) = &mut grown.contents.scans[0].outcome else { panic!("it was checked") };
    checked.findings[0].blocks += 1;
    let verdict = judged(&grown, &policy);
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert_eq!(only_leak(&verdict).baseline.map(|was| was.blocks), Some(4));

    let mut mended = checked_server();
    mended.contents.scans[0].outcome = clean();
    let gone = judged(&mended, &policy).baseline.expect("there is a baseline").gone;
    assert!(gone.len() == 1 && gone[0].ends_with("cache_insert"), "{gone:?}");
}

#[test]
fn what_is_not_in_the_baseline_fails_in_every_class_if_that_is_asked_for() {
    let policy = Policy { fail_on: vec![Rule::New], baseline: Some(Baseline::default()), ..usual() };
    let verdict = judged(&checked_server(), &policy);
    let classes: Vec<_> = verdict.runs[0].failing().map(|leak| leak.class_name()).collect();
    assert_eq!(classes, ["reachable", "definite"]);
    let known = Policy { baseline: Some(accepted(&verdict)), ..policy };
    assert_eq!(outcome(&checked_server(), &known), Outcome::Pass);
}

#[test]
fn growth_of_a_figure_is_measured_against_the_baseline() {
    let mut before = Baseline::default();
    before.keep("server", "peak_live_bytes", 40_000);
    let policy = |limit| Policy {
        baseline: Some(before.clone()),
        ..budgets(Budgets { max_growth: Some(limit), ..Budgets::default() })
    };
    let verdict = judged(&server(), &policy(2_228));
    let [line] = verdict.runs[0].budgets[..] else { panic!("one figure is in the baseline") };
    assert_eq!((line.value, line.standing, verdict.outcome), (2_228, Standing::Kept, Outcome::Pass));
    assert_eq!(verdict.runs[0].notes.len(), 3, "two figures are missing, and the scan");
    assert_eq!(outcome(&server(), &policy(2_227)), Outcome::Fail);
}

#[test]
fn what_rises_over_the_run_fails_if_growth_is_asked_for_with_and_without_a_scan() {
    let policy = Policy { fail_on: vec![Rule::Growth], ..usual() };
    let verdict = judged(&server(), &policy);
    let leak = only_leak(&verdict);
    assert_eq!((leak.function().as_str(), leak.class, leak.bytes), ("cache_insert", None, 10_000));
    assert!(leak.growth_bytes_per_s.is_some());
    let growing: Vec<_> = judged(&checked_server(), &policy).runs[0].failing().map(|leak| leak.class_name()).collect();
    assert_eq!(growing, ["reachable", "definite", "unchecked"]);
}

#[test]
fn the_same_leak_of_several_processes_is_one_with_both_programs() {
    let mut sample = checked_server();
    let ScanOutcome::Checked(checked) = &sample.contents.scans[0].outcome else { panic!("it was checked") };
    let lost = Finding { blocks: 2, bytes: 64, ..checked.findings[0].clone() };
    let findings = ScanOutcome::Checked(Checked { findings: vec![lost], ..Checked::default() });
    add_process(&mut sample, "/srv/app/child", findings);
    let verdict = judged(&sample, &usual());
    let leak = only_leak(&verdict);
    assert_eq!((leak.bytes, leak.blocks, leak.stacks), (4_064, 6, 1));
    assert_eq!(leak.programs, ["child", "server"]);
    let of_processes: Vec<_> = verdict.runs[0].processes.iter().map(|process| (process.leaks, process.bytes)).collect();
    assert_eq!(of_processes, [(1, 64), (1, 4_000)]);
}

#[test]
fn a_leak_of_two_call_stacks_is_one_leak_of_its_process_whatever_lies_between_them() {
    let mut sample = checked_server();
    let insert = [0x70, 0x71].map(|address| sample.frame("server", address, &[("insert", "", 0)]));
    let other = sample.frame("server", 0x72, &[("other", "", 0)]);
    let [insert, insert_again, between] = [insert[0], insert[1], other].map(|frame| sample.stack(&[frame]));
    let ScanOutcome::Checked(checked) = &mut sample.contents.scans[0].outcome else { panic!("it was checked") };
    let lost = checked.findings[0].clone();
    let of = |stack, bytes| Finding { stack, bytes, blocks: 1, ..lost.clone() };
    checked.findings = vec![of(insert, 30), of(between, 20), of(insert_again, 10)];
    let verdict = judged(&sample, &usual());
    let leaks: Vec<_> = verdict.runs[0].failing().map(|leak| (leak.bytes, leak.stacks)).collect();
    assert_eq!(leaks, [(40, 2), (20, 1)]);
    assert_eq!((verdict.runs[0].processes[0].leaks, verdict.runs[0].processes[0].bytes), (2, 60));
}

#[test]
fn what_a_leak_holds_is_counted_with_it() {
    let mut sample = checked_server();
    let ScanOutcome::Checked(checked) = &mut sample.contents.scans[0].outcome else { panic!("it was checked") };
    checked.findings[0].held_bytes = 500;
    checked.findings[0].held_blocks = 5;
    checked.findings.push(Finding {
        stack: StackIndex(5),
        call: Call::Malloc,
        class: LeakClass::Indirect,
        blocks: 5,
        bytes: 500,
        held_bytes: 0,
        held_blocks: 0,
        ..checked.findings[0].clone()
    });
    let policy = Policy {
        budgets: Budgets {
            max_leaked_bytes: Some(4_500),
            max_leaked_blocks: Some(9),
            max_leaked_bytes_per_stack: Some(4_500),
            ..Budgets::default()
        },
        ..usual()
    };
    let verdict = judged(&sample, &policy);
    assert_eq!(only_leak(&verdict).whole_bytes(), 4_500);
    assert!(verdict.runs[0].budgets.iter().all(|line| line.margin == 0), "{:?}", verdict.runs[0].budgets);
}

#[test]
fn the_order_of_processes_and_of_findings_does_not_show() {
    let mut sample = server_with_child();
    sample.contents.scans = checked_server().contents.scans;
    add_process(&mut sample, "/srv/app/another", clean());
    let policy = Policy { fail_on: vec![Rule::Definite, Rule::Reachable], ..usual() };
    let forwards: Vec<_> = (0..sample.streams.len() as u32).map(ProcessIndex).collect();
    let backwards: Vec<_> = forwards.iter().rev().copied().collect();
    let verdicts = [forwards, backwards].map(|order| {
        let Ok(run) = RunEvidence::of(&sample, &order, &Selection::default(), policy.wanted());
        judge(vec![run], &policy)
    });
    assert_eq!(verdicts[0], verdicts[1]);
}

#[test]
fn of_several_recordings_the_worst_decides() {
    let mut failed = checked_server();
    failed.contents.recording.end = Some(End::Exited(1));
    let mut passes = checked_server();
    passes.contents.scans[0].outcome = clean();
    let policy = usual();
    let all = [&passes, &server(), &checked_server(), &failed].map(|sample| evidence(sample, &policy));
    for (runs, expected) in
        [(1, Outcome::Pass), (2, Outcome::Indeterminate), (3, Outcome::Fail), (4, Outcome::ProgramFailed)]
    {
        assert_eq!(judge(all[..runs].to_vec(), &policy).outcome, expected);
    }
}
