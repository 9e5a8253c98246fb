//! Checks for leaks that somebody asks the recorder of a running process for.
//!
//! The recorder listens on a socket in its session's directory ([`desk`]); its user, and root, may ask. The asker
//! finds the session by the process's id ([`find`]), sends one line of JSON with it, and gets one line back: which check
//! of which trace holds the answer. The trace is read where it lies, as far as it has been written, so the verdict is
//! shown by the code that shows every other one.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) mod desk;
mod find;

use find::Session;

/// Longest wait for the answer: a copy of a large process takes its time to be looked through.
const PATIENCE: Duration = Duration::from_secs(150);

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// The process to be checked.
    pub(super) pid: u32,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// There was a check. That it found out something is for the trace to say.
    Made {
        /// The trace that holds it.
        trace: OsString,
        /// Its number there, from 1.
        check: u64,
    },
    /// There was none.
    Refused(Refusal),
}

/// Why the recorder made no check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The process is none of the recorder's.
    #[error("it is not recorded")]
    NotRecorded,
    /// It ended first.
    #[error("it ended before it could be checked")]
    Ended,
    /// The recorder was told not to check.
    #[error("it is recorded without checks for leaks (--no-leak-check)")]
    TurnedOff,
    /// Only some of its blocks are recorded.
    #[error("it is recorded by --sample, and what holds a block is mostly not known then")]
    Sampled,
    /// The process did not take the demand up.
    #[error("it did not take the demand up: {reason}")]
    NotTaken {
        /// Why, as far as can be seen from outside.
        reason: String,
    },
}

/// Where the verdict is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// The trace.
    pub trace: PathBuf,
    /// The check's number in it, from 1.
    pub check: u64,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemandError {
    /// There is no such process.
    #[error("there is no process {pid}")]
    NoProcess {
        /// Its id.
        pid: u32,
    },
    /// Nobody records it.
    #[error("process {pid} is not recorded")]
    NotRecorded {
        /// Its id.
        pid: u32,
    },
    /// It is another user's.
    #[error("process {pid} belongs to another user (uid {uid})")]
    AnotherUser {
        /// Its id.
        pid: u32,
        /// Its user.
        uid: u32,
    },
    /// It records itself, without a recorder that could be asked.
    #[error("process {pid} is recorded without a recorder (XALLOC_OUT)")]
    StandAlone {
        /// Its id.
        pid: u32,
    },
    /// Its recorder is gone.
    #[error("the recorder of process {pid} is gone")]
    RecorderGone {
        /// Its id.
        pid: u32,
    },
    /// The recorder made no check.
    #[error("process {pid} was not checked")]
    Refused {
        /// Its id.
        pid: u32,
        /// The recorder's reason.
        source: Refusal,
    },
    /// The recorder cannot be talked to.
    #[error("the recorder of process {pid} does not answer")]
    Io {
        /// Its id.
        pid: u32,
        /// The system's reason.
        source: io::Error,
    },
}

impl DemandError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            DemandError::NoProcess { .. } => "`pgrep -a NAME` shows the ids of running processes",
            DemandError::NotRecorded { .. } | DemandError::Refused { source: Refusal::NotRecorded, .. } => {
                "only what runs under `xalloc-report record` can be checked: start it with that"
            }
            DemandError::AnotherUser { .. } => "ask as that user, or as root: a session is its user's alone",
            DemandError::StandAlone { .. } => "record it with `xalloc-report record` to be able to ask",
            DemandError::RecorderGone { .. } => {
                "the process runs on unrecorded; `xalloc-report leaks TRACE` shows what was recorded until then"
            }
            DemandError::Refused { source: Refusal::Ended, .. } => {
                "the check at its end is in its trace: `xalloc-report leaks TRACE` when the recording is over"
            }
            DemandError::Refused { source: Refusal::TurnedOff | Refusal::Sampled, .. } => {
                "record it without that option"
            }
            DemandError::Refused { source: Refusal::NotTaken { .. }, .. } => {
                "the demand comes as SIGURG, which the program must leave alone; it can ask itself with \
                 `xalloc_check_leaks()` (docs/commands.md)"
            }
            DemandError::Io { .. } => "is the recorder stopped, or at its end? ask again",
        }
    }
}

/// Has the running process `pid` checked, and waits for that.
///
/// # Errors
/// [`DemandError`].
pub fn ask(pid: u32) -> Result<Made, DemandError> {
    let session = Session::of(pid)?;
    let failed = |source| DemandError::Io { pid, source };
    let gone = |error: io::Error| {
        let nobody_listens = error.kind() == io::ErrorKind::ConnectionRefused;
        if nobody_listens { DemandError::RecorderGone { pid } } else { failed(error) }
    };
    let mut stream = desk::connect(&session.directory).map_err(gone)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    writeln!(stream, "{}", serde_json::json!(Request { pid })).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(failed)?;
    if line.is_empty() {
        return Err(DemandError::RecorderGone { pid });
    }
    match serde_json::from_str(&line).map_err(|error| failed(error.into()))? {
        Reply::Made { trace, check } => Ok(Made { trace: trace.into(), check }),
        Reply::Refused(source) => Err(DemandError::Refused { pid, source }),
    }
}
