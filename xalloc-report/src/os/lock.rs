//! The lock that says that a recorder lives.
//!
//! An open-file-description lock belongs to the open file and not to the process, so it ends exactly when the recorder
//! does, however it ends, and no other close of the same file in this process can release it (a POSIX lock would). A
//! process that waits for a recorder asks for the lock's owner and finds none when the recorder was killed.
//!
//! # Safety
//! `fcntl(F_OFD_SETLK)` reads the `flock` it is given, `F_OFD_GETLK` writes to it too; they touch no other memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks the whole of `file` for writing, for as long as this open file lives.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if another recorder holds it.
pub fn lock_exclusively(file: &File) -> io::Result<()> {
    let lock = whole(libc::F_WRLCK);
    // SAFETY: the descriptor is open, the `flock` lives through the call (module).
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether another open file holds the lock. Unlike trying to take it, asking keeps nobody from doing so.
///
/// # Errors
/// What `fcntl` reports.
pub fn is_locked(file: &File) -> io::Result<bool> {
    let mut lock = whole(libc::F_WRLCK);
    // SAFETY: as in `lock_exclusively`; the `flock` is this function's to be written to.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } {
        0 => Ok(lock.l_type != libc::F_UNLCK as libc::c_short),
        _ => Err(io::Error::last_os_error()),
    }
}

fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_open_file_cannot_take_the_lock_until_the_first_is_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (first, second) = (open(), open());
        assert!(!is_locked(&second).unwrap());
        lock_exclusively(&first).unwrap();
        assert!(is_locked(&second).unwrap() && !is_locked(&first).unwrap(), "it is another's");
        assert_eq!(lock_exclusively(&second).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        // A child that another test is just starting holds a copy of `first` until its exec.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while let Err(error) = lock_exclusively(&second) {
            assert!(std::time::Instant::now() < deadline, "the lock outlives its file: {error}");
            std::thread::yield_now();
        }
    }
}
