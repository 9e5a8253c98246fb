//! Stopping the other threads, to see their registers and to have nothing move meanwhile.
//!
//! Each gets a real-time signal that the program does not use; its handler says where the thread's registers are and
//! waits. A thread that is inside one of this library's hooks goes on to the hook's end first: its block is between the
//! program and the books. A thread that blocks the signal is not sent it, for it would find it later, when nobody
//! handles it any more; nor is one that waits for signals (`sigwait`), which would be handed it in the place of one of
//! the program's: the kernel says where they wait. One that blocks it and does not wait may be within a function of
//! libc's that blocks all for a moment (`pthread_create`), and is sent it when it does so no more, unless it computes on
//! and on. What is neither stopped nor waiting counts as running, and its whole stack as in use.
//!
//! # Why not ptrace
//! A process cannot trace itself, and a helper that may is the first thing that a container forbids.
//!
//! # Safety
//! - The slots lie in a mapping that is made before the first signal is sent and stays for ever: a handler that comes
//!   late finds it.
//! - A context that a handler names stays while the handler waits, that is until it is released.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::ops::Range;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use xalloc_core::sys::clock;
use xalloc_core::sys::futex::{self, Scope};

use super::fault;
use super::roots::RED_ZONE_BYTES;
use super::told::{self, SP_WORD, WORDS};
use crate::host;
use crate::thread;

/// Threads that can be stopped; further ones count as running.
const MOST: usize = 4096;
/// Longest wait for all of them.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Time after which a thread that was in a hook is tried again.
const AGAIN_NS: u64 = 100_000;
/// Processor time after which a thread that blocks the signal does so for good: some turns of the scheduler, within each of
/// which it may not be looked at.
const MOMENT_NS: u64 = 20_000_000;
/// Real-time signals that a program may use (`SIGRTMAX` down to the first that libc leaves it).
const SIGNALS: Range<c_int> = 35..65;
/// Rounds of looking for threads that were made meanwhile.
const ROUNDS: usize = 8;

/// What a thread said.
mod state {
    /// Nothing yet.
    pub(super) const SENT: u32 = 1;
    /// It was inside a hook and went on.
    pub(super) const BUSY: u32 = 2;
    /// It waits; its context is known.
    pub(super) const STOPPED: u32 = 3;
    /// It blocks the signal, or waits for it as a program does.
    pub(super) const BLOCKS: u32 = 4;
    /// It went on after the check.
    pub(super) const LEFT: u32 = 5;
    /// It is gone, but for its number: the first thread stays so until the last one leaves.
    pub(super) const GONE: u32 = 6;
}

struct Slot {
    tid: AtomicU32,
    state: AtomicU32,
    context: AtomicPtr<c_void>,
    /// Processor time that it had used when it was entered.
    used_ns: AtomicU64,
    /// What the kernel said of a thread that waits, for a copy of the process, in which there is no such thread.
    waits: [AtomicU64; WORDS],
}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// 1 while stopped threads are to wait. Futex word.
static HOLD: AtomicU32 = AtomicU32::new(0);
/// Counts what threads say. Futex word.
static HEARD: AtomicU32 = AtomicU32::new(0);

fn slots() -> &'static [Slot] {
    // ORDERING: pairs with the Release stores in `Stopped`: what was entered is seen.
    let first = SLOTS.load(Ordering::Acquire);
    // ORDERING: as above.
    let count = COUNT.load(Ordering::Acquire);
    if first.is_null() {
        return &[];
    }
    // SAFETY: first bullet of the module.
    unsafe { core::slice::from_raw_parts(first, count.min(MOST)) }
}

/// The general registers in a signal handler's context.
pub(super) fn registers_of<'a>(context: *mut c_void) -> Option<&'a mut [i64; 23]> {
    // SAFETY: null, or what the kernel passed to a handler that has not returned.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_mut() };
    context.map(|context| &mut context.uc_mcontext.gregs)
}

