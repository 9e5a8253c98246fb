//! The entries of [`super::Contents`] that are few: recording, processes, threads, modules, as records of bytes.
//!
//! Each record is read to its end and no further, so a later minor version can append fields.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xalloc_core::wire::LossReason;

use super::error::Malformed;
use super::varint::{Cursor, put, put_bytes, unzigzag, zigzag};
use super::{Allocator, End, Loss, Module, Process, ProcessIndex, Recording, Repairs, Thread, Waits};

const UNKNOWN: Malformed = Malformed::Bytes("a record has a number that this version does not know");

fn put_path(out: &mut Vec<u8>, path: &Path) {
    put_bytes(out, path.as_os_str().as_bytes());
}

fn path(from: &mut Cursor<'_>) -> Result<PathBuf, Malformed> {
    Ok(PathBuf::from(OsStr::from_bytes(from.bytes()?)))
}

fn put_list(out: &mut Vec<u8>, list: &[String]) {
    put(out, list.len() as u64);
    for text in list {
        put_bytes(out, text.as_bytes());
    }
}

fn list(from: &mut Cursor<'_>) -> Result<Vec<String>, Malformed> {
    let len = from.varint()?;
    let mut list = Vec::new();
    for _ in 0..len {
        list.push(from.text()?.to_owned());
    }
    Ok(list)
}

/// An index or a number that may be absent, as one more than it is.
pub(super) fn put_optional(out: &mut Vec<u8>, value: Option<u64>) {
    put(out, value.map_or(0, |value| value.saturating_add(1)));
}

/// The inverse of [`put_optional`].
pub(super) fn optional(from: &mut Cursor<'_>) -> Result<Option<u64>, Malformed> {
    Ok(from.varint()?.checked_sub(1))
}

fn put_end(out: &mut Vec<u8>, end: End) {
    let (tag, number) = match end {
        End::Exited(status) => (0, status),
        End::Signalled(signal) => (1, signal),
        End::Replaced => (2, 0),
        End::Running => (3, 0),
        End::Vanished => (4, 0),
    };
    out.push(tag);
    put(out, zigzag(i64::from(number) as u64));
}

fn end(from: &mut Cursor<'_>) -> Result<End, Malformed> {
    let tag = from.byte()?;
    let number = i32::try_from(unzigzag(from.varint()?) as i64).map_err(|_| UNKNOWN)?;
    Ok(match tag {
        0 => End::Exited(number),
        1 => End::Signalled(number),
        2 => End::Replaced,
        3 => End::Running,
        4 => End::Vanished,
        _ => return Err(UNKNOWN),
    })
}

pub(super) fn flag(from: &mut Cursor<'_>) -> Result<bool, Malformed> {
    match from.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(UNKNOWN),
    }
}

/// Appends the recording; what salvage says is the reader's and not stored, and the sampling is the file header's.
pub(super) fn put_recording(out: &mut Vec<u8>, recording: &Recording) {
    let Recording {
        command,
        started_unix_ns,
        duration_ns,
        tool_version,
        host,
        libc,
        processors,
        end,
        symbolized,
        sampling: _,
        salvage: _,
    } = recording;
    put_list(out, command);
    put(out, *started_unix_ns);
    put(out, *duration_ns);
    for text in [tool_version, host, libc] {
        put_bytes(out, text.as_bytes());
    }
    out.push(u8::from(*symbolized));
    out.push(u8::from(end.is_some()));
    if let Some(end) = end {
        put_end(out, *end);
    }
    put(out, u64::from(*processors));
}

pub(super) fn recording(from: &mut Cursor<'_>) -> Result<Recording, Malformed> {
    Ok(Recording {
        command: list(from)?,
        started_unix_ns: from.varint()?,
        duration_ns: from.varint()?,
        tool_version: from.text()?.to_owned(),
        host: from.text()?.to_owned(),
        libc: from.text()?.to_owned(),
        symbolized: flag(from)?,
        end: if flag(from)? { Some(end(from)?) } else { None },
        // Since 1.1.
        processors: if from.is_empty() { 0 } else { from.varint32()? },
        sampling: None,
        salvage: None,
    })
}

