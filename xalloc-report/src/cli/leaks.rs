//! `leaks`: what was alive at exit, at a check before, or is in a running process.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{CountArgs, ExtentArgs, Format, FormatArgs, TraceArgs};
use super::opened::{gaps, open, or_salvaged};
use super::values::from_zero;
use super::{Console, Exit, Failure};
use crate::analysis;
use crate::check;
use crate::model::{Model, Recorded};
use crate::record::demand::{self, Made};
use crate::render::{json, text};
use crate::trace::Contents;

#[derive(Args, Debug)]
pub struct Leaks {
    /// Trace that `record` wrote
    #[arg(value_name = "TRACE", required_unless_present = "pid")]
    path: Option<PathBuf>,
    /// Only this process: its pid, or its number in the summary's table; otherwise all are added up
    #[arg(long, value_name = "PID|N", conflicts_with = "pid")]
    process: Option<u32>,
    /// Check this running process now, and show what is leaked; its recorder keeps the check in the trace
    #[arg(long, value_name = "PID", conflicts_with = "path")]
    pid: Option<u32>,
    /// What check number N found, whenever it was, instead of those at the ends of the processes
    #[arg(long, value_name = "N", conflicts_with_all = ["pid", "process"], value_parser = from_zero::<u64>)]
    check: Option<u64>,
    #[command(flatten)]
    extent: ExtentArgs,
    #[command(flatten)]
    format: FormatArgs,
}

impl Leaks {
    /// The trace that is asked about; none has a name where a running process is.
    pub(super) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// The running process that is asked about.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let asked = TraceArgs { path: self.path().to_owned(), process: self.process };
        let leaks = match self.check {
            None => {
                let model = asked.model(trace, CountArgs::usual())?;
                let mut leaks = analysis::leaks(trace.contents(), &model);
                for row in &model.processes {
                    leaks.add_growth(&analysis::growth(trace, row.process).map_err(|error| asked.unreadable(error))?);
                }
                leaks
            }
            Some(number) => found_by(trace, number, &asked)?,
        };
        self.show(leaks, trace.contents(), console)
    }

    /// Has the running process `pid` checked, and shows what came of that.
    pub(super) fn run_on_process(&self, pid: u32, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let Made { trace: path, check } = demand::ask(pid).map_err(|error| {
            let hint = error.hint();
            Failure::new(error).hint(hint)
        })?;
        // That it ends here is no damage: its recorder is still writing.
        let trace = open(&path)?.completed(|contents| contents.recording.salvage = None);
        or_salvaged(trace, &path, |trace| {
            let asked = TraceArgs { path: path.clone(), process: None };
            let leaks = found_by(trace, check, &asked)?;
            let exit = if leaks.checked { Exit::Success } else { Exit::Indeterminate };
            self.show(leaks, trace.contents(), console).map(|_| exit)
        })
    }

    fn show(
        &self,
        mut leaks: analysis::Leaks,
        contents: &Contents,
        console: &mut Console<'_>,
    ) -> Result<Exit, Failure> {
        for error in check::suppress(&mut leaks, contents) {
            writeln!(console.notes, "note: not used: {error}")?;
        }
        match self.format.format {
            Format::Human => console.out.write_all(text::leaks(&leaks, self.extent.into()).as_bytes())?,
            Format::Json => json::write(&leaks, &gaps(contents), &mut console.out)?,
        }
        Ok(Exit::Success)
    }
}

/// What the check of that number found, in its process.
fn found_by<R: Recorded>(trace: &R, number: u64, asked: &TraceArgs) -> Result<analysis::Leaks, Failure> {
    let contents = trace.contents();
    let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let Some(scan) = at.and_then(|at| contents.scans.get(at)) else {
        let error = anyhow::anyhow!("the trace has no check {number}");
        return Err(Failure::new(error).hint(match contents.scans.len() {
            0 => "it holds none; `leaks --pid PID` and the signal of `record --leak-check-on-demand` make some"
                .to_owned(),
            last => format!("it has checks 1 to {last}; `leaks` without the option lists those while a process ran"),
        }));
    };
    let settings = CountArgs::usual().into();
    let model = Model::of(trace, [scan.process], settings).map_err(|error| asked.unreadable(error))?;
    Ok(analysis::leaks_at(contents, &model, number))
}
