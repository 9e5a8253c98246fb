//! One recording from its beginning to its end.
//!
//! Everything that can fail for a reason of the user's (no such program, no place for the trace, no shared memory) is
//! tried before the program starts. From then on the program comes first: whatever fails stops the recording and leaves
//! the program running, and its exit status is passed on.

use std::ffi::OsString;
use std::path::{self, Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, OnceLock};
use std::thread;

use xalloc_core::session::{Options, allocator, clock, leak_check, marks, on_error, overflow};
use xalloc_core::sys::clock::{realtime_ns, ticks_are_invariant};

use super::clock::Reading;
use super::demand::desk::{self, Desk};
use super::drain::{Command, Drain, Observations, Unrecorded};
use super::error::{NoHello, RecordError};
use super::launch::{Assignment, end_of, split_assignments, start, value_of};
use super::outcome::Outcome;
use super::output::{Names, Output, host};
use super::owners;
use super::preload::unpack;
use super::session::{Session, places};
use super::symbolize::{Naming, Unnamed, symbolize};
use super::target::{Target, inspect};
use super::{Allocator, Clock, OnError, Overflow, Phase, Props};
use crate::os::cache::Caches;
use crate::os::control::ControlPage;
use crate::os::pidfd::Pidfd;
use crate::os::signals;
use crate::os::system::processors_online;
use crate::symbols::Places;
use crate::trace::{Contents, End, ProcessIndex, Recording, Sampling, Tallied, Tally, TraceError, Writer, Written};

/// Sleep after a pass that found events. A ring of 1 MiB that is half full rings the doorbell before.
const SHORT_SLEEP_NS: u64 = 4_000_000;
/// Sleep when nothing happens.
const LONG_SLEEP_NS: u64 = 10_000_000;
/// Interrupts after which the program is waited for no longer: the first one was for the program.
const IMPATIENT: u32 = 2;
/// Passes after the end of the command: children of children of … that have to begin one after another.
const LAST_PASSES: usize = 64;

/// Runs the command of `props` and records it. `tally_of` makes what is told of each process's events as they come,
/// `on_phase` is told what takes time after the program has ended.
///
/// # Errors
/// [`RecordError`] if nothing was recorded. A recording that stopped early is an [`Outcome`] that says so.
pub(crate) fn run<T: Tally>(
    props: &Props,
    tally_of: impl FnMut(&Contents, ProcessIndex) -> T + Send + 'static,
    on_phase: &mut dyn FnMut(Phase),
) -> Result<(Outcome, Option<Tallied<T>>), RecordError> {
    let (mut assignments, words) = split_assignments(&props.command);
    assignments.splice(0..0, props.env.iter().cloned());
    let program = words.first().ok_or(RecordError::NoCommand)?;
    let target = inspect(Path::new(program), value_of("PATH", &assignments).as_deref())?;
    if let Some(source) = target.obstacle {
        return Err(RecordError::NotRecordable { path: PathBuf::from(program), source });
    }
    let mut output = Output::create(props.output.as_deref(), &Names::of(&target.path), props.existing)?;
    let launched = launch(props, &target, words, &assignments, tally_of, &mut output);
    let Launched { session, desk, drain, waiter } = match launched {
        Ok(launched) => launched,
        Err(error) => {
            output.discard();
            return Err(error);
        }
    };
    let mut naming = props.symbols.then(|| Naming::new(Places::of_this_machine()));
    let drained = drain_all(drain, desk, &session.control, &waiter, &mut naming);
    let end = waiter.end().unwrap_or(End::Running);
    if drained.processes == 0 && drained.stopped.is_none() {
        let reason = no_hello(target.binary, &drained.observations, session.directory());
        output.discard();
        return Err(RecordError::NoHello { path: PathBuf::from(program), end: waiter.end(), reason });
    }
    // The segments are drained: their memory is given back before symbols ask for some.
    drop(session);
    let (mut outcome, tallied) = finish(naming, drained, end, output.path().to_owned(), on_phase);
    outcome.settle(output);
    Ok((outcome, tallied))
}

/// What runs once the program does.
struct Launched<T: Tally> {
    session: Session,
    /// `None`: the session's directory can hold no socket, and nobody can ask.
    desk: Option<Desk>,
    drain: Drain<Writer<T>>,
    waiter: Waiter,
}

