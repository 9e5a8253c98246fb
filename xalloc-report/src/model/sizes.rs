//! Requested and usable sizes of allocations.
//!
//! A usable size follows from the requested one, for all that comes from one kind of chunk. So an allocation whose size is
//! small, and has the slack that the first one of its size had, is counted once, by its size; both distributions are
//! completed when somebody asks. Others, of mapped chunks or with an alignment of their own, are counted in both.

use super::distribution::{Distribution, Doubling};
use super::percentiles::EACH_BELOW;

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
    pub(super) fn record(&mut self, size_bytes: u64, slack_bytes: u16, count: u64) {
        let usual = usize::try_from(size_bytes).ok().and_then(|size| self.usual.get_mut(size));
        match usual {
            Some(usual) if usual.slack_bytes == slack_bytes || usual.count == 0 => {
                usual.slack_bytes = slack_bytes;
                usual.count += count;
            }
            Some(_) | None => self.record_both(size_bytes, slack_bytes, count),
        }
    }

    fn record_both(&mut self, size_bytes: u64, slack_bytes: u16, count: u64) {
        self.requested.record(size_bytes, count);
        self.usable.record(size_bytes.saturating_add(u64::from(slack_bytes)), count);
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
            sizes.record(16, slack_bytes, 1);
        }
        sizes.record(5_000, 8, 1);
        sizes.record(u64::MAX, 0, 1);
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
