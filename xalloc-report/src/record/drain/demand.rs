//! Checks that are demanded while the processes run, by a question or by a signal to the recorder.
//!
//! A demand is a number in the handshake and SIGURG, sent again until the process takes it up: it may come while a hook
//! is being interrupted, where nothing can be told. Between two signals the time doubles, for a program may have put a
//! handler of its own in the place of ours.
//!
//! Who asks while a check goes on waits for the next one, with all others who wait: they are told of a moment after they
//! asked.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::hearing::require_hearing;
use super::live::Live;
use super::{Drain, Identity, Sink};
use crate::os::pidfd::{Pidfd, urge_by_number};
use crate::os::signals;
use crate::record::demand::{Refusal, Reply};
use crate::record::status::Status;
use crate::trace::Block;

/// Longest time until a demand is taken up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time to the second signal.
const FIRST_AGAIN: Duration = Duration::from_millis(4);
/// Longest time between two signals.
const LAST_AGAIN: Duration = Duration::from_millis(250);

/// Who are told what came of a demand; nobody, where a signal asked.
pub(super) type Askers = Vec<Sender<Reply>>;

/// A check that a process is to make.
#[derive(Debug)]
pub(super) struct Demand {
    askers: Askers,
    number: u32,
    since: Instant,
    urged: Instant,
    again: Duration,
    /// How often the process's handler had run before the last signal; `None` before the first.
    heard: Option<u32>,
}

/// What was live when a process was copied.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Number of the request that it is for.
    pub(super) number: u32,
    pub(super) at_ns: u64,
    /// `None`: they could not be listed.
    pub(super) blocks: Option<Vec<Block>>,
}

/// What askers are to be told once the trace holds it.
pub(super) type Answers = Vec<(Sender<Reply>, Answer)>;

/// What came of a demand.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The check of this number.
    Made(u64),
    Refused(Refusal),
}

impl Demand {
    /// Its askers are told.
    pub(super) fn answer(self, answer: &Answer, answers: &mut Answers) {
        answers.extend(self.askers.into_iter().map(|asker| (asker, answer.clone())));
    }
}

impl<S: Sink> Drain<S> {
    /// Demands a check of the process `pid`; `asker` is told what came of it.
    pub(crate) fn demand(&mut self, pid: u32, asker: Sender<Reply>) {
        // The last one, if a program replaced another.
        let of_pid = self.live.iter_mut().rev().find(|live| live.stream.identity.pid == pid);
        let is_beginning = || self.unborn.iter().any(|unborn| unborn.identity.pid == pid);
        let refusal = match of_pid {
            Some(live) if live.stream.identity.sampling.is_some() => Refusal::Sampled,
            _ if self.trace.is_none() => Refusal::TurnedOff,
            None if is_beginning() => Refusal::NotTaken { reason: "it has just begun".to_owned() },
            None => Refusal::NotRecorded,
            Some(live) => return live.checks.waiting.push(asker),
        };
        self.answers.push((asker, Answer::Refused(refusal)));
    }

    /// Sees to what is demanded, before the rings are read.
    pub(super) fn press_demands(&mut self) {
        let signals = signals::checks_asked();
        if std::mem::replace(&mut self.signals, signals) != signals && self.trace.is_some() {
            self.live.iter_mut().filter(|live| live.checks.demand.is_none()).for_each(Live::begin_demand);
        }
        for live in &mut self.live {
            if live.checks.demand.is_none() && !live.checks.waiting.is_empty() {
                live.begin_demand();
            }
            let Err(reason) = live.press() else { continue };
            if let Some(demand) = live.checks.demand.take() {
                live.stream.segment.demand(live.stream.segment.asked().taken);
                demand.answer(&Answer::Refused(Refusal::NotTaken { reason }), &mut self.answers);
            }
        }
    }

