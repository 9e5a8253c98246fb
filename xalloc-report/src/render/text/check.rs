//! The verdict on the budgets.

use std::fmt::Write;

use crate::check::{BudgetLine, Outcome, Subject, Verdict};
use crate::render::escape::printable;
use crate::render::number::{count, exact_bytes};
use crate::render::style::{ASIDE, BAD, DOUBT, FIGURE, GOOD, PLAIN};
use crate::render::table::{Table, left, right};

/// Renders the verdict.
#[must_use]
pub fn check(verdict: &Verdict) -> String {
    let (style, word) = match verdict.outcome {
        Outcome::Pass => (GOOD, "pass: every budget is kept"),
        Outcome::BudgetExceeded => (BAD, "FAIL: budget exceeded"),
        Outcome::Indeterminate => (DOUBT, "INDETERMINATE: this recording does not allow a verdict"),
        Outcome::ProgramFailed => (BAD, "FAIL: the program itself failed"),
    };
    let mut out = String::new();
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "{style}{word}{style:#}");
    for reason in &verdict.reasons {
        let _ = writeln!(out, "  {DOUBT}because{DOUBT:#} {}", printable(reason));
    }
    let mut table = Table::default();
    let titles = ["value", "limit", "margin"].map(|title| right(title, ASIDE));
    table.row([left("budget", ASIDE)].into_iter().chain(titles));
    for line in &verdict.budgets {
        table.row(row(line));
    }
    out.push('\n');
    table.write(&mut out, 2);
    out
}

fn row(line: &BudgetLine) -> [crate::render::table::Cell; 5] {
    let (name, figure): (_, fn(u64) -> String) = match line.subject {
        Subject::AliveAtExitBytes => ("bytes alive at exit", exact_bytes),
        Subject::AliveAtExitBlocks => ("blocks alive at exit", count),
        Subject::PeakLiveBytes => ("peak of live bytes", exact_bytes),
        Subject::Allocations => ("allocations", count),
    };
    let sign = if line.exceeded { "-" } else { "" };
    let (style, word) = if line.exceeded { (BAD, "exceeded") } else { (GOOD, "kept") };
    [
        left(name, PLAIN),
        right(figure(line.value), FIGURE),
        right(figure(line.limit), PLAIN),
        right(format!("{sign}{}", figure(line.margin.unsigned_abs())), PLAIN),
        left(word, style),
    ]
}
