//! The events of a thread on their way into its ring.
//!
//! What cannot be pushed is counted, by reason, and told in a record as soon as there is room; what can never be told
//! is counted in the segment's header.

use core::hint::cold_path;

use xalloc_core::heap::Tunable;
use xalloc_core::ring::{Level, Producer, Room};
use xalloc_core::units::{StackId, Stamp};
use xalloc_core::wire::{Event, HeapCall, LossReason, Record, Stamped, TEXT_BYTES, text_records};

use crate::backend::{self, HEAP};
use crate::config::config;
use crate::host;
use crate::lifecycle::{self, Phase};
use crate::segment::{self, Claim, Segment, Verdict};

/// Calls between two attempts of a thread for which no ring was free.
const PAUSE: u32 = 4096;
/// Longest text of an event, in records.
const MOST_TEXT: usize = text_records(crate::config::PATH);

/// A thread's ring, and what it has lost.
pub(crate) struct Stream {
    claim: Option<Claim>,
    /// Serial number of the thread, once it had a ring: a ring that it gets later carries it on.
    serial: Option<u32>,
    /// Calls until the next attempt to get a ring.
    pause: u32,
    /// Whether `lost` holds anything.
    has_lost: bool,
    lost: [u64; LossReason::ALL.len()],
}

impl Stream {
    pub(super) const fn new() -> Stream {
        Stream { claim: None, serial: None, pause: 0, has_lost: false, lost: [0; LossReason::ALL.len()] }
    }

    /// Whether [`Stream::claim`] should be called.
    #[inline(always)]
    pub(crate) fn wants_ring(&self) -> bool {
        self.claim.is_none()
    }

