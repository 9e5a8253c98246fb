//! Captures of programs that build stacks in every way there is, compared with the plain walk, the `backtrace` crate
//! and libunwind.
//!
//! The programs are compiled here, at several optimisation levels, with and without frame pointers; the harness is
//! preloaded into them and compares every capture. No difference is allowed. Frames that we keep and an oracle does
//! not reach (libgcc, the crate's engine, ends at code without unwind information) are no difference, and neither are
//! stacks beyond the depth limit.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

/// Builds the preloadable harness, with the target directory that this test was built in.
fn harness() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "xalloc-preload", "--example", "capture_harness", "--profile", "preload"]);
    run(cargo.arg("--target-dir").arg(target).arg("--manifest-path").arg(source("Cargo.toml")));
    target.join("preload/examples/libcapture_harness.so")
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The numbers before each of `names` in the last line of a report.
fn number_before(line: &str, what: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
    let sums = words.windows(2).filter(|pair| pair[1] == what).map(|pair| pair[0].parse::<u64>().unwrap_or(0));
    sums.sum()
}

#[test]
fn no_capture_of_the_torture_program_differs_at_any_optimisation_level() {
    let harness = harness();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torture");
    std::fs::create_dir_all(&directory).expect("a directory for the programs");
    for (name, wide) in [("plugin_narrow.so", "-DNARROW"), ("plugin_wide.so", "-DWIDE")] {
        let mut cc = Command::new("cc");
        run(cc
            .args(["-shared", "-fPIC", "-O2", wide, "-o"])
            .arg(directory.join(name))
            .arg(source("tests/capture/plugin.c")));
    }
    let mut compared = 0;
    for optimisation in ["-O0", "-O2", "-O3", "-Os"] {
        for frame_pointer in ["-fomit-frame-pointer", "-fno-omit-frame-pointer"] {
            for linkage in ["-Wl,-z,lazy", "-Wl,-z,now"] {
                compared += torture(&harness, &directory, &[optimisation, frame_pointer, linkage]);
            }
        }
    }
    println!("{compared} captures compared with the plain walk, the backtrace crate and libunwind");
}

fn torture(harness: &Path, directory: &Path, flags: &[&str]) -> u64 {
    let program = directory.join(format!("torture{}", flags.concat().replace(',', "")));
    let report = program.with_extension("report");
    let mut cc = Command::new("c++");
    run(cc.args(flags).arg("-o").arg(&program).arg(source("tests/capture/torture.cc")).args(["-ldl", "-lpthread"]));
    _ = std::fs::remove_file(&report);
    // `env` sets the variables for the program alone, and not for `timeout`.
    let variables =
        [("LD_PRELOAD", harness), ("XCAP_OUT", &report)].map(|(name, path)| format!("{name}={}", path.display()));
    let mut victim = Command::new("timeout");
    victim.args(["120", "env", "XCAP=compare"]).args(variables).arg(&program).arg(directory);
    run(&mut victim);
    let text = std::fs::read_to_string(&report).expect("the harness reports");
    for line in text.lines() {
        assert_eq!(number_before(line, "differ"), 0, "{flags:?}: {text}");
        assert!(!line.starts_with("difference"), "{flags:?}: {text}");
    }
    // The last to end is the first process; its children began with its counts.
    let last = text.lines().last().expect("one line a process");
    let captures = number_before(last, "captures");
    assert!(captures > 50_000, "{flags:?}: {text}");
    assert!(number_before(last, "equal") > captures, "{flags:?}: {text}");
    captures
}
