//! `xalloc.toml`: where it is found and what it may say.
//!
//! The file is looked for in the current directory and above it, up to the root of the repository. What it says and
//! nobody knows is an error that names the nearest thing that there is: a budget with a mistyped name would otherwise
//! be kept for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::reports::ReportKind;
use super::settings::{KEYS, Key, Kind};
use crate::analysis::Named;
use crate::cli::Failure;
use crate::render::escape::printable;

/// File name.
const NAME: &str = "xalloc.toml";

/// Which file is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// The one that is found.
    Found,
    /// This one.
    This(&'a Path),
    /// None.
    None,
}

/// A file of settings.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Config {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or says what there is not.
    pub(super) fn find(wanted: Wanted<'_>, here: &Path) -> Result<Option<Config>, Failure> {
        let path = match wanted {
            Wanted::None => None,
            Wanted::This(path) => Some(here.join(path)),
            Wanted::Found => in_repository(here).map(|folder| folder.join(NAME)).find(|path| path.is_file()),
        };
        let Some(path) = path else { return Ok(None) };
        let reading = format!("cannot read {}", printable(&path.to_string_lossy()));
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::new(error).while_doing(reading.clone()))?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            // Its own text draws the line over several; one is what an error here has.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            Failure::new(anyhow::anyhow!("line {line}: {}", error.message())).while_doing(reading.clone())
        })?;
        let values = read(&table).map_err(|failure| failure.while_doing(reading))?;
        Ok(Some(Config { path, values }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn values(&self, key: Key) -> Option<&[String]> {
        self.values.get(key.name).map(Vec::as_slice)
    }
}

/// The folder and those above it, up to the root of a repository; without one, the folder alone.
pub(super) fn in_repository(here: &Path) -> impl Iterator<Item = &Path> {
    let root = here.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(here);
    here.ancestors().take_while(move |folder| folder.starts_with(root))
}

fn read(table: &Table) -> Result<BTreeMap<&'static str, Vec<String>>, Failure> {
    let mut values = BTreeMap::new();
    let tables: Vec<_> = KEYS.iter().map(|key| key.table).collect();
    for (name, content) in table {
        if !tables.contains(&name.as_str()) {
            return Err(unknown("table", name, &tables));
        }
        let Value::Table(content) = content else {
            return Err(Failure::new(anyhow::anyhow!("`{name}` is no table; write [{name}]")));
        };
        for (key, value) in content {
            let said = texts(value).ok_or_else(|| {
                let shape = if name == "reports" { "a path" } else { "a text, a number or a list of texts" };
                Failure::new(anyhow::anyhow!("[{name}] {key} is not {shape}"))
            })?;
            match KEYS.iter().find(|known| known.table == name) {
                Some(reports) if reports.kind == Kind::Reports => {
                    let kinds: Vec<_> = ReportKind::ALL.iter().map(|kind| kind.name()).collect();
                    if !kinds.contains(&key.as_str()) {
                        return Err(unknown("report", key, &kinds));
                    }
                    let paths = said.iter().map(|path| format!("{key}={path}"));
                    values.entry(reports.name).or_insert_with(Vec::new).extend(paths);
                }
                Some(_) | None => {
                    let keys: Vec<_> =
                        KEYS.iter().filter(|known| known.table == name).map(|known| known.name).collect();
                    let known = keys.iter().find(|known| *known == key).ok_or_else(|| unknown("key", key, &keys))?;
                    values.insert(*known, said);
                }
            }
        }
    }
    Ok(values)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) if *number >= 0 => Some(vec![number.to_string()]),
        Value::Array(list) => list.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

/// A name that there is not, with the nearest that there is.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let nearest =
        known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name)).copied().unwrap_or_default();
    let mut all = known.to_vec();
    all.dedup();
    let failure = Failure::new(anyhow::anyhow!("there is no {what} `{}`; the nearest is `{nearest}`", printable(name)));
    failure.hint(format!("there are {}", all.join(", ")))
}
