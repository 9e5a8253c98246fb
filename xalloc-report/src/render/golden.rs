//! Every report of two hand-made recordings, word for word, and the JSON of the same against the checked-in schema.
//!
//! The expected texts are in `golden/`, without styles. `XALLOC_WRITE_GOLDEN=1 cargo test` writes them anew, and the
//! schema with them; what changed is then read in the diff.

use std::path::PathBuf;

use serde_json::Value;

use super::text::Extent;
use super::{chart, json, text};
use crate::analysis::fragmentation::{At, Predict, fragmentation};
use crate::analysis::{self, EventView, EventWindow, Leaks, Named, Observer, Order, Quantity, Summary, WhatIf};
use crate::model::sample::{Sample, checked_server, fragmented, server, server_with_child};
use crate::model::{BUCKETS_MAX, Model, Recorded, Settings};
use crate::simulate::{self, Run};
use crate::trace::{Loss, Occasion, ProcessIndex, Scan, ScanOutcome};
use xalloc_core::wire::LossReason;

const ALL: Extent = Extent { sites: 10, frames: 8 };

fn replayed(sample: &Sample) -> Model {
    let all = (0..sample.streams.len() as u32).map(ProcessIndex);
    Model::of(sample, all, Settings::default()).expect("a sample has no errors")
}

fn summarised(sample: &Sample) -> Summary {
    analysis::summary(&sample.contents, &replayed(sample))
}

fn leaks(sample: &Sample) -> Leaks {
    let model = replayed(sample);
    let mut leaks = analysis::leaks(&sample.contents, &model);
    for row in &model.processes {
        leaks.add_growth(&analysis::growth(sample, row.process).expect("a sample has no errors"));
    }
    leaks
}

fn events(sample: &Sample) -> Vec<EventView> {
    let window = EventWindow::default();
    let mut events = Vec::new();
    let mut observer = Observer::of(&sample.contents, ProcessIndex(0), &window, |event| events.push(event));
    sample.replay(ProcessIndex(0), &mut observer).expect("a sample has no errors");
    events
}

/// The sample's first process under its own rules and two others. Its addresses are made up, so the heaps part.
fn what_if(sample: &Sample) -> WhatIf {
    let process = ProcessIndex(0);
    let requests = simulate::gather(sample, process).expect("a sample has no errors");
    let recorded = simulate::Settings::recorded(&sample.contents, &requests);
    let run = |list: &str| {
        let mut settings = recorded;
        if !list.is_empty() {
            settings.apply(list).expect("these are settings");
        }
        let name = if list.is_empty() { "baseline" } else { list };
        Run { name: name.to_owned(), requests: &requests, settings, compares: list.is_empty() }
    };
    let outcomes = simulate::run_all(&[run(""), run("top_pad=0,trim_threshold=4K"), run("glibc=2.41")]);
    WhatIf::of(sample, process, &requests, &recorded, &outcomes, &[]).expect("a sample has no errors")
}

pub(super) fn path(of: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(of)
}

