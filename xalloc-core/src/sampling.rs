//! Which allocations are recorded, where only some are: a Poisson process over the bytes that a thread asks for.
//!
//! Every byte is as likely as any other to be hit, once in so many on average, and a request is recorded if one of its
//! bytes is: a request of `s` bytes with the probability `1 - exp(-(s + 1) / mean)`, whatever came before it. One byte
//! is counted beyond those asked for, so that requests for none are seen too. What the recorded requests stand for
//! follows from their sizes alone.
//!
//! # What is paid for a request that is not hit
//! A subtraction and a branch: [`Countdown::passes`]. The distance to the next hit is drawn in advance. It is
//! exponential, hence without memory: what is left of it behind a request is distributed as a new one is.
//!
//! # Temporary blocks
//! Whether a block is freed before its thread's next allocation can only be told by somebody who sees that allocation.
//! So the one behind a recorded one is stopped too ([`Step::PassesNext`]).
//!
//! # Why not every n-th request, or the request behind every n-th byte
//! A program that allocates in a rhythm would be hit in the same beat each time.

/// What a thread has of the process over its bytes.
#[derive(Debug)]
pub struct Countdown {
    /// Bytes that pass before the next one that is hit; 0 too where the next request is to be stopped anyway.
    left: u64,
    /// What `left` is behind the next request, if that is stopped because the one before it was recorded.
    kept: Option<u64>,
    /// State of the generator; 0: it has none yet.
    state: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is not recorded.
    Passes,
    /// It is not recorded, and is the first of its thread behind one that was.
    PassesNext,
    /// It is recorded.
    Hit,
}

impl Countdown {
    /// Of a thread that has asked for nothing; its first request is stopped, to draw the first distance.
    #[must_use]
    pub const fn new() -> Countdown {
        Countdown { left: 0, kept: None, state: 0 }
    }

    /// Counts a request of `bytes`. True: it passes, and that is all. False: it was counted, but is to be stopped;
    /// [`Countdown::take_back`] and [`Countdown::step`] follow.
    #[inline(always)]
    pub fn passes(&mut self, bytes: u64) -> bool {
        let (left, is_stopped) = self.left.overflowing_sub(bytes.wrapping_add(1));
        self.left = left;
        !is_stopped
    }

    /// Undoes [`Countdown::passes`].
    pub fn take_back(&mut self, bytes: u64) {
        self.left = self.left.wrapping_add(bytes.wrapping_add(1));
    }

    /// Counts a request of `bytes`, where one byte in `mean_bytes` is hit. `seed` is asked for a number of the thread's
    /// own, once.
    pub fn step(&mut self, bytes: u64, mean_bytes: u32, seed: impl FnOnce() -> u64) -> Step {
        if self.state == 0 {
            self.state = seed() | 1;
            self.left = self.draw(mean_bytes);
        }
        let kept = self.kept.take();
        if let Some(left) = kept {
            self.left = left;
        }
        if !self.passes(bytes) {
            self.kept = Some(self.draw(mean_bytes));
            self.left = 0;
            return Step::Hit;
        }
        if kept.is_some() { Step::PassesNext } else { Step::Passes }
    }

    /// A distance in bytes: exponential, of this mean, rounded down.
    fn draw(&mut self, mean_bytes: u32) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014): full period over any state, and passes the usual tests.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // In (0, 1], so that its logarithm is finite.
        let uniform = ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (-ln(uniform) * f64::from(mean_bytes)) as u64
    }
}

impl Default for Countdown {
    fn default() -> Countdown {
        Countdown::new()
    }
}

