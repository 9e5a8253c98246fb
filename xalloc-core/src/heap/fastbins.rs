//! Fast bins: small chunks that were freed a moment ago and are not merged yet.
//!
//! Singly linked, last in first out, and their chunks keep looking live to their neighbours. They are emptied into the
//! unsorted bin when merging may pay: before a large allocation, before the system is asked for memory, after a large
//! free (placement policy, section 6).

use super::arena::{ArenaState, FAST_BINS};
use super::chunk::{ALIGNMENT, fast_index};
use super::fault::HeapFault;
use super::free::Merging;
use super::os::{Memory, Os};
use super::sink::Sink;
use super::step::{Filling, Step};
use super::words::Words;
use crate::wire::{BinKind, HeapEvent};

impl ArenaState {
    /// Puts a freed chunk at the head of the fast bin `index`.
    #[inline(always)]
    pub(super) fn push_fast<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, index: usize) {
        words.set_fd(chunk, self.fast[index]);
        self.fast[index] = chunk;
        self.have_fast = true;
    }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// Puts a freed chunk at the head of its fast bin.
    #[inline]
    pub(super) fn push_fast(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        let index = fast_index(size);
        arena.push_fast(self.words(), chunk, index);
        self.tell_bin(arena, chunk, size, BinKind::Fast, index);
    }

    /// Takes the head of the fast bin of `size`, and moves what follows to the thread's cache while that has room: the
    /// next allocation gets the one that was moved last (placement policy, section 3, step 4).
    #[inline]
    pub(super) fn pop_fast(&mut self, arena: &mut ArenaState, size: u64) -> Option<u64> {
        let words = self.words();
        let index = fast_index(size);
        let found = arena.fast[index];
        if found == 0 {
            return None;
        }
        if !found.is_multiple_of(ALIGNMENT) {
            return self.give_up(arena, found, index, HeapFault::FastHead);
        }
        arena.fast[index] = words.fd(found);
        if fast_index(words.size(found)) != index {
            return self.give_up(arena, found, index, HeapFault::FastSize);
        }
        let mut filling = Filling::of(size);
        while arena.fast[index] != 0 && self.cache.has_room(size) {
            let moved = arena.fast[index];
            if !moved.is_multiple_of(ALIGNMENT) {
                self.tell_filling(arena, &mut filling);
                return self.give_up(arena, moved, index, HeapFault::FastLink);
            }
            arena.fast[index] = words.fd(moved);
            self.fill_cache(arena, &mut filling, moved);
        }
        self.tell_filling(arena, &mut filling);
        Some(found)
    }

    /// A fast bin was overwritten: what is in it is not used any more.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self, arena: &mut ArenaState, chunk: u64, index: usize, fault: HeapFault) -> Option<u64> {
        arena.fast[index] = 0;
        self.note_fault(fault, chunk);
        None
    }

    /// Empties the fast bins: smallest size first, in each the latest chunk first; every chunk is merged with its free
    /// neighbours and goes to the unsorted bin or into the top.
    pub(super) fn consolidate(&mut self, arena: &mut ArenaState) {
        if !arena.have_fast {
            return;
        }
        arena.have_fast = false;
        let words = self.words();
        let (mut chunks, mut size_bytes) = (0, 0);
        for index in 0..FAST_BINS {
            let mut next = core::mem::take(&mut arena.fast[index]);
            while next != 0 {
                let chunk = next;
                if !chunk.is_multiple_of(ALIGNMENT) {
                    self.note_fault(HeapFault::ConsolidatedLink, chunk);
                    break;
                }
                let size = words.size(chunk);
                if fast_index(size) != index {
                    self.note_fault(HeapFault::ConsolidatedSize, chunk);
                    break;
                }
                next = words.fd(chunk);
                chunks += 1;
                size_bytes += size;
                self.merge(arena, chunk, size, Merging::Consolidation);
            }
        }
        if chunks > 0 {
            self.tell(arena, HeapEvent::Consolidate { chunks, size_bytes });
        }
    }
}
