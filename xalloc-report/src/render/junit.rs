//! JUnit's XML, as Jenkins, GitLab and most others read it.
//!
//! One suite a command. In it a case for the verdict itself, so that a clean run holds a case that passes; one for each
//! rule and each budget; one for each leak that fails, and one, skipped, for each that a suppression or the baseline
//! takes out. What could not be judged is an `error`, which those tools tell apart from a `failure`.
//!
//! There are no times in it: two runs with the same leaks give the same file.

use std::io;

use quick_xml::Writer;

use super::escape::printable;
use super::number::{count, counted};
use super::words::{budget_sentence, fault_lines, fault_sentence, sentence, stack_lines};
use super::xml::{Document, element, empty, text};
use crate::check::{
    Disposition, Fault, HEAP_FAULT_ID, INDETERMINATE_ID, Leak, Outcome, PROGRAM_FAILED_ID, Place, RuleLine, RunVerdict,
    Standing, Verdict,
};

/// A test case and what came of it.
struct Case {
    name: String,
    outcome: CaseOutcome,
}

enum CaseOutcome {
    Passed,
    Failed { kind: &'static str, message: String, details: String },
    Error { kind: &'static str, message: String },
    Skipped { message: String },
}

/// Writes the verdict.
///
/// # Errors
/// Those of `out`.
pub fn write(verdict: &Verdict, out: &mut impl io::Write) -> io::Result<()> {
    let suites: Vec<_> = verdict.runs.iter().map(|run| (run, cases(run))).collect();
    let all = || suites.iter().flat_map(|(_, cases)| cases);
    let mut xml = Document::begin(out)?;
    let counts = counts(all());
    // The root has no attribute for skipped cases.
    let attributes: Vec<_> = [("name", "xalloc".to_owned())].into_iter().chain(counts[..3].iter().cloned()).collect();
    element(&mut xml, "testsuites", &attributes, |xml| {
        suites.iter().try_for_each(|(run, cases)| suite(xml, run, cases))
    })?;
    xml.get_mut().write_all(b"\n")
}

fn suite<W: io::Write>(xml: &mut Writer<W>, run: &RunVerdict, cases: &[Case]) -> io::Result<()> {
    let name = [("name", run.command_line())];
    let attributes: Vec<_> = name.into_iter().chain(counts(cases.iter())).collect();
    element(xml, "testsuite", &attributes, |xml| cases.iter().try_for_each(|case| test_case(xml, run, case)))
}

fn test_case<W: io::Write>(xml: &mut Writer<W>, run: &RunVerdict, case: &Case) -> io::Result<()> {
    // Jenkins groups by what stands before the class name's last dot.
    let attributes = [("classname", format!("xalloc.{}", run.name)), ("name", case.name.clone())];
    let typed = |kind: &&'static str, message: &String| [("type", (*kind).to_owned()), ("message", message.clone())];
    if let CaseOutcome::Passed = case.outcome {
        return empty(xml, "testcase", &attributes);
    }
    element(xml, "testcase", &attributes, |xml| match &case.outcome {
        CaseOutcome::Passed => Ok(()),
        CaseOutcome::Failed { kind, message, details } => {
            element(xml, "failure", &typed(kind, message), |xml| text(xml, details))
        }
        CaseOutcome::Error { kind, message } => element(xml, "error", &typed(kind, message), |xml| text(xml, message)),
        CaseOutcome::Skipped { message } => empty(xml, "skipped", &[("message", message.clone())]),
    })
}

/// Tests, failures, errors, skipped.
fn counts<'a>(cases: impl Iterator<Item = &'a Case>) -> [(&'static str, String); 4] {
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    for case in cases {
        tests += 1;
        match case.outcome {
            CaseOutcome::Passed => {}
            CaseOutcome::Failed { .. } => failures += 1,
            CaseOutcome::Error { .. } => errors += 1,
            CaseOutcome::Skipped { .. } => skipped += 1,
        }
    }
    [("tests", tests), ("failures", failures), ("errors", errors), ("skipped", skipped)]
        .map(|(name, number): (_, u64)| (name, number.to_string()))
}

fn cases(run: &RunVerdict) -> Vec<Case> {
    let mut cases = vec![Case { name: "verdict".to_owned(), outcome: of_run(run) }];
    cases.extend(
        run.rules.iter().map(|line| Case { name: format!("rule: {}", line.rule.title()), outcome: of_rule(line) }),
    );
    cases.extend(run.budgets.iter().map(|line| {
        let message = budget_sentence(line);
        let outcome = match line.standing {
            Standing::Kept => CaseOutcome::Passed,
            Standing::Broken => CaseOutcome::Failed { kind: line.subject.id(), details: message.clone(), message },
            Standing::Unknown => CaseOutcome::Error { kind: INDETERMINATE_ID, message },
        };
        Case { name: format!("budget: {}", line.subject.title()), outcome }
    }));
    cases.extend(run.faults.iter().map(of_fault));
    cases.extend(run.leaks.iter().filter_map(of_leak));
    cases
}

fn of_run(run: &RunVerdict) -> CaseOutcome {
    let message = run.reasons.join("; ");
    match run.outcome {
        Outcome::Pass | Outcome::Fail => CaseOutcome::Passed,
        Outcome::Indeterminate => CaseOutcome::Error { kind: INDETERMINATE_ID, message },
        Outcome::ProgramFailed => CaseOutcome::Error { kind: PROGRAM_FAILED_ID, message },
    }
}

fn of_fault(fault: &Fault) -> Case {
    let at = fault.place().map_or_else(|| "unknown call stack".to_owned(), Place::name);
    let name = format!("{} [{}, {}]", fault.kind.title(), printable(&at), fault.program);
    let message = fault_sentence(fault);
    Case { name, outcome: CaseOutcome::Failed { kind: HEAP_FAULT_ID, details: fault_lines(fault), message } }
}

fn of_rule(line: &RuleLine) -> CaseOutcome {
    match line.standing {
        Standing::Kept => CaseOutcome::Passed,
        Standing::Broken => {
            let message = format!(
                "{} with {} B in {}",
                counted(line.leaks, "leak"),
                count(line.bytes),
                counted(line.blocks, "block")
            );
            CaseOutcome::Failed { kind: line.rule.id(), details: message.clone(), message }
        }
        Standing::Unknown => {
            let message = "not every process was checked for leaks".to_owned();
            CaseOutcome::Error { kind: INDETERMINATE_ID, message }
        }
    }
}

fn of_leak(leak: &Leak) -> Option<Case> {
    let name = format!("{}: {} [{}]", leak.rule().title(), printable(&leak.function()), leak.fingerprint);
    let outcome = match leak.disposition {
        Disposition::Fails => {
            CaseOutcome::Failed { kind: leak.rule().id(), message: sentence(leak), details: stack_lines(leak) }
        }
        Disposition::Suppressed => CaseOutcome::Skipped {
            message: format!("suppressed by {}", leak.suppressed_by.as_deref().unwrap_or("a suppression")),
        },
        Disposition::Known => CaseOutcome::Skipped { message: "in the baseline".to_owned() },
        Disposition::NotOwn | Disposition::Listed => return None,
    };
    Some(Case { name, outcome })
}
