//! The check for leaks: every way out, other allocators, hints. Its verdicts themselves: `leak_truth.rs`.

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use support::twins::{Case, Twin, cases};
use support::victims::{exporting_victim, victim};
use support::{list, number};

/// The block that each case is about.
const SUBJECT_BYTES: u64 = 7777;

/// The classes of the block that the case is about, and the result of `leaks`.
fn verdict(options: &[&str], arguments: &[&str]) -> (Vec<Option<String>>, Value) {
    let result = victim("reach.c", arguments).record_with(options).json("leaks", &[]);
    let sites = result["sites"].as_array().expect("sites").iter();
    let of_subject = sites.filter(|site| site["bytes"] == SUBJECT_BYTES);
    (of_subject.map(|site| site["class"].as_str().map(str::to_owned)).collect(), result)
}

#[test]
fn the_same_classes_come_out_where_the_programs_own_allocator_serves() {
    // glibc's own pointer to what lies behind the last block points into that block if its size is odd, as that of the
    // single block is here: lost, it is possible at worst.
    let whole = ["ring", "chain"];
    let kept = ["global", "tls", "mapping", "thread", "cookie"];
    let mut wrong = Vec::new();
    for Case { name, truth, .. } in cases("reach.c") {
        for (twin, truth) in Twin::BOTH.into_iter().zip(truth) {
            let is_told = whole.contains(&name.as_str()) || (twin == Twin::Keep && kept.contains(&name.as_str()));
            let Some(truth) = truth.filter(|_| is_told) else { continue };
            let (seen, result) = verdict(&["--allocator", "system"], &[&name, twin.argument()]);
            if seen != [Some(truth.said.clone())] {
                let reason = &result["not_checked_reason"];
                wrong.push(format!("{name} {twin:?}: {} is true, {seen:?} was said; {reason}", truth.said));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_way_out_of_a_program_is_checked() {
    for way in ["return", "exit", "_exit", "_Exit", "quick_exit", "abort"] {
        assert_eq!(verdict(&[], &["global", "lose", way]).0, [Some("definite".to_owned())], "{way}");
        assert_eq!(verdict(&[], &["global", "keep", way]).0, [Some("reachable".to_owned())], "{way}");
    }
    let watched = verdict(&["--leak-check-on-signal"], &["global", "lose", "term"]);
    assert_eq!(watched.0, [Some("definite".to_owned())]);
}

#[test]
fn what_was_not_checked_has_no_class_and_a_reason() {
    for (options, way, reason) in [
        (&[][..], "term", "ended by signal 15"),
        (&["--no-leak-check"][..], "return", "the recording holds no leak scan of it"),
    ] {
        let (seen, result) = verdict(options, &["global", "lose", way]);
        assert_eq!(seen, [None]);
        assert_eq!(result["checked"], false);
        assert_eq!(result["not_checked_reason"], reason);
        assert_eq!(result["totals"]["definite"]["blocks"], 0);
    }
}

#[test]
fn a_program_that_turns_the_check_off_is_not_checked() {
    let checked = exporting_victim("turned_off.c", &[]).record().json("leaks", &[]);
    assert_eq!(
        (&checked["checked"], checked["totals"]["definite"]["bytes"].as_u64()),
        (&Value::Bool(true), Some(7777))
    );
    let off = exporting_victim("turned_off.c", &["off"]).record().json("leaks", &[]);
    assert_eq!(off["checked"], false);
    assert_eq!(off["not_checked_reason"], "the program turned it off (__lsan_is_turned_off)");
}

#[test]
fn a_disguised_pointer_to_a_leaked_block_is_a_hint() {
    for (case, disguise) in [("unaligned", "unaligned"), ("past_end", "one_past_end"), ("top_tag", "top_tagged")] {
        let (_, result) = verdict(&[], &[case, "keep"]);
        let sites = result["sites"].as_array().expect("sites");
        let subject = sites.iter().find(|site| site["bytes"] == SUBJECT_BYTES).expect("the block");
        assert_eq!(subject["hint"]["disguise"], disguise, "{case}");
    }
}

#[test]
fn the_check_changes_neither_output_nor_status() {
    for way in ["return", "exit", "_exit", "quick_exit"] {
        let load = victim("reach.c", &["ring", "lose", way]);
        let plain = load.plain();
        let recorded = load.record().output;
        assert_eq!((plain.status.code(), plain.stdout), (recorded.status.code(), recorded.stdout), "{way}");
    }
}

#[test]
fn a_thread_that_waits_for_signals_is_sent_none_and_what_it_holds_is_reachable() {
    let load = victim("waits_for_signals.c", &[]);
    let (plain, recording) = (load.plain(), load.record());
    let recorded = &recording.output;
    assert_eq!((plain.status.code(), &plain.stdout), (Some(0), &recorded.stdout));
    assert_eq!(recorded.status.code(), Some(0));
    let leaks = recording.json("leaks", &[]);
    let classes = |bytes: u64| {
        let of_size = list(&leaks, "sites").into_iter().filter(|site| site["bytes"] == bytes);
        of_size.map(|site| site["class"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((classes(2222), classes(3333)), (vec!["reachable".into()], vec!["definite".into()]));
}

#[test]
fn a_thread_that_blocks_signals_for_a_moment_is_waited_for() {
    // A thread that gets no processor for all of the check's patience counts as running: rarely, and not each time.
    let running = (0..3).map(|_| {
        let leaks = victim("blocks_briefly.c", &[]).record().json("leaks", &[]);
        let process = &list(&leaks, "processes")[0];
        assert_eq!(process["checked"], true, "{process}");
        number(process, "running_threads")
    });
    assert_eq!(running.min(), Some(0));
}

#[test]
fn what_belongs_to_a_function_that_is_still_at_work_at_exit_is_not_called_leaked() {
    let leaks = victim("owner.c", &[]).record().json("leaks", &[]);
    let class = |bytes: u64| {
        let sites = leaks["sites"].as_array().expect("sites").iter();
        sites.filter(|site| site["bytes"] == bytes).map(|site| site["class"].as_str()).collect::<Vec<_>>()
    };
    assert_eq!((class(7777), class(2222)), (vec![Some("owner_active")], vec![Some("owner_active")]));
    assert_eq!(class(3333), [Some("definite")]);
}

#[test]
fn a_process_that_gave_up_roots_rights_is_checked_like_any_other() {
    let load = victim("drops_rights.c", &[]);
    if load.plain().status.code() == Some(1) {
        return println!("skipped: only root has rights to give up");
    }
    let recording = load.record();
    let leaks = recording.json("leaks", &[]);
    assert_eq!(leaks["checked"], true, "{}", leaks["not_checked_reason"]);
    assert_eq!(leaks["totals"]["definite"]["bytes"], 7777);
}

#[test]
fn three_runs_give_the_same_verdicts_and_end_as_the_plain_run_does() {
    let load = victim("ends.cpp", &[]);
    let plain = load.plain();
    let left = [
        (1111, "definite"),
        (2222, "cycle"),
        (2222, "indirect"),
        (3333, "definite"),
        (4444, "indirect"),
        (5555, "possible"),
        (6666, "reachable"),
    ];
    for run in 1..=3 {
        let recording = load.record();
        assert_eq!(recording.status().code(), plain.status.code(), "run {run}");
        assert_eq!(recording.output.stdout, plain.stdout, "run {run}: the order of the ends");
        let sites = list(&recording.json("leaks", &[]), "sites");
        let mut seen: Vec<(u64, &str)> = sites
            .iter()
            .filter(|site| left.iter().any(|(bytes, _)| number(site, "bytes") == *bytes))
            .map(|site| (number(site, "bytes"), site["class"].as_str().expect("a class")))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, left, "run {run}");
    }
    assert_eq!(plain.stdout.split(|&byte| byte == b'\n').count(), 6, "five ends");
}
