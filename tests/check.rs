//! `check` on recorded programs: the reports as their own consumers read them, and the same report twice.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use support::victims::victim;
use support::{Recording, tool, xalloc};

fn recording() -> Recording {
    victim("totals.c", &[]).record()
}

fn check(recording: &Recording, words: &[&str]) -> Output {
    xalloc().arg("check").arg(&recording.trace).args(words).output().expect("it starts")
}

/// What `check` writes as reports of these kinds, into files beside the trace.
fn reports(recording: &Recording, kinds: &[&str], words: &[&str]) -> Vec<String> {
    let path = |kind: &&str| recording.beside(&format!("report.{kind}"));
    let all: Vec<_> = kinds.iter().map(|kind| format!("{kind}={}", path(kind).display())).collect();
    check(recording, &[&["--report", &all.join(",")], words].concat());
    kinds.iter().map(|kind| fs::read_to_string(path(kind)).unwrap_or_else(|error| panic!("{kind}: {error}"))).collect()
}

/// Fails on what is alive at exit, so that there is something to report.
const STRICT: &[&str] = &["--fail-on", "definite,cycle,possible,reachable,growth", "--max-alive-bytes", "1"];
const KINDS: &[&str] = &["text", "json", "junit", "sarif", "annotations", "summary", "codequality", "valgrind"];

#[test]
fn two_recordings_of_one_program_give_the_same_reports() {
    let [first, second] = [(), ()].map(|()| reports(&recording(), KINDS, STRICT));
    for ((kind, first), second) in KINDS.iter().zip(first).zip(second) {
        assert_eq!(first, second, "{kind}");
    }
}

/// Runs a script of Python's with the modules that it imports, or says why not.
fn python(module: &str, script: &str, report: &Path) -> Option<String> {
    let python = tool("python3")?;
    let has = Command::new(&python).args(["-c", &format!("import {module}")]).output().expect("python3 starts");
    if !has.status.success() {
        println!("skipped: python3 has no module {module}");
        return None;
    }
    let output = Command::new(python).args(["-c", script]).arg(report).output().expect("python3 starts");
    assert!(output.status.success(), "{module}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn junitparser_counts_what_the_verdict_says() {
    let recording = recording();
    reports(&recording, &["junit"], STRICT);
    let script = "import sys, junitparser\n\
                  for suite in junitparser.JUnitXml.fromfile(sys.argv[1]):\n\
                  \x20 print(suite.tests == len(list(suite)), suite.failures > 0)";
    if let Some(told) = python("junitparser", script, &recording.beside("report.junit")) {
        assert_eq!(told, "True True\n");
    }
}

#[test]
fn a_parser_of_valgrinds_xml_finds_the_leaks_with_their_source() {
    let recording = recording();
    let [json, _] = &reports(&recording, &["json", "valgrind"], STRICT)[..] else { panic!("two reports") };
    let json: Value = serde_json::from_str(json).expect("JSON");
    let leaks = support::list(&json["result"]["runs"][0], "leaks");
    let failing = leaks.iter().filter(|leak| leak["disposition"] == "fails").count();
    let script = "import sys\n\
                  from ValgrindCI.parse import ValgrindData\n\
                  data = ValgrindData()\n\
                  data.parse(sys.argv[1])\n\
                  print(data.get_num_errors(), all(error.stack for error in data.errors))";
    if let Some(told) = python("ValgrindCI", script, &recording.beside("report.valgrind")) {
        assert_eq!(told, format!("{failing} True\n"));
    }
}

#[test]
fn a_workflow_gets_annotations_and_its_summary_and_others_get_neither() {
    let recording = recording();
    let summary = recording.beside("summary.md");
    let run = |actions: &str| {
        let mut command = xalloc();
        command.env("GITHUB_ACTIONS", actions).env("GITHUB_STEP_SUMMARY", &summary);
        command.arg("check").arg(&recording.trace).args(["--fail-on", "none", "--max-alive-bytes", "1"]);
        let output = command.output().expect("it starts");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    assert!(!run("false").contains("::error") && !summary.exists());
    fs::write(&summary, "of the step before\n").expect("a summary");
    assert!(run("true").contains("::error title=memory budget::totals: bytes alive at exit"), "{}", run("true"));
    let written = fs::read_to_string(&summary).expect("the summary");
    assert!(written.starts_with("of the step before\n") && written.contains("**exceeded**"), "{written}");
}

/// Builds and runs a program of `source` as a build does, under `check`.
fn build_and_run(source: &str, words: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("tested.c"), source).expect("a source");
    let mut command = xalloc();
    command.current_dir(folder.path()).arg("check").args(words);
    command.args(["--", "sh", "-c", "cc -g -o tested tested.c && ./tested"]).output().expect("it starts")
}

#[test]
fn a_build_is_judged_by_what_it_built_and_not_by_its_tools() {
    // gcc's driver, the assembler and the linker leak.
    let clean = build_and_run("int main(void) { return 0; }", &[]);
    let told = String::from_utf8_lossy(&clean.stderr);
    assert_eq!(clean.status.code(), Some(0), "{told}");
    assert!(told.contains("of others: tools that ran on the way"), "{told}");
    let source = "#include <stdlib.h>\nvoid *volatile p; int main(void) { p = malloc(9); p = 0; return 0; }";
    let leaking = build_and_run(source, &["--format", "json"]);
    assert_eq!(leaking.status.code(), Some(1));
    let verdict: Value = serde_json::from_slice(&leaking.stderr).expect("JSON alone");
    let leaks = support::list(&verdict["result"]["runs"][0], "leaks");
    let failing: Vec<_> = leaks.iter().filter(|leak| leak["disposition"] == "fails").collect();
    assert!(matches!(failing[..], [leak] if leak["bytes"] == 9 && leak["programs"][0] == "tested"), "{failing:?}");
    let all = build_and_run("int main(void) { return 0; }", &["--own", "*"]);
    assert_eq!(all.status.code(), Some(1), "who asks for the tools' leaks gets them");
}