fn launch<T: Tally>(
    props: &Props,
    target: &Target,
    words: &[OsString],
    assignments: &[Assignment],
    tally_of: impl FnMut(&Contents, ProcessIndex) -> T + Send + 'static,
    output: &mut Output,
) -> Result<Launched<T>, RecordError> {
    let session = Session::open(&places(), &options(props))?;
    let library = unpack(&Caches::of_environment(), session.directory())
        .map_err(|source| RecordError::Unpack { directory: session.directory().to_owned(), source })?;
    let file = output
        .file
        .try_clone()
        .map_err(|source| RecordError::Trace(TraceError::Create { path: output.path().to_owned(), source }))?;
    let sampling = Sampling::of_mean(props.sample_mean_bytes);
    let writer = Writer::telling(Box::new(file), sampling, tally_of)?;
    let recording = Recording {
        command: words.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        started_unix_ns: realtime_ns(),
        tool_version: env!("CARGO_PKG_VERSION").into(),
        host: host(),
        processors: processors_online(),
        sampling,
        ..Recording::default()
    };
    let mut drain = Drain::new(session.directory().to_owned(), Reading::now(), recording, props.follow, writer);
    drain.save_beginning()?;
    signals::catch().map_err(RecordError::Signals)?;
    // Before the start: somebody may ask for the program as soon as it runs.
    let listener = desk::listen(session.directory());
    let child = start(target, words, assignments, &library, session.directory())
        .map_err(|source| RecordError::Start { path: target.path.clone(), source })?;
    // Where process descriptors are missing, a signal that was meant for the program ends at the recorder.
    if let Ok(pidfd) = Pidfd::open(child.id()) {
        signals::pass_on_to(pidfd);
    }
    signals::catch_asking(props.snapshot_on_signal, props.leak_check_on_demand).map_err(RecordError::Signals)?;
    let pid = child.id();
    let waiter = Waiter::start(child, Arc::clone(&session.control)).map_err(RecordError::Waiter)?;
    // After the start: a thread more of the recorder's would change which of libc's own signals the program ignores.
    let open = |listener| Desk::open(listener, session.directory(), Arc::clone(&session.control));
    let desk = listener.and_then(open).ok();
    output.settle(pid)?;
    if props.leak_check {
        drain.take_demands(path::absolute(output.path()).unwrap_or_else(|_| output.path().to_owned()));
    }
    Ok(Launched { session, desk, drain, waiter })
}

fn options(props: &Props) -> Options {
    Options {
        allocator: match props.allocator {
            Allocator::Core => allocator::CORE,
            Allocator::System => allocator::SYSTEM,
            Allocator::Auto => allocator::AUTO,
        },
        overflow: match props.overflow {
            Overflow::Wait => overflow::WAIT,
            Overflow::Drop => overflow::DROP,
        },
        clock: clock_of(props.clock, ticks_are_invariant),
        follow: u32::from(props.follow),
        depth: props.depth.clamp(1, 1024),
        verify_every: props.verify_every,
        heap_steps: u32::from(props.heap_steps),
        free_stacks: u32::from(props.free_stacks),
        sample_mean_bytes: props.sample_mean_bytes,
        on_error: match props.on_error {
            OnError::Abort => on_error::ABORT,
            OnError::Report => on_error::REPORT,
        },
        leak_check: if props.leak_check { leak_check::AT_EXIT | leak_check::ON_DEMAND } else { 0 }
            | if props.leak_check_on_signal { leak_check::ON_SIGNAL } else { 0 },
        marks: if props.snapshot_at_markers { marks::WAIT_FOR_LOOK } else { marks::GO_ON },
        ..Options::new()
    }
}

/// The clock of the choice; `are_invariant` says whether ticks are of one length on all cores.
fn clock_of(choice: Clock, are_invariant: impl FnOnce() -> bool) -> u32 {
    match choice {
        Clock::Auto if are_invariant() => clock::TSC,
        Clock::Auto | Clock::Monotonic => clock::MONOTONIC,
        Clock::Tsc => clock::TSC,
    }
}

/// The thread that waits for the command, so that the recorder can sleep on its doorbell alone.
#[derive(Debug)]
struct Waiter {
    pid: u32,
    end: Arc<OnceLock<End>>,
}

impl Waiter {
    fn start(mut child: Child, control: Arc<ControlPage>) -> std::io::Result<Waiter> {
        let end = Arc::new(OnceLock::new());
        let waiter = Waiter { pid: child.id(), end: Arc::clone(&end) };
        thread::Builder::new().name("waiter".into()).spawn(move || {
            let status = child.wait();
            // Only this thread sets it, once.
            let _ = end.set(status.map_or(End::Vanished, end_of));
            control.ring();
        })?;
        Ok(waiter)
    }

    fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    fn command(&self) -> Command {
        Command { pid: self.pid, end: self.end() }
    }
}

/// A trace without its end.
pub(super) struct Drained<T: Tally> {
    pub(super) contents: Contents,
    pub(super) observations: Observations,
    pub(super) writer: Writer<T>,
    pub(super) processes: usize,
    pub(super) stopped: Option<TraceError>,
}

