//! From the rings of all processes to one ordered stream of events for each.
//!
//! # Births
//! A process shows itself by a file in the session's directory. One that began by exec is taken on at once. A forked
//! one has its parent's blocks as they were at the fork, so it begins when the parent's stream has come to that event;
//! what the parent had there is kept until the child says hello ([`forks`]), so neither stream waits for the other.
//!
//! # Ends
//! A process is over when the kernel says so (a descriptor of the process becomes readable), not when it says so: then
//! its rings are drained a last time, whatever the stamps, and its segment is removed.
//!
//! # Why not one merge over all processes
//! Nothing orders events of different processes but a fork, and a merge over a hundred of them would cost each event a
//! deeper heap.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use xalloc_core::session::{REFUSED_PREFIX, Refusal, segment_state};
use xalloc_core::sys::clock::{monotonic_ns, ticks};
use xalloc_core::units::Stamp;

use crate::os::segment::{HeaderWord, Segment};
use crate::os::signals;
use crate::record::clock::{Clock, Reading, Timeline};
use crate::record::looks::Looks;
use crate::trace::{Block, Contents, End, Incoming, Process, ProcessIndex, Recording, Repairs, Snapshot, Waits};

mod check;
mod control;
mod demand;
mod dictionary;
mod forks;
mod hearing;
mod identity;
mod ignored;
mod lane;
mod live;
mod look;
mod modules;
mod outside;
mod own_look;
mod stacks;
mod stream;
#[cfg(test)]
mod tests;
mod verdicts;

use check::Checks;
use demand::Answers;
pub(crate) use demand::Copied;
pub(crate) use dictionary::Dictionary;
pub(crate) use forks::{Fork, Forks};
pub use identity::Refused;
pub(crate) use identity::{Birth, Identity};
pub(crate) use live::{Command, conclude};
use live::{Live, Presence};
pub(crate) use modules::ModuleTables;
pub(crate) use stream::{LastWord, Shared, Stream};

/// Longest time that a child waits for its parent's stream to come to the fork. The fork was published before the child
/// existed, so the next pass sees it; a parent that is not recorded, or lost the event, has none.
const FORK_WAIT: Duration = Duration::from_secs(1);
/// Time between two ties of the time line to the clocks, and between two looks into the directory without a hello.
const TIE_EVERY: Duration = Duration::from_millis(100);
/// Time between two saves of what waits in the sink: what a recorder that is killed can lose. A shorter time would cost
/// a slow program's trace its compression, which works by the block.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Where the ordered events go: the trace's writer, or a test's list.
pub(crate) trait Sink {
    /// Why events could not be taken.
    type Error;
    /// The blocks that a process has at some moment.
    type LiveSet;
    /// The contents have new processes, threads or stacks; events will name them.
    fn gain(&mut self, contents: &Contents);
    /// A process begins, with these blocks if it is a fork.
    fn begin(&mut self, process: ProcessIndex, inherited: Option<Self::LiveSet>) -> Result<(), Self::Error>;
    /// What a fork of `process` inherits if it happens now.
    fn live_set(&self, process: ProcessIndex) -> Result<Self::LiveSet, Self::Error>;
    /// The blocks that a process has now, in any order.
    fn live_blocks(&self, process: ProcessIndex) -> Result<Vec<Block>, Self::Error>;
    /// The live block of a process that holds `addr`.
    fn live_block(&mut self, process: ProcessIndex, addr: u64) -> Result<Option<Block>, Self::Error>;
    /// The next events of a process.
    fn push_all(&mut self, process: ProcessIndex, events: &[Incoming]) -> Result<(), Self::Error>;
    /// The next event of a process, with its text.
    fn push_with_text(&mut self, process: ProcessIndex, event: &Incoming, text: &str) -> Result<(), Self::Error>;
    /// A process is over: nothing more comes from it.
    fn end(&mut self, process: ProcessIndex) -> Result<(), Self::Error>;
    /// Puts what waits where it outlives the recorder.
    fn save(&mut self) -> Result<(), Self::Error>;
    /// What the kernel said of a process's memory.
    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), Self::Error>;
}

