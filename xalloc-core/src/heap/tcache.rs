//! The cache of free chunks that each thread has for itself.
//!
//! A bin per chunk size, last in first out, of at most seven chunks: most allocations of most programs never get
//! further than this. Chunks in a cache count as live for the arena: they are not merged, and only their thread takes
//! them back.
//!
//! # Why the bins are not in the heap
//! glibc keeps the bins in a chunk of the thread's arena. That chunk is allocated here as well, because it takes part
//! in placement, but it stays empty: the bins are in [`ThreadCache`], one load nearer and out of reach of a program's
//! stray writes.

use super::arena::ArenaRef;
use super::chunk::{ALIGNMENT, HEADER};
use super::fault::{Damage, HeapFault};
use super::os::Memory;
use super::settings::Settings;
use super::words::Words;
use crate::units::Addr;

/// Bins of one chunk size each.
const BINS: usize = 64;
/// Largest chunk of those.
const SMALL_MAX: u64 = (BINS as u64 + 1) * 16;
/// Bins of a power of two each, which a tunable opens since 2.42: from 1 KiB on, less what `BINS` have, to 4 MiB.
const LARGE_BINS: usize = 12;
/// Chunks of the large bins are smaller than this.
pub(super) const LARGE_LIMIT: u64 = 4 << 20;

/// Written into the second word of a cached block, so that a second free of it is noticed and a walk of the heap can
/// tell cached chunks from live ones. A number drawn at random once; a block that holds it by chance is found out by
/// looking into the bin.
pub(super) const KEY: u64 = 0x9d3c_51e7_a04b_f26d;

/// How far a thread's cache has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// No chunk for its bookkeeping yet; the bins are unused.
    Unborn,
    /// That chunk is being allocated, which is no reason to allocate another.
    Making,
    /// In use.
    Live,
    /// The thread is ending: what it frees goes to the arenas.
    ShutDown,
}

/// A thread's cache, its arena, and the state of both. The caller keeps one per thread, at a place that does not move
/// while the thread lives, and hands it to every call of one heap: another heap refuses it.
#[derive(Debug)]
pub struct ThreadCache {
    /// Chunk addresses of the heads, 0 for none.
    entries: [u64; BINS],
    /// Chunks that each bin still takes; 0 in all of them before the cache is born and after it is shut down, so that one
    /// comparison answers for the count, the tunables and the stage.
    room: [u16; BINS],
    /// Chunks that an open bin takes in all.
    fill: u16,
    /// Bins in use, from the smallest.
    bins: u16,
    pub(super) stage: Stage,
    tid: u32,
    /// Which heap uses the cache, or 0: none has yet.
    heap: u32,
    /// Largest chunk of the large bins, or 0: they are closed.
    large_max: u64,
    large_counts: [u16; LARGE_BINS],
    /// As `entries`; a list is sorted, the smallest chunk first, of equals the latest.
    large_entries: [u64; LARGE_BINS],
    large_bytes: u64,
    /// User address of the bookkeeping's chunk, or 0.
    pub(super) home: u64,
    pub(super) arena: Option<ArenaRef>,
    /// The first damage that the thread's latest operations came upon.
    damage: Option<Damage>,
}

impl ThreadCache {
    /// The state of a thread that has not allocated yet.
    #[must_use]
    pub const fn new() -> ThreadCache {
        ThreadCache {
            entries: [0; BINS],
            room: [0; BINS],
            fill: 0,
            bins: 0,
            stage: Stage::Unborn,
            tid: 0,
            heap: 0,
            large_max: 0,
            large_counts: [0; LARGE_BINS],
            large_entries: [0; LARGE_BINS],
            large_bytes: 0,
            home: 0,
            arena: None,
            damage: None,
        }
    }

    /// Notes that an operation came upon damage that glibc ends the program for.
    pub(super) fn note_fault(&mut self, damage: Damage) {
        self.damage.get_or_insert(damage);
    }

    /// Whether there is such a note.
    #[inline(always)]
    #[must_use]
    pub const fn has_damage(&self) -> bool {
        self.damage.is_some()
    }

    /// The damage that an operation with this cache came upon since this was last asked. Who called an operation that may
    /// have entered an arena asks afterwards: where there is any, glibc would have ended the program within the call.
    /// What was found damaged is not used any more, so a program that goes on loses memory, and nothing else.
    pub const fn take_damage(&mut self) -> Option<Damage> {
        self.damage.take()
    }

    /// Kernel id of the thread, or 0 before its first call into the heap.
    #[must_use]
    pub const fn thread_id(&self) -> u32 {
        self.tid
    }

