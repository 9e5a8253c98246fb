//! Valgrind's XML, protocol 6: what CTest, Jenkins' valgrind plugin, CLion and Qt Creator read.
//!
//! A leak that fails is an `error` of memcheck's kinds; a ring counts as definitely lost, as it does there through its
//! leader. Suppressed leaks are in `suppcounts` and in the summaries. What the format has no word for (budgets, a run
//! that could not be judged) is in the preamble.
//!
//! Process ids and times are 0: readers want them to be there, and two equal runs are to give one file.

use std::io;

use quick_xml::Writer;

use super::words::{budget_sentence, fault_sentence};
use super::xml::{Document, element, leaf};
use crate::analysis::LeakSum;
use crate::check::{Disposition, Leak, Outcome, Place, Rule, Standing, Verdict};

/// Writes the verdict.
///
/// # Errors
/// Those of `out`.
pub fn write(verdict: &Verdict, out: &mut impl io::Write) -> io::Result<()> {
    let mut xml = Document::begin(out)?;
    element(&mut xml, "valgrindoutput", &[], |xml| {
        leaf(xml, "protocolversion", 6)?;
        leaf(xml, "protocoltool", "memcheck")?;
        preamble(xml, verdict)?;
        leaf(xml, "pid", 0)?;
        leaf(xml, "ppid", 0)?;
        leaf(xml, "tool", "memcheck")?;
        arguments(xml, verdict)?;
        status(xml, "RUNNING")?;
        status(xml, "FINISHED")?;
        heap_summary(xml, verdict)?;
        let failing = verdict.failing();
        for (nth, (_, leak)) in failing.iter().enumerate() {
            error(xml, nth, failing.len(), leak)?;
        }
        leak_summary(xml, verdict)?;
        element(xml, "errorcounts", &[], |xml| {
            (0..failing.len()).try_for_each(|nth| pair(xml, 1, "unique", &format!("0x{nth:x}")))
        })?;
        let used = || verdict.suppressions.iter().filter(|entry| entry.blocks > 0);
        element(xml, "suppcounts", &[], |xml| {
            used().try_for_each(|entry| pair(xml, entry.blocks, "name", &entry.name))
        })?;
        element(xml, "error_summary", &[], |xml| {
            leaf(xml, "errors", failing.len())?;
            leaf(xml, "error_contexts", failing.len())?;
            leaf(xml, "suppressed", suppressed(verdict).blocks)?;
            leaf(xml, "suppressed_contexts", used().count())
        })
    })?;
    xml.get_mut().write_all(b"\n")
}

fn preamble<W: io::Write>(xml: &mut Writer<W>, verdict: &Verdict) -> io::Result<()> {
    element(xml, "preamble", &[], |xml| {
        leaf(xml, "line", format!("xalloc {}, in valgrind's format", env!("CARGO_PKG_VERSION")))?;
        for run in &verdict.runs {
            let outcome = match run.outcome {
                Outcome::Pass => "pass",
                Outcome::Fail => "fail",
                Outcome::Indeterminate => "indeterminate",
                Outcome::ProgramFailed => "the program itself failed",
            };
            leaf(xml, "line", format!("Command: {}: {outcome}", run.command_line()))?;
            run.reasons.iter().try_for_each(|reason| leaf(xml, "line", reason))?;
            run.faults.iter().map(fault_sentence).try_for_each(|line| leaf(xml, "line", line))?;
            let broken = run.budgets.iter().filter(|line| line.standing != Standing::Kept);
            broken.map(budget_sentence).try_for_each(|line| leaf(xml, "line", line))?;
        }
        Ok(())
    })
}

fn arguments<W: io::Write>(xml: &mut Writer<W>, verdict: &Verdict) -> io::Result<()> {
    element(xml, "args", &[], |xml| {
        element(xml, "vargv", &[], |xml| leaf(xml, "exe", "xalloc-report"))?;
        element(xml, "argv", &[], |xml| {
            // One document has room for one command.
            let mut words = verdict.runs.first().map(|run| run.command.iter()).into_iter().flatten();
            leaf(xml, "exe", words.next().map(String::as_str).unwrap_or_default())?;
            words.try_for_each(|word| leaf(xml, "arg", word))
        })
    })
}

fn status<W: io::Write>(xml: &mut Writer<W>, state: &str) -> io::Result<()> {
    element(xml, "status", &[], |xml| {
        leaf(xml, "state", state)?;
        leaf(xml, "time", "00:00:00:00.000")
    })
}

