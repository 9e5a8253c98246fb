//! The re-entrancy guard, and the token that proves it was passed.
//!
//! A hook may be entered while its thread is in a hook already: by a signal handler that allocates, or by libc when one
//! of our own calls into it does. The inner call must not touch what the outer one is changing. So each thread has a
//! flag; [`enter`] sets it and mints an [`Inside`], and everything that touches the thread's cache, ring or capture
//! state takes that token.
//!
//! What an inner call did is noted in a small buffer of the thread ([`crate::thread::Spare`]); the outer call pushes it
//! when it gets there.
//!
//! # Three ways in
//! What most calls find can be known by one load of the process's and one of the thread's: that nothing is recorded and
//! there is nothing to do but to serve ([`Brief`]), or that events are recorded and the core's heap serves
//! ([`Recorded`]). Where only some blocks are recorded, hooks are brief as well until one of those comes
//! ([`enter_sampled`]). [`enter`] finds out for all others, and its [`Inside`] keeps what it found; the short ways keep
//! nothing.
//!
//! # Safety
//! - Of [`Inside`], [`Brief`] and [`Recorded`] one exists at most once per thread: it is made only by the call that
//!   finds the flag clear, and clears it when it ends. It never leaves its thread, for it holds a raw pointer.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::marker::PhantomData;
use core::sync::atomic::{Ordering, compiler_fence};

use xalloc_core::heap::{Live, ThreadCache, Unhardened};
use xalloc_core::sampling::Countdown;
use xalloc_core::units::Addr;

use crate::arch::Entry;
use crate::backend::{self, HEAP};
use crate::host;
use crate::lifecycle::{self, Phase};
use crate::segment::{self, Segment};
use crate::thread::{self, Own, Thread};

/// How a hook finds its thread.
pub(crate) enum Access {
    /// The usual case: the thread's state is the caller's.
    Inside(Inside<'static>),
    /// A hook of this thread is being interrupted.
    Nested(&'static Thread),
    /// There is no state: the library or the thread is being set up, or none is needed.
    Bare,
}

/// Proof that the calling thread is in a hook, once.
pub(crate) struct Inside<'t> {
    thread: &'t Thread,
    recording: Option<&'static Segment>,
    errno: c_int,
    stays_in_its_thread: PhantomData<*mut ()>,
}

/// Raises a thread's flag.
#[inline(always)]
fn raise(thread: &Thread) {
    thread.inside.store(true, Ordering::Relaxed);
    // ORDERING: pairs with the handlers of this very thread, which no processor reorders against it: they see the flag
    // before anything that it guards is touched.
    compiler_fence(Ordering::SeqCst);
}

/// Lowers it.
#[inline(always)]
fn lower(thread: &Thread) {
    // ORDERING: pairs with the handlers of this very thread, as in `raise`: all that it guards is as it was left before they
    // see it lowered.
    compiler_fence(Ordering::SeqCst);
    thread.inside.store(false, Ordering::Relaxed);
    // ORDERING: pairs with the handlers of this very thread: what they leave to do when it is raised is looked for after
    // it is lowered.
    compiler_fence(Ordering::SeqCst);
}

/// Passes the guard.
#[inline(always)]
pub(crate) fn enter() -> Access {
    let mut phase = lifecycle::phase();
    if phase != Phase::Live {
        match ready(phase) {
            Some(now) => phase = now,
            None => return Access::Bare,
        }
    }
    let Some(thread) = thread::current() else { return Access::Bare };
    if thread.inside.load(Ordering::Relaxed) {
        return Access::Nested(thread);
    }
    raise(thread);
    let recording = if phase == Phase::Live { segment::current() } else { None };
    if let Some(segment) = recording
        && lifecycle::has_no_way()
    {
        open_way(segment);
    }
    Access::Inside(Inside::begin(thread, recording))
}

/// Opens the short way of hooks that record, where there is one.
#[cold]
#[inline(never)]
fn open_way(segment: &Segment) {
    if !segment.is_sampled() {
        if backend::is_core() {
            lifecycle::open_recorded_way(thread::key_offset());
        }
    } else if backend::is_plain_core() {
        lifecycle::open_sampled_way(thread::key_offset());
    }
}

/// Passes the guard by a short way: the thread, its flag raised. `None` where the way is closed (0), the thread has no
/// state or its flag was up.
///
/// # Safety
/// `way` is 0 or what [`thread::key_offset`] said.
#[inline(always)]
unsafe fn pass(way: usize) -> Option<&'static Thread> {
    if way == 0 {
        return None;
    }
    // SAFETY: the caller vouches for it.
    let thread = unsafe { thread::nearby(way) }?;
    if thread.inside.load(Ordering::Relaxed) {
        return None;
    }
    raise(thread);
    Some(thread)
}

/// Proof that the calling thread is in a hook that has nothing to do but to serve ([`lifecycle::brief_way`]).
pub(crate) struct Brief {
    thread: &'static Thread,
    stays_in_its_thread: PhantomData<*mut ()>,
}

