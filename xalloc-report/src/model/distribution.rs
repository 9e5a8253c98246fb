//! How a quantity is spread: exact classes, and percentiles.
//!
//! The classes depend on the quantity: sizes double from class to class, as an allocator's do; times go in steps of
//! 1, 2 and 5, which is how people say them.
//!
//! # Small values are counted once
//! [`Percentiles`] counts each value below [`EACH_BELOW`] by itself. Their class, their sum and whether one of them is
//! the largest follow from these counts, so a small value, as most sizes are, costs one addition; the classes hold only
//! the others, and are completed when somebody asks.
//!
//! # Estimates
//! A value that stands for 1.3 is counted once or twice ([`crate::trace::Sampling::blocks`]), but adds 1.3 times itself to
//! the sum. The difference is kept by class, so that sums are those of the totals, and percentiles those of the counts.

use std::marker::PhantomData;

use super::percentiles::{EACH_BELOW, Percentiles};

/// A division of the integers into classes.
pub trait Scale {
    /// The first value of every class but the first, ascending; the first class begins at 0.
    const EDGES: &'static [u64];

    /// Number of the class of `value`: how many edges are at or below it.
    #[must_use]
    fn class_of(value: u64) -> usize {
        Self::EDGES.partition_point(|edge| *edge <= value)
    }
}

/// Sizes in bytes: 0, and each power of two.
#[derive(Clone, Copy, Debug)]
pub struct Doubling;

impl Scale for Doubling {
    const EDGES: &'static [u64] = &{
        let mut edges = [0; 64];
        let mut power = 0;
        while power < 64 {
            edges[power] = 1 << power;
            power += 1;
        }
        edges
    };

    #[inline]
    fn class_of(value: u64) -> usize {
        (u64::BITS - value.leading_zeros()) as usize
    }
}

/// Times in nanoseconds: below 1 µs (the resolution of a trace), then 1, 2, 5 times each power of ten up to 10,000 s.
#[derive(Clone, Copy, Debug)]
pub struct OneTwoFive;

impl Scale for OneTwoFive {
    const EDGES: &'static [u64] = &{
        let mut edges = [0; 31];
        let (mut edge, mut power) = (0, 1_000);
        while edge < 30 {
            edges[edge] = power;
            edges[edge + 1] = 2 * power;
            edges[edge + 2] = 5 * power;
            edge += 3;
            power *= 10;
        }
        edges[30] = power;
        edges
    };

    #[inline]
    fn class_of(value: u64) -> usize {
        /// By bit length, the edges at or below the least value of that length. The next edge may lie within the
        /// length; the one after it does not, edges are at least doubled.
        const BELOW: [u8; 65] = {
            let mut below = [0; 65];
            let mut bits = 1;
            while bits <= 64 {
                let mut edge = 0;
                while edge < 31 && OneTwoFive::EDGES[edge] <= 1 << (bits - 1) {
                    edge += 1;
                }
                below[bits] = edge as u8;
                bits += 1;
            }
            below
        };
        let below = usize::from(BELOW[(u64::BITS - value.leading_zeros()) as usize]);
        below + usize::from(Self::EDGES.get(below).is_some_and(|edge| *edge <= value))
    }
}

/// The values of one class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Class {
    /// How many values.
    pub count: u64,
    /// Their sum, saturating.
    pub sum: u64,
}

/// The distribution of sizes (bytes) or times (nanoseconds).
#[derive(Clone, Debug)]
pub struct Distribution<S: Scale> {
    /// Of the values from [`EACH_BELOW`] on.
    classes: Vec<Class>,
    percentiles: Percentiles,
    /// Largest value from [`EACH_BELOW`] on; 0 without.
    max: u64,
    /// By class, what the sum of estimated values is above that of the counted ones; empty without estimates.
    unrounded: Vec<i64>,
    scale: PhantomData<S>,
}

impl<S: Scale> Default for Distribution<S> {
    fn default() -> Distribution<S> {
        let classes = vec![Class::default(); S::EDGES.len() + 1];
        Distribution { classes, percentiles: Percentiles::default(), max: 0, unrounded: Vec::new(), scale: PhantomData }
    }
}

impl<S: Scale> Distribution<S> {
    /// Counts so many of a value.
    #[inline]
    pub(super) fn record(&mut self, value: u64, count: u64) {
        self.percentiles.record(value, count);
        if value >= EACH_BELOW {
            let class = &mut self.classes[S::class_of(value)];
            class.count += count;
            class.sum = class.sum.saturating_add(value.saturating_mul(count));
            self.max = self.max.max(value);
        }
    }

    /// Counts a value that stands for so many, which have this sum.
    pub(super) fn estimate(&mut self, value: u64, count: u64, sum: u64) {
        self.record(value, count);
        self.unrounded.resize(self.classes.len(), 0);
        let difference = i128::from(sum) - i128::from(value.saturating_mul(count));
        let of_class = &mut self.unrounded[S::class_of(value)];
        let bounded = difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        *of_class = of_class.saturating_add(bounded);
    }

