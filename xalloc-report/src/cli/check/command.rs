//! `check -- COMMAND`: one step that records and judges.

use std::ffi::OsString;
use std::path::Path;

use super::Judge;
use crate::analysis::EndView;
use crate::check::RunEvidence;
use crate::cli::opened::{open, or_salvaged};
use crate::cli::progress::Progress;
use crate::cli::{Console, Existing, Failure, args};
use crate::model::Recorded;
use crate::record::{self, Outcome, Props, RecordError, split_assignments};
use crate::render::escape::printable;

/// Records the command and gives what can be judged of it. A recording that did not come about is evidence too: of
/// nothing.
///
/// # Errors
/// When there is no such command, the trace has no place, or it cannot be read.
pub(super) fn evidence(
    props: Props,
    keep: Option<&Path>,
    judge: &Judge,
    console: &mut Console<'_>,
) -> Result<RunEvidence, Failure> {
    let folder = tempfile::tempdir().map_err(|error| Failure::new(error).while_doing("the trace has no place"))?;
    let path = keep.map_or_else(|| folder.path().join("check.xtrace"), Path::to_owned);
    let command = words(&props.command);
    let props = Props { output: Some(path), existing: Existing::Replace, ..props };
    let mut progress = Progress::new();
    let recorded = record::run_with_progress(&props, &mut |phase| progress.show(phase));
    progress.end();
    let outcome = match recorded {
        Ok(outcome) => outcome,
        Err(error) => return not_recorded(error, command),
    };
    let trace = open(&outcome.path)?;
    let mut run = or_salvaged(trace, &outcome.path, |trace| {
        let all = args::processes_of(trace.contents(), None)?;
        judge.evidence(trace, &all).map_err(|error| Failure::new(error).while_doing("cannot read the recording"))
    })?;
    run.doubts = doubts(&outcome);
    if keep.is_some() {
        writeln!(console.notes, "wrote {}", printable(&outcome.path.to_string_lossy()))?;
    }
    Ok(run)
}

fn words(command: &[OsString]) -> Vec<String> {
    split_assignments(command).1.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn not_recorded(error: RecordError, command: Vec<String>) -> Result<RunEvidence, Failure> {
    match &error {
        // These are mistakes in the command line, and not what became of a run.
        RecordError::NoCommand | RecordError::Output(_) | RecordError::NotRunnable(_) | RecordError::Start { .. } => {
            let hint = error.hint();
            let failure = Failure::new(error);
            return Err(if let Some(hint) = hint { failure.hint(hint) } else { failure });
        }
        RecordError::NotRecordable { .. }
        | RecordError::Session(_)
        | RecordError::Unpack { .. }
        | RecordError::Signals(_)
        | RecordError::Waiter(_)
        | RecordError::Trace(_)
        | RecordError::NoHello { .. }
        | RecordError::Import { .. }
        | RecordError::NotSpilled { .. }
        | RecordError::AlreadyTrace { .. }
        | RecordError::NothingToImport
        | RecordError::SampledUnlike => {}
    }
    let end = if let RecordError::NoHello { end, .. } = &error { end.map(EndView::from) } else { None };
    let causes: Vec<_> = anyhow::Error::new(error).chain().skip(1).map(ToString::to_string).collect();
    let why = if causes.is_empty() { "the recorder failed".to_owned() } else { causes.join(": ") };
    Ok(RunEvidence { end, ..RunEvidence::missing(command, Some(why)) })
}

/// What the recorder saw that is not in the trace.
pub(in crate::cli) fn doubts(outcome: &Outcome) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(error) = &outcome.stopped {
        doubts.push(format!("the recording stopped before the program did: {error}"));
    }
    let observations = &outcome.observations;
    if observations.damaged > 0 {
        doubts.push(format!("{} records could not be read", observations.damaged));
    }
    doubts.extend(
        observations.unrecorded.iter().map(|note| format!("a process could not be recorded: {}", note.reason.seen())),
    );
    doubts.extend(observations.refused.iter().map(|(_, why)| format!("a process could not be recorded: {why}")));
    doubts
}
