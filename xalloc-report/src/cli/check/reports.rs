//! The reports that a check writes besides what it prints.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::config::unknown;
use super::settings::Settings;
use crate::analysis::Named;
use crate::check::Verdict;
use crate::cli::{Console, Existing, Failure};
use crate::render::text::Extent;
use crate::render::{annotations, codequality, json, junit, sarif, step_summary, text, valgrind_xml};

/// A format of the verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReportKind {
    Text,
    Json,
    Junit,
    Sarif,
    Annotations,
    Summary,
    Codequality,
    Valgrind,
}

impl Named for ReportKind {
    const ALL: &'static [ReportKind] = &[
        ReportKind::Text,
        ReportKind::Json,
        ReportKind::Junit,
        ReportKind::Sarif,
        ReportKind::Annotations,
        ReportKind::Summary,
        ReportKind::Codequality,
        ReportKind::Valgrind,
    ];

    fn name(self) -> &'static str {
        match self {
            ReportKind::Text => "text",
            ReportKind::Json => "json",
            ReportKind::Junit => "junit",
            ReportKind::Sarif => "sarif",
            ReportKind::Annotations => "annotations",
            ReportKind::Summary => "summary",
            ReportKind::Codequality => "codequality",
            ReportKind::Valgrind => "valgrind",
        }
    }
}

/// A report that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Report {
    kind: ReportKind,
    path: PathBuf,
}

impl Report {
    /// Those of the settings.
    ///
    /// # Errors
    /// When one is no report, or has no file.
    pub(super) fn all(settings: &Settings) -> Result<Vec<Report>, Failure> {
        let setting = settings.get("report");
        let kinds: Vec<_> = ReportKind::ALL.iter().map(|kind| kind.name()).collect();
        let report = |value: &String| {
            let (kind, path) = value.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or_else(|| {
                setting.wrong(format!("`{value}` names no file; write KIND=FILE, for example junit=memory.xml"))
            })?;
            let kind = ReportKind::from_name(kind).ok_or_else(|| unknown("report", kind, &kinds))?;
            Ok(Report { kind, path: PathBuf::from(path) })
        };
        setting.values.iter().map(report).collect()
    }

    /// Writes it; `-` is standard output.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, verdict: &Verdict, extent: Extent, console: &mut Console<'_>) -> Result<(), Failure> {
        if self.path == Path::new("-") {
            return Ok(self.kind.render(verdict, extent, &mut console.out)?);
        }
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            // The folder of reports is seldom in a repository. What is wrong with it, writing the file says.
            let _ = std::fs::create_dir_all(folder);
        }
        // A report is of the last check: CI runs its step again and again in one place.
        console.write_file(&self.path, Existing::Replace, |file| self.kind.render(verdict, extent, file))
    }
}

impl ReportKind {
    fn render(self, verdict: &Verdict, extent: Extent, out: &mut impl Write) -> io::Result<()> {
        match self {
            ReportKind::Text => {
                let plain = anstream::adapter::strip_str(&text::check(verdict, extent)).to_string();
                out.write_all(plain.as_bytes())
            }
            ReportKind::Json => json::write_verdict(verdict, out),
            ReportKind::Junit => junit::write(verdict, out),
            ReportKind::Sarif => sarif::write(verdict, out),
            ReportKind::Annotations => out.write_all(annotations::annotations(verdict).as_bytes()),
            ReportKind::Summary => out.write_all(step_summary::step_summary(verdict).as_bytes()),
            ReportKind::Codequality => codequality::write(verdict, out),
            ReportKind::Valgrind => valgrind_xml::write(verdict, out),
        }
    }
}

/// In a workflow of GitHub's: annotations for its runner, which reads standard error as well, and the step's summary.
///
/// # Errors
/// When they cannot be written.
pub(super) fn github(
    verdict: &Verdict,
    variable: impl Fn(&str) -> Option<String>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if variable("GITHUB_ACTIONS").as_deref() != Some("true") {
        return Ok(());
    }
    console.notes.write_all(annotations::annotations(verdict).as_bytes())?;
    let Some(path) = variable("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else { return Ok(()) };
    // The steps before may have written to it.
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    let written = opened.and_then(|mut file| file.write_all(step_summary::step_summary(verdict).as_bytes()));
    written.map_err(|error| Failure::new(error).while_doing(format!("cannot write the step's summary to {path}")))
}
