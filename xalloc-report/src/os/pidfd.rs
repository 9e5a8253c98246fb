//! A process by descriptor: told of its end without being its parent, and never confused by a reused number.
//!
//! # Safety
//! `pidfd_open` and `poll` touch no memory but the `pollfd` they are given; the descriptor that the first returns is
//! new and owned by nobody else.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A process that may have ended.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Takes hold of process `pid`.
    ///
    /// # Errors
    /// `ESRCH` if there is none (any more), `ENOSYS` before Linux 5.3, `EPERM` where a seccomp filter refuses.
    pub fn open(pid: u32) -> io::Result<Pidfd> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        // SAFETY: reads its two integer arguments only (module).
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new and ours (module).
        Ok(Pidfd(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Gives up the ownership of the descriptor.
    pub(super) fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }

    /// Whether the process has ended. It may not have been waited for yet.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one `pollfd`, which lives through the call; a timeout of 0 does not wait.
        let ready = unsafe { libc::poll(&mut poll, 1, 0) };
        ready == 1 && poll.revents & libc::POLLIN != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_ended_when_it_was_killed_and_not_before() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = Pidfd::open(child.id()).unwrap();
        assert!(!pidfd.has_ended());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pidfd.has_ended());
        assert!(Pidfd::open(u32::MAX).is_err());
    }
}
