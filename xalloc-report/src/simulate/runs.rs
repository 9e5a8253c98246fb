//! Several runs at once, one on each processor.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::meter::Measured;
use super::placement::Parting;
use super::player::play;
use super::requests::Requests;
use super::settings::Settings;

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Run<'r> {
    /// What the report calls it.
    pub name: String,
    /// What is served.
    pub requests: &'r Requests,
    /// Under which rules.
    pub settings: Settings,
    /// Whether each block's place is compared with the recorded one.
    pub compares: bool,
}

/// A run that was made.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// What the report calls it.
    pub name: String,
    /// What came out.
    pub measured: Measured,
    /// Where the blocks part from the recorded ones; `None` if they do not, or were not compared.
    pub parting: Option<Parting>,
    /// Allocations that were compared.
    pub compared: u64,
}

/// Makes all runs, as many at a time as there are processors. Outcomes are in the order of the runs.
#[must_use]
pub fn run_all(runs: &[Run<'_>]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(runs.len());
    let work = || {
        loop {
            // Relaxed: the number is all that is shared; outcomes travel through the mutex.
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(run) = runs.get(at) else { return };
            let (measured, parting, compared) = play(run.requests, &run.settings, run.compares);
            let outcome = Outcome { name: run.name.clone(), measured, parting, compared };
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, outcome));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
