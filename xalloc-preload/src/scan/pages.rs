//! Which pages of a range are there.
//!
//! A page that was never written holds no pointer, and reading it would make the kernel find memory for it: a
//! reservation of a terabyte is skipped in the time that its page table takes. `/proc/thread-self/pagemap` tells present and
//! swapped pages, and the process's own from a file's; where it may not be read, `mincore` says less: every page that it
//! does not know is taken for present.

use core::ops::Range;

use xalloc_core::units::PAGE_BYTES;

use super::Whose;
use crate::host::{self, File};

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page is a file's or shared memory's.
const OF_FILE: u64 = 1 << 61;

/// Pages that are asked about at once.
const AT_ONCE: usize = 512;

/// Which pages count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// All that are there.
    Present,
    /// Likewise, of memory that is shared with other processes: a copy of a process finds none of it in its own tables.
    Shared,
    /// Those that the process wrote itself: of data that was made read-only later, not the file's own.
    Written,
}

/// The kernel's list of pages.
pub(super) struct Pages {
    list: Option<File>,
    whose: Whose,
}

impl Pages {
    pub(super) fn open(whose: Whose) -> Pages {
        Pages { list: File::open(c"/proc/thread-self/pagemap", libc::O_RDONLY), whose }
    }

    /// Shows the runs of pages of `range`, which is page-aligned, that count.
    pub(super) fn runs(&self, range: Range<u64>, wanted: Wanted, mut show: impl FnMut(Range<u64>)) {
        let mut at = range.start;
        let mut run = range.start..range.start;
        while at < range.end {
            let pages = ((range.end - at) / PAGE_BYTES).min(AT_ONCE as u64) as usize;
            let counts = self.ask(at, pages, wanted);
            for nth in 0..pages {
                let page = at + nth as u64 * PAGE_BYTES;
                if counts(nth) {
                    if run.end != page {
                        if !run.is_empty() {
                            show(run);
                        }
                        run = page..page;
                    }
                    run.end = page + PAGE_BYTES;
                }
            }
            at += pages as u64 * PAGE_BYTES;
        }
        if !run.is_empty() {
            show(run);
        }
    }

    fn ask(&self, at: u64, pages: usize, wanted: Wanted) -> impl Fn(usize) -> bool + use<> {
        let mut bytes = [0; 8 * AT_ONCE];
        let is_elsewhere = wanted == Wanted::Shared && self.whose == Whose::Copy;
        let told = match self.list.as_ref().filter(|_| !is_elsewhere) {
            Some(file) => file.read_at(&mut bytes[..8 * pages], (at / PAGE_BYTES * 8) as usize) == 8 * pages,
            None => false,
        };
        let resident = if told { None } else { host::residency::<AT_ONCE>(at, pages) };
        let resident = resident.unwrap_or([u8::from(!told); AT_ONCE]);
        move |nth| {
            let entry = bytes.get(8 * nth..8 * nth + 8).and_then(|entry| entry.try_into().ok());
            match entry.map(u64::from_ne_bytes).filter(|_| told) {
                Some(entry) => entry & (PRESENT | SWAPPED) != 0 && (wanted != Wanted::Written || entry & OF_FILE == 0),
                None => resident.get(nth).is_some_and(|&resident| resident & 1 != 0),
            }
        }
    }
}
