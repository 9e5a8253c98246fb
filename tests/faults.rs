//! What a recording says of a program that misuses its heap: who allocated the block, who had freed it, who did the wrong
//! call, in which thread, and whose blocks lie beside it.
//!
//! `tests/programs/faults.cpp` has a function of its own for each of these, so that a name that is missing or stands in
//! the wrong place is told.

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use support::victims::victim;
use support::{Recording, functions, list, number};

/// The program's recording under these options, and its one fault.
fn faulty(way: &str, options: &[&str]) -> (Recording, Value) {
    let recording = victim("faults.cpp", &[way]).record_with(options);
    let faults = list(&recording.summary(), "first_faults");
    let [fault] = faults.try_into().unwrap_or_else(|all| panic!("{way}: {all:#?}\n{}", recording.stderr()));
    (recording, fault)
}

/// The innermost function of a stack of JSON.
fn innermost(stack: &Value) -> String {
    functions(stack).first().map_or_else(String::new, |name| name.replace("(anonymous namespace)::", ""))
}

fn is_by(stack: &Value, function: &str) -> bool {
    innermost(stack).starts_with(function)
}

/// Asserts that the fault is of this kind, and about the block of `size` bytes that `owner` allocated.
fn assert_block(way: &str, fault: &Value, kind: &str, owner: &str, size: u64) {
    assert_eq!(fault["kind"], kind, "{way}: {fault:#}");
    let block = &fault["block"];
    assert!(is_by(&block["allocated"], owner), "{way}: {block:#}");
    assert_eq!(number(block, "size"), size, "{way}");
}

#[test]
fn a_second_free_is_told_with_the_first_one_and_the_allocation() {
    for (way, size) in [("twice_large", 5000), ("twice_mapped", 300_000), ("twice_in_another_thread", 5000)] {
        let (recording, fault) = faulty(way, &[]);
        assert_block(way, &fault, "double-free", "owner_allocates", size);
        assert!(is_by(&fault["by"], "wrong_call"), "{way}: {fault:#}");
        let freed = &fault["block"]["freed"];
        assert!(is_by(&freed["by"], "first_frees"), "{way}: {freed:#}");
        let freed_in = if way == "twice_in_another_thread" { 2 } else { 1 };
        assert_eq!((number(&freed["thread"], "number"), number(&fault["thread"], "number")), (freed_in, 1), "{way}");
        let told = recording.stderr();
        for name in ["owner_allocates", "first_frees", "wrong_call"] {
            assert!(told.contains(name), "{way}: the end of the recording names {name}: {told}");
        }
    }
}

#[test]
fn blocks_of_new_and_of_realloc_are_told_by_those_who_called_them() {
    let (_, fault) = faulty("twice_after_delete", &[]);
    assert_block("twice_after_delete", &fault, "double-free", "owner_news", 5000);
    assert_eq!(fault["block"]["allocated"]["call"], "operator new");
    assert!(is_by(&fault["block"]["freed"]["by"], "first_deletes"), "{fault:#}");
    let (_, fault) = faulty("after_realloc", &[]);
    assert_block("after_realloc", &fault, "double-free", "owner_allocates", 5000);
    assert!(is_by(&fault["block"]["freed"]["by"], "first_reallocs"), "{fault:#}");
}

#[test]
fn where_a_cache_took_the_block_its_first_free_is_told_if_the_user_asked_for_the_stacks_of_frees() {
    let (recording, fault) = faulty("twice", &[]);
    assert_block("twice", &fault, "double-free", "owner_allocates", 100);
    assert_eq!(fault["block"]["freed"]["by"]["stack"], "none", "no stack of somebody else's");
    assert!(recording.stderr().contains("--free-stacks"), "{}", recording.stderr());
    let (_, fault) = faulty("twice", &["--free-stacks"]);
    assert!(is_by(&fault["block"]["freed"]["by"], "first_frees"), "{fault:#}");
    assert!(is_by(&fault["by"], "wrong_call"), "{fault:#}");
}