    /// Makes the cache that of heap `heap`; `false`: it is another one's, whose chunks must not get among this one's.
    #[inline]
    pub(super) fn bind(&mut self, heap: u32) -> bool {
        if self.heap == 0 {
            self.heap = heap;
        }
        self.heap == heap
    }

    /// Whether the cache is that of heap `heap`, and an arena of it the thread's.
    #[inline(always)]
    pub(super) fn is_at_home_in(&self, heap: u32) -> bool {
        self.arena.is_some() && self.heap == heap
    }

    /// Remembers the thread's kernel id. A forked child has another one than its parent.
    pub(super) fn set_thread_id(&mut self, tid: u32) {
        self.tid = tid;
    }

    /// The bin of a chunk size, whatever the flags in its lowest bits.
    #[inline(always)]
    pub(super) const fn bin_of(size: u64) -> usize {
        ((size >> 4) as usize).wrapping_sub(2)
    }

    /// The chunk size of a bin.
    #[inline(always)]
    pub(super) const fn size_of_bin(bin: usize) -> u64 {
        (bin as u64 + 2) << 4
    }

    /// The bin of the chunk size that serves a request: [`chunk::for_request`](super::chunk::for_request) and
    /// [`ThreadCache::bin_of`] in one. Of a request that no bin serves, a number beyond all bins.
    #[inline(always)]
    pub(super) const fn bin_for(bytes: u64) -> usize {
        // Requests up to 8 bytes share the smallest chunk with those up to 24.
        let counted = if bytes < 9 { 9 } else { bytes };
        ((counted.wrapping_add(7) >> 4) as usize).wrapping_sub(1)
    }

    /// The user address of the chunk that stands for the cache's bookkeeping in the heap, once there is one. A leak
    /// scan treats it as reachable.
    #[must_use]
    pub const fn bookkeeping(&self) -> Option<Addr> {
        if self.home == 0 { None } else { Some(Addr(self.home)) }
    }

    /// Opens the bins, for the chunks that the settings let in.
    pub(super) fn open(&mut self, home: u64, settings: &Settings) {
        let chunk_max = settings.tcache_chunk_max.get();
        self.home = home;
        self.stage = Stage::Live;
        self.fill = settings.tcache_count.get() as u16;
        self.bins = Self::bin_of(chunk_max).wrapping_add(1).min(BINS) as u16;
        self.room[..self.bins as usize].fill(self.fill);
        self.large_max = if Self::bin_of(chunk_max) < BINS { 0 } else { chunk_max };
    }

    /// Closes the bins: nothing enters any more. What is in them stays until [`ThreadCache::pop_any`] took it.
    pub(super) fn close(&mut self) {
        self.stage = Stage::ShutDown;
        self.room = [0; BINS];
        self.fill = 0;
        self.bins = 0;
        self.large_max = 0;
    }

    /// Whether chunks of this size belong to a large bin that is open.
    #[inline]
    fn takes_large(&self, size: u64) -> bool {
        size > SMALL_MAX && size <= self.large_max
    }

    /// The large bin of a chunk size that a small one does not have.
    fn large_bin_of(size: u64) -> usize {
        (size.max(1024).ilog2() - 10) as usize
    }

    /// Whether a chunk of `size` bytes may enter.
    #[inline(always)]
    pub(super) fn has_room(&self, size: u64) -> bool {
        match self.room.get(Self::bin_of(size)) {
            Some(&room) => room != 0,
            None => self.large_max != 0 && self.has_large_room(size),
        }
    }

    /// The same of the bins of one size each.
    #[inline(always)]
    pub(super) fn has_small_room(&self, size: u64) -> bool {
        self.room.get(Self::bin_of(size)).is_some_and(|&room| room != 0)
    }

    #[cold]
    #[inline(never)]
    fn has_large_room(&self, size: u64) -> bool {
        self.takes_large(size) && self.large_counts[Self::large_bin_of(size)] < self.fill
    }

    /// Chunks in a bin.
    fn count(&self, bin: usize) -> u16 {
        if bin < self.bins as usize { self.fill - self.room[bin] } else { 0 }
    }

