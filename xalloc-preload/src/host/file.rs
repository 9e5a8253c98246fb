//! Files: opened for the moment, read and written at a place, and asked about by path.
//!
//! # Safety
//! - `syscall` is given what the essay of [`super`] asks for.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::memory::mapped;
use super::{errno, keeping_errno, word};

/// A file that is open only for the moment; closed when dropped.
pub(crate) struct File(pub(super) c_int);

/// How an attempt to reserve space in a file ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reservation {
    /// Touching it cannot fail.
    Made,
    /// There is no room.
    Refused,
    /// The file system cannot reserve, or may not be asked.
    Unknown,
}

impl File {
    /// Opens `path` with `flags`, close-on-exec; a file that is made has mode 0600.
    pub(crate) fn open(path: &CStr, flags: c_int) -> Option<File> {
        let flags = flags | libc::O_CLOEXEC;
        // SAFETY: by the bullet of the module.
        let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
        // Not `then_some`: a File of -1 would be closed on the spot, and errno with it.
        (fd >= 0).then(|| File(fd as c_int))
    }

    /// Sets the file's size; false: errno says why not.
    pub(crate) fn resize(&self, bytes: usize) -> bool {
        // SAFETY: by the bullet of the module.
        unsafe { libc::syscall(libc::SYS_ftruncate, self.0, bytes) == 0 }
    }

    /// Reserves space, so that touching it cannot fail later.
    pub(crate) fn reserve(&self, at: usize, bytes: usize) -> Reservation {
        loop {
            // SAFETY: by the bullet of the module.
            let answer = unsafe { libc::syscall(libc::SYS_fallocate, self.0, 0, at, bytes) };
            if answer == 0 {
                return Reservation::Made;
            }
            match errno() {
                // A signal ends it before it is done; what it did until then need not be done again.
                libc::EINTR => {}
                libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EIO | libc::ENOMEM => return Reservation::Refused,
                _ => return Reservation::Unknown,
            }
        }
    }

    /// Reads up to `buffer.len()` bytes from `at`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: usize) -> usize {
        // SAFETY: by the bullet of the module.
        let got = unsafe { libc::syscall(libc::SYS_pread64, self.0, buffer.as_mut_ptr(), buffer.len(), at) };
        got.max(0) as usize
    }

    /// Asks the file's own question `request`, or gives its order; false: errno says why not.
    ///
    /// # Safety
    /// - `request` reads and writes no more than the `T` and the memory that its fields name, which is valid for that during
    ///   the call.
    pub(crate) unsafe fn control<T>(&self, request: u32, about: &mut T) -> bool {
        // SAFETY: by the contract of this function.
        unsafe { libc::syscall(libc::SYS_ioctl, self.0, request, core::ptr::from_mut(about)) == 0 }
    }

    /// Writes all of `bytes` at `at`; false: the system took only part of them.
    pub(crate) fn write_at(&self, mut bytes: &[u8], mut at: u64) -> bool {
        while !bytes.is_empty() {
            // SAFETY: by the bullet of the module.
            let put = unsafe { libc::syscall(libc::SYS_pwrite64, self.0, bytes.as_ptr(), bytes.len(), at) };
            if put < 0 && errno() == libc::EINTR {
                continue;
            }
            if put <= 0 {
                return false;
            }
            let Some(rest) = bytes.get(put as usize..) else { return false };
            bytes = rest;
            at += put as u64;
        }
        true
    }

    /// Whether some process holds a write lock on the file (an "open file description" lock, see `fcntl(2)`).
    pub(crate) fn is_write_locked(&self) -> bool {
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // SAFETY: by the bullet of the module; F_OFD_GETLK reads and writes one `flock`.
        let answer = unsafe { libc::syscall(libc::SYS_fcntl, self.0, libc::F_OFD_GETLK, &raw mut lock) };
        answer == 0 && lock.l_type != libc::F_UNLCK as i16
    }

    /// Maps `bytes` of the file from its start, writable and shared; over what is at `place`, if that is given.
    ///
    /// # Safety
    /// - `place` is null, or the start of a mapping of at least `bytes` that is the caller's to replace.
    pub(crate) unsafe fn map(&self, bytes: usize, place: *mut u8) -> Option<NonNull<u8>> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
        // SAFETY: by the contract of this function.
        let at = unsafe {
            libc::syscall(
                libc::SYS_mmap,
                place,
                bytes,
                word(rights),
                word(libc::MAP_SHARED | fixed),
                word(self.0),
                0_usize,
            )
        };
        mapped(at)
    }

    /// The file's size; 0 if it cannot be told.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: by the bullet of the module: only moves the position of this value's own descriptor.
        let end = unsafe { libc::syscall(libc::SYS_lseek, self.0, 0_usize, libc::SEEK_END) };
        end.max(0) as u64
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: by the bullet of the module; the descriptor is this value's own.
        unsafe { libc::syscall(libc::SYS_close, self.0) };
    }
}

/// Removes a file.
pub(crate) fn remove_file(path: &CStr) {
    // SAFETY: by the bullet of the module.
    unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0_usize) };
}

/// Makes an empty file, without a descriptor.
pub(crate) fn make_empty_file(path: &CStr) {
    // SAFETY: by the bullet of the module.
    unsafe { libc::syscall(libc::SYS_mknodat, libc::AT_FDCWD, path.as_ptr(), libc::S_IFREG | 0o600, 0_usize) };
}

/// Where the symbolic link at `path` points; the length, 0 if it cannot be read.
pub(crate) fn read_link(path: &CStr, target: &mut [u8]) -> usize {
    // SAFETY: by the bullet of the module.
    let got = unsafe {
        libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), target.as_mut_ptr(), target.len())
    };
    got.max(0) as usize
}

/// Whether the kernel can read `path` as a path: up to its NUL, or all the bytes that a path may have.
///
/// It is asked whether the file exists, which it is about to be asked anyway, and only an answer about the pointer
/// counts. (`process_vm_readv` would read without looking up anything, but filters of system calls often forbid it.)
pub(crate) fn is_readable_path(path: *const c_char) -> bool {
    keeping_errno(|| {
        // SAFETY: the kernel answers with an error where it cannot read.
        let answer = unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) };
        answer == 0 || errno() != libc::EFAULT
    })
}

/// Whether `path` names a regular file that this process may execute. Nothing is opened: to open a FIFO is noticed at its other
/// end.
pub(crate) fn is_program(path: &CStr) -> bool {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a path with its NUL, and room for the answer.
    let answer = unsafe { libc::syscall(libc::SYS_newfstatat, libc::AT_FDCWD, path.as_ptr(), stat.as_mut_ptr(), 0) };
    if answer != 0 {
        return false;
    }
    // SAFETY: the kernel has filled it.
    let mode = unsafe { stat.assume_init() }.st_mode;
    // SAFETY: as above.
    let may = || unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), libc::X_OK) } == 0;
    mode & libc::S_IFMT == libc::S_IFREG && may()
}

/// Largest size to which the process may make a file grow: beyond it the kernel sends a signal.
pub(crate) fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: by the bullet of the module; prlimit64 writes one `rlimit`.
    unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_FSIZE, core::ptr::null::<libc::rlimit>(), &raw mut limit)
    };
    limit.rlim_cur
}
