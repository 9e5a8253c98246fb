//! A single-producer, single-consumer ring of records in memory that two processes share.
//!
//! The producer is one thread of the recorded program, inside `malloc`; the consumer is the recorder. Neither may wait
//! for a lock of the other, because either can be killed at any instruction.
//!
//! # Invariant
//! `head` and `tail` count records ever written and ever read; they never wrap in practice (2^64), and
//! `tail <= head <= tail + capacity` holds at every instant. Slots `tail..head` belong to the consumer, all others to
//! the producer. Only the producer stores `head`, only the consumer stores `tail`. A record becomes visible whole or
//! not at all, and records of one [`Producer::push`] become visible together.
//!
//! # Why not one queue for all threads
//! One shared `fetch_add` per event costs 20 ns and more when two cores contend, which is the whole budget. A ring per
//! thread costs memory and a merge by time stamp in the recorder; both are cheap.
//!
//! # Safety
//! The slots are plain memory, and the cells make them shareable; that is sound because of the ownership rule above:
//! - a [`Producer`] touches only slots outside `tail..head`, and there is one producer per ring;
//! - a [`Consumer`] touches only slots within, and there is one consumer per ring.
#![allow(unsafe_code)]

use core::hint::cold_path;
use core::mem::MaybeUninit;
use core::ops::Range;

use crate::primitive::{AtomicU32, AtomicU64, Ordering, UnsafeCell, fence};
use crate::wire::Record;

/// The shared words of a ring; the producer's and the consumer's each on a cache line of their own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Indices {
    head: AtomicU64,
    producer_line: [u64; 7],
    tail: AtomicU64,
    /// 1 while the producer sleeps, or is about to, for want of space.
    waiting: AtomicU32,
    /// Futex word of that sleep: changes whenever space was made for a waiting producer.
    space: AtomicU32,
    consumer_line: [u64; 6],
}

#[cfg(not(xalloc_loom))]
const _: () = assert!(size_of::<Indices>() == 128);

impl Indices {
    /// The words of an empty ring. (Zeroed shared memory is the same, and is how rings come into being.)
    #[must_use]
    pub fn new() -> Self {
        Indices {
            head: AtomicU64::new(0),
            producer_line: [0; 7],
            tail: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            space: AtomicU32::new(0),
            consumer_line: [0; 6],
        }
    }

    /// The futex word a waiting producer sleeps on.
    #[must_use]
    pub fn space(&self) -> &AtomicU32 {
        &self.space
    }
}

impl Default for Indices {
    fn default() -> Self {
        Indices::new()
    }
}

/// A slot of a ring.
#[derive(Debug)]
#[repr(transparent)]
pub struct Slot(UnsafeCell<Record>);

impl Slot {
    /// A slot that holds nothing.
    #[must_use]
    pub fn empty() -> Self {
        Slot(UnsafeCell::new(Record::default()))
    }
}

// SAFETY: a slot belongs to either the producer or the consumer at any instant, never to both (module, "Safety"); the
// hand-over is ordered by the Release/Acquire pairs on `head` and `tail`.
unsafe impl Sync for Slot {}

/// The ring has no room for the records; nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// What the producer should know after a push.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Nothing to do.
    Low,
    /// The ring just passed half full: wake the recorder.
    PassedHalf,
}

/// The writing end.
#[derive(Debug)]
pub struct Producer<'a> {
    indices: &'a Indices,
    slots: &'a [Slot],
    head: u64,
    /// The consumer's position as last seen: at most the true one.
    tail: u64,
    /// Position of `head` at which `PassedHalf` is due.
    half: u64,
    /// Position of `head` up to which a single record can be written without a look at `tail` and `half`.
    plain_until: u64,
}

impl<'a> Producer<'a> {
    /// Takes the writing end.
    ///
    /// # Safety
    /// - No other `Producer` for these indices is in use, in any process.
    /// - `slots` is the same memory as the consumer's, and its length a power of two.
    #[must_use]
    pub unsafe fn new(indices: &'a Indices, slots: &'a [Slot]) -> Self {
        debug_assert!(slots.len().is_power_of_two());
        // Relaxed: only a producer stores `head`, and the previous one handed the ring over by the claim of its state.
        let head = indices.head.load(Ordering::Relaxed);
        Producer { indices, slots, head, tail: head.saturating_sub(slots.len() as u64), half: head, plain_until: 0 }
    }

