//! What programs say to their recordings by `xalloc.h` and by `xalloc_core::client`: marks, pauses, what to ignore, what is
//! a root, when to check.

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use support::victims::victim;
use support::{Recording, functions, list, number, xalloc};

/// The class of the only site of that many bytes, and its innermost function.
fn site(recording: &Recording, bytes: u64) -> (String, String) {
    let leaks = recording.json("leaks", &[]);
    assert_eq!(leaks["checked"], true, "{}", leaks["not_checked_reason"]);
    let sites: Vec<Value> = list(&leaks, "sites").into_iter().filter(|site| site["bytes"] == bytes).collect();
    let [site] = &sites[..] else { panic!("{} sites of {bytes} bytes", sites.len()) };
    (site["class"].as_str().unwrap_or("none").to_owned(), functions(site).first().cloned().unwrap_or_default())
}

/// What the program was told, or what its checks found.
fn assert_told(recording: &Recording, told: &str) {
    let printed = String::from_utf8_lossy(&recording.output.stdout);
    assert_eq!(printed, told, "{}", String::from_utf8_lossy(&recording.run::<&str>("leaks", &[]).stdout));
}

fn names(recording: &Recording, options: &[&str]) -> Vec<String> {
    let events = list(&recording.json("events", &[&["--kind", "marker"], options].concat()), "events");
    events.iter().map(|event| event["text"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn marks_are_events_and_stand_in_the_timeline() {
    let recording = victim("client.c", &["marks"]).record();
    let long = "x".repeat(1000);
    let all = ["begin", "half ü", "end", "begin", &long];
    assert_eq!(names(&recording, &[]), all);
    let timeline = recording.json("timeline", &[]);
    let told: Vec<_> =
        list(&timeline, "marks").iter().map(|mark| mark["name"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!((told, number(&timeline, "marks_in_all")), (all.map(str::to_owned).to_vec(), 5));
    let text = String::from_utf8(recording.run("timeline", &["--width", "80"]).stdout).expect("text");
    assert!(text.contains('▲') && text.contains("half ü"), "{text}");
    assert_eq!(recording.summary()["dropped_events"], 0, "a name that is cut is no loss");
}

#[test]
fn a_window_of_events_begins_and_ends_at_marks() {
    let recording = victim("client.c", &["marks"]).record();
    assert_eq!(names(&recording, &["--from", "marker:half ü", "--to", "marker:end"]), ["half ü", "end"]);
    let window = recording.json("events", &["--kind", "alloc,free", "--from", "marker:begin", "--to", "marker:half ü"]);
    let sizes: Vec<_> = list(&window, "events").iter().map(|event| number(event, "size")).collect();
    assert_eq!(sizes, [1000]);
    for window in [&["--from", "marker:never"] as &[&str], &["--from", "marker:begin", "--to", "marker:never"]] {
        let nowhere = xalloc().arg("events").arg(&recording.trace).args(window).output().expect("it starts");
        assert_eq!(nowhere.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&nowhere.stderr).contains("there is no mark named `never`"), "{window:?}");
    }
}

#[test]
fn a_pause_takes_call_stacks_away_and_makes_no_wrong_verdicts() {
    let recording = victim("client.c", &["pause"]).record();
    let paused = "[recording paused]".to_owned();
    let leaks = recording.json("leaks", &[]);
    let of_pause: Vec<_> =
        list(&leaks, "sites").into_iter().filter(|site| functions(site) == [paused.clone()]).collect();
    // What the thread's start allocated for libc is among them.
    let bytes: u64 = of_pause.iter().map(|site| number(site, "bytes")).sum();
    assert!(bytes >= 7777 + 3333 + 4444, "{of_pause:?}");
    assert!(of_pause.iter().all(|site| site["class"] == "reachable"), "{of_pause:?}");
    assert_eq!(site(&recording, 2222), ("reachable".to_owned(), "made".to_owned()), "held by a block of the pause");
    assert_eq!(site(&recording, 6666), ("definite".to_owned(), "made".to_owned()), "lost after the pause");
    assert!(list(&leaks, "sites").iter().all(|site| site["bytes"] != 1111), "freed in the pause");
    assert_eq!(names(&recording, &[]), ["recording paused", "recording resumed"]);
    let summary = recording.summary();
    let alive = number(&summary, "allocations") - number(&summary, "frees");
    assert_eq!(alive, number(&summary, "live_at_exit_blocks"), "every allocation and every free is counted");
}

#[test]
fn a_program_ignores_names_roots_and_asks() {
    let recording = victim("client.c", &["ask"]).record();
    assert_told(&recording, "0 1\n");
    for (bytes, class) in [(7777, "reachable"), (3333, "reachable"), (5555, "definite"), (2222, "reachable")] {
        assert_eq!(site(&recording, bytes).0, class, "{bytes}");
    }
    assert_eq!(String::from_utf8_lossy(&victim("client.c", &["ask"]).plain().stdout), "0 0\n");
}

#[test]
fn a_rust_program_says_the_same() {
    let load = victim("client_rust.rs", &[]);
    assert_eq!(String::from_utf8_lossy(&load.plain().stdout), "false false\n");
    let recording = load.record();
    assert_told(&recording, "false true\n");
    assert_eq!(names(&recording, &[]), ["begin", "recording paused", "recording resumed", "end"]);
    assert_eq!(site(&recording, 7777), ("reachable".to_owned(), "[recording paused]".to_owned()));
    for (bytes, class) in [(3333, "reachable"), (2222, "reachable"), (6666, "definite")] {
        assert_eq!(site(&recording, bytes).0, class, "{bytes}");
    }
}

#[test]
fn the_header_is_printed_as_it_is() {
    let printed = xalloc().args(["generate", "header"]).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&printed.stdout), include_str!("../xalloc-preload/include/xalloc.h"));
}
