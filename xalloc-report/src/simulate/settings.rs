//! The rules of a run: a release of glibc, what is tuned, how often the heap is trimmed.

use xalloc_core::heap::{Policy, Tunable, Tunables};

use super::requests::Requests;
use crate::trace::Contents;

/// Releases with a profile of their own, for help and errors.
pub const PROFILES: &[&str] = &["2.31", "2.35", "2.36", "2.37", "2.38", "2.39", "2.41", "2.42", "2.43", "2.44"];

/// The rules of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// The placement rules.
    pub policy: Policy,
    /// What is tuned.
    pub tunables: Tunables,
    /// Processors of the machine: the number of arenas is limited by them.
    pub processors: u64,
    /// Time between two calls of `malloc_trim(0)` that a thread beside the program makes.
    pub trim_every_ns: Option<u64>,
}

/// A setting that is none.
#[derive(thiserror::Error, PartialEq, Eq, Debug)]
pub enum SettingError {
    /// No setting has this name.
    #[error("`{0}` is no setting; there are {known}, glibc and trim_every", known = names().join(", "))]
    Name(String),
    /// The value is no number.
    #[error("`{value}` is no value for {name}; write {form}", form = form(name))]
    Value {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
    },
    /// glibc ignores the value.
    #[error("{name} is at most {most} in glibc, which ignores {value}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: u64,
        /// Its largest value.
        most: u64,
    },
    /// No profile has this version.
    #[error("there is no profile of glibc {0}; there are {known}", known = PROFILES.join(", "))]
    Version(String),
    /// Not of the form name=value.
    #[error("`{0}` is not of the form NAME=VALUE")]
    Form(String),
}

fn form(name: &str) -> &'static str {
    if name == "trim_every" { "seconds from 0.0001 on, such as 0.5" } else { "a number such as 131072, 128K or 4M" }
}

fn names() -> Vec<&'static str> {
    Tunable::ALL.iter().map(|tunable| tunable.name()).collect()
}

impl Settings {
    /// The rules under which a process was recorded. Of a libc without a profile the default one is assumed.
    #[must_use]
    pub fn recorded(contents: &Contents, requests: &Requests) -> Settings {
        Settings {
            policy: Policy::nearest_to(&contents.recording.libc),
            tunables: requests.tunables,
            // A trace that does not say so was made by an earlier version.
            processors: u64::from(contents.recording.processors.max(1)),
            trim_every_ns: None,
        }
    }

    /// Changes what a list of `name=value` words names.
    ///
    /// # Errors
    /// The first word that says nothing, or that there is none.
    pub fn apply(&mut self, list: &str) -> Result<(), SettingError> {
        if list.trim().is_empty() {
            return Err(SettingError::Form(list.to_owned()));
        }
        let mut named = Vec::new();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').ok_or_else(|| SettingError::Form(word.to_owned()))?;
            self.set(name.trim(), value.trim())?;
            named.push(name.trim());
        }
        // Of a release that may stand behind the value in the list.
        let tunables = Tunable::ALL.into_iter().filter(|tunable| named.contains(&tunable.name()));
        for tunable in tunables {
            let (value, most) = (self.tunables.get(tunable), tunable.most(&self.policy));
            if let (Some(value), Some(most)) = (value, most)
                && value > most
            {
                return Err(SettingError::Range { name: tunable.name(), value, most });
            }
        }
        Ok(())
    }

    /// Changes one setting.
    ///
    /// # Errors
    /// The name or the value is none.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let bad = || SettingError::Value { name: name.to_owned(), value: value.to_owned() };
        match name {
            "glibc" => {
                self.policy = Policy::for_libc(value).ok_or_else(|| SettingError::Version(value.to_owned()))?;
            }
            "trim_every" => {
                let seconds: f64 = value.trim_end_matches('s').parse().map_err(|_| bad())?;
                if !(1e-4..1e9).contains(&seconds) {
                    return Err(bad());
                }
                self.trim_every_ns = Some((seconds * 1e9) as u64);
            }
            _ => {
                let tunable = Tunable::ALL.into_iter().find(|tunable| tunable.name() == name);
                let tunable = tunable.ok_or_else(|| SettingError::Name(name.to_owned()))?;
                self.tunables.set(tunable, number(value).ok_or_else(bad)?);
            }
        }
        Ok(())
    }

    /// The lists that a sweep stands for: `name=a,b,c`, `name=a..b` by doubling, `name=a..b+step`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn sweep(text: &str) -> Result<Vec<String>, SettingError> {
        const MOST: usize = 1000;
        let (name, values) = text.split_once('=').ok_or_else(|| SettingError::Form(text.to_owned()))?;
        let Some((from, to)) = values.split_once("..") else {
            return Ok(values.split(',').map(|value| format!("{name}={}", value.trim())).collect());
        };
        let bad = || SettingError::Value { name: name.to_owned(), value: values.to_owned() };
        let (to, step) = match to.split_once('+') {
            Some((to, step)) => (to, number(step).filter(|&step| step > 0).ok_or_else(bad)?),
            None => (to, 0),
        };
        let (from, to) = (number(from).ok_or_else(bad)?, number(to).ok_or_else(bad)?);
        // What doubles from 0 goes on with 1.
        let next =
            |&value: &u64| if step > 0 { value.checked_add(step) } else { value.checked_mul(2).map(|it| it.max(1)) };
        let values = std::iter::successors(Some(from), next).take_while(|&value| value <= to);
        let lists: Vec<_> = values.take(MOST + 1).map(|value| format!("{name}={value}")).collect();
        if lists.is_empty() || lists.len() > MOST { Err(bad()) } else { Ok(lists) }
    }
}

