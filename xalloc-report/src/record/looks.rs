//! When the drain looks at a process's memory: often enough to see its peaks, seldom enough to cost next to nothing.
//!
//! # Invariant
//! Looks that nobody asked for take at most a hundredth of the process's life, all of them together: one is made when
//! what it is expected to take, and once more for the last, still fits. Counted is the processor time of the thread that
//! looks: on a busy machine that is what the program may lack; while the thread waits for a processor nobody pays for the
//! look, and a count of it would blind the recorder for a hundred times as long. Looks at marks keep to this too:
//! one that comes sooner is answered when there is room. What somebody asked for does not wait: a signal, which is sent
//! by hand, and marks if the program waits at them.
//!
//! # The one exception
//! The look at the end is made whatever the life was where it takes no more than [`LAST_FREE`]: without it a program that
//! lives for a blink would have no resident memory to speak of. Of a small program it takes some 180 us, a hundredth of
//! 18 ms.

use std::time::{Duration, Instant};

use xalloc_core::sys::clock::thread_cpu_ns;

use super::memory::resident_bytes;
use crate::trace::{Reason, Snapshot};

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

/// Whether a process is about to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It is not.
    No,
    /// It stands still until it is answered.
    Held,
    /// It has said its last word.
    Going,
}

/// Whether the process can be asked something while it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// It runs on.
    No,
    /// A thread of it waits for the recorder.
    Waiting,
    /// It runs on, and may be interrupted.
    BySignal,
}

/// A look for which it is time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    pub(super) reason: Reason,
    pub(super) held: Held,
}

/// Looks take one part in this of the process's life.
const SHARE: u32 = 100;
/// What the look at the end may take in any case.
const LAST_FREE: Duration = Duration::from_millis(3);
/// What a first look is expected to take of a process without memory, and for each MiB that it has: more than was measured
/// (see bench/results).
const FIRST: Duration = Duration::from_micros(200);
const FIRST_BY_MIB: Duration = Duration::from_micros(4);
/// How many times that a look is expected to take at most, whatever the last one took.
const MOST_OVER: u32 = 8;
/// Least time between two looks.
const SHORTEST: Duration = Duration::from_millis(50);
/// Time between two questions how large the process is, which cost microseconds.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Time between two looks when nothing happens.
const INTERVAL: Duration = Duration::from_secs(2);
/// A new peak is one that is larger than the last by one part in this.
const HYSTERESIS: u64 = 20;

/// What a look at a process of that size takes at most on a machine that is not busy.
fn by_size(resident_bytes: u64) -> Duration {
    FIRST + FIRST_BY_MIB.mul_f64(resident_bytes as f64 / f64::from(1 << 20))
}

/// The looks at one process.
#[derive(Debug)]
pub(super) struct Looks {
    began: Instant,
    asked: Instant,
    looked: Instant,
    /// What looks that nobody asked for have taken, and questions for the size.
    spent: Duration,
    /// What the last look took, and how large the process was.
    last: Option<(Duration, u64)>,
    largest_bytes: u64,
    has_ended: bool,
    /// What was asked for and has been looked at.
    answered: Asked,
    /// Whether the look that is being made was asked for.
    is_free: bool,
}

impl Looks {
    /// Of a process that has just begun; of `signals` only those that follow are meant for it.
    pub(super) fn new(signals: u32) -> Looks {
        let now = Instant::now();
        Looks {
            began: now,
            asked: now,
            looked: now,
            spent: Duration::ZERO,
            last: None,
            largest_bytes: 0,
            has_ended: false,
            answered: Asked { marks: 0, waits: 0, signals },
            is_free: false,
        }
    }

    /// The look for which it is time. Who asked for one is answered by it.
    pub(super) fn due(&mut self, pid: u32, ending: Ending, asked: Asked) -> Option<Due> {
        let due = self.find(pid, ending, asked)?;
        self.answered = asked;
        Some(due)
    }

    /// A look was made.
    pub(super) fn took(&mut self, snapshot: &Snapshot) {
        let took = Duration::from_nanos(snapshot.cost_ns);
        self.largest_bytes = self.largest_bytes.max(snapshot.resident_bytes);
        self.last = Some((took, snapshot.resident_bytes));
        self.looked = Instant::now();
        if !self.is_free {
            self.spent += took;
        }
    }

    /// What a look at a process of that size is expected to take.
    fn expected(&self, resident_bytes: u64) -> Duration {
        match self.last {
            None => by_size(resident_bytes),
            // Much of a look at a small process is no matter of its size.
            Some((took, bytes)) => {
                let grown = by_size(resident_bytes).as_secs_f64() / by_size(bytes).as_secs_f64();
                took.mul_f64(grown.max(1.0)).min(MOST_OVER * by_size(resident_bytes))
            }
        }
    }

    /// Whether so much more may be spent by now.
    fn may_take(&self, now: Instant, more: Duration) -> bool {
        SHARE * (self.spent + more) <= now - self.began
    }

