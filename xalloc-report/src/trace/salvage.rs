//! What can be known of a trace that is not whole, and how it is said.
//!
//! A trace is cut where its recorder was killed or its disk was full: it has neither footer nor final contents, and is
//! what lies before the cut. A trace is damaged where a block is not what was written. Its footer and the contents are
//! whole then, as a rule, and only the process whose block it is has lost its later events: the blocks of the others do
//! not refer to it.
//!
//! # Why a process does not go on behind the damage
//! Its next checkpoint knows which blocks are live there, and nobody knows which were freed in between: totals and
//! lifetimes of what follows would be wrong by an amount that cannot be stated.

use std::collections::BTreeSet;

use super::Contents;
use super::container::BlockKind;
use super::error::TraceError;
use super::footer::Entry;

/// Events in the blocks of `index`, and the time of the last one in microseconds.
fn events(index: &[Entry]) -> (u64, u64) {
    let events = index.iter().filter(|entry| entry.header.kind == BlockKind::Events as u8);
    events.fold((0, 0), |(count, last_us), entry| {
        (count + u64::from(entry.header.items), last_us.max(entry.header.last_us))
    })
}

/// Fills in what a recorder writes at the end, and did not: how long the recording and its processes lasted.
pub(super) fn complete(contents: &mut Contents, index: &[Entry]) {
    let (_, last_us) = events(index);
    contents.recording.duration_ns = contents.recording.duration_ns.max(last_us.saturating_mul(1000));
    for entry in index.iter().filter(|entry| entry.header.kind == BlockKind::Events as u8) {
        if let Some(process) = contents.processes.get_mut(entry.header.process as usize) {
            process.ended_at_ns = process.ended_at_ns.max(entry.header.last_us.saturating_mul(1000));
        }
    }
}

/// Says up to where a trace without its end was read.
pub(super) fn cut(index: &[Entry], good_bytes: u64, file_bytes: u64, stopped_by: Option<TraceError>) -> String {
    let (count, last_us) = events(index);
    let why = stopped_by
        .map_or_else(|| "the trace has no footer, its recording was cut".to_owned(), |error| error.to_string());
    format!(
        "{why}; read were {count} events up to {:.6} s, in the first {good_bytes} of {file_bytes} bytes",
        last_us as f64 / 1e6
    )
}

/// Takes out of `index` every block that `read` refuses, and what lies behind it of the same process. Returns what there
/// is to say about that.
pub(super) fn drop_damaged(
    index: &mut Vec<Entry>,
    mut read: impl FnMut(&Entry, &mut Vec<u8>) -> Result<(), TraceError>,
) -> Option<String> {
    let (all, _) = events(index);
    let mut payload = Vec::new();
    let mut damaged = BTreeSet::new();
    let mut first_fault = None;
    index.retain(|entry| {
        if entry.header.kind != BlockKind::Events as u8 && entry.header.kind != BlockKind::Checkpoint as u8 {
            return true;
        }
        if damaged.contains(&entry.header.process) {
            return false;
        }
        let Err(error) = read(entry, &mut payload) else { return true };
        damaged.insert(entry.header.process);
        first_fault.get_or_insert(error);
        false
    });
    let fault = first_fault?;
    let (count, _) = events(index);
    Some(format!(
        "{fault}; read were {count} of {all} events, without the later ones of {}",
        if damaged.len() == 1 { "that block's process".to_owned() } else { format!("{} processes", damaged.len()) }
    ))
}
