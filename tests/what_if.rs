//! What-if runs against reality: the simulated heap is the recorded one, and what it predicts is what happens.

mod support;

use serde_json::Value;
use support::victims::victim;
use support::{Load, list, number, tool};

/// What `what-if` says of a recording of `load`.
fn what_if(load: &Load, options: &[&str]) -> Value {
    load.record().json("what-if", options)
}

/// Fails unless every block of the recording is where the simulated heap has it.
fn is_identical(answer: &Value, least_blocks: u64) {
    assert!(number(&answer["fidelity"], "compared_blocks") >= least_blocks, "{}", answer["fidelity"]);
    assert_eq!(answer["fidelity"]["identical"], true, "{}", answer["fidelity"]["parting"]);
}

#[test]
fn the_simulated_heap_is_the_recorded_one_to_the_last_block_whatever_the_program_asks_for() {
    let load = victim("what_if/every_request.c", &[]);
    is_identical(&what_if(&load, &[]), 15_000);
}

#[test]
fn what_the_environment_sets_is_part_of_the_recording() {
    for (name, value) in [
        ("MALLOC_TOP_PAD_", "8192"),
        ("MALLOC_MMAP_THRESHOLD_", "20000"),
        ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=2:glibc.malloc.arena_max=1"),
    ] {
        let load = victim("what_if/every_request.c", &[]).env(name, value);
        is_identical(&what_if(&load, &[]), 15_000);
    }
}

#[test]
fn the_simulated_heap_of_a_real_program_is_the_recorded_one() {
    let script = "my %h; for my $i (1..20000) { $h{\"k$i\"} = 'v' x ($i % 50) }";
    let table = "create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where x<20000) \
                 insert into t select x,x*7 from c; create index i on t(b);";
    for (program, arguments) in
        [("perl", vec!["-e", script]), ("sqlite3", vec![":memory:", table]), ("git", vec!["help", "-a"])]
    {
        let Some(path) = tool(program) else { continue };
        is_identical(&what_if(&Load::new(path, &arguments), &[]), 50);
    }
}

#[test]
fn other_rules_lead_to_another_heap_and_the_same_rules_to_the_same() {
    let load = victim("story.c", &[]);
    let answer = what_if(&load, &["--set", "top_pad=0,trim_threshold=4K", "--set", "top_pad=128K", "--glibc", "2.36"]);
    let runs = list(&answer, "runs");
    let names: Vec<_> = runs.iter().map(|run| run["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["baseline", "top_pad=0,trim_threshold=4K", "top_pad=128K", "glibc=2.36"]);
    assert!(number(&runs[1], "peak_footprint_bytes") < number(&runs[0], "peak_footprint_bytes"));
    assert_eq!(number(&runs[3], "peak_footprint_bytes"), number(&runs[0], "peak_footprint_bytes"));
    assert_eq!(runs[0]["peak_change_bytes"], 0);
}
