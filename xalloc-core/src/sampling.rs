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
//!
//! # Why not floating-point numbers
//! A program may have asked for a signal when a result is not exact (`feenableexcept`), or look later for the flag that
//! such a result leaves: neither is to come from `malloc`.

/// Largest mean distance of recorded bytes: beyond it even large programs have too few of them.
pub const MOST_MEAN_BYTES: u32 = 1 << 30;

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
        // This takes `bytes + 1` away, which may be more than 64 bits hold; the sum carries unless that is too much.
        let (left, passes) = self.left.overflowing_add(!bytes);
        self.left = left;
        passes
    }

    /// Undoes [`Countdown::passes`].
    pub fn take_back(&mut self, bytes: u64) {
        self.left = self.left.wrapping_sub(!bytes);
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
        let distance = u128::from(halvings(bits)) * u128::from(LN_2) * u128::from(mean_bytes);
        (distance >> 64) as u64
    }
}

impl Default for Countdown {
    fn default() -> Countdown {
        Countdown::new()
    }
}

/// The natural logarithm of 2, in units of 2^-32.
const LN_2: u64 = 2_977_044_472;

/// How often 1 is to be halved to come to `bits / 2^64`, in units of 2^-32; 0 counts as the next larger number.
///
/// That is minus a logarithm to the base 2. Its whole part is where the highest bit stands; a number between 1 and 2 has
/// twice the logarithm when it is squared, which so yields one binary digit of it after the other.
fn halvings(bits: u64) -> u64 {
    const DIGITS: u32 = 32;
    let bits = bits.max(1);
    let zeros = bits.leading_zeros();
    let mut number = bits << zeros;
    let mut digits = 0_u64;
    for _ in 0..DIGITS {
        let square = u128::from(number) * u128::from(number);
        let digit = (square >> 127) as u64;
        number = (square >> (63 + digit)) as u64;
        digits = digits << 1 | digit;
    }
    ((u64::from(zeros) + 1) << DIGITS) - digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_halved_as_often_as_its_logarithm_says() {
        let unit = (1_u64 << 32) as f64;
        let mut bits = 1_u64;
        while bits < u64::MAX / 1001 * 1000 {
            let expected = 64.0 - (bits as f64).log2();
            assert!((halvings(bits) as f64 / unit - expected).abs() < 1e-9, "{bits}: {}, {expected}", halvings(bits));
            bits += bits / 1000 + 1;
        }
        assert_eq!([0, 1, 1 << 63, u64::MAX].map(halvings), [64 << 32, 64 << 32, 1 << 32, 1]);
        assert_eq!(LN_2, (core::f64::consts::LN_2 * unit).round() as u64);
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
        for (bytes, mean_bytes) in
            [(0, 64), (15, 4096), (4095, 4096), (100_000, 4096), (1, 1), (u64::MAX - 1, 7), (u64::MAX, 7)]
        {
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
