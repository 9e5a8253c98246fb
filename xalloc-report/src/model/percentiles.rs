//! How many values lie at or below which, to 0.1 %, in memory that does not grow with their number.
//!
//! Values below 2,048 are counted one by one; above, every doubling has 1,024 spans of equal width, so a span is never
//! wider than a thousandth of what lies in it. That is hdrhistogram's division for three significant digits, and its
//! crate answers the questions: but it takes five times the instructions to count a value (80), which was a third of all
//! aggregates. So values are counted here, and the spans are handed to it when somebody asks.

use hdrhistogram::Histogram;

/// Percentiles are exact to 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Larger values count as this: hdrhistogram's arithmetic ends there.
const PERCENTILE_MAX: u64 = 1 << 62;

/// Spans a doubling: two to this power.
const SPAN_BITS: u32 = 10;
const SPANS: usize = 1 << SPAN_BITS;
/// Values below this have a span of their own each.
pub(super) const EACH_BELOW: u64 = 2 * SPANS as u64;

/// Counts of values by span; grows to the span of the largest value, 450 KiB for the largest integer.
#[derive(Clone, Debug)]
pub(super) struct Percentiles {
    counts: Vec<u64>,
}

impl Default for Percentiles {
    fn default() -> Percentiles {
        Percentiles { counts: vec![0; EACH_BELOW as usize] }
    }
}

#[inline]
fn span_of(value: u64) -> usize {
    let log = 63 - (value | SPANS as u64).leading_zeros();
    let shift = log - SPAN_BITS;
    ((shift as usize) << SPAN_BITS) + (value >> shift) as usize
}

/// The smallest value of a span.
fn first_of(span: usize) -> u64 {
    let shift = (span >> SPAN_BITS).saturating_sub(1);
    ((span - (shift << SPAN_BITS)) as u64) << shift
}

impl Percentiles {
    #[inline]
    pub(super) fn record(&mut self, value: u64, count: u64) {
        let span = span_of(value);
        match self.counts.get_mut(span) {
            Some(counted) => *counted += count,
            None => self.grow(span, count),
        }
    }

    #[cold]
    fn grow(&mut self, span: usize, count: u64) {
        self.counts.resize(span + 1, 0);
        self.counts[span] = count;
    }

    /// The values below [`EACH_BELOW`] that there are, ascending, and how many of each.
    pub(super) fn each(&self) -> impl Iterator<Item = (u64, u64)> {
        let counted = (0..EACH_BELOW).zip(&self.counts);
        counted.filter(|(_, count)| **count > 0).map(|(value, &count)| (value, count))
    }

    pub(super) fn absorb(&mut self, other: &Percentiles) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (into, from) in self.counts.iter_mut().zip(&other.counts) {
            *into += from;
        }
    }

    /// The smallest value of the span in which the value lies at or below which `percent` of all values lie; 0 without
    /// values. The smallest, because sizes are round more often than not, and a span begins with a round number.
    pub(super) fn at(&self, percent: f64) -> u64 {
        // 3 digits are within hdrhistogram's 0 to 5, its only condition.
        let mut histogram = Histogram::<u64>::new(SIGNIFICANT_DIGITS).expect("3 significant digits are allowed");
        for (span, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            // It resizes itself; where memory for that is refused, the percentiles lack the value.
            let _ = histogram.record_n(first_of(span).min(PERCENTILE_MAX), count);
        }
        histogram.lowest_equivalent(histogram.value_at_percentile(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_percentile_is_the_sorted_value_at_its_place_to_a_thousandth(
            mut values in prop::collection::vec((0..=PERCENTILE_MAX, any::<u32>()), 1..200), percent in 0.0f64..100.0,
        ) {
            let mut percentiles = Percentiles::default();
            let mut values: Vec<u64> = values.drain(..).map(|(value, shift)| value >> (shift % 64)).collect();
            values.iter().for_each(|&value| percentiles.record(value, 1));
            values.sort_unstable();
            let place = ((percent / 100.0 * values.len() as f64).ceil() as usize).max(1) - 1;
            let (exact, seen) = (values[place], percentiles.at(percent));
            prop_assert!(seen <= exact && exact - seen <= exact / 1000, "{exact} {seen}");
        }

        #[test]
        fn every_value_lies_in_its_span_and_below_the_next_one(value: u64) {
            let span = span_of(value);
            prop_assert!(first_of(span) <= value);
            prop_assert!(span_of(u64::MAX) == span || value < first_of(span + 1));
        }
    }
}
