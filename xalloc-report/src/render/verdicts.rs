//! Four verdicts in every format: word for word as in `golden/verdict`, and read by each format's schema or rules.
//!
//! One fails, with names that try to break out of each format; one passes; one is of a program that
//! misused its heap; one could not be made. JUnit's schema is
//! that of Jenkins' xUnit plugin, SARIF's the one of the standard's editors; both are in `schema/third-party`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::golden::{assert_golden, path};
use super::text::Extent;
use super::{annotations, codequality, json, junit, sarif, step_summary, text, valgrind_xml};
use crate::check::{
    Baseline, Budgets, HEAP_FAULT_ID, Leak, Outcome, OwnCode, Policy, ProcessVerdict, Rule, RunEvidence, Selection,
    Suppressions, Verdict, judge,
};
use crate::model::sample::{Sample, checked_server, server};
use crate::trace::{Checked, Event, Finding, LeakClass, LiveChange, ProcessIndex, ScanOutcome};
use xalloc_core::wire::FaultKind;

fn policy() -> Policy {
    let mut suppressions = Suppressions::default();
    let file = "leak:plugin.so\nleak:never_seen\n# xalloc: expires 2026-01-31\nleak:cache\n";
    suppressions.read("lsan.supp", file).expect("a file of suppressions");
    Policy {
        fail_on: vec![Rule::Definite, Rule::Cycle, Rule::Possible],
        leaks_required: true,
        budgets: Budgets {
            max_leaked_bytes: Some(4_096),
            max_peak_bytes: Some(64 << 20),
            max_temporary: Some(5_000),
            ..Budgets::default()
        },
        own: OwnCode::of(&[], Some(PathBuf::from("/srv/app"))),
        suppressions,
        baseline: Some(Baseline::default()),
        today: "2026-11-22".parse().expect("a date"),
    }
}

fn findings(sample: &mut Sample) -> &mut Vec<Finding> {
    let ScanOutcome::Checked(Checked { findings, .. }) = &mut sample.contents.scans[0].outcome else {
        panic!("the sample was checked")
    };
    findings
}

/// Leaks of three kinds, one in a function with a hostile name, one suppressed.
fn failing() -> Verdict {
    let mut sample = checked_server();
    let [hostile, plugin, header] = [0, 8_192, 24].map(|size| sample.stack_of(size));
    let findings = findings(&mut sample);
    let lost = findings[0].clone();
    let bare = Finding { hint: None, ..lost };
    findings.push(Finding { stack: hostile, blocks: 1, bytes: 70, held_blocks: 2, held_bytes: 30, ..bare.clone() });
    findings.push(Finding { stack: plugin, blocks: 1, bytes: 8_192, ..bare.clone() });
    findings.push(Finding { stack: header, class: LeakClass::Possible, blocks: 1, bytes: 24, ..bare });
    judged(&sample)
}

fn passing() -> Verdict {
    let mut sample = checked_server();
    findings(&mut sample).clear();
    let mut policy = policy();
    policy.budgets.max_temporary = None;
    judge(vec![evidence(&sample, &policy)], &policy)
}

/// Nothing leaked, but a block was freed twice, in two places that are alike, and another one by its middle.
fn faulty() -> Verdict {
    let mut sample = checked_server();
    findings(&mut sample).clear();
    let [hostile, config] = [0, 30_720].map(|size| sample.stack_of(size));
    let stream = &mut sample.streams[0];
    let block_of = |size_bytes| {
        stream.entries.iter().find_map(|entry| match entry.event.live_change() {
            Some(LiveChange::Begins { block, .. }) if block.size_bytes == size_bytes => Some(block.addr),
            _ => None,
        })
    };
    let [freed, live] = [24, 1_000].map(|size| block_of(size).expect("the server has it"));
    for (stack, addr, kind) in [
        (hostile, freed, FaultKind::DoubleFree),
        (hostile, freed, FaultKind::DoubleFree),
        (config, live + 16, FaultKind::InsideBlock),
    ] {
        stream.push(0, stack, Event::Fault { addr, kind });
    }
    let mut policy = policy();
    policy.budgets.max_temporary = None;
    judge(vec![evidence(&sample, &policy)], &policy)
}

fn indeterminate() -> Verdict {
    let mut policy = policy();
    policy.budgets.max_temporary = None;
    judge(vec![evidence(&server(), &policy)], &policy)
}

