//! A trace as the commands get it: what can be salvaged of a damaged one, with names that its recorder did not come to,
//! and with a word on what is missing from it.

use std::path::Path;

use super::args::unreadable;
use super::reading::Reading;
use super::{Console, Failure};
use crate::analysis::LossView;
use crate::record;
use crate::render::number::bytes;
use crate::render::text;
use crate::trace::{Contents, Trace, TraceError};

/// Opens a trace.
///
/// # Errors
/// When it is not there, or no trace.
pub(super) fn open(path: &Path) -> Result<Trace, Failure> {
    Trace::open(path).map(named).map_err(|error| {
        let hint = match &error {
            TraceError::Open { .. } => Some("record one: xalloc-report record -o app.xtrace ./app"),
            TraceError::NoFile { .. }
            | TraceError::Create { .. }
            | TraceError::Read { .. }
            | TraceError::NotATrace { .. }
            | TraceError::NewerVersion { .. }
            | TraceError::Damaged { .. }
            | TraceError::TooManyLive { .. }
            | TraceError::NoSuchProcess { .. }
            | TraceError::Write { .. }
            | TraceError::Stopped { .. }
            | TraceError::NotInContents { .. }
            | TraceError::ProcessNotOpen { .. } => None,
        };
        let failure = unreadable(path, error);
        if let Some(hint) = hint { failure.hint(hint) } else { failure }
    })
}

/// Does the work on a trace, with a bar on the terminal if reading it takes a while; if a block of it turns out to be damaged, once more on what can be salvaged of its file.
///
/// # Errors
/// Those of the work.
pub(super) fn or_salvaged<T>(
    trace: Trace,
    path: &Path,
    mut work: impl FnMut(&Reading<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match work(&Reading::of(&trace)) {
        Err(failure) if failure.is_damage() => {
            // What says that the trace is damaged is of more use than what says that it cannot be salvaged.
            let Ok(salvaged) = Trace::salvage(path).map(named) else { return Err(failure) };
            work(&Reading::of(&salvaged))
        }
        done => done,
    }
}

/// What is missing from a trace, each a sentence.
pub(super) fn gaps(contents: &Contents) -> Vec<String> {
    let sampled = contents.recording.sampling.map(|sampling| text::sampled(u64::from(sampling.mean_bytes.get())));
    sampled.into_iter().chain(losses(contents)).collect()
}

/// The same but that only some allocations were recorded, for reports that say so themselves.
pub(super) fn losses(contents: &Contents) -> Vec<String> {
    let losses: Vec<LossView> = contents.processes.iter().flat_map(LossView::of).collect();
    text::gaps(contents.recording.salvage.as_deref(), &losses)
}

/// Refuses a trace of which only some blocks were recorded, for what needs all of them.
///
/// # Errors
/// When it is such a trace.
pub(super) fn every_block_for(what: &str, contents: &Contents) -> Result<(), Failure> {
    let Some(sampling) = contents.recording.sampling else { return Ok(()) };
    let mean = bytes(u64::from(sampling.mean_bytes.get()));
    let error = anyhow::anyhow!("{what} needs every event, and the recording has one allocated byte in {mean} only");
    Err(Failure::new(error).hint("record without --sample"))
}

/// Says what is missing from a trace, for commands whose text has no place for it.
///
/// # Errors
/// When standard error cannot be written to.
pub(super) fn note(gaps: Vec<String>, console: &mut Console<'_>) -> Result<(), Failure> {
    for gap in gaps {
        writeln!(console.notes, "note: {gap}")?;
    }
    Ok(())
}

/// The trace with the names of its functions, if its recorder was ended before it looked them up. Only files that are
/// the recorded ones by their build-id give names, so a machine on which they are others gives none.
fn named(trace: Trace) -> Trace {
    let recording = &trace.contents().recording;
    match &recording.salvage {
        Some(salvage) if !recording.symbolized => {
            let salvage = format!("{salvage}; functions are named after the files of this machine");
            trace.completed(|contents| {
                record::name(contents);
                contents.recording.salvage = Some(salvage);
            })
        }
        _ => trace,
    }
}
