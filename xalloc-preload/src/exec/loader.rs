//! Whether the loader of a program that is about to be started gets on with this library.
//!
//! glibc's loader passes over a library that it cannot preload, and says so where the program is for 32 bits; musl's
//! ends the program, for the library needs what glibc alone has. Such programs are started without it, as are their
//! children. Of a script it is not asked what its interpreter is loaded by, nor of a program that is named by a
//! descriptor, or relative to a directory that a spawned process is to change to first.
//!
//! To close a file gives up the process's POSIX record locks on it: a program that starts a file which it holds such a
//! lock on loses the lock.
//!
//! # Safety
//! - The program's own environment is read once the kernel has seen that it can be.
#![allow(unsafe_code)]

use crate::config::{PATH, current_environment, each_string};
use crate::host::{self, File};
use crate::text::Text;

/// Offsets in the header of an ELF file for 64 bits, and the sizes of its parts (elf(5)).
const HEADER_BYTES: usize = 64;
const CLASS: usize = 4;
const CLASS_32: u8 = 1;
const PROGRAM_HEADERS_AT: usize = 32;
const PROGRAM_HEADERS: usize = 56;
const PROGRAM_HEADER_BYTES: usize = 56;
const INTERPRETER: u32 = 3;
/// Most program headers that are looked at; compilers make about a dozen.
const MOST_HEADERS: usize = 64;

/// The directories that libc looks in where there is no `PATH` (`_CS_PATH` of confstr(3)).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Whether the program at `path` is one that this library would harm.
pub(super) fn refuses(path: &[u8]) -> bool {
    host::keeping_errno(|| judge(&Text::of(path))) == Some(true)
}

/// The same of a program that is looked for in the directories of `PATH`, of which the first counts.
pub(super) fn refuses_found(file: &[u8]) -> bool {
    let environment = current_environment();
    if !super::is_sound(environment) {
        return false;
    }
    let mut refuses = None;
    if !environment.is_null() {
        // SAFETY: it was just seen to be an array of strings that can be read.
        unsafe {
            each_string(environment, &mut |variable| {
                if let (None, Some(directories)) = (refuses, variable.strip_prefix(b"PATH=")) {
                    refuses = Some(refuses_in(directories, file));
                }
            });
        }
    }
    refuses.unwrap_or_else(|| refuses_in(DEFAULT_PATH, file))
}

/// Whether the first program of that name is such a one. An empty directory means the current one.
fn refuses_in(directories: &[u8], file: &[u8]) -> bool {
    let mut directories = directories.split(|&byte| byte == b':');
    let first = directories.find_map(|directory| {
        let mut path = Text::of(directory);
        if !directory.is_empty() {
            path.push(b"/");
        }
        path.push(file);
        host::keeping_errno(|| judge(&path))
    });
    first == Some(true)
}

/// Whether the program at `path` is foreign, as one is not that cannot be read; `None`: no program is there.
fn judge(path: &Text<PATH>) -> Option<bool> {
    if path.is_cut() || !host::is_program(path.as_c()) {
        return None;
    }
    let file = File::open(path.as_c(), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY);
    Some(file.is_some_and(|file| is_foreign(&file)))
}

fn is_foreign(file: &File) -> bool {
    let mut header = [0; HEADER_BYTES];
    if file.read_at(&mut header, 0) < HEADER_BYTES || !header.starts_with(b"\x7fELF") {
        return false;
    }
    if header[CLASS] == CLASS_32 {
        return true;
    }
    let Some(first) = word(&header, PROGRAM_HEADERS_AT) else { return false };
    let count = usize::from(u16::from_le_bytes([header[PROGRAM_HEADERS], header[PROGRAM_HEADERS + 1]]));
    for number in 0..count.min(MOST_HEADERS) {
        let mut segment = [0; PROGRAM_HEADER_BYTES];
        let Some(at) = first.checked_add(number * PROGRAM_HEADER_BYTES) else { return false };
        if file.read_at(&mut segment, at) < PROGRAM_HEADER_BYTES {
            return false;
        }
        if segment.starts_with(&INTERPRETER.to_le_bytes()) {
            let mut loader = [0; 256];
            let length = word(&segment, 8).map_or(0, |at| file.read_at(&mut loader, at));
            let name = loader[..length].split(|&byte| byte == 0).next().unwrap_or_default();
            return name.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(b"ld-musl"));
        }
    }
    false
}

/// The word at `at`, as an offset in the file.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?) as usize)
}