    /// Puts the block of a chunk in. The caller checked [`ThreadCache::has_room`].
    #[inline(always)]
    pub(super) fn push<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, size: u64) {
        let bin = Self::bin_of(size);
        if bin < BINS {
            self.link(words, chunk, bin);
        } else {
            self.push_large(words, chunk, size);
        }
    }

    /// Puts a chunk into `bin` if that is none of the large bins and has room. False: nothing has changed.
    #[inline(always)]
    pub(super) fn push_small<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, bin: usize) -> bool {
        let has_room = self.room.get(bin).is_some_and(|&room| room != 0);
        if has_room {
            self.link(words, chunk, bin);
        }
        has_room
    }

    /// Puts a chunk into a bin of one size that has room.
    #[inline(always)]
    pub(super) fn link<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, bin: usize) {
        words.set_fd(chunk, self.entries[bin]);
        words.set_bk(chunk, KEY);
        self.entries[bin] = chunk;
        self.room[bin] -= 1;
    }

    #[cold]
    #[inline(never)]
    fn push_large<M: Memory>(&mut self, words: Words<'_, M>, chunk: u64, size: u64) {
        let bin = Self::large_bin_of(size);
        let (before, next) = self.large_place(words, bin, size);
        words.set_fd(chunk, next);
        words.set_bk(chunk, KEY);
        if before == 0 {
            self.large_entries[bin] = chunk;
        } else {
            words.set_fd(before, chunk);
        }
        self.large_counts[bin] += 1;
        self.large_bytes += size;
    }

    /// The last chunk of a large bin below `size`, and the one behind it; 0 for none.
    fn large_place<M: Memory>(&self, words: Words<'_, M>, bin: usize, size: u64) -> (u64, u64) {
        let (mut before, mut next) = (0, self.large_entries[bin]);
        while next != 0 && words.size(next) < size {
            before = next;
            next = words.fd(next);
        }
        (before, next)
    }

    /// Takes a chunk of a large bin that lies behind `before`, or is its first.
    fn take_large<M: Memory>(&mut self, words: Words<'_, M>, bin: usize, before: u64, chunk: u64) -> u64 {
        if before == 0 {
            self.large_entries[bin] = words.fd(chunk);
        } else {
            words.set_fd(before, words.fd(chunk));
        }
        words.set_bk(chunk, 0);
        self.large_counts[bin] -= 1;
        self.large_bytes -= words.size(chunk);
        chunk
    }

    /// Takes the chunk of exactly `size` that entered its large bin last among those whose block is a multiple of `align`.
    #[cold]
    #[inline(never)]
    fn pop_large<M: Memory>(&mut self, words: Words<'_, M>, size: u64, align: u64) -> Option<u64> {
        if !self.takes_large(size) {
            return None;
        }
        let bin = Self::large_bin_of(size);
        let (mut before, mut chunk) = self.large_place(words, bin, size);
        while chunk != 0 && words.size(chunk) == size {
            if (chunk + HEADER).is_multiple_of(align) {
                return Some(self.take_large(words, bin, before, chunk));
            }
            before = chunk;
            chunk = words.fd(chunk);
        }
        None
    }

    /// Takes any chunk of a cache that was closed, those of the smallest bin first, each bin from its head: the order in
    /// which a thread's end empties them. `None` also where a list goes on at what is no chunk, which is noted.
    pub(super) fn pop_any<M: Memory>(&mut self, words: Words<'_, M>) -> Option<u64> {
        if let Some(head) = self.entries.iter_mut().find(|head| **head != 0) {
            let chunk = *head;
            if !chunk.is_multiple_of(ALIGNMENT) {
                self.note_fault(Damage { fault: HeapFault::CacheLinkAtExit, addr: Addr(chunk.wrapping_add(HEADER)) });
                return None;
            }
            *head = words.fd(chunk);
            words.set_bk(chunk, 0);
            return Some(chunk);
        }
        let bin = self.large_entries.iter().position(|&head| head != 0)?;
        Some(self.take_large(words, bin, 0, self.large_entries[bin]))
    }

    /// Takes the chunk that entered the bin of `size` last.
    #[inline(always)]
    pub(super) fn pop<M: Memory>(&mut self, words: Words<'_, M>, size: u64) -> Option<u64> {
        let bin = Self::bin_of(size);
        if bin < BINS { self.pop_bin(words, bin) } else { self.pop_beyond_bins(words, size) }
    }

    /// As [`ThreadCache::pop`], of a size that only a large bin can have.
    #[inline(always)]
    pub(super) fn pop_beyond_bins<M: Memory>(&mut self, words: Words<'_, M>, size: u64) -> Option<u64> {
        if self.large_max != 0 { self.pop_large(words, size, ALIGNMENT) } else { None }
    }

    /// As [`ThreadCache::pop`], by number of bin.
    #[inline(always)]
    pub(super) fn pop_bin<M: Memory>(&mut self, words: Words<'_, M>, bin: usize) -> Option<u64> {
        let chunk = *self.entries.get(bin)?;
        // What is no chunk is told by `look_for_damage`: a call here would cost the shortest way a frame.
        if chunk == 0 || !chunk.is_multiple_of(ALIGNMENT) {
            return None;
        }
        let next = words.fd(chunk);
        words.set_bk(chunk, 0);
        self.room[bin] += 1;
        // The link of the last chunk is nobody's: a program that wrote there after its free has done no harm.
        self.entries[bin] = if self.room[bin] == self.fill { 0 } else { next };
        Some(chunk)
    }

    /// Gives the bin of `size` up if it is not empty: asked after a pop that found nothing there, for then a link was
    /// overwritten.
    #[inline]
    pub(super) fn look_for_damage(&mut self, size: u64) {
        let bin = Self::bin_of(size);
        if self.room.get(bin).is_some_and(|&room| room != self.fill) {
            self.give_up_if_open(bin);
        }
    }

    /// Gives up a bin that is not empty, if it is in use at all: what is not has no room and looks filled.
    #[cold]
    #[inline(never)]
    fn give_up_if_open(&mut self, bin: usize) {
        if bin < self.bins as usize {
            self.give_up(self.entries[bin], bin);
        }
    }

    /// A bin's list goes on at `chunk`, which is none: what is in the bin is not used any more.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self, chunk: u64, bin: usize) {
        self.note_fault(Damage { fault: HeapFault::CacheLink, addr: Addr(chunk.wrapping_add(HEADER)) });
        self.entries[bin] = 0;
        self.room[bin] = self.fill;
    }

    /// Takes the chunk of `size` that entered last among those whose block is a multiple of `align`.
    pub(super) fn pop_aligned<M: Memory>(&mut self, words: Words<'_, M>, size: u64, align: u64) -> Option<u64> {
        if self.takes_large(size) {
            return self.pop_large(words, size, align);
        }
        let bin = Self::bin_of(size);
        let mut chunk = *self.entries.get(bin)?;
        let mut before = 0;
        while chunk != 0 && !(chunk + HEADER).is_multiple_of(align) {
            before = chunk;
            chunk = words.fd(chunk);
        }
        if chunk == 0 || before == 0 {
            return if chunk == 0 { None } else { self.pop_bin(words, bin) };
        }
        words.set_fd(before, words.fd(chunk));
        words.set_bk(chunk, 0);
        self.room[bin] += 1;
        Some(chunk)
    }

    /// Whether the chunk is in its bin: the slow half of finding a double free.
    ///
    /// # Errors
    /// The bin's list was overwritten.
    #[cold]
    #[inline(never)]
    pub(super) fn holds<M: Memory>(&self, words: Words<'_, M>, chunk: u64, size: u64) -> Result<bool, HeapFault> {
        let bin = Self::bin_of(size);
        let (mut entry, count) = match self.entries.get(bin) {
            Some(&head) => (head, self.count(bin)),
            None if size < LARGE_LIMIT => {
                let bin = Self::large_bin_of(size);
                (self.large_entries[bin], self.large_counts[bin])
            }
            None => return Ok(false),
        };
        for _ in 0..count {
            if entry == chunk {
                return Ok(true);
            }
            if entry == 0 {
                return Ok(false);
            }
            if !entry.is_multiple_of(ALIGNMENT) {
                return Err(HeapFault::CacheLinkAtFree);
            }
            entry = words.fd(entry);
        }
        Ok(false)
    }

    /// Chunks and bytes in the bins.
    pub(super) fn contents(&self) -> (u32, u64) {
        let large_chunks = self.large_counts.iter().map(|&count| u32::from(count)).sum();
        (0..BINS).fold((large_chunks, self.large_bytes), |(chunks, bytes), bin| {
            let count = self.count(bin);
            (chunks + u32::from(count), bytes + u64::from(count) * (bin as u64 + 2) * 16)
        })
    }
}

impl Default for ThreadCache {
    fn default() -> ThreadCache {
        ThreadCache::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::chunk::for_request;

    #[test]
    fn the_bin_of_a_request_is_that_of_the_chunk_that_serves_it() {
        for bytes in 0..3_000 {
            assert_eq!(ThreadCache::bin_for(bytes), ThreadCache::bin_of(for_request(bytes).unwrap()), "{bytes}");
        }
        for bytes in (0..64).map(|shift| u64::MAX >> shift).chain((0..40).map(|less| u64::MAX - less)) {
            let size = for_request(bytes).map(ThreadCache::bin_of);
            let (bin, expected) = (ThreadCache::bin_for(bytes), size.unwrap_or(usize::MAX));
            assert_eq!(bin.min(BINS), expected.min(BINS), "{bytes:x}");
        }
    }
}