fn evidence(sample: &Sample, policy: &Policy) -> RunEvidence {
    let Ok(run) = RunEvidence::of(sample, &[ProcessIndex(0)], &Selection::default(), policy.wanted());
    run
}

fn judged(sample: &Sample) -> Verdict {
    let policy = policy();
    judge(vec![evidence(sample, &policy)], &policy)
}

fn all() -> [(&'static str, Verdict); 4] {
    [("fail", failing()), ("pass", passing()), ("fault", faulty()), ("indeterminate", indeterminate())]
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).expect("writing to memory does not fail");
    String::from_utf8(out).expect("reports are UTF-8")
}

fn validator(of: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(path("schema").join(of)).expect("the schema is checked in");
    // SARIF's has a pattern with a bracket that nothing opens; JavaScript takes it for a letter.
    let text = text.replace("[a-zA-Z]{2}]?$", "[a-zA-Z]{2}\\\\]?$");
    let schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is a schema")
}

#[track_caller]
fn assert_valid(validator: &jsonschema::Validator, report: &str) {
    let report: Value = serde_json::from_str(report).expect("the report is JSON");
    let errors: Vec<_> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {report:#}");
}

#[test]
fn each_verdict_reads_as_agreed() {
    for (name, verdict) in all() {
        assert_golden(&format!("verdict/{name}.txt"), &text::check(&verdict, Extent::default()));
    }
}

#[test]
fn processes_that_pass_are_counted_and_only_the_others_have_a_line() {
    let of_one = |sample: &Sample, outcome| {
        let policy = policy();
        let verdict = judge(vec![evidence(sample, &policy)], &policy);
        ProcessVerdict { outcome, program: format!("{outcome:?}"), ..verdict.runs[0].processes[0].clone() }
    };
    let sample = checked_server();
    let mut verdict = passing();
    verdict.runs[0].processes = vec![of_one(&sample, Outcome::Pass); 1_200];
    let told = |verdict: &Verdict| anstream::adapter::strip_str(&text::check(verdict, Extent::default())).to_string();
    assert!(told(&verdict).contains("\n  pass: 1,200 processes\n") && !told(&verdict).contains("Pass"));
    verdict.runs[0].processes.push(of_one(&sample, Outcome::Fail));
    let text = told(&verdict);
    let lines: Vec<_> = text.lines().filter(|line| line.contains("Fail") || line.contains("Pass")).collect();
    assert!(matches!(lines[..], [line] if line.starts_with("  Fail  ")), "{text}");
    assert!(text.contains("\n  pass: 1,200 processes\n"));
}

#[test]
fn each_verdict_as_json_keeps_the_contract() {
    let contract = jsonschema::validator_for(&json::schema()).expect("the schema is a schema");
    for (name, verdict) in all() {
        let report = written(|out| json::write_verdict(&verdict, out));
        assert_valid(&contract, &report);
        assert!(!report.contains("0x"), "an address is in what is compared");
        assert_golden(&format!("verdict/{name}.json"), &report);
    }
}

#[test]
fn each_verdict_as_sarif_is_valid_by_the_standards_schema() {
    let standard = validator("third-party/sarif-2.1.0-rtm.5.json");
    for (name, verdict) in all() {
        let report = written(|out| sarif::write(&verdict, out));
        assert_valid(&standard, &report);
        assert_golden(&format!("verdict/{name}.sarif"), &report);
    }
    assert!(!standard.is_valid(&serde_json::json!({ "version": "2.1.0", "runs": [{ "tool": {} }] })));
}

#[test]
fn every_result_of_sarif_has_one_place_and_a_fingerprint_and_what_lies_in_the_tree_is_relative() {
    let report: Value = serde_json::from_str(&written(|out| sarif::write(&failing(), out))).expect("JSON");
    let results = report["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results.len(), 3, "one leak is suppressed");
    for result in results {
        assert_eq!(result["locations"].as_array().map(Vec::len), Some(1), "{result:#}");
        assert!(result["partialFingerprints"]["primaryLocationLineHash"].is_string());
    }
    let cache = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(cache["artifactLocation"]["uri"], "src/cache.cc");
    assert_eq!(cache["artifactLocation"]["uriBaseId"], "%SRCROOT%");
    let flow = results[0]["codeFlows"][0]["threadFlows"][0]["locations"].as_array().expect("a flow");
    let steps: Vec<_> = flow.iter().map(|step| step["location"]["message"]["text"].as_str()).collect();
    assert_eq!(steps, [Some("main"), Some("cache_insert")]);
}

#[test]
fn results_of_sarif_that_are_too_many_are_left_out_and_counted_and_faults_are_not_among_them() {
    let mut verdict = failing();
    verdict.runs[0].faults = faulty().runs[0].faults.clone();
    let leak = verdict.runs[0].failing().next().expect("it fails").clone();
    verdict.runs[0].leaks = vec![Leak { frames: Vec::new(), ..leak }; 25_000];
    let report = written(|out| sarif::write(&verdict, out));
    let report: Value = serde_json::from_str(&report).expect("SARIF is JSON");
    let results = report["runs"][0]["results"].as_array().expect("results");
    let faults = results.iter().filter(|result| result["ruleId"] == HEAP_FAULT_ID).count();
    assert_eq!((results.len(), faults), (25_000, 2));
    let notes = &report["runs"][0]["invocations"][0]["toolExecutionNotifications"];
    assert!(notes.to_string().contains("2 results were left out, the smallest leaks first"), "{notes}");
}

#[test]
fn each_verdict_as_junit_is_valid_by_jenkins_schema_and_a_clean_one_holds_a_case() {
    for (name, verdict) in all() {
        let report = written(|out| junit::write(&verdict, out));
        assert_golden(&format!("verdict/{name}.junit.xml"), &report);
        assert_xml(&report, Some("third-party/junit-10.xsd"));
        assert!(report.contains("<testcase"));
        assert_eq!(report.contains("<failure"), matches!(name, "fail" | "fault"), "{name}");
        assert_eq!(report.contains("<error"), name == "indeterminate", "{name}");
        assert_eq!(report.contains("<skipped"), name == "fail", "{name}");
    }
}

#[test]
fn each_verdict_in_valgrinds_format_is_well_formed_and_has_its_errors() {
    for (name, verdict) in all() {
        let report = written(|out| valgrind_xml::write(&verdict, out));
        assert_golden(&format!("verdict/{name}.valgrind.xml"), &report);
        assert_xml(&report, None);
        let errors = report.matches("<error>").count();
        assert_eq!(errors, if name == "fail" { 3 } else { 0 }, "{name}");
    }
}

/// Reads the document with xmllint, by a schema if there is one.
#[track_caller]
fn assert_xml(document: &str, schema: Option<&str>) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("report.xml");
    std::fs::write(&file, document).expect("the report is written");
    let mut command = Command::new("xmllint");
    command.args(["--noout", "--nonet"]);
    if let Some(schema) = schema {
        command.arg("--schema").arg(path("schema").join(schema));
    }
    match command.arg(&file).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("skipped: xmllint does not start: {error}"),
    }
}

