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
use xalloc_core::session::{layout, ring_state};
use xalloc_core::units::Stamp;
use xalloc_core::wire::{Event, LossReason, Stamped};

use super::Sink;
use super::dictionary::Dictionary;
use super::forks::{Fork, Forks};
use super::identity::Identity;
use super::lane::Lane;
use super::modules::ModuleTables;
use super::stacks::LocalStacks;
use crate::os::segment::{HeaderCounter, HeaderWord, Segment};
use crate::record::clock::Timeline;
use crate::record::spill::Spilled;
use crate::trace::{Incoming, Loss, Module, ProcessIndex, Thread, ThreadIndex};

/// Records that a lane takes from its ring at a time: 256 KiB, which are still in the second-level cache when they are
/// merged. A thread that waits for room is woken after each; with 1,024 records it would sleep again at once, and the
/// switches made a program whose ring is always full half as slow again.
const BATCH_RECORDS: usize = 8192;

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
    pub(crate) events: u64,
    pub(crate) late_events: u64,
    /// Records that could not be read.
    pub(crate) damaged: u64,
    spilled: Option<Spilled>,
    lanes: Vec<Lane>,
    order: BinaryHeap<Reverse<(Stamp, usize)>>,
    threads: FxHashMap<u32, ThreadIndex>,
    stacks: LocalStacks,
    lost: [u64; LossReason::ALL.len()],
    last_stamp: Stamp,
    last_ns: u64,
    /// Nothing that is merged now can have happened later than this.
    ceiling_ns: u64,
    /// The stamp up to which this pass takes records.
    until: Stamp,
}