/// Passes the guard where nothing is recorded, if that is all there is to do. `None`: [`enter`] does the rest.
#[inline(always)]
pub(crate) fn enter_briefly() -> Option<Brief> {
    // SAFETY: `ready` opened the way by `key_offset`.
    let thread = unsafe { pass(lifecycle::brief_way()) }?;
    Some(Brief { thread, stays_in_its_thread: PhantomData })
}

/// Passes the guard where only some blocks are recorded. What is recorded is done by the hook's [`Brief::into_inside`],
/// all else as where nothing is.
#[inline(always)]
pub(crate) fn enter_sampled() -> Option<Brief> {
    // SAFETY: `enter` opened the way by `key_offset`.
    let thread = unsafe { pass(lifecycle::sampled_way()) }?;
    Some(Brief { thread, stays_in_its_thread: PhantomData })
}

impl Brief {
    /// Goes on as a hook that may record.
    pub(crate) fn into_inside(self) -> Inside<'static> {
        let thread = self.thread;
        core::mem::forget(self);
        Inside::begin(thread, live_segment())
    }

    /// The way to the thread's next request that is recorded.
    #[inline(always)]
    pub(crate) fn countdown(&mut self) -> &mut Countdown {
        let own = self.thread.own.get();
        // SAFETY: by the bullet of the module this token is the only one of its thread, and it is borrowed mutably.
        unsafe { &mut (*own).countdown }
    }

    /// The heap.
    #[inline(always)]
    pub(crate) fn heap(&self) -> Unhardened<'static, Live> {
        HEAP.known_unhardened()
    }

    /// Ends a hook whose result is `block`. Unlike a drop it keeps nothing over the call that is seldom made, so the hook
    /// needs no frame.
    #[inline(always)]
    pub(crate) fn leave(self, block: Addr) -> Addr {
        let thread = self.thread;
        core::mem::forget(self);
        lower(thread);
        if thread.is_unsettled() { end_with(thread, None, block) } else { block }
    }

    /// Keeps where the program called from out of the way until a fault asks for it.
    #[inline(always)]
    pub(crate) fn keep_entry(&mut self, entry: Entry) {
        let own = self.thread.own.get();
        // SAFETY: by the bullet of the module this token is the only one of its thread, and it is borrowed mutably.
        unsafe { (*own).entry = entry };
    }

    /// What was kept.
    pub(crate) fn entry(&self) -> Entry {
        let own = self.thread.own.get();
        // SAFETY: by the bullet of the module this token is the only one of its thread.
        unsafe { (*own).entry }
    }

    /// Ends a hook that has changed nothing, and says what was kept.
    pub(crate) fn give_up(self) -> Entry {
        self.entry()
    }

    /// The heap's part of the thread's state.
    #[inline(always)]
    pub(crate) fn cache(&mut self) -> &mut ThreadCache {
        let own = self.thread.own.get();
        // SAFETY: by the bullet of the module this token is the only one of its thread, and it is borrowed mutably.
        unsafe { &mut (*own).cache }
    }
}

impl Drop for Brief {
    #[inline(always)]
    fn drop(&mut self) {
        lower(self.thread);
        if self.thread.is_unsettled() {
            end(self.thread, None);
        }
    }
}

/// Proof that the calling thread is in a hook that is served by the core's heap and recorded
/// ([`lifecycle::recorded_way`]). What an [`Inside`] finds out is known here, but for the ring: there may be none yet
/// ([`crate::thread::Stream::room`]).
///
/// It keeps no errno: the heap, a capture and a wait for room leave it as it was.
pub(crate) struct Recorded {
    thread: &'static Thread,
    stays_in_its_thread: PhantomData<*mut ()>,
}

/// Passes the guard where events are recorded, if there is nothing else to do. `None`: [`enter`] does the rest.
#[inline(always)]
pub(crate) fn enter_recorded() -> Option<Recorded> {
    // SAFETY: `enter` opened the way by `key_offset`.
    let thread = unsafe { pass(lifecycle::recorded_way()) }?;
    Some(Recorded { thread, stays_in_its_thread: PhantomData })
}

