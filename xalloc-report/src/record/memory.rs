//! What the kernel says of a process's memory: its mappings, and which of its pages are resident.
//!
//! Everything is read from outside, from /proc, while the program runs on. `smaps` sums up each mapping, `smaps_rollup`
//! all of them, `pagemap` tells page by page; of the last only the anonymous memory is read, for nothing else holds
//! chunks. Where `pagemap` may not be read the mappings are told without their pages, and where `smaps` may not be read
//! either nothing is; then the process can tell what it sees of itself (`xalloc_core::session::own_look`), which is
//! believed no more than anything else that it writes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use xalloc_core::session::own_look::{MOST_PAGES, OwnLookHeader};
use xalloc_core::units::PAGE_BYTES;

use crate::trace::{Mapping, PagesFrom, ProcessIndex, Reason, Snapshot};

/// Pages whose entries are read at once.
const AT_ONCE: usize = 8192;
/// Bits of a page's entry: it is in memory.
const PRESENT: u64 = 1 << 63;

/// Resident bytes of a process, which costs the kernel next to nothing to tell.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// Looks at a process. `None` if it is gone or may not be looked at.
pub(super) fn look(pid: u32, process: ProcessIndex, at_ns: u64, reason: Reason) -> Option<Snapshot> {
    let began = Instant::now();
    let mut mappings = mappings(&fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?);
    let mut pages_from = PagesFrom::Nobody;
    if let Ok(pagemap) = File::open(format!("/proc/{pid}/pagemap")) {
        for mapping in mappings.iter_mut().filter(|mapping| is_asked_about(mapping)) {
            mapping.runs = runs(&pagemap, mapping).ok();
            if mapping.runs.is_some() {
                pages_from = PagesFrom::Pagemap;
            }
        }
    }
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let sum = || mappings.iter().map(|mapping| mapping.resident_bytes).sum();
    let (minor_faults, major_faults) = faults(pid).unwrap_or_default();
    Some(Snapshot {
        process,
        at_ns,
        reason,
        resident_bytes: field(&rollup, "Rss:").unwrap_or_else(sum),
        swapped_bytes: field(&rollup, "Swap:").unwrap_or(0),
        minor_faults,
        major_faults,
        pages_from,
        mappings,
        cost_ns: began.elapsed().as_nanos() as u64,
    })
}

/// Whether the pages of a mapping are told: all that may hold chunks.
fn is_asked_about(mapping: &Mapping) -> bool {
    let is_anonymous = mapping.anonymous_bytes > 0 && (mapping.name.is_empty() || mapping.name == "[heap]");
    is_anonymous && mapping.len_bytes() / PAGE_BYTES <= MOST_PAGES
}

/// What a process wrote of itself in the file of the look of that number. `None`: nothing that can be read.
pub(super) fn own_look(
    pid: u32,
    process: ProcessIndex,
    (at_ns, reason): (u64, Reason),
    number: u32,
    file: &[u8],
) -> Option<Snapshot> {
    let header = OwnLookHeader::from_bytes(file).filter(|header| header.number == number)?;
    let behind = file.get(OwnLookHeader::BYTES..)?;
    let (text, behind) = behind.split_at_checked(usize::try_from(header.text_bytes).ok()?)?;
    let told = behind.get(..usize::try_from(header.runs).ok()?.checked_mul(16)?)?;
    let mut mappings = mappings(&String::from_utf8_lossy(text));
    let runs = told.as_chunks::<16>().0.iter().map(|run| {
        let (from, to) = run.split_at(8);
        [from, to].map(|end| end.first_chunk().map_or(0, |end| u64::from_le_bytes(*end)))
    });
    let mut runs = runs.peekable();
    for mapping in &mut mappings {
        let is_asked_about = is_asked_about(mapping);
        let mut at = mapping.start;
        let mut of_mapping = Vec::new();
        while let Some([from, to]) = runs.next_if(|[_, to]| *to <= mapping.end) {
            if from < at || to <= from || !(from % PAGE_BYTES == 0 && to % PAGE_BYTES == 0) {
                // Of a mapping that is gone, or nonsense.
                continue;
            }
            of_mapping.push((((from - at) / PAGE_BYTES) as u32, ((to - from) / PAGE_BYTES) as u32));
            at = to;
        }
        mapping.runs = is_asked_about.then_some(of_mapping);
    }
    let (minor_faults, major_faults) = faults(pid).unwrap_or_default();
    Some(Snapshot {
        process,
        at_ns,
        reason,
        resident_bytes: mappings.iter().map(|mapping| mapping.resident_bytes).sum(),
        swapped_bytes: 0,
        minor_faults,
        major_faults,
        pages_from: PagesFrom::Mincore,
        mappings,
        cost_ns: 0,
    })
}

