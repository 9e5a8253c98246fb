//! The kernel's list of this process's mappings, read without libc.
//!
//! The text of `/proc/thread-self/maps` is the one description of the address space that can be had without a lock of the
//! loader's and without memory. It costs 10 to 100 us. So who wants one mapping (a thread, where its stack ends; a
//! module, its path) asks for that one, and reads the list where the kernel knows no such question (before Linux 6.11) or
//! a filter of system calls forbids it: once a thread and once a module, never once a frame.
//!
//! # Safety
//! - [`Query`] is what `<linux/fs.h>` declares as `struct procmap_query`, and says how long it is; the name that it asks for
//!   goes into a buffer of the stated length.
#![allow(unsafe_code)]

use core::ffi::CStr;
use core::ops::{ControlFlow, Range};

use crate::host::{File, is_confined, keeping_errno};

/// Longer lines lose the end of their path.
const BUFFER_BYTES: usize = 4096;

/// `struct procmap_query`: asks for the mapping that holds an address, and for its path.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    permissions: u64,
    page_bytes: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    /// Room for the path; afterwards the path's bytes with its NUL, 0 if there is none.
    path_bytes: u32,
    build_id_bytes: u32,
    path: u64,
    build_id: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: u32 = 3 << 30 | (size_of::<Query>() as u32) << 16 | (b'f' as u32) << 8 | 17;

/// `PROCMAP_QUERY_VMA_READABLE` and so on: each bit with its letter, and the letter where it is not set.
const PERMISSIONS: [(u64, [u8; 2]); 4] = [(1, *b"r-"), (2, *b"w-"), (4, *b"x-"), (8, *b"sp")];

/// The calling thread's own list: that of the process is empty when the first thread has left.
const LIST: &CStr = c"/proc/thread-self/maps";

/// One line of the list.
#[derive(Debug)]
pub(crate) struct Mapping<'a> {
    pub(crate) range: Range<u64>,
    /// Whether it can be read, written, executed (`r`, `w`, `x` or `-`), and whether it is private or shared (`p`, `s`).
    pub(crate) permissions: [u8; 4],
    /// The file, `[stack]` and the like, or empty.
    pub(crate) path: &'a [u8],
}

