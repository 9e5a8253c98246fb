//! What the kernel says of a process's memory: its mappings, and which of its pages are resident.
//!
//! Everything is read from outside, from /proc, while the program runs on. `maps` names the mappings, and one walk over the
//! page tables tells their pages ([`pagemap::scan`]). A kernel that has no such walk, swapped pages, and pages that its
//! counters leave out (of hugetlbfs) need more: `smaps` sums up each mapping, `smaps_rollup` all of them, `pagemap`
//! tells page by page; of the last only the anonymous memory is read, for nothing else holds chunks. Where `pagemap` may
//! not be read the mappings are told without their pages, and where `smaps` may not be read either nothing is; then the
//! process can tell what it sees of itself (`xalloc_core::session::own_look`), which is believed no more than anything else
//! that it writes.
//!
//! # One moment
//! A program that runs on changes between any two reads. So each mapping has its bytes from one read, the one that told
//! its pages if any did; and the kernel's count of the whole is asked before and after. Between the two it had any value
//! in between, so what is nearest to the mappings' sum is the count that was true when they were read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xalloc_core::session::own_look::{MOST_PAGES, OwnLookHeader};
use xalloc_core::sys::clock::thread_cpu_ns;
use xalloc_core::units::PAGE_BYTES;

use crate::os::{pagemap, proc};
use crate::trace::{Mapping, PagesFrom, ProcessIndex, Reason, Snapshot};

/// Pages whose entries are read at once.
const AT_ONCE: usize = 8192;
/// Bits of a page's entry: it is in memory.
const PRESENT: u64 = 1 << 63;
/// The walk is believed if it is off the kernel's count by less than one part in this.
const BELIEVED: u64 = 200;

/// Resident bytes of a process, which costs the kernel next to nothing to tell.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let text = proc::text(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// Looks at a process. `None` if it is gone or may not be looked at.
pub(super) fn look(pid: u32, process: ProcessIndex, at_ns: u64, reason: Reason) -> Option<Snapshot> {
    let began_ns = thread_cpu_ns();
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).ok();
    let walked = pagemap.as_ref().and_then(|pagemap| by_walk(pid, pagemap));
    let Told { mappings, resident_bytes, swapped_bytes } = walked.or_else(|| by_smaps(pid, pagemap.as_ref()))?;
    let is_told = mappings.iter().any(|mapping| mapping.runs.is_some());
    let (minor_faults, major_faults) = faults(pid).unwrap_or_default();
    Some(Snapshot {
        process,
        at_ns,
        reason,
        resident_bytes,
        swapped_bytes,
        minor_faults,
        major_faults,
        pages_from: if is_told { PagesFrom::Pagemap } else { PagesFrom::Nobody },
        mappings,
        cost_ns: thread_cpu_ns() - began_ns,
    })
}

/// What one way of looking told.
struct Told {
    mappings: Vec<Mapping>,
    resident_bytes: u64,
    swapped_bytes: u64,
}

fn sum(mappings: &[Mapping]) -> u64 {
    mappings.iter().map(|mapping| mapping.resident_bytes).sum()
}

/// The kernel's count while `told` was read: of all between those before and after, the nearest.
fn count_meanwhile(told: u64, before: u64, after: u64) -> u64 {
    told.clamp(before.min(after), before.max(after))
}

/// The mappings with their pages, by one walk. `None` if the kernel has none, or it does not tell everything.
fn by_walk(pid: u32, pagemap: &File) -> Option<Told> {
    let before = resident_bytes(pid)?;
    let mut mappings = mappings(&proc::text(format!("/proc/{pid}/maps")).ok()?);
    // The last mapping may be the kernel's, in its half of the addresses.
    let end = mappings.iter().rev().map(|mapping| mapping.end).find(|end| end >> 63 == 0)?;
    let pages = pagemap::scan(pagemap, end).ok().filter(|pages| !pages.is_swapped)?;
    lay(&mut mappings, &pages.resident);
    let told = sum(&mappings);
    let resident_bytes = count_meanwhile(told, before, resident_bytes(pid)?);
    let is_believed = resident_bytes.abs_diff(told) * BELIEVED <= resident_bytes;
    is_believed.then_some(Told { mappings, resident_bytes, swapped_bytes: 0 })
}

/// Lays resident stretches over the mappings that have them, both ascending.
fn lay(mappings: &mut [Mapping], mut resident: &[(u64, u64)]) {
    for mapping in mappings {
        resident = &resident[resident.partition_point(|&(_, end)| end <= mapping.start)..];
        let its = resident.iter().take_while(|&&(start, _)| start < mapping.end);
        let its = its.map(|&(start, end)| (start.max(mapping.start), end.min(mapping.end)));
        mapping.resident_bytes = its.clone().map(|(start, end)| end - start).sum();
        if mapping.name.is_empty() || mapping.name.starts_with('[') {
            mapping.anonymous_bytes = mapping.resident_bytes;
        }
        if !is_asked_about(mapping) {
            continue;
        }
        let pages = |bytes: u64| (bytes / PAGE_BYTES) as u32;
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut at = mapping.start;
        for (start, end) in its {
            match runs.last_mut() {
                Some((_, length)) if start == at => *length += pages(end - start),
                _ => runs.push((pages(start - at), pages(end - start))),
            }
            at = end;
        }
        mapping.runs = Some(runs);
    }
}

