//! What the kernel said of a process's memory at some moments of the recording.
//!
//! The events say where the heap's chunks lie; which of their pages cost memory only the kernel knows. A snapshot holds
//! the process's mappings with their resident bytes, and page by page which pages of its anonymous memory are resident.
//!
//! # In the file
//! A block of its own kind, which readers of version 1.0 skip: one column, numbers as varints. Resident pages
//! are runs: pages to skip, pages that are resident, and so on to the mapping's end. Behind the mappings stands who told the
//! pages; a file that says nothing of that has them from `pagemap`.

use xalloc_core::units::PAGE_BYTES;

use super::ProcessIndex;
use super::error::Malformed;
use super::varint::{Cursor, put, put_bytes};

/// Why a snapshot was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Reason {
    /// It was time for one.
    Interval = 0,
    /// The process's resident memory was larger than ever.
    Peak = 1,
    /// The process had begun to end.
    Exit = 2,
    /// The program had set a mark.
    Marker = 3,
    /// The recorder was sent the signal that asks for one.
    Signal = 4,
}

impl Reason {
    const ALL: [Reason; 5] = [Reason::Interval, Reason::Peak, Reason::Exit, Reason::Marker, Reason::Signal];
}

/// Who said which pages are resident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PagesFrom {
    /// The kernel, to the recorder: `pagemap`.
    Pagemap = 0,
    /// The kernel, to the process itself: `mincore`.
    Mincore = 1,
    /// Nobody: the sums of the mappings are all that is known.
    Nobody = 2,
}

impl PagesFrom {
    const ALL: [PagesFrom; 3] = [PagesFrom::Pagemap, PagesFrom::Mincore, PagesFrom::Nobody];
}

/// One look at a process's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Whose memory.
    pub process: ProcessIndex,
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Why.
    pub reason: Reason,
    /// Processor time that the recorder took for it, nanoseconds; the program ran on meanwhile. Of a look that the process
    /// made itself: how long it took.
    pub cost_ns: u64,
    /// Resident bytes of the process, as the kernel counts them. Where it counted differently before and after the look, what
    /// lies between the two and nearest to the mappings' sum.
    pub resident_bytes: u64,
    /// Bytes that are swapped out.
    pub swapped_bytes: u64,
    /// Page faults so far that needed no disk.
    pub minor_faults: u64,
    /// Page faults so far that did.
    pub major_faults: u64,
    /// Who said which pages are resident.
    pub pages_from: PagesFrom,
    /// The mappings, by address.
    pub mappings: Vec<Mapping>,
}

/// A mapping of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Readable 1, writable 2, executable 4, shared 8.
    pub rights: u8,
    /// Path of the file, or a name in brackets; empty for anonymous memory.
    pub name: String,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Of these, bytes that belong to no file; 0 for a mapping of a file where that was not asked for.
    pub anonymous_bytes: u64,
    /// Resident pages, as pairs of pages to skip and pages that are resident; `None` if it was not looked at page by
    /// page.
    pub runs: Option<Vec<(u32, u32)>>,
}

impl Mapping {
    /// Whether the program may write there.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.rights & 2 != 0
    }

    /// Whether the program may execute what is there.
    #[must_use]
    pub const fn is_executable(&self) -> bool {
        self.rights & 4 != 0
    }

    /// Its length.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Beginning and end of each stretch of resident pages, by address and within the mapping; `None` if it was not looked at
    /// page by page.
    pub fn resident_runs(&self) -> Option<impl Iterator<Item = (u64, u64)> + '_> {
        let mut at = self.start;
        let after = |at: u64, pages: u32| at.saturating_add(u64::from(pages) * PAGE_BYTES).min(self.end);
        let runs = self.runs.as_ref()?.iter();
        Some(runs.map(move |&(gap, pages)| {
            let from = after(at, gap);
            at = after(from, pages);
            (from, at)
        }))
    }
}

