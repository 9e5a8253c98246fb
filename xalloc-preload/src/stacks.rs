//! From a call's registers to the id of its stack: the seam between the hooks and the capture room.
//!
//! # Safety
//! - The static is written by the thread that boots the process, while no other can read it.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::hint::cold_path;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use xalloc_core::heap::{Allocation, Served, Sink};
use xalloc_core::units::{Addr, ArenaId, CHUNK_OVERHEAD_BYTES, StackId, Stamp};
use xalloc_core::wire::{
    Call, Event, HeapEvent, LedTo, MOST_FILLED, MOST_FILLED_FAR, MergeBinned, PutAway, Record, Stamped, fill_fits,
};

use crate::arch::Entry;
use crate::backend;
use crate::capture::{self, Shared};
use crate::modules::{Announce, ModuleSeen};
use crate::segment::{self, Segment};
use crate::text::Text;
use crate::thread::{Own, Stream};

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

/// The heap's steps on behalf of a call.
///
/// What may share a record with what follows is held until that comes ([`Held`]); it is told under the same lock, for the
/// heap lets go of none in between.
pub(crate) struct Steps<'a> {
    segment: &'static Segment,
    stream: &'a mut Stream,
    stack: StackId,
    held: Held,
    /// What the program asked for, until it is told that it got it.
    wanted: Option<Wanted>,
    has_told_block: bool,
}

/// A request of the program's whose block may be told with the steps that lead to it.
#[derive(Clone, Copy)]
struct Wanted {
    size_bytes: u64,
    call: Call,
}

/// What was not told yet, because what comes next may share its record.
enum Held {
    Nothing,
    /// A free; the steps that it leads to follow.
    Free {
        block: Addr,
        call: Call,
    },
    /// A free and its first step; another is to follow.
    BegunFree {
        block: Addr,
        call: Call,
        begun: Begun,
    },
    /// A step: a split that may have made the chunk that is wanted, or a merge, whose result goes to a bin.
    Step {
        arena: ArenaId,
        seq: u16,
        step: HeapEvent,
    },
    /// Chunks that went to the cache, as in [`Event::CacheFill`]; the block that is wanted may be the one before them.
    Filled {
        arena: ArenaId,
        seq: u16,
        size_bytes: u64,
        chunks: [Addr; MOST_FILLED],
    },
}

/// The first step of a freed chunk's being put away.
#[derive(Clone, Copy)]
struct Begun {
    arena: ArenaId,
    seq: u16,
    put_away: PutAway,
}

impl<'a> Steps<'a> {
    /// The steps of the call with this stack.
    #[inline(always)]
    pub(crate) fn new(segment: &'static Segment, stream: &'a mut Stream, stack: StackId) -> Steps<'a> {
        Steps { segment, stream, stack, held: Held::Nothing, wanted: None, has_told_block: false }
    }
}

