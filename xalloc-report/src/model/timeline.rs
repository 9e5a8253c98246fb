//! What was live over time, in buckets that widen as the recording goes on.
//!
//! A bucket is a span of the recording's clock, and all buckets of a timeline are equally wide: 1 µs times a power of
//! two. When an event lies beyond the last possible bucket, neighbours are merged and the width doubles, so a timeline
//! takes the same memory for a millisecond and for a month, and two timelines can be brought to one width exactly.

use super::scale::Amount;

/// Most buckets that a timeline has.
pub const BUCKETS_MAX: usize = 1024;
/// Width of a bucket before any merge: the resolution of a trace's times.
const WIDTH_MIN_NS: u64 = 1000;

/// What happened within one span of time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bucket {
    /// Live requested bytes at its end.
    pub live_bytes: u64,
    /// Most live bytes at any instant of it; for added processes the sum of each one's most.
    pub live_max_bytes: u64,
    /// Bytes that the heap holds from the system, at its end.
    pub heap_bytes: u64,
    /// Most such bytes at any instant of it; for added processes the sum of each one's most.
    pub heap_max_bytes: u64,
    /// Allocations in it.
    pub allocations: u64,
    /// Requested bytes of these.
    pub allocated_bytes: u64,
}

impl Bucket {
    /// An empty span in which everything stays as this one left it.
    fn carried(&self) -> Bucket {
        Bucket {
            live_bytes: self.live_bytes,
            live_max_bytes: self.live_bytes,
            heap_bytes: self.heap_bytes,
            heap_max_bytes: self.heap_bytes,
            allocations: 0,
            allocated_bytes: 0,
        }
    }

    fn then(self, later: Bucket) -> Bucket {
        Bucket {
            live_bytes: later.live_bytes,
            live_max_bytes: self.live_max_bytes.max(later.live_max_bytes),
            heap_bytes: later.heap_bytes,
            heap_max_bytes: self.heap_max_bytes.max(later.heap_max_bytes),
            allocations: self.allocations + later.allocations,
            allocated_bytes: self.allocated_bytes.saturating_add(later.allocated_bytes),
        }
    }

    fn beside(&mut self, other: Bucket) {
        self.live_bytes = self.live_bytes.saturating_add(other.live_bytes);
        self.live_max_bytes = self.live_max_bytes.saturating_add(other.live_max_bytes);
        self.heap_bytes = self.heap_bytes.saturating_add(other.heap_bytes);
        self.heap_max_bytes = self.heap_max_bytes.saturating_add(other.heap_max_bytes);
        self.allocations += other.allocations;
        self.allocated_bytes = self.allocated_bytes.saturating_add(other.allocated_bytes);
    }
}

/// Equally wide buckets from the recording's start to the last event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeline {
    width_ns: u64,
    buckets: Vec<Bucket>,
    /// Where the last bucket ends: most events fall into it, and a comparison is cheaper than a division.
    end_ns: u64,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline { width_ns: WIDTH_MIN_NS, buckets: Vec::new(), end_ns: 0 }
    }
}

impl Timeline {
    /// Width of each bucket, nanoseconds.
    #[must_use]
    pub fn width_ns(&self) -> u64 {
        self.width_ns
    }

    /// The buckets; number n covers `[n, n + 1) * width_ns` of the recording's clock.
    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The bucket of `at_ns`, or the last one if time went backwards.
    #[inline]
    fn bucket(&mut self, at_ns: u64) -> &mut Bucket {
        match self.buckets.len().checked_sub(1) {
            Some(last) if at_ns < self.end_ns => &mut self.buckets[last],
            Some(_) | None => self.bucket_after(at_ns),
        }
    }

    #[cold]
    #[inline(never)]
    fn bucket_after(&mut self, at_ns: u64) -> &mut Bucket {
        self.extend(at_ns);
        // Not empty: it was extended just now.
        let last = self.buckets.len() - 1;
        &mut self.buckets[last]
    }

    /// Appends buckets until the last one holds `at_ns`.
    fn extend(&mut self, at_ns: u64) {
        while at_ns / self.width_ns >= BUCKETS_MAX as u64 {
            self.widen();
        }
        let last = self.buckets.last().copied().unwrap_or_default();
        let needed = (at_ns / self.width_ns) as usize + 1;
        if needed > self.buckets.len() {
            self.buckets.resize(needed, last.carried());
        }
        self.end_ns = (self.buckets.len() as u64).saturating_mul(self.width_ns);
    }

    /// Makes a bucket for `at_ns` the last one; returns where it ends, and the most that was live in it.
    pub(super) fn reach(&mut self, at_ns: u64) -> (u64, u64) {
        let most_bytes = self.bucket(at_ns).live_max_bytes;
        (self.end_ns, most_bytes)
    }

