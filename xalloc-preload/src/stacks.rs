//! From a call's registers to the id of its stack: the seam between the hooks and the capture room.
//!
//! # Safety
//! - The static is written by the thread that boots the process, while no other can read it.
#![allow(unsafe_code)]

mod steps;

use core::cell::UnsafeCell;
use core::hint::cold_path;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use xalloc_core::units::{Addr, StackId};
use xalloc_core::wire::Event;

use crate::arch::Entry;
use crate::backend;
use crate::capture::{self, Shared};
use crate::modules::{Announce, ModuleSeen};
use crate::segment::{self, Segment};
use crate::text::Text;
use crate::thread::{Own, Stream};

pub(crate) use steps::{Steps, Unattributed};

struct Place(UnsafeCell<Option<Shared>>);

// SAFETY: by the bullet of the module.
unsafe impl Sync for Place {}

static SHARED: Place = Place(UnsafeCell::new(None));

fn shared() -> Option<&'static Shared> {
    // SAFETY: by the bullet of the module nobody writes it now.
    unsafe { &*SHARED.0.get() }.as_ref()
}

/// Makes the stacks of a new segment. False: there is no memory for them.
///
/// # Safety
/// - The calling thread is booting the process.
pub(crate) unsafe fn begin(segment: &'static Segment) -> bool {
    let shared = Shared::new(segment.trie(), segment.header(), &segment.options);
    let has_memory = shared.is_some();
    // SAFETY: by the contract this thread alone uses the place.
    unsafe { SHARED.0.get().write(shared) };
    // A forked child is paused as its parent was, and has a trie of its own.
    if pauses() > 0 {
        PAUSED.store(paused_node(), Ordering::Relaxed);
    }
    has_memory
}

/// The one stack of a pause, 0 while there is none.
static PAUSED: AtomicU32 = AtomicU32::new(0);
/// Pauses that were begun and not ended.
static PAUSES: AtomicU32 = AtomicU32::new(0);

fn paused_node() -> u32 {
    shared().map_or(0, |shared| shared.paused().0)
}

/// Pauses that were begun and not ended.
pub(crate) fn pauses() -> u32 {
    PAUSES.load(Ordering::Relaxed)
}

/// Begins a pause: no stack is captured until it is ended.
pub(crate) fn pause() {
    // Relaxed, here and below: a thread that sees it late has a stack more, or one less.
    if PAUSES.fetch_add(1, Ordering::Relaxed) == 0 {
        PAUSED.store(paused_node(), Ordering::Relaxed);
    }
}

/// Ends a pause, if there is one. True: it was the last.
pub(crate) fn resume() -> bool {
    let ended = PAUSES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pauses| pauses.checked_sub(1));
    let is_last = ended == Ok(1);
    if is_last {
        PAUSED.store(0, Ordering::Relaxed);
    }
    is_last
}

/// The id of the stack that a call came from; modules that it touches first are announced in the thread's stream before.
#[inline(always)]
pub(crate) fn stack_of(own: &mut Own, entry: Entry) -> StackId {
    own.entry = entry;
    stack_of_kept(own)
}

/// The same of a call whose registers were kept ([`Own::entry`]): who calls this need not hold them.
#[inline(never)]
pub(crate) fn stack_of_kept(own: &mut Own) -> StackId {
    let paused = PAUSED.load(Ordering::Relaxed);
    if paused != 0 {
        cold_path();
        return StackId(paused);
    }
    let Some(shared) = shared() else {
        cold_path();
        return StackId::UNKNOWN;
    };
    match capture::repeated(own.capture, own.entry, shared) {
        Some(stack) => stack,
        None => stack_anew(own, shared),
    }
}

/// The same of a stack that the thread did not capture lately. Its modules are told in a ring, so the thread must have one.
#[inline(never)]
fn stack_anew(own: &mut Own, shared: &Shared) -> StackId {
    let Some(segment) = segment::current() else { return StackId::UNKNOWN };
    let Own { entry, stream, capture, .. } = own;
    if stream.wants_ring() {
        stream.claim(segment);
    }
    capture::capture_anew(capture, *entry, shared, &mut Announcements { segment, stream })
}

/// The id of the stack that the heap's steps on behalf of a call carry; none if no steps are told.
pub(crate) fn stack_of_steps(own: &mut Own, segment: &'static Segment, entry: Entry) -> StackId {
    if segment.options.heap_steps == 0 || !backend::is_core() {
        return StackId::NONE;
    }
    stack_of(own, entry)
}

/// The id of the stack that a free and the steps on its behalf carry; none if none of them is to have one.
pub(crate) fn stack_of_free(own: &mut Own, segment: &'static Segment, entry: Entry) -> StackId {
    if segment.options.free_stacks == 0 { stack_of_steps(own, segment, entry) } else { stack_of(own, entry) }
}

/// Modules on their way into a thread's stream.
struct Announcements<'a> {
    segment: &'static Segment,
    stream: &'a mut Stream,
}

impl Announce for Announcements<'_> {
    #[cold]
    fn module(&mut self, module: &ModuleSeen<'_>) {
        static SERIAL: AtomicU16 = AtomicU16::new(0);
        // Relaxed: only ties the two records together.
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mut text = Text::<{ crate::config::PATH }>::new();
        // A build-id of more than 255 bytes is none that a linker makes.
        let build_id = if module.build_id.len() > 255 { &[] } else { module.build_id };
        text.push(&[build_id.len() as u8]);
        text.push(build_id);
        text.push(module.path);
        let bias = Addr(module.bias);
        self.stream.push_text(self.segment, StackId::NONE, text.as_bytes(), |text_bytes| Event::Module {
            bias,
            serial,
            text_bytes,
        });
        let range = Event::ModuleRange {
            start: Addr(module.code_start),
            len_bytes: module.code_end.saturating_sub(module.code_start),
            serial,
        };
        self.stream.event(self.segment, self.segment.now(), StackId::NONE, range);
    }
}

/// After modules were unmapped: the number of the generation of stacks that begins.
pub(crate) fn closed() -> u32 {
    shared().map_or(0, capture::on_dlclose)
}
