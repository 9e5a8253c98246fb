//! Pointers that are no blocks, and blocks beside which something was overwritten: each is refused and told apart before
//! it does damage.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test looks for some events")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use support::{Scratch, library, record};
use xalloc_core::wire::{Event, FaultKind};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// Cases of `faults.c`, what each is, and what libc would say.
const CASES: [(&str, FaultKind, &str); 14] = [
    ("twice-cached", FaultKind::DoubleFree, "free(): double free detected in tcache 2"),
    ("twice-fast", FaultKind::DoubleFree, "double free or corruption (fasttop)"),
    ("twice-binned", FaultKind::DoubleFree, "double free or corruption (!prev)"),
    ("twice-mapped", FaultKind::DoubleFree, "double free or corruption (!prev)"),
    ("inside", FaultKind::InsideBlock, "free(): invalid pointer"),
    ("misaligned", FaultKind::InsideBlock, "free(): invalid pointer"),
    ("stack", FaultKind::OnStack, "free(): invalid pointer"),
    ("global", FaultKind::NotABlock, "free(): invalid pointer"),
    ("nowhere", FaultKind::NotABlock, "free(): invalid pointer"),
    ("program-mapping", FaultKind::NotABlock, "free(): invalid pointer"),
    ("realloc-freed", FaultKind::DoubleFree, "realloc(): invalid pointer"),
    ("overflow", FaultKind::Overwritten, "free(): invalid next size (normal)"),
    ("overflow-by-one", FaultKind::Overwritten, "free(): invalid next size (normal)"),
    ("overflown", FaultKind::Overwritten, "free(): invalid size"),
];

#[test]
fn every_fault_is_told_by_its_kind_with_the_calls_that_made_it_and_ends_the_program_as_libc_does() {
    let scratch = Scratch::new("faults");
    let program = scratch.program("faults");
    for (case, kind, message) in CASES {
        let output = record(&scratch, "core", Command::new(&program).arg(case));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{case}: {told}");
        assert!(told.ends_with(&format!("{message}\n")), "{case}: {told}");
        assert!(told.starts_with("xalloc: "), "{case}: {told}");
        let frames = told.lines().filter(|line| line.starts_with("    at ")).collect::<Vec<_>>();
        assert!(frames[0].contains(&format!("{}+0x", program.display())), "{case}: {told}");
        assert!(frames.len() >= 2, "main and what called it: {told}");
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
    let program = scratch.program("faults");
    for (case, ..) in CASES {
        let output = record(&scratch, "core", Command::new(&program).arg(case).env("XALLOC_ON_ERROR", "report"));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(0), b"went on\n".as_slice()),
            "{case}: {told}"
        );
        assert_eq!(told.matches("xalloc: ").count(), 1, "{case}: {told}");
        std::fs::remove_file(scratch.path("trace")).expect("it was written");
    }
}

#[test]
fn without_a_recording_faults_are_found_where_the_user_asks_for_it_and_else_where_libc_finds_them() {
    let scratch = Scratch::new("faults-unrecorded");
    let program = scratch.program("faults");
    let run = |case: &str, harden: &str| {
        let output = Command::new(&program)
            .arg(case)
            .env("LD_PRELOAD", library())
            .env("XALLOC_HARDEN", harden)
            .output()
            .expect("the program runs");
        (output.status.signal(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (case, _, message) in CASES {
        let (signal, told) = run(case, "1");
        assert_eq!(signal, Some(libc::SIGABRT), "{case}: {told}");
        assert!(told.ends_with(&format!("{message}\n")), "{case}: {told}");
    }
    let (signal, told) = run("twice-cached", "0");
    assert_eq!(signal, Some(libc::SIGABRT), "{told}");
    assert!(told.ends_with("free(): double free detected in tcache 2\n"), "{told}");
    let (signal, told) = run("overflow-by-one", "0");
    assert_eq!((signal, told.as_str()), (None, ""), "libc's cache does not look at the chunk above");
}
