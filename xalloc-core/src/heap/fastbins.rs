//! Fast bins: small chunks that were freed a moment ago and are not merged yet.
//!
//! Singly linked, last in first out, and their chunks keep looking live to their neighbours. They are emptied into the
//! unsorted bin when merging may pay: before a large allocation, before the system is asked for memory, after a large
//! free (placement policy, section 6).

use super::arena::{ArenaState, FAST_BINS};
use super::chunk::fast_index;
use super::os::Os;
use super::sink::Sink;
use super::step::{Filling, Step};
use crate::wire::{BinKind, HeapEvent};

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// Puts a freed chunk at the head of its fast bin.
    #[inline]
    pub(super) fn push_fast(&mut self, arena: &mut ArenaState, chunk: u64, size: u64) {
        let index = fast_index(size);
        self.words().set_fd(chunk, arena.fast[index]);
        arena.fast[index] = chunk;
        arena.have_fast = true;
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
        arena.fast[index] = words.fd(found);
        let mut filling = Filling::of(size);
        while arena.fast[index] != 0 && self.cache.has_room(size) {
            let moved = arena.fast[index];
            arena.fast[index] = words.fd(moved);
            self.fill_cache(arena, &mut filling, moved);
        }
        self.tell_filling(arena, &mut filling);
        Some(found)
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
                next = words.fd(chunk);
                let size = words.size(chunk);
                chunks += 1;
                size_bytes += size;
                self.merge_to_unsorted(arena, chunk, size);
            }
        }
        if chunks > 0 {
            self.tell(arena, HeapEvent::Consolidate { chunks, size_bytes });
        }
    }
}