impl Steps<'_> {
    /// Tells an event of the call, which is no step of the heap's.
    #[inline(always)]
    pub(crate) fn tell_event(&mut self, event: Event) {
        self.settle();
        self.stream.event(self.segment, self.segment.now(), self.stack, event);
    }

    /// Tells that `block` is free, which the heap is about to do: at once, or by the record of the first step that the heap
    /// tells. Every step is told under the lock that other threads need to get the block, so that none can be seen to get
    /// it earlier; what has no step goes to this thread's own cache. [`Steps::settle`] is to follow.
    #[inline(always)]
    pub(crate) fn free(&mut self, block: Addr, call: Call) {
        self.held = Held::Free { block, call };
        if !backend::is_core() || self.segment.options.heap_steps == 0 {
            self.release();
        }
    }

    /// Says what a malloc or a calloc asks for: the block may be told with the steps that lead to it, see
    /// [`Steps::has_told_block`].
    #[inline(always)]
    pub(crate) fn want(&mut self, size_bytes: u64, call: Call) {
        if self.segment.options.heap_steps != 0 {
            self.wanted = Some(Wanted { size_bytes, call });
        }
    }

    /// Whether the block of [`Steps::want`] was told with the steps that led to it.
    #[inline(always)]
    pub(crate) fn has_told_block(&self) -> bool {
        self.has_told_block
    }

    /// Tells what is held: nothing that it could share a record with has come.
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        if !matches!(self.held, Held::Nothing) {
            self.release();
        }
    }

    /// Tells what is held, each event by a record of its own.
    #[inline(never)]
    fn release(&mut self) {
        match core::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => {}
            Held::Free { block, call } => self.release_free(block, call),
            Held::BegunFree { block, call, begun: Begun { arena, seq, put_away } } => {
                self.release_free(block, call);
                if let Some(step) = put_away.merge_step(block) {
                    self.push_event(Event::Heap { arena, seq, step });
                }
            }
            Held::Step { arena, seq, step } => self.push_event(Event::Heap { arena, seq, step }),
            Held::Filled { arena, seq, size_bytes, chunks } => self.tell_filled(arena, seq, size_bytes, chunks),
        }
    }

    fn release_free(&mut self, block: Addr, call: Call) {
        let stack = if self.segment.options.free_stacks == 0 { StackId::NONE } else { self.stack };
        self.stream.event(self.segment, self.segment.now(), stack, Event::Free { addr: block, call });
    }

    /// Puts a step to what is held. True: it is told with it, or will be. False: what was held is told, the step is not.
    #[inline(always)]
    fn join(&mut self, arena: ArenaId, seq: u16, step: &HeapEvent) -> bool {
        let joined = match self.held {
            Held::Free { block, call } => {
                PutAway::begun_by(step, block).map(|put_away| (block, call, Begun { arena, seq, put_away }))
            }
            Held::BegunFree { block, call, begun } if begun.arena == arena && begun.seq.wrapping_add(1) == seq => {
                begun.put_away.ended_by(step, block).map(|put_away| (block, call, Begun { put_away, ..begun }))
            }
            Held::Step { arena: before, seq: number, step: merge }
                if before == arena && number.wrapping_add(1) == seq =>
            {
                if let Some(merging) = MergeBinned::of(&merge, step) {
                    self.held = Held::Nothing;
                    self.push_event(Event::MergeBinned { arena, seq: number, merging });
                    return true;
                }
                None
            }
            Held::Nothing | Held::BegunFree { .. } | Held::Step { .. } | Held::Filled { .. } => None,
        };
        let Some((addr, call, begun)) = joined else {
            self.release();
            return false;
        };
        let Begun { arena, seq, put_away } = begun;
        if put_away.goes_on() {
            self.held = Held::BegunFree { block: addr, call, begun };
        } else {
            self.held = Held::Nothing;
            self.push_event(Event::FreeBinned { addr, call, arena, seq, put_away });
        }
        true
    }

    /// Whether what follows `step` may share its record.
    #[inline(always)]
    fn begins_record(&self, step: &HeapEvent) -> bool {
        let may_have_block = matches!(step, HeapEvent::Split { .. }) && self.wanted.is_some();
        may_have_block || matches!(step, HeapEvent::Coalesce { merged, .. } if !merged.top)
    }

    #[inline(always)]
    fn push_event(&mut self, event: Event) {
        let Record { a, b, kind, sub, extra, .. } = Stamped { stamp: Stamp(0), stack: StackId::NONE, event }.encode();
        self.push(a, b, kind, sub, extra);
    }

    #[inline(never)]
    fn push(&mut self, a: u64, b: u64, kind: u8, sub: u8, seq: u16) {
        if self.segment.options.heap_steps != 0 {
            let stack = self.stack.0;
            let stamp = self.segment.now().0;
            self.stream.push_one(self.segment, Record { stamp, a, b, stack, kind, sub, extra: seq });
        }
    }
}

impl Sink for Steps<'_> {
    // The kind of step is known where the heap tells it: what is left there are the operands.
    #[inline(always)]
    fn event(&mut self, arena: ArenaId, seq: u16, step: HeapEvent) {
        if !matches!(self.held, Held::Nothing) && self.join(arena, seq, &step) {
            return;
        }
        if self.begins_record(&step) {
            self.held = Held::Step { arena, seq, step };
        } else {
            self.push_event(Event::Heap { arena, seq, step });
        }
    }

    #[inline]
    fn cache_filled(&mut self, arena: ArenaId, seq: u16, size_bytes: u64, chunks: [Addr; MOST_FILLED]) {
        self.settle();
        if self.wanted.is_some() && chunks[MOST_FILLED_FAR].0 == 0 {
            self.held = Held::Filled { arena, seq, size_bytes, chunks };
        } else {
            self.tell_filled(arena, seq, size_bytes, chunks);
        }
    }

    #[inline(always)]
    fn served(&mut self, made: &Allocation) {
        match self.held {
            Held::Nothing => {}
            Held::Step { .. } => self.tell_with_split(made),
            Held::Filled { .. } => self.tell_with_filled(made),
            Held::Free { .. } | Held::BegunFree { .. } => self.release(),
        }
    }
}

