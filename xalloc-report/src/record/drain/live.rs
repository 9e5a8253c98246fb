//! Whether a process that is being drained still lives, and how it ended.
//!
//! The command is our child, and its end is known to the bit. Of its descendants the kernel says only that they are
//! gone; what they said themselves, in their last events, tells more.

use std::fs;
use std::io;
use std::path::PathBuf;

use xalloc_core::session::segment_state;

use super::check::Checks;
use super::own_look::OwnLook;
use super::{Dictionary, Identity, LastWord, Observations, Stream};
use crate::os::pidfd::Pidfd;
use crate::os::segment::{HeaderCounter, HeaderWord};
use crate::record::looks::Looks;
use crate::trace::{End, Waits};

/// A process that is being drained.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) stream: Stream,
    pub(super) path: PathBuf,
    pub(super) pidfd: Option<Pidfd>,
    pub(super) looks: Looks,
    /// The look at itself that the process was asked for.
    pub(super) own_look: Option<OwnLook>,
    /// How many of these it was asked for.
    pub(super) own_looks: u32,
    pub(super) checks: Checks,
}

/// What is known about the recorded command itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Command {
    pub(crate) pid: u32,
    /// How it ended; `None` while it runs.
    pub(crate) end: Option<End>,
}

/// What is to be seen of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    /// It runs.
    There,
    /// The kernel has ended it.
    Gone,
    /// Another program runs under its id.
    Replaced,
}

impl Live {
    /// Whether the process is over. The command is when it is known how it ended, which is a little later than that.
    pub(super) fn is_gone(&self, command: Command) -> bool {
        if self.stream.identity.pid == command.pid {
            return command.end.is_some();
        }
        self.pidfd.as_ref().is_some_and(Pidfd::has_ended)
    }

    /// Whether there is no such process any more, of one that nobody could take hold of: it had ended before it was
    /// seen, or its id is one of another namespace. To be asked when the recording is over, for the latter may run on.
    pub(super) fn is_nowhere(&self) -> bool {
        self.pidfd.is_none() && self.stream.identity.is_nowhere()
    }

    pub(super) fn said_its_last_word(&self) -> bool {
        self.stream.segment.header_u32(HeaderWord::State) == segment_state::ENDED
    }

    /// How the process ended, by what the kernel and the session show of it.
    pub(super) fn end(&self, seen: Presence, command: Command) -> End {
        let is_command = self.stream.identity.pid == command.pid;
        if seen == Presence::Replaced {
            return End::Replaced;
        }
        if let (true, Some(end)) = (is_command, command.end) {
            return end;
        }
        let is_over = seen == Presence::Gone || self.said_its_last_word();
        match (self.stream.last_word, seen) {
            (LastWord::Exit(status), _) if is_over => End::Exited(status),
            (LastWord::Exec, _) if is_over => End::Replaced,
            (_, Presence::Gone) => End::Vanished,
            (_, Presence::There | Presence::Replaced) => End::Running,
        }
    }
}

/// Writes into the trace's tables what is known when a stream is over. Its process was last seen at `seen_at_ns`: one
/// that did not say when it ended did so then.
pub(crate) fn conclude(
    mut stream: Stream,
    end: End,
    seen_at_ns: u64,
    dictionary: &mut Dictionary,
    observations: &mut Observations,
) {
    stream.place_homeless(dictionary);
    let ended_at_ns = match (stream.last_word, end) {
        (LastWord::Exit(_) | LastWord::Exec, _) | (_, End::Replaced) => stream.last_ns(),
        (LastWord::None, _) => stream.last_ns().max(seen_at_ns),
    };
    let process = &mut dictionary.contents.processes[stream.index.0 as usize];
    process.end = end;
    process.ended_at_ns = ended_at_ns.max(process.started_at_ns);
    process.events = stream.events;
    process.losses = stream.losses();
    process.repairs.late_events = stream.late_events;
    process.waits = Waits {
        times: stream.segment.header_u64(HeaderCounter::Waits),
        waited_ns: stream.segment.header_u64(HeaderCounter::WaitedNs),
    };
    observations.events += stream.events;
    observations.damaged += stream.damaged;
    observations.lost_stacks += stream.segment.lost_stacks();
    observations.cut_stacks += stream.segment.header_u64(HeaderCounter::CutStacks);
    observations.verified_stacks += stream.segment.header_u64(HeaderCounter::VerifiedStacks);
    observations.differing_stacks += stream.segment.header_u64(HeaderCounter::DifferingStacks);
    if stream.segment.is_cut() {
        observations.cut.push(stream.identity.pid);
    }
}

impl Identity {
    /// The running process, if the id in the header is one in our own namespace and has not been used again.
    pub(super) fn open_process(&self) -> Option<Pidfd> {
        let pidfd = Pidfd::open(self.pid).ok()?;
        let is_it = match fs::read_link(format!("/proc/{}/exe", self.pid)) {
            Ok(exe) => exe == self.exe,
            // It forbids to be told more of, and its name is all that is left to tell it from a process that has the same
            // number in another namespace.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied && self.has_its_name(),
        };
        is_it.then_some(pidfd)
    }

    /// Whether the process under its id has the name that exec gives: the file's, cut to 15 bytes.
    fn has_its_name(&self) -> bool {
        let name = self.exe.file_name().unwrap_or_default().as_encoded_bytes();
        let told = fs::read(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        told.trim_ascii_end() == &name[..name.len().min(15)]
    }

    /// Whether the process seems to be there under its id. A process may forbid to be told more of.
    pub(super) fn is_here(&self) -> bool {
        match fs::read_link(format!("/proc/{}/exe", self.pid)) {
            Ok(exe) => exe == self.exe,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }

    /// Whether no process has the id in the header, or another program does.
    fn is_nowhere(&self) -> bool {
        match Pidfd::open(self.pid) {
            Ok(_) => fs::read_link(format!("/proc/{}/exe", self.pid)).is_ok_and(|exe| exe != self.exe),
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        }
    }
}
