//! A Rust program with `#[global_allocator]`: it runs on xalloc's heap by itself, and recorded all of it is seen.
//!
//! The program is `tests/programs/global_allocator`, whose functions say what they allocate.

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::{Load, Recording, functions, list, number};

/// The program, built as a user builds one; once for both tests.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs/global_allocator/Cargo.toml");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("global_allocator");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--manifest-path", manifest, "--target-dir"]).arg(&target);
        // What was chosen for the build of this test is not meant for that one.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let output = cargo.output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target.join("debug/global_allocator")
    })
}

/// Allocations and bytes of all call stacks that go through a function.
fn of(recording: &Recording, function: &str) -> (u64, u64) {
    let sites = recording.sites_in(function);
    let sum = |name| sites.iter().map(|site| number(site, name)).sum();
    (sum("allocations"), sum("allocated_bytes"))
}

#[test]
fn a_rust_program_on_the_heap_runs_by_itself_and_recorded_to_the_last_block() {
    let load = Load::new(program(), &[]);
    let plain = load.plain();
    assert!(plain.status.success());
    let recording = load.record();
    assert_eq!(
        (recording.status().code(), &recording.output.stdout),
        (Some(0), &plain.stdout),
        "{}",
        recording.stderr()
    );
    assert_eq!(String::from_utf8_lossy(&plain.stdout), "12000 2048 50\n");
    for (function, expected) in [
        ("truth_boxes", (100, 4000)),
        ("truth_zeroes", (5, 4 * 16 + 4 * 3000)),
        ("truth_grows", (7, 64 + 128 + 256 + 512 + 1024 + 2048 + 4096)),
        ("truth_aligned", (3, 4096 + 4096 + 8192)),
        ("truth_leaks", (1, 7777)),
    ] {
        assert_eq!(of(&recording, function), expected, "{function}");
    }
    let summary = recording.summary();
    assert_eq!(number(&summary, "threads"), 2);
    assert_eq!((number(&summary, "unknown_frees"), number(&summary, "faults")), (0, 0));
    let foreign: u64 = list(&summary, "by_thread").iter().map(|thread| number(thread, "foreign_frees")).sum();
    assert!(foreign >= 50, "the strings of the other thread: {foreign}");
}

#[test]
fn its_stacks_begin_with_its_own_functions_and_its_leak_is_found() {
    let load = Load::new(program(), &[]);
    let recording = load.record();
    let [boxes] = recording.sites_in("truth_boxes").try_into().expect("one call stack");
    let names = functions(&boxes);
    assert!(!names.iter().any(|name| name.contains("Xalloc")), "the allocator's own frames are left out: {names:?}");
    let leaks = recording.json("leaks", &[]);
    let of_class = |class: &str| {
        let sites = list(&leaks, "sites").into_iter().filter(|site| site["class"] == class);
        sites.map(|site| (number(&site, "bytes"), functions(&site).join(" "))).collect::<Vec<_>>()
    };
    let definite = of_class("definite");
    assert!(matches!(definite.as_slice(), [(7777, by)] if by.contains("truth_leaks")), "{definite:?}");
}
