//! What a recorded block stands for, where only some are recorded.
//!
//! A block of `s` bytes is recorded with the probability `p = 1 - exp(-(s + 1) / mean)` ([`xalloc_core::sampling`]), so
//! it stands for `1 / p` blocks of its size, itself included. Sums over the recorded blocks, each taken so often, are
//! right on average, whatever the program does (Horvitz and Thompson, 1952). How far off one of them may be follows from
//! the same probabilities: blocks are recorded independently of each other, so the variance of a sum of values `v` is
//! estimated without bias by the sum of `v² (1 - p) / p²`.
//!
//! # Whole blocks
//! Counts are whole numbers all over the reports. A block that stands for 1.3 is counted once or, in 3 of 10 cases,
//! twice. Which it is follows from its number in the process, so that every reader of a trace counts alike.

use std::num::NonZeroU32;

/// That only some blocks of a recording were recorded, and which.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sampling {
    /// Bytes of which one, on average, had its allocation recorded.
    pub mean_bytes: NonZeroU32,
}

impl Sampling {
    /// For the mean that a control page or the header of a file names; 0: everything was recorded.
    #[must_use]
    pub fn of_mean(mean_bytes: u32) -> Option<Sampling> {
        NonZeroU32::new(mean_bytes).map(|mean_bytes| Sampling { mean_bytes })
    }

    /// How likely a block of this size was to be recorded.
    #[must_use]
    pub fn chance(self, size_bytes: u64) -> f64 {
        -(-(size_bytes as f64 + 1.0) / f64::from(self.mean_bytes.get())).exp_m1()
    }

    /// The bytes that a block of this size stands for.
    #[must_use]
    pub fn bytes(self, size_bytes: u64) -> u64 {
        self.weighted(size_bytes, size_bytes)
    }

    /// What `bytes` of a block of this size stand for.
    #[must_use]
    pub fn weighted(self, size_bytes: u64, bytes: u64) -> u64 {
        (bytes as f64 / self.chance(size_bytes)).round() as u64
    }

    /// The blocks that a block of this size stands for, as a whole number: for the one with this number in its process.
    #[must_use]
    pub fn blocks(self, size_bytes: u64, number: u64) -> u32 {
        let exactly = 1.0 / self.chance(size_bytes);
        // Fibonacci hashing: numbers in a row fall evenly into [0, 1).
        let dither = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64;
        (exactly + dither) as u32
    }

    /// What a recorded block adds to the variances of a sum of bytes and of a number of blocks.
    #[must_use]
    pub fn variance(self, size_bytes: u64) -> Variance {
        let chance = self.chance(size_bytes);
        let of_one = (1.0 - chance) / (chance * chance);
        Variance { bytes: (size_bytes as f64).powi(2) * of_one, blocks: of_one }
    }
}

/// How far off an estimate may be, squared.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Variance {
    /// Of a sum of bytes.
    pub bytes: f64,
    /// Of a number of blocks.
    pub blocks: f64,
}

impl std::ops::AddAssign for Variance {
    fn add_assign(&mut self, other: Variance) {
        self.bytes += other.bytes;
        self.blocks += other.blocks;
    }
}

impl std::ops::SubAssign for Variance {
    fn sub_assign(&mut self, other: Variance) {
        self.bytes -= other.bytes;
        self.blocks -= other.blocks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(mean_bytes: u32) -> Sampling {
        Sampling::of_mean(mean_bytes).expect("a mean above 0")
    }

    #[test]
    fn a_block_stands_for_as_many_as_are_passed_over_for_each_that_is_recorded() {
        let sampling = sampling(1 << 19);
        for (size_bytes, blocks) in [(0, 524_288.5), (63, 8_192.5), (1_023, 512.5), (524_287, 1.582)] {
            assert!((1.0 / sampling.chance(size_bytes) / blocks - 1.0).abs() < 1e-3, "{size_bytes}");
        }
        assert_eq!((sampling.bytes(1 << 40), sampling.blocks(1 << 40, 7)), (1 << 40, 1));
        assert_eq!(sampling.bytes(0), 0);
    }

    #[test]
    fn whole_blocks_are_right_on_average_in_any_row_of_numbers() {
        for (size_bytes, first) in [(524_287, 0), (400_000, 1_000_000), (2_000_000, 77)] {
            let sampling = sampling(1 << 19);
            let numbers = 10_000;
            let sum: u64 = (first..first + numbers).map(|number| u64::from(sampling.blocks(size_bytes, number))).sum();
            let expected = numbers as f64 / sampling.chance(size_bytes);
            assert!((sum as f64 - expected).abs() < 3.0, "{size_bytes}: {sum}, {expected}");
        }
    }

    #[test]
    fn what_is_sure_to_be_recorded_is_not_in_doubt() {
        assert!(sampling(1).variance(10_000).bytes < 1e-9);
        let variance = sampling(1_000).variance(9);
        assert!((variance.blocks / 9_950.1 - 1.0).abs() < 0.01, "{variance:?}");
        assert!((variance.bytes / variance.blocks - 81.0).abs() < 1e-9);
    }
}
