//! The verdict as Markdown, for the summary of a workflow's step or a comment on a merge request.
//!
//! GitHub drops a summary of more than 1 MiB, so at most [`LEAKS_MAX`] leaks with [`FRAMES_MAX`] frames each are in it.

use std::fmt::Write;

use super::escape::printable;
use super::number::{bytes, count, counted};
use super::words::{fault_sentence, figure, measured, notes, sentence};
use crate::check::{Disposition, Outcome, RunVerdict, Standing, Verdict};

const LEAKS_MAX: usize = 50;
const FRAMES_MAX: usize = 30;

/// Renders the verdict.
#[must_use]
pub fn step_summary(verdict: &Verdict) -> String {
    let mut out = String::new();
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "## Memory check: {}\n", word(verdict.outcome));
    for run in &verdict.runs {
        of_run(&mut out, run, verdict.runs.len() > 1);
    }
    let failing = verdict.failing();
    if !failing.is_empty() {
        let _ = writeln!(out, "| leak | bytes | blocks | where | fingerprint |\n|---|--:|--:|---|---|");
        for (_, leak) in failing.iter().take(LEAKS_MAX) {
            let source = leak.place().and_then(|place| place.source()).map(|source| format!(" {}", cell(&source)));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {}{} | `{}` |",
                leak.rule().title(),
                bytes(leak.whole_bytes()),
                count(leak.whole_blocks()),
                code(&leak.function()),
                source.unwrap_or_default(),
                leak.fingerprint
            );
        }
        if failing.len() > LEAKS_MAX {
            let _ = writeln!(out, "\n… and {} more", count((failing.len() - LEAKS_MAX) as u64));
        }
        let _ = writeln!(out, "\n<details><summary>call stacks</summary>\n");
        for (_, leak) in failing.iter().take(LEAKS_MAX) {
            let _ = writeln!(out, "**{}** `{}`\n", cell(&sentence(leak)), leak.fingerprint);
            for place in leak.frames.iter().take(FRAMES_MAX) {
                let source = place.source().map(|source| format!(" {}", cell(&source))).unwrap_or_default();
                let _ = writeln!(out, "- {}{source}", code(&place.name()));
            }
            out.push('\n');
        }
        out.push_str("</details>\n");
    }
    let taken_out = |wanted| {
        verdict.runs.iter().flat_map(|run| &run.leaks).filter(|leak| leak.disposition == wanted).count() as u64
    };
    for (disposition, what) in [(Disposition::Suppressed, "suppressed"), (Disposition::Known, "in the baseline")] {
        let leaks = taken_out(disposition);
        if leaks > 0 {
            let _ = writeln!(out, "\n{} {what}", counted(leaks, "leak"));
        }
    }
    out
}

fn of_run(out: &mut String, run: &RunVerdict, named: bool) {
    if named {
        let _ = writeln!(out, "### {}: {}\n", code(&run.command_line()), word(run.outcome));
    }
    let faults = run.faults.iter().map(fault_sentence).collect::<Vec<_>>();
    let notes = notes(run);
    let told = || run.reasons.iter().chain(&faults).chain(&notes);
    for line in told() {
        let _ = writeln!(out, "- {}", cell(line));
    }
    if told().next().is_some() {
        out.push('\n');
    }
    if !run.budgets.is_empty() {
        let _ = writeln!(out, "| budget | value | limit | margin | |\n|---|--:|--:|--:|---|");
        for line in &run.budgets {
            let sign = if line.margin < 0 { "-" } else { "" };
            let [limit, margin] = [line.limit, line.margin.unsigned_abs()].map(|number| figure(line.unit, number));
            let value = measured(line);
            let standing = match line.standing {
                Standing::Kept => "kept",
                Standing::Broken => "**exceeded**",
                Standing::Unknown => "unknown",
            };
            let _ = writeln!(out, "| {} | {value} | {limit} | {sign}{margin} | {standing} |", line.subject.title());
        }
        out.push('\n');
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "✅ pass",
        Outcome::Fail => "❌ fail",
        Outcome::Indeterminate => "⚠️ indeterminate",
        Outcome::ProgramFailed => "❌ the program itself failed",
    }
}

/// Text in which nothing is markup.
fn cell(text: &str) -> String {
    let mut escaped = String::new();
    for letter in printable(text).chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '!' | '@' | '$' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A name in a monospaced face. HTML's element, because a backtick in a name would end Markdown's.
fn code(name: &str) -> String {
    format!("<code>{}</code>", cell(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_whatever_it_holds() {
        assert_eq!(cell("a|b `c` <img> *d* @user #1"), "a\\|b \\`c\\` &lt;img&gt; \\*d\\* \\@user \\#1");
        assert_eq!(code("operator`x`"), "<code>operator\\`x\\`</code>");
    }
}
