//! A day, as suppressions expire on one: `2027-01-31`, in UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, JsonSchema)]
#[schemars(with = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

const SECONDS_A_DAY: u64 = 86_400;

impl Date {
    /// Today, by the system's clock.
    #[must_use]
    pub fn today() -> Date {
        // A clock before 1970 is none; then nothing has expired.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Date::of_day(since.as_secs() / SECONDS_A_DAY)
    }

    /// The day with this number, 1970-01-01 being 0.
    fn of_day(mut days: u64) -> Date {
        let mut year = 1970u16;
        while days >= days_in_year(year) {
            days -= days_in_year(year);
            year = year.saturating_add(1);
        }
        let mut month = 1;
        while days >= u64::from(days_in_month(year, month)) {
            days -= u64::from(days_in_month(year, month));
            month += 1;
        }
        Date { year, month, day: days as u8 + 1 }
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u16) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Date, String> {
        let wrong = || format!("`{text}` is no date; write it as 2027-01-31");
        let mut parts = text.split('-');
        let mut part = |digits: usize| parts.next().filter(|part| part.len() == digits && is_digits(part));
        let (Some(year), Some(month), Some(day)) = (part(4), part(2), part(2)) else { return Err(wrong()) };
        let (Ok(year), Ok(month), Ok(day)) = (year.parse(), month.parse(), day.parse()) else { return Err(wrong()) };
        let exists =
            parts.next().is_none() && (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        if exists { Ok(Date { year, month, day }) } else { Err(wrong()) }
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_over_leap_years() {
        for (day, shown) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_514, "2026-03-02")] {
            assert_eq!(Date::of_day(day).to_string(), shown);
        }
    }

    #[test]
    fn only_days_that_exist_are_dates() {
        assert_eq!("2028-02-29".parse::<Date>().map(|date| date.to_string()).as_deref(), Ok("2028-02-29"));
        for bad in ["2027-02-29", "2027-13-01", "2027-1-1", "27-01-01", "2027-01-00", "2027-01-01-1", "+027-01-01", ""]
        {
            assert!(bad.parse::<Date>().is_err(), "{bad}");
        }
    }
}
