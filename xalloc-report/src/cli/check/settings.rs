//! The settings of a check, from wherever they come: flags over `XALLOC_` variables over `xalloc.toml` over defaults.
//!
//! [`KEYS`] is the list of them. Each has one name: `max-peak-bytes` is the flag `--max-peak-bytes`, the variable
//! `XALLOC_MAX_PEAK_BYTES` and the key `max-peak-bytes` of the table `[budgets]`. A value is text until it is used, and
//! keeps where it came from, so that an error and `--print-config` can say it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::config::Config;
use super::flags::SettingArgs;
use crate::cli::Failure;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The table of `xalloc.toml` that it stands in.
    pub(super) table: &'static str,
    pub(super) kind: Kind,
    /// What holds without a word; several are separated by commas.
    default: &'static str,
}

/// What the values of a setting are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// One value.
    One,
    /// Any number of values.
    List,
    /// One path, relative to where it is said.
    Path,
    /// Any number of them.
    Paths,
    /// Reports: `KIND=FILE`.
    Reports,
}

const fn key(table: &'static str, name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, table, kind, default }
}

/// All settings, in the order in which `--print-config` shows them.
pub(super) const KEYS: &[Key] = &[
    key("check", "fail-on", Kind::List, "definite,cycle"),
    key("check", "own", Kind::Paths, ""),
    key("check", "suppressions", Kind::Paths, ""),
    key("check", "baseline", Kind::Path, ""),
    key("check", "source-root", Kind::Path, ""),
    key("check", "only", Kind::List, ""),
    key("check", "skip", Kind::List, ""),
    key("budgets", "max-leaked-bytes", Kind::One, ""),
    key("budgets", "max-leaked-blocks", Kind::One, ""),
    key("budgets", "max-leaked-bytes-per-stack", Kind::One, ""),
    key("budgets", "max-alive-bytes", Kind::One, ""),
    key("budgets", "max-alive-blocks", Kind::One, ""),
    key("budgets", "max-peak-bytes", Kind::One, ""),
    key("budgets", "max-allocations", Kind::One, ""),
    key("budgets", "max-temporary", Kind::One, ""),
    key("budgets", "max-growth", Kind::One, ""),
    key("reports", "report", Kind::Reports, ""),
];

/// Where a value was said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Flag,
    Variable(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Variable(name) => f.write_str(name),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A setting with its values.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) key: Key,
    pub(super) values: Vec<String>,
    pub(super) origin: Origin,
}

/// Every setting.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    all: Vec<Setting>,
}

impl Settings {
    /// Gathers them.
    ///
    /// # Errors
    /// When the file of settings cannot be read or says what there is not.
    pub(super) fn gather(
        flags: &SettingArgs,
        variable: impl Fn(&str) -> Option<String>,
        here: &Path,
    ) -> Result<Settings, Failure> {
        let config = Config::find(flags.config(), here)?;
        let all = KEYS.iter().map(|&key| {
            let given = flags.given(key.name);
            if !given.is_empty() {
                return Setting { key, values: key.values(&given, here), origin: Origin::Flag };
            }
            let name = format!("XALLOC_{}", key.name.to_uppercase().replace('-', "_"));
            if let Some(value) = variable(&name).filter(|value| !value.is_empty()) {
                return Setting { key, values: key.values(&[value], here), origin: Origin::Variable(name) };
            }
            if let Some((values, path)) = config.as_ref().and_then(|config| Some((config.values(key)?, config.path())))
            {
                let base = path.parent().unwrap_or(here);
                return Setting { key, values: key.values(values, base), origin: Origin::File(path.to_owned()) };
            }
            Setting { key, values: key.values(&[key.default.to_owned()], here), origin: Origin::Default }
        });
        Ok(Settings { all: all.collect() })
    }

    /// A setting by its name, which is one of [`KEYS`].
    pub(super) fn get(&self, name: &str) -> &Setting {
        self.all.iter().find(|setting| setting.key.name == name).expect("the name is one of KEYS")
    }

    /// Whether somebody said something, anywhere but in the defaults.
    pub(super) fn says(&self, name: &str) -> bool {
        self.get(name).origin != Origin::Default
    }

    /// The settings as a file that means the same, each with where it came from.
    pub(super) fn shown(&self) -> String {
        let mut out = String::new();
        let mut table = "";
        for setting in &self.all {
            if setting.key.table != table {
                table = setting.key.table;
                out += &format!("{}[{table}]\n", if out.is_empty() { "" } else { "\n" });
            }
            for line in setting.lines() {
                out += &format!("{line:<44} # {}\n", setting.origin);
            }
        }
        out
    }
}

impl Key {
    /// The single values in what was said; paths are relative to `base`.
    fn values(self, said: &[String], base: &Path) -> Vec<String> {
        let split = |text: &String| text.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>();
        let absolute = |path: &str| base.join(path).to_string_lossy().into_owned();
        let values: Vec<String> = match self.kind {
            Kind::One | Kind::Path => said.to_vec(),
            Kind::List | Kind::Paths | Kind::Reports => said.iter().flat_map(split).collect(),
        };
        let values = values.into_iter().filter(|value| !value.is_empty());
        match self.kind {
            Kind::One | Kind::List => values.collect(),
            Kind::Path | Kind::Paths => values.map(|value| absolute(&value)).collect(),
            Kind::Reports => values
                .map(|value| match value.split_once('=') {
                    Some((kind, path)) if path != "-" => format!("{kind}={}", absolute(path)),
                    _ => value,
                })
                .collect(),
        }
    }
}

impl Setting {
    /// The value of a setting that has one.
    pub(super) fn one(&self) -> Option<&str> {
        self.values.last().map(String::as_str)
    }

    /// Something is wrong with it.
    pub(super) fn wrong(&self, what: impl fmt::Display) -> Failure {
        let name = self.key.name;
        let value =
            self.one().filter(|_| self.key.kind == Kind::One).map(|value| format!(" {value}")).unwrap_or_default();
        let place = match &self.origin {
            Origin::Flag | Origin::Default => format!("--{name}"),
            Origin::Variable(variable) => variable.clone(),
            Origin::File(path) => format!("{name} in {}", path.display()),
        };
        Failure::new(anyhow::anyhow!("{what}")).while_doing(format!("{place}{value} cannot be used"))
    }

    fn lines(&self) -> Vec<String> {
        let quoted = |value: &String| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        let name = self.key.name;
        match (self.key.kind, &self.values[..]) {
            (Kind::Reports, []) => vec!["# no reports".to_owned()],
            (Kind::Reports, values) => {
                let pairs = values.iter().filter_map(|value| value.split_once('='));
                pairs.map(|(kind, path)| format!("{kind} = {}", quoted(&path.to_owned()))).collect()
            }
            (Kind::One | Kind::Path, []) => vec![format!("# {name} is not set")],
            (Kind::One | Kind::Path, [.., value]) => vec![format!("{name} = {}", quoted(value))],
            (Kind::List | Kind::Paths, values) => {
                vec![format!("{name} = [{}]", values.iter().map(quoted).collect::<Vec<_>>().join(", "))]
            }
        }
    }
}
