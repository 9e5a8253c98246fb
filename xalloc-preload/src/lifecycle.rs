//! From the first call to the last: cold, booting, live, off.
//!
//! | phase | memory | events |
//! |---|---|---|
//! | cold | nothing was called yet, or the process was just forked | |
//! | booting | one thread finds out what is wanted; its own inner calls are served without thread state | none |
//! | live | served | recorded |
//! | off | served | none: nobody asked for them, or the recorder is gone |
//!
//! The first call of any hook boots, for allocations arrive before every constructor. There is no phase for the end:
//! the last words are an event, and what libc frees after them is still recorded.
//!
//! # A forked child is cold by itself
//! The phase is one word in a page that the kernel hands to a forked child as zeroes, so a child starts cold whichever
//! way it was made, a raw `clone` included, and makes its own segment at its first call. A child of `vfork` shares the
//! page, the memory and the thread with its parent, and goes on as the parent. The recording has no lock that a fork could
//! catch; the heap's are those of threads that the child does not have, and it gives them up (`backend::forked`).
//!
//! # Safety
//! - The page is a static of this library, page-aligned and a page long, in its zero-initialised data, which is private
//!   and anonymous.
//! - The cell of the session is written by the thread that boots a program image, and only read afterwards.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use xalloc_core::session::{Refusal, allocator, harden};

use crate::arch;
use crate::backend;
use crate::config::{self, config};
use crate::host;
use crate::process;
use crate::sampled;
use crate::scan;
use crate::segment::{self, Birth, Refused, Session};
use crate::stacks;
use crate::thread;

/// What the process is doing, as far as this library is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Nothing yet.
    Cold,
    /// A thread boots.
    Booting,
    /// Events are recorded.
    Live,
    /// Events are not recorded.
    Off,
}

const COLD: usize = 0;
const LIVE: usize = 1;
const OFF: usize = 2;

#[repr(C, align(4096))]
struct Page {
    /// The phase: one of the three numbers, or the address of the descriptor of the thread that boots.
    word: AtomicUsize,
    /// What [`brief_way`] says.
    brief_way: AtomicUsize,
    /// What [`recorded_way`] says.
    recorded_way: AtomicUsize,
    /// What [`sampled_way`] says.
    sampled_way: AtomicUsize,
    rest: [u8; 4096 - 4 * size_of::<usize>()],
}

static PAGE: Page = Page {
    word: AtomicUsize::new(COLD),
    brief_way: AtomicUsize::new(0),
    recorded_way: AtomicUsize::new(0),
    sampled_way: AtomicUsize::new(0),
    rest: [0; 4096 - 4 * size_of::<usize>()],
};

/// Whether this program image has booted, in this process or in one it was forked from.
static HAS_BOOTED: AtomicBool = AtomicBool::new(false);

struct Found(UnsafeCell<Option<Session>>);

// SAFETY: by the second bullet of the module.
unsafe impl Sync for Found {}

static SESSION: Found = Found(UnsafeCell::new(None));

/// The phase.
#[inline(always)]
pub(crate) fn phase() -> Phase {
    // ORDERING: pairs with the Release store in `boot`: what booting set up is seen.
    match PAGE.word.load(Ordering::Acquire) {
        COLD => Phase::Cold,
        LIVE => Phase::Live,
        OFF => Phase::Off,
        _ => Phase::Booting,
    }
}

/// Where in its descriptor a thread finds its state, if hooks have nothing to do but to serve: nothing is recorded, the
/// core's heap serves, and that keeps no set of its blocks. Else 0. One load answers for all of it, and for the fork that
/// wipes it.
#[inline(always)]
pub(crate) fn brief_way() -> usize {
    // Relaxed: what booting set up was seen by `open_brief_way`'s caller, or is reached through the thread's own state.
    PAGE.brief_way.load(Ordering::Relaxed)
}

/// Says that hooks have nothing to do but to serve, and where a thread's state is; 0: that is not known yet.
pub(crate) fn open_brief_way(offset: usize) {
    PAGE.brief_way.store(offset, Ordering::Relaxed);
}

/// Where in its descriptor a thread finds its state, if events are recorded and the core's heap serves. Else 0. As
/// [`brief_way`], one load answers for all of it.
#[inline(always)]
pub(crate) fn recorded_way() -> usize {
    // Relaxed: a thread that finds its state has passed the guard before, and then seen what booting set up.
    PAGE.recorded_way.load(Ordering::Relaxed)
}

/// As [`recorded_way`], if only some blocks are recorded and the core's heap serves without a set of all of them.
#[inline(always)]
pub(crate) fn sampled_way() -> usize {
    // Relaxed: as in `recorded_way`.
    PAGE.sampled_way.load(Ordering::Relaxed)
}

/// Whether hooks that record have no short way yet.
#[inline(always)]
pub(crate) fn has_no_way() -> bool {
    (recorded_way() | sampled_way()) == 0
}

/// Says that events are recorded, the core's heap serves, and where a thread's state is; 0: that is not known yet, and
/// may never be.
pub(crate) fn open_recorded_way(offset: usize) {
    open(&PAGE.recorded_way, offset);
}

/// The same where only some blocks are recorded.
pub(crate) fn open_sampled_way(offset: usize) {
    open(&PAGE.sampled_way, offset);
}

fn open(way: &AtomicUsize, offset: usize) {
    if offset == 0 {
        return;
    }
    way.store(offset, Ordering::Relaxed);
    // ORDERING: pairs with the fence in `stop_recording`: either this sees that recording has ended, or the way is
    // closed there after it was opened here.
    fence(Ordering::SeqCst);
    if PAGE.word.load(Ordering::Relaxed) != LIVE {
        way.store(0, Ordering::Relaxed);
    }
}