impl Recorded {
    /// The part of the thread's state that handlers see too.
    #[inline(always)]
    pub(crate) fn thread(&self) -> &'static Thread {
        self.thread
    }

    /// The thread's state.
    #[inline(always)]
    pub(crate) fn own(&mut self) -> &mut Own {
        // SAFETY: by the bullet of the module this token is the only one of its thread, and it is borrowed mutably.
        unsafe { &mut *self.thread.own.get() }
    }

    /// Keeps where the program called from for who may need it: it is seldom asked for.
    #[inline(always)]
    pub(crate) fn keep_entry(&mut self, ip: usize, sp: usize, fp: usize) {
        self.own().entry = Entry { ip, sp, fp };
    }

    /// The segment.
    #[inline(always)]
    pub(crate) fn segment(&self) -> &'static Segment {
        // SAFETY: `enter` opens the way only where `segment::current` has said that there is one, and it stays.
        unsafe { segment::known() }
    }

    /// Ends a hook whose result is `block`. As [`Brief::leave`] it keeps nothing over the call that is seldom made.
    #[inline(always)]
    pub(crate) fn leave(self, block: Addr) -> Addr {
        let (thread, segment) = (self.thread, self.segment());
        lower(thread);
        if thread.is_unsettled() { end_with(thread, Some(segment), block) } else { block }
    }

    /// Goes on as a hook of which less is known.
    pub(crate) fn into_inside(self) -> Inside<'static> {
        Inside::begin(self.thread, Some(self.segment()))
    }
}

/// The segment, if events are recorded.
fn live_segment() -> Option<&'static Segment> {
    if lifecycle::phase() == Phase::Live { segment::current() } else { None }
}

/// Does at the end of a short way what [`Inside`] does at its own. The flag is lowered: handlers come in as anywhere. A
/// [`Brief`] does not know whether something is recorded.
#[cold]
#[inline(never)]
fn end(thread: &'static Thread, recording: Option<&'static Segment>) {
    let errno = host::errno_at(thread.errno_place);
    let recording = recording.or_else(live_segment);
    drop(Inside { thread, recording, errno, stays_in_its_thread: PhantomData });
}

/// As [`end`], of a hook with a result.
#[cold]
#[inline(never)]
fn end_with(thread: &'static Thread, recording: Option<&'static Segment>, block: Addr) -> Addr {
    end(thread, recording);
    block
}

/// The phase once the library is ready; `None` where calls are served without a thread's state.
#[cold]
#[inline(never)]
fn ready(mut phase: Phase) -> Option<Phase> {
    if phase != Phase::Off {
        if !lifecycle::make_ready() {
            return None;
        }
        phase = lifecycle::phase();
    }
    if phase != Phase::Off {
        return Some(phase);
    }
    if backend::is_plain_core() {
        lifecycle::open_brief_way(thread::key_offset());
    }
    backend::is_core().then_some(phase)
}

impl<'t> Inside<'t> {
    /// A hook of a thread whose flag was raised for it; the thread has a ring from here on, if events are recorded and
    /// one is free.
    #[inline(always)]
    fn begin(thread: &'t Thread, recording: Option<&'static Segment>) -> Inside<'t> {
        let errno = host::errno_at(thread.errno_place);
        let mut inside = Inside { thread, recording, errno, stays_in_its_thread: PhantomData };
        if let Some(segment) = recording
            && inside.own().stream.wants_ring()
        {
            inside.own().stream.claim(segment);
        }
        inside
    }

    /// The part of the thread's state that handlers see too.
    #[inline(always)]
    pub(crate) fn thread(&self) -> &'t Thread {
        self.thread
    }

    /// The thread's state.
    #[inline(always)]
    pub(crate) fn own(&mut self) -> &mut Own {
        // SAFETY: by the bullet of the module this token is the only one of its thread, and it is borrowed mutably.
        unsafe { &mut *self.thread.own.get() }
    }

    /// The segment, if events are recorded.
    #[inline(always)]
    pub(crate) fn recording(&self) -> Option<&'static Segment> {
        self.recording
    }

    /// What errno will be when the hook returns; what it was when it began, unless this is called.
    pub(crate) fn set_errno(&mut self, errno: c_int) {
        self.errno = errno;
    }

    /// Pushes what nested calls noted.
    #[inline(always)]
    pub(crate) fn flush_spare(&mut self) {
        if self.thread.spare.is_empty() {
            return;
        }
        if let Some(segment) = self.recording {
            let thread = self.thread;
            thread.spare.flush(segment, &mut self.own().stream);
        }
    }
}

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        lower(self.thread);
        // Looked at after the flag is clear: what a handler leaves later it does itself.
        if self.thread.is_unsettled() {
            self.clean_up();
        }
        host::set_errno_at(self.thread.errno_place, self.errno);
    }
}

impl Inside<'_> {
    /// Does what nested calls left to do, and what a thread that is over owes.
    #[cold]
    #[inline(never)]
    fn clean_up(&mut self) {
        self.thread.settle();
        while self.thread.has_leftovers() {
            raise(self.thread);
            self.flush_spare();
            if self.recording.is_none() {
                self.thread.spare.forget();
            }
            let thread = self.thread;
            backend::free_deferred(&mut self.own().cache, thread);
            lower(self.thread);
        }
        if self.thread.is_over()
            && let Some(segment) = self.recording
        {
            raise(self.thread);
            self.own().stream.give_back(segment);
            lower(self.thread);
        }
        if let Some(signal) = self.thread.take_missed() {
            host::signal_thread(host::tid(), signal);
        }
    }
}
