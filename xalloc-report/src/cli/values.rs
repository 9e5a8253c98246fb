//! Values on the command line: names from closed sets, sizes, lists of kinds.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, Command};

use crate::analysis::{EventKind, Named};

/// One name of a closed set; help and completions list all of them.
pub(super) fn named<T: Named + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(T::ALL.iter().map(|member| member.name()));
    // Nothing but the names above gets here.
    names.map(|name| T::from_name(&name).expect("the parser accepts only names of members"))
}

/// The command, with options that take a `-5` for their value and refuse it in their own words.
///
/// Left alone, clap takes it for an option that nobody has and suggests `-- -5`. A text or a path may begin with a dash as
/// well, but `-o --force` rather lacks its path.
pub(super) fn taking_what_begins_with_a_dash(command: Command) -> Command {
    let texts = [TypeId::of::<String>(), TypeId::of::<OsString>(), TypeId::of::<PathBuf>()];
    let option = |arg: Arg| {
        if arg.is_positional() || !arg.get_action().takes_values() {
            return arg;
        }
        let is_text = texts.iter().any(|text| arg.get_value_parser().type_id() == *text);
        if is_text { arg.allow_negative_numbers(true) } else { arg.allow_hyphen_values(true) }
    };
    command.mut_args(option).mut_subcommands(taking_what_begins_with_a_dash)
}

/// A number that is no less than 0.
pub(super) fn from_zero<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let known = text.parse().ok().and_then(|number: u64| T::try_from(number).ok());
    known.ok_or_else(|| format!("{text} is not a whole number from 0 on"))
}

/// Kinds of events, separated by commas.
pub(super) fn kinds(text: &str) -> Result<EventKinds, String> {
    EventKind::list(text).map(EventKinds).map_err(|word| {
        let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("`{word}` is no kind of event; there are {}", names.join(", "))
    })
}

/// Several kinds, as one value: a list that clap does not take apart.
#[derive(Clone, Debug)]
pub(super) struct EventKinds(pub(super) Vec<EventKind>);

/// A size in bytes: `4096`, `64KiB`, `1.5 MiB`, `2GB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let no_size = || format!("`{text}` is no size; write for example 4096, 64KiB or 1.5MiB");
    if number.is_empty() {
        return Err(no_size());
    }
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => {
            return Err(format!(
                "`{unit}` is no unit; use B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB for powers of 1000"
            ));
        }
    };
    let too_large = || format!("`{text}` is more than 64 bits count");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(too_large);
    }
    let value: f64 = number.parse().map_err(|_| no_size())?;
    let scaled = value * factor as f64;
    if 0.0 < scaled && scaled < 1.0 {
        return Err(format!("`{text}` is less than one byte"));
    }
    if scaled < u64::MAX as f64 { Ok(scaled.round() as u64) } else { Err(too_large()) }
}

/// A number of things.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is no number of things; write for example 1000"))
}

/// A share in per cent as hundredths of one: `25%`, `2.5 %`, `10`.
pub(super) fn basis_points(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no share in per cent; write for example 25% or 2.5%");
    let number = text.trim().trim_end_matches('%').trim_end();
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 2 {
        return Err(wrong());
    }
    let hundredths: u64 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    whole.checked_mul(100).and_then(|whole| whole.checked_add(hundredths)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_carry_their_unit() {
        let sizes = ["4096", "0", "64KiB", "1.5 MiB", "2GB", "16777215TiB"].map(bytes);
        let expected = [4096, 0, 65_536, 1_572_864, 2_000_000_000, 16_777_215 << 40];
        assert_eq!(sizes, expected.map(Ok));
    }

    #[test]
    fn shares_are_counted_in_hundredths_of_a_per_cent() {
        assert_eq!(["25%", "2.5 %", "10", "0.07%", "150%"].map(basis_points), [2_500, 250, 1_000, 7, 15_000].map(Ok));
        for bad in ["", "%", "-1%", "1.234%", "a%", ".5", "1.", "99999999999999999999"] {
            assert!(basis_points(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_unit_that_could_mean_two_things_is_refused() {
        for bad in ["10M", "1k", "MiB", "-1", "1e9", "16777216TiB", "1.2.3", "99999999999999999999"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
