//! What the system says beyond what std asks: free space, file capabilities, the C library's version, processors,
//! limits, who we are.
//!
//! # Safety
//! - `statvfs` and `getxattr` read a NUL-terminated path and write only the struct or the buffer that they are given.
//! - `sysconf` takes a number and touches no memory; `geteuid` and `getegid` take nothing and cannot fail.
//! - `getrlimit` writes only the struct that it is given.
//! - `gnu_get_libc_version` returns a NUL-terminated constant.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that a user can still write to the file system that holds `path`.
///
/// # Errors
/// What `statvfs` reports.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid `statvfs` struct.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers live through the call (module).
    match unsafe { libc::statvfs(path.as_ptr(), &mut answer) } {
        0 => Ok(answer.f_bavail.saturating_mul(answer.f_frsize)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the file carries capabilities (`setcap`): the kernel then treats it like a setuid program.
#[must_use]
pub fn has_file_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings are NUL-terminated; size 0 asks for the length and writes nothing.
    let length = unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) };
    length > 0
}

/// The user whose rights this process has.
#[must_use]
pub fn own_uid() -> u32 {
    // SAFETY: by the module.
    unsafe { libc::geteuid() }
}

/// The group whose rights this process has.
#[must_use]
pub fn own_gid() -> u32 {
    // SAFETY: by the module.
    unsafe { libc::getegid() }
}

/// Version of the C library that this process runs on, as in "2.36".
#[must_use]
pub fn libc_version() -> String {
    // SAFETY: takes nothing (module).
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: last bullet of the module.
    unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned()
}

/// Processors that are online: glibc's malloc limits its arenas by them, whatever this process may use of them. At
/// least 1.
#[must_use]
pub fn processors_online() -> u32 {
    // SAFETY: by the module.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(online).unwrap_or(0).max(1)
}

/// What a limit is put on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    /// A process's address space (`ulimit -v`).
    AddressSpace,
    /// The size to which a process may make a file grow (`ulimit -f`).
    FileSize,
}

/// The limit that this process has and that the programs that it starts inherit, in bytes; `None`: there is none.
#[must_use]
pub fn limit_bytes(of: Limited) -> Option<u64> {
    let resource = match of {
        Limited::AddressSpace => libc::RLIMIT_AS,
        Limited::FileSize => libc::RLIMIT_FSIZE,
    };
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: by the module. It fails for an unknown resource only.
    unsafe { libc::getrlimit(resource, &mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_file_system_has_a_size_and_a_missing_path_an_error() {
        assert!(free_bytes(Path::new("/")).is_ok());
        assert!(free_bytes(Path::new("/no/such/path")).is_err());
        assert!(!has_file_capabilities(Path::new("/bin/sh")));
        assert!(libc_version().starts_with("2."));
        assert!(processors_online() >= 1);
    }
}
