//! From stamps to nanoseconds since the start of the recording.
//!
//! A program stamps its events with ticks of the time-stamp counter, whose rate nobody tells exactly. Two readings of
//! both clocks give the rate; the further apart, the better, so the line is drawn anew while the recording runs:
//! always through the latest reading and the first one. A reading is taken between two looks at the counter, and the
//! closest of a few is kept, so that an interruption by the scheduler does not bend it.

use xalloc_core::sys::clock::{monotonic_ns, ticks};
use xalloc_core::units::Stamp;

/// Which clock a process stamps with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// Ticks of the time-stamp counter.
    Ticks,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    Monotonic,
}

/// Both clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Ticks of the time-stamp counter.
    pub ticks: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub monotonic_ns: u64,
}

impl Reading {
    /// Reads both clocks: the closest of eight attempts.
    #[must_use]
    pub fn now() -> Reading {
        let attempt = |_| {
            let before = ticks().0;
            let monotonic_ns = monotonic_ns();
            let after = ticks().0;
            (after - before, Reading { ticks: before + (after - before) / 2, monotonic_ns })
        };
        let best = (0..8).map(attempt).min_by_key(|&(width, _)| width);
        best.expect("eight attempts were made").1
    }
}

/// Assumed until two readings lie far enough apart to tell: 2.5 ticks a nanosecond, as fixed-point [`Timeline::rate`].
const USUAL_RATE: u64 = FIXED * 2 / 5;
/// Fixed-point 1.0 of a rate.
const FIXED: u64 = 1 << 32;
/// Readings closer than this do not tell the rate to better than one in 10,000.
const SHORTEST_SPAN_NS: u64 = 500_000;

/// The line through two readings.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Where time 0 of the recording is.
    start: Reading,
    /// Where the line was last tied to the clocks.
    anchor: Reading,
    /// Nanoseconds a tick, 32.32 fixed point.
    rate: u64,
}

impl Timeline {
    /// A line through `start`, which becomes time 0.
    #[must_use]
    pub fn starting_at(start: Reading) -> Timeline {
        Timeline { start, anchor: start, rate: USUAL_RATE }
    }

    /// Ties the line to another reading, at best later than all before it. False if it was too close to the start to
    /// tell the rate.
    pub fn tie(&mut self, reading: Reading) -> bool {
        let span_ns = reading.monotonic_ns.saturating_sub(self.start.monotonic_ns);
        let span_ticks = reading.ticks.saturating_sub(self.start.ticks);
        if span_ns < SHORTEST_SPAN_NS || span_ticks == 0 {
            return false;
        }
        // A rate of 1 s a tick does not fit and is no clock: the reading is not believed.
        let Ok(rate) = u64::try_from(u128::from(span_ns) * u128::from(FIXED) / u128::from(span_ticks)) else {
            return false;
        };
        (self.rate, self.anchor) = (rate, reading);
        true
    }

    /// Nanoseconds from the start of the recording to `stamp`; 0 for what was before it.
    #[must_use]
    pub fn at_ns(&self, clock: Clock, stamp: Stamp) -> u64 {
        match clock {
            Clock::Monotonic => stamp.0.saturating_sub(self.start.monotonic_ns),
            Clock::Ticks => {
                let anchor_ns = self.anchor.monotonic_ns - self.start.monotonic_ns;
                if stamp.0 >= self.anchor.ticks {
                    anchor_ns.saturating_add(self.span_ns(stamp.0 - self.anchor.ticks))
                } else {
                    anchor_ns.saturating_sub(self.span_ns(self.anchor.ticks - stamp.0))
                }
            }
        }
    }

    fn span_ns(&self, ticks: u64) -> u64 {
        u64::try_from((u128::from(ticks) * u128::from(self.rate)) >> 32).unwrap_or(u64::MAX)
    }

    /// The same in microseconds, for millions of stamps that lie near each other.
    #[must_use]
    pub fn microseconds(&self, clock: Clock) -> Microseconds {
        let (anchor, anchor_ns, rate) = match clock {
            Clock::Monotonic => (self.start.monotonic_ns, 0, FIXED),
            Clock::Ticks => (self.anchor.ticks, self.anchor.monotonic_ns - self.start.monotonic_ns, self.rate),
        };
        // A microsecond a tick or more does not fit, and is no clock's rate.
        let rate = u64::try_from((u128::from(rate) << 32) / 1000).unwrap_or(u64::MAX);
        // The anchor is the start of its microsecond, that of the recording at the earliest: nothing is recorded before.
        let back = u64::try_from((u128::from(anchor_ns % 1000) << 32) / u128::from(self.rate.max(1))).unwrap_or(0);
        Microseconds { anchor: anchor.saturating_sub(back), anchor_us: anchor_ns / 1000, rate }
    }
}

