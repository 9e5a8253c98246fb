//! One process: its rings merged into one order, its ids into the trace's.
//!
//! # A pass
//! The caller reads the clock (`until`) before any ring. Records stamped at or before it are taken from every ring and
//! merged by stamp; later ones stay. Whatever a merged record depends on was published before its stamp was made, so it
//! is among those taken, and the order is right without a window in which events wait. A record that was stamped but
//! not yet published has no dependants; it comes with the next pass, and its time is clamped.
//!
//! # Runs
//! Threads are scheduled in turns, so records of one lane come in runs. The merge keeps the lanes in a heap by their
//! next stamp, and works on the first lane until it passes the second's stamp: a heap step a run, not a record.
//!
//! # What is trusted
//! Nothing: a number that decodes to no event, a text without its announcement, a range of no module are counted as
//! damage; a stamp in the future is clamped to the pass.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;
use xalloc_core::session::ring_state;
use xalloc_core::units::{StackId, Stamp};
use xalloc_core::wire::{Kind, LossReason, Record};

use super::dictionary::Dictionary;
use super::forks::Forks;
use super::identity::Identity;
use super::ignored::Ignored;
use super::lane::Lane;
use super::modules::ModuleTables;
use super::stacks::LocalStacks;
use super::{Copied, Sink};
use crate::os::segment::{HeaderCounter, Segment};
use crate::record::clock::{Microseconds, Timeline};
use crate::record::spill::Spilled;
use crate::trace::{Incoming, Loss, ProcessIndex, StackIndex, Thread, ThreadIndex};

mod special;

/// Records that a lane takes from its ring at a time: 256 KiB, which are still in the second-level cache when they are
/// merged. A thread that waits for room is woken after each; with 1,024 records it would sleep again at once, and the
/// switches made a program whose ring is always full half as slow again.
const BATCH_RECORDS: usize = 8192;

/// Events handed on together: with their records a quarter of what a second-level cache holds.
const BATCH: usize = 1024;

/// What stands in a place of a batch that was never used.
const NO_EVENT: Incoming =
    Incoming { record: Record::from_words([0; 4]), at_us: 0, thread: ThreadIndex(0), stack: StackIndex::NONE };

/// Why no more common records were taken from a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// There are none up to the limit.
    Limit,
    /// The batch is full.
    Full,
    /// The next one is special.
    Special,
}

/// By the number of a kind, how many values of `sub` make a record common, that is one that needs nothing but its
/// numbers put into the trace's terms.
const COMMON_SUBS: [u16; 256] = {
    const STEPS: std::ops::RangeInclusive<u8> = Kind::HeapBrk as u8..=Kind::HeapMergeBinned as u8;
    let mut subs = [0; 256];
    let mut at = 0;
    while at < Kind::ALL.len() {
        let kind = Kind::ALL[at] as u8;
        let is_of_blocks = kind >= Kind::Alloc as u8 && kind <= Kind::AllocFilled as u8;
        if is_of_blocks || (kind >= *STEPS.start() && kind <= *STEPS.end()) {
            subs[kind as usize] = Record::subs_of(Kind::ALL[at]);
        }
        at += 1;
    }
    subs
};

#[inline]
fn is_common(record: &Record) -> bool {
    u16::from(record.sub) < COMMON_SUBS[usize::from(record.kind)]
}

/// How far time has come among the records of a process.
struct Pace {
    last_stamp: Stamp,
    last_us: u64,
    /// Nothing can have happened later.
    ceiling_us: u64,
    microseconds: Microseconds,
    /// Records behind a later one.
    late: u64,
}

impl Pace {
    /// Puts the records of a thread into as many places, each with its time. In a function of its own, and without a look at
    /// anything else: what a step leaves to the next one stays in registers.
    #[inline(never)]
    fn stamp(mut self, records: &[Record], thread: ThreadIndex, into: &mut [Incoming]) -> Pace {
        for (record, place) in records.iter().zip(into) {
            let stamp = Stamp(record.stamp);
            self.late += u64::from(stamp < self.last_stamp);
            self.last_stamp = stamp.max(self.last_stamp);
            self.last_us = self.microseconds.at(stamp).min(self.ceiling_us).max(self.last_us);
            *place = Incoming { record: *record, at_us: self.last_us, thread, stack: StackIndex::NONE };
        }
        self
    }
}

/// What all streams of a recording share.
#[derive(Debug)]
pub(crate) struct Shared<'a, S, F> {
    pub(crate) dictionary: &'a mut Dictionary,
    pub(crate) timeline: &'a Timeline,
    pub(crate) sink: &'a mut S,
    pub(crate) forks: &'a mut Forks<F>,
}

/// What the events said about the end of the process so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LastWord {
    /// Nothing.
    None,
    /// It announced to exit with this status.
    Exit(i32),
    /// It announced to exec.
    Exec,
}

