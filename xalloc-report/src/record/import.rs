//! A trace from what a program recorded alone, without a recorder beside it (`XALLOC_OUT=file`).
//!
//! A file holds a segment as a recorder would have seen it at the end, and behind it the batches that its rings were
//! emptied into. Children write files of their own; those that are given together become one trace. Parents come before
//! their children, so a fork's blocks are known when the child begins. The merge is the recorder's.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xalloc_core::session::SEGMENT_MAGIC;
use xalloc_core::wire::LossReason;

use super::clock::{Reading, Timeline};
use super::drain::{
    Birth, Dictionary, Fork, Forks, Identity, LastWord, ModuleTables, Observations, Refused, Shared, Stream, conclude,
};
use super::error::RecordError;
use super::outcome::Outcome;
use super::output::{Existing, Names, Output, host};
use super::recorder::{Drained, finish};
use super::spill::Spilled;
use super::symbolize::Naming;
use super::{Phase, drain::Sink};
use crate::os::segment::Segment;
use crate::os::system::processors_online;
use crate::symbols::Places;
use crate::trace::{End, LiveSet, Recording, TraceError, Writer, is_trace};

/// What to import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportProps {
    /// Files that processes of one run wrote.
    pub files: Vec<PathBuf>,
    /// Where the trace goes, as in [`super::Props::output`]; `%e` is the name of the first file.
    pub output: Option<PathBuf>,
    /// What happens to a file that is there.
    pub existing: Existing,
    /// Name the frames; right only where the program's binaries are the ones that ran.
    pub symbols: bool,
}

/// Makes a trace.
///
/// # Errors
/// [`RecordError`] if a file cannot be read or the trace cannot be begun.
pub fn import(props: &ImportProps, on_phase: &mut dyn FnMut(Phase)) -> Result<Outcome, RecordError> {
    let mut files = props.files.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(|(identity, _)| identity.started_monotonic_ns);
    let (first, _) = files.first().ok_or(RecordError::NothingToImport)?;
    let sampling = first.sampling;
    if files.iter().any(|(identity, _)| identity.sampling != sampling) {
        return Err(RecordError::SampledUnlike);
    }
    let recording = Recording {
        command: first.command.clone(),
        started_unix_ns: first.started_realtime_ns,
        tool_version: env!("CARGO_PKG_VERSION").into(),
        host: host(),
        libc: first.libc.clone(),
        processors: processors_online(),
        sampling,
        ..Recording::default()
    };
    let timeline = timeline(files.iter().map(|(identity, _)| identity.reading()).collect());
    let names = Names::of(props.files.first().map_or(Path::new(""), PathBuf::as_path));
    let output = Output::create(props.output.as_deref(), &names, props.existing)?;
    let file =
        output.file.try_clone().map_err(|source| TraceError::Create { path: output.path().to_owned(), source })?;
    let mut merged = Merged {
        dictionary: Dictionary::new(recording),
        timeline,
        writer: Writer::new(Box::new(file), sampling)?,
        forks: Forks::of_children(files.iter().map(|(identity, _)| identity)),
        observations: Observations::default(),
        first_end: None,
    };
    let stopped = files.into_iter().try_for_each(|(identity, segment)| merged.process(identity, segment)).err();
    let Merged { dictionary, writer, observations, first_end, .. } = merged;
    let processes = dictionary.contents.processes.len();
    let drained = Drained { contents: dictionary.contents, observations, writer, processes, stopped };
    let end = first_end.unwrap_or(End::Vanished);
    let naming = props.symbols.then(|| Naming::new(Places::of_this_machine()));
    let (mut outcome, _) = finish(naming, drained, end, output.path().to_owned(), on_phase);
    outcome.settle(output);
    Ok(outcome)
}

