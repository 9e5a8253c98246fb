//! What a thread does when its ring is full.
//!
//! It waits for the recorder: a few spins, then asleep on the ring's futex, which costs less than to spin or to yield
//! when both cores are busy. Whoever waits also watches: for a recorder that says it is finished, and for one that
//! died, whose lock on the control file is gone. In either case recording ends and the program runs on.

use core::hint::spin_loop;

use xalloc_core::ring::Producer;
use xalloc_core::session::{Refusal, overflow};
use xalloc_core::sys::clock::monotonic_ns;
use xalloc_core::sys::futex::{self, Scope};

use super::{Refused, Segment};
use crate::config::config;
use crate::lifecycle::{self, Phase};

/// Spins before a thread sleeps: the recorder may just be reading.
const SPINS: u32 = 50;
/// Longest sleep before the recorder's life is checked.
const PATIENCE_NS: u64 = 100_000_000;
/// Checks of a recorder of which nothing can be found out before it is given up.
const MOST_DOUBTS: u32 = 100;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// There is room now.
    Room,
    /// The user wants events dropped rather than waited for.
    Drop,
    /// Nobody will ever make room: recording has ended.
    Ended,
}

/// Makes room for `records` in the calling thread's ring, by waiting or by spilling.
#[cold]
#[inline(never)]
pub(crate) fn make_room(
    segment: &'static Segment,
    ring: usize,
    thread: u32,
    producer: &mut Producer<'static>,
    records: usize,
) -> Verdict {
    if segment.control.is_none() {
        if segment.spill(ring, thread) {
            return Verdict::Room;
        }
        if lifecycle::stop_recording() {
            Refused::by_system(Refusal::Write).tell(config());
        }
        return Verdict::Ended;
    }
    if segment.options.overflow == overflow::DROP {
        return Verdict::Drop;
    }
    let began_ns = monotonic_ns();
    let verdict = wait(segment, ring, producer, records);
    segment.count_wait(monotonic_ns().saturating_sub(began_ns));
    verdict
}

fn wait(segment: &'static Segment, ring: usize, producer: &mut Producer<'static>, records: usize) -> Verdict {
    segment.ring_doorbell();
    for _ in 0..SPINS {
        if producer.has_room(records) {
            return Verdict::Room;
        }
        spin_loop();
    }
    sleep(segment, ring, producer, records)
}

fn sleep(segment: &'static Segment, ring: usize, producer: &mut Producer<'static>, records: usize) -> Verdict {
    let Some(header) = segment.rings().get(ring) else { return Verdict::Ended };
    let mut doubts = 0;
    loop {
        let Some(seen) = producer.prepare_wait(records) else { return Verdict::Room };
        if lifecycle::phase() != Phase::Live {
            return Verdict::Ended;
        }
        segment.ring_doorbell();
        futex::wait(header.indices.space(), seen, Scope::Shared, PATIENCE_NS);
        if producer.has_room(records) {
            return Verdict::Room;
        }
        if segment.is_finished() {
            lifecycle::stop_recording();
            return Verdict::Ended;
        }
        match segment.recorder_holds_lock() {
            Some(true) => doubts = 0,
            Some(false) => doubts = MOST_DOUBTS,
            None => doubts += 1,
        }
        if doubts >= MOST_DOUBTS {
            lifecycle::stop_recording();
            return Verdict::Ended;
        }
    }
}
