//! What is said of a program that misuses its heap: by what it is, with the calls that made it, in the recording and on
//! standard error. How such a program ends is the subject of `misuse.rs`.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test looks for some events")]

use std::process::Command;

use support::{Scratch, library, record};
use xalloc_core::wire::{Event, FaultKind};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// Cases of `misuse.c`, what each is, and what is said of what libc does.
const CASES: [(&str, FaultKind, &str); 18] = [
    ("twice_cached", FaultKind::DoubleFree, ENDS),
    ("twice_fast", FaultKind::DoubleFree, ENDS),
    ("twice_fast_with_one_between", FaultKind::DoubleFree, PASSES),
    ("twice_binned", FaultKind::DoubleFree, ENDS),
    ("twice_mapped", FaultKind::DoubleFree, "libc reads memory that is not there"),
    ("twice_by_two_threads", FaultKind::DoubleFree, PASSES),
    ("inside_zeroes", FaultKind::InsideBlock, ENDS),
    ("inside_misaligned", FaultKind::InsideBlock, ENDS),
    ("stack_zeroes", FaultKind::OnStack, ENDS),
    ("global_zeroes", FaultKind::NotABlock, ENDS),
    ("read_only", FaultKind::NotABlock, "libc writes to memory that cannot be"),
    ("program_mapping", FaultKind::NotABlock, ENDS),
    ("realloc_freed", FaultKind::DoubleFree, PASSES),
    ("overflow_of_letters", FaultKind::Overwritten, "libc lets it pass, and the call is served"),
    ("overflow_seen_by_no_check", FaultKind::Overwritten, "libc lets it pass, and the call is served"),
    ("top_overwritten_by_letters", FaultKind::Overwritten, ENDS),
    ("unsorted_fd", FaultKind::CorruptedLists, ENDS),
    ("cached_link_overwritten", FaultKind::CorruptedLists, ENDS),
];
const ENDS: &str = "libc ends the program for it:";
const PASSES: &str = "libc lets it pass";

fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_fault_is_told_by_its_kind_with_the_calls_that_made_it_and_what_libc_does_about_it() {
    let scratch = Scratch::new("faults");
    let program = scratch.program("misuse");
    for (case, kind, libc_does) in CASES {
        let told = told(&record(&scratch, "core", Command::new(&program).arg(case)));
        assert!(told.starts_with("xalloc: "), "{case}: {told}");
        assert!(told.contains(&format!("  {libc_does}")), "{case}: {told}");
        let frames = told.lines().filter(|line| line.starts_with("    at ")).collect::<Vec<_>>();
        assert!(frames[0].contains(&format!("{}+0x", program.display())), "{case}: {told}");
        assert!(frames.len() >= 2, "the case and what called it: {told}");
        let [recording] = scratch.recordings().try_into().expect("one process");
        let kinds: Vec<_> = recording
            .events
            .iter()
            .filter_map(|event| match event.stamped.event {
                Event::Fault { kind, .. } => Some(kind),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, [kind], "{case}");
        std::fs::remove_file(scratch.path("trace")).expect("it was written");
    }
}

#[test]
fn where_the_user_wants_it_a_program_goes_on_after_the_report() {
    let scratch = Scratch::new("faults-report");
    let program = scratch.program("misuse");
    for (case, ..) in CASES {
        let output = record(&scratch, "core", Command::new(&program).arg(case).env("XALLOC_ON_ERROR", "report"));
        let (said, told) = (String::from_utf8_lossy(&output.stdout), told(&output));
        assert_eq!(output.status.code(), Some(0), "{case}: {told}");
        assert!(said.ends_with("went on\n"), "{case}: {said}");
        assert_eq!(told.matches("xalloc: ").count(), 1, "{case}: {told}");
        assert!(!told.contains(ENDS), "{case}: it goes on: {told}");
        std::fs::remove_file(scratch.path("trace")).expect("it was written");
    }
}

#[test]
fn without_a_recording_faults_are_told_where_the_user_asks_for_it_and_else_where_libc_ends_the_program() {
    let scratch = Scratch::new("faults-unrecorded");
    let program = scratch.program("misuse");
    let run = |case: &str, harden: &str| {
        let mut command = Command::new(&program);
        command.arg(case).env("LD_PRELOAD", library()).env("XALLOC_HARDEN", harden);
        told(&command.output().expect("the program runs"))
    };
    for (case, _, libc_does) in CASES {
        let told = run(case, "1");
        assert!(told.contains(&format!("  {libc_does}")), "{case}: {told}");
    }
    let told = run("twice_cached", "0");
    assert!(told.ends_with("libc ends the program for it:\nfree(): double free detected in tcache 2\n"), "{told}");
    assert_eq!(run("overflow_seen_by_no_check", "0"), "", "libc's cache does not look at the chunk above");
}

#[test]
fn a_program_with_many_faults_is_not_drowned_in_reports() {
    let scratch = Scratch::new("faults-many");
    let program = scratch.program("misuse");
    let output = record(&scratch, "core", Command::new(&program).arg("twice_sixty_times"));
    assert_eq!(output.status.code(), Some(0));
    let told = told(&output);
    assert_eq!(told.matches("which is free already").count(), 16, "{told}");
    assert!(told.ends_with("xalloc: more faults like these are recorded, but not printed\n"), "{told}");
    let [recording] = scratch.recordings().try_into().expect("one process");
    let faults = recording.events.iter().filter(|event| matches!(event.stamped.event, Event::Fault { .. }));
    assert_eq!(faults.count(), 60);
}
