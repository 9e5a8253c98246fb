//! Where the states of threads lie: chunks of slots in mappings of our own, and a directory of who owns which.
//!
//! The holder of a slot is its thread, by the address of its descriptor ([`Tenure`]). A new thread that finds its own
//! address in the directory is the successor of a thread that ended.
//!
//! # Safety
//! - A slot's address is `chunk + index`, in a mapping that is never undone and starts as zeroes, which is the first
//!   value of a [`ThreadCapture`].
//! - A slot is written by the thread that has just got its place in the directory, by one exchange of the place's word.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use xalloc_core::sys::tenure::{Holder, Tenure};

use super::Thread;
use crate::capture::ThreadCapture;
use crate::host;

/// The memory of one thread's state.
#[repr(C, align(64))]
struct Slot {
    thread: MaybeUninit<Thread>,
    /// Kept from one owner to the next: a thread that ends leaves it as good as new.
    capture: ThreadCapture,
}

/// Slots of a chunk: a mapping takes no memory until it is touched, but counts against limits of address space.
const CHUNK: usize = 8;
/// Most threads that can have a state at once; further ones allocate without cache and record nothing.
const MOST: usize = 1 << 15;

static PLACES: [Tenure; MOST] = [const { Tenure::new() }; MOST];
static CHUNKS: [AtomicPtr<Slot>; MOST / CHUNK] = [const { AtomicPtr::new(null_mut()) }; MOST / CHUNK];
/// Entries of the directory that were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

fn used() -> &'static [Tenure] {
    PLACES.get(..USED.load(Ordering::Relaxed)).unwrap_or(&PLACES)
}

/// A slot that a thread has, or that a thread with the same descriptor had.
#[derive(Clone, Copy)]
pub(super) struct Found {
    entry: usize,
    /// Its place in the directory.
    pub(super) place: &'static Tenure,
    /// The state in it.
    pub(super) thread: &'static Thread,
}

/// The slot that `holder` has.
pub(super) fn find(holder: Holder) -> Option<Found> {
    let (entry, place) = used().iter().enumerate().find(|(_, place)| place.is_of(holder))?;
    // ORDERING: pairs with the Release exchange in `chunk`.
    let chunk = CHUNKS.get(entry / CHUNK)?.load(Ordering::Acquire);
    if chunk.is_null() {
        return None;
    }
    // SAFETY: first bullet of the module; the thread lies at the slot's start, and `begin` wrote it.
    let thread = unsafe { chunk.wrapping_add(entry % CHUNK).cast::<Thread>().as_ref() }?;
    Some(Found { entry, place, thread })
}

/// Gives `holder` a slot, in the state of a thread that has done nothing yet. `None`: there is no room.
pub(super) fn claim(holder: Holder) -> Option<&'static Thread> {
    let (entry, place) = take_entry(holder)?;
    let begun = begin(entry, place);
    if begun.is_none() {
        place.give_up();
    }
    begun
}

/// Begins anew in a slot that the caller has just got from a thread that is gone.
pub(super) fn renew(found: Found) -> Option<&'static Thread> {
    begin(found.entry, found.place)
}

fn begin(entry: usize, place: &'static Tenure) -> Option<&'static Thread> {
    let slot = chunk(entry / CHUNK)?.wrapping_add(entry % CHUNK);
    let capture = slot.wrapping_byte_add(core::mem::offset_of!(Slot, capture)).cast::<ThreadCapture>();
    // SAFETY: by the bullets of the module it has a value, and it is this holder's alone.
    let capture = unsafe { &mut *capture };
    let thread = slot.cast::<Thread>();
    // SAFETY: second bullet of the module; the thread lies at the slot's start.
    unsafe { thread.write(Thread::new(place, capture)) };
    // SAFETY: just written.
    unsafe { thread.as_ref() }
}

fn take_entry(holder: Holder) -> Option<(usize, &'static Tenure)> {
    if let Some(taken) = used().iter().enumerate().find(|(_, place)| place.claim(holder)) {
        return Some(taken);
    }
    if let Some(taken) = take_over(holder) {
        return Some(taken);
    }
    loop {
        // Relaxed: the number alone is unique.
        let entry = USED.fetch_add(1, Ordering::Relaxed);
        let Some(place) = PLACES.get(entry) else {
            USED.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        if place.claim(holder) {
            return Some((entry, place));
        }
    }
}

/// Slots of threads that are over that are looked at for a new thread: each look is a system call.
const LOOKS: usize = 8;

/// Takes the slot of a thread that is over and that the kernel does not know any more.
fn take_over(holder: Holder) -> Option<(usize, &'static Tenure)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let used = used();
    for _ in 0..LOOKS.min(used.len()) {
        // Relaxed: any place will do to begin at.
        let entry = NEXT.fetch_add(1, Ordering::Relaxed).checked_rem(used.len())?;
        let Some(place) = used.get(entry) else { continue };
        let Some(over) = place.over() else { continue };
        if !host::keeping_errno(|| host::is_thread(over.thread())) && place.take_over(over, holder) {
            return Some((entry, place));
        }
    }
    None
}

fn chunk(number: usize) -> Option<*mut Slot> {
    let place = CHUNKS.get(number)?;
    // ORDERING: pairs with the Release exchange below.
    let chunk = place.load(Ordering::Acquire);
    if !chunk.is_null() {
        return Some(chunk);
    }
    let bytes = CHUNK * size_of::<Slot>();
    // SAFETY: a new mapping, wherever the kernel likes.
    let made = host::keeping_errno(|| unsafe { host::map_anonymous(bytes, null_mut()) })?;
    // ORDERING: Release publishes the mapping; Acquire pairs with it where another thread was first.
    match place.compare_exchange(null_mut(), made.as_ptr().cast(), Ordering::Release, Ordering::Acquire) {
        Ok(_) => Some(made.as_ptr().cast()),
        Err(other) => {
            // SAFETY: the mapping was made above, and nobody knows it.
            unsafe { host::unmap(made, bytes) };
            Some(other)
        }
    }
}

/// Takes every slot back but that of `holder`: after a fork the other threads do not exist.
pub(super) fn keep_only(holder: Option<Holder>) {
    for place in used() {
        if !holder.is_some_and(|holder| place.is_of(holder)) {
            place.give_up();
        }
    }
}
