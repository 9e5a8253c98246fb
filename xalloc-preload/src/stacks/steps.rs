//! The heap's steps on behalf of a call, on their way into the thread's stream.
//!
//! What may share a record with what follows is held until that comes ([`Held`]); it is told under the same lock, for the
//! heap lets go of none in between.

use xalloc_core::heap::{Allocation, Served, Sink};
use xalloc_core::units::{Addr, ArenaId, CHUNK_OVERHEAD_BYTES, StackId, Stamp};
use xalloc_core::wire::{
    Call, Event, HeapEvent, LedTo, MOST_FILLED, MOST_FILLED_FAR, MergeBinned, PutAway, Record, Stamped, fill_fits,
};

use crate::backend;
use crate::segment::Segment;
use crate::thread::Stream;

/// The heap's steps on behalf of a call.
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
