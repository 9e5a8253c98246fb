//! The verdict: what failed and where, every budget, every suppression.

use std::fmt::Write;

use super::Extent;
use crate::analysis::EndView;
use crate::check::{
    BudgetLine, Disposition, Fault, Leak, Outcome, ProcessVerdict, RunVerdict, Standing, SuppressionUse, Verdict,
};
use crate::render::escape::printable;
use crate::render::number::{bytes, count, counted};
use crate::render::style::{ASIDE, BAD, DOUBT, FIGURE, FUNCTION, GOOD, HEADING, PLAIN};
use crate::render::table::{Cell, Table, left, right};
use crate::render::words::{fault_sentence, fault_stacks, figure, measured, notes};

/// Renders the verdict.
#[must_use]
pub fn check(verdict: &Verdict, extent: Extent) -> String {
    let mut out = String::new();
    let (style, word) = words(verdict.outcome);
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "{style}{word}{style:#}");
    for run in &verdict.runs {
        if verdict.runs.len() > 1 {
            let (style, word) = words(run.outcome);
            let command = printable(&run.command_line()).into_owned();
            let _ = writeln!(out, "\n{HEADING}{command}{HEADING:#}: {style}{word}{style:#}");
        }
        of_run(&mut out, run, extent);
    }
    suppressions(&mut out, verdict);
    baseline(&mut out, verdict);
    out
}

fn words(outcome: Outcome) -> (anstyle::Style, &'static str) {
    match outcome {
        Outcome::Pass => (GOOD, "pass: every rule and budget is kept"),
        Outcome::Fail => (BAD, "FAIL: a rule or a budget is broken, or the heap was used wrongly"),
        Outcome::Indeterminate => (DOUBT, "INDETERMINATE: this recording does not allow a verdict"),
        Outcome::ProgramFailed => (BAD, "FAIL: the program itself failed"),
    }
}

fn of_run(out: &mut String, run: &RunVerdict, extent: Extent) {
    for reason in &run.reasons {
        let _ = writeln!(out, "  {DOUBT}because{DOUBT:#} {}", printable(reason));
    }
    for note in &notes(run) {
        let _ = writeln!(out, "  {ASIDE}note: {}{ASIDE:#}", printable(note));
    }
    if !run.rules.is_empty() {
        let mut table = Table::default();
        table.row([left("rule", ASIDE), right("leaks", ASIDE), right("bytes", ASIDE), right("blocks", ASIDE)]);
        for line in &run.rules {
            table.row([
                left(line.rule.title(), PLAIN),
                right(count(line.leaks), FIGURE),
                right(count(line.bytes), PLAIN),
                right(count(line.blocks), PLAIN),
                standing(line.standing, "broken"),
            ]);
        }
        out.push('\n');
        table.write(out, 2);
    }
    if !run.budgets.is_empty() {
        let mut table = Table::default();
        let titles = ["value", "limit", "margin"].map(|title| right(title, ASIDE));
        table.row([left("budget", ASIDE)].into_iter().chain(titles));
        run.budgets.iter().for_each(|line| table.row(budget(line)));
        out.push('\n');
        table.write(out, 2);
    }
    if run.processes.len() > 1 {
        let mut table = Table::default();
        // What exec replaced is there again as what it became.
        let lasting = run.processes.iter().filter(|process| process.end != EndView::Replaced);
        let (passing, others): (Vec<_>, Vec<_>) = lasting.partition(|process| process.outcome == Outcome::Pass);
        out.push('\n');
        if !others.is_empty() {
            table.row([left("process", ASIDE), left("verdict", ASIDE), right("leaks", ASIDE), right("bytes", ASIDE)]);
            others.into_iter().for_each(|process| table.row(of_process(process)));
            table.write(out, 2);
        }
        if !passing.is_empty() {
            let _ = writeln!(out, "  {GOOD}pass{GOOD:#}: {}", counted(passing.len() as u64, "process"));
        }
    }
    run.faults.iter().take(extent.sites).for_each(|fault| of_fault(out, fault, extent.frames));
    let more = run.faults.len().saturating_sub(extent.sites);
    if more > 0 {
        let _ = writeln!(out, "\n{ASIDE}… {}; --limit shows more{ASIDE:#}", counted(more as u64, "more fault"));
    }
    leaks(out, run, extent);
}

fn of_fault(out: &mut String, fault: &Fault, limit: usize) {
    let _ = writeln!(
        out,
        "\n{BAD}fault{BAD:#}  {}  {ASIDE}{}{ASIDE:#}",
        printable(&fault_sentence(fault)),
        fault.fingerprint
    );
    for (title, frames) in fault_stacks(fault) {
        let unknown = if frames.is_empty() { ": not known by which calls" } else { "" };
        let _ = writeln!(out, "  {title}{unknown}");
        let mut table = Table::default();
        for place in frames.iter().take(limit) {
            let source = place.source_or_module();
            table.row([left(printable(&place.name()), FUNCTION), left(printable(&source), ASIDE)]);
        }
        table.write(out, 4);
    }
}

fn of_process(process: &ProcessVerdict) -> [Cell; 5] {
    let (style, word) = match process.outcome {
        Outcome::Pass => (GOOD, "pass"),
        Outcome::Fail | Outcome::ProgramFailed => (BAD, "FAIL"),
        Outcome::Indeterminate => (DOUBT, "not known"),
    };
    let command = process.command.get(1..).unwrap_or_default().join(" ");
    let shown: String = format!("{} {command}", process.program).trim_end().chars().take(60).collect();
    let why = process.reasons.first().or(process.not_checked_reason.as_ref()).cloned().unwrap_or_default();
    [
        left(printable(&shown), PLAIN),
        left(word, style),
        right(count(process.leaks), FIGURE),
        right(count(process.bytes), PLAIN),
        left(printable(&why), ASIDE),
    ]
}