/// The value of a line such as `Rss:   12 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| kib(line.strip_prefix(name)?))
}

fn kib(value: &str) -> Option<u64> {
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The mappings of the text of `smaps`.
fn mappings(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut is_told = false;
    for line in text.lines() {
        if let Some(mapping) = head(line) {
            // The kernel tells the mappings page by page of text; what changes between is told twice.
            let is_above = mappings.last().is_none_or(|last| last.end <= mapping.start);
            is_told = !is_above;
            if is_above {
                mappings.push(mapping);
            }
        } else if let Some(mapping) = mappings.last_mut().filter(|_| !is_told) {
            if let Some(value) = line.strip_prefix("Rss:") {
                mapping.resident_bytes = kib(value).unwrap_or(0);
            } else if let Some(value) = line.strip_prefix("Anonymous:") {
                mapping.anonymous_bytes = kib(value).unwrap_or(0);
            }
        }
    }
    mappings
}

/// The first line of a mapping: `start-end rwxp offset device inode   name`.
pub(super) fn head(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let rights = rest.get(..4)?.bytes().zip([(b'r', 1), (b'w', 2), (b'x', 4), (b's', 8)]);
    let rights = rights.filter(|(letter, (granted, _))| letter == granted).map(|(_, (_, bit))| bit).sum();
    let mut words = rest.splitn(5, ' ');
    let name = words.nth(4).unwrap_or_default().trim_start().to_owned();
    let is_range = start < end && start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
    is_range.then_some(Mapping { start, end, rights, name, resident_bytes: 0, anonymous_bytes: 0, runs: None })
}

/// The resident pages of a mapping.
fn runs(pagemap: &File, mapping: &Mapping) -> io::Result<Vec<(u32, u32)>> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut buffer = vec![0; AT_ONCE * 8];
    let mut page = mapping.start / PAGE_BYTES;
    let end = mapping.end / PAGE_BYTES;
    let (mut gap, mut length) = (0, 0);
    while page < end {
        let pages = ((end - page) as usize).min(AT_ONCE);
        let entries = &mut buffer[..pages * 8];
        pagemap.read_exact_at(entries, page * 8)?;
        for entry in entries.as_chunks::<8>().0 {
            if u64::from_ne_bytes(*entry) & PRESENT != 0 {
                length += 1;
            } else {
                if length > 0 {
                    runs.push((gap, length));
                    (gap, length) = (0, 0);
                }
                gap += 1;
            }
        }
        page += pages as u64;
    }
    if length > 0 {
        runs.push((gap, length));
    }
    Ok(runs)
}

