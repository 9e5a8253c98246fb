//! Steps inside a heap into the columns of the open block; what is expected of one is said in [`heap_steps`].

use xalloc_core::units::{Addr, ArenaId, CHUNK_HEADER_BYTES};
use xalloc_core::wire::{BinKind, HeapEvent, MOST_FILLED};

use super::super::heap_steps::{self, Expected, Flat, Less, Rules, StepKind};
use super::super::mirror;
use super::super::ops::Field;
use super::super::tally::Tally;
use super::super::varint::{fold, put};
use super::{Encoder, Who};

/// The step that the record of a free names besides: the chunk went to the bin of its size.
#[derive(Clone, Copy)]
pub(in crate::trace) struct Binned {
    pub(in crate::trace) arena: ArenaId,
    pub(in crate::trace) seq: u16,
    pub(in crate::trace) bin: BinKind,
    pub(in crate::trace) chunk: u64,
    pub(in crate::trace) size_bytes: u64,
}

impl<T: Tally> Encoder<T> {
    /// A step of a heap of which a tally is told, unless it stays within the heap.
    pub(in crate::trace) fn heap_step(&mut self, who: Who, arena: ArenaId, seq: u16, step: HeapEvent) {
        let flat = Flat::of(step);
        self.heap(who, arena, seq, flat);
        if !flat.stays_within() {
            self.tally.heap(self.by(who), step);
        }
    }

    /// A step that stays within its heap.
    #[inline(never)]
    pub(in crate::trace) fn heap(&mut self, who: Who, arena: ArenaId, seq: u16, flat: Flat) {
        self.enter(who);
        self.step_event(who);
        self.step(arena, seq, flat);
    }

    /// A freed chunk goes to the bin of its size: the step that follows from most frees of some programs.
    #[inline]
    pub(in crate::trace) fn binned(&mut self, who: Who, binned: Binned) {
        let Binned { arena, seq, bin, chunk, size_bytes } = binned;
        if bin != BinKind::Fast {
            if let Some(flat) = Flat::to_bin(bin, Addr(chunk), size_bytes) {
                self.heap(who, arena, seq, flat);
            }
            return;
        }
        self.enter(who);
        self.step_event(who);
        let near = &mut self.mirror.thread().near;
        let expected = self.bins.expected(arena, heap_steps::BIN, BinKind::Fast as u8, near);
        // The number of a bin of one size is always as expected.
        let less = Less {
            addr: chunk.wrapping_sub(expected.addr),
            first: size_bytes.wrapping_sub(expected.size_bytes),
            second: 0,
        };
        self.bins.moved_to_fast(arena, chunk, size_bytes, near);
        let place = self.place_of(StepKind { arena, kind: heap_steps::BIN, sub: bin as u8 });
        self.say_step(place, seq, less);
    }

    /// Chunks of one size go to the cache of their thread, one after the other.
    #[inline(never)]
    pub(in crate::trace) fn fill_cache(
        &mut self,
        who: Who,
        arena: ArenaId,
        seq: u16,
        size_bytes: u64,
        chunks: [Addr; MOST_FILLED],
    ) {
        if BinKind::Cache.index_of(size_bytes).is_none() {
            return;
        }
        self.enter(who);
        let class = mirror::chunk_class(size_bytes);
        // Where chunks come as they are listed, they come so one after the other: their kind is looked up once.
        let mut listed = None;
        let mut seq = seq;
        for chunk in chunks.into_iter().filter(|chunk| chunk.0 != 0) {
            self.step_event(who);
            if let Some(class) = class
                && let Some(slot) = self.mirror.next_filled(class)
                && self.mirror.addr(slot) == chunk.0.wrapping_add(CHUNK_HEADER_BYTES)
            {
                let near = &mut self.mirror.thread().near;
                near.filled = Some(slot);
                self.bins.moved_to_cache(arena, chunk.0, size_bytes, near);
                let kind = StepKind { arena, kind: heap_steps::LISTED, sub: class };
                let place = listed.unwrap_or_else(|| self.place_of(kind));
                listed = Some(place);
                self.say_step(place, seq, Less::NOTHING);
            } else if let Some(flat) = Flat::to_bin(BinKind::Cache, chunk, size_bytes) {
                self.step(arena, seq, flat);
            }
            seq = seq.wrapping_add(1);
        }
    }

    /// What the columns of heap steps say of one.
    #[inline(always)]
    fn step(&mut self, arena: ArenaId, seq: u16, flat: Flat) {
        let kind = self.kind_of(arena, flat);
        let place = self.place_of(kind);
        let near = &mut self.mirror.thread().near;
        let less = if kind.kind == heap_steps::QUEUED {
            Less::NOTHING
        } else {
            let chunk = self.bins.expected(arena, flat.kind, flat.sub, near);
            let expected = |last| Expected::of(flat.kind, last, chunk, Rules::Since3);
            if heap_steps::needs_no_like(flat) {
                expected(flat).subtract(flat, flat)
            } else {
                let last = self.history.last(place);
                let less = expected(*last).subtract(flat, *last);
                *last = flat;
                less
            }
        };
        self.bins.happened(arena, flat, near);
        heap_steps::leaves(flat, &mut near.free_chunk, &mut near.split);
        self.say_step(place, seq, less);
    }

    /// As what a step is said.
    #[inline(always)]
    fn kind_of(&mut self, arena: ArenaId, flat: Flat) -> StepKind {
        let Flat { kind, sub, addr, first, .. } = flat;
        let by_itself = StepKind { arena, kind, sub };
        if kind != heap_steps::BIN || sub != BinKind::Cache as u8 {
            return by_itself;
        }
        let Some(units) = mirror::chunk_class(first) else { return by_itself };
        let near = &self.mirror.thread().near;
        if self.bins.next_to_cache(arena, units, near) == Some(addr) && flat.is_cached_as(units) {
            return StepKind { arena, kind: heap_steps::QUEUED, sub: units };
        }
        by_itself
    }

    /// The place of a kind of step in the block's table, where it is entered if it is new.
    #[inline(always)]
    fn place_of(&mut self, kind: StepKind) -> usize {
        let (place, is_first) = self.history.place(kind);
        if is_first {
            let StepKind { arena, kind, sub } = kind;
            let field = self.field(Field::HeapKinds);
            put(field, u64::from(arena.0));
            field.extend_from_slice(&[kind, sub]);
        }
        place
    }

    /// Says a step's kind, and its numbers less the expected ones unless nothing is left of them.
    #[inline(always)]
    fn say_step(&mut self, place: usize, seq: u16, less: Less) {
        let expected_seq = self.history.seq_at(place);
        let skipped = seq.wrapping_sub(*expected_seq);
        *expected_seq = seq.wrapping_add(1);
        let word = (place as u32) << 1;
        if u64::from(skipped) | less.addr | less.first | less.second == 0 {
            self.rows.step_word(word);
        } else {
            self.rows.step_word(word | 1);
            self.say_unexpected(skipped, less);
        }
    }

    #[inline(never)]
    fn say_unexpected(&mut self, skipped: u16, less: Less) {
        put(self.field(Field::HeapSeq), u64::from(skipped));
        put(self.field(Field::HeapAddr), fold(less.addr));
        put(self.field(Field::HeapFirst), fold(less.first));
        put(self.field(Field::HeapSecond), fold(less.second));
    }
}
