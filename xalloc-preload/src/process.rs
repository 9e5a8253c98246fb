//! The events of a process's life: forks, execs, the end.
//!
//! A fork is announced by a handler that libc runs in the parent as late as it can, for it was registered first; the
//! child needs no handler, for it starts cold ([`crate::lifecycle`]). The end is announced by an exit handler that was
//! registered before any of the program's, so it runs after them, and after all destructors.
//!
//! # A child of vfork
//! It runs on the parent's memory and thread until it execs or exits. What it allocates is the parent's; but that it
//! goes is no event of the parent's, so last words are said only by the process that the segment belongs to.
//!
//! # Safety
//! - The handlers have the types that libc's registration functions ask for, and live as long as the process: this
//!   library is never unloaded while it is preloaded.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use xalloc_core::units::StackId;
use xalloc_core::wire::Event;

use crate::backend::{self, HEAP, next};
use crate::guard::{self, Access};
use crate::host;
use crate::lifecycle::{self, Phase};
use crate::scan;
use crate::segment::{self, Segment};
use crate::stacks;
use crate::thread;

mod deep_bind;

pub(crate) use deep_bind::{before_dlmopen, before_dlopen};

unsafe extern "C" {
    fn __register_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
        object: *mut c_void,
    ) -> c_int;
    fn on_exit(handler: unsafe extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn __cxa_at_quick_exit(handler: extern "C" fn(*mut c_void), object: *mut c_void) -> c_int;
}

static PAGE_IS_NOT_WIPED: AtomicBool = AtomicBool::new(false);

/// Registers the handlers. Called once, while the program image boots; libc has room for the first few without
/// allocating.
pub(crate) fn register() {
    // SAFETY: by the bullet of the module.
    unsafe { __register_atfork(Some(prepare), Some(parent), Some(child), core::ptr::null_mut()) };
    // SAFETY: by the bullet of the module.
    unsafe { on_exit(scan::at_exit_handler, core::ptr::null_mut()) };
    // SAFETY: by the bullet of the module.
    unsafe { __cxa_at_quick_exit(scan::at_quick_exit_handler, core::ptr::null_mut()) };
}

/// Says that a forked child does not start cold by itself: the kernel is too old.
pub(crate) fn must_reset_by_handler() {
    PAGE_IS_NOT_WIPED.store(true, Ordering::Relaxed);
}

extern "C" fn prepare() {
    let Access::Inside(mut inside) = guard::enter() else { return };
    if let Some(segment) = inside.recording() {
        let fork_serial = segment.next_fork();
        let own = inside.own();
        own.fork_serial = fork_serial;
        own.stream.event(segment, segment.now(), StackId::NONE, Event::Fork { fork_serial });
    }
    if backend::is_core() {
        HEAP.fork_prepare(&mut inside.own().cache);
    }
}

extern "C" fn parent() {
    let Access::Inside(mut inside) = guard::enter() else { return };
    inside.own().fork_serial = 0;
}

extern "C" fn child() {
    if thread::is_inside() {
        segment::quarantine();
    }
    if PAGE_IS_NOT_WIPED.load(Ordering::Relaxed) {
        lifecycle::reset();
    }
}

/// The segment, if the calling process is the one it belongs to.
pub(crate) fn own_segment() -> Option<&'static Segment> {
    if lifecycle::phase() != Phase::Live {
        return None;
    }
    segment::current().filter(|segment| segment.pid == host::pid())
}

/// Says that the process ends.
pub(crate) fn say_exit(status: c_int) {
    host::keeping_errno(|| {
        let Some(segment) = own_segment() else { return };
        if let Access::Inside(mut inside) = guard::enter() {
            inside.own().stream.event(segment, segment.now(), StackId::NONE, Event::Exit { status });
        }
        segment.set_ended();
    });
}

/// `_exit` and `_Exit`: the end without handlers.
pub(crate) fn exit_at_once(status: c_int) -> ! {
    say_exit(status);
    loop {
        // SAFETY: ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}

/// Before `pthread_create`: from now on the heap takes locks.
pub(crate) extern "C" fn before_pthread_create() -> usize {
    let access = guard::enter();
    if backend::is_core() {
        HEAP.note_multithreaded();
    }
    if let Some(segment) = segment::current() {
        segment.order_stamps();
    }
    drop(access);
    next::target(next::Symbol::pthread_create)
}

/// C `dlclose`.
pub(crate) fn close_library(handle: *mut c_void) -> c_int {
    let answer = next::call!(dlclose as fn(*mut c_void) -> c_int, (handle), or - 1);
    if answer == 0
        && let Access::Inside(mut inside) = guard::enter()
        && let Some(segment) = inside.recording()
    {
        let generation = stacks::closed();
        let event = Event::ModulesClosed { generation };
        inside.own().stream.event(segment, segment.now(), StackId::NONE, event);
    }
    answer
}

/// Says that the process is about to become the program at `path`. The answer to [`say_exec_failed`].
pub(crate) fn say_exec(path: &[u8]) -> Option<&'static Segment> {
    let segment = own_segment()?;
    if let Access::Inside(mut inside) = guard::enter() {
        inside.own().stream.push_text(segment, StackId::NONE, path, |text_bytes| Event::Exec { text_bytes });
    }
    segment.set_ended();
    Some(segment)
}

/// Takes [`say_exec`] back.
pub(crate) fn say_exec_failed(said: Option<&'static Segment>) {
    let Some(segment) = said else { return };
    host::keeping_errno(|| {
        if let Access::Inside(mut inside) = guard::enter() {
            inside.own().stream.event(segment, segment.now(), StackId::NONE, Event::ExecFailed);
        }
        segment.set_live();
    });
}
