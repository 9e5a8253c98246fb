//! How a quantity is spread: exact power-of-two classes, and percentiles by hdrhistogram.

use hdrhistogram::Histogram;

/// Classes of a 64-bit quantity: one for 0, one for each power of two.
const CLASSES: usize = 65;
/// Percentiles are exact to 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;

/// The values of one power-of-two class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Class {
    /// How many values.
    pub count: u64,
    /// Their sum, saturating.
    pub sum: u64,
}

/// The distribution of sizes (bytes) or times (nanoseconds).
#[derive(Clone, Debug)]
pub struct Distribution {
    classes: [Class; CLASSES],
    histogram: Histogram<u64>,
}

impl Default for Distribution {
    fn default() -> Distribution {
        // 3 digits are within hdrhistogram's 0 to 5, its only condition.
        let histogram = Histogram::new(SIGNIFICANT_DIGITS).expect("3 significant digits are allowed");
        Distribution { classes: [Class::default(); CLASSES], histogram }
    }
}

/// Number of the class of `value`: 0 for 0, otherwise one more than the power of two at or below it.
#[must_use]
pub(super) const fn class_of(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

impl Distribution {
    pub(super) fn record(&mut self, value: u64) {
        let class = &mut self.classes[class_of(value)];
        class.count += 1;
        class.sum = class.sum.saturating_add(value);
        // Clamped: beyond 2^62 hdrhistogram's bucket arithmetic overflows; the classes keep the value.
        self.histogram.saturating_record(value.min(1 << 62));
    }

    pub(super) fn absorb(&mut self, other: &Distribution) {
        for (into, from) in self.classes.iter_mut().zip(&other.classes) {
            into.count += from.count;
            into.sum = into.sum.saturating_add(from.sum);
        }
        // Both resize themselves and have the same precision, hdrhistogram's only reason to refuse; should the memory
        // for the resize be refused, percentiles lack the other's values and the classes stay exact.
        let _ = self.histogram.add(&other.histogram);
    }

    /// The classes that hold values, ascending, as (from, to, class); `to` is the first value above the class, and
    /// the largest integer for the last.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64, Class)> + '_ {
        self.classes.iter().enumerate().filter(|(_, class)| class.count > 0).map(|(number, &class)| match number {
            0 => (0, 1, class),
            64 => (1 << 63, u64::MAX, class),
            _ => (1 << (number - 1), 1 << number, class),
        })
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Sum of all values, saturating.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.classes.iter().fold(0, |sum, class| sum.saturating_add(class.sum))
    }

    /// The value at or below which `percent` of all values lie, to 0.1 %; `None` without values.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        (!self.histogram.is_empty()).then(|| self.histogram.value_at_percentile(percent).min(self.histogram.max()))
    }

    /// Largest value, to 0.1 %; `None` without values.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (!self.histogram.is_empty()).then(|| self.histogram.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_power_of_two_begins_a_class_and_zero_has_its_own() {
        let mut sizes = Distribution::default();
        for size in [0, 1, 2, 3, 4, 1023, 1024, u64::MAX] {
            sizes.record(size);
        }
        let classes: Vec<_> = sizes.classes().map(|(from, to, class)| (from, to, class.count)).collect();
        assert_eq!(
            classes,
            [(0, 1, 1), (1, 2, 1), (2, 4, 2), (4, 8, 1), (512, 1024, 1), (1024, 2048, 1), (1 << 63, u64::MAX, 1)]
        );
        assert_eq!(sizes.count(), 8);
    }

    #[test]
    fn percentiles_of_a_sum_are_those_of_all_values() {
        let (mut low, mut high) = (Distribution::default(), Distribution::default());
        (1..=50).for_each(|value| low.record(value));
        (51..=100).for_each(|value| high.record(value));
        low.absorb(&high);
        assert_eq!(low.percentile(50.0), Some(50));
        assert_eq!(low.percentile(99.0), Some(99));
        assert_eq!(low.max(), Some(100));
        assert_eq!(low.sum(), 5050);
    }

    #[test]
    fn no_values_have_no_percentile() {
        assert_eq!(Distribution::default().percentile(50.0), None);
    }
}
