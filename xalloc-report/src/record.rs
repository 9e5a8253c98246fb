//! The recorder: runs a program with the preload, takes its events out of shared memory and writes the trace.
//!
//! The recorder is the program's parent. It makes a session (a directory with the control page), starts the program
//! with the preload and the session's path in its environment, and then drains: every process that says hello brings a
//! segment with rings, and the recorder merges what comes out of them into one ordered stream a process. When the
//! command has ended, frames get their names and the trace its end.
//!
//! # Layers
//! `recorder` (one recording) uses `target` (can it be recorded?), `output`, `session`, `preload`, `launch`, then
//! `drain` (rings to ordered events) and `symbolize`. `import` feeds the same merge from files that a process without a
//! recorder wrote. `doctor` asks beforehand what would go wrong. Nothing here prints.
//!
//! # What comes first
//! The program. It is never stopped, no descriptor of it is touched, and what goes wrong in the recorder ends the
//! recording and not the program.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::symbols::Places;
use crate::trace::{Contents, ProcessIndex, Tallied, Tally};

pub mod clock;
pub mod demand;
pub mod doctor;
mod drain;
mod error;
pub mod import;
mod launch;
mod looks;
mod memory;
mod outcome;
mod output;
mod owners;
pub mod preload;
mod recorder;
mod session;
mod sink;
mod spill;
mod status;
mod symbolize;
pub mod target;

#[cfg(test)]
mod tests;

pub use drain::{Observations, Refused};
pub use error::{NoHello, RecordError, exit_status};
pub use launch::{Assignment, split_assignments};
pub use outcome::Outcome;
pub use output::{Existing, OutputError};
pub use session::SessionError;

pub use crate::os::signals::AskingSignal;
pub use symbolize::Unnamed;

/// Who serves the program's allocations while it is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Allocator {
    /// xalloc's own heap: every step inside it is recorded.
    #[default]
    Core,
    /// The program's own, recorded from outside.
    System,
    /// Ours where the program would use libc's, else its own.
    Auto,
}

/// What a thread does when its ring is full.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Overflow {
    /// It waits for the recorder: nothing is lost.
    #[default]
    Wait,
    /// It goes on, and the events that it loses are counted.
    Drop,
}

/// What follows when the heap refuses a pointer that the program gives to a free or a realloc, and has said why.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OnError {
    /// libc's message, and `abort`.
    #[default]
    Abort,
    /// Nothing: the call has no effect, and the program goes on.
    Report,
}

/// What events are stamped with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Clock {
    /// The time-stamp counter where it is invariant, else `CLOCK_MONOTONIC`.
    #[default]
    Auto,
    /// The time-stamp counter.
    Tsc,
    /// `CLOCK_MONOTONIC`: twice the cost.
    Monotonic,
}

/// What to record and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Props {
    /// Leading `VAR=value` words, the program, its arguments.
    pub command: Vec<OsString>,
    /// Variables for the program besides those of the recorder and of `command`.
    pub env: Vec<Assignment>,
    /// Where the trace goes: a path with `%e %p %t %h`. `None`: a free name after the program, in the current directory.
    pub output: Option<PathBuf>,
    /// What happens to a file that is there.
    pub existing: Existing,
    /// See [`Allocator`].
    pub allocator: Allocator,
    /// See [`Overflow`].
    pub overflow: Overflow,
    /// Record the program's children too.
    pub follow: bool,
    /// See [`Clock`].
    pub clock: Clock,
    /// Frames that a call stack keeps, innermost first: 1 to 1024.
    pub depth: u32,
    /// Compare every n-th stack with a plain walk; 0: none.
    pub verify_every: u32,
    /// Record the heap's own steps (split, coalesce, bin) too.
    pub heap_steps: bool,
    /// Whether frees carry their call stacks too.
    pub free_stacks: bool,
    /// Bytes of which one, on average, has its allocation recorded; 0: all are, and every other event.
    pub sample_mean_bytes: u32,
    /// What follows when the heap refuses a pointer of the program's.
    pub on_error: OnError,
    /// Look at the end of each process which of its blocks it can still reach.
    pub leak_check: bool,
    /// Do so too where SIGTERM or SIGINT ends a program that leaves them alone.
    pub leak_check_on_signal: bool,
    /// Look at the processes' memory when the recorder gets this signal.
    pub snapshot_on_signal: Option<AskingSignal>,
    /// Look for leaks in the processes, while they run, when the recorder gets this signal, which is another one.
    pub leak_check_on_demand: Option<AskingSignal>,
    /// Let a program that sets a mark wait until its memory was looked at.
    pub snapshot_at_markers: bool,
    /// Name the frames at the end, so that the trace opens anywhere.
    pub symbols: bool,
}

impl Props {
    /// What `record COMMAND` means without options.
    #[must_use]
    pub fn new(command: Vec<OsString>) -> Props {
        Props {
            command,
            env: Vec::new(),
            output: None,
            existing: Existing::Keep,
            allocator: Allocator::default(),
            overflow: Overflow::default(),
            follow: true,
            clock: Clock::default(),
            depth: 1024,
            verify_every: 0,
            heap_steps: true,
            free_stacks: false,
            sample_mean_bytes: 0,
            on_error: OnError::default(),
            leak_check: true,
            leak_check_on_signal: false,
            snapshot_on_signal: None,
            leak_check_on_demand: None,
            snapshot_at_markers: false,
            symbols: true,
        }
    }
}

/// What the recorder does after the program has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It looks up names.
    Naming {
        /// Distinct code locations.
        frames: usize,
    },
    /// It writes the end of the trace.
    Writing,
    /// It is done.
    Done,
}

/// Runs the command of `props` and records it.
///
/// # Errors
/// [`RecordError`] if nothing was recorded. A recording that stopped early is an [`Outcome`] that says so.
pub fn run(props: &Props) -> Result<Outcome, RecordError> {
    run_with_progress(props, &mut |_| ())
}

/// As [`run`]; `on_phase` is told what takes time after the program has ended, for a progress bar.
///
/// # Errors
/// As [`run`].
pub fn run_with_progress(props: &Props, on_phase: &mut dyn FnMut(Phase)) -> Result<Outcome, RecordError> {
    let (outcome, _) = run_tallied(props, |_, _| (), on_phase)?;
    Ok(outcome)
}

/// As [`run_with_progress`]; the tallies that `tally_of` makes, one for each process, are told what happens in it while it
/// runs. They are returned where the trace came to its end; see [`Writer::finish`](crate::trace::Writer::finish).
///
/// # Errors
/// As [`run`].
pub fn run_tallied<T: Tally>(
    props: &Props,
    tally_of: impl FnMut(&Contents, ProcessIndex) -> T + Send + 'static,
    on_phase: &mut dyn FnMut(Phase),
) -> Result<(Outcome, Option<Tallied<T>>), RecordError> {
    recorder::run(props, tally_of, on_phase)
}

/// Names the frames of a recording whose recorder did not come to it, from the files of this machine.
pub fn name(contents: &mut Contents) -> Unnamed {
    let places = Places::of_this_machine();
    symbolize::symbolize(contents, places.clone(), symbolize::Naming::new(places))
}