fn heap_summary<W: io::Write>(xml: &mut Writer<W>, verdict: &Verdict) -> io::Result<()> {
    let sum = |of: fn(&crate::check::Figures) -> u64| {
        verdict.runs.iter().fold(0u64, |sum, run| sum.saturating_add(of(&run.figures)))
    };
    let in_use = LeakSum { bytes: sum(|of| of.alive_at_exit.bytes), blocks: sum(|of| of.alive_at_exit.blocks) };
    element(xml, "heap_summary", &[], |xml| {
        amount(xml, "memory_in_use_at_exit", "blocks", in_use)?;
        element(xml, "total_heap_usage", &[], |xml| {
            leaf(xml, "allocs", sum(|of| of.allocations))?;
            leaf(xml, "frees", sum(|of| of.frees))?;
            leaf(xml, "bytes_allocated", sum(|of| of.allocated_bytes))
        })
    })?;
    leaf(xml, "all_heap_blocks_freed", in_use.blocks == 0)
}

fn leak_summary<W: io::Write>(xml: &mut Writer<W>, verdict: &Verdict) -> io::Result<()> {
    let mut of = crate::analysis::LeakTotals::default();
    verdict.runs.iter().for_each(|run| of.absorb(&run.figures.classes));
    let mut definite = of.definite;
    definite.add(of.cycle.bytes, of.cycle.blocks);
    element(xml, "leak_summary", &[], |xml| {
        for (name, sum) in [
            ("definitely_lost", definite),
            ("indirectly_lost", of.indirect),
            ("possibly_lost", of.possible),
            ("still_reachable", of.reachable),
            ("suppressed", suppressed(verdict)),
        ] {
            amount(xml, name, "in_blocks", sum)?;
        }
        Ok(())
    })
}

fn suppressed(verdict: &Verdict) -> LeakSum {
    let mut sum = LeakSum::default();
    let leaks = verdict.runs.iter().flat_map(|run| &run.leaks);
    leaks
        .filter(|leak| leak.disposition == Disposition::Suppressed)
        .for_each(|leak| sum.add(leak.whole_bytes(), leak.whole_blocks()));
    sum
}

fn amount<W: io::Write>(xml: &mut Writer<W>, name: &str, blocks: &str, sum: LeakSum) -> io::Result<()> {
    element(xml, name, &[], |xml| {
        leaf(xml, "bytes", sum.bytes)?;
        leaf(xml, blocks, sum.blocks)
    })
}

fn pair<W: io::Write>(xml: &mut Writer<W>, count: u64, name: &str, value: &str) -> io::Result<()> {
    element(xml, "pair", &[], |xml| {
        leaf(xml, "count", count)?;
        leaf(xml, name, value)
    })
}

fn error<W: io::Write>(xml: &mut Writer<W>, nth: usize, of: usize, leak: &Leak) -> io::Result<()> {
    let (kind, words) = match leak.rule() {
        Rule::Definite | Rule::Cycle | Rule::New => ("Leak_DefinitelyLost", "definitely lost"),
        Rule::Possible => ("Leak_PossiblyLost", "possibly lost"),
        Rule::Reachable | Rule::Growth => ("Leak_StillReachable", "still reachable"),
    };
    element(xml, "error", &[], |xml| {
        leaf(xml, "unique", format!("0x{nth:x}"))?;
        leaf(xml, "tid", 1)?;
        leaf(xml, "kind", kind)?;
        element(xml, "xwhat", &[], |xml| {
            let (bytes, blocks) = (leak.whole_bytes(), leak.whole_blocks());
            leaf(
                xml,
                "text",
                format!("{bytes} bytes in {blocks} blocks are {words} in loss record {} of {of}", nth + 1),
            )?;
            leaf(xml, "leakedbytes", bytes)?;
            leaf(xml, "leakedblocks", blocks)
        })?;
        element(xml, "stack", &[], |xml| {
            // The allocator's own frame, which valgrind's readers skip.
            element(xml, "frame", &[], |xml| {
                leaf(xml, "ip", "0x0")?;
                leaf(xml, "fn", &leak.call)
            })?;
            leak.frames.iter().try_for_each(|place| frame(xml, place))
        })
    })
}

fn frame<W: io::Write>(xml: &mut Writer<W>, place: &Place) -> io::Result<()> {
    element(xml, "frame", &[], |xml| {
        leaf(xml, "ip", &place.address)?;
        if let Some(module) = &place.module {
            leaf(xml, "obj", module)?;
        }
        if let Some(function) = &place.function {
            leaf(xml, "fn", function)?;
        }
        // Readers take a directory for whole, and expect a file and a line with it.
        match (&place.path, place.line) {
            (Some(path), Some(line)) => {
                let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
                if !directory.is_empty() {
                    leaf(xml, "dir", directory)?;
                }
                leaf(xml, "file", name)?;
                leaf(xml, "line", line)
            }
            (Some(path), None) => leaf(xml, "file", path.rsplit('/').next().unwrap_or(path)),
            (None, _) => Ok(()),
        }
    })
}