/// One process being recorded.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) index: ProcessIndex,
    pub(crate) identity: Identity,
    pub(crate) segment: Segment,
    pub(crate) modules: ModuleTables,
    pub(crate) last_word: LastWord,
    /// Marks that the program has set.
    pub(crate) marks: u64,
    pub(crate) events: u64,
    pub(crate) late_events: u64,
    /// Records that could not be read.
    pub(crate) damaged: u64,
    spilled: Option<Spilled>,
    lanes: Vec<Lane>,
    order: BinaryHeap<Reverse<(Stamp, usize)>>,
    threads: FxHashMap<u32, ThreadIndex>,
    stacks: LocalStacks,
    /// What checks for leaks are to leave alone.
    pub(crate) ignored: Ignored,
    /// What was live when the process was copied to be checked, until that is asked for.
    pub(crate) copied: Option<Copied>,
    lost: [u64; LossReason::ALL.len()],
    last_stamp: Stamp,
    last_ns: u64,
    last_us: u64,
    /// Nothing that is merged now can have happened later than this.
    ceiling_ns: u64,
    /// The stamp up to which this pass takes records.
    until: Stamp,
    /// As long as it ever was; what is translated and not handed on stands in the first [`Self::batched`] places.
    batch: Vec<Incoming>,
    batched: usize,
}

impl Stream {
    pub(crate) fn new(index: ProcessIndex, identity: Identity, segment: Segment, modules: ModuleTables) -> Stream {
        Stream {
            index,
            identity,
            segment,
            modules,
            last_word: LastWord::None,
            marks: 0,
            events: 0,
            late_events: 0,
            damaged: 0,
            spilled: None,
            lanes: Vec::new(),
            order: BinaryHeap::new(),
            threads: FxHashMap::default(),
            stacks: LocalStacks::new(index.0),
            ignored: Ignored::default(),
            copied: None,
            lost: [0; LossReason::ALL.len()],
            last_stamp: Stamp(0),
            last_ns: 0,
            last_us: 0,
            ceiling_ns: u64::MAX,
            until: Stamp(u64::MAX),
            batch: Vec::new(),
            batched: 0,
        }
    }

    /// Takes the records from a file instead of from a living process's rings: lanes are threads then.
    pub(crate) fn read_spilled(&mut self, spilled: Spilled) {
        self.lanes = (0..spilled.threads()).map(|lane| Lane::of_thread(spilled.serial(lane))).collect();
        self.spilled = Some(spilled);
        for lane in 0..self.lanes.len() {
            self.refill(lane);
        }
    }

    /// Takes the first of what the rings hold up to `until`; merging takes the rest. True if something came.
    ///
    /// The process claims rings from the first on, so only as many are looked at as it ever claimed.
    pub(crate) fn collect(&mut self, until: Stamp, timeline: &Timeline) -> bool {
        debug_assert!(self.order.is_empty());
        self.until = until;
        self.ceiling_ns = timeline.at_ns(self.identity.clock, until);
        let rings = self.segment.rings();
        if rings > self.lanes.len() {
            self.lanes.resize_with(rings, Lane::default);
        }
        for ring in 0..self.lanes.len() {
            let state = self.segment.ring_state(ring);
            if state == ring_state::FREE {
                continue;
            }
            let serial = self.segment.ring_thread(ring);
            if serial != self.lanes[ring].thread_serial {
                self.lanes[ring] = Lane::of_thread(serial);
            }
            self.lanes[ring].allowance = self.segment.available(ring);
            let is_drained = self.refill(ring);
            // The state was read before the records: after CLOSING nothing more is pushed.
            if state == ring_state::CLOSING && is_drained {
                self.segment.free_ring(ring);
            }
        }
        !self.order.is_empty()
    }

    /// Fills an empty lane with a batch of what comes next. True if nothing is left where it comes from.
    fn refill(&mut self, at: usize) -> bool {
        let lane = &mut self.lanes[at];
        let allowance = lane.allowance;
        let into = lane.refill();
        let is_drained = match &mut self.spilled {
            None => {
                let taken = self.segment.take(at, self.until, BATCH_RECORDS.min(allowance), into);
                lane.allowance = allowance.saturating_sub(taken.records);
                taken.drained
            }
            Some(spilled) => {
                spilled.refill(at, &mut self.segment, into);
                into.is_empty()
            }
        };
        self.order.extend(self.lanes[at].stamp().map(|stamp| Reverse((stamp, at))));
        is_drained
    }

    /// Merges what was collected.
    pub(crate) fn merge<S: Sink>(&mut self, shared: &mut Shared<'_, S, S::LiveSet>) -> Result<(), S::Error> {
        while let Some(Reverse((_, at))) = self.order.pop() {
            let limit = self.order.peek().map_or(Stamp(u64::MAX), |Reverse((stamp, _))| *stamp);
            // Out of the list for the time of the run, so that the lane and the rest can be worked on together.
            let mut lane = std::mem::take(&mut self.lanes[at]);
            let outcome = self.run(&mut lane, limit, shared);
            let next = lane.stamp();
            self.lanes[at] = lane;
            outcome?;
            match next {
                Some(stamp) => self.order.push(Reverse((stamp, at))),
                None => {
                    self.refill(at);
                }
            }
        }
        self.flush(shared)
    }

