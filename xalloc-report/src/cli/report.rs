//! The commands on a trace.

use std::path::Path;

use clap::{Args, Subcommand};

use super::args::{CountArgs, Format, FormatArgs, TraceArgs};
use super::chart::{Histogram, Timeline};
use super::events::Events;
use super::flamegraph::Flamegraph;
use super::fragmentation::Fragmentation;
use super::leaks::Leaks;
use super::opened::{gaps, losses, note, open, or_salvaged};
use super::ranking::Top;
use super::what_if::WhatIf;
use super::{Console, Exit, Failure};
use crate::analysis;
use crate::model::Recorded;
use crate::render::{json, text};
use crate::trace::Trace;

/// The commands on a trace.
#[derive(Subcommand, Debug)]
pub enum Report {
    /// The recording in about ten lines, and what to look at next
    Summary(Summary),
    /// What was alive at exit, by call stack; or what is leaked in a running process
    Leaks(Leaks),
    /// The call stacks that allocate most
    Top(Top),
    /// How sizes and lifetimes are spread
    Histogram(Histogram),
    /// Live bytes, heap bytes and allocation rate over time
    Timeline(Timeline),
    /// Who keeps the heap's memory: books, release ladder, pins by call site
    Fragmentation(Fragmentation),
    /// A flame graph as SVG
    Flamegraph(Flamegraph),
    /// The events themselves, one a line
    Events(Events),
    /// What the heap would have been under other rules: thresholds, releases of glibc, fixes
    WhatIf(WhatIf),
}

impl Report {
    fn path(&self) -> &Path {
        match self {
            Report::Summary(command) => &command.trace.path,
            Report::Leaks(command) => command.path(),
            Report::Top(command) => &command.trace.path,
            Report::Histogram(command) => &command.trace.path,
            Report::Timeline(command) => &command.trace.path,
            Report::Fragmentation(command) => &command.trace.path,
            Report::Flamegraph(command) => &command.trace.path,
            Report::Events(command) => &command.trace.path,
            Report::WhatIf(command) => &command.trace.path,
        }
    }

    /// Opens the trace that the command is about.
    ///
    /// # Errors
    /// When it is not there, or no trace.
    pub fn open(&self) -> Result<Trace, Failure> {
        open(self.path())
    }

    /// Does the work on the trace's file, and says what is missing from that. A damaged block, which is met only when the
    /// events are read, makes it a trace that ends there, as if it had been cut; `events` has written by then what lies
    /// before, and ends with the error.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::run`].
    pub fn run_on_file(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        if let Report::Leaks(command) = self
            && let Some(pid) = command.pid()
        {
            return command.run_on_process(pid, console);
        }
        let trace = self.open()?;
        match self {
            Report::Events(command) => {
                note(gaps(trace.contents()), console)?;
                command.run(&trace, console)
            }
            // It has them among its doubts.
            Report::Summary(_) => or_salvaged(trace, self.path(), |trace| self.run(trace, console)),
            Report::Leaks(_)
            | Report::Top(_)
            | Report::Histogram(_)
            | Report::Timeline(_)
            | Report::Fragmentation(_)
            | Report::WhatIf(_) => or_salvaged(trace, self.path(), |trace| {
                let exit = self.run(trace, console)?;
                note(losses(trace.contents()), console)?;
                Ok(exit)
            }),
            // What it writes is mostly a file.
            Report::Flamegraph(_) => or_salvaged(trace, self.path(), |trace| {
                let exit = self.run(trace, console)?;
                note(gaps(trace.contents()), console)?;
                Ok(exit)
            }),
        }
    }

    /// Does the work on an opened trace.
    ///
    /// # Errors
    /// When the trace turns out to be unreadable, or the output cannot be written.
    pub fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match self {
            Report::Summary(command) => command.run(trace, console),
            Report::Leaks(command) => command.run(trace, console),
            Report::Top(command) => command.run(trace, console),
            Report::Histogram(command) => command.run(trace, console),
            Report::Timeline(command) => command.run(trace, console),
            Report::Fragmentation(command) => command.run(trace, console),
            Report::Flamegraph(command) => command.run(trace, console),
            Report::Events(command) => command.run(trace, console),
            Report::WhatIf(command) => command.run(trace, console),
        }
    }
}

#[derive(Args, Debug)]
pub struct Summary {
    #[command(flatten)]
    trace: TraceArgs,
    #[command(flatten)]
    count: CountArgs,
    #[command(flatten)]
    format: FormatArgs,
}

impl Summary {
    fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let summary = analysis::summary(trace.contents(), &self.trace.brief(trace, self.count)?);
        match self.format.format {
            Format::Human => {
                let text = text::summary(&summary, Some(&self.trace.path.to_string_lossy()));
                console.out.write_all(text.as_bytes())?;
            }
            Format::Json => json::write(&summary, &gaps(trace.contents()), &mut console.out)?,
        }
        Ok(Exit::Success)
    }
}