extern "C" fn on_stop(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    host::keeping_errno(|| {
        let me = host::tid();
        let Some(slot) = slots().iter().find(|slot| slot.tid.load(Ordering::Relaxed) == me) else { return };
        // ORDERING: pairs with the Release stores of HOLD.
        if HOLD.load(Ordering::Acquire) == 0 {
            return;
        }
        let is_busy = thread::is_inside();
        slot.context.store(context, Ordering::Relaxed);
        // ORDERING: pairs with the Acquire load in `settle`: the context is there.
        slot.state.store(if is_busy { state::BUSY } else { state::STOPPED }, Ordering::Release);
        // ORDERING: pairs with the Acquire load in `settle`, which compares before it sleeps.
        HEARD.fetch_add(1, Ordering::Release);
        futex::wake(&HEARD, 1, Scope::Process);
        if is_busy {
            return;
        }
        // ORDERING: pairs with the Release store in `drop`.
        while HOLD.load(Ordering::Acquire) == 1 {
            futex::wait(&HOLD, 1, Scope::Process, PATIENCE_NS);
        }
        // ORDERING: pairs with the Acquire load in `drop`: the context is not used any more.
        slot.state.store(state::LEFT, Ordering::Release);
    });
}

/// Where another thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// It stands still.
    At {
        /// Its stack is in use from here on.
        sp: u64,
    },
    /// It is at work.
    Running,
}

impl Seen {
    pub(super) fn sp(self) -> Option<u64> {
        match self {
            Seen::At { sp } => Some(sp),
            Seen::Running => None,
        }
    }
}

/// The other threads, stopped while this exists.
pub(super) struct Stopped {
    /// The signal and what it did before; `None` if there is no other thread.
    signal: Option<(c_int, libc::sigaction)>,
    /// The process's number; a copy of it has another.
    pid: u32,
}

impl Stopped {
    /// Stops all threads but the calling one. `None`: there is no memory for it, or no signal.
    pub(super) fn all_others() -> Option<Stopped> {
        COUNT.store(0, Ordering::Relaxed);
        let pid = host::pid();
        if !has_others() {
            return Some(Stopped { signal: None, pid });
        }
        if SLOTS.load(Ordering::Relaxed).is_null() {
            // SAFETY: a new mapping, wherever the kernel likes.
            let made = unsafe { host::map_anonymous(MOST * size_of::<Slot>(), null_mut()) }?;
            // ORDERING: pairs with the Acquire load in `slots`.
            SLOTS.store(made.as_ptr().cast(), Ordering::Release);
        }
        let (signal, before) = SIGNALS.rev().find_map(|signal| {
            let before = fault::set_action(signal, None)?;
            (before.sa_sigaction == libc::SIG_DFL).then_some((signal, before))
        })?;
        fault::set_action(signal, Some(&fault::action_alone(on_stop)));
        // ORDERING: pairs with the handlers' Acquire loads.
        HOLD.store(1, Ordering::Release);
        for _ in 0..ROUNDS {
            if !enter_all(signal) {
                break;
            }
        }
        settle(signal);
        Some(Stopped { signal: Some((signal, before)), pid })
    }

    /// The other threads. The code of libc is in `libcs`.
    pub(super) fn threads(&self, libcs: &Range<u64>) -> impl Iterator<Item = Seen> {
        let there = slots().iter().filter(|slot| slot.state.load(Ordering::Relaxed) != state::GONE);
        there.map(|slot| match place_of(slot) {
            Place::Context(registers) => Seen::At { sp: stack_in_use(registers, libcs) },
            Place::Waiting(words) => Seen::At { sp: in_use(words[SP_WORD], words[SP_WORD + 1], libcs) },
            Place::Unknown => Seen::Running,
        })
    }

    /// Keeps what is known of the threads that wait in the kernel.
    pub(super) fn remember(&self) {
        for slot in slots() {
            // ORDERING: pairs with the handler's Release store.
            let is_stopped = slot.state.load(Ordering::Acquire) == state::STOPPED;
            let words = if is_stopped { None } else { told::waiting_at(slot.tid.load(Ordering::Relaxed)) };
            for (to, from) in slot.waits.iter().zip(words.unwrap_or_default()) {
                to.store(from, Ordering::Relaxed);
            }
        }
    }