/// The line of one clock in microseconds: a multiplication a stamp.
#[derive(Clone, Copy, Debug)]
pub struct Microseconds {
    anchor: u64,
    anchor_us: u64,
    /// Microseconds a unit of the stamp, as a fraction of 2^64.
    rate: u64,
}

impl Microseconds {
    /// Microseconds from the start of the recording to `stamp`, rounded towards the anchor; 0 for what was before it.
    #[must_use]
    #[inline]
    pub fn at(self, stamp: Stamp) -> u64 {
        if stamp.0 >= self.anchor {
            self.anchor_us.saturating_add(self.span(stamp.0 - self.anchor))
        } else {
            self.anchor_us.saturating_sub(self.span(self.anchor - stamp.0))
        }
    }

    #[inline]
    fn span(self, units: u64) -> u64 {
        ((u128::from(units) * u128::from(self.rate)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(ticks: u64, monotonic_ns: u64) -> Reading {
        Reading { ticks, monotonic_ns }
    }

    #[test]
    fn stamps_between_and_beyond_two_readings_lie_on_their_line() {
        let mut line = Timeline::starting_at(reading(1_000_000, 5_000_000));
        assert!(line.tie(reading(4_000_000, 6_000_000)));
        assert_eq!(line.at_ns(Clock::Ticks, Stamp(4_000_000)), 1_000_000);
        assert!(line.at_ns(Clock::Ticks, Stamp(1_000_000)) <= 1);
        assert!(line.at_ns(Clock::Ticks, Stamp(2_500_000)).abs_diff(500_000) <= 1);
        assert!(line.at_ns(Clock::Ticks, Stamp(7_000_000)).abs_diff(2_000_000) <= 1);
        assert_eq!(line.at_ns(Clock::Monotonic, Stamp(5_000_123)), 123);
    }

    #[test]
    fn what_was_before_the_start_and_what_is_absurdly_late_do_not_overflow() {
        let mut line = Timeline::starting_at(reading(1_000_000, 5_000_000));
        assert!(line.tie(reading(4_000_000, 6_000_000)));
        assert_eq!(line.at_ns(Clock::Ticks, Stamp(0)), 0);
        assert_eq!(line.at_ns(Clock::Monotonic, Stamp(0)), 0);
        assert!(line.at_ns(Clock::Ticks, Stamp(u64::MAX)) > 1 << 60);
    }

    #[test]
    fn a_reading_too_close_to_the_first_does_not_change_the_rate() {
        let mut line = Timeline::starting_at(reading(0, 0));
        assert!(!line.tie(reading(1, 1)));
        assert_eq!(line.rate, USUAL_RATE);
    }

    #[test]
    fn microseconds_are_nanoseconds_cut_short_by_one_at_most() {
        let mut line = Timeline::starting_at(Reading { ticks: 1_000_000, monotonic_ns: 77 });
        assert!(line.tie(Reading { ticks: 6_000_000_000, monotonic_ns: 2_000_000_777 }));
        for clock in [Clock::Ticks, Clock::Monotonic] {
            let microseconds = line.microseconds(clock);
            for stamp in [0, 77, 1_000_000, 1_000_001, 3_123_456_789, 5_999_999_999, 6_000_000_000, 90_000_000_000] {
                let (us, ns) = (microseconds.at(Stamp(stamp)), line.at_ns(clock, Stamp(stamp)));
                assert!(us.abs_diff(ns / 1000) <= 1, "{clock:?} {stamp}: {us} {ns}");
            }
        }
    }

    #[test]
    fn readings_of_the_real_clocks_put_now_where_monotonic_time_says() {
        let mut line = Timeline::starting_at(Reading::now());
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(line.tie(Reading::now()));
        let now = Reading::now();
        let by_ticks = line.at_ns(Clock::Ticks, Stamp(now.ticks));
        let by_monotonic = line.at_ns(Clock::Monotonic, Stamp(now.monotonic_ns));
        assert!(by_ticks.abs_diff(by_monotonic) < 1_000_000, "{by_ticks} {by_monotonic}");
    }
}
