//! A recorded process's segment as bounded, typed views of memory that the process writes at the same time.
//!
//! The layout is `xalloc_core::session`'s. Nothing in the memory is believed: plain fields are copied out once, before
//! they are looked at; indices from the memory are bounded here; what can change meanwhile is only ever read as an
//! atomic.
//!
//! # Safety
//! - *The map is whole.* Its length is checked to be at least `SEGMENT_BYTES` when it is made, and every view lies at a
//!   constant offset below that, aligned as its type asks (the layout's ranges are; the map begins at a page).
//! - *Every bit pattern is a value.* The viewed types are integers, atomics of integers and arrays of them.
//! - *No `&` to what others write.* References are made to atomics and to cells (`Slot`) only; a damaged producer can
//!   tear a record, and a torn record is still 32 bytes of integers.
//! - *One consumer.* Only [`Segment::take`] makes consumers, it needs `&mut self`, and a segment is mapped by the one
//!   recorder that holds the lock of the session (`os::lock`).
//! - *The file may lose its length.* The recorder and the preload never shorten it, but the program can; what it cut off
//!   reads as zeroes then (`os::shared`), which is a value (second bullet).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::MmapOptions;
use xalloc_core::intern::{CAPACITY, Counters, FrameWord, Node, Trie};
use xalloc_core::ring::{Consumer, Indices, Slot};
use xalloc_core::session::blocks::{Handshake, NOT_SAID};
use xalloc_core::session::{Header, RingHeader, layout};
use xalloc_core::sys::futex;
use xalloc_core::units::{StackId, Stamp};
use xalloc_core::wire::{Kind, Record};

use super::shared::SharedMap;

/// The map of one segment.
#[derive(Debug)]
pub struct Segment {
    map: SharedMap,
}

/// What [`Segment::take`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Records that were copied out.
    pub records: usize,
    /// False if records with later stamps stayed behind.
    pub drained: bool,
}

impl Segment {
    /// Maps the segment in `file`, so that what the process writes is seen and what is taken is given back to it.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if the file is shorter than a segment; else what `mmap` reports.
    pub fn map_shared(file: &File) -> io::Result<Segment> {
        Segment::checked(SharedMap::new(MmapOptions::new().map_raw(file)?))
    }

    /// Maps the segment in `file` without ever changing the file: for a recording that a process made alone.
    ///
    /// # Errors
    /// As [`Segment::map_shared`].
    pub fn map_private(file: &File) -> io::Result<Segment> {
        // SAFETY: nothing takes the bytes for unchanging: they are read as any segment's (third and last bullet), and the
        // spilled batches are copied before they are looked at.
        let map = unsafe { MmapOptions::new().map_copy(file) }?;
        Segment::checked(SharedMap::new(map.into()))
    }

    fn checked(map: SharedMap) -> io::Result<Segment> {
        if map.len() < layout::SEGMENT_BYTES {
            let seen = format!("{} bytes are less than the {} of a segment", map.len(), layout::SEGMENT_BYTES);
            return Err(io::Error::new(io::ErrorKind::InvalidData, seen));
        }
        Ok(Segment { map })
    }