    /// Merges records of `lane` while they are stamped at or before `limit`.
    fn run<S: Sink>(
        &mut self,
        lane: &mut Lane,
        limit: Stamp,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        loop {
            let stop = self.take_common(lane, limit, shared);
            match stop {
                Stop::Limit => return Ok(()),
                Stop::Full => self.flush(shared)?,
                Stop::Special => {
                    self.flush(shared)?;
                    if let Some(record) = lane.pop() {
                        self.special(lane, &record, shared)?;
                    }
                }
            }
        }
    }

    /// Hands on what was translated.
    fn flush<S: Sink>(&mut self, shared: &mut Shared<'_, S, S::LiveSet>) -> Result<(), S::Error> {
        if shared.dictionary.take_gained() {
            shared.sink.gain(&shared.dictionary.contents);
        }
        let batched = std::mem::take(&mut self.batched);
        if batched == 0 { Ok(()) } else { shared.sink.push_all(self.index, &self.batch[..batched]) }
    }

    /// Translates common records of `lane` that are stamped at or before `limit`, and says what comes then.
    fn take_common<S: Sink>(&mut self, lane: &mut Lane, limit: Stamp, shared: &mut Shared<'_, S, S::LiveSet>) -> Stop {
        let room = BATCH - self.batched;
        let thread = match (lane.thread, lane.stamp()) {
            (Some(thread), _) => thread,
            (None, Some(first)) => self.name_thread(lane, self.time_of(first, shared.timeline), shared.dictionary),
            (None, None) => return Stop::Limit,
        };
        let ahead = lane.ahead();
        let at_most = &ahead[..room.min(ahead.len())];
        let ends = at_most.iter().position(|record| record.stamp > limit.0 || !is_common(record));
        let taken = ends.unwrap_or(at_most.len());
        let stop = match ahead.get(taken) {
            Some(next) if next.stamp > limit.0 => Stop::Limit,
            Some(_) if ends.is_none() => Stop::Full,
            Some(_) => Stop::Special,
            None => Stop::Limit,
        };
        let pace = Pace {
            last_stamp: self.last_stamp,
            last_us: self.last_us,
            ceiling_us: self.ceiling_ns / 1000,
            microseconds: shared.timeline.microseconds(self.identity.clock),
            late: 0,
        };
        let before = self.batched;
        self.batched += taken;
        if self.batch.len() < self.batched {
            self.batch.resize(self.batched, NO_EVENT);
        }
        let place = &mut self.batch[before..self.batched];
        let pace = pace.stamp(&at_most[..taken], thread, place);
        for incoming in place {
            let id = StackId(incoming.record.stack);
            incoming.stack = self.stacks.resolve(id, &self.segment, &self.modules, shared.dictionary);
        }
        (self.last_stamp, self.last_us) = (pace.last_stamp, pace.last_us);
        self.last_ns = self.time_of(pace.last_stamp, shared.timeline);
        self.late_events += pace.late;
        self.events += taken as u64;
        lane.advance(taken);
        stop
    }

    /// When something stamped like that happened: not before what was merged already, not after this pass.
    #[inline]
    fn time_of(&self, stamp: Stamp, timeline: &Timeline) -> u64 {
        timeline.at_ns(self.identity.clock, stamp).min(self.ceiling_ns).max(self.last_ns)
    }

    #[cold]
    fn name_thread(&mut self, lane: &mut Lane, at_ns: u64, dictionary: &mut Dictionary) -> ThreadIndex {
        let thread = *self.threads.entry(lane.thread_serial).or_insert_with(|| {
            let threads = &mut dictionary.contents.threads;
            dictionary.gained = true;
            threads.push(Thread {
                process: self.index,
                tid: 0,
                name: String::new(),
                started_at_ns: at_ns,
                ended_at_ns: None,
            });
            ThreadIndex(u32::try_from(threads.len() - 1).expect("Linux knows fewer than 2^32 threads"))
        });
        lane.thread = Some(thread);
        thread
    }

    /// Names the files of frames that had none yet.
    pub(crate) fn place_homeless(&mut self, dictionary: &mut Dictionary) {
        self.stacks.place_homeless(&self.modules, dictionary);
    }

    /// When the last merged event happened, nanoseconds since the start of the recording.
    pub(crate) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// The trace's stack for the process's `id`.
    pub(crate) fn resolve(&mut self, id: StackId, dictionary: &mut Dictionary) -> StackIndex {
        self.stacks.resolve(id, &self.segment, &self.modules, dictionary)
    }

    /// Counts events that the process had pushed and that nobody can read any more.
    pub(crate) fn count_lost(&mut self, reason: LossReason, events: u64) {
        self.lost[reason as usize] += events;
    }

    /// What is known to be missing: counted in the stream, and in the header by threads that had no ring to say it in.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        let total = |&reason: &LossReason| {
            let in_header = self.segment.header_u64(HeaderCounter::Lost(reason as u8));
            Loss { reason, events: self.lost[reason as usize].saturating_add(in_header) }
        };
        LossReason::ALL.iter().map(total).filter(|loss| loss.events > 0).collect()
    }
}
