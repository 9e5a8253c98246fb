//! SARIF 2.1.0, as GitHub's code scanning takes it.
//!
//! A result is a leak that fails, or a fault. Its location is one place in a source file, its code flow the call stack from `main`
//! inwards, its partial fingerprint the one of the baseline, so that GitHub knows the leak again when lines move. What
//! has no place in a source (a budget, a run that could not be judged) is a notification of the invocation.
//!
//! # Why what is suppressed is not in it
//! SARIF has a field for it, which code scanning passes over: it would show such a leak as one to be mended.
//!
//! # Limits
//! GitHub refuses a file with more than 25,000 results or 10 MB when compressed. The smallest leaks are left out
//! beyond [`RESULTS_MAX`] results or [`BYTES_MAX`] bytes, and a notification says how many. JSON of this kind shrinks
//! more than tenfold.

use std::io;

use serde_json::{Value, json};

use super::escape::printable;
use super::places::Spot;
use super::words::{budget_sentence, fault_sentence, sentence};
use crate::analysis::Named;
use crate::check::{
    Fault, HEAP_FAULT_ID, INDETERMINATE_ID, Leak, Outcome, PROGRAM_FAILED_ID, Rule, RunVerdict, Standing, Verdict,
};

/// Most results in a file.
const RESULTS_MAX: usize = 25_000;
/// Most bytes of all results together.
const BYTES_MAX: usize = 64 << 20;
/// Most frames of a code flow, from the blamed one outwards and as many from it inwards.
const FRAMES_MAX: usize = 64;

/// Writes the verdict.
///
/// # Errors
/// Those of `out`.
pub fn write(verdict: &Verdict, out: &mut impl io::Write) -> io::Result<()> {
    let (results, left_out) = results(verdict);
    let mut notifications: Vec<_> = verdict.runs.iter().flat_map(of_run).collect();
    if left_out > 0 {
        notifications.push(notification(
            "warning",
            "xalloc/left-out",
            &format!("{left_out} results were left out, the smallest leaks first"),
        ));
    }
    let judged = verdict.runs.iter().all(|run| matches!(run.outcome, Outcome::Pass | Outcome::Fail));
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "xalloc",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": Rule::ALL.iter().map(|&rule| descriptor(rule)).chain([of_faults()]).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{ "executionSuccessful": judged, "toolExecutionNotifications": notifications }],
            "results": results,
        }],
    });
    serde_json::to_writer_pretty(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// Faults, then leaks, as many as a file may hold; and how many are left out.
fn results(verdict: &Verdict) -> (Vec<Value>, usize) {
    let leaks = verdict.failing();
    let faults = verdict.runs.iter().flat_map(|run| run.faults.iter().map(move |fault| (run, fault)));
    let wanted = faults.clone().count() + leaks.len();
    let all = faults.map(|(run, fault)| of_fault(run, fault)).chain(leaks.iter().map(|(run, leak)| result(run, leak)));
    let (mut results, mut bytes) = (Vec::new(), 0);
    for result in all.take(RESULTS_MAX) {
        bytes += result.to_string().len();
        if bytes > BYTES_MAX {
            break;
        }
        results.push(result);
    }
    let left_out = wanted - results.len();
    (results, left_out)
}

fn descriptor(rule: Rule) -> Value {
    json!({
        "id": rule.id(),
        "name": rule.name(),
        "shortDescription": { "text": rule.title() },
        "fullDescription": { "text": rule.help() },
        "help": { "text": rule.help() },
        "defaultConfiguration": { "level": level(rule) },
    })
}

fn level(rule: Rule) -> &'static str {
    match rule {
        Rule::Definite | Rule::Cycle => "error",
        Rule::Possible | Rule::Growth | Rule::New => "warning",
        Rule::Reachable => "note",
    }
}