    /// Length of the file in bytes when it was mapped.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.map.len()
    }

    /// Whether the program shortened the file while it was read: what was behind its new end is lost.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.map.is_cut()
    }

    /// A copy of `into.len()` bytes from `offset`; false, and nothing copied, if they do not lie in the map.
    #[must_use]
    pub fn copy(&self, offset: usize, into: &mut [u8]) -> bool {
        let Some(end) = offset.checked_add(into.len()) else { return false };
        if end > self.map.len() {
            return false;
        }
        // SAFETY: `offset` lies in the map by the check above.
        let from = unsafe { self.map.as_ptr().add(offset) };
        // SAFETY: `into.len()` bytes from `from` lie in the map (check above), the destination is ours alone, and bytes
        // that change meanwhile are still bytes (second bullet).
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        true
    }

    /// A `u32` of the header that changes: one of `state`, `rings`.
    #[must_use]
    pub fn header_u32(&self, field: HeaderWord) -> u32 {
        let offset = match field {
            HeaderWord::State => offset_of!(Header, state),
            HeaderWord::Rings => offset_of!(Header, rings),
        };
        // ORDERING: pairs with the Release stores of the process: what it wrote before is seen after.
        self.view::<AtomicU32>(offset).load(Ordering::Acquire)
    }

    /// A counter of the header.
    #[must_use]
    pub fn header_u64(&self, counter: HeaderCounter) -> u64 {
        let offset = match counter {
            HeaderCounter::Lost(reason) => {
                offset_of!(Header, lost) + usize::from(reason % LOSS_COUNTERS) * size_of::<AtomicU64>()
            }
            HeaderCounter::VerifiedStacks => offset_of!(Header, verified_stacks),
            HeaderCounter::DifferingStacks => offset_of!(Header, differing_stacks),
            HeaderCounter::CutStacks => offset_of!(Header, cut_stacks),
            HeaderCounter::Waits => offset_of!(Header, waits),
            HeaderCounter::WaitedNs => offset_of!(Header, waited_ns),
            HeaderCounter::Spilled => offset_of!(Header, spilled),
        };
        self.view::<AtomicU64>(offset).load(Ordering::Relaxed)
    }

    /// Stacks that the process could not intern because its table was full.
    #[must_use]
    pub fn lost_stacks(&self) -> u64 {
        self.trie().lost()
    }

    /// The caller's node and the frame of node `id` of the process's trie.
    #[must_use]
    pub fn node(&self, id: StackId) -> Option<(StackId, FrameWord)> {
        self.trie().get(id)
    }

    /// What the process asks of the recorder, and what it says of the last answer.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let handshake = self.handshake();
        // ORDERING: pairs with the process's Release store: the marks were written before.
        let done = handshake.done.load(Ordering::Acquire);
        // ORDERING: pairs with the process's Release store: what it pushed before and what it says of the request.
        let request = handshake.request.load(Ordering::Acquire);
        Asked {
            request,
            done,
            // Relaxed: written before the numbers above.
            result: handshake.result.load(Ordering::Relaxed),
            occasion: handshake.occasion.load(Ordering::Relaxed),
            exit_stack: handshake.exit_stack.load(Ordering::Relaxed),
            control_addr: handshake.control_addr.load(Ordering::Relaxed),
            // ORDERING: pairs with the process's Release store: it has said all that it will of the copy.
            paused_us: Some(handshake.paused_us.load(Ordering::Acquire)).filter(|&paused| paused != NOT_SAID),
            copy: Some(handshake.copy.load(Ordering::Relaxed)).filter(|&copy| copy != 0),
            taken: handshake.taken.load(Ordering::Relaxed),
            // Relaxed: a count.
            heard: handshake.heard.load(Ordering::Relaxed),
        }
    }

    /// Demands a check. The signal that tells the process is the caller's to send.
    pub fn demand(&self, number: u32) {
        // ORDERING: pairs with the process's Acquire load: the last outcome was read.
        self.handshake().demand.store(number, Ordering::Release);
    }

    /// How many looks at its memory the process has asked for and waits for.
    #[must_use]
    pub fn looks_asked(&self) -> u32 {
        // ORDERING: pairs with the process's Release increment: the mark was pushed before.
        self.handshake().looks_asked.load(Ordering::Acquire)
    }

    /// So many of the looks were taken: their threads go on.
    pub fn answer_looks(&self, looks: u32) {
        let answered = &self.handshake().looks_answered;
        // Relaxed: only the recorder writes it.
        if answered.load(Ordering::Relaxed) == looks {
            return;
        }
        // ORDERING: pairs with the waiting threads' Acquire load: the look is over.
        answered.store(looks, Ordering::Release);
        futex::wake(answered, i32::MAX, futex::Scope::Shared);
    }

    /// Asks the process to look at itself, for the time of that number, and wakes a thread of it that waits for an answer.
    pub fn ask_for_own_look(&self, number: u32) {
        let handshake = self.handshake();
        // ORDERING: pairs with the process's Acquire load: the file that it writes to is there.
        handshake.own_look.store(number, Ordering::Release);
        for word in [&handshake.answer, &handshake.looks_answered] {
            futex::wake(word, i32::MAX, futex::Scope::Shared);
        }
    }

    /// Number of the last look at itself that the process is done with.
    #[must_use]
    pub fn own_look_done(&self) -> u32 {
        // ORDERING: pairs with the process's Release store: the file was written before.
        self.handshake().own_look_done.load(Ordering::Acquire)
    }

    /// Answers the request of that number, and wakes the process.
    pub fn answer(&self, request: u32, kind: u32) {
        let handshake = self.handshake();
        // Relaxed: published with the number.
        handshake.answer_is.store(kind, Ordering::Relaxed);
        // ORDERING: pairs with the process's Acquire load: the file is complete.
        handshake.answer.store(request, Ordering::Release);
        futex::wake(&handshake.answer, 1, futex::Scope::Shared);
    }

    /// Says that the outcome of the request of that number was read, and wakes the process if it waits to ask again.
    pub fn said_read(&self, request: u32) {
        let read = &self.handshake().read;
        // ORDERING: pairs with the process's Acquire load: the words that it writes next are not looked at any more.
        read.store(request, Ordering::Release);
        futex::wake(read, 1, futex::Scope::Shared);
    }

    fn handshake(&self) -> &Handshake {
        self.view(offset_of!(Header, handshake))
    }

    /// State of ring `ring`.
    #[must_use]
    pub fn ring_state(&self, ring: usize) -> u32 {
        // ORDERING: pairs with the Release store of CLOSING: all that the thread pushed is seen after.
        self.ring_word(ring, offset_of!(RingHeader, state)).load(Ordering::Acquire)
    }

    /// Gives ring `ring` back to the process: a thread may claim it.
    pub fn free_ring(&self, ring: usize) {
        // ORDERING: pairs with the Acquire exchange of the claiming thread: it sees our last `tail`.
        self.ring_word(ring, offset_of!(RingHeader, state))
            .store(xalloc_core::session::ring_state::FREE, Ordering::Release);
    }

    /// Serial number of the thread that owns ring `ring`.
    #[must_use]
    pub fn ring_thread(&self, ring: usize) -> u32 {
        // Relaxed: written before the state that the caller has loaded.
        self.ring_word(ring, offset_of!(RingHeader, thread)).load(Ordering::Relaxed)
    }

    /// Rings that may hold records: those from the first to the last that was ever claimed.
    #[must_use]
    pub fn rings(&self) -> usize {
        (self.header_u32(HeaderWord::Rings) as usize).min(layout::RINGS)
    }

    /// Wakes every thread that waits for space, so that it looks at the control page again.
    pub fn wake_waiting(&self) {
        for ring in 0..self.rings() {
            futex::wake(self.indices(ring).space(), 1, futex::Scope::Shared);
        }
    }

    /// How many records ring `ring` holds now; never more than its slots.
    #[must_use]
    pub fn available(&mut self, ring: usize) -> usize {
        // SAFETY: as in `take`.
        unsafe { Consumer::new(self.indices(ring), self.slots(ring)) }.available()
    }

    /// Moves the records of ring `ring` that are stamped at or before `until` behind `into`, some `about` of them, and
    /// wakes the thread if it waits for space.
    ///
    /// A text has no stamp; it goes with the record that announced it, even if that makes more than `about`.
    pub fn take(&mut self, ring: usize, until: Stamp, about: usize, into: &mut Vec<Record>) -> Taken {
        let indices = self.indices(ring);
        let slots = self.slots(ring);
        // SAFETY: the only consumer (fourth bullet; it lives in this function, which has `&mut self`); `slots_of` gives
        // each ring its own power of two of slots, the same that the process derives.
        let mut consumer = unsafe { Consumer::new(indices, slots) };
        let available = consumer.available();
        let before = into.len();
        let at_first = available.min(about);
        into.reserve(at_first);
        consumer.copy_to(&mut into.spare_capacity_mut()[..at_first]);
        // SAFETY: `copy_to` filled so many places behind `before`, within the capacity.
        unsafe { into.set_len(before + at_first) };
        // What is looked at from here on is the copy.
        let is_text = |record: &Record| record.kind == Kind::Text as u8;
        let taken = &into[before..];
        let later = taken.iter().position(|record| record.stamp > until.0 && !is_text(record));
        let mut records = later.unwrap_or(at_first);
        into.truncate(before + records);
        while later.is_none() && records < available {
            let record = consumer.peek(records);
            if !is_text(&record) {
                break;
            }
            into.push(record);
            records += 1;
        }
        if records > 0 && consumer.release(records) {
            futex::wake(indices.space(), 1, futex::Scope::Shared);
        }
        Taken { records, drained: records == available }
    }

    /// The atomics of type `T` at `offset` of the header.
    fn view<T: Atomic>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= layout::HEADER.end && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the map by the assertion and the first bullet.
        let place = unsafe { self.map.as_ptr().add(offset) }.cast::<T>();
        // SAFETY: aligned (assertion, page-aligned map), alive as long as `self`, an atomic (second and third bullet).
        unsafe { &*place }
    }

    fn ring_word(&self, ring: usize, field: usize) -> &AtomicU32 {
        // SAFETY: `field` is the offset of a field of `RingHeader`, which `ring_header` points to.
        let place = unsafe { self.ring_header(ring).cast::<u8>().add(field) }.cast::<AtomicU32>();
        // SAFETY: a 4-aligned field of a 64-aligned header inside the map; an atomic (second and third bullet).
        unsafe { &*place }
    }

    fn indices(&self, ring: usize) -> &Indices {
        // SAFETY: as in `ring_word`.
        let place = unsafe { self.ring_header(ring).cast::<u8>().add(offset_of!(RingHeader, indices)) };
        // SAFETY: 64-aligned inside a 64-aligned header; all words that anybody writes are atomics (third bullet).
        unsafe { &*place.cast::<Indices>() }
    }

    fn ring_header(&self, ring: usize) -> *const RingHeader {
        assert!(ring < layout::RINGS);
        // SAFETY: `RING_HEADERS` holds `RINGS` headers (layout), inside the map by the first bullet.
        unsafe { self.map.as_ptr().add(layout::RING_HEADERS.start + ring * size_of::<RingHeader>()) }.cast()
    }

    fn slots(&self, ring: usize) -> &[Slot] {
        assert!(ring < layout::RINGS);
        let range = layout::slots_of(ring);
        // SAFETY: inside the map by the layout and the first bullet.
        let first = unsafe { self.map.as_ptr().add(range.start) }.cast::<Slot>();
        // SAFETY: `range` is a whole number of slots, 32-aligned; slots are cells (third bullet).
        unsafe { slice::from_raw_parts(first, range.len() / size_of::<Slot>()) }
    }

    fn trie(&self) -> Trie<'_> {
        Trie::new(self.counters(), self.nodes(), &[])
    }

    fn counters(&self) -> &Counters {
        // SAFETY: inside the map by the first bullet.
        let counters = unsafe { self.map.as_ptr().add(offset_of!(Header, stacks)) }.cast::<Counters>();
        // SAFETY: 64-aligned by the type of the field in a page-aligned header; atomics (third bullet).
        unsafe { &*counters }
    }

    fn nodes(&self) -> &[Node] {
        // SAFETY: inside the map by the first bullet.
        let nodes = unsafe { self.map.as_ptr().add(layout::NODES.start) }.cast::<Node>();
        // SAFETY: `NODES` holds `CAPACITY` nodes, 16-aligned; atomics (third bullet).
        unsafe { slice::from_raw_parts(nodes, CAPACITY) }
    }
}

