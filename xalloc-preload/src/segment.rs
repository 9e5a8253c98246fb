//! The process's segment: the shared memory that its events, its stacks and its name go to.
//!
//! A segment is made when the process boots, and again in each forked child, at the same address: what a hook that was
//! interrupted by the fork still holds of the parent's segment then means the child's own memory, never the parent's.
//! Files are opened by path, mapped and closed, so the program finds no descriptor that it did not open, and closing
//! all of them does not stop a recording.
//!
//! # Invariant
//! [`current`] is `None` until a segment is complete, and then a segment that lives as long as the process; only a
//! forked child, while it boots and has one thread, puts another in its place.
//!
//! # Safety
//! - The mapping is `layout::SEGMENT_BYTES` long, page-aligned, never unmapped, and starts as zeroes, which is a valid
//!   value of every shared type of `session`, `ring` and `intern`. Ranges of `layout` lie inside it and do not overlap.
//! - What is shared with the recorder is atomic, or owned by one side at a time as `ring` says.
//! - The header's plain fields are written before its address is given to anybody.
//! - The static is written by the thread that boots the process, while no other can read it.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use xalloc_core::intern::{self, Node, Trie};
use xalloc_core::primitive::AtomicU32;
use xalloc_core::ring::{Consumer, Producer, Slot};
use xalloc_core::session::{self, Control, Header, Options, RingHeader, layout, ring_state, segment_state};
use xalloc_core::sys::clock;
use xalloc_core::units::Stamp;
use xalloc_core::wire::{LossReason, Record};

use crate::config::PATH;
use crate::host::{self, File};
use crate::text::Text;

mod control;
mod create;
mod full;
mod own_look;
mod refused;
mod reserve;
mod wait;

pub(crate) use control::Session;
pub(crate) use create::{Birth, create};
pub(crate) use full::{Verdict, make_room};
pub(crate) use refused::Refused;

/// A mapped segment.
pub(crate) struct Segment {
    base: NonNull<u8>,
    levels: [&'static [AtomicU32]; intern::LEVELS.len()],
    /// The file, to be opened again when a ring is claimed or spilled.
    path: Text<PATH>,
    /// The control page, where there is a recorder.
    control: Option<&'static Control>,
    /// The control file, to ask whether the recorder lives.
    control_path: Text<PATH>,
    /// How the time is read: one of the three numbers of `stamping`.
    stamping: AtomicU8,
    /// What the user asked for.
    pub(crate) options: Options,
    /// The process that the segment belongs to: another one runs on it between `vfork` and exec.
    pub(crate) pid: u32,
}

/// How the time of an event is read.
mod stamping {
    /// By the time-stamp counter, whenever the processor likes: there is one thread.
    pub(super) const ALONE: u8 = 0;
    /// By the time-stamp counter, after all that came before.
    pub(super) const ORDERED: u8 = 1;
    /// By the system's clock.
    pub(super) const MONOTONIC: u8 = 2;
}

struct Place(UnsafeCell<MaybeUninit<Segment>>);

// SAFETY: by the fourth bullet of the module.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(MaybeUninit::uninit()));
static CURRENT: AtomicPtr<Segment> = AtomicPtr::new(core::ptr::null_mut());

/// The process's segment, if it has one.
#[inline(always)]
pub(crate) fn current() -> Option<&'static Segment> {
    // ORDERING: pairs with the Release store in `install`: the segment is whole.
    let segment = CURRENT.load(Ordering::Acquire);
    // SAFETY: null, or the static that `install` filled.
    unsafe { segment.as_ref() }
}

/// The process's segment, which it has.
///
/// # Safety
/// - [`current`] has said so, or would.
#[inline(always)]
pub(crate) unsafe fn known() -> &'static Segment {
    let place = PLACE.0.get().cast::<Segment>();
    // SAFETY: by the contract `install` filled the place.
    unsafe { &*place }
}

