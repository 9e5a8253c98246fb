//! What each thread has: its cache, its ring, its capture state, and the flag of the guard.
//!
//! The state lies in memory of our own and is found by a pthread key. A key that is made early enough is one of the
//! first 32, whose values lie in the thread's descriptor: setting it allocates nothing, and once it is known where in the
//! descriptor, finding it is a load.
//!
//! # Why not thread-local storage
//! A thread-local segment in this library would change the size of what `pthread_create` allocates for every thread,
//! and with it the placement of the program's blocks.
//!
//! # The end of a thread
//! The key's destructor puts itself off to the last round of destructors, so that blocks freed by other keys'
//! destructors are still this thread's. What comes even later (libc frees some of its own) finds the state by the
//! thread's descriptor, borrows a ring for the one call, and leaves no trace but its events. The state itself waits for
//! a new thread: one with the same descriptor, or any once the kernel says that the old one is gone.
//!
//! # Safety
//! - A slot belongs to one thread, by its entry in the directory ([`slab`]), and its `own` part to the [`crate::guard`]
//!   token of that thread. Everything else in it is atomic, for signal handlers.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use xalloc_core::heap::ThreadCache;
use xalloc_core::sampling::Countdown;
use xalloc_core::sys::tenure::{Holder, Tenure};
use xalloc_core::wire::Record;

use crate::arch::{self, Entry};
use crate::backend;
use crate::capture::ThreadCapture;
use crate::host::{self, ErrnoPlace};
use crate::segment;

mod slab;
mod spare;
mod stream;

pub(crate) use spare::Spare;
pub(crate) use stream::Stream;

/// The state of a thread.
#[repr(C)]
pub(crate) struct Thread {
    /// Whether the thread is in a hook.
    pub(crate) inside: AtomicBool,
    /// Whether a hook has more to do at its end than to say that it ends: see [`Thread::is_unsettled`].
    unsettled: AtomicBool,
    /// Whether the key holds this state; before that, the thread is being set up.
    is_set_up: AtomicBool,
    /// Whether the hook is in the program's own allocator: what that asks of itself is not the program's doing.
    serving: AtomicBool,
    /// Whether the thread's last destructor has run. Its own handlers and late calls look at it.
    over: AtomicBool,
    /// How often the thread has asked that what it allocates be ignored by checks for leaks, and not taken it back.
    ignoring: AtomicU32,
    /// Its place in the directory, where the others look.
    place: &'static Tenure,
    /// Where the thread's errno is.
    pub(crate) errno_place: ErrnoPlace,
    /// Rounds of destructors that have passed.
    rounds: AtomicU32,
    /// First of the blocks that a nested call could not free: each holds the address of the next.
    deferred: AtomicUsize,
    /// What nested calls noted ([`Thread::note`]).
    pub(crate) spare: Spare,
    /// A signal that came while a hook ran and means the program's own code; 0 if there is none.
    missed: AtomicU32,
    /// What only the guard's token reaches.
    pub(crate) own: UnsafeCell<Own>,
}

/// The part of a thread's state that a hook uses.
pub(crate) struct Own {
    /// The heap's part.
    pub(crate) cache: ThreadCache,
    /// Where the program called from, kept for the capture of its stack and the report of a fault, by hooks that have no
    /// register for it.
    pub(crate) entry: Entry,
    /// The way to its next request that is recorded, where only some are.
    pub(crate) countdown: Countdown,
    /// Its events.
    pub(crate) stream: Stream,
    /// Number of the fork that this thread is about to make, else 0.
    pub(crate) fork_serial: u32,
    /// Memory for the environment of a program that is about to be started, kept for the next time.
    pub(crate) exec_scratch: Option<(NonNull<u8>, usize)>,
    /// What a stack walk keeps from one call to the next: large, so it lies behind the rest.
    pub(crate) capture: &'static mut ThreadCapture,
}