    /// Tells the askers, when what they are told of is in the file.
    pub(super) fn answer_askers(&mut self) -> Result<(), S::Error> {
        if self.answers.is_empty() {
            return Ok(());
        }
        self.dictionary.take_gained();
        self.sink.gain(&self.dictionary.contents);
        self.sink.save()?;
        for (asker, answer) in self.answers.drain(..) {
            let reply = match answer {
                Answer::Made(check) => {
                    Reply::Made { trace: self.trace.clone().unwrap_or_default().into_os_string(), check }
                }
                Answer::Refused(refusal) => Reply::Refused(refusal),
            };
            // An asker that went away needs no answer.
            let _ = asker.send(reply);
        }
        Ok(())
    }

    /// The process is over: what was demanded of it will not come.
    pub(super) fn give_up_demand(&mut self, at: usize) {
        let checks = &mut self.live[at].checks;
        let ended = Answer::Refused(Refusal::Ended);
        self.answers.extend(checks.waiting.drain(..).map(|asker| (asker, ended.clone())));
        if let Some(demand) = checks.demand.take() {
            demand.answer(&ended, &mut self.answers);
        }
    }
}

impl Live {
    /// Demands a check for all who wait for one.
    fn begin_demand(&mut self) {
        let askers = std::mem::take(&mut self.checks.waiting);
        self.checks.demands += 1;
        let now = Instant::now();
        let number = self.checks.demands;
        self.stream.segment.demand(number);
        let again = Duration::ZERO;
        self.checks.demand = Some(Demand { askers, number, since: now, urged: now, again, heard: None });
    }

    /// Sends the signal, if it is time to. Fails with the reason when there is no more hope.
    fn press(&mut self) -> Result<(), String> {
        let Some(demand) = &mut self.checks.demand else { return Ok(()) };
        let asked = self.stream.segment.asked();
        if asked.taken == demand.number || demand.urged.elapsed() < demand.again {
            return Ok(());
        }
        let identity = &self.stream.identity;
        if self.pidfd.is_none() && !identity.is_here() {
            return Err("its number is one of another namespace".to_owned());
        }
        let is_unheard = demand.heard == Some(asked.heard);
        if demand.since.elapsed() > PATIENCE {
            return Err(why_not(identity.pid, is_unheard));
        }
        require_hearing(identity.pid).map_err(|deaf| deaf.to_string())?;
        // The kernel keeps a signal until somebody takes it. Where our handler has not, it may be the program that does.
        if is_unheard {
            return Ok(());
        }
        demand.heard = Some(asked.heard);
        demand.urged = Instant::now();
        demand.again = (2 * demand.again).clamp(FIRST_AGAIN, LAST_AGAIN);
        // One that has ended is noticed by the pass.
        match self.pidfd.as_ref().map_or_else(|| urge_by_number(identity.pid), Pidfd::urge) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(format!("it cannot be signalled: {error}")),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Why a process did not take the demand up, as far as the kernel tells.
fn why_not(pid: u32, is_unheard: bool) -> String {
    let Ok(status) = Status::of(pid) else { return "it is gone".to_owned() };
    let has = |mask| status.has_signal(mask, libc::SIGURG).unwrap_or(false);
    let state = status.field("State").unwrap_or_default();
    match () {
        () if state.starts_with(['T', 't']) => "it is stopped".to_owned(),
        () if has("SigIgn") => "it ignores SIGURG".to_owned(),
        () if !has("SigCgt") => "it has no handler for SIGURG any more".to_owned(),
        () if is_unheard => {
            "its handler for SIGURG is the program's own, or a thread of it waits for signals".to_owned()
        }
        () => format!("no thread of it came to a point where it can be checked in {} s", PATIENCE.as_secs()),
    }
}

/// Whether the process that is a copy of another one has ended, to whose parent nobody tells it.
pub(super) fn has_copy_ended(copy: u32, of: &Identity) -> bool {
    // The numbers of one that is not there are those of another namespace.
    of.is_here() && Status::of(copy).map_or(true, |status| status.is_zombie())
}