/// What was seen besides the events.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observations {
    /// Records taken, of every kind.
    pub events: u64,
    /// Records that could not be read.
    pub damaged: u64,
    /// Stacks that processes lost because there was no room for them.
    pub lost_stacks: u64,
    /// Stacks that were cut at the depth limit.
    pub cut_stacks: u64,
    /// Stacks that were compared with a plain walk.
    pub verified_stacks: u64,
    /// Stacks that differed from it.
    pub differing_stacks: u64,
    /// Forked processes whose fork was not seen: they have none of their parent's blocks.
    pub orphans: u64,
    /// Processes whose segment was shortened while it was read.
    pub cut: Vec<u32>,
    /// Whether the control page was.
    pub is_control_cut: bool,
    /// Segments that were not readable, with the reason.
    pub refused: Vec<(PathBuf, String)>,
    /// Processes that could not be recorded and said why.
    pub unrecorded: Vec<Unrecorded>,
    /// Processes that still ran at the end.
    pub running: usize,
}

/// The note of a process that could not be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unrecorded {
    /// The process, in its own pid namespace.
    pub pid: u32,
    /// Why.
    pub reason: Refusal,
    /// The system's number for it, 0 if it has none.
    pub errno: i32,
}

impl Unrecorded {
    /// Reads the name of a note; `None` if it is none.
    fn read(name: &OsStr) -> Option<Unrecorded> {
        let mut parts = name.to_str()?.strip_prefix(REFUSED_PREFIX)?.split('.');
        let pid = parts.next()?.parse().ok()?;
        let number: u8 = parts.next()?.parse().ok()?;
        let reason = Refusal::ALL.into_iter().find(|reason| reason.number() == number)?;
        let errno = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Unrecorded { pid, reason, errno })
    }
}

/// A segment whose process has not begun in the trace.
#[derive(Debug)]
struct Unborn {
    identity: Identity,
    segment: Segment,
    path: PathBuf,
    since: Instant,
}

/// Drains all processes of one session into a sink.
pub(crate) struct Drain<S: Sink> {
    directory: PathBuf,
    pub(crate) sink: S,
    dictionary: Dictionary,
    timeline: Timeline,
    tied: Instant,
    saved: Instant,
    /// Whether the time line has two readings that tell its rate.
    is_tied: bool,
    hellos: u32,
    known: HashSet<OsString>,
    unborn: Vec<Unborn>,
    live: Vec<Live>,
    forks: Forks<S::LiveSet>,
    fork_wait: Duration,
    observations: Observations,
    /// Where the trace is, for those who ask for a check; `None`: none is to be made.
    trace: Option<PathBuf>,
    /// Signals that asked for a check, as far as they were heard.
    signals: u32,
    /// Signals that asked for a look, as far as the last pass heard of them: later ones are meant for a process, too, that
    /// the next pass finds.
    looks_asked: u32,
    answers: Answers,
}

impl<S: Sink> Drain<S> {
    /// A drain of the session in `directory`; `start` becomes time 0 of `recording`.
    pub(crate) fn new(
        directory: PathBuf,
        start: Reading,
        recording: Recording,
        are_forks_followed: bool,
        sink: S,
    ) -> Drain<S> {
        Drain {
            directory,
            sink,
            dictionary: Dictionary::new(recording),
            timeline: Timeline::starting_at(start),
            tied: Instant::now(),
            saved: Instant::now(),
            is_tied: false,
            hellos: 0,
            known: HashSet::new(),
            unborn: Vec::new(),
            live: Vec::new(),
            forks: Forks::of_session(are_forks_followed),
            fork_wait: FORK_WAIT,
            observations: Observations::default(),
            trace: None,
            signals: signals::checks_asked(),
            looks_asked: signals::snapshots_asked(),
            answers: Answers::new(),
        }
    }