/// Records until the command has ended, its user has lost patience, or the trace cannot be written any more.
fn drain_all<T: Tally>(
    mut drain: Drain<Writer<T>>,
    desk: Option<Desk>,
    control: &ControlPage,
    waiter: &Waiter,
    naming: &mut Option<Naming>,
) -> Drained<T> {
    let mut stopped = record_until_the_end(&mut drain, desk.as_ref(), control, waiter, naming).err();
    drop(desk);
    control.finish();
    drain.wake_waiting();
    if stopped.is_some() {
        // The program runs on, unrecorded, and its exit status is still wanted.
        wait_out(control, waiter);
    } else {
        stopped = last_passes(&mut drain, control, waiter).err();
    }
    let command = waiter.command();
    let processes = drain.processes();
    if stopped.is_none() {
        stopped = drain.end_all(command).err();
    }
    let (contents, mut observations, writer) = drain.into_parts(command);
    observations.is_control_cut = control.is_cut();
    Drained { contents, observations, writer, processes, stopped }
}

fn record_until_the_end(
    drain: &mut Drain<Writer<impl Tally>>,
    desk: Option<&Desk>,
    control: &ControlPage,
    waiter: &Waiter,
    naming: &mut Option<Naming>,
) -> Result<(), TraceError> {
    let mut sleep_ns = SHORT_SLEEP_NS;
    loop {
        let bell = control.doorbell();
        let command = waiter.command();
        for (pid, asker) in desk.into_iter().flat_map(Desk::questions) {
            drain.demand(pid, asker);
        }
        let came = drain.pass(control.hellos(), command)?;
        if let Some(naming) = naming {
            naming.note(drain.contents());
        }
        if command.end.is_some() || signals::received() >= IMPATIENT {
            return Ok(());
        }
        sleep_ns = if came { SHORT_SLEEP_NS } else { (2 * sleep_ns).min(LONG_SLEEP_NS) };
        control.sleep(bell, sleep_ns);
    }
}

/// Takes what descendants pushed before they saw that the recording is over, and begins those that nobody waited for.
fn last_passes(
    drain: &mut Drain<Writer<impl Tally>>,
    control: &ControlPage,
    waiter: &Waiter,
) -> Result<(), TraceError> {
    for _ in 0..LAST_PASSES {
        let unborn = drain.unborn();
        let came = drain.pass(control.hellos(), waiter.command())?;
        if !came && drain.unborn() == unborn {
            break;
        }
    }
    drain.stop_waiting_for_forks();
    drain.discover();
    drain.pass(control.hellos(), waiter.command()).map(|_| ())
}

fn wait_out(control: &ControlPage, waiter: &Waiter) {
    while waiter.end().is_none() && signals::received() < IMPATIENT {
        let bell = control.doorbell();
        if waiter.end().is_none() {
            control.sleep(bell, 10 * LONG_SLEEP_NS);
        }
    }
}

fn no_hello(binary: PathBuf, observations: &Observations, session: &Path) -> NoHello {
    if let Some(&Unrecorded { reason, errno, .. }) = observations.unrecorded.first() {
        return NoHello::ByProgram { reason, errno };
    }
    match observations.refused.first() {
        Some((_, seen)) => NoHello::Refused { seen: seen.clone() },
        None => NoHello::Unknown { binary, session: session.to_owned() },
    }
}

/// Names the frames, if that is wanted, and writes what is not events.
pub(super) fn finish<T: Tally>(
    naming: Option<Naming>,
    drained: Drained<T>,
    end: End,
    path: PathBuf,
    on_phase: &mut dyn FnMut(Phase),
) -> (Outcome, Option<Tallied<T>>) {
    let Drained { mut contents, observations, writer, processes, mut stopped } = drained;
    contents.recording.end = Some(end);
    let duration_ns = contents.processes.iter().map(|process| process.ended_at_ns).max().unwrap_or_default();
    contents.recording.duration_ns = duration_ns;
    let mut unnamed = Unnamed::new();
    if let Some(naming) = naming
        && stopped.is_none()
    {
        on_phase(Phase::Naming { frames: contents.frames.len() });
        unnamed = symbolize(&mut contents, Places::of_this_machine(), naming);
    }
    owners::settle(&mut contents);
    on_phase(Phase::Writing);
    let mut written: Written = writer.written();
    let mut tallied = None;
    // After a failed write the file ends with its last whole block, and a reader salvages it.
    if stopped.is_none() {
        match writer.finish(contents) {
            Ok(whole) => (written, tallied) = whole,
            Err(error) => stopped = Some(error),
        }
    }
    on_phase(Phase::Done);
    (Outcome { path, end, written, processes, observations, duration_ns, unnamed, stopped, unreplaced: None }, tallied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_invariant_counter_the_systems_clock_is_taken_unless_the_counter_was_asked_for() {
        let clocks = |are_invariant: bool| {
            [Clock::Auto, Clock::Tsc, Clock::Monotonic].map(|choice| clock_of(choice, || are_invariant))
        };
        assert_eq!(clocks(true), [clock::TSC, clock::TSC, clock::MONOTONIC]);
        assert_eq!(clocks(false), [clock::MONOTONIC, clock::TSC, clock::MONOTONIC]);
    }
}