    /// Writes one record and publishes it, as [`Producer::push`] does.
    ///
    /// # Errors
    /// As [`Producer::push`].
    #[inline(always)]
    pub fn push_one(&mut self, record: Record) -> Result<Level, Full> {
        match self.room() {
            Some(room) => {
                room.fill(record);
                Ok(Level::Low)
            }
            None => self.push(&[record]),
        }
    }

    /// Room for one record, if that is certain without a look at how full the ring is. `None`: [`Producer::push`] finds
    /// out.
    #[inline(always)]
    pub fn room(&mut self) -> Option<Room<'_, 'a>> {
        if self.head >= self.plain_until {
            cold_path();
            return None;
        }
        Some(Room(self))
    }

    /// Writes the slot at `at`, which lies in `head..tail + capacity`.
    #[inline(always)]
    fn write(&self, at: u64, record: Record) {
        // The mask keeps the index below the length, a power of two.
        let slot = &self.slots[(at & (self.slots.len() as u64 - 1)) as usize];
        slot.0.with_mut(|slot| {
            // SAFETY: a slot of the producer (module, "Safety").
            unsafe { slot.write(record) }
        });
    }

    /// Writes `records` and publishes them together.
    ///
    /// # Errors
    /// [`Full`] if there is no room for all of them now; nothing is written then.
    pub fn push(&mut self, records: &[Record]) -> Result<Level, Full> {
        let after = self.head + records.len() as u64;
        if after > self.tail + self.slots.len() as u64 {
            self.refresh_tail();
            if after > self.tail + self.slots.len() as u64 {
                return Err(Full);
            }
        }
        for (at, record) in (self.head..after).zip(records) {
            self.write(at, *record);
        }
        self.head = after;
        // ORDERING: publishes the slots written above; pairs with the Acquire load of `head` in `Consumer::available`.
        self.indices.head.store(after, Ordering::Release);
        if after < self.half {
            return Ok(Level::Low);
        }
        Ok(self.level())
    }

    /// Off the fast path: once in half a ring, looks how full it really is.
    #[cold]
    fn level(&mut self) -> Level {
        self.refresh_tail();
        let half = self.slots.len() as u64 / 2;
        let filled = self.head - self.tail;
        if filled >= half {
            self.half = self.head + half;
            self.set_plain();
            Level::PassedHalf
        } else {
            self.half = self.tail + half;
            self.set_plain();
            Level::Low
        }
    }

    /// After a change of `tail` or `half`: a record at a position below must fit, and leave `head` below `half`.
    fn set_plain(&mut self) {
        self.plain_until = (self.tail + self.slots.len() as u64).min(self.half.saturating_sub(1));
    }

    fn refresh_tail(&mut self) {
        // ORDERING: pairs with the Release store of `tail` in `Consumer::release`: the slots below are read to the end.
        self.tail = self.indices.tail.load(Ordering::Acquire);
        self.set_plain();
    }

    /// Whether there is room for `records` now.
    pub fn has_room(&mut self, records: usize) -> bool {
        self.refresh_tail();
        self.head + records as u64 <= self.tail + self.slots.len() as u64
    }

    /// Announces that this thread will sleep until there is space, and returns the value of [`Indices::space`] to
    /// sleep on, or `None` if there is room for `records` now.
    pub fn prepare_wait(&mut self, records: usize) -> Option<u32> {
        // ORDERING: pairs with the Release of `space` in `Consumer::release`: a value from after a wake-up means that the
        // `waiting = 0` before it cannot come after the `waiting = 1` here.
        let seen = self.indices.space.load(Ordering::Acquire);
        self.indices.waiting.store(1, Ordering::Relaxed);
        // ORDERING: pairs with the fence in `Consumer::release`: either that sees `waiting`, or this sees its `tail`.
        fence(Ordering::SeqCst);
        self.refresh_tail();
        if self.head + records as u64 <= self.tail + self.slots.len() as u64 {
            self.indices.waiting.store(0, Ordering::Relaxed);
            return None;
        }
        Some(seen)
    }
}