pub(super) fn put_process(out: &mut Vec<u8>, process: &Process) {
    let Process {
        pid,
        parent,
        forked,
        exe,
        command,
        started_at_ns,
        ended_at_ns,
        end,
        allocator,
        events,
        losses,
        repairs: Repairs { unknown_frees, implied_frees, late_events },
        waits: Waits { times, waited_ns },
    } = process;
    put(out, u64::from(*pid));
    put_optional(out, parent.map(|parent| u64::from(parent.0)));
    out.push(u8::from(*forked));
    put_path(out, exe);
    put_list(out, command);
    put(out, *started_at_ns);
    put(out, *ended_at_ns);
    put_end(out, *end);
    out.push(match allocator {
        Allocator::Core => 0,
        Allocator::System => 1,
    });
    put(out, *events);
    put(out, losses.len() as u64);
    for loss in losses {
        out.push(loss.reason as u8);
        put(out, loss.events);
    }
    for count in [unknown_frees, implied_frees, late_events, times, waited_ns] {
        put(out, *count);
    }
}

/// `processes` bounds the index of the parent.
pub(super) fn process(from: &mut Cursor<'_>, processes: usize) -> Result<Process, Malformed> {
    let pid = from.varint32()?;
    let parent = match optional(from)? {
        Some(parent) if parent < processes as u64 => Some(ProcessIndex(parent as u32)),
        Some(_) => return Err(Malformed::Bytes("a process's parent is not in the trace")),
        None => None,
    };
    let forked = flag(from)?;
    let exe = path(from)?;
    let command = list(from)?;
    let (started_at_ns, ended_at_ns) = (from.varint()?, from.varint()?);
    let end = end(from)?;
    let allocator = match from.byte()? {
        0 => Allocator::Core,
        1 => Allocator::System,
        _ => return Err(UNKNOWN),
    };
    let events = from.varint()?;
    let mut losses = Vec::new();
    for _ in 0..from.varint()? {
        let reason = LossReason::from_number(from.byte()?).ok_or(UNKNOWN)?;
        losses.push(Loss { reason, events: from.varint()? });
    }
    let repairs = Repairs { unknown_frees: from.varint()?, implied_frees: from.varint()?, late_events: from.varint()? };
    // Since 1.1; not in the first traces of it.
    let waits =
        if from.is_empty() { Waits::default() } else { Waits { times: from.varint()?, waited_ns: from.varint()? } };
    Ok(Process {
        pid,
        parent,
        forked,
        exe,
        command,
        started_at_ns,
        ended_at_ns,
        end,
        allocator,
        events,
        losses,
        repairs,
        waits,
    })
}

pub(super) fn put_thread(out: &mut Vec<u8>, thread: &Thread) {
    let Thread { process, tid, name, started_at_ns, ended_at_ns } = thread;
    put(out, u64::from(process.0));
    put(out, u64::from(*tid));
    put_bytes(out, name.as_bytes());
    put(out, *started_at_ns);
    put_optional(out, *ended_at_ns);
}

/// `processes` bounds the index of the thread's process.
pub(super) fn thread(from: &mut Cursor<'_>, processes: usize) -> Result<Thread, Malformed> {
    let process = from.varint32()?;
    if process as usize >= processes {
        return Err(Malformed::Bytes("a thread's process is not in the trace"));
    }
    Ok(Thread {
        process: ProcessIndex(process),
        tid: from.varint32()?,
        name: from.text()?.to_owned(),
        started_at_ns: from.varint()?,
        ended_at_ns: optional(from)?,
    })
}

pub(super) fn put_module(out: &mut Vec<u8>, module: &Module) {
    put_path(out, &module.path);
    put_bytes(out, &module.build_id);
}

pub(super) fn module(from: &mut Cursor<'_>) -> Result<Module, Malformed> {
    Ok(Module { path: path(from)?, build_id: from.bytes()?.to_vec() })
}
