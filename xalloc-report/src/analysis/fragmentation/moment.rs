//! Moments, and the stretches of time in which the heap is as it is at one.

use crate::trace::{Block, Entry, Event, Replay};

/// The moment that a report is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// When the requested bytes were most, for the first time.
    Peak,
    /// After the last event.
    Exit,
    /// After the last event that is not later, in nanoseconds since the recording's start.
    Time(u64),
    /// After the event of that number.
    Seq(u64),
}

/// A stretch of time in which the heap is as it is at the moment that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Still {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Still {
    pub(super) fn at(at_ns: u64) -> Still {
        Still { from_ns: at_ns, to_ns: at_ns }
    }

    /// How far from it a time is; 0 within.
    pub(super) fn distance_ns(self, at_ns: u64) -> u64 {
        self.from_ns.saturating_sub(at_ns).max(at_ns.saturating_sub(self.to_ns))
    }
}

/// When an event happened, and when the one behind it; and when something happened last that a heap has to do with.
pub(super) struct Around {
    seq: u64,
    pub(super) changed_ns: Option<u64>,
    pub(super) at_ns: Option<u64>,
    pub(super) next_ns: Option<u64>,
}

impl Around {
    /// The event that `at` names, if it does.
    pub(super) fn of(at: At) -> Around {
        let seq = match at {
            At::Seq(seq) => seq,
            At::Peak | At::Exit | At::Time(_) => u64::MAX,
        };
        Around { seq, changed_ns: None, at_ns: None, next_ns: None }
    }
}

impl Replay for Around {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        if !matches!(entry.event, Event::Process(_) | Event::Marker { .. }) {
            self.changed_ns = Some(entry.at_ns);
        }
        if entry.seq < self.seq || self.next_ns.is_some() {
            return;
        }
        if self.at_ns.is_none() {
            self.at_ns = Some(entry.at_ns);
        } else {
            self.next_ns = Some(entry.at_ns);
        }
    }
}
