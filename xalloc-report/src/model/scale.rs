//! From recorded blocks to what they stand for, and how far off that may be.
//!
//! Where all blocks are recorded each stands for itself, and nothing is in doubt.

use super::live::LiveBlock;
use super::sites::Sites;
use crate::trace::{Sampling, Variance};

/// What one recorded block counts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Amount {
    /// Requested bytes.
    pub(super) bytes: u64,
    /// Blocks.
    pub(super) blocks: u64,
}

/// How far off the totals of a sampled recording may be: standard errors. The true value is within two of them in 95 of
/// 100 recordings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StandardErrors {
    sampling: Sampling,
    allocated: Variance,
    alive: Variance,
    peak: Variance,
}

impl StandardErrors {
    fn none_yet(sampling: Sampling) -> StandardErrors {
        let none = Variance::default();
        StandardErrors { sampling, allocated: none, alive: none, peak: none }
    }

    /// What they come from.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Those of the sums with another process.
    pub(super) fn and(mut self, other: StandardErrors) -> StandardErrors {
        self.allocated += other.allocated;
        self.alive += other.alive;
        self.peak += other.peak;
        self
    }

    /// Of the requested bytes of all allocations.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        root(self.allocated.bytes)
    }

    /// Of the number of allocations.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        root(self.allocated.blocks)
    }

    /// Of the largest live bytes, as an estimate of what lived at that instant.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        root(self.peak.bytes)
    }

    /// Of the bytes alive at the end.
    #[must_use]
    pub fn alive_bytes(&self) -> u64 {
        root(self.alive.bytes)
    }

    /// Of the blocks alive at the end.
    #[must_use]
    pub fn alive_blocks(&self) -> u64 {
        root(self.alive.blocks)
    }
}

/// A standard error by its square, which rounding may have left a little below 0. What is in doubt at all is by 1.
fn root(variance: f64) -> u64 {
    variance.max(0.0).sqrt().ceil() as u64
}

/// What the recorded blocks of a process stand for.
#[derive(Debug)]
pub(super) struct Scale {
    sampled: Option<Sampled>,
}

#[derive(Debug)]
struct Sampled {
    /// Blocks so far.
    number: u64,
    /// Of what lives now.
    live: Variance,
    errors: StandardErrors,
}

impl Scale {
    pub(super) fn of(sampling: Option<Sampling>) -> Scale {
        let sampled =
            |sampling| Sampled { number: 0, live: Variance::default(), errors: StandardErrors::none_yet(sampling) };
        Scale { sampled: sampling.map(sampled) }
    }

    /// Which blocks are recorded, where not all are.
    #[inline]
    pub(super) fn sampling(&self) -> Option<Sampling> {
        self.sampled.as_ref().map(|sampled| sampled.errors.sampling)
    }

    /// The blocks that the next block stands for, whose size this is.
    #[inline]
    pub(super) fn stands_for(&mut self, size_bytes: u64) -> u32 {
        self.sampled.as_mut().map_or(1, |sampled| {
            sampled.number += 1;
            sampled.errors.sampling.blocks(size_bytes, sampled.number)
        })
    }

    /// What a block counts for.
    #[inline]
    pub(super) fn amount(&self, block: &LiveBlock) -> Amount {
        let size_bytes = block.size_bytes;
        let bytes = self.sampling().map_or(size_bytes, |sampling| sampling.bytes(size_bytes));
        Amount { bytes, blocks: u64::from(block.stands_for) }
    }

    /// A block was allocated.
    #[inline]
    pub(super) fn allocated(&mut self, block: &LiveBlock) {
        if let Some(sampled) = &mut self.sampled {
            sampled.errors.allocated += sampled.errors.sampling.variance(block.size_bytes);
        }
    }

    /// A block begins to live, as `sites` know already.
    #[inline]
    pub(super) fn begins(&mut self, block: &LiveBlock, sites: &Sites) {
        if let Some(sampled) = &mut self.sampled {
            sampled.live += sampled.errors.sampling.variance(block.size_bytes);
            let (peak, _) = sites.peak();
            if sites.live() == peak {
                sampled.errors.peak = sampled.live;
            }
        }
    }

    /// A block ceases to live.
    #[inline]
    pub(super) fn ends(&mut self, block: &LiveBlock) {
        if let Some(sampled) = &mut self.sampled {
            sampled.live -= sampled.errors.sampling.variance(block.size_bytes);
        }
    }

    /// A block is alive at the end.
    pub(super) fn outlived(&mut self, block: &LiveBlock) {
        if let Some(sampled) = &mut self.sampled {
            sampled.errors.alive += sampled.errors.sampling.variance(block.size_bytes);
        }
    }

    /// How far off the totals may be.
    pub(super) fn errors(&self) -> Option<StandardErrors> {
        self.sampled.as_ref().map(|sampled| sampled.errors)
    }
}