/// Makes `segment` the process's.
///
/// # Safety
/// - The calling thread is booting the process, and no other uses the former segment.
unsafe fn install(segment: Segment) {
    let place = PLACE.0.get().cast::<Segment>();
    // SAFETY: by the contract this thread alone uses the place.
    unsafe { place.write(segment) };
    // ORDERING: pairs with the Acquire load in `current`.
    CURRENT.store(place, Ordering::Release);
}

/// Puts memory of nobody's in the place of a segment that a forked child inherited while a hook was using it. The hook
/// finishes into that memory; the child boots at its next call.
pub(crate) fn quarantine() {
    if let Some(segment) = current() {
        // SAFETY: the place is the inherited segment's mapping, which belongs to this library.
        unsafe { host::map_anonymous(layout::SEGMENT_BYTES, segment.base.as_ptr()) };
    }
}

/// Takes back that there is a segment: nothing will be recorded in it, and its file goes.
pub(crate) fn withdraw() {
    if let Some(segment) = current() {
        segment.set_ended();
        host::remove_file(segment.path.as_c());
    }
}

/// A ring that a thread has claimed.
pub(crate) struct Claim {
    /// Number of the ring in the segment.
    pub(crate) ring: usize,
    /// Serial number of the thread.
    pub(crate) thread: u32,
    /// The writing end.
    pub(crate) producer: Producer<'static>,
    /// Records that the ring holds.
    pub(crate) capacity: usize,
}