impl Thread {
    /// The state of the calling thread, which has done nothing yet.
    fn new(place: &'static Tenure, capture: &'static mut ThreadCapture) -> Thread {
        Thread {
            inside: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            is_set_up: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            over: AtomicBool::new(false),
            ignoring: AtomicU32::new(0),
            place,
            errno_place: host::errno_place(),
            rounds: AtomicU32::new(0),
            deferred: AtomicUsize::new(0),
            spare: Spare::new(),
            missed: AtomicU32::new(0),
            own: UnsafeCell::new(Own {
                cache: ThreadCache::new(),
                entry: Entry { ip: 0, sp: 0, fp: 0 },
                countdown: Countdown::new(),
                stream: Stream::new(),
                fork_serial: 0,
                exec_scratch: None,
                capture,
            }),
        }
    }

    /// Whether a hook has more to do at its end: nested calls may have left something, or the thread is over.
    #[inline(always)]
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// Says that what nested calls have left so far is about to be done. A thread that is over stays unsettled.
    pub(crate) fn settle(&self) {
        self.unsettled.store(self.is_over(), Ordering::Relaxed);
    }

    /// Whether nested calls left something to do: a block to free, or records.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.deferred.load(Ordering::Relaxed) != 0 || !self.spare.is_empty()
    }

    /// The signal that is to come again, once.
    pub(crate) fn take_missed(&self) -> Option<c_int> {
        let signal = self.missed.swap(0, Ordering::Relaxed);
        (signal != 0).then_some(signal as c_int)
    }

    /// Keeps a record of a nested call for the call that it interrupts.
    pub(crate) fn note(&self, record: Record) {
        self.spare.note(record);
        self.unsettled.store(true, Ordering::Relaxed);
    }

    /// Runs `work`, which calls the backend; nested calls meanwhile are not noted if the backend is the program's own
    /// allocator, which may call `malloc` by its public name.
    #[inline(always)]
    pub(crate) fn served<R>(&self, work: impl FnOnce() -> R) -> R {
        if backend::is_core() { work() } else { self.served_by_another(work) }
    }

    #[cold]
    #[inline(never)]
    fn served_by_another<R>(&self, work: impl FnOnce() -> R) -> R {
        self.serving.store(true, Ordering::Relaxed);
        let result = work();
        self.serving.store(false, Ordering::Relaxed);
        result
    }

    /// Whether a nested call is the backend's own.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Whether the thread's last destructor has run: what it holds is to be given back after each call.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether checks for leaks are to ignore what the thread allocates.
    #[inline(always)]
    pub(crate) fn is_ignoring(&self) -> bool {
        self.ignoring.load(Ordering::Relaxed) != 0
    }

    /// Says that the thread's last destructor has run.
    fn set_over(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.unsettled.store(true, Ordering::Relaxed);
    }

    /// Begins to ignore; what was begun so often must be ended as often.
    pub(crate) fn begin_ignoring(&self) {
        self.ignoring.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one [`Thread::begin_ignoring`] back; without one nothing happens.
    pub(crate) fn end_ignoring(&self) {
        let depth = self.ignoring.load(Ordering::Relaxed);
        // A handler of this very thread that comes between leaves the number as it found it.
        self.ignoring.store(depth.saturating_sub(1), Ordering::Relaxed);
    }

    /// Keeps `block` to be freed when the interrupted hook ends.
    ///
    /// # Safety
    /// - `block` is a block of at least eight bytes, aligned to eight, that nobody uses any more.
    pub(crate) unsafe fn defer(&self, block: usize) {
        let place = core::ptr::with_exposed_provenance_mut::<usize>(block);
        let mut next = self.deferred.load(Ordering::Relaxed);
        loop {
            // SAFETY: by the contract.
            unsafe { place.write(next) };
            // Relaxed: only handlers on this very thread compete.
            match self.deferred.compare_exchange(next, block, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return self.unsettled.store(true, Ordering::Relaxed),
                Err(newer) => next = newer,
            }
        }
    }

    /// Takes one of the blocks that were kept.
    pub(crate) fn take_deferred(&self) -> Option<usize> {
        let mut first = self.deferred.load(Ordering::Relaxed);
        loop {
            if first == 0 {
                return None;
            }
            let place = core::ptr::with_exposed_provenance::<usize>(first);
            // SAFETY: `defer` wrote the next address there, and only this thread takes blocks away: a handler only adds.
            let next = unsafe { place.read() };
            // Relaxed: as in `defer`.
            match self.deferred.compare_exchange(first, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(first),
                Err(newer) => first = newer,
            }
        }
    }
}

