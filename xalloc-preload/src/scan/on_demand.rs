//! Checks that somebody asks for from outside, while the program runs.
//!
//! The recorder raises a number in the handshake and sends SIGURG until that is taken up. The handler stops the threads,
//! puts a mark into the order of events, has the process copied and lets the threads go on. The copy asks for what was
//! live at the mark, marks the blocks and ends; what the program can see of it is described below.
//!
//! The same signal brings the question how much of the process's memory is resident, where the recorder may not look for
//! itself; the handler answers that on the spot (`crate::segment`).
//!
//! # Why a copy
//! To mark a million blocks takes some 200 ms, to copy the tables of their pages a few. The price: pages that the
//! program writes meanwhile are copied by the kernel one by one, and memory that the program keeps out of forks
//! (`MADV_DONTFORK`, `MADV_WIPEONFORK`) is not seen. To read a process from outside (process_vm_readv) needs no copy,
//! but would have to stop it for as long as it reads, and is what a container forbids first.
//!
//! # Why one look is enough
//! A pointer on its way from one place to another is in a register, a vector register or the red zone, and all of them
//! are read, for every thread that stands still. A second look would excuse what a thread of unknown registers holds.
//!
//! # What the program sees of it
//! A child without a signal at its end, which nobody waits for who does not ask for such (`__WCLONE`). It has closed all
//! files, blocks all signals and runs no handler of the program's. When it is over it stays a zombie until the next check
//! or the end. System calls that a handler interrupts are restarted where the kernel does that; `poll`, `epoll_wait` and
//! sleeps return early, as after any signal.
//!
//! # Why not SIGUSR1 or a real-time signal
//! Their default is to end the process. Between exec and the next boot, nobody handles it; SIGURG is ignored there.
//!
//! # Safety
//! - The copy is its process's only thread and does not return.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

use xalloc_core::session::blocks::{NOT_SAID, occasion, result};
use xalloc_core::session::leak_check;
use xalloc_core::sys::clock;
use xalloc_core::units::StackId;
use xalloc_core::wire::{Event, HeapCall};

use super::roots::Boundary;
use super::stop::Stopped;
use super::{Check, Failure, Whose, apart, fault, say};
use crate::guard::{self, Access};
use crate::host;
use crate::process;
use crate::segment::Segment;
use crate::thread;

/// The last copy, to be waited for; 0 if there is none.
static COPY: AtomicU32 = AtomicU32::new(0);

/// Takes up demands from here on, if the program leaves the signal alone.
pub(crate) fn watch(segment: &'static Segment) {
    if segment.options.leak_check & leak_check::ON_DEMAND == 0 || !segment.has_recorder() {
        return;
    }
    if fault::set_action(libc::SIGURG, None).is_none_or(|before| before.sa_sigaction != libc::SIG_DFL) {
        return;
    }
    if !apart::make() {
        return;
    }
    // On the stack that a program sets aside for handlers, where it does: the one that is interrupted may be a coroutine's,
    // with no room for the kernel's frame.
    fault::set_action(libc::SIGURG, Some(&fault::action_alone(on_demand)));
}

/// Whether the recorder demands a check, of this process.
fn is_demanded() -> bool {
    process::own_segment().is_some_and(|segment| {
        let handshake = &segment.header().handshake;
        // ORDERING: pairs with the recorder's Release store: it has read the last outcome.
        let demand = handshake.demand.load(Ordering::Acquire);
        handshake.taken.load(Ordering::Relaxed) != demand && segment.has_recorder()
    })
}

/// Whether it does, and this thread is between two of the program's instructions: where a hook is being interrupted,
/// nothing can be told.
fn is_due() -> bool {
    is_demanded() && !thread::is_inside()
}