    /// How many stand still.
    pub(super) fn known(&self) -> u64 {
        self.threads(&NOWHERE).filter(|seen| *seen != Seen::Running).count() as u64
    }

    /// How many are at work.
    pub(super) fn running(&self) -> u64 {
        self.threads(&NOWHERE).filter(|seen| *seen == Seen::Running).count() as u64
    }

    /// Whether the process goes on without its first thread.
    pub(super) fn first_is_gone(&self) -> bool {
        let is_first = |slot: &&Slot| slot.tid.load(Ordering::Relaxed) == self.pid;
        slots().iter().find(is_first).is_some_and(|slot| slot.state.load(Ordering::Relaxed) == state::GONE)
    }

    /// Whether there is a thread of that number.
    pub(super) fn has(&self, tid: u32) -> bool {
        slots().iter().any(|slot| slot.tid.load(Ordering::Relaxed) == tid)
    }

    /// What is in their registers, with the number of the thread, from 1.
    pub(super) fn values(&self) -> impl Iterator<Item = (u32, u64)> {
        slots().iter().zip(1_u32..).flat_map(|(slot, number)| {
            let mut values = [0; 23];
            match place_of(slot) {
                Place::Context(registers) => values = registers.map(|value| value as u64),
                Place::Waiting(words) => {
                    for (to, from) in values.iter_mut().zip(words) {
                        *to = from;
                    }
                }
                Place::Unknown => {}
            }
            values.into_iter().map(move |value| (number, value))
        })
    }

    /// What of their stacks for signal handlers is not in use, but for the handler that stopped them.
    pub(super) fn idle_stacks(&self) -> impl Iterator<Item = Range<u64>> {
        contexts().map(|context| {
            let sp = context.uc_mcontext.gregs[libc::REG_RSP as usize] as u64;
            idle_part(&context.uc_stack, sp.saturating_sub(RED_ZONE_BYTES))
        })
    }

    /// Where the kernel saved their vector registers.
    pub(super) fn saved_vectors(&self, libcs: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        contexts().filter_map(move |context| vectors_in_use(context, libcs))
    }
}

/// The contexts of the threads that a handler stopped.
fn contexts<'a>() -> impl Iterator<Item = &'a libc::ucontext_t> {
    let stopped = slots().iter().filter(|slot| slot.state.load(Ordering::Relaxed) == state::STOPPED);
    // SAFETY: by the second bullet of the module.
    stopped.filter_map(|slot| unsafe { slot.context.load(Ordering::Relaxed).cast::<libc::ucontext_t>().as_ref() })
}

/// What of a stack for signal handlers is not in use while the stack pointer is `sp`: all of it, if that is elsewhere.
pub(super) fn idle_part(stack: &libc::stack_t, sp: u64) -> Range<u64> {
    let start = stack.ss_sp as u64;
    let end = if stack.ss_flags & libc::SS_DISABLE == 0 { start.saturating_add(stack.ss_size as u64) } else { start };
    if (start..end).contains(&sp) { start..sp } else { start..end }
}

/// Whether the instruction at `at`, or the one before it, is a system call in that code: the kernel goes back to begin one
/// again after a signal.
fn is_system_call(at: u64, code: &Range<u64>) -> bool {
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    at.checked_sub(2).is_some_and(|before| {
        [before, at].into_iter().any(|from| {
            // SAFETY: libc's code can be read, and both bytes are within it.
            code.contains(&from) && code.contains(&(from + 1)) && unsafe { (from as *const [u8; 2]).read() } == SYSCALL
        })
    })
}

/// From where on the stack is in use of a thread with these registers. What lies just below the stack pointer is the
/// running function's; but libc's functions that wait in the kernel keep nothing there, and words of former calls lie in
/// that place.
pub(super) fn stack_in_use(registers: &[i64; 23], libcs: &Range<u64>) -> u64 {
    in_use(registers[libc::REG_RSP as usize] as u64, registers[libc::REG_RIP as usize] as u64, libcs)
}

