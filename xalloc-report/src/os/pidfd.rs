//! A process by descriptor: told of its end without being its parent, and never confused by a reused number.
//!
//! # Safety
//! `pidfd_open`, `pidfd_send_signal` and `poll` touch no memory but the `pollfd` they are given; the descriptor that the first returns is
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

    /// Sends SIGURG to the process: a signal that does nothing to one that has no handler for it.
    ///
    /// # Errors
    /// `ESRCH` if the process has ended, `EPERM` if it is another user's, `ENOSYS` before Linux 5.1.
    pub fn urge(&self) -> io::Result<()> {
        let no_information = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: reads its integer arguments only: without information the kernel makes that of `kill` (module).
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), libc::SIGURG, no_information, 0) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

/// As [`Pidfd::urge`], where descriptors of processes are refused. The number may be another process's by then, which
/// finds no urgent data.
///
/// # Errors
/// What `kill` reports.
pub fn urge_by_number(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: reads its two integer arguments only.
    if unsafe { libc::kill(pid, libc::SIGURG) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_ended_when_it_was_killed_and_not_before() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = Pidfd::open(child.id()).unwrap();
        pidfd.urge().unwrap();
        urge_by_number(child.id()).unwrap();
        assert!(!pidfd.has_ended(), "the signal is ignored by who does not handle it");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pidfd.has_ended());
        assert_eq!(pidfd.urge().unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert!(Pidfd::open(u32::MAX).is_err());
    }
}
