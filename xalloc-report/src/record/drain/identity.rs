//! What a segment's header says of its process, copied out once and checked.

use std::ffi::OsString;
use std::mem::offset_of;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use xalloc_core::session::{Header, PATH_BYTES, SEGMENT_MAGIC, allocator, birth, clock};
use xalloc_core::units::Stamp;
use xalloc_core::wire;

use crate::os::segment::Segment;
use crate::record::clock::{Clock, Reading};
use crate::trace::{Allocator, Sampling};

/// How a process began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Birth {
    /// By exec, or as the command.
    Exec,
    /// By the fork that its parent announced with this serial number.
    Fork { serial: u32 },
}

/// The constant part of a header.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) parent_pid: u32,
    pub(crate) birth: Birth,
    pub(crate) clock: Clock,
    pub(crate) allocator: Allocator,
    pub(crate) sampling: Option<Sampling>,
    pub(crate) started: Stamp,
    pub(crate) started_monotonic_ns: u64,
    pub(crate) started_realtime_ns: u64,
    pub(crate) libc: String,
    pub(crate) exe: PathBuf,
    pub(crate) command: Vec<String>,
}

/// Why a header was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Not made by a preload.
    #[error("it does not begin with the mark of a segment")]
    Magic,
    /// Another format.
    #[error(
        "it was written by a preload of format {seen}, this recorder reads {}; record with the preload of one build",
        wire::VERSION
    )]
    Version {
        /// The version in the header.
        seen: u32,
    },
}

impl Identity {
    pub(crate) fn read(segment: &Segment) -> Result<Identity, Refused> {
        let mut bytes = vec![0; size_of::<Header>()];
        // A segment is longer than its header, which is checked where it is mapped.
        let is_copied = segment.copy(0, &mut bytes);
        if !is_copied || word64(&bytes, offset_of!(Header, magic)) != SEGMENT_MAGIC {
            return Err(Refused::Magic);
        }
        let version = word32(&bytes, offset_of!(Header, version));
        if version != u32::from(wire::VERSION) {
            return Err(Refused::Version { seen: version });
        }
        let serial = word32(&bytes, offset_of!(Header, fork_serial));
        let exe = offset_of!(Header, exe);
        let command = offset_of!(Header, command);
        let libc = offset_of!(Header, libc_version);
        Ok(Identity {
            pid: word32(&bytes, offset_of!(Header, pid)),
            parent_pid: word32(&bytes, offset_of!(Header, parent_pid)),
            birth: match word32(&bytes, offset_of!(Header, birth)) {
                birth::FORK => Birth::Fork { serial },
                _ => Birth::Exec,
            },
            clock: match word32(&bytes, offset_of!(Header, clock)) {
                clock::MONOTONIC => Clock::Monotonic,
                _ => Clock::Ticks,
            },
            allocator: match word32(&bytes, offset_of!(Header, allocator)) {
                allocator::SYSTEM => Allocator::System,
                _ => Allocator::Core,
            },
            sampling: Sampling::of_mean(word32(&bytes, offset_of!(Header, sample_mean_bytes))),
            started: Stamp(word64(&bytes, offset_of!(Header, started))),
            started_monotonic_ns: word64(&bytes, offset_of!(Header, started_monotonic_ns)),
            started_realtime_ns: word64(&bytes, offset_of!(Header, started_realtime_ns)),
            libc: String::from_utf8_lossy(until_nul(&bytes[libc..libc + 32])).into_owned(),
            exe: PathBuf::from(OsString::from_vec(until_nul(&bytes[exe..exe + PATH_BYTES]).to_vec())),
            command: arguments(&bytes[command..command + PATH_BYTES]),
        })
    }

    /// Whether this program replaced the earlier one by exec, or was started by it.
    pub(crate) fn comes_of(&self, earlier: &Identity) -> bool {
        [self.pid, self.parent_pid].contains(&earlier.pid)
    }

    /// Both clocks when the segment was made.
    pub(crate) fn reading(&self) -> Reading {
        Reading { ticks: self.started.0, monotonic_ns: self.started_monotonic_ns }
    }
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map(u32::from_le_bytes).expect("the slice is four bytes long")
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map(u64::from_le_bytes).expect("the slice is eight bytes long")
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}

/// Arguments, each closed by a NUL, an empty one at the end. An empty argument in between ends the list early.
fn arguments(bytes: &[u8]) -> Vec<String> {
    let arguments = bytes.split(|&byte| byte == 0).take_while(|argument| !argument.is_empty());
    arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}
