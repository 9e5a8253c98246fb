//! From settings to what a check judges by: values are read, files are opened.

use std::path::{Path, PathBuf};

use super::config::{in_repository, unknown};
use super::settings::{Setting, Settings};
use crate::analysis::{Named, Pattern};
use crate::check::{Baseline, Budgets, Date, OwnCode, Policy, Rule, Selection, Suppressions};
use crate::cli::{Failure, values};

/// What happens to a baseline that is not there yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MissingBaseline {
    /// It is about to be written.
    IsEmpty,
    /// It cannot be compared with.
    IsAnError,
}

/// Reads the settings.
///
/// # Errors
/// When a value is none of its kind, or a file cannot be read.
pub(super) fn policy(settings: &Settings, missing: MissingBaseline, here: &Path) -> Result<Policy, Failure> {
    let fail_on = rules(settings.get("fail-on"))?;
    let budgets = budgets(settings)?;
    let baseline = settings.get("baseline");
    for (needs, what) in
        [(fail_on.contains(&Rule::New), "--fail-on new"), (budgets.max_growth.is_some(), "--max-growth")]
    {
        if needs && baseline.one().is_none() {
            let failure = Failure::new(anyhow::anyhow!("{what} compares with a baseline, and none was named"));
            return Err(failure.hint("name one: --baseline FILE; --update-baseline writes it"));
        }
    }
    Ok(Policy {
        leaks_required: settings.says("fail-on") || budgets.is_empty(),
        fail_on,
        budgets,
        own: OwnCode::of(&paths(settings.get("own")), Some(source_root(settings, here))),
        suppressions: suppressions(settings.get("suppressions"))?,
        baseline: read_baseline(baseline, missing)?,
        today: Date::today(),
    })
}

/// Which processes are looked at.
pub(super) fn selection(settings: &Settings) -> Selection {
    let patterns = |name| settings.get(name).values.iter().map(|pattern| Pattern::whole(pattern)).collect();
    Selection { only: patterns("only"), skip: patterns("skip") }
}

fn paths(setting: &Setting) -> Vec<PathBuf> {
    setting.values.iter().map(PathBuf::from).collect()
}

fn source_root(settings: &Settings, here: &Path) -> PathBuf {
    let said = settings.get("source-root").one().map(PathBuf::from);
    said.unwrap_or_else(|| in_repository(here).last().unwrap_or(here).to_owned())
}

fn rules(setting: &Setting) -> Result<Vec<Rule>, Failure> {
    let names: Vec<_> = Rule::ALL.iter().map(|rule| rule.name()).chain(["none"]).collect();
    let mut rules = Vec::new();
    for name in setting.values.iter().filter(|name| *name != "none") {
        let rule = Rule::from_name(name)
            .ok_or_else(|| unknown("rule", name, &names).while_doing("--fail-on cannot be used"))?;
        rules.push(rule);
    }
    rules.sort_unstable();
    rules.dedup();
    Ok(rules)
}

fn budgets(settings: &Settings) -> Result<Budgets, Failure> {
    let read = |name, parse: fn(&str) -> Result<u64, String>| {
        let setting = settings.get(name);
        setting.one().map(|value| parse(value).map_err(|what| setting.wrong(what))).transpose()
    };
    Ok(Budgets {
        max_leaked_bytes: read("max-leaked-bytes", values::bytes)?,
        max_leaked_blocks: read("max-leaked-blocks", values::number)?,
        max_leaked_bytes_per_stack: read("max-leaked-bytes-per-stack", values::bytes)?,
        max_alive_bytes: read("max-alive-bytes", values::bytes)?,
        max_alive_blocks: read("max-alive-blocks", values::number)?,
        max_peak_bytes: read("max-peak-bytes", values::bytes)?,
        max_allocations: read("max-allocations", values::number)?,
        max_temporary: read("max-temporary", values::basis_points)?,
        max_growth: read("max-growth", values::basis_points)?,
    })
}

fn suppressions(setting: &Setting) -> Result<Suppressions, Failure> {
    let mut all = Suppressions::default();
    for path in &setting.values {
        let text = std::fs::read_to_string(path).map_err(|error| setting.wrong(format!("{path}: {error}")))?;
        // As it was written, not as it was found: this name goes into reports.
        let name = Path::new(path).file_name().map_or_else(|| path.clone(), |name| name.to_string_lossy().into_owned());
        all.read(&name, &text).map_err(|error| setting.wrong(error))?;
    }
    Ok(all)
}

fn read_baseline(setting: &Setting, missing: MissingBaseline) -> Result<Option<Baseline>, Failure> {
    let Some(path) = setting.one() else { return Ok(None) };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && missing == MissingBaseline::IsEmpty => {
            return Ok(Some(Baseline::default()));
        }
        Err(error) => {
            return Err(setting.wrong(format!("{path}: {error}")).hint("--update-baseline writes it"));
        }
    };
    Baseline::parse(&text).map(Some).map_err(|error| setting.wrong(format!("{path}: {error}")))
}