/// The natural logarithm of a normal positive number, to 10^-11: libm's is not at hand within `malloc`.
///
/// `x` is split into a power of two and `m` in [0.5, 1) scaled to [√½, √2), and `ln m = 2 artanh((m - 1) / (m + 1))`,
/// whose series converges fast there: the argument is below 0.172.
fn ln(x: f64) -> f64 {
    const EXPONENT_BIAS: i64 = 1023;
    const MANTISSA_BITS: u32 = 52;
    let bits = x.to_bits();
    let mut exponent = (bits >> MANTISSA_BITS) as i64 - EXPONENT_BIAS;
    let mut mantissa = f64::from_bits((bits & ((1 << MANTISSA_BITS) - 1)) | (EXPONENT_BIAS as u64) << MANTISSA_BITS);
    if mantissa > core::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let square = z * z;
    let (mut term, mut sum, mut odd) = (z, z, 1.0);
    for _ in 0..7 {
        term *= square;
        odd += 2.0;
        sum += term / odd;
    }
    2.0 * sum + exponent as f64 * core::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_that_of_the_standard_library() {
        let mut x = 1.0 / (1_u64 << 53) as f64;
        while x <= 1.0 {
            assert!((ln(x) - x.ln()).abs() < 1e-11, "{x}: {} {}", ln(x), x.ln());
            x *= 1.000_37;
        }
        assert_eq!(ln(1.0), 0.0);
    }

    /// Requests of `bytes` of which a share is hit: hits among `requests`, whether in each step the short way agrees.
    fn hits(countdown: &mut Countdown, bytes: u64, mean_bytes: u32, requests: u32) -> u32 {
        let mut hits = 0;
        for _ in 0..requests {
            if countdown.passes(bytes) {
                continue;
            }
            countdown.take_back(bytes);
            hits += u32::from(countdown.step(bytes, mean_bytes, || 0x5eed) == Step::Hit);
        }
        hits
    }

    #[test]
    fn a_request_is_hit_as_often_as_its_bytes_say() {
        for (bytes, mean_bytes) in [(0, 64), (15, 4096), (4095, 4096), (100_000, 4096), (1, 1), (u64::MAX - 1, 7)] {
            let mut countdown = Countdown::new();
            let requests = 200_000;
            let expected = 1.0 - (-(bytes as f64 + 1.0) / f64::from(mean_bytes)).exp();
            let seen = f64::from(hits(&mut countdown, bytes, mean_bytes, requests)) / f64::from(requests);
            let error = (expected * (1.0 - expected) / f64::from(requests)).sqrt();
            assert!((seen - expected).abs() <= 5.0 * error, "{bytes} in {mean_bytes}: {seen}, {expected}");
        }
    }

    #[test]
    fn sizes_that_take_turns_do_not_change_each_others_chance() {
        let (mut countdown, mut seen) = (Countdown::new(), [0_u32; 2]);
        let (sizes, rounds) = ([16_u64, 1000], 400_000);
        for _ in 0..rounds {
            for (bytes, seen) in sizes.iter().zip(&mut seen) {
                *seen += hits(&mut countdown, *bytes, 10_000, 1);
            }
        }
        for (bytes, seen) in sizes.iter().zip(seen) {
            let chance = 1.0 - (-(*bytes as f64 + 1.0) / 10_000.0).exp();
            let error = (chance * (1.0 - chance) * f64::from(rounds)).sqrt();
            assert!((f64::from(seen) - chance * f64::from(rounds)).abs() < 5.0 * error, "{bytes}: {seen}");
        }
    }

    #[test]
    fn the_request_behind_a_hit_is_stopped_and_the_one_behind_that_is_not() {
        let mut countdown = Countdown::new();
        assert_eq!(countdown.step(u64::MAX - 1, 1 << 20, || 1), Step::Hit);
        assert!(!countdown.passes(0));
        countdown.take_back(0);
        assert_eq!(countdown.step(0, 1 << 20, || 1), Step::PassesNext);
        assert!(countdown.passes(0));
    }

    #[test]
    fn two_threads_draw_different_distances() {
        let first_hit = |seed: u64| {
            let mut countdown = Countdown::new();
            (0..u64::MAX).find(|_| countdown.step(15, 4096, || seed) == Step::Hit)
        };
        let distances: Vec<_> = (0..8).map(|seed| first_hit(seed * 2)).collect();
        assert!(distances.windows(2).any(|pair| pair[0] != pair[1]), "{distances:?}");
    }
}
