//! Walking the heap: every chunk of every segment, in order of address, with what it is.
//!
//! A chunk in a thread's cache looks live to its arena; it is told apart by the key in its second word. So do chunks in
//! fast bins: before a walk each gets a mark in that word, another one for every walk, so that what an earlier walk left
//! in memory that lives again says nothing. To look each chunk up in the list of its bin instead would be quadratic.
//!
//! # Invariant
//! The spans of a segment tile it: each begins where the one before ended. A walk that meets a size word which cannot
//! be one stops and says where.

use super::Heap;
use super::arena::{ArenaState, FAST_BINS};
use super::chunk::{ALIGNMENT, HEADER, MIN_CHUNK, fast_index};
use super::os::Os;
use super::tcache::{KEY, ThreadCache};
use super::words::Words;
use crate::units::{Addr, ArenaId};

/// What a span of a heap segment is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A block that the program has, or one that the heap keeps for a thread's bookkeeping.
    Live,
    /// In a thread's cache.
    Cached,
    /// In a fast bin: free, but not merged.
    Fast,
    /// In the unsorted, a small or a large bin.
    Binned,
    /// The arena's top.
    Top,
    /// Headers of sub-heaps, arena state, fences at the end of a range.
    Metadata,
}

/// A span of a heap segment: a chunk, the top, or metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The arena.
    pub arena: ArenaId,
    /// Where the span begins; for a chunk its chunk address.
    pub addr: Addr,
    /// Its length.
    pub size_bytes: u64,
    /// What it is.
    pub class: Class,
}

/// Why a walk stopped before the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    /// The size word at this chunk is none: something wrote beyond a block.
    BadSize(Addr),
    /// The main arena has more disjoint ranges than are remembered.
    TooManyRegions,
    /// The visitor asked for the end.
    Stopped,
}

/// The mark of fast chunks at the first walk; a number drawn at random once.
const FIRST_MARK: u64 = 0x5e1b_c3f0_97d2_4a86;

/// One walk through one arena.
struct Walk<'w, O: Os, F> {
    words: Words<'w, O>,
    arena: &'w ArenaState,
    /// In the second word of the arena's fast chunks.
    mark: u64,
    visit: F,
}

impl<O: Os> Heap<O> {
    /// Visits every span of every arena, arena by arena under its lock, until `visit` returns `false`. Chunks with a
    /// mapping of their own belong to no segment and are not visited.
    ///
    /// # Errors
    /// What stopped the walk.
    pub fn walk(&self, cache: &mut ThreadCache, mut visit: impl FnMut(Span) -> bool) -> Result<(), WalkError> {
        for number in 0..self.arenas.count() as u16 {
            let Some(arena) = self.arenas.get(number, &self.main) else { continue };
            let Some(guard) = self.enter(arena, cache) else { continue };
            self.walk_arena(&guard, &mut visit)?;
        }
        Ok(())
    }

    /// Visits every span of one arena, whose lock the caller has.
    pub(super) fn walk_arena(&self, arena: &ArenaState, visit: impl FnMut(Span) -> bool) -> Result<(), WalkError> {
        let mark = self.mark_fast(arena);
        let mut walk = Walk { words: Words(&self.os), arena, mark, visit };
        if arena.is_main() { walk.main(self) } else { walk.sub_heaps(self) }
    }
}

impl<O: Os> Heap<O> {
    /// Marks the chunks of the fast bins, as far as their links were not overwritten, and returns the mark.
    fn mark_fast(&self, arena: &ArenaState) -> u64 {
        let words = Words(&self.os);
        let mark = FIRST_MARK.wrapping_add(self.walks.add(1));
        for (index, &head) in arena.fast.iter().enumerate() {
            let mut chunk = head;
            let mut left = arena.max_system_bytes / MIN_CHUNK;
            while chunk != 0 && chunk.is_multiple_of(ALIGNMENT) && left > 0 && fast_index(words.size(chunk)) == index {
                words.set_bk(chunk, mark);
                chunk = words.fd(chunk);
                left -= 1;
            }
        }
        mark
    }
}

impl<O: Os, F: FnMut(Span) -> bool> Walk<'_, O, F> {
    fn tell(&mut self, addr: u64, size_bytes: u64, class: Class) -> Result<(), WalkError> {
        let span = Span { arena: self.arena.id(), addr: Addr(addr), size_bytes, class };
        if size_bytes == 0 || (self.visit)(span) { Ok(()) } else { Err(WalkError::Stopped) }
    }

    fn main(&mut self, heap: &Heap<O>) -> Result<(), WalkError> {
        let count = heap.region_count.get() as usize;
        let regions = heap.regions.get(..count).ok_or(WalkError::TooManyRegions)?;
        for start in regions {
            let start = start.get();
            let first = start.next_multiple_of(ALIGNMENT);
            self.tell(start, first - start, Class::Metadata)?;
            self.chunks(first)?;
        }
        Ok(())
    }

    /// The sub-heaps of a thread arena, from the latest to the first.
    fn sub_heaps(&mut self, heap: &Heap<O>) -> Result<(), WalkError> {
        let policy = heap.settings.policy();
        let mut start = heap.heap_of(self.arena.top);
        while start != 0 {
            let previous = self.words.heap_prev(start);
            let reserved = policy.heap_header_bytes + if previous == 0 { policy.arena_bytes } else { 0 };
            let first = (start + reserved).next_multiple_of(ALIGNMENT);
            self.tell(start, first - start, Class::Metadata)?;
            self.chunks(first)?;
            start = previous;
        }
        Ok(())
    }

    /// The chunks from `first` to the top, or to the fence that ends a range.
    fn chunks(&mut self, first: u64) -> Result<(), WalkError> {
        let mut chunk = first;
        loop {
            let size = self.words.size(chunk);
            if chunk == self.arena.top {
                return self.tell(chunk, size, Class::Top);
            }
            if size == 0 || !size.is_multiple_of(ALIGNMENT) || size > self.arena.max_system_bytes {
                return Err(WalkError::BadSize(Addr(chunk)));
            }
            // A fence: a chunk of 16 bytes with another behind it, or one with a chunk without size behind it.
            if size == HEADER || self.words.size(chunk + size) == 0 {
                return self.tell(chunk, size + HEADER, Class::Metadata);
            }
            self.tell(chunk, size, self.class(chunk, size))?;
            chunk += size;
        }
    }

    fn class(&self, chunk: u64, size: u64) -> Class {
        if !self.words.inuse(chunk, size) {
            Class::Binned
        } else if self.words.bk(chunk) == KEY {
            Class::Cached
        } else if self.words.bk(chunk) == self.mark && fast_index(size) < FAST_BINS {
            Class::Fast
        } else {
            Class::Live
        }
    }
}
