//! What can go wrong with a trace, for its writer and its reader.
//!
//! A message says what was seen, at which byte of the file, and what to do about it. Inside a block the position is
//! not known to the code that finds the fault, so that code says [`Malformed`] and the block's reader adds the byte.

use std::io;
use std::path::PathBuf;

use super::container::{MAJOR, MINOR};

/// Why a trace could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file could not be made.
    #[error("cannot create the trace {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be opened.
    #[error("cannot open the trace {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a device, a FIFO or the like.
    #[error("{} is no file, and a trace is read at many places: write it to one first", path.display())]
    NoFile {
        /// Its name.
        path: PathBuf,
    },
    /// The system failed to read a part of it.
    #[error("cannot read {len_bytes} bytes of the trace at byte {offset_bytes}")]
    Read {
        /// Where.
        offset_bytes: u64,
        /// How much.
        len_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("not an xalloc trace: it begins with {found:02x?}; a trace is what `xalloc-report record` wrote")]
    NotATrace {
        /// Its first bytes, at most 8.
        found: Vec<u8>,
    },
    /// The file is of a format that this reader does not know.
    #[error("the trace has format {major}.{minor}, this reader knows {MAJOR}.{MINOR}; read it with a newer xalloc")]
    NewerVersion {
        /// Major version of the file.
        major: u16,
        /// Minor version of the file.
        minor: u16,
    },
    /// A block does not say what a block of its kind has to say.
    #[error("the trace is damaged at byte {offset_bytes}: {what}")]
    Damaged {
        /// Where its block begins.
        offset_bytes: u64,
        /// What was found.
        what: &'static str,
    },
    /// The trace has more blocks live at once than the reader was allowed to hold.
    #[error(
        "more than {limit} blocks are live at once at byte {offset_bytes} of the trace; \
         raise the limit if the machine has the memory (about 70 bytes a block)"
    )]
    TooManyLive {
        /// Where.
        offset_bytes: u64,
        /// The limit that was set.
        limit: u32,
    },
    /// The caller asked for a process that the trace does not have.
    #[error("the trace has {processes} processes, number {} was asked for", process)]
    NoSuchProcess {
        /// The index that was asked for.
        process: u32,
        /// How many there are.
        processes: usize,
    },
    /// The trace could not be written on: the disk is full, or the device failed.
    #[error("cannot write the trace after byte {written_bytes}; what was written until there stays readable")]
    Write {
        /// Bytes of whole blocks in the file.
        written_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write failed and the trace ended there.
    #[error("the trace ended at byte {written_bytes}, where a write failed; later events are not in it")]
    Stopped {
        /// Bytes of whole blocks in the file.
        written_bytes: u64,
    },
    /// An event names something that the contents did not have when they were last synchronised.
    #[error("an event names {table} {index}, but only {known} were synchronised; call `sync_contents` before `push`")]
    NotInContents {
        /// The table of [`super::Contents`].
        table: &'static str,
        /// The index named.
        index: u32,
        /// Entries known to the writer.
        known: usize,
    },
    /// An event came for a process that was never begun, or has ended.
    #[error("an event of process {process} arrived, which is not open in the trace; call `begin_process` first")]
    ProcessNotOpen {
        /// Its index.
        process: u32,
    },
}

/// A fault within a block, before its place in the file is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Malformed {
    /// Bytes that no writer writes.
    Bytes(&'static str),
    /// More slots than the reader may hold.
    Slots(u32),
}

impl Malformed {
    /// The error of the room, for a block that begins at `offset_bytes`.
    pub(super) fn at(self, offset_bytes: u64) -> TraceError {
        match self {
            Malformed::Bytes(what) => TraceError::Damaged { offset_bytes, what },
            Malformed::Slots(limit) => TraceError::TooManyLive { offset_bytes, limit },
        }
    }
}