/// Room for one record in a ring that is not half full, until anything else is done with its writing end.
#[derive(Debug)]
pub struct Room<'p, 'a>(&'p mut Producer<'a>);

impl Room<'_, '_> {
    /// Writes the record and publishes it: [`Producer::push`] without a look at anything.
    #[inline(always)]
    pub fn fill(self, record: Record) {
        let Room(producer) = self;
        producer.write(producer.head, record);
        producer.head += 1;
        // ORDERING: as in `push`.
        producer.indices.head.store(producer.head, Ordering::Release);
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer<'a> {
    indices: &'a Indices,
    slots: &'a [Slot],
    tail: u64,
}

impl<'a> Consumer<'a> {
    /// Takes the reading end.
    ///
    /// # Safety
    /// - No other `Consumer` for these indices is in use, in any process.
    /// - `slots` is the same memory as the producer's, and its length a power of two.
    #[must_use]
    pub unsafe fn new(indices: &'a Indices, slots: &'a [Slot]) -> Self {
        debug_assert!(slots.len().is_power_of_two());
        // Relaxed: only the consumer stores `tail`.
        let tail = indices.tail.load(Ordering::Relaxed);
        Consumer { indices, slots, tail }
    }

    /// How many records can be read now. A producer that misbehaves cannot make this exceed the capacity.
    #[must_use]
    pub fn available(&self) -> usize {
        // ORDERING: pairs with the Release store of `head` in `Producer::push`: the records below are whole.
        let head = self.indices.head.load(Ordering::Acquire);
        head.saturating_sub(self.tail).min(self.slots.len() as u64) as usize
    }

    /// A copy of the record `ahead` places from the oldest, which must be below [`Consumer::available`]'s last answer.
    #[must_use]
    pub fn peek(&self, ahead: usize) -> Record {
        let mask = self.slots.len() as u64 - 1;
        let slot = &self.slots[((self.tail + ahead as u64) & mask) as usize];
        slot.0.with(|slot| {
            // SAFETY: the slot lies in `tail..head`, a slot of the consumer (module, "Safety").
            unsafe { slot.read() }
        })
    }

    /// Fills `into` with copies of the oldest records, of which it may ask for no more than [`Consumer::available`] said.
    pub fn copy_to(&self, into: &mut [MaybeUninit<Record>]) {
        let (first, second) = self.ranges(into.len());
        let (to_end, from_start) = into.split_at_mut(first.len());
        for (places, slots) in [(to_end, &self.slots[first]), (from_start, &self.slots[second])] {
            for (place, slot) in places.iter_mut().zip(slots) {
                slot.0.with(|slot| {
                    // SAFETY: the slot lies in `tail..head`, a slot of the consumer (module, "Safety").
                    place.write(unsafe { slot.read() });
                });
            }
        }
    }

    /// Where the oldest `records` lie, which must not be more than [`Consumer::available`] said: the slots up to the end
    /// of the memory, and those that go on at its start.
    #[must_use]
    pub fn ranges(&self, records: usize) -> (Range<usize>, Range<usize>) {
        let first = (self.tail & (self.slots.len() as u64 - 1)) as usize;
        let to_end = records.min(self.slots.len() - first);
        (first..first + to_end, 0..records - to_end)
    }

    /// Gives the oldest `records` slots back to the producer. True if the producer sleeps and must be woken on
    /// [`Indices::space`].
    #[must_use]
    pub fn release(&mut self, records: usize) -> bool {
        self.tail += records as u64;
        // ORDERING: the slots were read before this; pairs with the Acquire load in `Producer::refresh_tail`.
        self.indices.tail.store(self.tail, Ordering::Release);
        // ORDERING: pairs with the fence in `Producer::prepare_wait` (see there).
        fence(Ordering::SeqCst);
        if self.indices.waiting.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.indices.waiting.store(0, Ordering::Relaxed);
        // ORDERING: publishes `waiting = 0`; pairs with the Acquire load of `space` in `Producer::prepare_wait`. (The
        // sleeper itself needs no order: a futex compares the value under the kernel's own lock.)
        self.indices.space.fetch_add(1, Ordering::Release);
        true
    }
}

#[cfg(all(test, not(xalloc_loom)))]
mod tests {
    use super::*;