    fn find(&mut self, pid: u32, ending: Ending, asked: Asked) -> Option<Due> {
        let now = Instant::now();
        self.is_free = false;
        if ending != Ending::No {
            if std::mem::replace(&mut self.has_ended, true) {
                return None;
            }
            let resident = resident_bytes(pid)?;
            let held = if ending == Ending::Held { Held::Waiting } else { Held::No };
            // Not by what the last one took, which a busy machine may have drawn out.
            let is_cheap = by_size(resident) <= LAST_FREE || self.may_take(now, self.expected(resident));
            return is_cheap.then_some(Due { reason: Reason::Exit, held });
        }
        // Who sends a signal wants it answered whatever it costs; marks may stand in a loop.
        self.is_free = true;
        if asked.signals != self.answered.signals {
            return Some(Due { reason: Reason::Signal, held: Held::BySignal });
        }
        if asked.waits != self.answered.waits {
            return Some(Due { reason: Reason::Marker, held: Held::Waiting });
        }
        self.is_free = false;
        let is_early = now < self.asked + ASK_EVERY || now < self.looked + SHORTEST;
        if is_early || !self.may_take(now, Duration::ZERO) {
            return None;
        }
        self.asked = now;
        let began_ns = thread_cpu_ns();
        let resident = resident_bytes(pid);
        self.spent += Duration::from_nanos(thread_cpu_ns() - began_ns);
        let resident = resident?;
        if !self.may_take(now, 2 * self.expected(resident)) {
            return None;
        }
        let reason = if asked.marks != self.answered.marks {
            Reason::Marker
        } else if resident > self.largest_bytes + self.largest_bytes / HYSTERESIS {
            Reason::Peak
        } else if now >= self.looked + INTERVAL {
            Reason::Interval
        } else {
            return None;
        };
        Some(Due { reason, held: Held::No })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::memory::look;
    use crate::trace::ProcessIndex;

    const NOTHING: Asked = Asked { marks: 0, waits: 0, signals: 0 };

    fn of_us(looks: &mut Looks, ending: Ending, asked: Asked) -> Option<Reason> {
        let pid = std::process::id();
        let due = looks.due(pid, ending, asked)?;
        let seen = look(pid, ProcessIndex(0), 0, due.reason).expect("a process may look at itself");
        looks.took(&seen);
        Some(due.reason)
    }

    #[test]
    fn looks_that_nobody_asked_for_take_a_hundredth_of_the_time_and_the_end_is_looked_at_once() {
        let mut looks = Looks::new(0);
        assert_eq!(of_us(&mut looks, Ending::No, NOTHING), None, "it has just begun");
        let mut seen = Vec::new();
        while seen.len() < 3 {
            looks.largest_bytes = 0;
            let (before, elapsed) = (looks.spent, looks.began.elapsed());
            if let Some(reason) = of_us(&mut looks, Ending::No, NOTHING) {
                seen.push(reason);
                assert!(SHARE * before <= elapsed, "{before:?} were spent of {elapsed:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(seen, [Reason::Peak; 3]);
        assert_eq!(of_us(&mut looks, Ending::Held, NOTHING), Some(Reason::Exit));
        assert_eq!(of_us(&mut looks, Ending::Held, NOTHING), None);
    }

    #[test]
    fn what_looks_took_already_keeps_the_next_away_but_not_the_one_that_is_asked_for() {
        let mut looks = Looks::new(7);
        looks.spent = Duration::from_secs(3600);
        std::thread::sleep(SHORTEST + ASK_EVERY);
        let mut at = |marks, waits, signals| of_us(&mut looks, Ending::No, Asked { marks, waits, signals });
        assert_eq!(at(1, 0, 7), None, "a mark has to wait, and the 7 signals came before the process");
        assert_eq!([at(1, 0, 8), at(1, 0, 8)], [Some(Reason::Signal), None]);
        assert_eq!([at(2, 1, 8), at(2, 1, 8), at(3, 2, 8)], [Some(Reason::Marker), None, Some(Reason::Marker)]);
        assert_eq!(looks.spent, Duration::from_secs(3600), "what was asked for counts for nothing");
    }

    #[test]
    fn a_look_is_expected_to_take_longer_by_what_grows_with_the_process_and_no_less_than_the_last() {
        let took = Duration::from_micros(400);
        let looks = Looks { last: Some((took, 10 << 20)), ..Looks::new(0) };
        assert_eq!([looks.expected(1 << 20), looks.expected(10 << 20)], [took, took]);
        let of_tenfold = looks.expected(100 << 20);
        assert!(of_tenfold > 2 * took && of_tenfold < 3 * took, "{of_tenfold:?}");
    }

    #[test]
    fn one_look_that_took_very_long_keeps_the_next_away_for_no_longer_than_its_own_time_costs() {
        let slow = Looks { last: Some((Duration::from_secs(2), 10 << 20)), ..Looks::new(0) };
        assert_eq!(slow.expected(10 << 20), MOST_OVER * by_size(10 << 20));
    }

    #[test]
    fn the_end_of_a_short_life_is_looked_at_where_that_is_cheap() {
        assert!(by_size(700 << 20) <= LAST_FREE && by_size(701 << 20) > LAST_FREE);
        let mut looks = Looks { spent: Duration::from_secs(3600), ..Looks::new(0) };
        let due = looks.due(std::process::id(), Ending::Going, NOTHING);
        assert_eq!(due, Some(Due { reason: Reason::Exit, held: Held::No }));
    }
}