/// Shows the mappings to `look` in rising order until it breaks off; none to a process that [confined](is_confined) itself.
pub(crate) fn search<B>(look: impl FnMut(&Mapping<'_>) -> ControlFlow<B>) -> Option<B> {
    if is_confined() { None } else { keeping_errno(|| search_file(look)) }
}

fn search_file<B>(look: impl FnMut(&Mapping<'_>) -> ControlFlow<B>) -> Option<B> {
    search_in(&File::open(LIST, libc::O_RDONLY)?, &mut [0; BUFFER_BYTES], look)
}

fn search_in<B>(
    file: &File,
    buffer: &mut [u8; BUFFER_BYTES],
    mut look: impl FnMut(&Mapping<'_>) -> ControlFlow<B>,
) -> Option<B> {
    let (mut at, mut filled) = (0, 0);
    let mut in_line = true;
    loop {
        let free = buffer.get_mut(filled..)?;
        let got = file.read_at(free, at);
        at += got;
        filled += got;
        let mut used = 0;
        while let Some(len) = buffer[used..filled].iter().position(|&byte| byte == b'\n') {
            let line = &buffer[used..used + len];
            used += len + 1;
            if in_line
                && let Some(mapping) = parse(line)
                && let ControlFlow::Break(found) = look(&mapping)
            {
                return Some(found);
            }
            in_line = true;
        }
        if got == 0 {
            return None;
        }
        if used == 0 && filled == BUFFER_BYTES {
            // A line longer than the buffer: its start says all but the end of the path.
            if in_line
                && let Some(mapping) = parse(buffer)
                && let ControlFlow::Break(found) = look(&mapping)
            {
                return Some(found);
            }
            in_line = false;
            used = filled;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

/// Shows the mapping that holds `address`; none to a process that [confined](is_confined) itself.
pub(crate) fn at<R>(address: u64, look: impl FnOnce(&Mapping<'_>) -> R) -> Option<R> {
    if is_confined() {
        return None;
    }
    keeping_errno(|| {
        let file = File::open(LIST, libc::O_RDONLY)?;
        // One for both: a hook may run on a small stack.
        let mut buffer = [0; BUFFER_BYTES];
        if let Some(mapping) = ask(&file, address, &mut buffer) {
            return Some(look(&mapping));
        }
        search_at(&file, &mut buffer, address, look)
    })
}

/// The same from the list.
fn search_at<R>(
    file: &File,
    buffer: &mut [u8; BUFFER_BYTES],
    address: u64,
    look: impl FnOnce(&Mapping<'_>) -> R,
) -> Option<R> {
    let mut look = Some(look);
    search_in(file, buffer, |mapping| match mapping.range.contains(&address) {
        true => ControlFlow::Break(look.take().map(|look| look(mapping))),
        false => ControlFlow::Continue(()),
    })
    .flatten()
}

/// What the kernel answers about the mapping that holds `address`. `None`: nothing, or there is none.
fn ask<'b>(file: &File, address: u64, path: &'b mut [u8; BUFFER_BYTES]) -> Option<Mapping<'b>> {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        address,
        path_bytes: BUFFER_BYTES as u32,
        path: path.as_mut_ptr() as u64,
        ..Query::default()
    };
    // SAFETY: by the bullet of the module.
    let is_answered = unsafe { file.control(PROCMAP_QUERY, &mut query) };
    let permissions = PERMISSIONS.map(|(bit, [set, unset])| if query.permissions & bit != 0 { set } else { unset });
    let path = path.get(..(query.path_bytes as usize).saturating_sub(1))?;
    is_answered.then_some(Mapping { range: query.start..query.end, permissions, path })
}

/// The range of the mapping that holds `address`.
pub(crate) fn range_at(address: u64) -> Option<Range<u64>> {
    at(address, |mapping| mapping.range.clone())
}

/// `start-end perms offset device inode path`, all but the path without blanks (proc(5)).
fn parse(line: &[u8]) -> Option<Mapping<'_>> {
    let mut rest = line;
    let start = hexadecimal(field(&mut rest, b'-'))?;
    let end = hexadecimal(field(&mut rest, b' '))?;
    let permissions = field(&mut rest, b' ').try_into().ok()?;
    for _ in 0..3 {
        field(&mut rest, b' ');
    }
    Some(Mapping { range: start..end, permissions, path: rest.trim_ascii_start() })
}

fn field<'a>(rest: &mut &'a [u8], separator: u8) -> &'a [u8] {
    let len = rest.iter().position(|&byte| byte == separator).unwrap_or(rest.len());
    let (field, behind) = rest.split_at(len);
    *rest = behind.get(1..).unwrap_or(&[]);
    field
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | u64::from(char::from(digit).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_range_and_a_path_with_blanks() {
        let line = b"7f0c1000-7f0c3000 r-xp 00001000 fe:00 1234                       /opt/my libs/libx.so (deleted)";
        let mapping = parse(line).expect("a mapping");
        assert_eq!(mapping.range, 0x7f0c_1000..0x7f0c_3000);
        assert_eq!(mapping.path, b"/opt/my libs/libx.so (deleted)");
        assert_eq!(&mapping.permissions, b"r-xp");
        assert_eq!(parse(b"7f0c1000-7f0c3000 rw-p 00000000 00:00 0 ").expect("a mapping").path, b"");
        assert!(parse(b"").is_none());
        assert!(parse(b"zz-7f r").is_none());
    }

    #[test]
    fn a_mapping_that_is_asked_for_is_the_one_in_the_list() {
        let mut compared = 0;
        let _: Option<()> = search(|mapping| {
            let same = |asked: &Mapping<'_>| {
                asked.path == mapping.path && asked.permissions == mapping.permissions && asked.range == mapping.range
            };
            // The break and the stack grow meanwhile; nothing can be asked about the kernel's page.
            let is_still = !mapping.path.starts_with(b"[") && !mapping.path.is_empty();
            assert!(!is_still || at(mapping.range.end - 1, same) == Some(true), "{mapping:?}");
            let list = File::open(LIST, libc::O_RDONLY).expect("proc is mounted");
            let listed = search_at(&list, &mut [0; BUFFER_BYTES], mapping.range.start, same);
            assert!(!is_still || listed == Some(true), "{mapping:?}");
            compared += usize::from(is_still);
            ControlFlow::Continue(())
        });
        assert!(compared > 4, "{compared}");
        let mut path = [0; BUFFER_BYTES];
        let here = parse as fn(&'static [u8]) -> Option<Mapping<'static>> as usize as u64;
        let list = File::open(LIST, libc::O_RDONLY).expect("proc is mounted");
        if ask(&list, here, &mut path).is_none() {
            println!("skipped: this kernel answers no question about one mapping, so both read the list");
        }
    }

    #[test]
    fn the_own_list_has_as_many_lines_as_the_standard_library_reads_and_holds_this_function() {
        let mut count = 0_usize;
        let all: Option<()> = search(|_| {
            count += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(all, None);
        let text = std::fs::read_to_string("/proc/self/maps").expect("proc is mounted");
        assert!(count.abs_diff(text.lines().count()) <= 8, "{count}\n{text}");
        let here = parse as fn(&'static [u8]) -> Option<Mapping<'static>> as usize as u64;
        assert!(range_at(here).expect("mapped").contains(&here));
        assert_eq!(range_at(0x10), None);
    }
}