    fn ring(capacity: usize) -> (Indices, Vec<Slot>) {
        (Indices::new(), (0..capacity).map(|_| Slot::empty()).collect())
    }

    fn record(number: u64) -> Record {
        Record { stamp: number, ..Record::default() }
    }

    #[test]
    fn what_lies_around_the_end_of_the_memory_is_two_ranges() {
        let (indices, slots) = ring(8);
        // SAFETY: the only producer of this ring; 8 is a power of two.
        let mut producer = unsafe { Producer::new(&indices, &slots) };
        // SAFETY: the only consumer of this ring; 8 is a power of two.
        let mut consumer = unsafe { Consumer::new(&indices, &slots) };
        for number in 0..6 {
            producer.push(&[record(number)]).unwrap();
        }
        assert_eq!(consumer.ranges(6), (0..6, 0..0));
        assert!(!consumer.release(5));
        for number in 6..12 {
            producer.push(&[record(number)]).unwrap();
        }
        assert_eq!(consumer.available(), 7);
        assert_eq!(consumer.ranges(7), (5..8, 0..4));
        let mut copies = [MaybeUninit::new(Record::default()); 7];
        consumer.copy_to(&mut copies);
        for (number, copy) in (5..).zip(copies) {
            // SAFETY: a record was in it from the start.
            assert_eq!(unsafe { copy.assume_init() }, record(number));
        }
    }

    #[test]
    fn records_come_out_in_the_order_in_which_they_went_in() {
        let (indices, slots) = ring(8);
        // SAFETY: the only producer of this ring; 8 is a power of two.
        let mut producer = unsafe { Producer::new(&indices, &slots) };
        // SAFETY: the only consumer of this ring; 8 is a power of two.
        let mut consumer = unsafe { Consumer::new(&indices, &slots) };
        let mut next = 0;
        for round in 0..50 {
            for number in 0..round % 9 {
                producer.push_one(record(next + number)).unwrap();
            }
            let available = consumer.available();
            assert_eq!(available as u64, round % 9);
            for ahead in 0..available {
                assert_eq!(consumer.peek(ahead).stamp, next + ahead as u64);
            }
            next += available as u64;
            assert!(!consumer.release(available));
        }
        assert_eq!(consumer.available(), 0);
    }

    #[test]
    fn a_full_ring_takes_all_records_of_a_push_or_none() {
        let (indices, slots) = ring(4);
        // SAFETY: the only producer of this ring; 4 is a power of two.
        let mut producer = unsafe { Producer::new(&indices, &slots) };
        // SAFETY: the only consumer of this ring; 4 is a power of two.
        let mut consumer = unsafe { Consumer::new(&indices, &slots) };
        producer.push(&[record(0), record(1), record(2)]).unwrap();
        assert_eq!(producer.push(&[record(3), record(4)]), Err(Full));
        assert_eq!(consumer.available(), 3);
        let seen = producer.prepare_wait(2).expect("the ring is still full");
        assert!(consumer.release(3), "the waiting producer must be woken");
        assert_ne!(indices.space().load(Ordering::Relaxed), seen);
        producer.push(&[record(3), record(4)]).unwrap();
        assert_eq!(consumer.available(), 2);
    }

    #[test]
    fn passing_half_is_told_once_until_the_consumer_catches_up() {
        let (indices, slots) = ring(8);
        // SAFETY: the only producer of this ring; 8 is a power of two.
        let mut producer = unsafe { Producer::new(&indices, &slots) };
        // SAFETY: the only consumer of this ring; 8 is a power of two.
        let mut consumer = unsafe { Consumer::new(&indices, &slots) };
        let levels: Vec<Level> = (0..6).map(|n| producer.push_one(record(n)).unwrap()).collect();
        assert_eq!(levels.iter().filter(|&&level| level == Level::PassedHalf).count(), 1, "{levels:?}");
        assert_eq!(levels[3], Level::PassedHalf);
        assert!(!consumer.release(6));
        let levels: Vec<Level> = (0..6).map(|n| producer.push_one(record(n)).unwrap()).collect();
        assert_eq!(levels.iter().filter(|&&level| level == Level::PassedHalf).count(), 1, "{levels:?}");
    }
}
