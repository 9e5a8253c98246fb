//! What malloc's functions answer in the situations that their documentation speaks of: the program says what it got, and
//! under the library it says the same as on the running libc, word by word, recorded or not.
//!
//! Two cases have no libc to compare with, for libc itself may fail in them: allocating in a signal handler that
//! interrupted malloc, and forking there. They must simply work.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]

use std::process::{Command, Output};

use support::{Scratch, library, record};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs a case three times, on libc, under the library, and recorded.
fn runs(case: &str) -> [(Option<i32>, String); 3] {
    let scratch = Scratch::new(&format!("api-{case}"));
    let program = scratch.program("api");
    let mut plain = Command::new(&program);
    let plain = plain.arg(case).output().expect("the program runs");
    let mut under = Command::new(&program);
    let under = under.arg(case).env("LD_PRELOAD", library()).output().expect("the program runs");
    let recorded = record(&scratch, "core", Command::new(&program).arg(case));
    [plain, under, recorded].each_ref().map(said)
}

fn compare(case: &str) {
    let [plain, under, recorded] = runs(case);
    assert_eq!(plain.0, Some(0), "{case}: {}", plain.1);
    if plain.1 == "skipped\n" {
        println!("skipped: {case}: this machine allows more mappings than the case makes");
        return;
    }
    assert!(plain.1.lines().count() > 0, "{case} says something");
    assert_eq!(plain, under, "{case}, not recorded");
    assert_eq!(plain, recorded, "{case}, recorded");
}

/// As [`compare`], for a limit of the whole process, which a recording takes its part of.
fn compare_unrecorded(case: &str) {
    let [plain, under, recorded] = runs(case);
    assert_eq!(plain.0, Some(0), "{case}: {}", plain.1);
    assert_eq!(plain, under, "{case}, not recorded");
    assert_eq!(recorded.0, Some(0), "{case}, recorded: {}", recorded.1);
}

fn works(case: &str) {
    let [_, under, recorded] = runs(case);
    assert_eq!(under, (Some(0), "done\n".into()), "{case}, not recorded");
    assert_eq!(recorded, (Some(0), "done\n".into()), "{case}, recorded");
}

#[test]
fn every_function_aligns_as_it_promises_and_rejects_the_alignments_that_libc_rejects() {
    compare("alignment");
}

#[test]
fn a_size_of_zero_is_answered_as_by_libc() {
    compare("zero-size");
}

#[test]
fn calls_that_succeed_leave_errno_alone() {
    compare("errno-kept");
}

#[test]
fn what_is_too_much_fails_with_libc_s_errno_and_harms_nothing() {
    compare("too-much");
}

#[test]
fn an_address_space_that_is_used_up_ends_in_enomem_and_recovers() {
    compare_unrecorded("address-space");
}

#[test]
fn a_data_limit_that_is_used_up_ends_in_enomem_and_recovers() {
    compare_unrecorded("data");
}

#[test]
fn a_break_that_is_blocked_is_replaced_by_mappings_with_libc_s_errno() {
    compare("blocked-break");
}

#[test]
fn when_there_can_be_no_more_mappings_the_answers_are_libc_s() {
    compare_unrecorded("map-count");
}

#[test]
fn threads_that_fail_to_allocate_see_their_own_errno() {
    compare("threads-fail");
}

#[test]
fn blocks_that_key_destructors_free_at_a_thread_s_end_are_free() {
    compare("thread-exit");
}

#[test]
fn mallinfo_malloc_info_malloc_stats_and_malloc_trim_say_what_libc_s_say_of_the_same_state() {
    compare("state");
}

#[test]
fn a_signal_handler_that_interrupted_malloc_can_allocate() {
    works("malloc-in-handler");
}

#[test]
fn a_signal_handler_that_interrupted_malloc_can_fork_a_child_that_allocates() {
    works("fork-in-handler");
}

#[test]
fn a_fork_while_other_threads_allocate_and_use_stdio_leaves_a_child_that_works() {
    works("fork-beside-stdio");
}
