//! `what-if`: the recorded requests under other rules.

use clap::Args;

use super::args::{Format, FormatArgs, TraceArgs};
use super::{Console, Exit, Failure};
use crate::analysis::WhatIf as Answer;
use crate::model::Recorded;
use crate::render::{json, text};
use crate::simulate::{GatherError, Run, SettingError, Settings, gather, run_all};
use crate::trace::{Allocator, ProcessIndex};

/// Frames shown of the event at which heaps part.
const FRAMES: usize = 8;

#[derive(Args, Debug)]
pub struct WhatIf {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// Settings of one run: mmap_threshold, trim_threshold, top_pad, mmap_max, arena_max, arena_test, tcache_count,
    /// tcache_max, tcache_unsorted_limit, mxfast, glibc, trim_every; sizes in bytes or as 128K, 4M
    #[arg(long, value_name = "NAME=VALUE,…")]
    set: Vec<String>,
    /// A run for each value: `a,b,c`, `a..b` by doubling, `a..b+step`
    #[arg(long, value_name = "NAME=VALUES")]
    sweep: Vec<String>,
    /// A run under the rules of each of these releases: 2.31, 2.35, 2.36, 2.39, 2.41, 2.43 …
    #[arg(long, value_name = "VERSION,…", value_delimiter = ',')]
    glibc: Vec<String>,
    /// A run in which `malloc_trim` is called every so many seconds
    #[arg(long, value_name = "SECONDS")]
    trim_every: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
}

impl WhatIf {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let process = self.process(trace)?;
        let requests = gather(trace, process).map_err(|error| self.not_gathered(error))?;
        let contents = trace.contents();
        let recorded = Settings::recorded(contents, &requests);
        let is_core = contents.processes.get(process.0 as usize).is_some_and(|it| it.allocator == Allocator::Core);
        let baseline = Run { name: "baseline".to_owned(), requests: &requests, settings: recorded, compares: is_core };
        let mut runs = vec![baseline];
        for (name, settings) in self.variants(&recorded)? {
            runs.push(Run { name, requests: &requests, settings, compares: false });
        }
        let outcomes = run_all(&runs);
        let answer = Answer::of(trace, process, &requests, &recorded, &outcomes)
            .map_err(|error| self.trace.unreadable(error))?;
        match self.format.format {
            Format::Human => console.out.write_all(text::what_if(&answer, FRAMES).as_bytes())?,
            Format::Json => json::write(&answer, &mut console.out)?,
        }
        Ok(Exit::Success)
    }

    /// The settings of each run that is asked for, with its name.
    fn variants(&self, recorded: &Settings) -> Result<Vec<(String, Settings)>, Failure> {
        let bad = |error: SettingError| {
            Failure::new(error).hint("for example: --set trim_threshold=64K,top_pad=0 --sweep mmap_threshold=64K..4M")
        };
        let mut lists = self.set.clone();
        for sweep in &self.sweep {
            lists.extend(Settings::sweep(sweep).map_err(bad)?);
        }
        lists.extend(self.glibc.iter().map(|version| format!("glibc={version}")));
        lists.extend(self.trim_every.iter().map(|seconds| format!("trim_every={seconds}")));
        let variant = |list: String| {
            let mut settings = *recorded;
            settings.apply(&list).map(|()| (list, settings)).map_err(bad)
        };
        lists.into_iter().map(variant).collect()
    }

    /// The process that is asked for, or else the one that did most, of those whose heap began empty.
    fn process<R: Recorded>(&self, trace: &R) -> Result<ProcessIndex, Failure> {
        let contents = trace.contents();
        let selected = self.trace.processes(contents)?;
        let of = |index: &ProcessIndex| contents.processes.get(index.0 as usize);
        let began_empty = |index: &&ProcessIndex| of(index).is_some_and(|process| !process.forked);
        let candidates = selected.iter().filter(began_empty).chain(&selected);
        let most = |index: &&ProcessIndex| {
            let process = of(index);
            (process.is_some_and(|process| !process.forked), process.map_or(0, |process| process.events))
        };
        candidates.max_by_key(most).copied().ok_or_else(|| {
            Failure::new(anyhow::anyhow!("the trace has no process"))
                .hint("nothing said hello while it was recorded: see `xalloc-report doctor COMMAND`")
        })
    }

    fn not_gathered<E: std::error::Error + Send + Sync + 'static>(&self, error: GatherError<E>) -> Failure {
        match error {
            GatherError::Unreadable(error) => self.trace.unreadable(error),
            error @ GatherError::Forked { .. } => {
                Failure::new(error).hint("choose its parent, or a process that was started by exec, with --process")
            }
            error @ GatherError::TooManyThreads => Failure::new(error),
        }
    }
}
