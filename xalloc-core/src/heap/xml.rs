//! The XML of `malloc_info`: per arena a histogram of free chunks, then totals.
//!
//! An arena is counted under its lock and written after it was given back: what writes may allocate.
//!
//! The format is that of the running libc, oddities included: sizes in bins are printed with the low bit of the size
//! word set, as glibc prints them, so that tools which read one read the other.

use core::fmt::{self, Write};

use super::Heap;
use super::arena::{ArenaState, FAST_BINS};
use super::bins::{BINS, UNSORTED};
use super::chunk::{ALIGNMENT, PREV_INUSE};
use super::os::Os;
use super::tcache::ThreadCache;
use super::words::Words;

/// The free chunks of one bin.
#[derive(Clone, Copy, Default)]
struct Range {
    from: u64,
    to: u64,
    total: u64,
    count: u64,
}

impl Range {
    fn enter(&mut self, size: u64) {
        self.from = if self.count == 0 { size } else { self.from.min(size) };
        self.to = self.to.max(size);
        self.total += size;
        self.count += 1;
    }
}

/// Sums of an arena, or of all.
#[derive(Clone, Copy, Default)]
struct Totals {
    fast: (u64, u64),
    rest: (u64, u64),
    system_bytes: u64,
    max_system_bytes: u64,
    heap_bytes: u64,
    committed_bytes: u64,
    sub_heaps: u64,
}

/// What is written about one arena.
struct Census {
    fast: [Range; FAST_BINS],
    bins: [Range; BINS],
    totals: Totals,
}

impl Census {
    fn of<O: Os>(owner: &Heap<O>, arena: &ArenaState) -> Census {
        let words = Words(&owner.os);
        let mut census =
            Census { fast: [Range::default(); FAST_BINS], bins: [Range::default(); BINS], totals: Totals::default() };
        for (index, range) in census.fast.iter_mut().enumerate() {
            let mut chunk = arena.fast[index];
            while chunk != 0 {
                range.enter(words.size(chunk));
                chunk = words.fd(chunk);
            }
            // A fast bin is printed with the requests that round to its size.
            range.from = range.to.saturating_sub(ALIGNMENT - 1);
        }
        for (bin, range) in census.bins.iter_mut().enumerate().skip(UNSORTED) {
            let mut next = arena.bins.back(words, bin);
            while let Some(chunk) = next {
                range.enter(words.size(chunk) | PREV_INUSE);
                next = arena.bins.next_from_back(words, bin, chunk);
            }
        }
        let sum = |ranges: &[Range]| ranges.iter().fold((0, 0), |sum, r| (sum.0 + r.count, sum.1 + r.total));
        let (count, bytes) = sum(&census.bins);
        let top_bytes = if arena.top == 0 { 0 } else { words.size(arena.top) };
        let mut totals = Totals {
            fast: sum(&census.fast),
            rest: (count + 1, bytes + top_bytes),
            system_bytes: arena.system_bytes,
            max_system_bytes: arena.max_system_bytes,
            heap_bytes: arena.system_bytes,
            committed_bytes: arena.system_bytes,
            sub_heaps: 0,
        };
        if !arena.is_main() {
            (totals.heap_bytes, totals.committed_bytes) = (0, 0);
            let mut heap = owner.heap_of(arena.top);
            while heap != 0 {
                totals.heap_bytes += words.heap_size(heap);
                totals.committed_bytes += words.heap_committed(heap);
                totals.sub_heaps += 1;
                heap = words.heap_prev(heap);
            }
        }
        census.totals = totals;
        census
    }

    fn write(&self, number: u16, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "<heap nr=\"{number}\">\n<sizes>")?;
        for range in self.fast.iter().chain(&self.bins[UNSORTED + 1..]).filter(|range| range.count > 0) {
            write_range(out, "size", range)?;
        }
        if self.bins[UNSORTED].count > 0 {
            write_range(out, "unsorted", &self.bins[UNSORTED])?;
        }
        out.write_str("</sizes>\n")?;
        let totals = &self.totals;
        write_free(out, totals)?;
        write_system(out, totals)?;
        if totals.sub_heaps > 0 {
            writeln!(out, "<aspace type=\"subheaps\" size=\"{}\"/>", totals.sub_heaps)?;
        }
        out.write_str("</heap>\n")
    }
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.fast = (self.fast.0 + other.fast.0, self.fast.1 + other.fast.1);
        self.rest = (self.rest.0 + other.rest.0, self.rest.1 + other.rest.1);
        self.system_bytes += other.system_bytes;
        self.max_system_bytes += other.max_system_bytes;
        self.heap_bytes += other.heap_bytes;
        self.committed_bytes += other.committed_bytes;
    }
}

impl<O: Os> Heap<O> {
    /// The XML of C `malloc_info(0, …)`.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn info_xml(&self, cache: &mut ThreadCache, out: &mut dyn Write) -> fmt::Result {
        self.settings.policy();
        let mut totals = Totals::default();
        out.write_str("<malloc version=\"1\">\n")?;
        let mut number = 0;
        loop {
            if let Some(arena) = self.arenas.get(number, &self.main)
                && let Some(guard) = self.enter(arena, cache)
            {
                let census = Census::of(self, &guard);
                drop(guard);
                totals.add(&census.totals);
                census.write(number, out)?;
            }
            number = self.arenas.after(number);
            if number == 0 {
                break;
            }
        }
        write_free(out, &totals)?;
        let (chunks, bytes) = (self.mapped_chunks.get(), self.mapped_bytes.get());
        writeln!(out, "<total type=\"mmap\" count=\"{chunks}\" size=\"{bytes}\"/>")?;
        write_system(out, &totals)?;
        out.write_str("</malloc>\n")
    }
}

fn write_range(out: &mut dyn Write, name: &str, range: &Range) -> fmt::Result {
    let Range { from, to, total, count } = range;
    writeln!(out, "  <{name} from=\"{from}\" to=\"{to}\" total=\"{total}\" count=\"{count}\"/>")
}

fn write_free(out: &mut dyn Write, totals: &Totals) -> fmt::Result {
    let (fast, rest) = (totals.fast, totals.rest);
    writeln!(out, "<total type=\"fast\" count=\"{}\" size=\"{}\"/>", fast.0, fast.1)?;
    writeln!(out, "<total type=\"rest\" count=\"{}\" size=\"{}\"/>", rest.0, rest.1)
}

fn write_system(out: &mut dyn Write, totals: &Totals) -> fmt::Result {
    writeln!(out, "<system type=\"current\" size=\"{}\"/>", totals.system_bytes)?;
    writeln!(out, "<system type=\"max\" size=\"{}\"/>", totals.max_system_bytes)?;
    writeln!(out, "<aspace type=\"total\" size=\"{}\"/>", totals.heap_bytes)?;
    writeln!(out, "<aspace type=\"mprotect\" size=\"{}\"/>", totals.committed_bytes)
}
