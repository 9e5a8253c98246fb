//! Annotations of a GitHub workflow: lines that its runner turns into marks beside the source.
//!
//! The runner shows ten errors of a step and drops the others without a word, so there are at most ten here, the
//! biggest leaks first, and a notice says how many more there are. Values are escaped as its toolkit does: `%`, CR and
//! LF everywhere, `:` and `,` in properties.

use std::fmt::Write;

use super::escape::printable;
use super::places::Spot;
use super::words::{budget_sentence, fault_sentence, sentence};
use crate::check::{Outcome, Standing, Verdict};

/// Errors of one step that GitHub shows.
pub const ERRORS_MAX: usize = 10;

/// Renders the errors, one a line; nothing for a verdict that passes.
#[must_use]
pub fn annotations(verdict: &Verdict) -> String {
    let mut errors = Vec::new();
    for run in &verdict.runs {
        let title = match run.outcome {
            Outcome::ProgramFailed => Some("the program failed"),
            Outcome::Indeterminate => Some("no verdict on the memory"),
            Outcome::Pass | Outcome::Fail => None,
        };
        if let Some(title) = title {
            errors.push(error(None, title, &format!("{}: {}", run.name, run.reasons.join("; "))));
        }
        for line in run.budgets.iter().filter(|line| line.standing == Standing::Broken) {
            errors.push(error(None, "memory budget", &format!("{}: {}", run.name, budget_sentence(line))));
        }
    }
    for fault in verdict.runs.iter().flat_map(|run| &run.faults) {
        let spot = Spot::of_fault(fault).filter(|spot| spot.in_tree);
        errors.push(error(spot, "heap fault", &fault_sentence(fault)));
    }
    for (_, leak) in verdict.failing() {
        // A file outside of the repository cannot be marked.
        let spot = Spot::of(leak).filter(|spot| spot.in_tree);
        errors.push(error(spot, leak.rule().title(), &sentence(leak)));
    }
    let more = errors.len().saturating_sub(ERRORS_MAX);
    errors.truncate(ERRORS_MAX);
    let mut out = errors.concat();
    if more > 0 {
        // Writing to a String does not fail.
        let _ = writeln!(out, "::notice title=xalloc::{more} more, see the step's output");
    }
    out
}

fn error(spot: Option<Spot<'_>>, title: &str, message: &str) -> String {
    let place = spot.map(|spot| format!("file={},line={},", property(spot.path), spot.line)).unwrap_or_default();
    format!("::error {place}title={}::{}\n", property(title), data(message))
}

/// What stands after the second pair of colons.
fn data(text: &str) -> String {
    printable(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_ends_the_command_or_begins_another() {
        let spot = Spot { path: "a,b:c%.cc", line: 3, in_tree: true };
        assert_eq!(
            error(Some(spot), "x", "100 % of foo::bar(a, b)\r\n::error::forged"),
            "::error file=a%2Cb%3Ac%25.cc,line=3,title=x::100 %25 of foo::bar(a, b)\\u{d}\\u{a}::error::forged\n"
        );
    }
}
