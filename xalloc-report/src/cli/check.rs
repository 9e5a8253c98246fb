//! `check`: the verdict on traces, or on a command that is recorded for it, and an exit code that a build can act on.
//!
//! Settings come from four places ([`settings`]), are read into a policy ([`policy`]), and the verdict goes to the
//! terminal and into as many reports as were asked for ([`reports`]). `record --check` judges by the same.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{ExtentArgs, Format, FormatArgs, processes_of, unreadable};
use super::opened::{open, or_salvaged};
use super::recording::RecordingArgs;
use super::{Console, Exit, Failure};
use crate::check::{Outcome, Policy, RunEvidence, Selection, Verdict, accepted, judge};
use crate::model::Recorded;
use crate::render::json;
use crate::render::text::{self, Extent};
use crate::trace::ProcessIndex;

mod command;
mod config;
mod flags;
mod policy;
mod reports;
mod settings;
#[cfg(test)]
mod tests;

pub(super) use command::doubts;
pub(super) use flags::SettingArgs;

use policy::MissingBaseline;
use reports::Report;
use settings::Settings;

/// Judge recordings by leaks and budgets; for continuous integration
///
/// `check TRACE…` judges traces, `check -- COMMAND` records the command with its children and judges that.
#[derive(Args, Debug)]
pub struct Check {
    /// Traces that `record` wrote
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Only this process: its pid, or its number in the summary's table
    #[arg(long, value_name = "PID|N", conflicts_with = "command")]
    process: Option<u32>,
    /// Show every setting with where it comes from, and check nothing
    #[arg(long)]
    print_config: bool,
    /// Keep the trace of COMMAND here; a file that exists is replaced [default: it is not kept]
    #[arg(long, value_name = "FILE", requires = "command")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    extent: ExtentArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    recording: RecordingArgs,
    /// Command to record and judge; leading NAME=value words are its environment
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "traces")]
    command: Vec<OsString>,
}

impl Check {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let here = std::env::current_dir()?;
        if self.print_config {
            let settings = Settings::gather(&self.settings, variable, &here)?;
            console.out.write_all(settings.shown().as_bytes())?;
            return Ok(Exit::Success);
        }
        if self.traces.is_empty() && self.command.is_empty() {
            let failure =
                Failure::new(anyhow::anyhow!("there is nothing to check: neither a trace nor a command was named"));
            return Err(failure.hint("name a trace, or a command after --: xalloc-report check -- ./app"));
        }
        let judge = Judge::of(&self.settings, &here)?;
        let runs = if self.command.is_empty() {
            self.traces.iter().map(|path| judge.read(path, self.process)).collect::<Result<_, _>>()?
        } else {
            vec![command::evidence(self.recording.props(&self.command)?, self.trace.as_deref(), &judge, console)?]
        };
        let verdict = judge.verdict(runs, console)?;
        let extent = self.extent.into();
        // Standard output is the command's own.
        let out: &mut dyn Write = if self.command.is_empty() { &mut *console.out } else { &mut *console.notes };
        print(&verdict, self.format.format, extent, out)?;
        judge.report(&verdict, extent, console)?;
        Ok(exit(verdict.outcome))
    }
}

/// The exit code of a verdict.
fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Pass => Exit::Success,
        Outcome::Fail => Exit::CheckFailed,
        Outcome::Indeterminate => Exit::Indeterminate,
        Outcome::ProgramFailed => Exit::ProgramFailed,
    }
}

fn print(verdict: &Verdict, format: Format, extent: Extent, mut out: &mut dyn Write) -> Result<(), Failure> {
    match format {
        Format::Human => out.write_all(text::check(verdict, extent).as_bytes())?,
        Format::Json => json::write_verdict(verdict, &mut out)?,
    }
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Everything that a verdict is made by and written to.
#[derive(Debug)]
pub(super) struct Judge {
    policy: Policy,
    selection: Selection,
    reports: Vec<Report>,
    /// Where the baseline is to be written.
    update: Option<PathBuf>,
}

impl Judge {
    /// By these flags and what stands behind them.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub(super) fn of(args: &SettingArgs, here: &Path) -> Result<Judge, Failure> {
        let settings = Settings::gather(args, variable, here)?;
        let missing = if args.update_baseline { MissingBaseline::IsEmpty } else { MissingBaseline::IsAnError };
        Ok(Judge {
            policy: policy::policy(&settings, missing, here)?,
            selection: policy::selection(&settings),
            reports: Report::all(&settings)?,
            update: settings.get("baseline").one().filter(|_| args.update_baseline).map(PathBuf::from),
        })
    }

    /// What a trace gives.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn evidence<R: Recorded>(&self, trace: &R, processes: &[ProcessIndex]) -> Result<RunEvidence, R::Error> {
        RunEvidence::of(trace, processes, &self.selection, self.policy.wanted())
    }

    /// What the trace in a file gives.
    fn read(&self, path: &Path, process: Option<u32>) -> Result<RunEvidence, Failure> {
        or_salvaged(open(path)?, path, |trace| {
            let processes = processes_of(trace.contents(), process)?;
            self.evidence(trace, &processes).map_err(|error| unreadable(path, error))
        })
    }

    /// Judges, and writes the baseline if that was asked for.
    ///
    /// # Errors
    /// When the baseline cannot be written.
    pub(super) fn verdict(&self, runs: Vec<RunEvidence>, console: &mut Console<'_>) -> Result<Verdict, Failure> {
        let Some(path) = &self.update else { return Ok(judge(runs, &self.policy)) };
        let before = judge(runs.clone(), &self.policy);
        match before.outcome {
            Outcome::Pass | Outcome::Fail => {
                let baseline = accepted(&before);
                console
                    .write_file(path, super::Existing::Replace, |file| file.write_all(baseline.text().as_bytes()))?;
                Ok(judge(runs, &Policy { baseline: Some(baseline), ..self.policy.clone() }))
            }
            // What such a run leaks is no measure for others.
            Outcome::Indeterminate | Outcome::ProgramFailed => {
                writeln!(console.notes, "note: the baseline was not written, because there is no verdict on this run")?;
                Ok(before)
            }
        }
    }

    /// Writes the reports that were asked for.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(super) fn report(&self, verdict: &Verdict, extent: Extent, console: &mut Console<'_>) -> Result<(), Failure> {
        self.reports.iter().try_for_each(|report| report.write(verdict, extent, console))?;
        reports::github(verdict, variable, console)
    }
}
