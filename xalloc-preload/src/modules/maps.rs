//! The kernel's list of this process's mappings, read without libc.
//!
//! The text of `/proc/thread-self/maps` is the one description of the address space that can be had without a lock of the
//! loader's and without memory. It costs 10 to 100 us, so it is read once a thread (where its stack ends) and once a
//! module (its path), never once a frame.

use core::ops::{ControlFlow, Range};

use crate::host::{File, is_confined, keeping_errno};

/// Longer lines lose the end of their path.
const BUFFER_BYTES: usize = 4096;

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

fn search_file<B>(mut look: impl FnMut(&Mapping<'_>) -> ControlFlow<B>) -> Option<B> {
    // The calling thread's own list: that of the process is empty when the first thread has left.
    let file = File::open(c"/proc/thread-self/maps", libc::O_RDONLY)?;
    let mut buffer = [0; BUFFER_BYTES];
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
                && let Some(mapping) = parse(&buffer)
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

/// The range of the mapping that holds `address`.
pub(crate) fn range_at(address: u64) -> Option<Range<u64>> {
    search(|mapping| match mapping.range.contains(&address) {
        true => ControlFlow::Break(mapping.range.clone()),
        false => ControlFlow::Continue(()),
    })
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