fn in_use(sp: u64, at: u64, libcs: &Range<u64>) -> u64 {
    if is_system_call(at, libcs) { sp } else { sp.saturating_sub(RED_ZONE_BYTES) }
}

/// Where the kernel saved the vector registers of the thread that it called a handler with this context in.
pub(super) fn vectors_of(context: *mut c_void, libcs: &Range<u64>) -> Option<Range<u64>> {
    // SAFETY: null, or what the kernel passed to a handler that has not returned.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() };
    vectors_in_use(context?, libcs)
}

/// Those of a thread that waits in a system call of libc's, whose code is in `libcs`, hold nothing of the program's: a
/// caller of libc saves them before.
fn vectors_in_use(context: &libc::ucontext_t, libcs: &Range<u64>) -> Option<Range<u64>> {
    let at = context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    if is_system_call(at, libcs) { None } else { vectors(context) }
}

/// The range of the saved floating-point and vector state. Behind its first 512 bytes lies what newer processors have;
/// a mark in the bytes that are left to software says how long it is in all (`struct _fpx_sw_bytes`).
fn vectors(context: &libc::ucontext_t) -> Option<Range<u64>> {
    const LEGACY_BYTES: u64 = 512;
    const SOFTWARE_AT: usize = 464;
    const MAGIC: u32 = 0x4650_5853;
    let state = NonNull::new(context.uc_mcontext.fpregs)?.cast::<u8>();
    // SAFETY: the kernel's state is at least 512 bytes long.
    let software = unsafe { state.add(SOFTWARE_AT) }.cast::<[u32; 2]>();
    // SAFETY: as above, aligned to 16.
    let [magic, bytes] = unsafe { software.read() };
    let start = state.as_ptr() as u64;
    Some(start..start + if magic == MAGIC { u64::from(bytes) } else { LEGACY_BYTES })
}

/// No code.
const NOWHERE: Range<u64> = 0..0;

/// What is known of a stopped thread.
enum Place<'a> {
    Context(&'a [i64; 23]),
    /// Waiting in the kernel: the arguments of its call, its stack pointer, its place in the code.
    Waiting([u64; WORDS]),
    Unknown,
}

fn place_of(slot: &Slot) -> Place<'static> {
    // ORDERING: pairs with the handler's Release store: the context is there.
    match slot.state.load(Ordering::Acquire) {
        state::STOPPED => match registers_of(slot.context.load(Ordering::Relaxed)) {
            Some(registers) => Place::Context(registers),
            None => Place::Unknown,
        },
        _ => match remembered(slot).or_else(|| told::waiting_at(slot.tid.load(Ordering::Relaxed))) {
            Some(words) => Place::Waiting(words),
            None => Place::Unknown,
        },
    }
}

/// What [`Stopped::remember`] kept.
fn remembered(slot: &Slot) -> Option<[u64; WORDS]> {
    let words = slot.waits.each_ref().map(|word| word.load(Ordering::Relaxed));
    (words[SP_WORD] != 0).then_some(words)
}

/// Whether a thread that blocks the signal is at work, and has not been for long.
fn blocks_for_a_moment(slot: &Slot) -> bool {
    let tid = slot.tid.load(Ordering::Relaxed);
    let before_ns = slot.used_ns.load(Ordering::Relaxed);
    told::waiting_at(tid).is_none()
        && told::used_ns(tid).is_some_and(|used_ns| used_ns.saturating_sub(before_ns) < MOMENT_NS)
}

/// What a thread can be expected to do about a signal: a [`state`].
fn before_signal(tid: u32, signal: c_int) -> u32 {
    if told::waits_for_signals(tid) {
        return state::BLOCKS;
    }
    let Some(status) = told::status(tid) else { return state::BLOCKS };
    if status.is_gone {
        return state::GONE;
    }
    // Asked once more: if it began to wait meanwhile, the mask is that of its waiting, without what it waits for.
    let blocks = status.blocked_signals & 1 << (signal - 1) != 0 || told::waits_for_signals(tid);
    if blocks { state::BLOCKS } else { state::SENT }
}

