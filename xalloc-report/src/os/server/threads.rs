//! The threads that serve requests, and the turn that one of them has.
//!
//! One thread at a time has the turn, so requests are served in the recorded order; a thread that ends has ended, with
//! all its destructors, before the next request. The main thread is number 0. Handles and stacks lie in mappings, so
//! that the allocator is asked only for what `pthread_create` itself asks for.
//!
//! # Safety
//! - `handles` and `stacks` are null with `count` 0, or mappings of `count` handles and of `count` stacks.
//! - libc's functions get pointers to locals or to these mappings, with their true lengths.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{PAGE, map, reserve};

/// Bytes of a thread's stack: allocators are called on it.
const STACK_BYTES: usize = 256 << 10;
/// Of these, what is made resident before anything is measured.
const WARM_STACK_BYTES: usize = 32 << 10;

/// What a thread runs; its argument is the thread's number.
pub(super) type Main = extern "C" fn(*mut c_void) -> *mut c_void;

/// Handles and stacks of all threads.
pub(super) struct Threads {
    handles: *mut libc::pthread_t,
    stacks: *mut u8,
    count: usize,
    /// The thread that has ended or is about to, and is to be joined.
    leaving: Option<u32>,
}

impl Threads {
    /// No thread at all.
    pub(super) const fn none() -> Threads {
        Threads { handles: null_mut(), stacks: null_mut(), count: 0, leaving: None }
    }

    /// Room for that many threads; `None` if there is no memory.
    pub(super) fn with_count(count: usize) -> Option<Threads> {
        let handles = map(count * size_of::<libc::pthread_t>())?.cast();
        Some(Threads { handles, stacks: warm_stacks(count)?, count, leaving: None })
    }

    /// Whether a thread was started and has not been joined.
    pub(super) fn is_running(&self, thread: usize) -> bool {
        thread < self.count && self.handle(thread) != 0
    }

    fn handle(&self, thread: usize) -> libc::pthread_t {
        // SAFETY: the caller compared with `count`, the mapping's length.
        unsafe { self.handles.wrapping_add(thread).read() }
    }

    fn set_handle(&mut self, thread: usize, handle: libc::pthread_t) {
        // SAFETY: as above.
        unsafe { self.handles.wrapping_add(thread).write(handle) };
    }

    /// Starts a thread. The main one runs already, and a number beyond all is left out.
    ///
    /// # Errors
    /// The system does not start it.
    pub(super) fn start(&mut self, thread: usize, main: Main) -> Result<(), ()> {
        if thread == 0 || thread >= self.count {
            return Ok(());
        }
        // SAFETY: all-zero is a valid place for an attribute that is initialised next.
        let mut attribute: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
        // SAFETY: writes the local.
        unsafe { libc::pthread_attr_init(&mut attribute) };
        let stack = self.stacks.wrapping_add(thread * STACK_BYTES);
        // SAFETY: the range is this thread's part of the mapping.
        unsafe { libc::pthread_attr_setstack(&mut attribute, stack.cast(), STACK_BYTES) };
        let mut handle: libc::pthread_t = 0;
        let number = std::ptr::without_provenance_mut(thread);
        // SAFETY: a function and an argument that is no pointer, on a stack that no other thread has.
        let error = unsafe { libc::pthread_create(&mut handle, &attribute, main, number) };
        // SAFETY: initialised above.
        unsafe { libc::pthread_attr_destroy(&mut attribute) };
        if error != 0 {
            return Err(());
        }
        self.set_handle(thread, handle);
        Ok(())
    }

    /// Says that a thread is about to end.
    pub(super) fn leave(&mut self, thread: u32) {
        self.leaving = Some(thread);
    }

    /// Waits for the end of the thread that said it would.
    pub(super) fn join_leaving(&mut self) {
        let Some(thread) = self.leaving.take() else { return };
        let thread = thread as usize;
        // SAFETY: the thread was started and has given the turn up for the last time.
        unsafe { libc::pthread_join(self.handle(thread), null_mut()) };
        self.set_handle(thread, 0);
    }
}

/// Stacks for all threads but the main one; the upper part of each is resident.
fn warm_stacks(threads: usize) -> Option<*mut u8> {
    let place = reserve(threads * STACK_BYTES)?;
    for thread in 1..threads {
        for offset in (0..WARM_STACK_BYTES).step_by(PAGE) {
            let page = place.wrapping_add((thread + 1) * STACK_BYTES - WARM_STACK_BYTES + offset);
            // SAFETY: within the mapping above.
            unsafe { page.write_volatile(0) };
        }
    }
    Some(place)
}

/// Number of the thread that has the turn.
static TURN: AtomicU32 = AtomicU32::new(0);
const WAIT: c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const WAKE: c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// Returns when the thread has the turn.
pub(super) fn wait_for_turn(me: u32) {
    loop {
        // ORDERING: pairs with the Release store in `hand_over`.
        let turn = TURN.load(Ordering::Acquire);
        if turn == me {
            return;
        }
        // SAFETY: the word is a static; the kernel compares it with `turn` before it sleeps.
        unsafe { libc::syscall(libc::SYS_futex, TURN.as_ptr(), WAIT, turn, null::<u8>()) };
    }
}

/// Gives the turn to another thread.
pub(super) fn hand_over(to: u32) {
    // ORDERING: publishes what the thread did in its turn; pairs with the Acquire load in `wait_for_turn`.
    TURN.store(to, Ordering::Release);
    // SAFETY: the word is a static. All are woken, for each waits for its own number.
    unsafe { libc::syscall(libc::SYS_futex, TURN.as_ptr(), WAKE, c_int::MAX) };
}
