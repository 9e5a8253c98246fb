//! What the kernel tells of a process or a thread in its `status` (proc_pid_status(5)).

use std::io;
use std::path::Path;

use crate::os::proc;

/// The text of one `status`, as it was at one moment.
pub(super) struct Status(String);

impl Status {
    /// The status of a process, by its number or as `self`.
    ///
    /// # Errors
    /// What the kernel says where there is no such process, or where it may not be read.
    pub(super) fn of(process: impl std::fmt::Display) -> io::Result<Status> {
        Status::read(Path::new(&format!("/proc/{process}/status")))
    }

    /// The status in a file, which is a process's or a thread's.
    ///
    /// # Errors
    /// As [`Status::of`].
    pub(super) fn read(path: &Path) -> io::Result<Status> {
        proc::text(path).map(Status)
    }

    /// The value of a field, as `State`.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Whether a mask of signals, as `SigBlk`, has `signal`. `None` where the kernel tells no such mask.
    pub(super) fn has_signal(&self, mask: &str, signal: i32) -> Option<bool> {
        let mask = u64::from_str_radix(self.field(mask)?, 16).ok()?;
        Some(mask >> (signal - 1) & 1 == 1)
    }

    /// One of the users that a process runs as.
    pub(super) fn uid(&self, which: Uid) -> Option<u32> {
        self.field("Uid")?.split_whitespace().nth(which as usize)?.parse().ok()
    }

    /// Whether it has ended, and nobody was told yet.
    pub(super) fn is_zombie(&self) -> bool {
        self.field("State").is_some_and(|state| state.starts_with('Z'))
    }
}

/// The users of a process, by their place in the field.
#[derive(Clone, Copy)]
pub(super) enum Uid {
    /// Who started it.
    Real = 0,
    /// As whom it opens files.
    FileSystem = 3,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tState: x\nState:\tZ (zombie)\nUid:\t1\t2\t3\t4\nSigBlk:\t0000000000000005\nSeccomp:\tx\n";
        let status = Status(status.to_owned());
        assert_eq!((status.field("State"), status.is_zombie()), (Some("Z (zombie)"), true));
        assert_eq!((status.field("Stat"), status.field("Sig")), (None, None));
        assert_eq!((status.uid(Uid::Real), status.uid(Uid::FileSystem)), (Some(1), Some(4)));
        assert_eq!((status.has_signal("SigBlk", 3), status.has_signal("SigBlk", 2)), (Some(true), Some(false)));
        assert_eq!((status.has_signal("SigIgn", 3), status.has_signal("Seccomp", 1)), (None, None));
    }

    #[test]
    fn the_kernel_tells_what_is_read_here() {
        let status = Status::of("self").unwrap();
        assert!(status.uid(Uid::Real).is_some() && status.has_signal("SigBlk", libc::SIGURG).is_some());
        assert!(!status.is_zombie());
        assert!(Status::of(u32::MAX).is_err());
    }
}
