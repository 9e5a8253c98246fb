//! Ranges that are no roots, in a list of our own.
//!
//! # Safety
//! - The list lies in a mapping that is as long as its capacity and goes with the list.
#![allow(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;

use crate::host;

/// Ranges that fit: more than a process may have mappings.
const MOST: usize = 1 << 17;
const BYTES: usize = MOST * size_of::<[u64; 2]>();

/// Ranges: first address, and behind the last.
pub(super) struct Excluded {
    base: NonNull<[u64; 2]>,
    count: usize,
}

impl Excluded {
    /// An empty list. `None`: there is no memory for it.
    pub(super) fn new() -> Option<Excluded> {
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { host::map_anonymous(BYTES, core::ptr::null_mut()) }?;
        Some(Excluded { base: base.cast(), count: 0 })
    }

    /// Adds a range; one that does not fit is left to be read.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() || self.count == MOST {
            return;
        }
        // SAFETY: below the capacity.
        let place = unsafe { self.base.add(self.count) };
        // SAFETY: as above; nobody else uses it.
        unsafe { place.write([range.start, range.end]) };
        self.count += 1;
    }

    fn list(&mut self) -> &mut [[u64; 2]] {
        // SAFETY: `count` of them were written.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.count) }
    }

    /// Whether the range that was added last holds `addr`.
    pub(super) fn last_holds(&mut self, addr: u64) -> bool {
        self.list().last().is_some_and(|&[start, end]| start <= addr && addr < end)
    }

    /// Sorts the list and joins what overlaps, so that ends ascend as well.
    pub(super) fn settle(&mut self) {
        let list = self.list();
        list.sort_unstable();
        let mut kept = 0_usize;
        for nth in 0..list.len() {
            let [start, end] = list[nth];
            match kept.checked_sub(1).and_then(|last| list.get_mut(last)) {
                Some(before) if start <= before[1] => before[1] = before[1].max(end),
                _ => {
                    list[kept] = [start, end];
                    kept += 1;
                }
            }
        }
        self.count = kept;
    }

    /// Shows what is left of `range`; after [`Excluded::settle`].
    pub(super) fn rest(&mut self, range: Range<u64>, mut show: impl FnMut(Range<u64>)) {
        let list = self.list();
        let mut at = range.start;
        let first = list.partition_point(|&[_, end]| end <= range.start);
        for &[start, end] in list.get(first..).unwrap_or_default() {
            if start >= range.end {
                break;
            }
            if start > at {
                show(at..start);
            }
            at = at.max(end);
        }
        if at < range.end {
            show(at..range.end);
        }
    }
}

impl Drop for Excluded {
    fn drop(&mut self) {
        // SAFETY: the mapping is this list's.
        unsafe { host::unmap(self.base.cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_range_is_what_no_excluded_range_covers() {
        let mut excluded = Excluded::new().expect("there is memory");
        for range in [40..50, 10..20, 15..30, 12..14, 60..60] {
            excluded.add(range);
        }
        excluded.settle();
        let mut left = Vec::new();
        excluded.rest(5..45, |rest| left.push(rest));
        excluded.rest(48..70, |rest| left.push(rest));
        excluded.rest(16..18, |rest| left.push(rest));
        assert_eq!(left, [5..10, 30..40, 50..70]);
    }
}
