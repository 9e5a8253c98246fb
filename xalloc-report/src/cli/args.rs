//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::opened::every_block_for;
use super::values::from_zero;
use super::{Console, Existing, Failure};
use crate::model::{Model, Recorded, Settings};
use crate::render::text::Extent;
use crate::trace::{Contents, ProcessIndex};

/// `auto`, `always` or `never`.
pub(super) fn colour() -> impl TypedValueParser<Value = anstream::ColorChoice> {
    PossibleValuesParser::new(["auto", "always", "never"]).map(|when| match when.as_str() {
        "always" => anstream::ColorChoice::Always,
        "never" => anstream::ColorChoice::Never,
        _ => anstream::ColorChoice::Auto,
    })
}

/// Which trace, and what of it.
#[derive(Args, Clone, Debug)]
pub(super) struct TraceArgs {
    /// Trace that `record` wrote
    #[arg(value_name = "TRACE")]
    pub(super) path: PathBuf,
    /// Only this process: its pid, or its number in the summary's table; otherwise all are added up, or, for
    /// `fragmentation` and `what-if`, the one with most events is taken
    #[arg(long, value_name = "PID|N")]
    pub(super) process: Option<u32>,
}

/// How allocations are counted.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct CountArgs {
    /// An allocation is temporary if its thread frees it before its next N allocations
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) temporary_threshold: u32,
}

/// For people or for scripts.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// Text for people
    Human,
    /// JSON by the published schema (`generate schema`)
    Json,
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct FormatArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
}

/// Whether a picture may replace a file.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ForceArgs {
    /// Replace the file if it exists
    #[arg(short, long)]
    force: bool,
}

impl From<ForceArgs> for Existing {
    fn from(args: ForceArgs) -> Existing {
        if args.force { Existing::Replace } else { Existing::Keep }
    }
}

/// How much of a list of call stacks is shown as text; JSON always has all.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ExtentArgs {
    /// Most call stacks to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = Extent::default().sites, value_parser = from_zero::<usize>)]
    limit: usize,
    /// Most functions of each call stack to show
    #[arg(long, value_name = "N", default_value_t = Extent::default().frames, value_parser = from_zero::<usize>)]
    frames: usize,
}

impl From<ExtentArgs> for Extent {
    fn from(args: ExtentArgs) -> Extent {
        Extent { sites: args.limit, frames: args.frames }
    }
}

/// The processes that are asked for, by pid or number; all of them if none is.
pub(super) fn processes_of(contents: &Contents, wanted: Option<u32>) -> Result<Vec<ProcessIndex>, Failure> {
    let all = || (0..contents.processes.len() as u32).map(ProcessIndex);
    let Some(wanted) = wanted else { return Ok(all().collect()) };
    // A program that execs keeps its pid: then one pid is several processes of the trace.
    let with_pid: Vec<_> =
        all().zip(&contents.processes).filter(|(_, process)| process.pid == wanted).map(|(index, _)| index).collect();
    if !with_pid.is_empty() {
        return Ok(with_pid);
    }
    let numbered: Vec<_> = all().filter(|index| index.0 == wanted).collect();
    if numbered.is_empty() {
        let known: Vec<_> = contents.processes.iter().take(20).map(|process| process.pid.to_string()).collect();
        let error = anyhow::anyhow!("the trace has no process with pid or number {wanted}");
        return Err(Failure::new(error).hint(format!("pids in the trace: {}", known.join(", "))));
    }
    Ok(numbered)
}

impl TraceArgs {
    /// The processes that are asked for.
    pub(super) fn processes(&self, contents: &Contents) -> Result<Vec<ProcessIndex>, Failure> {
        processes_of(contents, self.process)
    }

    /// Says which process the report is about, if there are several and nobody chose.
    pub(super) fn note_choice(&self, contents: &Contents, pid: u32, console: &mut Console<'_>) -> Result<(), Failure> {
        let programs = contents.processes.len();
        if self.process.is_none() && programs > 1 {
            let others = "`summary` lists the others, --process chooses";
            writeln!(console.notes, "note: {programs} programs were recorded, this is about process {pid}; {others}")?;
        }
        Ok(())
    }

    /// The trace turned out to be unreadable.
    pub(super) fn unreadable(&self, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        unreadable(&self.path, error)
    }

    /// Replays them.
    pub(super) fn model<R: Recorded>(&self, trace: &R, count: CountArgs) -> Result<Model, Failure> {
        let processes = self.counted(trace, count)?;
        Model::of(trace, processes, count.into()).map_err(|error| self.unreadable(error))
    }

    /// Replays them for their summary.
    pub(super) fn brief<R: Recorded>(&self, trace: &R, count: CountArgs) -> Result<Model, Failure> {
        let processes = self.counted(trace, count)?;
        Model::brief(trace, processes, count.into()).map_err(|error| self.unreadable(error))
    }

    /// The chosen processes, if the trace can say what is to be counted.
    fn counted<R: Recorded>(&self, trace: &R, count: CountArgs) -> Result<Vec<ProcessIndex>, Failure> {
        if count.temporary_threshold > 1 {
            every_block_for("a --temporary-threshold above 1", trace.contents())?;
        }
        self.processes(trace.contents())
    }
}

/// The trace turned out to be unreadable.
pub(super) fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let path = crate::render::escape::printable(&path.to_string_lossy()).into_owned();
    Failure::new(error).while_doing(format!("cannot read {path}"))
}

impl From<CountArgs> for Settings {
    fn from(count: CountArgs) -> Settings {
        Settings { temporary_threshold: count.temporary_threshold }
    }
}

impl CountArgs {
    /// As counted when nobody chose: for commands in which the choice makes no difference.
    pub(super) fn usual() -> CountArgs {
        CountArgs { temporary_threshold: Settings::default().temporary_threshold }
    }
}
