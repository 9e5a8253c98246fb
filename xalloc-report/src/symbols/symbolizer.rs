//! All modules of a recording at once: workers take modules off a list, largest demand first. Modules that were opened
//! while the program ran ([`Early`]) are asked for the rest.
//!
//! # Invariant
//! A module that fails takes only itself along. What cannot be read is an answer with a reason; should a parser panic in
//! spite of all checks, the panic ends at the module's boundary and becomes such a reason as well.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::early::{Early, STACK_BYTES};
use super::remember::{self, resolve};
use super::resolve::Answer;
use super::{Detail, Frame, Missing, Module, ModuleIndex, Places};

/// Addresses of one module whose names are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The module.
    pub module: ModuleIndex,
    /// ELF virtual addresses, in any order and with repetitions. For a return address: of the byte before it, so that
    /// it is the call that is named and not what follows.
    pub addresses: Vec<u64>,
}

/// What is known about the addresses of one [`Wanted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// For each address, in the order asked: its functions, innermost inlined one first, the last one not inlined.
    /// Empty when nothing is known; such a frame is shown as module and offset.
    pub frames: Vec<Vec<Frame>>,
    /// For each address, in the order asked: the linker's name of the function that the instruction whose last byte is
    /// there calls. `None` if it is no call, or one that does not state its target.
    pub callees: Vec<Option<String>>,
    /// How much the module's files tell.
    pub detail: Detail,
    /// What they do not tell, and why; to be printed once a module.
    pub missing: Vec<Missing>,
}

/// Resolves addresses of a list of modules.
#[derive(Debug, Clone)]
pub struct Symbolizer {
    modules: Vec<Module>,
    places: Places,
}

impl Symbolizer {
    /// A symbolizer of `modules` that looks for debug information in `places`.
    pub fn new(modules: Vec<Module>, places: Places) -> Self {
        Symbolizer { modules, places }
    }

    /// Names the wanted addresses; the answers are in the order of the questions.
    ///
    /// Modules are opened for the time of the call and closed as soon as they are done. A module index outside of the
    /// list has no names and no reason.
    pub fn resolve(&self, wanted: &[Wanted]) -> Vec<Resolved> {
        self.resolve_after(Early::new(self.places.clone()), wanted)
    }

    /// As [`Symbolizer::resolve`], with what was found while the program ran.
    pub fn resolve_after(&self, mut early: Early, wanted: &[Wanted]) -> Vec<Resolved> {
        let mut distinct: BTreeMap<ModuleIndex, Vec<u64>> = BTreeMap::new();
        for question in wanted {
            distinct.entry(question.module).or_default().extend(&question.addresses);
        }
        let mut jobs: Vec<Job<'_>> = distinct
            .into_iter()
            .filter_map(|(index, mut addresses)| {
                addresses.sort_unstable();
                addresses.dedup();
                let addresses = early.ask_rest(index, addresses)?;
                Some(Job { index, module: self.modules.get(index.0)?, addresses })
            })
            .collect();
        early.hurry();
        // The longest job decides when the last worker is done, so it must not be the last to start.
        jobs.sort_by_key(|job| std::cmp::Reverse(job.addresses.len()));
        let mut answers = self.work(&jobs);
        let mut addresses: BTreeMap<_, _> = jobs.into_iter().map(|job| (job.index, job.addresses)).collect();
        for (index, asked, answer) in early.finish() {
            addresses.insert(index, asked);
            answers.insert(index, answer);
        }
        if let Some(directory) = &self.places.answers
            && answers.values().any(|answer| answer.is_written)
        {
            remember::tidy(directory);
        }
        wanted.iter().map(|question| pick(question, &addresses, &answers)).collect()
    }

    fn work(&self, jobs: &[Job<'_>]) -> BTreeMap<ModuleIndex, Answer> {
        if jobs.is_empty() {
            return BTreeMap::new();
        }
        let next = AtomicUsize::new(0);
        let answers = Mutex::new(BTreeMap::new());
        let worker = || {
            // Relaxed: the counter only deals out numbers; the jobs were there before the threads.
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = job.run(&self.places);
                // The map is whole even if another worker died with the lock: `insert` does not panic half-way.
                answers.lock().unwrap_or_else(PoisonError::into_inner).insert(job.index, answer);
            }
        };
        let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
        thread::scope(|scope| {
            let started = (0..workers)
                .filter(|_| thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, worker).is_ok())
                .count();
            if started == 0 {
                // A system out of threads still names its functions, one module after the other.
                worker();
            }
        });
        answers.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The distinct addresses of one module.
struct Job<'a> {
    index: ModuleIndex,
    module: &'a Module,
    /// Ascending, no address twice.
    addresses: Vec<u64>,
}

impl Job<'_> {
    fn run(&self, places: &Places) -> Answer {
        let batch = std::iter::once(self.addresses.clone());
        let resolved = catch_unwind(AssertUnwindSafe(|| resolve(self.module, places, batch)));
        resolved.unwrap_or_else(|_| reader_failed(self.module, self.addresses.len()))
    }
}

/// The answer where a panic ended a module's reader.
pub(super) fn reader_failed(module: &Module, addresses: usize) -> Answer {
    Answer {
        missing: vec![Missing::Malformed {
            path: module.path.clone(),
            reason: "its reader failed; please report this with the file".to_owned(),
        }],
        ..Answer::nothing(addresses)
    }
}

fn pick(
    question: &Wanted,
    addresses: &BTreeMap<ModuleIndex, Vec<u64>>,
    answers: &BTreeMap<ModuleIndex, Answer>,
) -> Resolved {
    let Some((addresses, answer)) = addresses.get(&question.module).zip(answers.get(&question.module)) else {
        return Resolved {
            frames: vec![Vec::new(); question.addresses.len()],
            callees: vec![None; question.addresses.len()],
            detail: Detail::Nothing,
            missing: Vec::new(),
        };
    };
    let position = |address: &u64| addresses.binary_search(address).ok();
    let frames_at = |address| answer.frames.get(position(address)?).cloned();
    let callee_at = |address| answer.callees.get(position(address)?).cloned().flatten();
    Resolved {
        frames: question.addresses.iter().map(|address| frames_at(address).unwrap_or_default()).collect(),
        callees: question.addresses.iter().map(callee_at).collect(),
        detail: answer.detail,
        missing: answer.missing.clone(),
    }
}
