//! Numbers as people read them: thousands separated, bytes in B, KiB, MiB, times in the unit that fits.

/// An integer with `,` between thousands.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A size: `812 B`, `36.9 MiB`.
#[must_use]
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return exact_bytes(value);
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // 1023.95 would be rounded to 1024.0.
        if scaled < 1023.95 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    format!("{scaled:.1} {unit}")
}

/// A size to the byte: `37,798,502 B`.
#[must_use]
pub fn exact_bytes(value: u64) -> String {
    format!("{} B", count(value))
}

/// A time span: `7 ns`, `1.5 ms`, `12.3 s`, `2 h 3 min`.
#[must_use]
pub fn span(ns: u64) -> String {
    let scaled = |unit_ns: u64, unit: &str| {
        let value = ns as f64 / unit_ns as f64;
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        let text = format!("{value:.decimals$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{text} {unit}")
    };
    match ns {
        0 => "0 s".to_owned(),
        1..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        1_000_000_000..120_000_000_000 => scaled(1_000_000_000, "s"),
        120_000_000_000..7_200_000_000_000 => {
            format!("{} min {} s", ns / 60_000_000_000, ns / 1_000_000_000 % 60)
        }
        7_200_000_000_000.. => format!("{} h {} min", ns / 3_600_000_000_000, ns / 60_000_000_000 % 60),
    }
}

/// An instant of the recording to the microsecond: `+0.000123 s`.
#[must_use]
pub fn instant(ns: u64) -> String {
    format!("+{}.{:06} s", ns / 1_000_000_000, ns / 1000 % 1_000_000)
}

/// A share: `75.9 %`; `-` of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// Whole KiB, rounded up: what differs by a page must not look alike.
#[must_use]
pub fn kib(value: u64) -> String {
    format!("{} KiB", count(value.div_ceil(1024)))
}

/// A change in bytes as whole KiB with its sign; `=` if there is none.
#[must_use]
pub fn kib_change(change: i64) -> String {
    match change {
        0 => "=".to_owned(),
        1.. => format!("+{}", kib(change.unsigned_abs())),
        ..0 => format!("-{}", kib(change.unsigned_abs())),
    }
}

/// A number with the noun in the right form: `1 block`, `11 blocks`.
#[must_use]
pub fn counted(value: u64, noun: &str) -> String {
    let plural = match noun.strip_suffix("ss") {
        _ if value == 1 => noun.to_owned(),
        Some(_) => format!("{noun}es"),
        None => format!("{noun}s"),
    };
    format!("{} {plural}", count(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_from_the_right() {
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn bytes_change_unit_at_powers_of_1024_and_never_show_1024() {
        assert_eq!([0, 1023, 1024, 1536].map(bytes), ["0 B", "1,023 B", "1.0 KiB", "1.5 KiB"]);
        assert_eq!([1024 * 1024 - 1, u64::MAX].map(bytes), ["1.0 MiB", "16.0 EiB"]);
    }

    #[test]
    fn spans_take_the_unit_that_fits() {
        assert_eq!(
            [0, 999, 1_500, 20_000_000, 3_210_000, 12_345_000_000, 125_000_000_000, 8_000_000_000_000].map(span),
            ["0 s", "999 ns", "1.5 µs", "20 ms", "3.21 ms", "12.3 s", "2 min 5 s", "2 h 13 min"]
        );
    }

    #[test]
    fn an_instant_has_six_decimals_however_late() {
        assert_eq!([123_000, 61_000_002_000].map(instant), ["+0.000123 s", "+61.000002 s"]);
    }

    #[test]
    fn one_of_a_thing_is_singular() {
        assert_eq!(counted(1, "block"), "1 block");
        assert_eq!(counted(1_100, "process"), "1,100 processes");
    }
}