fn open(path: &Path) -> Result<(Identity, Segment), RecordError> {
    let failed = |source| RecordError::Import { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut mark = [0; 8];
    // One that is shorter than a mark is neither.
    let is_marked = file.read_exact_at(&mut mark, 0).is_ok();
    if is_marked && is_trace(mark) {
        return Err(RecordError::AlreadyTrace { path: path.to_owned() });
    }
    if u64::from_le_bytes(mark) != SEGMENT_MAGIC {
        return Err(RecordError::NotSpilled { path: path.to_owned(), source: Refused::Magic });
    }
    let segment = Segment::map_private(&file).map_err(failed)?;
    let identity =
        Identity::read(&segment).map_err(|source| RecordError::NotSpilled { path: path.to_owned(), source })?;
    Ok((identity, segment))
}

/// A trace that is being merged from files.
struct Merged {
    dictionary: Dictionary,
    timeline: Timeline,
    writer: Writer,
    forks: Forks<LiveSet>,
    observations: Observations,
    /// How the first process ended, which the command was.
    first_end: Option<End>,
}

impl Merged {
    fn process(&mut self, identity: Identity, segment: Segment) -> Result<(), TraceError> {
        let fork = match identity.birth {
            Birth::Fork { serial } => self.forks.take(identity.parent_pid, serial),
            Birth::Exec => None,
        };
        let is_orphan = fork.is_none() && matches!(identity.birth, Birth::Fork { .. });
        self.observations.orphans += u64::from(is_orphan);
        let (parent, live_set, modules) = match fork {
            Some(Fork { parent, live_set, modules }) => (Some(parent), Some(live_set), modules),
            None => (None, None, ModuleTables::new()),
        };
        let index = self.dictionary.process(&identity, parent, &self.timeline);
        self.dictionary.take_gained();
        self.writer.gain(&self.dictionary.contents);
        self.writer.begin(index, live_set)?;
        let spilled = Spilled::find(&segment);
        self.observations.damaged += spilled.holes;
        let mut stream = Stream::new(index, identity, segment, modules);
        stream.count_lost(LossReason::Cut, spilled.cut_records);
        stream.read_spilled(spilled);
        stream.merge(&mut Shared {
            dictionary: &mut self.dictionary,
            timeline: &self.timeline,
            sink: &mut self.writer,
            forks: &mut self.forks,
        })?;
        self.writer.end(index)?;
        let end = match stream.last_word {
            LastWord::Exit(status) => End::Exited(status),
            LastWord::Exec => End::Replaced,
            LastWord::None => End::Vanished,
        };
        self.first_end.get_or_insert(end);
        // Nobody saw it: it ended with its last event.
        let last_ns = stream.last_ns();
        conclude(stream, end, last_ns, &mut self.dictionary, &mut self.observations);
        Ok(())
    }
}

/// The line through the clocks of the recording. A header holds one reading; a second one comes from another process,
/// or from now if this machine has not been started anew since. Else this machine's rate has to do.
fn timeline(readings: Vec<Reading>) -> Timeline {
    let first = readings.first().copied().unwrap_or_else(Reading::now);
    let mut timeline = Timeline::starting_at(first);
    let local = local_rate();
    let now = Reading::now();
    let is_same_boot = rate(first, now).is_some_and(|since| (since / local - 1.0).abs() < 0.01);
    let last = readings.last().copied().filter(|last| rate(first, *last).is_some());
    let second = if is_same_boot { Some(now) } else { last };
    if !second.is_some_and(|second| timeline.tie(second)) {
        const SPAN_TICKS: u64 = 1 << 32;
        let span_ns = (SPAN_TICKS as f64 * local) as u64;
        timeline.tie(Reading {
            ticks: first.ticks.saturating_add(SPAN_TICKS),
            monotonic_ns: first.monotonic_ns.saturating_add(span_ns),
        });
    }
    timeline
}

/// Nanoseconds a tick between two readings, if the second is later by both clocks.
fn rate(first: Reading, second: Reading) -> Option<f64> {
    let ticks = second.ticks.checked_sub(first.ticks).filter(|ticks| *ticks > 0)?;
    Some(second.monotonic_ns.checked_sub(first.monotonic_ns)? as f64 / ticks as f64)
}

/// Nanoseconds a tick of this machine.
fn local_rate() -> f64 {
    const SPAN: std::time::Duration = std::time::Duration::from_millis(5);
    let before = Reading::now();
    std::thread::sleep(SPAN);
    rate(before, Reading::now()).unwrap_or(1.0)
}

#[cfg(test)]
mod tests;