    pub(super) fn absorb(&mut self, other: &Distribution<S>) {
        for (into, from) in self.classes.iter_mut().zip(&other.classes) {
            into.count += from.count;
            into.sum = into.sum.saturating_add(from.sum);
        }
        if self.unrounded.len() < other.unrounded.len() {
            self.unrounded.resize(other.unrounded.len(), 0);
        }
        for (into, from) in self.unrounded.iter_mut().zip(&other.unrounded) {
            *into = into.saturating_add(*from);
        }
        self.max = self.max.max(other.max);
        self.percentiles.absorb(&other.percentiles);
    }

    /// Every class, with the values that are counted by themselves, and with estimated sums.
    fn completed(&self) -> Vec<Class> {
        let mut classes = self.classes.clone();
        for (value, count) in self.percentiles.each() {
            let class = &mut classes[S::class_of(value)];
            class.count += count;
            class.sum = class.sum.saturating_add(value.saturating_mul(count));
        }
        for (class, unrounded) in classes.iter_mut().zip(&self.unrounded) {
            class.sum = class.sum.saturating_add_signed(*unrounded);
        }
        classes
    }

    /// The classes from the first to the last that holds values, as (from, to, class); `to` is the first value above
    /// the class, and the largest integer for the last class of the scale.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64, Class)> + '_ {
        let classes = self.completed();
        let first = classes.iter().position(|class| class.count > 0).unwrap_or(classes.len());
        let last = classes.iter().rposition(|class| class.count > 0).map_or(first, |last| last + 1);
        (first..last).map(move |number| {
            let from = number.checked_sub(1).map_or(0, |edge| S::EDGES[edge]);
            let to = S::EDGES.get(number).copied().unwrap_or(u64::MAX);
            (from, to, classes[number])
        })
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.completed().iter().map(|class| class.count).sum()
    }

    /// Sum of all values, saturating.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.completed().iter().fold(0, |sum, class| sum.saturating_add(class.sum))
    }

    /// The value at or below which `percent` of all values lie, to 0.1 %; `None` without values.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        self.max().map(|max| self.percentiles.at(percent).min(max))
    }

    /// Largest value; `None` without values.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        let small = || self.percentiles.each().last().map(|(value, _)| value);
        if self.max > 0 { Some(self.max) } else { small() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_power_of_two_begins_a_class_and_zero_has_its_own() {
        let mut sizes = Distribution::<Doubling>::default();
        for size in [0, 1, 2, 3, 4, 15, 16] {
            sizes.record(size, 1);
        }
        let classes: Vec<_> = sizes.classes().map(|(from, to, class)| (from, to, class.count)).collect();
        assert_eq!(classes, [(0, 1, 1), (1, 2, 1), (2, 4, 2), (4, 8, 1), (8, 16, 1), (16, 32, 1)]);
        assert_eq!((sizes.count(), sizes.sum()), (7, 41));
    }

    #[test]
    fn times_go_in_steps_of_one_two_and_five() {
        let mut times = Distribution::<OneTwoFive>::default();
        for time_ns in [999, 1_000, 4_999, 10_000] {
            times.record(time_ns, 1);
        }
        let classes: Vec<_> = times.classes().map(|(from, to, class)| (from, to, class.count)).collect();
        assert_eq!(
            classes,
            [(0, 1_000, 1), (1_000, 2_000, 1), (2_000, 5_000, 1), (5_000, 10_000, 0), (10_000, 20_000, 1)]
        );
    }

    #[test]
    fn every_value_has_a_class_that_it_lies_in() {
        fn holds<S: Scale>(value: u64) {
            let mut one = Distribution::<S>::default();
            one.record(value, 1);
            let classes: Vec<_> = one.classes().collect();
            let [(from, to, _)] = classes[..] else { panic!("{classes:?}") };
            assert!(from <= value && (value < to || to == u64::MAX), "{value} in {from}..{to}");
        }
        for bit in 0..64 {
            for value in [1u64 << bit, (1 << bit) - 1, (1 << bit) + 1, u64::MAX - (1 << bit)] {
                holds::<Doubling>(value);
                holds::<OneTwoFive>(value);
            }
        }
    }

    #[test]
    fn percentiles_of_a_sum_are_those_of_all_values() {
        let (mut low, mut high) = (Distribution::<Doubling>::default(), Distribution::<Doubling>::default());
        (1..=50).for_each(|value| low.record(value, 1));
        (51..=99).for_each(|value| high.record(value, 1));
        high.record(3 << 30, 1);
        low.absorb(&high);
        assert_eq!(low.percentile(50.0), Some(50));
        assert_eq!(low.percentile(99.0), Some(99));
        assert_eq!((low.percentile(100.0), low.max()), (Some(3 << 30), Some(3 << 30)));
    }

    #[test]
    fn no_values_have_no_percentile() {
        assert_eq!(Distribution::<Doubling>::default().percentile(50.0), None);
    }
}