    /// Claims a ring and says hello in it.
    #[cold]
    #[inline(never)]
    pub(crate) fn claim(&mut self, segment: &'static Segment) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let Some(claim) = segment.claim(self.serial) else {
            self.pause = PAUSE;
            return;
        };
        let is_first = self.serial.is_none();
        self.serial = Some(claim.thread);
        self.claim = Some(claim);
        if !is_first {
            return;
        }
        let name = host::thread_name();
        let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        let name = name.get(..length).unwrap_or_default();
        let tid = host::tid();
        let is_first_of_process = self.serial == Some(0);
        self.push_text(segment, StackId::NONE, name, |text_bytes| Event::ThreadStart { tid, text_bytes });
        if is_first_of_process {
            self.tell_tunables(segment);
        }
    }

    /// Says what the environment set of the heap's numbers.
    fn tell_tunables(&mut self, segment: &'static Segment) {
        let tunables = &config().tunables;
        for tunable in Tunable::ALL {
            if let Some(value) = tunables.get(tunable) {
                // What the machine does not have was asked for in vain.
                let is_void = tunable == Tunable::HugeTlb && backend::is_core() && !HEAP.has_huge_pages();
                let value = if is_void { 0 } else { value };
                let event = Event::HeapCall { call: HeapCall::Tunable, argument: tunable as i32, value };
                self.event(segment, segment.now(), StackId::NONE, event);
            }
        }
    }

    /// Pushes records, waiting for room if the user did not ask otherwise.
    pub(crate) fn push(&mut self, segment: &'static Segment, records: &[Record]) {
        if !self.has_lost
            && let Some(claim) = &mut self.claim
        {
            match claim.producer.push(records) {
                Ok(Level::Low) => return,
                Ok(Level::PassedHalf) => return segment.ring_doorbell(),
                Err(_) => {}
            }
        }
        self.push_slowly(segment, records);
    }

    /// Pushes one event.
    #[inline(always)]
    pub(crate) fn event(&mut self, segment: &'static Segment, stamp: Stamp, stack: StackId, event: Event) {
        self.push_one(segment, Stamped { stamp, stack, event }.encode());
    }

    /// As [`Stream::push`], of one record.
    #[inline(always)]
    pub(crate) fn push_one(&mut self, segment: &'static Segment, record: Record) {
        match self.room() {
            Some(room) => room.fill(record),
            None => {
                let [stamp, a, b, last] = record.to_words();
                self.push_one_slowly(segment, stamp, a, b, last);
            }
        }
    }

    /// Room for one record, if nothing else is to be done than to write it.
    #[inline(always)]
    pub(crate) fn room(&mut self) -> Option<Room<'_, 'static>> {
        if self.has_lost {
            cold_path();
            return None;
        }
        let Some(claim) = &mut self.claim else {
            cold_path();
            return None;
        };
        claim.producer.room()
    }

    /// The record comes in registers, so that who pushes it need not lay it down.
    #[cold]
    #[inline(never)]
    fn push_one_slowly(&mut self, segment: &'static Segment, stamp: u64, a: u64, b: u64, last: u64) {
        self.push(segment, &[Record::from_words([stamp, a, b, last])]);
    }

    #[cold]
    #[inline(never)]
    fn push_slowly(&mut self, segment: &'static Segment, records: &[Record]) {
        host::keeping_errno(|| {
            let Some(claim) = &mut self.claim else {
                return segment.count_lost(LossReason::NoRing, events_in(records));
            };
            if self.has_lost && !tell_lost(claim, segment, &mut self.lost) {
                return self.count_lost(LossReason::RingFull, events_in(records));
            }
            self.has_lost = false;
            loop {
                if claim.producer.push(records).is_ok() {
                    return;
                }
                let verdict = make_room(claim, segment, records.len());
                match verdict {
                    Verdict::Room => {}
                    Verdict::Drop => return self.count_lost(LossReason::RingFull, events_in(records)),
                    Verdict::Ended => return segment.count_lost(LossReason::RecorderGone, events_in(records)),
                }
            }
        });
    }

    /// Counts events that could not be pushed, to be told later.
    pub(crate) fn count_lost(&mut self, reason: LossReason, events: u64) {
        if let Some(count) = self.lost.get_mut(reason as usize)
            && events > 0
        {
            *count += events;
            self.has_lost = true;
        }
    }

    /// Pushes an event with text: `event` is given the number of bytes that fit.
    #[inline(never)]
    pub(crate) fn push_text(
        &mut self,
        segment: &'static Segment,
        stack: StackId,
        text: &[u8],
        event: impl FnOnce(u16) -> Event,
    ) {
        let Some(claim) = &self.claim else {
            return segment.count_lost(LossReason::NoRing, 1);
        };
        // Half a ring at most: the smallest has 128 records.
        let most = (claim.capacity / 2 - 1).min(MOST_TEXT) * TEXT_BYTES;
        let cut = text.get(..most).unwrap_or(text);
        let mut records = [Record::default(); 1 + MOST_TEXT];
        let event = event(cut.len() as u16);
        records[0] = Stamped { stamp: segment.now(), stack, event }.encode();
        for (record, part) in records.iter_mut().skip(1).zip(cut.chunks(TEXT_BYTES)) {
            let mut bytes = [0; TEXT_BYTES];
            for (to, from) in bytes.iter_mut().zip(part) {
                *to = *from;
            }
            *record = Stamped { stamp: Stamp(0), stack: StackId::NONE, event: Event::Text { bytes } }.encode();
        }
        self.push(segment, records.get(..1 + text_records(cut.len())).unwrap_or_default());
        if cut.len() < text.len() {
            self.count_lost(LossReason::Text, 1);
        }
    }

    /// Says farewell and gives the ring back.
    pub(crate) fn end(&mut self, segment: &'static Segment) {
        if self.claim.is_some() && lifecycle::phase() == Phase::Live {
            self.event(segment, segment.now(), StackId::NONE, Event::ThreadExit);
        }
        self.give_back(segment);
    }

    /// Gives the ring back.
    pub(crate) fn give_back(&mut self, segment: &'static Segment) {
        if self.claim.is_none() {
            return;
        }
        if self.has_lost {
            for (reason, &events) in LossReason::ALL.iter().zip(&self.lost) {
                segment.count_lost(*reason, events);
            }
            self.lost = [0; LossReason::ALL.len()];
            self.has_lost = false;
        }
        if let Some(claim) = self.claim.take() {
            segment.release(claim.ring, claim.thread);
        }
    }
}

/// How many events the records stand for.
fn events_in(records: &[Record]) -> u64 {
    records.iter().map(Record::events).sum()
}

fn make_room(claim: &mut Claim, segment: &'static Segment, records: usize) -> Verdict {
    let Claim { ring, thread, ref mut producer, capacity: _ } = *claim;
    let producer: &mut Producer<'static> = producer;
    segment::make_room(segment, ring, thread, producer, records)
}

/// Pushes a record for each reason that lost events. False: there is no room, and it is not to be waited for.
fn tell_lost(claim: &mut Claim, segment: &'static Segment, lost: &mut [u64]) -> bool {
    for (&reason, events) in LossReason::ALL.iter().zip(lost) {
        if *events == 0 {
            continue;
        }
        let event = Event::Lost { count: *events, reason };
        let record = Stamped { stamp: segment.now(), stack: StackId::NONE, event }.encode();
        while claim.producer.push(&[record]).is_err() {
            if make_room(claim, segment, 1) != Verdict::Room {
                return false;
            }
        }
        *events = 0;
    }
    true
}
