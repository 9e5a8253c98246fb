//! Files as memory: a read-only, private map of a whole file.
//!
//! Binaries and their debug information reach hundreds of megabytes, of which symbolisation reads a few percent; a map
//! costs only the pages that are touched, a read costs all of them.
//!
//! # Safety
//! A map is memory that others can write to through the file, which the type `&[u8]` denies. The obligations, and who
//! keeps them:
//! - *The contents do not change while it is mapped.* The map is private and read-only, so this process cannot write to
//!   it; the files are programs, which the kernel keeps from being written while they run, and debug files. Linkers,
//!   package managers and cargo replace a binary by renaming a complete file over it, which leaves the mapped inode
//!   whole. Readers take every length from the bytes and check it against the slice where it is used, so bytes that
//!   change nevertheless give wrong names, not reads outside the map.
//! - *The file may lose its length*, by somebody who copies over it. What was cut off reads as zeroes (`os::shared`):
//!   a change as any other of the first bullet.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::MmapOptions;

use super::shared::SharedMap;

/// The map of a file that is only read.
#[derive(Debug)]
pub struct FileMap(SharedMap);

impl FileMap {
    /// Whether bytes were read that the file does not have any more, and were zeroes therefore.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.is_cut()
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the map is that long, readable, and lives as long as the borrow; an empty one's address is dangling and
        // aligned. That nobody changes the bytes is the module's first bullet.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

/// Maps the whole of `file` read-only and private.
///
/// An empty file gives an empty map. The map stays valid after `file` is closed.
///
/// # Errors
/// What `fstat` or `mmap` report: for example `ENODEV` for a file that cannot be mapped, `ENOMEM` for one that is larger
/// than the address space that is left.
pub fn map_readonly(file: &File) -> io::Result<FileMap> {
    // SAFETY: the obligations of the module's essay are those of `MmapOptions::map`; the first is kept by the tools that
    // replace binaries by rename, by the private read-only map and by the kernel's refusal to write to programs that
    // run; the second by `SharedMap`.
    let map = unsafe { MmapOptions::new().map(file) }?;
    Ok(FileMap(SharedMap::new(map.into())))
}

/// Makes `file` that long, with all of its space reserved where the file system can do that.
///
/// # Errors
/// What the system reports: `ENOSPC` where there is no room.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    file.set_len(bytes)?;
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    loop {
        // SAFETY: integers only; the descriptor is open as long as `file` is borrowed.
        let answer = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if answer == 0 => return Ok(()),
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
            // A file system in memory gives up when a signal waits.
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// Lets two files change their names, at one moment.
///
/// # Errors
/// What the system reports: `ENOENT` if one of them is not there, `EINVAL` where the file system cannot do that.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (one, other) = (one?, other?);
    // SAFETY: both are strings that end with a NUL and live through the call.
    let answer =
        unsafe { libc::renameat2(libc::AT_FDCWD, one.as_ptr(), libc::AT_FDCWD, other.as_ptr(), libc::RENAME_EXCHANGE) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mapped_file_reads_as_its_bytes_and_an_empty_file_as_none() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(map_readonly(&file).unwrap().is_empty());
        file.write_all(b"xalloc").unwrap();
        assert_eq!(&map_readonly(&file).unwrap()[..], b"xalloc");
    }

    #[test]
    fn files_that_exchange_their_names_are_both_there_and_one_that_is_missing_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        std::fs::write(&one, "1").unwrap();
        assert_eq!(exchange(&one, &other).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&other, "2").unwrap();
        match exchange(&one, &other) {
            Err(why) => println!("skipped: the file system cannot do that: {why}"),
            Ok(()) => assert_eq!([&one, &other].map(|path| std::fs::read(path).unwrap()), [b"2", b"1"]),
        }
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_mapped_ends_in_zeroes_and_nobody_is_killed() {
        const PAGE_BYTES: usize = 4096;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 2 * PAGE_BYTES]).unwrap();
        let map = map_readonly(&file).unwrap();
        file.set_len(PAGE_BYTES as u64).unwrap();
        assert_eq!((map[0], map.is_cut()), (7, false));
        assert_eq!((map[PAGE_BYTES], map.is_cut()), (0, true));
    }
}
