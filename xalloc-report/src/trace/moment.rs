//! When: by time, or by the number of an event.

use std::fmt;
use std::str::FromStr;

/// An end of a stretch of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The event of that number.
    Seq(u64),
    /// That time, in nanoseconds since the recording's start: a stretch begins with the first event that is not before
    /// it, and ends with the last one that is not after it.
    Time(u64),
}

/// As [`Moment::from_str`] reads it, in the largest unit that needs no fraction.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Moment::Seq(seq) => write!(f, "{seq}"),
            Moment::Time(at_ns) => {
                let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
                let whole = units.into_iter().find(|(ns, _)| at_ns % ns == 0);
                let (ns, unit) = whole.unwrap_or((1, "ns"));
                write!(f, "{}{unit}", at_ns / ns)
            }
        }
    }
}

/// Why a text is no [`Moment`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is neither a time such as 1.5s, 20ms, 300us or 7ns nor the number of an event")]
pub struct MomentError(String);

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Moment, MomentError> {
        let bad = || MomentError(text.to_owned());
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
        for (unit, ns) in units {
            // "ns" before "s": a longer unit that ends like a shorter one comes first.
            if let Some(number) = text.strip_suffix(unit) {
                let value: f64 = number.trim_end().parse().map_err(|_| bad())?;
                let inside = value.is_finite() && (0.0..=u64::MAX as f64).contains(&(value * ns));
                return if inside { Ok(Moment::Time((value * ns).round() as u64)) } else { Err(bad()) };
            }
        }
        text.parse().map(Moment::Seq).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_it_is_read() {
        for text in ["2s", "1500ms", "20ms", "300us", "7ns", "42"] {
            assert_eq!(text.parse::<Moment>().map(|moment| moment.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn times_have_units_and_bare_numbers_are_events() {
        assert_eq!("1.5s".parse(), Ok(Moment::Time(1_500_000_000)));
        assert_eq!("20ms".parse(), Ok(Moment::Time(20_000_000)));
        assert_eq!("300us".parse(), Ok(Moment::Time(300_000)));
        assert_eq!("7ns".parse(), Ok(Moment::Time(7)));
        assert_eq!("42".parse(), Ok(Moment::Seq(42)));
        for bad in ["", "s", "-1s", "1.5", "NaNs", "infs", "1h"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }
}
