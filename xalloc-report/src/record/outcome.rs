//! What a recording came to.

use std::path::PathBuf;

use super::drain::{Observations, Unrecorded};
use super::error::{exit_status, system};
use super::output::{Output, OutputError};
use super::symbolize::Unnamed;
use crate::trace::{End, TraceError, Written};

/// A finished recording.
#[derive(Debug)]
pub struct Outcome {
    /// The trace.
    pub path: PathBuf,
    /// How the recorded command ended.
    pub end: End,
    /// What is in the file.
    pub written: Written,
    /// Processes that were recorded.
    pub processes: usize,
    /// What was seen besides the events.
    pub observations: Observations,
    /// From the launch to the end, nanoseconds.
    pub duration_ns: u64,
    /// Modules with something that could not be named.
    pub unnamed: Unnamed,
    /// Why the recording stopped before the program did, if it did. What was written until then can be read.
    pub stopped: Option<TraceError>,
    /// Why the trace has another name than the one that was asked for: the file there could not be replaced.
    pub unreplaced: Option<OutputError>,
}

impl Outcome {
    /// The status that `record` exits with: the program's own, or 128 + n if signal n ended it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        exit_status_of(self.end)
    }

    /// Whether everything that happened is in the trace.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let Observations { damaged, lost_stacks, orphans, cut, is_control_cut, refused, unrecorded, .. } =
            &self.observations;
        let is_whole = *damaged == 0 && *lost_stacks == 0 && *orphans == 0 && cut.is_empty() && !is_control_cut;
        self.stopped.is_none() && is_whole && refused.is_empty() && unrecorded.is_empty()
    }

    /// Gives the trace the name that it is to have.
    pub(super) fn settle(&mut self, output: Output) {
        (self.path, self.unreplaced) = match self.stopped {
            None => output.keep(),
            Some(_) => (output.keep_beside(), None),
        };
    }

    /// What a reader of the trace has to know besides [`Outcome::stopped`], each a sentence.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let Observations { damaged, lost_stacks, cut_stacks, orphans, refused, unrecorded, running, .. } =
            &self.observations;
        let Observations { verified_stacks, differing_stacks, cut, is_control_cut, .. } = &self.observations;
        let mut notes = Vec::new();
        let counted = [
            (*running as u64, "processes that run on, unrecorded, though the command has ended"),
            (*damaged, "records that could not be read"),
            (*lost_stacks, "call stacks that were lost because there was no room for them in shared memory"),
            (*cut_stacks, "call stacks that were cut at the depth limit"),
            (*orphans, "forked processes that began without their parent's blocks, because the fork was not seen"),
        ];
        notes.extend(counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}")));
        notes.extend(cut.iter().map(|pid| {
            format!("the shared memory of process {pid} was cut short by a program: what it held then is lost")
        }));
        if *is_control_cut {
            notes.push("the recording's control page was cut short by a program: processes may be missing".into());
        }
        if *verified_stacks > 0 {
            notes.push(format!("{differing_stacks} of {verified_stacks} call stacks differed from a plain walk"));
        }
        notes.extend(refused.iter().map(|(path, why)| format!("{} was not read: {why}", path.display())));
        notes.extend(unrecorded.iter().map(|Unrecorded { pid, reason, errno }| {
            format!("process {pid} was not recorded: {}{}; {}", reason.seen(), system(*errno), reason.hint())
        }));
        notes
    }
}

fn exit_status_of(end: End) -> u8 {
    match end {
        // The kernel keeps the low eight bits of an exit status; so does this.
        End::Exited(status) => (status & 0xff) as u8,
        End::Signalled(signal) => exit_status::SIGNALLED.wrapping_add((signal & 0x7f) as u8),
        // Two interrupts ended the wait: what a shell reports for SIGINT.
        End::Running => exit_status::SIGNALLED + libc::SIGINT as u8,
        End::Replaced | End::Vanished => exit_status::TOOL_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_the_programs_or_128_plus_its_signal() {
        assert_eq!(exit_status_of(End::Exited(0)), 0);
        assert_eq!(exit_status_of(End::Exited(23)), 23);
        assert_eq!(exit_status_of(End::Signalled(9)), 137);
        assert_eq!(exit_status_of(End::Running), 130);
    }
}