/// What a process asks of the recorder (`session::blocks::Handshake`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Number of its last request.
    pub request: u32,
    /// Number of the last request that it is done with.
    pub done: u32,
    /// What came of that.
    pub result: u32,
    /// Why it asks.
    pub occasion: u32,
    /// The process's number of the stack that called `exit`.
    pub exit_stack: u32,
    /// How long its threads were stopped for the check that was demanded last, microseconds; `None` while they are.
    pub paused_us: Option<u32>,
    /// The copy that works on that, once it is known.
    pub copy: Option<u32>,
    /// Number of the last demand that it took up.
    pub taken: u32,
    /// How often its handler of the signal that brings a demand has run.
    pub heard: u32,
    /// Where the blocks of its positive control lie.
    pub control_addr: u64,
}

/// Words of the header that change while the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderWord {
    /// `Header::state`.
    State,
    /// `Header::rings`.
    Rings,
}

/// Counters of the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderCounter {
    /// `Header::lost` for the loss reason with this number.
    Lost(u8),
    /// `Header::verified_stacks`.
    VerifiedStacks,
    /// `Header::differing_stacks`.
    DifferingStacks,
    /// `Header::cut_stacks`.
    CutStacks,
    /// `Header::waits`.
    Waits,
    /// `Header::waited_ns`.
    WaitedNs,
    /// `Header::spilled`.
    Spilled,
}

/// Entries of `Header::lost`.
const LOSS_COUNTERS: u8 = 8;

/// What [`Segment::view`] may lend: integers that are shared by design.
trait Atomic {}
impl Atomic for AtomicU32 {}
impl Atomic for AtomicU64 {}
impl Atomic for Handshake {}

#[cfg(test)]
pub(crate) mod fake;
