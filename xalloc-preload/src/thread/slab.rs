//! Where the states of threads lie: chunks of slots in mappings of our own, and a directory of who owns which.
//!
//! The owner of a slot is the address of its thread's descriptor. A new thread that finds its own address in the
//! directory is the successor of a thread that ended.
//!
//! # Safety
//! - A slot's address is `chunk + index`, in a mapping that is never undone and starts as zeroes, which is the first
//!   value of a [`ThreadCapture`].
//! - A slot is written by the thread that has just put its address into the directory's empty entry.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

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

static OWNERS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
static CHUNKS: [AtomicPtr<Slot>; MOST / CHUNK] = [const { AtomicPtr::new(null_mut()) }; MOST / CHUNK];
/// Entries of the directory that were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

fn used() -> &'static [AtomicUsize] {
    OWNERS.get(..USED.load(Ordering::Relaxed)).unwrap_or(&OWNERS)
}

fn entry_of(owner: usize) -> Option<usize> {
    used().iter().position(|entry| entry.load(Ordering::Relaxed) == owner)
}

/// The slot that `owner` has.
pub(super) fn find(owner: usize) -> Option<&'static Thread> {
    thread_at(entry_of(owner)?)
}

/// The state in a slot that has, or had, an owner.
fn thread_at(entry: usize) -> Option<&'static Thread> {
    // ORDERING: pairs with the Release exchange in `chunk`.
    let chunk = CHUNKS.get(entry / CHUNK)?.load(Ordering::Acquire);
    if chunk.is_null() {
        return None;
    }
    // SAFETY: first bullet of the module; the thread lies at the slot's start, and `claim` wrote it.
    unsafe { chunk.wrapping_add(entry % CHUNK).cast::<Thread>().as_ref() }
}

/// Gives `owner` a slot, in the state of a thread that has done nothing yet. `None`: there is no room.
pub(super) fn claim(owner: usize) -> Option<&'static Thread> {
    let entry = take_entry(owner)?;
    let Some(chunk) = chunk(entry / CHUNK) else {
        release(owner);
        return None;
    };
    let slot = chunk.wrapping_add(entry % CHUNK);
    let capture = slot.wrapping_byte_add(core::mem::offset_of!(Slot, capture)).cast::<ThreadCapture>();
    // SAFETY: by the bullets of the module it has a value, and it is this owner's alone.
    let capture = unsafe { &mut *capture };
    let thread = slot.cast::<Thread>();
    // SAFETY: second bullet of the module; the thread lies at the slot's start.
    unsafe { thread.write(Thread::new(capture)) };
    // SAFETY: just written.
    unsafe { thread.as_ref() }
}

fn take_entry(owner: usize) -> Option<usize> {
    let is_taken = |entry: &AtomicUsize| {
        entry.load(Ordering::Relaxed) == 0
            // ORDERING: pairs with the Release store in `release`: the former owner has left the slot.
            && entry.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
    };
    if let Some(entry) = used().iter().position(is_taken) {
        return Some(entry);
    }
    if let Some(entry) = take_over(owner) {
        return Some(entry);
    }
    loop {
        // Relaxed: the number alone is unique.
        let entry = USED.fetch_add(1, Ordering::Relaxed);
        let Some(place) = OWNERS.get(entry) else {
            USED.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        if is_taken(place) {
            return Some(entry);
        }
    }
}

/// Slots of threads that are over that are looked at for a new thread: each look is a system call.
const LOOKS: usize = 8;

/// Takes the slot of a thread that is over and that the kernel does not know any more.
fn take_over(owner: usize) -> Option<usize> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let used = used();
    for _ in 0..LOOKS.min(used.len()) {
        // Relaxed: any place will do to begin at.
        let number = NEXT.fetch_add(1, Ordering::Relaxed).checked_rem(used.len())?;
        let Some(entry) = used.get(number) else { continue };
        let former = entry.load(Ordering::Relaxed);
        let tid = thread_at(number).map_or(0, |thread| thread.over.load(Ordering::Relaxed));
        if tid != 0
            && !host::keeping_errno(|| host::is_thread(tid))
            // ORDERING: Acquire as in `take_entry`; the former owner is gone.
            && entry.compare_exchange(former, owner, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            return Some(number);
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

/// Takes the slot of `owner` back.
pub(super) fn release(owner: usize) {
    if let Some(entry) = entry_of(owner).and_then(|entry| OWNERS.get(entry)) {
        // ORDERING: pairs with the Acquire exchange in `take_entry`. It fails where another thread took the slot over.
        let _was = entry.compare_exchange(owner, 0, Ordering::Release, Ordering::Relaxed);
    }
}

/// Takes every slot back but that of `owner`: after a fork the other threads do not exist.
pub(super) fn keep_only(owner: usize) {
    for entry in used() {
        if entry.load(Ordering::Relaxed) != owner {
            entry.store(0, Ordering::Relaxed);
        }
    }
}
