//! A program that puts itself under a filter of system calls is not ended by ours.

mod support;

use serde_json::Value;
use support::{Load, functions, list, number, victims};

const THREADS: u64 = 4;
const BLOCKS_OF_A_THREAD: u64 = 20_000;
const COROUTINE_BLOCKS: u64 = 50;

fn calls(sites: &[Value]) -> u64 {
    sites.iter().map(|site| number(site, "allocations")).sum()
}

#[test]
fn a_program_that_dies_of_an_unexpected_system_call_lives_and_is_recorded_whole() {
    for way in ["prctl", "seccomp"] {
        let load = Load::new(victims::program("sandboxed.c"), &[way]);
        let plain = load.plain();
        assert_eq!(plain.status.code(), Some(7), "{way}: {plain:?}");
        let recording = load.record();
        assert_eq!(recording.status().code(), Some(7), "{way}: {}", recording.stderr());
        assert_eq!(String::from_utf8_lossy(&recording.output.stdout), "done\n");

        let summary = recording.summary();
        assert_eq!(number(&summary, "dropped_events"), 0);
        let top = recording.json("top", &["--by", "count"]);
        let sites = list(&top, "sites");
        let within = |function: &str| -> Vec<Value> {
            sites.iter().filter(|site| functions(site).iter().any(|name| name == function)).cloned().collect()
        };
        let in_threads = within("allocated_in_thread");
        assert_eq!(calls(&in_threads), THREADS * BLOCKS_OF_A_THREAD, "{way}");
        for site in &in_threads {
            let names = functions(site);
            assert!(names.iter().any(|name| name == "work"), "{way}: {names:?}");
            let began = ["main", "start_thread", "clone3", "clone"];
            assert!(names.iter().any(|name| began.iter().any(|start| name.contains(start))), "{way}: {names:?}");
        }
        let in_coroutine = within("allocated_in_coroutine");
        assert_eq!(calls(&in_coroutine), COROUTINE_BLOCKS, "{way}");
        assert!(in_coroutine.iter().all(|site| functions(site).iter().any(|name| name == "coroutine")), "{way}");

        let leaks = recording.json("leaks", &[]);
        assert!(leaks.to_string().contains("confined itself by a filter of system calls"), "{way}: {leaks}");
    }
}

#[test]
fn a_process_that_was_confined_before_it_became_this_program_is_not_checked() {
    let recording = Load::new(victims::program("confined_before.c"), &[]).record();
    assert_eq!(recording.status().code(), Some(7), "{}", recording.stderr());
    let leaks = recording.json("leaks", &[]).to_string();
    assert!(leaks.contains("the process is confined by a filter of system calls"), "{leaks}");
}
