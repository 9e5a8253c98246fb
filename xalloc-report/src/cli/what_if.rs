//! `what-if`: the recorded requests under other rules.

use clap::{Args, ValueEnum};

use super::args::{Format, FormatArgs, TraceArgs};
use super::opened::{every_block_for, gaps};
use super::{Console, Exit, Failure};
use crate::analysis::{Sites, WhatIf as Answer};
use crate::model::Recorded;
use crate::os::server::Answer as Served;
use crate::render::number::counted;
use crate::render::{json, text};
use crate::simulate::{
    ALLOCATORS, Allocator as Named, Fix, GatherError, Requests, Run, ServeError, SettingError, Settings, Touch, gather,
    run_all, serve,
};
use crate::trace::{Allocator, Contents, ProcessIndex};

/// Frames shown of the event at which heaps part.
const FRAMES: usize = 8;

#[derive(Args, Debug)]
pub struct WhatIf {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// Settings of one run: mmap_threshold, trim_threshold, top_pad, mmap_max, arena_max, arena_test, tcache_count,
    /// tcache_max, tcache_unsorted_limit, mxfast, hugetlb, glibc, trim_every; sizes in bytes or as 128K, 4M
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
    /// A run as if SITE never allocated; SITE is a function, with `*` for any letters, or a site's id from any report
    #[arg(long, value_name = "SITE")]
    without: Vec<String>,
    /// A run in which SITE's blocks come from a pool of their own: slabs of 64 KiB, no headers, one list for each size
    #[arg(long, value_name = "SITE")]
    pool: Vec<String>,
    /// A run in which blocks that SITE makes or reallocs begin with their largest size
    #[arg(long, value_name = "SITE")]
    reserve: Vec<String>,
    /// Serve the requests for real by each of these: jemalloc, mimalloc, tcmalloc, glibc, glibc:NAME=VALUE:…
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    allocator: Vec<String>,
    /// What a real run writes to of each block
    #[arg(long, value_enum, default_value_t = Touched::Recorded)]
    touch: Touched,
    #[command(flatten)]
    format: FormatArgs,
}

/// What a real run writes to of each block.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Touched {
    /// As many pages as were resident when the recorder looked; every page of blocks that it did not meet
    Recorded,
    /// A byte of every page
    All,
    /// Its first byte
    First,
    /// Nothing
    Nothing,
}

impl From<Touched> for Touch {
    fn from(touched: Touched) -> Touch {
        match touched {
            Touched::Recorded => Touch::Told,
            Touched::All => Touch::All,
            Touched::First => Touch::First,
            Touched::Nothing => Touch::Nothing,
        }
    }
}

impl WhatIf {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        every_block_for("what-if", trace.contents())?;
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
        let fixed = self.fixed(contents, &requests)?;
        for (name, requests) in &fixed {
            runs.push(Run { name: name.clone(), requests, settings: recorded, compares: false });
        }
        let outcomes = run_all(&runs);
        let served = self.served(&requests)?;
        let answer = Answer::of(trace, process, &requests, &recorded, &outcomes, &served)
            .map_err(|error| self.trace.unreadable(error))?;
        self.trace.note_choice(contents, answer.pid, console)?;
        match self.format.format {
            Format::Human => console.out.write_all(text::what_if(&answer, FRAMES).as_bytes())?,
            Format::Json => json::write(&answer, &gaps(trace.contents()), &mut console.out)?,
        }
        Ok(Exit::Success)
    }

    /// What each allocator that is asked for made of the requests.
    fn served(&self, requests: &Requests) -> Result<Vec<(String, Served)>, Failure> {
        let one = |name: &String| {
            let allocator = Named::named(name).ok_or_else(|| {
                Failure::new(anyhow::anyhow!("`{name}` is no allocator")).hint(format!("there are {ALLOCATORS}"))
            })?;
            let served = serve(requests, &allocator, self.touch.into()).map_err(|error| {
                let hint = match &error {
                    ServeError::Missing { package, .. } => Some(format!("install it: apt install {package}")),
                    ServeError::Start(_) | ServeError::NoAnswer { .. } => None,
                };
                let failure = Failure::new(error).while_doing(format!("cannot serve the requests by {name}"));
                if let Some(hint) = hint { failure.hint(hint) } else { failure }
            })?;
            Ok((name.clone(), served))
        };
        self.allocator.iter().map(one).collect()
    }

    /// The requests after each fix that is asked for, with its name.
    fn fixed(&self, contents: &Contents, requests: &Requests) -> Result<Vec<(String, Requests)>, Failure> {
        let fixes = [
            ("without", Fix::Without, &self.without),
            ("pool", Fix::Pool, &self.pool),
            ("reserve", Fix::Reserve, &self.reserve),
        ];
        let mut fixed = Vec::new();
        for (name, fix, words) in fixes {
            for word in words {
                let sites = Sites::named(contents, requests, word);
                if sites.stacks == 0 {
                    let error = anyhow::anyhow!("no allocation of the process comes from `{word}`");
                    return Err(Failure::new(error).hint("`xalloc-report top TRACE` lists functions and ids of sites"));
                }
                let calls = counted(sites.allocations, "call");
                fixed.push((format!("{name} {word} ({calls})"), fix.apply(requests, |stack| sites.contains(stack))));
            }
        }
        Ok(fixed)
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
