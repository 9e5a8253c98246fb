//! Why there is no recording, and the exit statuses that say so to a script.

use std::io;
use std::path::PathBuf;

use xalloc_core::session::Refusal;

use super::drain::Refused;
use super::output::OutputError;
use super::session::SessionError;
use super::target::{NotRunnable, Obstacle};
use crate::trace::{End, TraceError};

/// Exit statuses of `record` that are not the program's own, as `env`, `nohup` and the shells have them.
pub mod exit_status {
    /// The recorder failed.
    pub const TOOL_FAILED: u8 = 125;
    /// The program was found but cannot be executed.
    pub const CANNOT_EXECUTE: u8 = 126;
    /// There is no such program.
    pub const NOT_FOUND: u8 = 127;
    /// A program that signal n ended: this plus n.
    pub const SIGNALLED: u8 = 128;
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No program was named.
    #[error("no program was named; as in: record ./app --its-flag")]
    NoCommand,
    /// The program cannot be started.
    #[error(transparent)]
    NotRunnable(#[from] NotRunnable),
    /// The program could run, and nothing of it would be recorded. It was not started.
    #[error("{} cannot be recorded", path.display())]
    NotRecordable {
        /// The program.
        path: PathBuf,
        /// Why.
        source: Obstacle,
    },
    /// exec failed.
    #[error("{} could not be started", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The trace has no file.
    #[error("there is no place for the trace")]
    Output(#[from] OutputError),
    /// No shared memory.
    #[error("the session could not be opened")]
    Session(#[from] SessionError),
    /// The preload could not be unpacked.
    #[error("the library to preload could not be written to the cache or to {}", directory.display())]
    Unpack {
        /// The session's directory.
        directory: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Signals could not be caught.
    #[error("signal handlers could not be installed")]
    Signals(#[source] io::Error),
    /// A thread could not be made.
    #[error("the thread that waits for the program could not be started")]
    Waiter(#[source] io::Error),
    /// The trace could not even be begun.
    #[error("the trace could not be begun")]
    Trace(#[from] TraceError),
    /// The program ran and never said hello.
    #[error("nothing was recorded from {}", path.display())]
    NoHello {
        /// The program.
        path: PathBuf,
        /// How it ended; its exit status is lost to the caller otherwise.
        end: Option<End>,
        /// Why, as far as can be told.
        #[source]
        reason: NoHello,
    },
    /// A file to be imported could not be read.
    #[error("cannot read {}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file to be imported is something else.
    #[error("{} is no recording that a program made alone", path.display())]
    NotSpilled {
        /// The file.
        path: PathBuf,
        /// What its header lacks.
        source: Refused,
    },
    /// A file to be imported is a trace already.
    #[error("{} is a trace, and needs no import", path.display())]
    AlreadyTrace {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to import.
    #[error("no file to import was named")]
    NothingToImport,
    /// Files of one run sample alike.
    #[error("the files were not sampled alike: their estimates cannot be added up")]
    SampledUnlike,
}

/// Why a program never said hello.
#[derive(Debug, thiserror::Error)]
pub enum NoHello {
    /// It said something that could not be read.
    #[error("the program said hello in a segment that could not be read: {seen}")]
    Refused {
        /// What was wrong with the segment.
        seen: String,
    },
    /// It could not be recorded, and left a note of the reason.
    #[error("the program could not be recorded: {}{}", reason.seen(), system(*errno))]
    ByProgram {
        /// The reason.
        reason: Refusal,
        /// The system's number for it, 0 if it has none.
        errno: i32,
    },
    /// It ended before its first allocation, or somebody removed the variables on the way to it.
    #[error("the program never said hello, though nothing about {} forbids it: it, or a launcher before it, cleaned LD_PRELOAD or XALLOC_SESSION from its environment, or a sandbox keeps it from {}", binary.display(), session.display())]
    Unknown {
        /// The binary that was started.
        binary: PathBuf,
        /// The session's directory.
        session: PathBuf,
    },
}

/// The system's word behind a reason.
pub(crate) fn system(errno: i32) -> String {
    if errno == 0 { String::new() } else { format!(": {}", io::Error::from_raw_os_error(errno)) }
}

impl RecordError {
    /// The status that `record` exits with.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            RecordError::NotRunnable(NotRunnable::NotFound { .. }) => exit_status::NOT_FOUND,
            RecordError::NotRunnable(
                NotRunnable::Directory { .. } | NotRunnable::NotExecutable { .. } | NotRunnable::Unreadable { .. },
            ) => exit_status::CANNOT_EXECUTE,
            RecordError::NotRecordable { source: Obstacle::NoProgram { .. } | Obstacle::Damaged { .. }, .. } => {
                exit_status::CANNOT_EXECUTE
            }
            RecordError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => exit_status::NOT_FOUND,
            RecordError::Start { .. } => exit_status::CANNOT_EXECUTE,
            RecordError::NoCommand
            | RecordError::NotRecordable { .. }
            | RecordError::Output(_)
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
            | RecordError::SampledUnlike => exit_status::TOOL_FAILED,
        }
    }

    /// What the user can do about it, where the message does not say it already.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            RecordError::NotRecordable { source, .. } => Some(source.hint()),
            RecordError::NoHello { reason: NoHello::Unknown { .. }, .. } => {
                Some("start the program itself rather than its launcher; `xalloc-report doctor COMMAND` checks more")
            }
            RecordError::NoHello { reason: NoHello::ByProgram { reason, .. }, .. } => Some(reason.hint()),
            RecordError::NoHello { reason: NoHello::Refused { .. }, .. } => {
                Some("the preload and the recorder must be of one build: unset LD_PRELOAD and try again")
            }
            RecordError::Unpack { .. } => Some("set XDG_CACHE_HOME to a directory that you can write to"),
            RecordError::AlreadyTrace { .. } => {
                Some("the commands on a trace read it as it is: xalloc-report summary FILE")
            }
            RecordError::NotSpilled { .. } => Some("import reads what XALLOC_OUT=FILE made"),
            RecordError::NotRunnable(NotRunnable::NotFound { .. }) => {
                Some("give its path (./app), or a name that is in PATH")
            }
            RecordError::Output(OutputError::Unwritable { .. }) => Some("name another place with -o"),
            RecordError::NoCommand
            | RecordError::NotRunnable(
                NotRunnable::Directory { .. } | NotRunnable::NotExecutable { .. } | NotRunnable::Unreadable { .. },
            )
            | RecordError::Start { .. }
            | RecordError::Output(
                OutputError::Exists { .. } | OutputError::Pattern { .. } | OutputError::StandardOutput,
            )
            | RecordError::Session(_)
            | RecordError::Signals(_)
            | RecordError::Waiter(_)
            | RecordError::Trace(_)
            | RecordError::Import { .. }
            | RecordError::NothingToImport => None,
            RecordError::SampledUnlike => Some("import them one by one"),
        }
    }
}