    /// So much is live at the end of the last bucket, and was at most within it.
    pub(super) fn settle(&mut self, live_bytes: u64, most_bytes: u64) {
        if let Some(last) = self.buckets.last_mut() {
            last.live_bytes = live_bytes;
            last.live_max_bytes = last.live_max_bytes.max(most_bytes);
        }
    }

    /// An allocation, with what was live after it.
    #[inline]
    pub(super) fn allocated(&mut self, at_ns: u64, amount: Amount, live_bytes: u64) {
        let bucket = self.bucket(at_ns);
        bucket.allocations += amount.blocks;
        bucket.allocated_bytes = bucket.allocated_bytes.saturating_add(amount.bytes);
        bucket.live_bytes = live_bytes;
        bucket.live_max_bytes = bucket.live_max_bytes.max(live_bytes);
    }

    /// Blocks that are no longer live, with what still is.
    #[inline]
    pub(super) fn ceased(&mut self, at_ns: u64, live_bytes: u64) {
        self.bucket(at_ns).live_bytes = live_bytes;
    }

    #[inline]
    pub(super) fn live(&mut self, at_ns: u64, live_bytes: u64) {
        let bucket = self.bucket(at_ns);
        bucket.live_bytes = live_bytes;
        bucket.live_max_bytes = bucket.live_max_bytes.max(live_bytes);
    }

    #[inline]
    pub(super) fn heap(&mut self, at_ns: u64, heap_bytes: u64) {
        let bucket = self.bucket(at_ns);
        bucket.heap_bytes = heap_bytes;
        bucket.heap_max_bytes = bucket.heap_max_bytes.max(heap_bytes);
    }

    fn widen(&mut self) {
        self.width_ns *= 2;
        let merged = self.buckets.chunks(2).map(|pair| match *pair {
            [first, second] => first.then(second),
            [only] => only,
            _ => Bucket::default(),
        });
        self.buckets = merged.collect();
        self.end_ns = (self.buckets.len() as u64).saturating_mul(self.width_ns);
    }

    /// Adds another process's timeline; after its last event a process holds nothing.
    pub(super) fn absorb(&mut self, mut other: Timeline) {
        while self.width_ns < other.width_ns {
            self.widen();
        }
        while other.width_ns < self.width_ns {
            other.widen();
        }
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), Bucket::default());
        }
        for (into, from) in self.buckets.iter_mut().zip(other.buckets) {
            into.beside(from);
        }
    }

    /// The first bucket with the largest [`Bucket::live_max_bytes`], by its beginning, and these bytes.
    #[must_use]
    pub fn most_live(&self) -> Option<(u64, u64)> {
        let most = self.buckets.iter().map(|bucket| bucket.live_max_bytes).max().filter(|&most| most > 0)?;
        let place = self.buckets.iter().position(|bucket| bucket.live_max_bytes == most)?;
        Some((place as u64 * self.width_ns, most))
    }

    /// The timeline in at most `buckets` buckets.
    #[must_use]
    pub fn at_most(&self, buckets: usize) -> Timeline {
        let mut coarse = self.clone();
        while coarse.buckets.len() > buckets.max(1) {
            coarse.widen();
        }
        coarse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_without_events_keeps_what_was_live_before_it() {
        let mut timeline = Timeline::default();
        timeline.live(0, 100);
        timeline.live(3_500, 40);
        let live: Vec<_> = timeline.buckets().iter().map(|b| (b.live_bytes, b.live_max_bytes)).collect();
        assert_eq!(live, [(100, 100), (100, 100), (100, 100), (40, 100)]);
    }

    #[test]
    fn widening_keeps_every_count_and_the_greatest_maximum() {
        let mut timeline = Timeline::default();
        for at in 0..5_000u64 {
            timeline.allocated(at * 1000, Amount { bytes: 8, blocks: 1 }, if at == 777 { 1 << 20 } else { 8 });
        }
        assert!(timeline.buckets().len() <= BUCKETS_MAX);
        assert_eq!(timeline.buckets().iter().map(|b| b.allocations).sum::<u64>(), 5_000);
        assert_eq!(timeline.buckets().iter().map(|b| b.live_max_bytes).max(), Some(1 << 20));
        assert_eq!(timeline.width_ns(), 8_000);
    }

    #[test]
    fn the_last_instant_that_a_clock_can_say_still_has_a_bucket() {
        let mut timeline = Timeline::default();
        timeline.live(u64::MAX, 1);
        assert!(timeline.buckets().len() <= BUCKETS_MAX);
    }

    #[test]
    fn a_process_that_ended_holds_nothing_in_the_sum() {
        let (mut short, mut long) = (Timeline::default(), Timeline::default());
        short.live(0, 10);
        long.live(0, 1);
        long.live(2_000_000, 2);
        short.absorb(long);
        assert_eq!(short.buckets().first().map(|b| b.live_max_bytes), Some(11));
        assert_eq!(short.buckets().last().map(|b| b.live_bytes), Some(2));
        assert_eq!(short.most_live(), Some((0, 11)));
    }
}
