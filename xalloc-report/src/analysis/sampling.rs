//! How far the figures of a sampled recording can be trusted.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::Model;

/// That all figures are estimates, from which recorded allocations, and how far off they may be. Errors are standard
/// errors: the true figure is within one of them in two of three recordings, and within two in 95 of 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SamplingView {
    /// Bytes that the program asked for between two recorded ones, on average.
    pub mean_interval_bytes: u64,
    /// Allocations that were recorded; all other figures are what these stand for.
    pub recorded_allocations: u64,
    /// Standard error of the number of allocations.
    pub allocations_error: u64,
    /// Standard error of the requested bytes of all of them.
    pub allocated_bytes_error: u64,
    /// Standard error of the live bytes at their peak.
    pub peak_live_bytes_error: u64,
    /// Standard error of the bytes alive at exit.
    pub live_at_exit_bytes_error: u64,
    /// Standard error of the blocks alive at exit.
    pub live_at_exit_blocks_error: u64,
}

impl SamplingView {
    /// Bytes of which nothing may have been recorded: more than these three mean intervals are hit in 95 of 100
    /// recordings. As each request counts for a byte at least, no more requests than that are unseen either.
    #[must_use]
    pub fn unseen_bytes(&self) -> u64 {
        self.mean_interval_bytes.saturating_mul(3)
    }

    /// `None`: everything was recorded, and nothing is estimated.
    pub(super) fn of(model: &Model) -> Option<SamplingView> {
        let errors = model.sum.errors?;
        Some(SamplingView {
            mean_interval_bytes: u64::from(errors.sampling().mean_bytes.get()),
            recorded_allocations: model.sum.sites.iter().map(|site| site.recorded).sum(),
            allocations_error: errors.allocations(),
            allocated_bytes_error: errors.allocated_bytes(),
            peak_live_bytes_error: errors.peak_bytes(),
            live_at_exit_bytes_error: errors.alive_bytes(),
            live_at_exit_blocks_error: errors.alive_blocks(),
        })
    }
}
