//! GitLab's code quality report: one issue for each leak that fails, and for each fault.
//!
//! GitLab compares the fingerprints of two pipelines and shows in a merge request what is added and what is mended. It
//! takes each fingerprint once, so a leak that several commands have is one issue.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use super::escape::printable;
use super::places::Spot;
use super::words::{fault_sentence, sentence};
use crate::check::{HEAP_FAULT_ID, Rule, Verdict};

#[derive(Serialize)]
struct Issue {
    description: String,
    check_name: &'static str,
    fingerprint: String,
    severity: &'static str,
    location: Location,
}

#[derive(Serialize)]
struct Location {
    path: String,
    lines: Lines,
}

#[derive(Serialize)]
struct Lines {
    begin: u32,
}

/// Writes the issues, biggest leak first; an empty list if nothing fails.
///
/// # Errors
/// Those of `out`.
pub fn write(verdict: &Verdict, out: &mut impl io::Write) -> io::Result<()> {
    let mut seen = BTreeSet::new();
    let mut issues = Vec::new();
    for (run, leak) in verdict.failing() {
        let fingerprint = format!("{}-{}", leak.class_name(), leak.fingerprint);
        if !seen.insert(fingerprint.clone()) {
            continue;
        }
        let spot = Spot::of(leak);
        issues.push(Issue {
            description: printable(&sentence(leak)).into_owned(),
            check_name: leak.rule().id(),
            fingerprint,
            severity: severity(leak.rule()),
            location: Location {
                path: spot.map_or_else(|| run.name.clone(), |spot| spot.path.to_owned()),
                lines: Lines { begin: spot.map_or(1, |spot| spot.line) },
            },
        });
    }
    for (run, fault) in verdict.runs.iter().flat_map(|run| run.faults.iter().map(move |fault| (run, fault))) {
        let fingerprint = format!("fault-{}", fault.fingerprint);
        if !seen.insert(fingerprint.clone()) {
            continue;
        }
        let spot = Spot::of_fault(fault);
        issues.push(Issue {
            description: printable(&fault_sentence(fault)).into_owned(),
            check_name: HEAP_FAULT_ID,
            fingerprint,
            severity: "blocker",
            location: Location {
                path: spot.map_or_else(|| run.name.clone(), |spot| spot.path.to_owned()),
                lines: Lines { begin: spot.map_or(1, |spot| spot.line) },
            },
        });
    }
    serde_json::to_writer_pretty(&mut *out, &issues)?;
    out.write_all(b"\n")
}

fn severity(rule: Rule) -> &'static str {
    match rule {
        Rule::Definite | Rule::Cycle => "critical",
        Rule::Possible | Rule::Growth | Rule::New => "major",
        Rule::Reachable => "minor",
    }
}