const NO_KEY: u32 = u32::MAX;
static KEY: AtomicU32 = AtomicU32::new(NO_KEY);
/// Where the key's value lies in a thread's descriptor, in bytes from its start; 0 if that is not known.
static KEY_OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Makes the key. Called while the process boots.
pub(crate) fn create_key() {
    let mut key = NO_KEY;
    // SAFETY: writes the key; the destructor has the type that is asked for.
    if unsafe { libc::pthread_key_create(&mut key, Some(end)) } == 0 {
        KEY.store(key, Ordering::Relaxed);
    }
}

/// The calling thread's state, made at its first call; while it is being set up the thread counts as inside a hook.
/// `None`: there is no room for it.
#[inline(always)]
pub(crate) fn current() -> Option<&'static Thread> {
    match existing() {
        Some(thread) => Some(thread),
        None => create(),
    }
}

#[inline(always)]
fn existing() -> Option<&'static Thread> {
    let state = match KEY_OFFSET.load(Ordering::Relaxed) {
        // SAFETY: the key was made while booting; a number that is none gives null.
        0 => unsafe { libc::pthread_getspecific(KEY.load(Ordering::Relaxed)) },
        // SAFETY: `find_offset` found the key's value there, in a descriptor laid out as all are.
        offset => unsafe { arch::descriptor_word(offset) as *mut c_void },
    };
    // SAFETY: only `create` sets it, to a slot of this thread.
    unsafe { state.cast::<Thread>().as_ref() }
}

/// Where in its descriptor a thread finds its state; 0 as long as that is not known.
pub(crate) fn key_offset() -> usize {
    KEY_OFFSET.load(Ordering::Relaxed)
}

/// The calling thread's state if it has one: a load, and no call.
///
/// # Safety
/// - `offset` is what [`key_offset`] said, and not 0.
#[inline(always)]
pub(crate) unsafe fn nearby(offset: usize) -> Option<&'static Thread> {
    // SAFETY: `find_offset` found the key's value there, in a descriptor laid out as all are.
    let state = unsafe { arch::descriptor_word(offset) } as *const Thread;
    // SAFETY: only `create` sets it, to a slot of this thread.
    unsafe { state.as_ref() }
}

/// Whether the calling thread is in a hook.
pub(crate) fn is_inside() -> bool {
    existing().is_some_and(|thread| thread.inside.load(Ordering::Relaxed))
}

/// Has the signal, whose handler asks for it, sent again as soon as the hook is over that it interrupts. Nothing happens
/// where it interrupts none.
pub(crate) fn miss(signal: c_int) {
    if let Some(thread) = existing().filter(|thread| thread.inside.load(Ordering::Relaxed)) {
        thread.missed.store(signal as u32, Ordering::Relaxed);
        thread.unsettled.store(true, Ordering::Relaxed);
    }
}

/// The calling thread as a holder of slots.
fn me() -> Option<Holder> {
    Holder::at(arch::thread_pointer() as u64)
}

#[cold]
#[inline(never)]
fn create() -> Option<&'static Thread> {
    let key = KEY.load(Ordering::Relaxed);
    if key == NO_KEY {
        return None;
    }
    let me = me()?;
    match slab::find(me) {
        // `begin` allocates when it sets the key: its inner call is a nested one.
        Some(found) if !found.thread.is_set_up.load(Ordering::Relaxed) => Some(found.thread),
        Some(found) if found.place.over().is_some_and(|over| over.thread() == host::tid()) => Some(found.thread),
        // A handler between getting a slot and writing it would take what the slot holds for its thread's state. Once in
        // a thread's life two system calls keep handlers away; an order of stores cannot, for the slot of a thread that is
        // gone must be this thread's before its state may be wound up.
        _ => host::without_signals(|| begin(key, me)),
    }
}

