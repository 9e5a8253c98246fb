//! The books: what must be true of a heap at every moment between two operations.
//!
//! Every byte that an arena has from the system is in exactly one span; free chunks in bins have no free neighbours and
//! do not border the top; the lists hold exactly the chunks that look free. Tests check this after every operation, a
//! report on every snapshot.

use super::Heap;
use super::arena::{ArenaState, FAST_BINS};
use super::bins::{BINS, UNSORTED, links_meet};
use super::chunk::{LARGE_MIN, bin_index};
use super::inspect::{Class, Span, WalkError};
use super::os::Os;
use super::tcache::ThreadCache;
use super::words::Words;
use crate::units::{Addr, ArenaId};

/// Bytes by class, over all arenas.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Books {
    /// In blocks that the program has, their overhead included.
    pub live_bytes: u64,
    /// In threads' caches.
    pub cached_bytes: u64,
    /// In fast bins.
    pub fast_bytes: u64,
    /// In the other bins.
    pub binned_bytes: u64,
    /// In tops.
    pub top_bytes: u64,
    /// In headers, arena state and fences.
    pub metadata_bytes: u64,
    /// Chunks that are live.
    pub live_chunks: u64,
}

impl Books {
    /// Everything that the arenas have from the system.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.live_bytes + self.cached_bytes + self.fast_bytes + self.binned_bytes + self.top_bytes + self.metadata_bytes
    }

    fn enter(&mut self, span: Span) {
        let account = match span.class {
            Class::Live => &mut self.live_bytes,
            Class::Cached => &mut self.cached_bytes,
            Class::Fast => &mut self.fast_bytes,
            Class::Binned => &mut self.binned_bytes,
            Class::Top => &mut self.top_bytes,
            Class::Metadata => &mut self.metadata_bytes,
        };
        *account += span.size_bytes;
        self.live_chunks += u64::from(span.class == Class::Live);
    }
}

/// What does not balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imbalance {
    /// The heap cannot be walked to its end.
    Walk(WalkError),
    /// The spans of an arena do not sum up to what it has from the system.
    Sum {
        /// The arena.
        arena: ArenaId,
        /// Bytes in spans.
        walked_bytes: u64,
        /// Bytes from the system.
        system_bytes: u64,
    },
    /// Two free chunks, or a free chunk and the top, are neighbours: merging was forgotten here.
    FreeNeighbours(Addr),
    /// A free chunk's copy of its size, in the chunk above, is wrong.
    Footer(Addr),
    /// The chunks that look free and those in the bins' lists are not as many.
    Lists {
        /// The arena.
        arena: ArenaId,
        /// Chunks in lists.
        listed: u64,
        /// Chunks that look free.
        walked: u64,
    },
    /// A chunk is in a bin where its size does not belong, or a large bin is not sorted.
    WrongBin(Addr),
}

impl<O: Os> Heap<O> {
    /// Checks every arena and returns the books.
    ///
    /// # Errors
    /// The first thing that does not balance.
    pub fn validate(&self, cache: &mut ThreadCache) -> Result<Books, Imbalance> {
        let mut books = Books::default();
        for number in 0..self.arenas.count() as u16 {
            let Some(arena) = self.arenas.get(number, &self.main) else { continue };
            let Some(guard) = self.enter(arena, cache) else { continue };
            self.validate_arena(&guard, &mut books)?;
        }
        Ok(books)
    }

    fn validate_arena(&self, arena: &ArenaState, books: &mut Books) -> Result<(), Imbalance> {
        let words = Words(&self.os);
        let mut sum = 0;
        let mut walked = 0;
        let mut fault = None;
        let mut free_end = None;
        self.walk_arena(arena, |span| {
            books.enter(span);
            sum += span.size_bytes;
            let at = span.addr.0;
            let is_free = span.class == Class::Binned;
            if (is_free || span.class == Class::Top) && free_end == Some(at) {
                fault = Some(Imbalance::FreeNeighbours(span.addr));
            }
            if is_free {
                walked += 1;
                free_end = Some(at + span.size_bytes);
                if words.prev_size(at + span.size_bytes) != span.size_bytes {
                    fault = Some(Imbalance::Footer(span.addr));
                }
            }
            fault.is_none()
        })
        .map_err(|stopped| fault.unwrap_or(Imbalance::Walk(stopped)))?;
        // A break that others moved leaves ranges between the arena's own that count as its memory (section 8).
        let has_gaps = arena.is_main() && self.region_count.get() > 1;
        if sum != arena.system_bytes && !has_gaps {
            let (arena, system_bytes) = (arena.id(), arena.system_bytes);
            return Err(Imbalance::Sum { arena, walked_bytes: sum, system_bytes });
        }
        let listed = validate_lists(words, arena)?;
        if listed == walked { Ok(()) } else { Err(Imbalance::Lists { arena: arena.id(), listed, walked }) }
    }
}

/// Checks order and membership of the bins' lists; returns how many chunks are in them.
fn validate_lists<O: Os>(words: Words<'_, O>, arena: &ArenaState) -> Result<u64, Imbalance> {
    let mut listed = 0;
    for bin in 1..BINS {
        let mut smallest = 0;
        let mut next = arena.bins.back(words, bin);
        while let Some(chunk) = next {
            let size = words.size(chunk);
            let belongs = bin == UNSORTED || (bin_index(size) == bin && (size < LARGE_MIN || size >= smallest));
            if !belongs || !links_meet(words, chunk) {
                return Err(Imbalance::WrongBin(Addr(chunk)));
            }
            smallest = size;
            listed += 1;
            next = arena.bins.next_from_back(words, bin, chunk);
        }
    }
    for index in 0..FAST_BINS {
        let mut chunk = arena.fast[index];
        while chunk != 0 {
            if super::chunk::fast_index(words.size(chunk)) != index {
                return Err(Imbalance::WrongBin(Addr(chunk)));
            }
            chunk = words.fd(chunk);
        }
    }
    Ok(listed)
}