impl Snapshot {
    /// The snapshot as a column.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [
            self.at_ns,
            self.reason as u64,
            self.cost_ns,
            self.resident_bytes,
            self.swapped_bytes,
            self.minor_faults,
            self.major_faults,
            self.mappings.len() as u64,
        ] {
            put(&mut out, number);
        }
        let mut last = 0;
        for mapping in &self.mappings {
            put(&mut out, (mapping.start - last) / PAGE_BYTES);
            put(&mut out, mapping.len_bytes() / PAGE_BYTES);
            put(&mut out, u64::from(mapping.rights));
            put_bytes(&mut out, mapping.name.as_bytes());
            put(&mut out, mapping.resident_bytes);
            put(&mut out, mapping.anonymous_bytes);
            put(&mut out, mapping.runs.as_ref().map_or(0, |runs| runs.len() as u64 + 1));
            for &(gap, pages) in mapping.runs.iter().flatten() {
                put(&mut out, u64::from(gap));
                put(&mut out, u64::from(pages));
            }
            last = mapping.end;
        }
        put(&mut out, self.pages_from as u64);
        out
    }

    /// Reads what [`Self::encode`] wrote.
    pub(super) fn decode(process: ProcessIndex, column: &[u8]) -> Result<Snapshot, Malformed> {
        const WRONG: Malformed = Malformed::Bytes("a snapshot of memory is none");
        let mut from = Cursor::new(column);
        let from = &mut from;
        let at_ns = from.varint()?;
        let reason = from.varint()?;
        let reason = *Reason::ALL.get(usize::try_from(reason).map_err(|_| WRONG)?).ok_or(WRONG)?;
        let (cost_ns, resident_bytes, swapped_bytes) = (from.varint()?, from.varint()?, from.varint()?);
        let (minor_faults, major_faults) = (from.varint()?, from.varint()?);
        let count = from.varint()?;
        let mut mappings = Vec::new();
        let mut last: u64 = 0;
        for _ in 0..count {
            let pages = |from: &mut Cursor<'_>| from.varint()?.checked_mul(PAGE_BYTES).ok_or(WRONG);
            let start = last.checked_add(pages(from)?).ok_or(WRONG)?;
            let end = start.checked_add(pages(from)?).ok_or(WRONG)?;
            let rights = u8::try_from(from.varint()?).map_err(|_| WRONG)?;
            let name = from.text()?.to_owned();
            let (resident_bytes, anonymous_bytes) = (from.varint()?, from.varint()?);
            let runs = match from.varint()? {
                0 => None,
                more => {
                    let mut runs = Vec::new();
                    for _ in 1..more {
                        let number = |from: &mut Cursor<'_>| u32::try_from(from.varint()?).map_err(|_| WRONG);
                        runs.push((number(from)?, number(from)?));
                    }
                    Some(runs)
                }
            };
            mappings.push(Mapping { start, end, rights, name, resident_bytes, anonymous_bytes, runs });
            last = end;
        }
        let pages_from = match from.is_empty() {
            // Before processes were asked, the recorder was the only one who looked.
            true if mappings.iter().all(|mapping| mapping.runs.is_none()) => PagesFrom::Nobody,
            true => PagesFrom::Pagemap,
            false => *usize::try_from(from.varint()?).ok().and_then(|at| PagesFrom::ALL.get(at)).ok_or(WRONG)?,
        };
        Ok(Snapshot {
            process,
            at_ns,
            reason,
            cost_ns,
            resident_bytes,
            swapped_bytes,
            minor_faults,
            major_faults,
            pages_from,
            mappings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let mapping = |start: u64, pages: u64, name: &str, runs| Mapping {
            start,
            end: start + pages * PAGE_BYTES,
            rights: 3,
            name: name.to_owned(),
            resident_bytes: 8_192,
            anonymous_bytes: 4_096,
            runs,
        };
        Snapshot {
            process: ProcessIndex(3),
            at_ns: 1_234_567,
            reason: Reason::Peak,
            cost_ns: 900_000,
            resident_bytes: 16_384,
            swapped_bytes: 0,
            minor_faults: 77,
            major_faults: 1,
            pages_from: PagesFrom::Mincore,
            mappings: vec![
                mapping(0x5555_0000_0000, 40, "[heap]", Some(vec![(0, 3), (30, 1)])),
                mapping(0x7fff_0000_0000, 9, "/usr/lib/libc.so.6", None),
                mapping(0x7fff_0100_0000, 2, "", Some(Vec::new())),
            ],
        }
    }

    #[test]
    fn a_snapshot_reads_back_as_it_was_written() {
        let snapshot = snapshot();
        let read = Snapshot::decode(ProcessIndex(3), &snapshot.encode()).expect("it is whole");
        assert_eq!(read, snapshot);
    }

    #[test]
    fn resident_stretches_follow_each_other_and_end_with_their_mapping_whatever_the_trace_says() {
        let start = 0x5555_0000_0000;
        let stretches = |runs| {
            let mapping = Mapping { runs: Some(runs), ..snapshot().mappings[0].clone() };
            mapping.resident_runs().expect("it was looked at").collect::<Vec<_>>()
        };
        let page = |nth: u64| start + nth * PAGE_BYTES;
        assert_eq!(stretches(vec![(0, 3), (30, 1)]), [(page(0), page(3)), (page(33), page(34))]);
        assert_eq!(stretches(vec![(39, 9), (u32::MAX, 1)]), [(page(39), page(40)), (page(40), page(40))]);
        assert!(snapshot().mappings[1].resident_runs().is_none());
    }

    #[test]
    fn a_cut_snapshot_is_an_error_wherever_it_is_cut() {
        let column = snapshot().encode();
        for cut in 0..column.len() - 1 {
            assert!(Snapshot::decode(ProcessIndex(3), &column[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_snapshot_that_does_not_say_who_told_its_pages_has_them_from_pagemap() {
        let column = snapshot().encode();
        let read = Snapshot::decode(ProcessIndex(3), &column[..column.len() - 1]).expect("it is one of before");
        assert_eq!(read, Snapshot { pages_from: PagesFrom::Pagemap, ..snapshot() });
    }
}