/// Gives the calling thread, which no handler can interrupt, its state.
fn begin(key: u32, me: Holder) -> Option<&'static Thread> {
    // A handler may have been here since the thread was found to have none.
    if let Some(thread) = existing() {
        return Some(thread);
    }
    let thread = match slab::find(me) {
        Some(found) => match found.place.over() {
            // A thread that is gone had this descriptor. Where another takes its slot at this moment, this finds one
            // elsewhere.
            Some(over) if found.place.take_over(over, me) => slab::renew(found)?,
            Some(_) => slab::claim(me)?,
            // The same, of one that is gone without its destructor: nobody else may take its slot.
            None => {
                wind_up(found.thread);
                slab::renew(found)?
            }
        },
        None => slab::claim(me)?,
    };
    thread.inside.store(true, Ordering::Relaxed);
    let state: *const Thread = thread;
    // SAFETY: the key exists. A key above 31 allocates here, and that call finds the thread in set-up.
    if host::keeping_errno(|| unsafe { libc::pthread_setspecific(key, state.cast()) }) != 0 {
        thread.place.give_up();
        return None;
    }
    if KEY_OFFSET.load(Ordering::Relaxed) == 0 {
        find_offset(key, state);
    }
    thread.is_set_up.store(true, Ordering::Relaxed);
    thread.inside.store(false, Ordering::Relaxed);
    Some(thread)
}

/// Looks for the key's value, which is `state`, in the calling thread's descriptor. Where libc keeps it is its own
/// business; but a word that follows every change of the value, and is the only one that has it, is the value.
#[cold]
#[inline(never)]
fn find_offset(key: u32, state: *const Thread) {
    let holds = |offset: &usize, value: *const Thread| {
        // SAFETY: the descriptor is longer than what is searched.
        unsafe { arch::descriptor_word(*offset) == value.addr() }
    };
    let mut found = (0..arch::DESCRIPTOR_BYTES).step_by(size_of::<usize>()).filter(|offset| holds(offset, state));
    let (Some(offset), None) = (found.next(), found.next()) else { return };
    // SAFETY: the key exists, and its place was allocated when it was set first.
    unsafe { libc::pthread_setspecific(key, core::ptr::null()) };
    let follows = holds(&offset, core::ptr::null());
    // SAFETY: as above.
    unsafe { libc::pthread_setspecific(key, state.cast()) };
    if follows && holds(&offset, state) {
        KEY_OFFSET.store(offset, Ordering::Relaxed);
    }
}

/// Rounds of destructors that libc runs (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const ROUNDS: u32 = 4;

/// The key's destructor.
unsafe extern "C" fn end(state: *mut c_void) {
    // SAFETY: the value that `create` set.
    let Some(thread) = (unsafe { state.cast::<Thread>().as_ref() }) else { return };
    if thread.rounds.fetch_add(1, Ordering::Relaxed) + 1 < ROUNDS {
        // SAFETY: the key exists, and its place was allocated when it was set first.
        unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed), state) };
        return;
    }
    wind_up(thread);
    thread.set_over();
    thread.inside.store(false, Ordering::Relaxed);
    if let Some(me) = me() {
        thread.place.end(me, host::tid());
    }
}

/// Gives back what a thread holds: the heap's cache and the ring.
fn wind_up(thread: &'static Thread) {
    thread.inside.store(true, Ordering::Relaxed);
    // SAFETY: the thread is the caller, outside every hook, or gone; the flag keeps handlers away.
    let own = unsafe { &mut *thread.own.get() };
    host::keeping_errno(|| {
        let segment = segment::current();
        own.capture.retire();
        backend::thread_exit(own, segment);
        if let Some(segment) = segment {
            own.stream.end(segment);
        }
        if let Some((memory, bytes)) = own.exec_scratch.take() {
            // SAFETY: the scratch memory is this thread's mapping, and nobody uses it now.
            unsafe { host::unmap(memory, bytes) };
        }
    });
}

/// What is left of the threads after a fork: the caller's state, if it has one, with its ring forgotten. Returns the
/// number of the fork, 0 if it was not announced.
pub(crate) fn forked() -> u32 {
    slab::keep_only(me());
    let Some(thread) = existing() else {
        // A raw `clone` by a thread that never allocated: locks of the threads that are gone must go all the same.
        backend::forked(&mut ThreadCache::new());
        return 0;
    };
    // SAFETY: this thread is booting, outside of every hook (`lifecycle::make_ready`).
    let own = unsafe { &mut *thread.own.get() };
    own.stream = Stream::new();
    // The parent goes on with the same numbers.
    own.countdown = Countdown::new();
    own.capture.forget();
    backend::forked(&mut own.cache);
    core::mem::take(&mut own.fork_serial)
}
