//! The flags of a check, which `check` and `record` share.
//!
//! Values stay text: they mean the same wherever they are said, and are read in one place.

use std::path::PathBuf;

use clap::Args;

use super::config::Wanted;

/// What to judge by.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What fails")]
pub(in crate::cli) struct SettingArgs {
    /// Rules that fail the check: definite, cycle, possible, reachable, growth, new; or none [default: definite,cycle]
    #[arg(long, value_name = "RULES")]
    fail_on: Option<String>,
    /// Only leaks with a frame of this source, directory or module count, and are blamed on the innermost; repeatable
    #[arg(long, value_name = "PATH|MODULE")]
    own: Vec<String>,
    /// Suppressions of LeakSanitizer or valgrind; repeatable
    #[arg(long, value_name = "FILE")]
    suppressions: Vec<String>,
    /// Leaks that are known: only missing or grown ones fail
    #[arg(long, value_name = "FILE")]
    baseline: Option<String>,
    /// Write the baseline anew, so that it knows what this check found
    #[arg(long, requires = "baseline")]
    pub(in crate::cli) update_baseline: bool,
    /// Directory that sources are named relative to [default: the repository's root]
    #[arg(long, value_name = "DIR")]
    source_root: Option<String>,
    /// Judge only processes of these programs, by file name with * and ?; repeatable
    #[arg(long, value_name = "PROGRAM")]
    only: Vec<String>,
    /// Leave out processes of these programs; repeatable
    #[arg(long, value_name = "PROGRAM")]
    skip: Vec<String>,
    /// Most leaked bytes: definite, cycle and indirect (4096, 64KiB, 1.5MiB)
    #[arg(long, value_name = "SIZE")]
    max_leaked_bytes: Option<String>,
    /// Most leaked blocks
    #[arg(long, value_name = "N")]
    max_leaked_blocks: Option<String>,
    /// Most leaked bytes of one call stack
    #[arg(long, value_name = "SIZE")]
    max_leaked_bytes_per_stack: Option<String>,
    /// Most bytes alive at exit, whether something points to them or not
    #[arg(long, value_name = "SIZE")]
    max_alive_bytes: Option<String>,
    /// Most blocks alive at exit
    #[arg(long, value_name = "N")]
    max_alive_blocks: Option<String>,
    /// Largest live bytes of a process at any time
    #[arg(long, value_name = "SIZE")]
    max_peak_bytes: Option<String>,
    /// Most allocations, reallocs included
    #[arg(long, value_name = "N")]
    max_allocations: Option<String>,
    /// Largest share of temporary allocations (25%)
    #[arg(long, value_name = "PERCENT")]
    max_temporary: Option<String>,
    /// Most growth of peak, allocations and bytes alive at exit against the baseline (10%)
    #[arg(long, value_name = "PERCENT")]
    max_growth: Option<String>,
    /// Write a report: text, json, junit, sarif, annotations, summary, codequality or valgrind; repeatable, or separated
    /// by commas. A file that exists is replaced
    #[arg(long, value_name = "KIND=FILE")]
    report: Vec<String>,
    /// Read settings from this file [default: xalloc.toml, here or above up to the repository's root]
    #[arg(long, value_name = "FILE", conflicts_with = "no_config")]
    config: Option<PathBuf>,
    /// Read no file of settings
    #[arg(long)]
    no_config: bool,
}

impl SettingArgs {
    /// Which file of settings is to be read.
    pub(super) fn config(&self) -> Wanted<'_> {
        match &self.config {
            Some(path) => Wanted::This(path),
            None if self.no_config => Wanted::None,
            None => Wanted::Found,
        }
    }

    /// What was said for the setting of this name.
    pub(super) fn given(&self, name: &str) -> Vec<String> {
        let all = self.all();
        let (_, values) = all.into_iter().find(|(known, _)| *known == name).expect("every setting has a flag");
        values
    }

    /// Whether a flag asks for a check at all.
    pub(in crate::cli) fn asks(&self) -> bool {
        self.update_baseline || self.all().iter().any(|(_, values)| !values.is_empty())
    }

    fn all(&self) -> Vec<(&'static str, Vec<String>)> {
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        vec![
            ("fail-on", one(&self.fail_on)),
            ("own", self.own.clone()),
            ("suppressions", self.suppressions.clone()),
            ("baseline", one(&self.baseline)),
            ("source-root", one(&self.source_root)),
            ("only", self.only.clone()),
            ("skip", self.skip.clone()),
            ("max-leaked-bytes", one(&self.max_leaked_bytes)),
            ("max-leaked-blocks", one(&self.max_leaked_blocks)),
            ("max-leaked-bytes-per-stack", one(&self.max_leaked_bytes_per_stack)),
            ("max-alive-bytes", one(&self.max_alive_bytes)),
            ("max-alive-blocks", one(&self.max_alive_blocks)),
            ("max-peak-bytes", one(&self.max_peak_bytes)),
            ("max-allocations", one(&self.max_allocations)),
            ("max-temporary", one(&self.max_temporary)),
            ("max-growth", one(&self.max_growth)),
            ("report", self.report.clone()),
        ]
    }
}