impl Stream {
    pub(crate) fn new(index: ProcessIndex, identity: Identity, segment: Segment, modules: ModuleTables) -> Stream {
        Stream {
            index,
            identity,
            segment,
            modules,
            last_word: LastWord::None,
            events: 0,
            late_events: 0,
            damaged: 0,
            spilled: None,
            lanes: Vec::new(),
            order: BinaryHeap::new(),
            threads: FxHashMap::default(),
            stacks: LocalStacks::new(index.0),
            lost: [0; LossReason::ALL.len()],
            last_stamp: Stamp(0),
            last_ns: 0,
            ceiling_ns: u64::MAX,
            until: Stamp(u64::MAX),
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
    /// The process claims rings from the first on, so only as many are looked at as it ever had threads.
    pub(crate) fn collect(&mut self, until: Stamp, timeline: &Timeline) -> bool {
        debug_assert!(self.order.is_empty());
        self.until = until;
        self.ceiling_ns = timeline.at_ns(self.identity.clock, until);
        let rings = (self.segment.header_u32(HeaderWord::Threads) as usize).min(layout::RINGS);
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
        Ok(())
    }

    /// Merges records of `lane` while they are stamped at or before `limit`.
    fn run<S: Sink>(
        &mut self,
        lane: &mut Lane,
        limit: Stamp,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        while let Some(record) = lane.pop(limit) {
            self.record(lane, record, shared)?;
        }
        Ok(())
    }

    #[inline]
    fn record<S: Sink>(
        &mut self,
        lane: &mut Lane,
        record: Option<Stamped>,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        let Some(stamped) = record else {
            self.damaged += 1;
            return Ok(());
        };
        self.events += 1;
        if stamped.stamp >= self.last_stamp {
            self.last_stamp = stamped.stamp;
        } else {
            self.late_events += 1;
        }
        let at_ns = shared.timeline.at_ns(self.identity.clock, stamped.stamp).min(self.ceiling_ns).max(self.last_ns);
        self.last_ns = at_ns;
        let thread = match lane.thread {
            Some(thread) => thread,
            None => self.name_thread(lane, at_ns, shared.dictionary),
        };
        let stack = self.stacks.resolve(stamped.stack, &self.segment, &self.modules, shared.dictionary);
        if shared.dictionary.take_gained() {
            shared.sink.gain(&shared.dictionary.contents);
        }
        let Stamped { stamp, event, .. } = stamped;
        let incoming = Incoming { at_ns, stamp, thread, stack, event, text: Box::default() };
        match event {
            Event::Alloc { .. }
            | Event::AllocFailed { .. }
            | Event::Free { .. }
            | Event::ReallocBegin { .. }
            | Event::ReallocUndo { .. }
            | Event::Heap { .. }
            | Event::ProgramUnmap { .. }
            | Event::ProgramRemapFrom { .. }
            | Event::ProgramRemapTo { .. }
            | Event::ProgramAdvise { .. }
            | Event::ProgramBrk { .. } => shared.sink.push(self.index, &incoming),
            Event::ProgramMap { .. }
            | Event::Marker { .. }
            | Event::ThreadStart { .. }
            | Event::ThreadExit
            | Event::Fork { .. }
            | Event::Exec { .. }
            | Event::ExecFailed
            | Event::Exit { .. }
            | Event::Module { .. }
            | Event::ModuleRange { .. }
            | Event::ModulesClosed { .. }
            | Event::Lost { .. }
            | Event::Text { .. } => self.rare(lane, incoming, shared),
        }
    }

    /// Events that say something about the process itself, or that text follows.
    #[cold]
    fn rare<S: Sink>(
        &mut self,
        lane: &mut Lane,
        mut incoming: Incoming,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        let text_bytes = match incoming.event {
            Event::ProgramMap { text_bytes, .. }
            | Event::Marker { text_bytes }
            | Event::ThreadStart { text_bytes, .. }
            | Event::Exec { text_bytes }
            | Event::Module { text_bytes, .. } => text_bytes,
            Event::Alloc { .. }
            | Event::AllocFailed { .. }
            | Event::Free { .. }
            | Event::ReallocBegin { .. }
            | Event::ReallocUndo { .. }
            | Event::Heap { .. }
            | Event::ProgramUnmap { .. }
            | Event::ProgramRemapFrom { .. }
            | Event::ProgramRemapTo { .. }
            | Event::ProgramAdvise { .. }
            | Event::ProgramBrk { .. }
            | Event::ThreadExit
            | Event::Fork { .. }
            | Event::ExecFailed
            | Event::Exit { .. }
            | Event::ModuleRange { .. }
            | Event::ModulesClosed { .. }
            | Event::Lost { .. }
            | Event::Text { .. } => 0,
        };
        let text = lane.pop_text(usize::from(text_bytes));
        self.damaged += u64::from(text.is_none());
        let text = text.unwrap_or_default();
        let thread = &mut shared.dictionary.contents.threads[incoming.thread.0 as usize];
        match incoming.event {
            Event::ThreadStart { tid, .. } => {
                (thread.tid, thread.name) = (tid, String::from_utf8_lossy(&text).into_owned());
            }
            Event::ThreadExit => thread.ended_at_ns = Some(incoming.at_ns),
            Event::Exec { .. } => self.last_word = LastWord::Exec,
            Event::ExecFailed => self.last_word = LastWord::None,
            Event::Exit { status } => self.last_word = LastWord::Exit(status),
            Event::ModulesClosed { generation } => self.modules.begin_generation(generation),
            Event::Lost { count, reason } => {
                self.lost[reason as usize] = self.lost[reason as usize].saturating_add(count);
            }
            Event::Module { bias, serial, .. } => {
                match module(&text) {
                    Some(module) => self.modules.announce(serial, shared.dictionary.module(module), bias.0),
                    None => self.damaged += 1,
                }
                return Ok(());
            }
            Event::ModuleRange { start, len_bytes, serial } => {
                if self.modules.add_range(serial, start.0, len_bytes) {
                    self.stacks.place_homeless(&self.modules, shared.dictionary);
                } else {
                    self.damaged += 1;
                }
                return Ok(());
            }
            // Texts are taken with the record that announces them: this one has none.
            Event::Text { .. } => {
                self.damaged += 1;
                return Ok(());
            }
            Event::Alloc { .. }
            | Event::AllocFailed { .. }
            | Event::Free { .. }
            | Event::ReallocBegin { .. }
            | Event::ReallocUndo { .. }
            | Event::Heap { .. }
            | Event::ProgramUnmap { .. }
            | Event::ProgramRemapFrom { .. }
            | Event::ProgramRemapTo { .. }
            | Event::ProgramAdvise { .. }
            | Event::ProgramBrk { .. }
            | Event::ProgramMap { .. }
            | Event::Marker { .. }
            | Event::Fork { .. } => {}
        }
        incoming.text = String::from_utf8_lossy(&text).into();
        shared.sink.push(self.index, &incoming)?;
        if let Event::Fork { fork_serial } = incoming.event
            && shared.forks.wants(self.identity.pid, fork_serial)
        {
            let live_set = shared.sink.live_set(self.index)?;
            let fork = Fork { parent: self.index, live_set, modules: self.modules.clone() };
            shared.forks.keep(self.identity.pid, fork_serial, fork);
        }
        Ok(())
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

    /// What is known to be missing: counted in the stream, and in the header by threads that had no ring to say it in.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        let total = |&reason: &LossReason| {
            let in_header = self.segment.header_u64(HeaderCounter::Lost(reason as u8));
            Loss { reason, events: self.lost[reason as usize].saturating_add(in_header) }
        };
        LossReason::ALL.iter().map(total).filter(|loss| loss.events > 0).collect()
    }
}

/// A module's text: one byte of build-id length, the build-id, the path.
fn module(text: &[u8]) -> Option<Module> {
    use std::os::unix::ffi::OsStrExt;
    let (&length, rest) = text.split_first()?;
    let (build_id, path) = rest.split_at_checked(usize::from(length))?;
    Some(Module { path: std::ffi::OsStr::from_bytes(path).into(), build_id: build_id.to_vec() })
}
