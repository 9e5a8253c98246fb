//! How sizes and lifetimes are spread: what is counted of every block besides its sums.

use super::distribution::{Distribution, Doubling, OneTwoFive};
use super::sizes::Sizes;
use crate::trace::Sampling;

/// Counts sizes and lifetimes.
#[derive(Default, Debug)]
pub(super) struct Spreads {
    sizes: Sizes,
    lifetime: Distribution<OneTwoFive>,
}

/// What came of it.
pub(super) struct SpreadOut {
    /// Requested sizes, bytes.
    pub(super) requested: Distribution<Doubling>,
    /// Usable sizes, bytes.
    pub(super) usable: Distribution<Doubling>,
    /// Lifetimes of freed blocks, nanoseconds.
    pub(super) lifetime: Distribution<OneTwoFive>,
}

impl Spreads {
    /// A block was asked for.
    #[inline]
    pub(super) fn asked(&mut self, size_bytes: u64, slack_bytes: u16) {
        self.sizes.record(size_bytes, slack_bytes);
    }

    /// A block was asked for that stands for so many.
    pub(super) fn estimated(&mut self, sampling: Sampling, size_bytes: u64, slack_bytes: u16, blocks: u64) {
        self.sizes.estimate(sampling, size_bytes, slack_bytes, blocks);
    }

    /// So many blocks were freed after so long.
    #[inline]
    pub(super) fn lived(&mut self, lifetime_ns: u64, blocks: u64) {
        self.lifetime.record(lifetime_ns, blocks);
    }

    pub(super) fn finish(self) -> SpreadOut {
        let (requested, usable) = self.sizes.finish();
        SpreadOut { requested, usable, lifetime: self.lifetime }
    }
}
