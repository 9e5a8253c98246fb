//! When the drain looks at a process's memory: often enough to see its peaks, seldom enough to cost next to nothing.
//!
//! # Invariant
//! Looks take at most one part in [`SHARE`] of the process's life: after a look that took t, at least SHARE times t
//! pass. They are the recorder's time, on its core; what the program feels is the kernel's lock on its mappings for as
//! long as these are read. Looks at marks keep this distance too: one that comes sooner is answered when it has passed.
//! What somebody asked for does not wait: a signal, which is sent by hand, and marks if the program waits at them.

use std::time::{Duration, Instant};

use xalloc_core::sys::clock::monotonic_ns;
use xalloc_core::units::Stamp;

use super::clock::{Clock, Timeline};
use super::memory::{look, resident_bytes};
use crate::trace::{ProcessIndex, Reason, Snapshot};

/// What asks for a look besides the time and the process's size: how often it was asked for so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Asked {
    /// Marks that the program set.
    pub(super) marks: u64,
    /// Marks at which a thread waits or has waited until it is looked at.
    pub(super) waits: u32,
    /// Signals that the recorder was sent.
    pub(super) signals: u32,
}

/// A look costs at most this part of the time since the one before: 0.8 %.
const SHARE: u32 = 125;
/// Least time between two looks.
const SHORTEST: Duration = Duration::from_millis(50);
/// Time between two questions how large the process is, which cost microseconds.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Time between two looks when nothing happens.
const INTERVAL: Duration = Duration::from_secs(2);
/// A new peak is one that is larger than the last by one part in this.
const HYSTERESIS: u64 = 20;

/// The looks at one process.
#[derive(Debug)]
pub(super) struct Looks {
    asked: Instant,
    looked: Instant,
    not_before: Instant,
    largest_bytes: u64,
    has_ended: bool,
    /// What was asked for and has been looked at.
    answered: Asked,
}

impl Looks {
    /// Of a process that has just begun; of `signals` only those that follow are meant for it.
    pub(super) fn new(signals: u32) -> Looks {
        let now = Instant::now();
        Looks {
            asked: now,
            looked: now,
            not_before: now + SHORTEST,
            largest_bytes: 0,
            has_ended: false,
            answered: Asked { marks: 0, waits: 0, signals },
        }
    }

    /// Looks at the process if it is time to. `is_ending` says that it began to end.
    pub(super) fn at(
        &mut self,
        pid: u32,
        process: ProcessIndex,
        timeline: &Timeline,
        is_ending: bool,
        asked: Asked,
    ) -> Option<Snapshot> {
        let now = Instant::now();
        let reason = self.reason(pid, now, is_ending, asked)?;
        self.answered = asked;
        let at_ns = timeline.at_ns(Clock::Monotonic, Stamp(monotonic_ns()));
        let snapshot = look(pid, process, at_ns, reason)?;
        self.largest_bytes = self.largest_bytes.max(snapshot.resident_bytes);
        self.looked = Instant::now();
        self.not_before = self.looked + (SHARE * Duration::from_nanos(snapshot.cost_ns)).max(SHORTEST);
        // A process that has given everything back already has nothing to tell.
        (!snapshot.mappings.is_empty() && snapshot.resident_bytes > 0).then_some(snapshot)
    }

    fn reason(&mut self, pid: u32, now: Instant, is_ending: bool, asked: Asked) -> Option<Reason> {
        if is_ending {
            return (!std::mem::replace(&mut self.has_ended, true)).then_some(Reason::Exit);
        }
        // Who sends a signal wants it answered whatever it costs; marks may stand in a loop.
        if asked.signals != self.answered.signals {
            return Some(Reason::Signal);
        }
        if asked.waits != self.answered.waits {
            return Some(Reason::Marker);
        }
        if now < self.not_before {
            return None;
        }
        if asked.marks != self.answered.marks {
            return Some(Reason::Marker);
        }
        if now < self.asked + ASK_EVERY {
            return None;
        }
        self.asked = now;
        let resident = resident_bytes(pid)?;
        if resident > self.largest_bytes + self.largest_bytes / HYSTERESIS {
            return Some(Reason::Peak);
        }
        (now >= self.looked + INTERVAL).then_some(Reason::Interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::clock::Reading;

    #[test]
    fn looks_keep_the_distance_that_their_cost_demands_and_the_end_is_looked_at_once() {
        let mut looks = Looks::new(0);
        let timeline = Timeline::starting_at(Reading::now());
        let pid = std::process::id();
        assert_eq!(looks.at(pid, ProcessIndex(0), &timeline, false, Asked::default()), None, "it has just begun");
        std::thread::sleep(SHORTEST + ASK_EVERY);
        let first =
            looks.at(pid, ProcessIndex(0), &timeline, false, Asked::default()).expect("the first look is a peak");
        assert_eq!(first.reason, Reason::Peak);
        assert!(looks.not_before >= looks.looked + SHARE * Duration::from_nanos(first.cost_ns));
        assert_eq!(looks.at(pid, ProcessIndex(0), &timeline, false, Asked::default()), None);
        let last = looks.at(pid, ProcessIndex(0), &timeline, true, Asked::default()).expect("the end is looked at");
        assert_eq!(last.reason, Reason::Exit);
        assert_eq!(looks.at(pid, ProcessIndex(0), &timeline, true, Asked::default()), None);
    }

    #[test]
    fn a_signal_is_answered_at_once_and_a_mark_when_the_distance_has_passed() {
        let mut looks = Looks::new(7);
        let timeline = Timeline::starting_at(Reading::now());
        let pid = std::process::id();
        let mut at = |marks, signals| {
            let asked = Asked { marks, waits: 0, signals };
            let seen = looks.at(pid, ProcessIndex(0), &timeline, false, asked);
            (seen.map(|snapshot| snapshot.reason), looks.not_before)
        };
        assert_eq!(at(1, 7).0, None, "the process has just begun, and the 7 signals came before it");
        let (seen, not_before) = at(1, 8);
        assert_eq!(seen, Some(Reason::Signal));
        assert_eq!(at(1, 8).0, None, "the mark was before that look");
        assert_eq!(at(2, 8).0, None);
        std::thread::sleep(not_before.saturating_duration_since(Instant::now()));
        assert_eq!(at(4, 8).0, Some(Reason::Marker), "one look for the three");
        assert_eq!(at(4, 8).0, None);
    }

    #[test]
    fn a_mark_at_which_the_program_waits_is_answered_at_once() {
        let mut looks = Looks::new(0);
        let timeline = Timeline::starting_at(Reading::now());
        let mut at = |marks, waits| {
            let asked = Asked { marks, waits, signals: 0 };
            looks.at(std::process::id(), ProcessIndex(0), &timeline, false, asked).map(|snapshot| snapshot.reason)
        };
        assert_eq!([at(1, 1), at(1, 1), at(2, 2)], [Some(Reason::Marker), None, Some(Reason::Marker)]);
    }
}