/// Page faults so far: without and with a disk.
fn faults(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything; field 3 follows the last bracket.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.nth(7)?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_told_mapping_by_mapping_and_page_by_page() {
        let touched = vec![1u8; 3 << 20];
        let pid = std::process::id();
        let seen = look(pid, ProcessIndex(0), 7, Reason::Interval).expect("a process may look at itself");
        let sum: u64 = seen.mappings.iter().map(|mapping| mapping.resident_bytes).sum();
        assert!(sum.abs_diff(seen.resident_bytes) * 20 < seen.resident_bytes, "{sum} of {}", seen.resident_bytes);
        assert!(seen.minor_faults > 100 && seen.cost_ns > 0);
        let addr = touched.as_ptr().addr() as u64;
        let around = seen.mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&addr));
        let around = around.expect("the block is mapped");
        assert!(around.is_writable() && !around.is_executable());
        let Some(runs) = &around.runs else {
            println!("skipped: /proc/self/pagemap cannot be read here");
            return;
        };
        let resident: u64 = runs.iter().map(|&(_, pages)| u64::from(pages) * PAGE_BYTES).sum();
        assert!(resident >= 3 << 20, "{resident}");
        assert!(resident.abs_diff(around.resident_bytes) * 10 < resident);
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 3 << 20));
    }

    /// A file as a process writes it.
    fn own_file(number: u32, text: &str, runs: &[(u64, u64)]) -> Vec<u8> {
        let header = OwnLookHeader { number, text_bytes: text.len() as u64, runs: runs.len() as u64 };
        let words = runs.iter().flat_map(|(from, to)| [from.to_le_bytes(), to.to_le_bytes()]);
        header.to_bytes().into_iter().chain(text.bytes()).chain(words.flatten()).collect()
    }

    #[test]
    fn what_a_process_says_of_itself_is_told_by_mapping_and_page_and_nonsense_in_it_is_left_out() {
        let text = "10000-20000 rw-p 0 00:00 0\nRss: 12 kB\nAnonymous: 12 kB\n\
                    30000-31000 r--p 0 00:00 0 /a\nRss: 4 kB\nAnonymous: 0 kB\n";
        let runs = [(0x11000, 0x13000), (0x12000, 0x13000), (0x15000, 0x16000), (0x25000, 0x26000), (0x90000, 0x91000)];
        let file = own_file(3, text, &runs);
        let when = (7, Reason::Marker);
        let seen = own_look(1, ProcessIndex(0), when, 3, &file).expect("a whole file");
        assert_eq!((seen.resident_bytes, seen.pages_from), (16 << 10, PagesFrom::Mincore));
        let told: Vec<_> = seen.mappings.iter().map(|mapping| mapping.runs.clone()).collect();
        assert_eq!(told, [Some(vec![(1, 2), (2, 1)]), None]);
        assert_eq!(own_look(1, ProcessIndex(0), when, 4, &file), None, "the file of another look");
        assert_eq!(own_look(1, ProcessIndex(0), when, 3, &file[..file.len() - 1]), None);
        assert_eq!(own_look(1, ProcessIndex(0), when, 3, &[]), None);
    }

    #[test]
    fn a_mapping_that_is_told_twice_counts_once() {
        let text =
            "1000-3000 rw-p 0 00:00 0\nRss: 8 kB\n2000-3000 rw-p 0 00:00 0\nRss: 4 kB\n3000-4000 rw-p 0 00:00 0\n";
        let told: Vec<_> = mappings(text).iter().map(|mapping| (mapping.start, mapping.resident_bytes)).collect();
        assert_eq!(told, [(0x1000, 8192), (0x3000, 0)]);
    }

    #[test]
    fn a_mapping_with_blanks_in_its_name_keeps_it() {
        let line = "7f00a000-7f00c000 r-xp 00001000 08:01 1234                    /opt/my app/lib.so (deleted)";
        let mapping = head(line).expect("it is a mapping");
        assert_eq!((mapping.start, mapping.len_bytes(), mapping.rights), (0x7f00_a000, 8192, 5));
        assert_eq!(mapping.name, "/opt/my app/lib.so (deleted)");
        assert_eq!(head("Rss:                 132 kB"), None);
        assert_eq!(kib("                 132 kB"), Some(132 << 10));
    }
}
