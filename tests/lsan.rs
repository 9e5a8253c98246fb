//! LeakSanitizer's interface: a program that was written for it says what is ignored, what is a root, what is suppressed
//! and when it is checked, and ends as it does without a recorder.

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use support::victims::exporting_victim;
use support::{Load, Recording, xalloc};

fn load(arguments: &[&str]) -> Load {
    exporting_victim("lsan.c", arguments)
}

/// The classes of the blocks of that size; several findings would be several.
fn classes(leaks: &Value, bytes: u64) -> Vec<String> {
    let sites = support::list(leaks, "sites").into_iter().filter(|site| site["bytes"] == bytes);
    sites.map(|site| site["class"].as_str().unwrap_or("none").to_owned()).collect()
}

/// What a case's blocks of these sizes are.
fn verdicts<const N: usize>(arguments: &[&str], sizes: [u64; N]) -> [String; N] {
    let leaks = load(arguments).record().json("leaks", &[]);
    assert_eq!(leaks["checked"], true, "{}", leaks["not_checked_reason"]);
    sizes.map(|bytes| classes(&leaks, bytes).join(" and "))
}

fn check(recording: &Recording, format: &str) -> (Option<i32>, String) {
    let output = xalloc().arg("check").arg("--format").arg(format).arg(&recording.trace).output().expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_a_thread_allocates_while_it_has_disabled_the_check_is_no_leak() {
    assert_eq!(verdicts(&["disabled"], [7777, 3333]), ["reachable", "definite"]);
    assert_eq!(verdicts(&["nested"], [7777, 3333]), ["reachable", "definite"]);
    assert_eq!(verdicts(&["disabled", "plain"], [7777, 3333]), ["definite", "definite"]);
}

#[test]
fn another_threads_blocks_are_checked_meanwhile() {
    assert_eq!(verdicts(&["other_thread"], [7777, 3333]), ["reachable", "definite"]);
}

#[test]
fn a_block_at_the_address_of_an_ignored_one_that_was_freed_is_checked() {
    let recording = load(&["again"]).record();
    assert_eq!(recording.status().code(), Some(0), "the address was used again");
    assert_eq!(classes(&recording.json("leaks", &[]), 7776), ["definite"]);
}

#[test]
fn a_block_belongs_to_the_realloc_that_made_it_last() {
    assert_eq!(verdicts(&["resized"], [7777, 3333]), ["reachable", "definite"]);
}

#[test]
fn an_ignored_block_and_what_it_holds_are_no_leaks() {
    assert_eq!(verdicts(&["held"], [7777, 3333]), ["reachable", "reachable"]);
    assert_eq!(verdicts(&["held", "plain"], [7777, 3333]), ["definite", "indirect"]);
}

#[test]
fn what_a_root_region_points_to_is_reachable_until_the_region_is_taken_back() {
    assert_eq!(verdicts(&["region"], [5555, 7777]), ["definite", "reachable"]);
    assert_eq!(verdicts(&["unregistered"], [5555, 7777]), ["definite", "indirect"]);
}

#[test]
fn the_final_check_stands_for_the_one_at_the_end_and_leaves_the_status_alone() {
    let load = load(&["final"]);
    let recording = load.record();
    assert_eq!((load.plain().status.code(), recording.status().code()), (Some(3), Some(3)));
    let leaks = recording.json("leaks", &[]);
    assert_eq!(support::list(&leaks, "checks").len(), 1);
    assert_eq!(leaks["checks"][0]["occasion"], "final");
    assert_eq!(leaks["checked"], true);
    assert_eq!((classes(&leaks, 7777), classes(&leaks, 3333)), (vec!["definite".to_owned()], vec!["none".to_owned()]));
}

#[test]
fn a_recoverable_check_answers_whether_blocks_are_leaked_and_changes_nothing_of_the_last_one() {
    let recording = load(&["recoverable"]).record();
    assert_eq!(String::from_utf8_lossy(&recording.output.stdout), "0 1\n");
    assert_eq!(recording.status().code(), Some(0));
    let leaks = recording.json("leaks", &[]);
    let checks = support::list(&leaks, "checks");
    let told: Vec<_> =
        checks.iter().map(|check| (check["occasion"].as_str(), check["leaked"]["bytes"].as_u64())).collect();
    assert_eq!(told, [(Some("program"), Some(0)), (Some("program"), Some(7777)), (Some("exit"), Some(11_110))]);
    assert_eq!(leaks["totals"]["definite"]["bytes"], 11_110);
}

#[test]
fn a_check_while_a_program_ran_is_no_verdict_on_its_end() {
    let leaks = load(&["killed"]).record().json("leaks", &[]);
    assert_eq!(support::list(&leaks, "checks").len(), 1);
    assert_eq!(leaks["checked"], false);
    assert_eq!(leaks["not_checked_reason"], "ended by signal 4");
    assert_eq!(classes(&leaks, 7777), ["none"]);
}

#[test]
fn a_program_whose_options_turn_the_detection_off_is_not_checked() {
    let recording = load(&["options"]).record();
    assert_eq!(recording.status().code(), Some(0), "its own check says that there is no leak");
    let leaks = recording.json("leaks", &[]);
    assert_eq!(leaks["checked"], false);
    assert_eq!(leaks["not_checked_reason"], "the program turned it off (detect_leaks=0 in __lsan_default_options)");
}

#[test]
fn the_programs_own_suppressions_hold_for_leaks_and_check() {
    let recording = load(&["suppressed"]).record();
    let leaks = recording.json("leaks", &[]);
    let site = |bytes: u64| {
        let sites = support::list(&leaks, "sites");
        sites.into_iter().find(|site| site["bytes"] == bytes).unwrap_or_else(|| panic!("no site of {bytes}"))
    };
    assert_eq!(site(7777)["suppressed_by"], "leak:lose_known");
    assert_eq!(site(3333)["suppressed_by"], Value::Null);
    assert_eq!((&leaks["suppressed"]["bytes"], &leaks["suppressed"]["blocks"]), (&7777.into(), &1.into()));
    let (status, verdict) = check(&recording, "json");
    assert_eq!(status, Some(1));
    let verdict: Value = serde_json::from_str(&verdict).expect("JSON");
    let uses = support::list(&verdict["result"], "suppressions");
    let told: Vec<_> =
        uses.iter().map(|entry| (entry["name"].as_str(), entry["line"].as_u64(), entry["bytes"].as_u64())).collect();
    assert_eq!(told, [(Some("leak:lose_known"), Some(2), Some(7777)), (Some("leak:lose_never"), Some(3), Some(0))]);
    assert!(uses[0]["file"].as_str().is_some_and(|file| file.starts_with("__lsan_default_suppressions of ")));
}

#[test]
fn suppressions_of_a_program_that_are_none_hide_nothing_and_are_told() {
    let recording = load(&["malformed"]).record();
    let (status, verdict) = check(&recording, "human");
    assert_eq!(status, Some(1));
    assert!(verdict.contains("`lose_known` is no suppression of leaks"), "{verdict}");
    assert!(verdict.contains("11,110"), "both leaks fail: {verdict}");
}