fn result(run: &RunVerdict, leak: &Leak) -> Value {
    let rule = leak.rule();
    let index = Rule::ALL.iter().position(|known| *known == rule);
    let locations: Vec<_> =
        Spot::of(leak).map(|spot| json!({ "physicalLocation": physical(spot) })).into_iter().collect();
    let mut result = json!({
        "ruleId": rule.id(),
        "ruleIndex": index,
        "level": level(rule),
        "message": { "text": printable(&sentence(leak)) },
        "locations": locations,
        "partialFingerprints": {
            "primaryLocationLineHash": format!("{}:1", leak.fingerprint),
            "xallocFingerprint/v1": format!("{}:{}", leak.class_name(), leak.fingerprint),
        },
        "properties": { "command": run.command_line(), "bytes": leak.bytes, "blocks": leak.blocks, "programs": leak.programs },
    });
    let flow = flow(leak);
    if !flow.is_empty() {
        result["codeFlows"] = json!([{ "threadFlows": [{ "locations": flow }] }]);
    }
    result
}

/// The rule that no fault keeps.
fn of_faults() -> Value {
    let help =
        "The program gave the heap a pointer that is no block, or overwrote what the heap keeps between its blocks.";
    json!({
        "id": HEAP_FAULT_ID,
        "name": "fault",
        "shortDescription": { "text": "wrong use of the heap" },
        "fullDescription": { "text": help },
        "help": { "text": help },
        "defaultConfiguration": { "level": "error" },
    })
}

fn of_fault(run: &RunVerdict, fault: &Fault) -> Value {
    let locations: Vec<_> =
        Spot::of_fault(fault).map(|spot| json!({ "physicalLocation": physical(spot) })).into_iter().collect();
    json!({
        "ruleId": HEAP_FAULT_ID,
        "ruleIndex": Rule::ALL.len(),
        "level": "error",
        "message": { "text": printable(&fault_sentence(fault)) },
        "locations": locations,
        "partialFingerprints": { "xallocFingerprint/v1": format!("fault:{}", fault.fingerprint) },
        "properties": { "command": run.command_line(), "times": fault.times, "programs": [fault.program] },
    })
}

/// The stack from its outermost frame inwards, as far as frames have a source.
fn flow(leak: &Leak) -> Vec<Value> {
    let blamed = leak.blamed.unwrap_or_default() as usize;
    let (from, to) = (blamed.saturating_sub(FRAMES_MAX), leak.frames.len().min(blamed + FRAMES_MAX));
    let shown = leak.frames.get(from..to).unwrap_or_default().iter().rev();
    let steps = shown.filter_map(|place| {
        let spot = Spot::at(place)?;
        let message = json!({ "text": printable(&place.name()) });
        Some(json!({ "location": { "physicalLocation": physical(spot), "message": message } }))
    });
    steps.collect()
}

fn physical(spot: Spot<'_>) -> Value {
    let uri = uri(spot.path, spot.in_tree);
    // GitHub resolves what is relative to the root of the repository.
    let artifact = if spot.in_tree { json!({ "uri": uri, "uriBaseId": "%SRCROOT%" }) } else { json!({ "uri": uri }) };
    json!({ "artifactLocation": artifact, "region": { "startLine": spot.line } })
}

/// The path as a URI reference: what RFC 3986 does not allow in a path is percent-encoded.
fn uri(path: &str, relative: bool) -> String {
    let mut uri = String::with_capacity(path.len() + 8);
    if !relative && path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

fn of_run(run: &RunVerdict) -> Vec<Value> {
    let id = match run.outcome {
        Outcome::Pass | Outcome::Fail => None,
        Outcome::Indeterminate => Some(INDETERMINATE_ID),
        Outcome::ProgramFailed => Some(PROGRAM_FAILED_ID),
    };
    let doubts = id.into_iter().flat_map(|id| {
        run.reasons.iter().map(move |reason| notification("error", id, &format!("{}: {reason}", run.name)))
    });
    let budgets = run
        .budgets
        .iter()
        .filter(|line| line.standing != Standing::Kept)
        .map(|line| notification("error", line.subject.id(), &format!("{}: {}", run.name, budget_sentence(line))));
    doubts.chain(budgets).collect()
}

fn notification(level: &str, id: &str, text: &str) -> Value {
    json!({ "level": level, "descriptor": { "id": id }, "message": { "text": printable(text) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri_that_means_it() {
        assert_eq!(uri("src/a b#c%.cc", true), "src/a%20b%23c%25.cc");
        assert_eq!(uri("/usr/src/größe.c", false), "file:///usr/src/gr%C3%B6%C3%9Fe.c");
        assert_eq!(uri("a:b.c", true), "a%3Ab.c");
    }
}