/// Ends recording for good: the recorder is finished or gone. The program goes on. False: it had ended before.
pub(crate) fn stop_recording() -> bool {
    // Relaxed: a thread that sees it late pushes into a ring that nobody reads.
    let has_ended = PAGE.word.compare_exchange(LIVE, OFF, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    // ORDERING: pairs with the fence in `open`.
    fence(Ordering::SeqCst);
    PAGE.recorded_way.store(0, Ordering::Relaxed);
    PAGE.sampled_way.store(0, Ordering::Relaxed);
    has_ended
}

/// Boots if the process is cold, waits while another thread boots. False: the library cannot be used yet, because it is
/// not relocated or because the calling thread is booting it.
#[cold]
#[inline(never)]
pub(crate) fn make_ready() -> bool {
    if !arch::is_relocated() {
        return false;
    }
    if HAS_BOOTED.load(Ordering::Relaxed) && thread::is_inside() {
        // A signal handler forked while its thread was in a hook: that hook's state must stay as it is until it ends.
        return true;
    }
    let me = arch::thread_pointer();
    loop {
        // ORDERING: Acquire on failure pairs with the Release store below.
        match PAGE.word.compare_exchange(COLD, me, Ordering::Relaxed, Ordering::Acquire) {
            Ok(_) => {
                let next = host::keeping_errno(boot);
                // ORDERING: pairs with the Acquire load in `phase`.
                PAGE.word.store(next, Ordering::Release);
                return true;
            }
            Err(LIVE | OFF) => return true,
            Err(owner) if owner == me => return false,
            Err(_) => host::yield_now(),
        }
    }
}

/// What happens between cold and live; the phase that comes next.
fn boot() -> usize {
    let is_child = HAS_BOOTED.load(Ordering::Relaxed);
    if !is_child {
        // SAFETY: this thread is booting, by the exchange that led here.
        unsafe { config::read() };
        config().tell_misread();
        let session = Session::open(config()).unwrap_or_else(|refused| {
            refused.tell(config());
            None
        });
        // SAFETY: second bullet of the module.
        unsafe { SESSION.0.get().write(session) };
        let options = session.map_or(config().options, |session| session.options);
        let hardens = match options.harden {
            harden::NEVER => false,
            // Where few blocks are recorded, little is to be paid for all the others.
            harden::RECORDED => session.is_some() && options.sample_mean_bytes == 0,
            _ => true,
        };
        backend::choose(&options);
        if hardens {
            backend::harden();
        }
        if session.is_some() && options.sample_mean_bytes != 0 {
            sampled::begin();
        }
        thread::create_key();
        process::register();
        HAS_BOOTED.store(true, Ordering::Relaxed);
    }
    let page: *const Page = &raw const PAGE;
    if !host::wipe_on_fork(page.cast_mut().cast(), size_of::<Page>()) {
        process::must_reset_by_handler();
    }
    let birth = if is_child { Birth::Fork(thread::forked()) } else { Birth::Exec };
    // SAFETY: second bullet of the module: written above, by this thread or by the one that is now this one's copy.
    let Some(session) = (unsafe { *SESSION.0.get() }) else { return OFF };
    let follows = birth == Birth::Exec || session.options.follow != 0;
    let allocator = if backend::is_core() { allocator::CORE } else { allocator::SYSTEM };
    // SAFETY: this thread is booting; a child has no other.
    if !follows {
        return OFF;
    }
    // SAFETY: this thread is booting; a child has no other.
    let made = unsafe { segment::create(config(), &session, birth, allocator) }.and_then(|()| {
        // SAFETY: as above.
        let has_stacks = segment::current().is_some_and(|segment| unsafe { stacks::begin(segment) });
        if has_stacks {
            return Ok(());
        }
        let refused = Refused::by_system(Refusal::Memory);
        segment::withdraw();
        Err(refused)
    });
    match made {
        Ok(()) => {
            if let Some(segment) = segment::current() {
                scan::watch_signals(segment);
                scan::watch_demands(segment);
            }
            LIVE
        }
        Err(refused) => {
            refused.tell(config());
            OFF
        }
    }
}

/// Makes the process cold again, in a child whose page the kernel did not wipe.
pub(crate) fn reset() {
    PAGE.brief_way.store(0, Ordering::Relaxed);
    PAGE.recorded_way.store(0, Ordering::Relaxed);
    PAGE.sampled_way.store(0, Ordering::Relaxed);
    PAGE.word.store(COLD, Ordering::Relaxed);
}

/// Whether children are to be recorded too. True where nothing is recorded: nothing is changed for them then.
pub(crate) fn follows_children() -> bool {
    // SAFETY: by the second bullet of the module; callers come after booting.
    unsafe { &*SESSION.0.get() }.as_ref().is_none_or(|session| session.options.follow != 0)
}

/// Whether this program image was to be recorded when it booted.
pub(crate) fn has_session() -> bool {
    // SAFETY: as above.
    unsafe { &*SESSION.0.get() }.is_some()
}

/// Called by the loader before the program's own constructors, for programs that never allocate.
extern "C" fn constructor() {
    if phase() == Phase::Cold {
        make_ready();
    }
}

#[cfg(panic = "abort")]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
#[cfg(not(panic = "abort"))]
const _: extern "C" fn() = constructor;

const _: () = assert!(size_of::<Page>() == 4096);