/// The mappings by their sums, and those that may hold chunks page by page if `pagemap` can be read.
fn by_smaps(pid: u32, pagemap: Option<&File>) -> Option<Told> {
    let rollup = || proc::text(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let count = |rollup: &str| field(rollup, "Rss:");
    let before = count(&rollup());
    let mut mappings = mappings(&proc::text(format!("/proc/{pid}/smaps")).ok()?);
    for mapping in mappings.iter_mut().filter(|mapping| is_asked_about(mapping)) {
        mapping.runs = pagemap.and_then(|pagemap| runs(pagemap, mapping).ok());
        if let Some(runs) = &mapping.runs {
            mapping.resident_bytes = runs.iter().map(|&(_, pages)| u64::from(pages) * PAGE_BYTES).sum();
        }
    }
    let told = sum(&mappings);
    let rollup = rollup();
    let after = count(&rollup).unwrap_or(told);
    let resident_bytes = count_meanwhile(told, before.unwrap_or(after), after);
    Some(Told { mappings, resident_bytes, swapped_bytes: field(&rollup, "Swap:").unwrap_or(0) })
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
        resident_bytes: sum(&mappings),
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

/// The mappings of the text of `smaps`, or of `maps`, which has the first line of each.
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
    let text = proc::text(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything; field 3 follows the last bracket.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.nth(7)?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

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

    #[test]
    fn a_mapped_file_whose_name_is_no_text_hides_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(std::ffi::OsStr::from_bytes(b"no\xfftext"));
        std::fs::write(&path, [1; 8192]).unwrap();
        let map = crate::os::file::map_readonly(&File::open(&path).unwrap()).unwrap();
        assert_eq!(map.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 8192);
        let pid = std::process::id();
        let seen = look(pid, ProcessIndex(0), 7, Reason::Interval).expect("a process may look at itself");
        let read = by_smaps(pid, None).expect("a process may look at itself");
        for mappings in [seen.mappings, read.mappings] {
            let its = mappings.iter().find(|mapping| mapping.name.ends_with("/no\u{fffd}text"));
            assert_eq!(its.map(|mapping| mapping.resident_bytes), Some(8192));
        }
    }

    #[test]
    fn both_ways_of_looking_tell_the_same_pages_and_sums() {
        let pid = std::process::id();
        let touched = vec![1u8; 3 << 20];
        let pagemap = File::open("/proc/self/pagemap").ok();
        let Some(walked) = pagemap.as_ref().and_then(|pagemap| by_walk(pid, pagemap)) else {
            println!("skipped: the kernel has no walk over page tables, or something of us is swapped out");
            return;
        };
        let read = by_smaps(pid, pagemap.as_ref()).expect("a process may look at itself");
        let addr = touched.as_ptr().addr() as u64;
        let mut compared = 0;
        for mapping in &walked.mappings {
            // Other tests' threads change other mappings meanwhile.
            let is_still = mapping.start <= addr && addr < mapping.end || mapping.name.contains("/libc.so");
            let same = |other: &&Mapping| (other.start, other.end) == (mapping.start, mapping.end);
            if let Some(other) = read.mappings.iter().find(same).filter(|_| is_still) {
                assert_eq!((mapping.resident_bytes, &mapping.runs), (other.resident_bytes, &other.runs), "{mapping:?}");
                compared += 1;
            }
        }
        assert!(compared > 3, "{compared}");
        assert!(sum(&walked.mappings).abs_diff(walked.resident_bytes) * BELIEVED <= walked.resident_bytes);
    }

    #[test]
    fn stretches_are_cut_at_the_borders_of_mappings_and_joined_within() {
        let text = "10000-20000 rw-p 0 00:00 0\n20000-30000 rw-p 0 00:00 0 [heap]\n40000-50000 r--p 0 00:00 0 /a\n";
        let mut mappings = mappings(text);
        lay(&mut mappings, &[(0x1000, 0x2000), (0x12000, 0x14000), (0x14000, 0x22000), (0x38000, 0x42000)]);
        let told: Vec<_> = mappings.iter().map(|mapping| (mapping.resident_bytes, mapping.runs.clone())).collect();
        assert_eq!(
            told,
            [(0xe000, Some(vec![(2, 14)])), (0x2000, Some(vec![(0, 2)])), (0x2000, None)],
            "the pages below the first mapping and between the others are nobody's"
        );
    }

    #[test]
    fn the_count_that_is_true_meanwhile_is_the_nearest_to_what_was_read() {
        assert_eq!(count_meanwhile(7, 5, 9), 7, "it grew");
        assert_eq!(count_meanwhile(7, 9, 5), 7, "it shrank");
        assert_eq!([count_meanwhile(4, 9, 5), count_meanwhile(10, 5, 9)], [5, 9], "the rest stays unexplained");
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