fn standing(standing: Standing, broken: &str) -> Cell {
    match standing {
        Standing::Kept => left("kept", GOOD),
        Standing::Broken => left(broken, BAD),
        Standing::Unknown => left("not known", DOUBT),
    }
}

fn budget(line: &BudgetLine) -> [Cell; 5] {
    let [limit, margin] = [line.limit, line.margin.unsigned_abs()].map(|value| figure(line.unit, value));
    let sign = if line.margin < 0 { "-" } else { "" };
    [
        left(line.subject.title(), PLAIN),
        right(measured(line), FIGURE),
        right(limit, PLAIN),
        right(format!("{sign}{margin}"), PLAIN),
        standing(line.standing, "exceeded"),
    ]
}

fn leaks(out: &mut String, run: &RunVerdict, extent: Extent) {
    let shown: Vec<_> = run.failing().take(extent.sites).collect();
    for (nth, leak) in shown.iter().enumerate() {
        let _ = writeln!(out, "\n{ASIDE}{}{ASIDE:#}  {}", nth + 1, heading(leak));
        stack(out, leak, extent.frames);
    }
    let more = run.failing().count() - shown.len();
    if more > 0 {
        let _ = writeln!(out, "\n{ASIDE}… {}; --limit shows more{ASIDE:#}", counted(more as u64, "more leak"));
    }
    for (disposition, what) in [
        (Disposition::Known, "in the baseline"),
        (Disposition::Suppressed, "suppressed"),
        (Disposition::NotOwn, "of others: tools that ran on the way, or without a frame of what --own names"),
        (Disposition::Listed, "that no rule asks about"),
    ] {
        let taken_out = || run.leaks.iter().filter(|leak| leak.disposition == disposition);
        let leaks = taken_out().count() as u64;
        if leaks > 0 {
            let sum = taken_out().fold(0u64, |sum, leak| sum.saturating_add(leak.whole_bytes()));
            let _ = writeln!(out, "\n{ASIDE}apart: {} with {} {what}{ASIDE:#}", counted(leaks, "leak"), bytes(sum));
        }
    }
}

fn heading(leak: &Leak) -> String {
    let mut text = format!(
        "{BAD}{}{BAD:#}  {FIGURE}{}{FIGURE:#} in {} by {}  {ASIDE}{}{ASIDE:#}",
        leak.rule().title(),
        bytes(leak.bytes),
        counted(leak.blocks, "block"),
        printable(&leak.call),
        leak.fingerprint
    );
    if leak.holds.blocks > 0 {
        let _ = write!(text, "  holds {} in {}", bytes(leak.holds.bytes), counted(leak.holds.blocks, "more block"));
    }
    if let Some(was) = &leak.baseline {
        let _ = write!(text, "  {DOUBT}grown from {} in {}{DOUBT:#}", bytes(was.bytes), counted(was.blocks, "block"));
    }
    if let Some(rate) = leak.growth_bytes_per_s {
        let _ = write!(text, "  {DOUBT}growing by {}/s{DOUBT:#}", bytes(rate));
    }
    text
}

fn stack(out: &mut String, leak: &Leak, limit: usize) {
    let mut table = Table::default();
    for (nth, place) in leak.frames.iter().enumerate().take(limit) {
        let mark = if leak.blamed == Some(nth as u32) { ">" } else { "" };
        let source = place.source_or_module();
        table.row([left(mark, BAD), left(printable(&place.name()), FUNCTION), left(printable(&source), ASIDE)]);
    }
    let hidden = leak.frames.len().saturating_sub(limit);
    if hidden > 0 {
        table.row([left("", PLAIN), left(format!("… {}", counted(hidden as u64, "more caller")), ASIDE)]);
    }
    if let Some(hint) = &leak.hint {
        table.row([left("", PLAIN), left(format!("hint: {hint}"), DOUBT)]);
    }
    if leak.programs.len() > 1 {
        table.row([left("", PLAIN), left(format!("in {}", printable(&leak.programs.join(", "))), ASIDE)]);
    }
    table.write(out, 4);
}

fn suppressions(out: &mut String, verdict: &Verdict) {
    if verdict.suppressions.is_empty() {
        return;
    }
    let mut table = Table::default();
    let titles = ["blocks", "bytes"].map(|title| right(title, ASIDE));
    table.row([left("suppression", ASIDE)].into_iter().chain(titles));
    for entry in &verdict.suppressions {
        table.row(suppression(entry));
    }
    out.push('\n');
    table.write(out, 2);
}

fn suppression(entry: &SuppressionUse) -> [Cell; 4] {
    let state = match (entry.expired, entry.blocks, entry.expires) {
        (true, _, Some(date)) => left(format!("expired after {date}"), BAD),
        (true, _, None) => left("expired", BAD),
        (false, 0, _) => left("never matched", DOUBT),
        (false, _, Some(date)) => left(format!("used, until {date}"), PLAIN),
        (false, _, None) => left("used", PLAIN),
    };
    [
        left(printable(&format!("{} ({}:{})", entry.name, entry.file, entry.line)), PLAIN),
        right(count(entry.blocks), FIGURE),
        right(count(entry.bytes), PLAIN),
        state,
    ]
}

fn baseline(out: &mut String, verdict: &Verdict) {
    let Some(met) = &verdict.baseline else { return };
    let _ = writeln!(
        out,
        "\nbaseline: {} known, {} missing from it, {} grown, {} not met",
        count(met.known),
        count(met.missing),
        count(met.grown),
        count(met.gone.len() as u64)
    );
    for entry in met.gone.iter().take(20) {
        let _ = writeln!(out, "  {ASIDE}not met: {}{ASIDE:#}", printable(entry));
    }
}