extern "C" fn on_demand(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    host::keeping_errno(|| {
        if let Some(segment) = process::own_segment() {
            // Relaxed: a count.
            segment.header().handshake.heard.fetch_add(1, Ordering::Relaxed);
        }
        if (is_due() || is_look_due()) && super::begin() {
            // Another thread may have taken either up in between.
            if is_look_due() {
                apart::on_own_stack(look);
            }
            if is_due() {
                apart::on_own_stack(|| take_up(context));
            }
            super::end();
        }
        // A program that allocates without a pause is nearly always in a hook, or waits there for room in its ring.
        if is_demanded() {
            thread::miss(libc::SIGURG);
        }
    });
}

/// Whether the recorder asks the process to look at its own memory: no hook is in the way of that.
fn is_look_due() -> bool {
    process::own_segment().is_some_and(|segment| segment.has_recorder() && segment.is_own_look_asked())
}

/// Looks at the process's memory.
fn look() {
    if let Some(segment) = process::own_segment() {
        segment.look_if_asked();
    }
}

/// Takes up what the recorder demands, in a signal handler with this context.
fn take_up(context: *mut c_void) {
    let (Some(segment), Some(boundary)) = (process::own_segment(), Boundary::interrupted(context)) else { return };
    reap();
    Check { segment, occasion: occasion::DEMAND, boundary: &boundary, whose: Whose::Copy }.have_copied();
}

/// Waits for the last copy, if it is over.
pub(super) fn reap() {
    let copy = COPY.load(Ordering::Relaxed);
    if copy != 0 && host::reap(copy) {
        COPY.store(0, Ordering::Relaxed);
    }
}

impl Check<'_> {
    /// Has a copy of the process checked.
    fn have_copied(&self) {
        let handshake = &self.segment.header().handshake;
        let before = handshake.request.load(Ordering::Relaxed);
        // ORDERING: pairs with the recorder's Release store: the words below are not looked at any more.
        if handshake.read.load(Ordering::Acquire) != before {
            return;
        }
        let number = before + 1;
        // Relaxed, here and below: published with the request's number.
        handshake.occasion.store(self.occasion, Ordering::Relaxed);
        handshake.exit_stack.store(StackId::NONE.0, Ordering::Relaxed);
        handshake.paused_us.store(NOT_SAID, Ordering::Relaxed);
        handshake.copy.store(0, Ordering::Relaxed);
        handshake.taken.store(handshake.demand.load(Ordering::Relaxed), Ordering::Relaxed);
        // The program's own functions are asked while its threads run, as they expect.
        let refused = super::refusal();
        let suppressions = say::suppressions();
        let began_ns = clock::monotonic_ns();
        let copied = refused.map_or_else(|| self.copy(number, suppressions), |why| Err(Failure(why)));
        let paused_us = (clock::monotonic_ns() - began_ns) / 1000;
        // ORDERING: pairs with the recorder's Acquire load, which waits for it.
        handshake.paused_us.store(u32::try_from(paused_us).unwrap_or(NOT_SAID - 1), Ordering::Release);
        match copied {
            Ok(copy) => {
                COPY.store(copy, Ordering::Relaxed);
                handshake.copy.store(copy, Ordering::Relaxed);
                self.segment.ring_doorbell();
            }
            Err(failure) => drop(self.finish(number, Err(failure))),
        }
    }

    /// Stops the threads, says where in the order of events the copy stands, makes it, and lets the threads go on. Returns
    /// the copy's number.
    fn copy(&self, number: u32, suppressions: Option<&core::ffi::CStr>) -> Result<u32, Failure> {
        let stopped = Stopped::all_others().ok_or(Failure(result::NO_MEMORY))?;
        stopped.remember();
        let Access::Inside(mut inside) = guard::enter() else { return Err(Failure(result::INSIDE)) };
        let event = Event::HeapCall { call: HeapCall::Copied, argument: 0, value: u64::from(number) };
        inside.own().stream.event(self.segment, self.segment.now(), StackId::NONE, event);
        drop(inside);
        let control = self.plant()?;
        self.request(number);
        let made = host::copy_process();
        if made == Some(0) {
            host::block_signals();
            host::close_all_files();
            let marked = self.mark(number, &stopped, suppressions);
            self.finish(number, marked);
            host::end_process();
        }
        drop(control);
        made.ok_or(Failure(result::NO_COPY))
    }
}