#[track_caller]
pub(super) fn assert_golden(name: &str, shown: &str) {
    let shown = anstream::adapter::strip_str(shown).to_string();
    let path = path("golden").join(name);
    if std::env::var_os("XALLOC_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).expect("the golden directory is writable");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == shown, "{name} differs; it is now:\n{shown}");
    assert!(!shown.contains('\u{1b}'), "an escape of the program's got through");
    assert!(shown.lines().all(|line| !line.ends_with(' ')), "a line of {name} ends with a blank");
}

#[test]
fn the_summary_reads_as_agreed() {
    assert_golden("summary.txt", &text::summary(&summarised(&server()), Some("server.xtrace")));
}

#[test]
fn the_summary_of_several_processes_lists_each() {
    let mut sample = server_with_child();
    sample.contents.processes[1].losses = vec![Loss { reason: LossReason::RingFull, events: 7 }];
    sample.contents.recording.salvage = Some("cut after block 12".to_owned());
    assert_golden("summary-processes.txt", &text::summary(&summarised(&sample), Some("my server.xtrace")));
}

#[test]
fn what_was_alive_at_exit_reads_as_agreed() {
    let sample = server();
    assert_golden("leaks.txt", &text::leaks(&leaks(&sample), ALL));
}

#[test]
fn who_keeps_the_heap_reads_as_agreed() {
    let seen = fragmentation(&fragmented(), ProcessIndex(0), At::Exit, Predict::Always).expect("the books balance");
    assert_golden("fragmentation.txt", &text::fragmentation(&seen, ALL));
}

#[test]
fn leaks_with_their_classes_read_as_agreed() {
    let sample = checked_server();
    assert_golden("leaks-checked.txt", &text::leaks(&leaks(&sample), ALL));
}

#[test]
fn each_check_is_told_with_the_process_that_it_looked_at() {
    let mut sample = checked_server();
    let before = Scan { at_ns: 1_000_000, occasion: Occasion::Demand, ..sample.contents.scans[0].clone() };
    sample.contents.scans.push(before);
    let told = |leaks: &Leaks| anstream::adapter::strip_str(&text::leaks(leaks, ALL)).to_string();
    let text = told(&leaks(&sample));
    assert!(text.contains("check 2 of process 4242 at 1 ms: 3.9 KiB leaked in 4 blocks"), "{text}");
    let text = told(&analysis::leaks_at(&sample.contents, &replayed(&sample), 2));
    assert!(text.contains("alive at check 2 of process 4242, 1 ms: "), "{text}");
}

#[test]
fn a_clean_program_is_said_to_be_clean_and_nothing_more() {
    let mut sample = checked_server();
    if let ScanOutcome::Checked(checked) = &mut sample.contents.scans[0].outcome {
        checked.findings.clear();
    }
    for slot in sample.streams[0].live_slots() {
        sample.streams[0].free(0, slot);
    }
    assert_golden("leaks-none.txt", &text::leaks(&leaks(&sample), ALL));
}

#[test]
fn each_ranking_reads_as_agreed() {
    let sample = server();
    let model = replayed(&sample);
    let extent = Extent { sites: 2, frames: 2 };
    let all: Vec<_> =
        Order::ALL.iter().map(|&by| text::top(&analysis::top(&sample.contents, &model, by), extent)).collect();
    assert_golden("top.txt", &all.join("\n"));
}

#[test]
fn each_histogram_reads_as_agreed() {
    let model = replayed(&server());
    let all: Vec<_> = Quantity::ALL.iter().map(|&of| text::histogram(&analysis::histogram(&model, of))).collect();
    assert_golden("histogram.txt", &all.join("\n"));
}

#[test]
fn the_histogram_as_a_picture_is_as_agreed() {
    let model = replayed(&server());
    let histogram = analysis::histogram(&model, Quantity::Requested);
    assert_golden("histogram.svg", &chart::histogram(&histogram, "./server --port 80"));
}

#[test]
fn the_timeline_reads_as_agreed() {
    let view = analysis::timeline(&replayed(&server()), BUCKETS_MAX);
    assert_golden("timeline.txt", &text::timeline(&view, 80));
}

#[test]
fn events_tell_their_story_line_by_line() {
    let sample = server();
    let shown = events(&sample);
    let lines: String = shown[..6].iter().chain(&shown[shown.len() - 14..]).map(text::event).collect();
    assert_golden("events.txt", &lines);
}

#[test]
fn what_if_runs_read_as_agreed() {
    assert_golden("what-if.txt", &text::what_if(&what_if(&server()), 2));
}

fn schema() -> Value {
    let text = std::fs::read_to_string(path("schema/xalloc-report.schema.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn the_checked_in_schema_is_the_one_that_the_structs_have() {
    if std::env::var_os("XALLOC_WRITE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&json::schema()).expect("a schema is JSON");
        std::fs::write(path("schema/xalloc-report.schema.json"), text + "\n").expect("the directory is writable");
    }
    assert_eq!(schema(), json::schema(), "run XALLOC_WRITE_GOLDEN=1 cargo test and read the diff");
}

fn json_of<R: json::Report>(report: &R) -> Value {
    let mut out = Vec::new();
    json::write(report, &[], &mut out).expect("writing to memory does not fail");
    serde_json::from_slice(&out).expect("what was written is JSON")
}

#[test]
fn every_json_report_keeps_the_contract() {
    let schema = json::schema();
    let contract = jsonschema::validator_for(&schema).expect("the schema is a schema");
    for sample in [server(), server_with_child(), checked_server(), fragmented(), Sample::default()] {
        let model = replayed(&sample);
        let contents = &sample.contents;
        let mut reports = vec![
            json_of(&analysis::summary(contents, &model)),
            json_of(&leaks(&sample)),
            json_of(&analysis::timeline(&model, 50)),
        ];
        if !sample.streams.is_empty() {
            reports.push(json_of(&what_if(&sample)));
        }
        reports.extend(Order::ALL.iter().map(|&by| json_of(&analysis::top(contents, &model, by))));
        reports.extend(Quantity::ALL.iter().map(|&of| json_of(&analysis::histogram(&model, of))));
        if sample.contents.recording.command == ["./app"] {
            let seen = fragmentation(&sample, ProcessIndex(0), At::Peak, Predict::Always).expect("the books balance");
            reports.push(json_of(&seen));
        }
        for report in reports {
            let errors: Vec<_> = contract.iter_errors(&report).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?} in {report:#}");
        }
    }
}

#[test]
fn streamed_events_keep_the_contract_and_none_is_a_report_too() {
    let schema = json::schema();
    let contract = jsonschema::validator_for(&schema).expect("the schema is a schema");
    for shown in [events(&server()), Vec::new()] {
        let mut out = Vec::new();
        let mut stream =
            json::EventStream::begin(&mut out, &["a \"gap\"".to_owned()]).expect("writing to memory does not fail");
        for event in &shown {
            stream.event(event).expect("writing to memory does not fail");
        }
        stream.end().expect("writing to memory does not fail");
        let report: Value = serde_json::from_slice(&out).expect("what was written is JSON");
        assert_eq!(report["result"]["events"].as_array().map(Vec::len), Some(shown.len()));
        assert!(contract.is_valid(&report));
        assert_eq!(report["gaps"][0], "a \"gap\"");
    }
}

#[test]
fn a_report_of_the_wrong_shape_breaks_the_contract() {
    let schema = json::schema();
    let contract = jsonschema::validator_for(&schema).expect("the schema is a schema");
    let mut report = json_of(&summarised(&server()));
    report["result"]["allocations"] = Value::from("54");
    assert!(!contract.is_valid(&report));
    let mut report = json_of(&summarised(&server()));
    report.as_object_mut().expect("an object").remove("gaps");
    assert!(!contract.is_valid(&report));
}
