//! Every byte of the heap in exactly one class.

use super::marks::Mark;
use super::{Layout, Place, RangeKind};

/// Bytes by class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Books {
    /// In chunks of blocks that the program has, headers and padding included.
    pub live_bytes: u64,
    /// In threads' caches.
    pub tcache_bytes: u64,
    /// In fast bins.
    pub fastbin_bytes: u64,
    /// In the unsorted, small and large bins.
    pub bin_free_bytes: u64,
    /// In tops.
    pub top_bytes: u64,
    /// In headers of sub-heaps, arena state, fences and the bookkeeping of caches.
    pub metadata_bytes: u64,
    /// In all ranges that the heap has from the system.
    pub segments_bytes: u64,
}

impl Books {
    /// What the classes sum up to; equal to `segments_bytes`.
    #[must_use]
    pub const fn sum_bytes(&self) -> u64 {
        self.live_bytes
            + self.tcache_bytes
            + self.fastbin_bytes
            + self.bin_free_bytes
            + self.top_bytes
            + self.metadata_bytes
    }

    /// Enters a span.
    pub(crate) fn enter(&mut self, place: Place, size_bytes: u64) {
        let account = match place {
            Place::Live(_) | Place::Handed => &mut self.live_bytes,
            Place::Cached(_) => &mut self.tcache_bytes,
            Place::Fast(_) => &mut self.fastbin_bytes,
            Place::Binned(_) => &mut self.bin_free_bytes,
            Place::Top => &mut self.top_bytes,
            Place::Header | Place::Bookkeeping | Place::Fence => &mut self.metadata_bytes,
        };
        *account += size_bytes;
        self.segments_bytes += size_bytes;
    }
}

/// The books do not balance: events are missing from the trace, or this tool is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the heap's books do not balance at event {seq}: of {segments_bytes} bytes of segments {walked:?} are found by \
     walking, {counted:?} by counting"
)]
pub struct Imbalance {
    /// Events taken.
    pub seq: u64,
    /// Bytes that the heap has from the system.
    pub segments_bytes: u64,
    /// The classes as a walk finds them.
    pub walked: Box<Books>,
    /// The classes as the steps added up.
    pub counted: Box<Books>,
}

/// The classes as the steps change them, mappings of chunks aside.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counted {
    live_bytes: u64,
    cached_bytes: u64,
    fast_bytes: u64,
    binned_bytes: u64,
    fence_bytes: u64,
    bookkeeping_bytes: u64,
    pub(super) header_bytes: u64,
}

impl Counted {
    fn account(&mut self, mark: Mark) -> &mut u64 {
        match mark {
            Mark::Live(_) | Mark::Handed => &mut self.live_bytes,
            Mark::Cached(_) => &mut self.cached_bytes,
            Mark::Fast(_) => &mut self.fast_bytes,
            Mark::Binned(_) => &mut self.binned_bytes,
            Mark::Bookkeeping => &mut self.bookkeeping_bytes,
            Mark::Fence => &mut self.fence_bytes,
        }
    }

    #[inline]
    pub(super) fn add(&mut self, mark: Mark, size_bytes: u64) {
        let account = self.account(mark);
        *account = account.wrapping_add(size_bytes);
    }

    #[inline]
    pub(super) fn subtract(&mut self, mark: Mark, size_bytes: u64) {
        let account = self.account(mark);
        *account = account.wrapping_sub(size_bytes);
    }
}

impl Layout {
    /// Bytes free in bins and fast bins, by count.
    #[must_use]
    pub fn binned_bytes(&self) -> u64 {
        self.counted.binned_bytes
    }

    /// Bytes in threads' caches and fast bins, by count.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.counted.cached_bytes.wrapping_add(self.counted.fast_bytes)
    }

    /// The books as the steps added up.
    fn counted(&self) -> Books {
        let mapped = self.ranges.iter().filter(|range| range.kind == RangeKind::Mapped);
        let mapped_bytes: u64 = mapped.map(super::Range::len_bytes).sum();
        let tops = (0..self.ranges.arenas.len() as u16).filter_map(|arena| self.top(arena));
        let counted = self.counted;
        Books {
            live_bytes: counted.live_bytes.wrapping_add(mapped_bytes),
            tcache_bytes: counted.cached_bytes,
            fastbin_bytes: counted.fast_bytes,
            bin_free_bytes: counted.binned_bytes,
            top_bytes: tops.map(|(top, end)| end.saturating_sub(top)).sum(),
            metadata_bytes: counted.header_bytes + counted.bookkeeping_bytes.wrapping_add(counted.fence_bytes),
            segments_bytes: self.ranges.bytes(),
        }
    }

    /// The books, counted both ways.
    ///
    /// # Errors
    /// [`Imbalance`] if the ways differ or a byte is in no class or in two.
    pub fn books(&self) -> Result<Books, Imbalance> {
        let mut walked = Books::default();
        self.spans(|span| walked.enter(span.place, span.size_bytes));
        let counted = self.counted();
        if walked == counted && walked.sum_bytes() == self.ranges.bytes() {
            return Ok(walked);
        }
        let (walked, counted) = (Box::new(walked), Box::new(counted));
        Err(Imbalance { seq: self.seq, segments_bytes: self.ranges.bytes(), walked, counted })
    }
}