impl Segment {
    /// What the segment says of the process.
    pub(crate) fn header(&self) -> &'static Header {
        // SAFETY: first bullet of the module; plain fields are not written any more.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    fn rings(&self) -> &'static [RingHeader] {
        // SAFETY: first bullet of the module.
        unsafe { self.slice(layout::RING_HEADERS.start, layout::RINGS) }
    }

    fn slots(&self, ring: usize) -> &'static [Slot] {
        let range = layout::slots_of(ring);
        // SAFETY: first bullet of the module.
        unsafe { self.slice(range.start, range.len() / size_of::<Record>()) }
    }

    /// # Safety
    /// - `length` values of `T`, which is valid as zeroes, lie at `start` in the segment.
    unsafe fn slice<T>(&self, start: usize, length: usize) -> &'static [T] {
        // SAFETY: by the contract the place lies in the mapping.
        let first = unsafe { self.base.add(start) };
        // SAFETY: by the contract; shared types are atomic or cells.
        unsafe { core::slice::from_raw_parts(first.as_ptr().cast(), length) }
    }

    /// The stack trie.
    pub(crate) fn trie(&'static self) -> Trie<'static> {
        // SAFETY: first bullet of the module.
        let nodes: &'static [Node] = unsafe { self.slice(layout::NODES.start, intern::CAPACITY) };
        Trie::growing(&self.header().stacks, nodes, &self.levels, &reserve::TrieMemory)
    }

    /// The present, in the segment's clock.
    #[inline(always)]
    pub(crate) fn now(&self) -> Stamp {
        // Relaxed: a thread that starts another one sees what it stored itself.
        match self.stamping.load(Ordering::Relaxed) {
            stamping::ALONE => clock::ticks_unordered(),
            stamping::ORDERED => clock::ticks(),
            _ => monotonic(),
        }
    }

    /// There is more than one thread from here on: stamps must order what they hand to each other.
    pub(crate) fn order_stamps(&self) {
        let was = stamping::ALONE;
        let _was = self.stamping.compare_exchange(was, stamping::ORDERED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The first value of `stamping` in a process.
    const fn stamping_of(options: &Options) -> AtomicU8 {
        AtomicU8::new(if options.clock == session::clock::TSC { stamping::ALONE } else { stamping::MONOTONIC })
    }

    /// Whether only some of the program's blocks are recorded.
    #[inline(always)]
    pub(crate) fn is_sampled(&self) -> bool {
        self.options.sample_mean_bytes != 0
    }

    /// Counts events that cannot be told of in a ring.
    pub(crate) fn count_lost(&self, reason: LossReason, events: u64) {
        if let Some(counter) = self.header().lost.get(reason as usize) {
            // Relaxed: a statistic.
            counter.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// Counts a wait for room in a ring.
    pub(super) fn count_wait(&self, waited_ns: u64) {
        let Header { waits, waited_ns: sum_ns, .. } = self.header();
        // Relaxed: statistics.
        waits.fetch_add(1, Ordering::Relaxed);
        sum_ns.fetch_add(waited_ns, Ordering::Relaxed);
    }

    /// Claims a ring for the calling thread, whose serial number is new if it has none yet; `None` if all are taken or
    /// the file system has no room even for a small one.
    pub(crate) fn claim(&'static self, serial: Option<u32>) -> Option<Claim> {
        let (ring, header) = self.claim_reserved()?;
        // Relaxed: only uniqueness matters.
        let thread = serial.unwrap_or_else(|| self.header().threads.fetch_add(1, Ordering::Relaxed));
        if thread > 0 {
            // For a thread that was made without `pthread_create`, which says so earlier.
            self.order_stamps();
        }
        // Relaxed: the recorder reads it after a record, whose publication orders it.
        header.thread.store(thread, Ordering::Relaxed);
        // ORDERING: Release pairs with the recorder's Acquire load: who sees the number sees the ring claimed. It is said
        // before the first record, so that no record is in a ring that nobody looks at.
        self.header().rings.fetch_max(ring as u32 + 1, Ordering::Release);
        let slots = self.slots(ring);
        // SAFETY: the exchange made this thread the ring's only producer; rings are powers of two.
        let producer = unsafe { Producer::new(&header.indices, slots) };
        Some(Claim { ring, thread, producer, capacity: slots.len() })
    }

    /// Takes the first free ring whose slots the file system has room for.
    fn claim_reserved(&'static self) -> Option<(usize, &'static RingHeader)> {
        let mut first = 0;
        loop {
            let (ring, header) = self.rings().iter().enumerate().skip(first).find(|(_, ring)| {
                ring.state.load(Ordering::Relaxed) == ring_state::FREE
                    // ORDERING: Acquire pairs with the recorder's Release store of FREE: it has drained the ring.
                    && ring
                        .state
                        .compare_exchange(ring_state::FREE, ring_state::CLAIMED, Ordering::Acquire, Ordering::Relaxed)
                        .is_ok()
            })?;
            if self.reserve(layout::slots_of(ring)) {
                return Some((ring, header));
            }
            // ORDERING: as the recorder's: the ring is empty.
            header.state.store(ring_state::FREE, Ordering::Release);
            first = layout::first_smaller_than(ring);
        }
    }

    /// Gives a ring back; its records stay until the recorder has drained them. Without a recorder they are spilled.
    pub(crate) fn release(&self, ring: usize, thread: u32) {
        let Some(header) = self.rings().get(ring) else { return };
        // ORDERING: pairs with the recorder's Acquire load: the last record was pushed before.
        header.state.store(ring_state::CLOSING, Ordering::Release);
        if self.control.is_some() {
            return self.ring_doorbell();
        }
        if self.spill(ring, thread) {
            // ORDERING: pairs with the Acquire exchange in `claim`: the ring is empty.
            header.state.store(ring_state::FREE, Ordering::Release);
        }
    }

    /// The bytes of slots of a ring. They must be the calling thread's own as a consumer.
    fn slot_bytes(&self, ring: usize, range: Range<usize>) -> &[u8] {
        let start = layout::slots_of(ring).start + range.start * size_of::<Record>();
        // SAFETY: first bullet of the module; the producer, who is the caller too, writes no slot of its consumer.
        unsafe { self.slice(start, range.len() * size_of::<Record>()) }
    }

    /// Appends what a ring holds to the file. False: the disk is full, or the file cannot be opened; then the ring keeps
    /// its records, and they are read from there.
    ///
    /// The batch's header is written last, so that a batch that was cut short is none.
    fn spill(&self, ring: usize, thread: u32) -> bool {
        let Some(header) = self.rings().get(ring) else { return false };
        let slots = self.slots(ring);
        // SAFETY: there is no recorder, and the calling thread owns the ring: it is the only consumer.
        let mut consumer = unsafe { Consumer::new(&header.indices, slots) };
        let records = consumer.available();
        if records == 0 {
            return true;
        }
        let Some(file) = File::open(self.path.as_c(), libc::O_WRONLY) else { return false };
        let bytes = (size_of::<session::SpillHeader>() + records * size_of::<Record>()) as u64;
        // Relaxed: only uniqueness matters; a reader comes when the process is gone.
        let at = self.header().spill_end.fetch_add(bytes, Ordering::Relaxed);
        if at + bytes > host::file_size_limit() {
            return false;
        }
        let mut place = at + size_of::<session::SpillHeader>() as u64;
        let (first, second) = consumer.ranges(records);
        for range in [first, second] {
            let bytes = self.slot_bytes(ring, range);
            if !file.write_at(bytes, place) {
                return false;
            }
            place += bytes.len() as u64;
        }
        let batch = session::SpillHeader { magic: session::SPILL_MAGIC, thread, records: records as u32 };
        if !file.write_at(&batch.to_bytes(), at) {
            return false;
        }
        // Relaxed: a reader comes when the process is gone.
        self.header().spilled.fetch_add(records as u64, Ordering::Relaxed);
        // Nobody sleeps for this space: the producer is the caller.
        let _sleeper = consumer.release(records);
        true
    }

    /// Tells the recorder that there is something to see.
    pub(crate) fn ring_doorbell(&self) {
        if let Some(control) = self.control {
            control::ring_doorbell(control);
        }
    }

    /// Whether there is, or was, a recorder.
    pub(crate) fn has_recorder(&self) -> bool {
        self.control.is_some() && !self.is_finished()
    }

    /// Whether the recorder still takes events: it has not said that it is finished, and holds its lock.
    pub(crate) fn recorder_lives(&self) -> bool {
        self.has_recorder() && self.recorder_holds_lock().unwrap_or(true)
    }

    /// Whether the recorder holds its lock; `None` where that cannot be found out: no descriptor is left, the root was
    /// changed, or the process may not ask.
    fn recorder_holds_lock(&self) -> Option<bool> {
        if host::is_confined() {
            return None;
        }
        Some(File::open(self.control_path.as_c(), libc::O_RDONLY)?.is_write_locked())
    }

    /// Where the recorder puts the list of live blocks that was asked for.
    pub(crate) fn blocks_path(&self, request: u32) -> Text<PATH> {
        self.path_beside(b"blocks", request)
    }

    /// The segment's name with `what` for `segment`, and a number behind it.
    fn path_beside(&self, what: &[u8], number: u32) -> Text<PATH> {
        let path = self.path.as_bytes();
        let name = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = path.split_at(name);
        let mut beside = Text::of(directory);
        beside.push(what);
        beside.push(name.strip_prefix(b"segment".as_slice()).unwrap_or(name));
        beside.push(b".");
        beside.push_number(u64::from(number));
        beside
    }

    /// Whether the recorder has said that it wants no more.
    pub(crate) fn is_finished(&self) -> bool {
        // Relaxed: a hint; nothing is read because of it.
        self.control.is_some_and(|control| control.state.load(Ordering::Relaxed) == session::control_state::FINISHED)
    }

    /// A number for the fork that is about to happen; unique in the session, and never 0.
    pub(crate) fn next_fork(&self) -> u32 {
        match self.control {
            // Relaxed: only uniqueness matters.
            Some(control) => control.forks.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            None => create::local_fork(),
        }
    }

    /// Says that the process is about to end or to become another program.
    pub(crate) fn set_ended(&self) {
        // ORDERING: pairs with the recorder's Acquire load: the last words were pushed before.
        self.header().state.store(segment_state::ENDED, Ordering::Release);
        self.ring_doorbell();
    }

    /// Takes back [`Segment::set_ended`]: the exec failed.
    pub(crate) fn set_live(&self) {
        // ORDERING: as in `create`.
        self.header().state.store(segment_state::LIVE, Ordering::Release);
        self.ring_doorbell();
    }
}

#[cold]
#[inline(never)]
fn monotonic() -> Stamp {
    Stamp(clock::monotonic_ns())
}