fn has_others() -> bool {
    let me = host::tid();
    let mut others = false;
    host::each_thread(|tid| others |= tid != me);
    others
}

/// Sends the signal to every thread that is not entered yet; whether there was one.
fn enter_all(signal: c_int) -> bool {
    let me = host::tid();
    let mut any = false;
    host::each_thread(|tid| {
        let known = slots();
        if tid == me || known.len() == MOST || known.iter().any(|slot| slot.tid.load(Ordering::Relaxed) == tid) {
            return;
        }
        any = true;
        let count = known.len();
        // SAFETY: first bullet of the module; below the capacity.
        let slot = unsafe { SLOTS.load(Ordering::Relaxed).add(count) };
        // SAFETY: as above; zeroes are a slot.
        let slot = unsafe { &*slot };
        slot.tid.store(tid, Ordering::Relaxed);
        slot.waits.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        slot.used_ns.store(told::used_ns(tid).unwrap_or(0), Ordering::Relaxed);
        let first = before_signal(tid, signal);
        slot.state.store(first, Ordering::Relaxed);
        // ORDERING: pairs with the Acquire load in `slots`: the slot is filled in.
        COUNT.store(count + 1, Ordering::Release);
        if first == state::SENT {
            host::signal_thread(tid, signal);
        }
    });
    any
}

/// Waits until every thread that was sent the signal has said something, and those that were busy have stopped.
fn settle(signal: c_int) {
    let deadline_ns = clock::monotonic_ns() + PATIENCE_NS;
    let mut is_first_look = true;
    loop {
        // ORDERING: pairs with the handlers' Release additions.
        let heard = HEARD.load(Ordering::Acquire);
        let (mut waits, mut busy) = (false, false);
        for slot in slots() {
            // ORDERING: pairs with the handlers' Release stores.
            match slot.state.load(Ordering::Acquire) {
                state::SENT => {
                    let tid = slot.tid.load(Ordering::Relaxed);
                    if !is_first_look && before_signal(tid, signal) == state::GONE {
                        slot.state.store(state::GONE, Ordering::Relaxed);
                    } else {
                        waits |= host::is_thread(tid);
                    }
                }
                state::BUSY => {
                    busy = true;
                    slot.state.store(state::SENT, Ordering::Relaxed);
                    host::signal_thread(slot.tid.load(Ordering::Relaxed), signal);
                }
                state::BLOCKS if blocks_for_a_moment(slot) => {
                    waits = true;
                    let tid = slot.tid.load(Ordering::Relaxed);
                    let next = before_signal(tid, signal);
                    slot.state.store(next, Ordering::Relaxed);
                    if next == state::SENT {
                        host::signal_thread(tid, signal);
                    }
                }
                _ => {}
            }
        }
        if !(waits || busy) || clock::monotonic_ns() > deadline_ns {
            return;
        }
        is_first_look = false;
        futex::wait(&HEARD, heard, Scope::Process, AGAIN_NS);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // ORDERING: pairs with the handlers' Acquire loads.
        HOLD.store(0, Ordering::Release);
        futex::wake(&HOLD, i32::MAX, Scope::Process);
        let Some((signal, before)) = self.signal else { return };
        let deadline_ns = clock::monotonic_ns() + PATIENCE_NS;
        let is_waiting = |slot: &Slot| {
            // ORDERING: pairs with the handler's Release store.
            let state = slot.state.load(Ordering::Acquire);
            let may_come = matches!(state, state::SENT | state::BUSY | state::STOPPED);
            may_come && host::is_thread(slot.tid.load(Ordering::Relaxed))
        };
        while slots().iter().any(is_waiting) {
            if clock::monotonic_ns() > deadline_ns {
                // Somebody has not taken the signal: without a handler it would end the process when it comes.
                return;
            }
            host::yield_now();
        }
        fault::set_action(signal, Some(&before));
    }
}