#[test]
fn gitlabs_report_has_its_shape_and_each_fingerprint_once() {
    let shape = validator("codequality.schema.json");
    let mut twice = failing();
    twice.runs.push(twice.runs[0].clone());
    for (name, verdict) in all().into_iter().chain([("twice", twice)]) {
        let report = written(|out| codequality::write(&verdict, out));
        assert_valid(&shape, &report);
        let issues: Vec<Value> = serde_json::from_str(&report).expect("a list");
        let expected = match name {
            "fail" | "twice" => 3,
            "fault" => 2,
            _ => 0,
        };
        assert_eq!(issues.len(), expected, "{name}");
        if matches!(name, "fail" | "fault") {
            assert_golden(&format!("verdict/{name}.codequality.json"), &report);
        }
    }
}

#[test]
fn annotations_are_at_most_ten_lines_of_errors_and_nothing_for_a_pass() {
    assert_golden("verdict/fail.annotations", &annotations::annotations(&failing()));
    assert_golden("verdict/fault.annotations", &annotations::annotations(&faulty()));
    assert_golden("verdict/indeterminate.annotations", &annotations::annotations(&indeterminate()));
    assert_eq!(annotations::annotations(&passing()), "");
    let mut many = failing();
    for _ in 0..12 {
        let leak = many.runs[0].leaks[0].clone();
        many.runs[0].leaks.push(leak);
    }
    let told = annotations::annotations(&many);
    assert_eq!(told.lines().filter(|line| line.starts_with("::error ")).count(), 10);
    assert_eq!(told.lines().last(), Some("::notice title=xalloc::7 more, see the step's output"));
    assert!(told.lines().all(|line| line.starts_with("::")), "{told}");
}

#[test]
fn the_steps_summary_reads_as_agreed() {
    for (name, verdict) in all() {
        assert_golden(&format!("verdict/{name}.md"), &step_summary::step_summary(&verdict));
    }
}