/// A number, with K, M and G for the powers of 1024 in which malloc's thresholds are counted.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_suffix("iB").unwrap_or(text);
    let shift = match text.as_bytes().last()? {
        b'K' | b'k' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untuned() -> Settings {
        Settings { policy: Policy::default(), tunables: Tunables::NONE, processors: 2, trim_every_ns: None }
    }

    #[test]
    fn a_list_changes_what_it_names_and_nothing_else() {
        let mut settings = untuned();
        settings.apply("trim_threshold=128K, tcache_count=0,glibc=2.41,trim_every=0.5s").expect("all are settings");
        let mut expected = untuned();
        expected.tunables.trim_threshold_bytes = Some(131_072);
        expected.tunables.tcache_count = Some(0);
        expected.policy = Policy::GLIBC_2_41;
        expected.trim_every_ns = Some(500_000_000);
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name() {
        let refused = |list: &str| untuned().apply(list).expect_err(list);
        assert_eq!(refused("top_pda=1"), SettingError::Name("top_pda".to_owned()));
        assert_eq!(refused("top_pad"), SettingError::Form("top_pad".to_owned()));
        assert_eq!(refused("glibc=2.17"), SettingError::Version("2.17".to_owned()));
        assert_eq!(refused(""), SettingError::Form(String::new()));
        for value in ["many", "", "-1", "1T", "99999999999G"] {
            let seen = refused(&format!("top_pad={value}"));
            assert_eq!(seen, SettingError::Value { name: "top_pad".to_owned(), value: value.to_owned() });
        }
        assert!(refused("trim_every=0").to_string().contains("seconds"));
        let range = |name, value, most| SettingError::Range { name, value, most };
        assert_eq!(refused("mxfast=1G"), range("mxfast", 1 << 30, 160));
        assert_eq!(refused("tcache_count=65536"), range("tcache_count", 65_536, 65_535));
        assert_eq!(refused("mmap_threshold=64M,glibc=2.31"), range("mmap_threshold", 64 << 20, 32 << 20));
        for largest in ["mxfast=160", "tcache_count=65535,tcache_max=1032", "mmap_threshold=64M", "top_pad=1G"] {
            assert_eq!(untuned().apply(largest), Ok(()), "{largest}");
        }
    }

    #[test]
    fn each_profile_that_an_error_names_is_one() {
        assert!(PROFILES.iter().all(|version| Policy::for_libc(version).is_some()));
        assert_eq!(PROFILES.last().and_then(|version| Policy::for_libc(version)), Some(Policy::nearest_to("9.9")));
    }

    #[test]
    fn a_sweep_lists_doubles_or_steps() {
        let sweep = |text| Settings::sweep(text).expect(text);
        assert_eq!(sweep("top_pad=64K,1M"), ["top_pad=64K", "top_pad=1M"]);
        assert_eq!(sweep("top_pad=64K..256K"), ["top_pad=65536", "top_pad=131072", "top_pad=262144"]);
        assert_eq!(sweep("mxfast=0..3"), ["mxfast=0", "mxfast=1", "mxfast=2"]);
        assert_eq!(sweep("tcache_count=0..7+3"), ["tcache_count=0", "tcache_count=3", "tcache_count=6"]);
        assert!(Settings::sweep("top_pad=8..4").is_err() && Settings::sweep("top_pad=0..9999+1").is_err());
    }
}