#[test]
fn a_free_that_the_programs_own_allocator_is_given_twice_is_told_too() {
    let (_, fault) = faulty("twice", &["--allocator", "system", "--free-stacks"]);
    assert_block("twice", &fault, "double-free", "owner_allocates", 100);
    assert!(is_by(&fault["block"]["freed"]["by"], "first_frees"), "{fault:#}");
    assert!(is_by(&fault["by"], "wrong_call"), "{fault:#}");
    assert_eq!(fault["reported"], false);
}

#[test]
fn the_inside_of_a_block_is_told_with_the_block_and_its_neighbours() {
    let (recording, fault) = faulty("inside", &[]);
    assert_block("inside", &fault, "inside-block", "owner_allocates", 100);
    assert_eq!(number(&fault["block"], "offset"), 32);
    assert_eq!(fault["block"]["freed"], Value::Null);
    for (side, owner, size) in [("below", "lower_neighbour", 99), ("above", "upper_neighbour", 101)] {
        assert!(is_by(&fault[side]["allocated"], owner), "{side}: {fault:#}");
        assert_eq!(number(&fault[side], "size"), size);
        // Chunks of 112 bytes, of which the next one's header takes 16.
        let asked = if side == "below" { 99 } else { 100 };
        assert_eq!(number(&fault[side], "distance"), 112 - asked);
        assert!(recording.stderr().contains(owner), "{}", recording.stderr());
    }
}

#[test]
fn an_overflow_into_the_chunk_above_is_told_by_the_block_that_was_too_small() {
    let (_, fault) = faulty("overflow", &[]);
    assert_block("overflow", &fault, "overwritten", "owner_allocates", 104);
    assert!(is_by(&fault["by"], "wrong_call") && is_by(&fault["above"]["allocated"], "upper_neighbour"), "{fault:#}");
}

#[test]
fn what_was_written_after_its_free_is_told_by_who_had_the_block() {
    let (_, fault) = faulty("used_after_free", &[]);
    assert_block("used_after_free", &fault, "corrupted-lists", "owner_allocates", 5000);
    assert!(is_by(&fault["block"]["freed"]["by"], "first_frees"), "{fault:#}");
    assert!(is_by(&fault["by"], "wrong_malloc"), "{fault:#}");
}

#[test]
fn memory_of_the_stack_and_foreign_memory_belong_to_no_block() {
    for (way, kind) in [("on_stack", "on-stack"), ("foreign", "not-a-block")] {
        let (_, fault) = faulty(way, &[]);
        assert_eq!((fault["kind"].as_str(), &fault["block"]), (Some(kind), &Value::Null), "{fault:#}");
        assert!(is_by(&fault["by"], "wrong_call"), "{fault:#}");
    }
}

#[test]
fn a_check_fails_on_a_fault_that_the_program_survives() {
    let load = victim("faults.cpp", &["twice_large"]);
    let recording = load.record_with(&["--on-error", "report", "--check", "--fail-on", "none"]);
    assert_eq!(recording.status().code(), Some(23), "{}", recording.stderr());
    let output = support::xalloc().args(["check", "--format", "json"]).arg(&recording.trace.path).output();
    let output = output.expect("xalloc-report starts");
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    let fault = &document["result"]["runs"][0]["faults"][0];
    assert_eq!((fault["kind"].as_str(), number(fault, "times")), (Some("double-free"), 1));
    let name = |frames: &Value| frames[0]["function"].as_str().unwrap_or_default().to_owned();
    let block = &fault["block"];
    let names = [&fault["frames"], &block["allocated"], &block["freed"]].map(name);
    for (name, part) in names.iter().zip(["wrong_call", "owner_allocates", "first_frees"]) {
        assert!(name.contains(part), "{names:?}");
    }
}
