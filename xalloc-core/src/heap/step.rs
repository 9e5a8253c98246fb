//! What every operation carries with it: the heap, the thread's cache, the sink.

use super::arena::ArenaState;
use super::fault::{Damage, HeapFault};
use super::os::Os;
use super::policy::Policy;
use super::sink::Sink;
use super::tcache::ThreadCache;
use super::words::Words;
use super::{Allocation, Heap, Served, chunk};
use crate::units::{Addr, ArenaId};
use crate::wire::{BinKind, HeapEvent, MOST_FILLED};

/// One operation under way.
pub(super) struct Step<'h, O: Os, S: Sink> {
    pub(super) heap: &'h Heap<O>,
    pub(super) cache: &'h mut ThreadCache,
    pub(super) sink: &'h mut S,
}

/// Chunks of one size that go to the thread's cache one after another, as far as they are not told.
pub(super) struct Filling {
    size: u64,
    seq: u16,
    chunks: [Addr; MOST_FILLED],
    len: usize,
}

impl Filling {
    /// A filling with chunks of `size` bytes; none yet.
    #[inline]
    pub(super) fn of(size: u64) -> Filling {
        Filling { size, seq: 0, chunks: [Addr(0); MOST_FILLED], len: 0 }
    }
}

impl<'h, O: Os, S: Sink> Step<'h, O, S> {
    /// The heap's words.
    #[inline(always)]
    pub(super) fn words(&self) -> Words<'h, O> {
        Words(&self.heap.os)
    }

    /// The rules.
    #[inline(always)]
    pub(super) fn policy(&self) -> &'h Policy {
        self.heap.settings.policy()
    }

    /// Tells the sink what the arena did.
    #[inline(always)]
    pub(super) fn tell(&mut self, arena: &mut ArenaState, event: HeapEvent) {
        if S::RECORDS {
            let seq = arena.tick();
            self.sink.event(arena.id(), seq, event);
        }
    }

    /// Tells the sink what happened outside of any arena.
    #[inline(always)]
    pub(super) fn tell_unbound(&mut self, event: HeapEvent) {
        self.sink.event(ArenaId::NONE, 0, event);
    }

    /// Tells the sink that a free chunk went to a bin.
    #[inline(always)]
    pub(super) fn tell_bin(&mut self, arena: &mut ArenaState, chunk: u64, size: u64, bin: BinKind, index: usize) {
        let event = HeapEvent::Bin { addr: Addr(chunk), size_bytes: size, bin, index: index as u8 };
        self.tell(arena, event);
    }

    /// Notes that the heap was damaged at `chunk`: whoever called into it learns that by [`ThreadCache::take_damage`].
    #[cold]
    #[inline(never)]
    pub(super) fn note_fault(&mut self, fault: HeapFault, chunk: u64) {
        self.cache.note_fault(Damage { fault, addr: Addr(chunk.wrapping_add(chunk::HEADER)) });
    }

    /// As [`Step::note_fault`], if a check failed; says whether it did.
    #[inline(always)]
    pub(super) fn is_faulty(&mut self, check: Result<(), HeapFault>, chunk: u64) -> bool {
        match check {
            Ok(()) => false,
            Err(fault) => {
                self.note_fault(fault, chunk);
                true
            }
        }
    }

    /// Moves a chunk that looks live to its arena into the thread's cache, which has room. It is told with others of its
    /// size, for which `filling` is to be [told](Self::tell_filling) before the arena does anything else.
    #[inline]
    pub(super) fn fill_cache(&mut self, arena: &mut ArenaState, filling: &mut Filling, chunk: u64) {
        self.cache.push(self.words(), chunk, filling.size);
        if !S::RECORDS {
            return;
        }
        let seq = arena.tick();
        if filling.len == 0 {
            filling.seq = seq;
        }
        filling.chunks[filling.len] = Addr(chunk);
        filling.len += 1;
        if filling.len == MOST_FILLED {
            self.tell_filling(arena, filling);
        }
    }

    /// Tells the sink of what a filling holds.
    #[inline]
    pub(super) fn tell_filling(&mut self, arena: &ArenaState, filling: &mut Filling) {
        if filling.len > 0 {
            self.sink.cache_filled(arena.id(), filling.seq, filling.size, filling.chunks);
            (filling.len, filling.chunks) = (0, [Addr(0); MOST_FILLED]);
        }
    }

    /// Moves a chunk that looks live to its arena into the thread's cache, which has room, and tells the sink.
    #[inline]
    pub(super) fn put_into_cache(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        self.cache.push(self.words(), chunk, size);
        self.tell_bin(arena, chunk, size, BinKind::Cache, ThreadCache::bin_of(size));
    }

    /// What the caller of an allocation learns about a chunk that the arena `arena` served.
    #[inline(always)]
    pub(super) fn served(&mut self, arena: &mut ArenaState, chunk: u64) -> Allocation {
        let head = self.words().head(chunk);
        if head & chunk::IS_MMAPPED != 0 {
            return self.mapped(chunk);
        }
        Allocation {
            addr: Addr(chunk + chunk::HEADER),
            usable_bytes: (head & !chunk::FLAGS) - chunk::OVERHEAD,
            arena: arena.id(),
            served: Served::Arena,
            arena_seq: if S::RECORDS { arena.tick() } else { 0 },
        }
    }

    /// As [`Step::served`] of a chunk that is what a malloc or a calloc asked for; tells the sink.
    #[inline(always)]
    pub(super) fn served_to_program(&mut self, arena: &mut ArenaState, chunk: u64) -> Allocation {
        let made = self.served(arena, chunk);
        self.sink.served(&made);
        made
    }

    /// What the caller of an allocation learns about a chunk with a mapping of its own.
    pub(super) fn mapped(&self, chunk: u64) -> Allocation {
        Allocation {
            addr: Addr(chunk + chunk::HEADER),
            usable_bytes: self.heap.usable_of_mapped(self.words().size(chunk)),
            arena: ArenaId::NONE,
            served: Served::Mapping,
            arena_seq: 0,
        }
    }
}

impl<O: Os> Heap<O> {
    /// What the caller of an allocation learns about a chunk from the thread's cache.
    #[inline(always)]
    pub(super) fn cached<S: Sink>(&self, chunk: u64, size: u64) -> Allocation {
        let arena = if S::RECORDS { ArenaId(self.arena_of(chunk)) } else { ArenaId::NONE };
        Allocation {
            addr: Addr(chunk + chunk::HEADER),
            usable_bytes: size - chunk::OVERHEAD,
            arena,
            served: Served::Cache,
            arena_seq: 0,
        }
    }
}
