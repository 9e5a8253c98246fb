//! Whether a process can be told something by SIGURG without harm, seen from outside.
//!
//! The kernel gives a process's signal to its first thread if that takes it, else to any other that does (signal(7)). A
//! thread in `sigwait` takes what it waits for in the place of a handler, and so does who reads a `signalfd`: the program
//! would be handed a signal that nobody sent it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::os::proc;
use crate::record::status::Status;

/// Why a process is not sent the signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Deaf {
    /// No thread would take it: a program that asks for pending signals itself would find it.
    #[error("all of its threads block SIGURG")]
    Blocked,
    /// A thread might be handed it.
    #[error("a thread of it waits for signals (sigwait), and might take SIGURG for one of them")]
    Awaited,
    /// A file would be handed it.
    #[error("it has a signalfd for SIGURG, which would take it for a signal of the program's")]
    Read,
}

/// What a thread does about the signal, as far as the kernel tells.
#[derive(PartialEq, Eq)]
enum Taking {
    Handler,
    Awaits,
    Blocks,
}

/// Fails if SIGURG would not reach the handler of ours in the process `pid`.
pub(super) fn require_hearing(pid: u32) -> Result<(), Deaf> {
    if has_signalfd(pid) {
        return Err(Deaf::Read);
    }
    let task = PathBuf::from(format!("/proc/{pid}/task"));
    if taking(&task.join(pid.to_string())) == Taking::Handler {
        return Ok(());
    }
    let threads = fs::read_dir(task).into_iter().flatten().flatten();
    let takings: Vec<Taking> = threads.map(|thread| taking(&thread.path())).collect();
    if takings.contains(&Taking::Awaits) {
        Err(Deaf::Awaited)
    } else if takings.contains(&Taking::Handler) {
        Ok(())
    } else {
        Err(Deaf::Blocked)
    }
}

/// Whether a file of the process's gives signals to who reads it, SIGURG among them (proc_pid_fdinfo(5)).
fn has_signalfd(pid: u32) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    files.filter_map(|file| proc::text(file.path()).ok()).any(|text| {
        let mask = text.lines().find_map(|line| line.strip_prefix("sigmask:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (libc::SIGURG - 1) & 1 == 1)
    })
}

/// What cannot be read is taken for a thread like most.
fn taking(thread: &Path) -> Taking {
    let status = Status::read(&thread.join("status"));
    // What a thread waits for, the kernel does not count as blocked meanwhile.
    match status.ok().and_then(|status| status.has_signal("SigBlk", libc::SIGURG)) {
        Some(true) => Taking::Blocks,
        _ if is_in_sigwait(thread).unwrap_or(false) => Taking::Awaits,
        Some(false) | None => Taking::Handler,
    }
}

/// Whether the system call that a thread waits in is that of `sigwait` and its kin.
fn is_in_sigwait(thread: &Path) -> io::Result<bool> {
    let call = proc::text(thread.join("syscall"))?;
    let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
    Ok(number == Some(libc::SYS_rt_sigtimedwait))
}