    /// Lets processes be checked while they run. Who asks is told that the trace is at `path`.
    pub(crate) fn take_demands(&mut self, path: PathBuf) {
        self.trace = Some(path);
    }

    /// Saves what is known of the recording before its first event.
    pub(crate) fn save_beginning(&mut self) -> Result<(), S::Error> {
        self.sink.gain(&self.dictionary.contents);
        self.sink.save()
    }

    /// What the events name.
    pub(crate) fn contents(&self) -> &Contents {
        &self.dictionary.contents
    }

    /// Processes that have begun so far.
    pub(crate) fn processes(&self) -> usize {
        self.dictionary.contents.processes.len()
    }

    /// Processes that said hello and have not begun.
    pub(crate) fn unborn(&self) -> usize {
        self.unborn.len()
    }

    /// Forked processes whose fork has not been seen begin with the next pass.
    pub(crate) fn stop_waiting_for_forks(&mut self) {
        self.fork_wait = Duration::ZERO;
    }

    /// Takes and merges everything that happened before this call. True if there was something.
    ///
    /// `hellos` is the control page's count; the directory is read when it has changed.
    pub(crate) fn pass(&mut self, hellos: u32, command: Command) -> Result<bool, S::Error> {
        let is_due = self.tied.elapsed() >= TIE_EVERY || !self.is_tied;
        if is_due {
            self.tied = Instant::now();
            self.is_tied |= self.timeline.tie(Reading::now());
        }
        if is_due || hellos != self.hellos {
            self.hellos = hellos;
            self.discover();
        }
        self.deliver()?;
        // Asked before the rings are read: what a process that is gone has pushed is all there.
        let gone: Vec<bool> = self.live.iter().map(|live| live.is_gone(command)).collect();
        self.press_demands();
        self.notice_checks();
        let waits: Vec<u32> = self.live.iter().map(|live| live.stream.segment.looks_asked()).collect();
        let mut came = false;
        for (live, gone) in self.live.iter_mut().zip(&gone) {
            let until = if *gone { Stamp(u64::MAX) } else { cut(live.stream.identity.clock) };
            came |= live.stream.collect(until, &self.timeline);
        }
        let mut shared = Shared {
            dictionary: &mut self.dictionary,
            timeline: &self.timeline,
            sink: &mut self.sink,
            forks: &mut self.forks,
        };
        for live in &mut self.live {
            live.stream.merge(&mut shared)?;
        }
        self.look(&gone, &waits)?;
        self.attend_checks();
        self.bury(&gone, command)?;
        self.answer_askers()?;
        if self.saved.elapsed() >= SAVE_EVERY {
            self.sink.save()?;
            self.saved = Instant::now();
        }
        Ok(came)
    }

