//! Eight threads that check the contents of their blocks, die and leave them to others, and fork: on the heap as it is, on
//! a hardened one, and recorded.
//!
//! `XALLOC_STRESS_SECONDS` sets how long each of the three goes on, and `XALLOC_STRESS_SEED` where the threads begin:
//! `XALLOC_STRESS_SECONDS=3600 cargo test -p xalloc-preload --test stress` takes hours.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]

use std::process::{Command, Output};

use support::{Scratch, library, record};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// What a variable says, if it is a number.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The program, told for how long.
fn stress(scratch: &Scratch, usual_seconds: u64) -> Command {
    let seconds = number("XALLOC_STRESS_SECONDS").unwrap_or(usual_seconds);
    let seed = number("XALLOC_STRESS_SEED").unwrap_or(1);
    let mut command = Command::new(scratch.program("stress"));
    command.args([seconds.to_string(), seed.to_string()]);
    command
}

fn assert_verified(how: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), complained.as_str()), (Some(0), ""), "{how}: {said}");
    let counts: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(counts.len() == 3 && counts.iter().all(|&count| count > 0), "{how}: {said}");
    println!("{how}: {said}");
}

#[test]
fn blocks_keep_their_contents_while_threads_die_hand_blocks_over_and_fork() {
    let scratch = Scratch::new("stress");
    let output = stress(&scratch, 10).env("LD_PRELOAD", library()).output().expect("the program starts");
    assert_verified("as it is", &output);
}

#[test]
fn a_hardened_heap_accuses_no_thread_of_what_it_did_not_do() {
    let scratch = Scratch::new("stress-hardened");
    let mut command = stress(&scratch, 10);
    let output = command.env("LD_PRELOAD", library()).env("XALLOC_HARDEN", "1").output();
    assert_verified("hardened", &output.expect("the program starts"));
}

#[test]
fn blocks_keep_their_contents_while_every_one_is_recorded() {
    let scratch = Scratch::new("stress-recorded");
    let output = record(&scratch, "core", &mut stress(&scratch, 3));
    assert_verified("recorded", &output);
}
