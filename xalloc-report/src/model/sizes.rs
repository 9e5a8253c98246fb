//! Requested and usable sizes of allocations.
//!
//! A usable size follows from the requested one, for all that comes from one kind of chunk. So an allocation whose size is
//! small, and has the slack that the first one of its size had, is counted once, by its size; both distributions are
//! completed when somebody asks. Others, of mapped chunks or with an alignment of their own, are counted in both.

use super::distribution::{Distribution, Doubling};
use super::percentiles::EACH_BELOW;
use crate::trace::Sampling;

/// Allocations of one requested size.
#[derive(Clone, Copy, Default, Debug)]
struct Usual {
    /// Slack of the first of them.
    slack_bytes: u16,
    /// How many had that slack.
    count: u64,
}

/// Counts sizes.
#[derive(Debug)]
pub(super) struct Sizes {
    /// By requested size.
    usual: Vec<Usual>,
    requested: Distribution<Doubling>,
    usable: Distribution<Doubling>,
}

impl Default for Sizes {
    fn default() -> Sizes {
        let usual = vec![Usual::default(); EACH_BELOW as usize];
        Sizes { usual, requested: Distribution::default(), usable: Distribution::default() }
    }
}

impl Sizes {
    #[inline]
    pub(super) fn record(&mut self, size_bytes: u64, slack_bytes: u16) {
        let usual = usize::try_from(size_bytes).ok().and_then(|size| self.usual.get_mut(size));
        match usual {
            Some(usual) if usual.slack_bytes == slack_bytes || usual.count == 0 => {
                usual.slack_bytes = slack_bytes;
                usual.count += 1;
            }
            Some(_) | None => self.record_both(size_bytes, slack_bytes, 1),
        }
    }

    fn record_both(&mut self, size_bytes: u64, slack_bytes: u16, count: u64) {
        self.requested.record(size_bytes, count);
        self.usable.record(size_bytes.saturating_add(u64::from(slack_bytes)), count);
    }

    /// An allocation that stands for so many.
    pub(super) fn estimate(&mut self, sampling: Sampling, size_bytes: u64, slack_bytes: u16, count: u64) {
        let usable_bytes = size_bytes.saturating_add(u64::from(slack_bytes));
        self.requested.estimate(size_bytes, count, sampling.bytes(size_bytes));
        self.usable.estimate(usable_bytes, count, sampling.weighted(size_bytes, usable_bytes));
    }

    /// The requested sizes, and the usable ones.
    pub(super) fn finish(mut self) -> (Distribution<Doubling>, Distribution<Doubling>) {
        for (size_bytes, usual) in (0..).zip(std::mem::take(&mut self.usual)) {
            if usual.count > 0 {
                self.record_both(size_bytes, usual.slack_bytes, usual.count);
            }
        }
        (self.requested, self.usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_with_another_slack_than_usual_is_counted_with_its_own() {
        let mut sizes = Sizes::default();
        for slack_bytes in [8, 8, 40, 8] {
            sizes.record(16, slack_bytes);
        }
        sizes.record(5_000, 8);
        sizes.record(u64::MAX, 0);
        let (requested, usable) = sizes.finish();
        assert_eq!((requested.count(), usable.count()), (6, 6));
        assert_eq!(requested.percentile(50.0), Some(16));
        let classes: Vec<_> = usable.classes().map(|(from, _, class)| (from, class)).take(2).collect();
        assert_eq!(
            classes.iter().map(|(from, class)| (*from, class.count, class.sum)).collect::<Vec<_>>(),
            [(16, 3, 72), (32, 1, 56)]
        );
        assert_eq!(usable.max(), Some(u64::MAX));
    }
}