impl Steps<'_> {
    /// Tells the split that is held with the block that is wanted, if one record can tell both.
    #[inline(never)]
    fn tell_with_split(&mut self, made: &Allocation) {
        if let Held::Step { arena, seq, ref step } = self.held
            && let Some(Wanted { size_bytes, call }) = self.wanted
            && let Some(led_to) = LedTo::split(step, made.addr, size_bytes)
            && is_next(made, arena, seq.wrapping_add(1))
        {
            self.tell_block(Event::AllocAfter { addr: made.addr, size_bytes, arena, seq, call, led_to });
        } else {
            self.release();
        }
    }

    /// The same of chunks that went to the cache.
    #[inline(never)]
    fn tell_with_filled(&mut self, made: &Allocation) {
        if let Held::Filled { arena, seq, size_bytes: filled_bytes, chunks } = self.held
            && let Some(Wanted { size_bytes, call }) = self.wanted
            && made.usable_bytes + CHUNK_OVERHEAD_BYTES == filled_bytes
            && let Some(led_to) = LedTo::filled(filled_bytes, chunks, made.addr, size_bytes)
            && is_next(made, arena, seq.wrapping_add(chunks.iter().filter(|chunk| chunk.0 != 0).count() as u16))
        {
            self.tell_block(Event::AllocAfter { addr: made.addr, size_bytes, arena, seq, call, led_to });
        } else {
            self.release();
        }
    }

    #[inline(always)]
    fn tell_block(&mut self, event: Event) {
        (self.held, self.wanted, self.has_told_block) = (Held::Nothing, None, true);
        self.push_event(event);
    }

    /// Tells of chunks that went to the cache, by one record if they lie near enough.
    #[inline(always)]
    fn tell_filled(&mut self, arena: ArenaId, seq: u16, size_bytes: u64, chunks: [Addr; MOST_FILLED]) {
        if fill_fits(size_bytes, chunks) {
            self.push_event(Event::CacheFill { arena, seq, size_bytes, chunks });
        } else {
            self.tell_filled_by_some(arena, seq, size_bytes, chunks);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_filled_by_some(&mut self, arena: ArenaId, seq: u16, size_bytes: u64, chunks: [Addr; MOST_FILLED]) {
        let mut seq = seq;
        for some in chunks.chunks(MOST_FILLED_FAR) {
            let mut far = [Addr(0); MOST_FILLED];
            for (to, chunk) in far.iter_mut().zip(some) {
                *to = *chunk;
            }
            if fill_fits(size_bytes, far) {
                self.push_event(Event::CacheFill { arena, seq, size_bytes, chunks: far });
            } else {
                self.cache_filled_by_each(arena, seq, size_bytes, far);
            }
            seq = seq.wrapping_add(MOST_FILLED_FAR as u16);
        }
    }
}

/// Whether the block took the number `seq` of `arena`.
#[inline(always)]
fn is_next(made: &Allocation, arena: ArenaId, seq: u16) -> bool {
    made.served == Served::Arena && made.arena == arena && made.arena_seq == seq
}

/// Steps that no call of the program caused: a thread's end.
pub(crate) struct Unattributed<'a> {
    segment: &'static Segment,
    stream: &'a mut Stream,
}

impl<'a> Unattributed<'a> {
    /// Steps that go to this stream.
    pub(crate) fn new(segment: &'static Segment, stream: &'a mut Stream) -> Unattributed<'a> {
        Unattributed { segment, stream }
    }
}

impl Sink for Unattributed<'_> {
    fn event(&mut self, arena: ArenaId, seq: u16, step: HeapEvent) {
        if self.segment.options.heap_steps != 0 {
            self.stream.event(self.segment, self.segment.now(), StackId::NONE, Event::Heap { arena, seq, step });
        }
    }
}

/// After modules were unmapped: the number of the generation of stacks that begins.
pub(crate) fn closed() -> u32 {
    shared().map_or(0, capture::on_dlclose)
}