    /// Looks for segments that were not there before.
    pub(crate) fn discover(&mut self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if self.known.contains(&name) {
                continue;
            }
            if let Some(note) = Unrecorded::read(&name) {
                self.observations.unrecorded.push(note);
                self.known.insert(name);
                continue;
            }
            if !name.as_encoded_bytes().starts_with(b"segment.") {
                continue;
            }
            let path = entry.path();
            match open(&path) {
                Ok(Some((segment, identity))) => {
                    self.unborn.push(Unborn { identity, segment, path, since: Instant::now() });
                }
                // Still being made.
                Ok(None) => continue,
                Err(seen) => self.observations.refused.push((path, seen)),
            }
            self.known.insert(name);
        }
        self.unborn.sort_by_key(|unborn| unborn.identity.started_monotonic_ns);
    }

    /// Begins the processes whose beginning is known, in the order in which they came to be: each after what exec
    /// replaced by it, and after the one that started it.
    fn deliver(&mut self) -> Result<(), S::Error> {
        for unborn in std::mem::take(&mut self.unborn) {
            // What waits already came to be earlier: `discover` sorts.
            if self.unborn.iter().any(|earlier| unborn.identity.comes_of(&earlier.identity)) {
                // The wait for its own fork begins when that can be read.
                self.unborn.push(Unborn { since: Instant::now(), ..unborn });
                continue;
            }
            let fork = match unborn.identity.birth {
                Birth::Exec => None,
                Birth::Fork { serial } => match self.forks.take(unborn.identity.parent_pid, serial) {
                    Some(fork) => Some(fork),
                    // One that nobody announced (`_Fork`, a raw clone) is in no stream.
                    None if serial != 0 && unborn.since.elapsed() < self.fork_wait => {
                        self.unborn.push(unborn);
                        continue;
                    }
                    None => {
                        self.observations.orphans += 1;
                        None
                    }
                },
            };
            self.begin(unborn, fork)?;
        }
        Ok(())
    }

    fn begin(&mut self, unborn: Unborn, fork: Option<Fork<S::LiveSet>>) -> Result<(), S::Error> {
        let Unborn { identity, segment, path, .. } = unborn;
        let (parent, live_set, modules) = match fork {
            Some(Fork { parent, live_set, modules }) => (Some(parent), Some(live_set), modules),
            None => (self.dictionary.starter(&identity), None, ModuleTables::new()),
        };
        if self.dictionary.contents.recording.libc.is_empty() {
            self.dictionary.contents.recording.libc.clone_from(&identity.libc);
        }
        let index = self.dictionary.process(&identity, parent, &self.timeline);
        self.dictionary.take_gained();
        self.sink.gain(&self.dictionary.contents);
        self.sink.begin(index, live_set)?;
        let pidfd = identity.open_process();
        self.live.push(Live {
            stream: Stream::new(index, identity, segment, modules),
            path,
            pidfd,
            looks: Looks::new(self.looks_asked),
            own_look: None,
            own_looks: 0,
            checks: Checks::default(),
        });
        Ok(())
    }

    /// Ends the processes that are gone and drained.
    fn bury(&mut self, gone: &[bool], command: Command) -> Result<(), S::Error> {
        let mut at = 0;
        // Processes that began in this pass stand behind those that were asked.
        for &gone in gone {
            let live = &self.live[at];
            let is_over = gone || (live.said_its_last_word() && self.has_successor(live));
            if is_over {
                self.give_up_check(at);
                self.give_up_demand(at);
                let live = self.live.remove(at);
                let end = live.end(self.presence(&live, gone), command);
                self.end(live, end)?;
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    fn presence(&self, live: &Live, is_gone: bool) -> Presence {
        match (self.has_successor(live), is_gone) {
            (true, _) => Presence::Replaced,
            (false, true) => Presence::Gone,
            (false, false) => Presence::There,
        }
    }

    /// Whether another program runs under the same process id now.
    fn has_successor(&self, live: &Live) -> bool {
        let Identity { pid, started_monotonic_ns, .. } = live.stream.identity;
        let follows = |other: &Identity| other.pid == pid && other.started_monotonic_ns > started_monotonic_ns;
        self.live.iter().any(|other| follows(&other.stream.identity))
            || self.unborn.iter().any(|other| follows(&other.identity))
    }

    fn end(&mut self, live: Live, end: End) -> Result<(), S::Error> {
        let Live { stream, path, .. } = live;
        self.sink.end(stream.index)?;
        let now_ns = self.timeline.at_ns(Clock::Monotonic, Stamp(monotonic_ns()));
        conclude(stream, end, now_ns, &mut self.dictionary, &mut self.observations);
        // A file that cannot be removed goes with the session's directory. Once it is removed, the process may use the
        // name again: the program that replaces this one makes its segment under the first number that is free.
        if fs::remove_file(&path).is_ok()
            && let Some(name) = path.file_name()
        {
            self.known.remove(name);
        }
        Ok(())
    }

    /// Wakes every thread that waits for space in a ring.
    pub(crate) fn wake_waiting(&self) {
        for segment in self.live.iter().map(|live| &live.stream.segment).chain(self.unborn.iter().map(|u| &u.segment)) {
            segment.wake_waiting();
        }
    }

    /// Ends all processes, those that still run too.
    pub(crate) fn end_all(&mut self, command: Command) -> Result<(), S::Error> {
        while let Some(last) = self.live.len().checked_sub(1) {
            self.give_up_check(last);
            self.give_up_demand(last);
            let live = self.live.remove(last);
            let is_gone = live.is_gone(command) || live.is_nowhere();
            let end = live.end(self.presence(&live, is_gone), command);
            self.observations.running += usize::from(end == End::Running);
            self.end(live, end)?;
        }
        Ok(())
    }

    /// The trace's tables, what was seen besides, and the sink. Streams that were not ended (the sink failed) are told
    /// as far as they came.
    pub(crate) fn into_parts(mut self, command: Command) -> (Contents, Observations, S) {
        let now_ns = self.timeline.at_ns(Clock::Monotonic, Stamp(monotonic_ns()));
        for live in self.live.drain(..) {
            let seen = if live.is_gone(command) { Presence::Gone } else { Presence::There };
            let end = live.end(seen, command);
            conclude(live.stream, end, now_ns, &mut self.dictionary, &mut self.observations);
        }
        (self.dictionary.contents, self.observations, self.sink)
    }
}

impl Dictionary {
    /// The process that started this program, if it was recorded.
    fn starter(&self, identity: &Identity) -> Option<ProcessIndex> {
        // What a forked process has of its parent is known by its fork alone.
        let parent = |process: &Process| process.pid == identity.parent_pid && identity.birth == Birth::Exec;
        self.contents.processes.iter().rposition(parent).map(|at| ProcessIndex(at as u32))
    }

    /// A process of the trace, as its header describes it.
    pub(crate) fn process(
        &mut self,
        identity: &Identity,
        parent: Option<ProcessIndex>,
        timeline: &Timeline,
    ) -> ProcessIndex {
        let processes = &mut self.contents.processes;
        let started_at_ns = timeline.at_ns(identity.clock, identity.started);
        let is_fork = match identity.birth {
            Birth::Fork { .. } => true,
            Birth::Exec => false,
        };
        processes.push(Process {
            pid: identity.pid,
            parent,
            forked: is_fork,
            exe: identity.exe.clone(),
            command: identity.command.clone(),
            started_at_ns,
            ended_at_ns: started_at_ns,
            end: End::Running,
            allocator: identity.allocator,
            events: 0,
            losses: Vec::new(),
            repairs: Repairs::default(),
            waits: Waits::default(),
        });
        ProcessIndex(u32::try_from(processes.len() - 1).expect("Linux knows fewer than 2^32 processes"))
    }
}

/// The stamp up to which a pass merges. Rings must be read after it, and not a load earlier: the counter is read once
/// more, since that waits (lfence) until the first reading is done and holds back every load that follows.
fn cut(clock: Clock) -> Stamp {
    let until = match clock {
        Clock::Ticks => ticks(),
        Clock::Monotonic => Stamp(xalloc_core::sys::clock::monotonic_ns()),
    };
    let _ = ticks();
    until
}

/// Maps a segment; `None` if its process is still making it.
fn open(path: &std::path::Path) -> Result<Option<(Segment, Identity)>, String> {
    let file = File::options().read(true).write(true).open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length < xalloc_core::session::layout::SEGMENT_BYTES as u64 {
        return Ok(None);
    }
    let segment = Segment::map_shared(&file).map_err(|error| error.to_string())?;
    if segment.header_u32(HeaderWord::State) == segment_state::EMPTY {
        return Ok(None);
    }
    let identity = Identity::read(&segment).map_err(|refused| refused.to_string())?;
    Ok(Some((segment, identity)))
}
