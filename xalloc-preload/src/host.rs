//! The few things that the library asks of libc and the kernel, behind small functions.
//!
//! Nothing here allocates from the program's heap, and nothing takes a lock of libc's.
//!
//! # Safety
//! - `__errno_location` returns the calling thread's word, valid for the life of the thread.
//! - `syscall` is given numbers whose arguments are integers, or buffers that outlive the call and have the stated
//!   length; strings are [`CStr`]s.
//! - A mapping that is made here is placed by the kernel, unless the caller says where and answers for it.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_long};
use core::ptr::NonNull;

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    // SAFETY: first bullet of the module.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: first bullet of the module.
    unsafe { place.read() }
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(value: c_int) {
    // SAFETY: first bullet of the module.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: first bullet of the module.
    unsafe { place.write(value) };
}

/// Runs `work` and leaves errno as it was.
pub(crate) fn keeping_errno<R>(work: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = work();
    set_errno(before);
    result
}

/// The calling process, asked of the kernel: right in a child of any kind.
pub(crate) fn pid() -> u32 {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// The calling thread, by the kernel's number.
pub(crate) fn tid() -> u32 {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// A file that is open only for the moment; closed when dropped.
pub(crate) struct File(c_int);

impl File {
    /// Opens `path` with `flags`, close-on-exec; a file that is made has mode 0600.
    pub(crate) fn open(path: &CStr, flags: c_int) -> Option<File> {
        let flags = flags | libc::O_CLOEXEC;
        // SAFETY: second bullet of the module.
        let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
        (fd >= 0).then_some(File(fd as c_int))
    }

    /// Reads up to `buffer.len()` bytes from `at`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: usize) -> usize {
        // SAFETY: second bullet of the module.
        let got = unsafe { libc::syscall(libc::SYS_pread64, self.0, buffer.as_mut_ptr(), buffer.len(), at) };
        got.max(0) as usize
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: second bullet of the module; the descriptor is this value's own.
        unsafe { libc::syscall(libc::SYS_close, self.0) };
    }
}

/// Maps `bytes` of zeroed memory of our own, for ever; over what is at `place`, if that is given.
///
/// # Safety
/// - `place` is null, or the start of a mapping of at least `bytes` that is the caller's to replace.
pub(crate) unsafe fn map_anonymous(bytes: usize, place: *mut u8) -> Option<NonNull<u8>> {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: by the contract of this function.
    mapped(unsafe { libc::syscall(libc::SYS_mmap, place, bytes, rights, flags, -1, 0_usize) })
}

fn mapped(answer: c_long) -> Option<NonNull<u8>> {
    if answer == -1 {
        return None;
    }
    NonNull::new(core::ptr::with_exposed_provenance_mut(answer as usize))
}

/// A value of the auxiliary vector, 0 if there is none.
pub(crate) fn auxiliary(kind: u64) -> u64 {
    // SAFETY: only looks into the vector that the kernel passed.
    unsafe { libc::getauxval(kind) }
}
