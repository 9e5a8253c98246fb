//! What libc would do with a pointer that a hardened heap refuses.
//!
//! libc has no set of live blocks. It believes the words before a pointer, so a second free may end the program with a
//! message, with a signal, or pass unnoticed, and which of them is part of what the program does. A recording must not
//! change that; so what is refused here is asked again in libc's way, by the same [`checks`] in the same order, and
//! without a change. Where libc would have gone on with a damaged heap, the program goes on with a whole one: the call
//! has no effect.
//!
//! # Memory that is not there
//! The words before any pointer may lie in no mapping. They are read through [`Careful`], which asks first and notes the
//! first address at which libc would have been stopped by the kernel.
//!
//! # Safety
//! - [`Access::is_readable`] says yes only of words that can be read, and they can be as long as the question lasts.
#![allow(unsafe_code)]

use core::cell::Cell;

use super::arena::ArenaState;
use super::chunk::{ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, NON_MAIN, for_request};
use super::fault::HeapFault;
use super::os::{Memory, Os};
use super::step::Step;
use super::tcache::{KEY, Stage, ThreadCache};
use super::words::Words;
use super::{CacheBirth, Heap, NoSink, checks};
use crate::units::Addr;

/// What libc does with a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It writes the fault's message and aborts.
    Aborts(HeapFault),
    /// It reads there, and the kernel ends that.
    CrashesReading(Addr),
    /// It writes there, and the kernel ends that.
    CrashesWriting(Addr),
    /// It notices nothing.
    Passes,
}

/// What the kernel lets a program do with the eight bytes at a multiple of eight.
pub trait Access {
    /// Whether they can be read.
    fn is_readable(&self, addr: u64) -> bool;

    /// Whether they can be written.
    fn is_writable(&self, addr: u64) -> bool;
}

/// Memory of which it is not known that it can be read.
struct Careful<'m, M, A> {
    memory: &'m M,
    access: A,
    /// The first access that could not be made.
    stopped_by: Cell<Option<Verdict>>,
}

impl<M, A: Access> Careful<'_, M, A> {
    /// What libc would write.
    fn would_write(&self, addr: u64) {
        if self.stopped_by.get().is_none() && !self.access.is_writable(addr) {
            self.stopped_by.set(Some(Verdict::CrashesWriting(Addr(addr))));
        }
    }
}

// SAFETY: a load is one of the memory below, or of nothing; nothing is stored.
unsafe impl<M: Memory, A: Access> Memory for Careful<'_, M, A> {
    unsafe fn load(&self, addr: u64) -> u64 {
        let place = addr & !7;
        if self.stopped_by.get().is_some() {
            return 0;
        }
        if !self.access.is_readable(place) {
            self.stopped_by.set(Some(Verdict::CrashesReading(Addr(place))));
            return 0;
        }
        // SAFETY: by the bullet of the module the word can be read; whether it is the heap's does not matter to a reader.
        unsafe { self.memory.load(place) }
    }

    unsafe fn store(&self, _: u64, _: u64) {}

    unsafe fn copy(&self, _: u64, _: u64, _: u64) {}

    unsafe fn fill(&self, _: u64, _: u64, _: u8) {}
}

impl<O: Os> Heap<O> {
    /// What libc would do with a `free` of `addr`, which is no live block. Nothing is changed.
    ///
    /// # Safety
    /// - By the bullet of the module.
    pub unsafe fn verdict_on_free<A: Access>(&self, cache: &mut ThreadCache, addr: Addr, access: A) -> Verdict {
        self.verdict(access, |words| self.would_free(words, cache, addr.0.wrapping_sub(HEADER)))
    }

    /// Frees `addr`, of which [`Heap::verdict_on_free`] has just said that libc notices nothing, as libc does: its lists
    /// of free chunks are damaged by that, and so are these. No sink is told, for no block was freed.
    ///
    /// # Safety
    /// - By the bullet of the module; what the verdict has looked at can be written as well.
    /// - The program has asked for it: from here on its blocks may overlap.
    pub unsafe fn free_unnoticed(&self, cache: &mut ThreadCache, addr: Addr) {
        let chunk = addr.0.wrapping_sub(HEADER);
        let head = Words(&self.os).head(chunk);
        // The verdict was that no check fails; one that does changes nothing.
        let _is_freed = Step { heap: self, cache, sink: &mut NoSink }.free_slowly(chunk, head);
    }

    /// As [`Heap::verdict_on_free`], of a `realloc` to `bytes`.
    ///
    /// # Safety
    /// - By the bullet of the module.
    pub unsafe fn verdict_on_realloc<A: Access>(
        &self,
        cache: &mut ThreadCache,
        addr: Addr,
        bytes: u64,
        access: A,
    ) -> Verdict {
        let chunk = addr.0.wrapping_sub(HEADER);
        match bytes {
            0 => self.verdict(access, |words| self.would_free(words, cache, chunk)),
            _ => self.verdict(access, |words| self.would_resize(words, cache, chunk, bytes)),
        }
    }

    fn verdict<A: Access>(
        &self,
        access: A,
        ask: impl FnOnce(Words<'_, Careful<'_, O, A>>) -> Result<(), HeapFault>,
    ) -> Verdict {
        let careful = Careful { memory: &self.os, access, stopped_by: Cell::new(None) };
        let answer = ask(Words(&careful));
        match (careful.stopped_by.get(), answer) {
            (Some(crash), _) => crash,
            (None, Err(fault)) => Verdict::Aborts(fault),
            (None, Ok(())) => Verdict::Passes,
        }
    }

    fn would_free<A: Access>(
        &self,
        words: Words<'_, Careful<'_, O, A>>,
        cache: &mut ThreadCache,
        chunk: u64,
    ) -> Result<(), HeapFault> {
        let head = head_of(words, chunk);
        let size = head & !FLAGS;
        if head & IS_MMAPPED != 0 {
            return self.would_be_mapping(words, chunk, HeapFault::InvalidMapping);
        }
        checks::shape(chunk, size).or_else(|fault| checks::judged_by(self.settings.policy(), fault, chunk, size))?;
        if words.bk(chunk) == KEY && cache.holds(Words(&self.os), chunk, size)? {
            return Err(HeapFault::DoubleFreeCached);
        }
        // The first word of the block becomes a link, whichever list it goes to.
        if cache.has_room(size) || self.would_make_cache_for(cache, size) {
            words.0.would_write(chunk + HEADER);
            return Ok(());
        }
        let max_fast = self.settings.max_fast.get();
        self.would_enter(words, cache, chunk, head, |arena| checks::free(words, arena, max_fast, chunk, size))?;
        words.0.would_write(chunk + HEADER);
        Ok(())
    }

    /// Whether libc would first make the thread's cache, and then put the chunk there.
    fn would_make_cache_for(&self, cache: &ThreadCache, size: u64) -> bool {
        let policy = self.settings.policy();
        cache.stage == Stage::Unborn
            && policy.tcache
            && policy.tcache_birth != CacheBirth::CacheableAllocation
            && self.settings.tcache_count.get() > 0
            && size <= self.settings.tcache_chunk_max.get()
    }

    fn would_resize<A: Access>(
        &self,
        words: Words<'_, Careful<'_, O, A>>,
        cache: &mut ThreadCache,
        chunk: u64,
        bytes: u64,
    ) -> Result<(), HeapFault> {
        let head = head_of(words, chunk);
        let size = head & !FLAGS;
        if chunk > size.wrapping_neg() || !chunk.is_multiple_of(ALIGNMENT) {
            return Err(HeapFault::ReallocInvalidPointer);
        }
        let Some(wanted) = for_request(bytes) else { return Ok(()) };
        if head & IS_MMAPPED != 0 {
            return self.would_be_mapping(words, chunk, HeapFault::ReallocInvalidMapping);
        }
        let mut moves = false;
        self.would_enter(words, cache, chunk, head, |arena| {
            checks::resize(words, arena, chunk, size)?;
            moves = would_move(words, arena, chunk, size, wanted);
            Ok(())
        })?;
        // The old chunk of a block that moves is freed, with all that a free looks at.
        if moves { self.would_free(words, cache, chunk) } else { Ok(()) }
    }

    /// Whether libc would take the chunk for one with a mapping of its own; else `otherwise`.
    fn would_be_mapping<M: Memory>(
        &self,
        words: Words<'_, M>,
        chunk: u64,
        otherwise: HeapFault,
    ) -> Result<(), HeapFault> {
        let layout = self.settings.policy().mapped_layout;
        let mapping = checks::mapping(words, round_to_words(chunk), self.os.page_bytes(), layout);
        mapping.map(drop).ok_or(otherwise)
    }

    /// Asks about the arena that a chunk's words name. Where they name none, nothing is known of what libc would do.
    fn would_enter<M: Memory>(
        &self,
        words: Words<'_, M>,
        cache: &mut ThreadCache,
        chunk: u64,
        head: u64,
        ask: impl FnOnce(&ArenaState) -> Result<(), HeapFault>,
    ) -> Result<(), HeapFault> {
        let number = if head & NON_MAIN == 0 { 0 } else { words.heap_arena(self.heap_of(chunk)) as u16 };
        let owner = self.arenas.get(number, &self.main).ok_or(HeapFault::InvalidPointer)?;
        match self.enter(owner, cache) {
            Some(arena) => ask(&arena),
            None => Ok(()),
        }
    }
}

/// Whether a chunk of `size` bytes, whose words have passed [`checks::resize`], has to move to become one of `wanted`:
/// neither the top nor a free chunk above it has enough.
fn would_move<M: Memory>(words: Words<'_, M>, arena: &ArenaState, chunk: u64, size: u64, wanted: u64) -> bool {
    if size >= wanted {
        return false;
    }
    let next = chunk + round_to_words(size);
    let next_size = words.size(next);
    let joined = size + next_size;
    match next == arena.top {
        true => joined < wanted + MIN_CHUNK,
        false => joined < wanted || words.inuse(next, next_size),
    }
}

/// The size word of a chunk at any address.
fn head_of<M: Memory>(words: Words<'_, M>, chunk: u64) -> u64 {
    let odd_bits = chunk % 8 * 8;
    let low = words.head(round_to_words(chunk));
    if odd_bits == 0 {
        return low;
    }
    let high = words.head(round_to_words(chunk).wrapping_add(8));
    low >> odd_bits | high << (64 - odd_bits)
}

fn round_to_words(chunk: u64) -> u64 {
    chunk & !7
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Live;

    /// Where everything can be read and written.
    struct Everywhere;

    impl Access for Everywhere {
        fn is_readable(&self, _: u64) -> bool {
            true
        }

        fn is_writable(&self, _: u64) -> bool {
            true
        }
    }

    #[test]
    fn a_second_free_that_libc_does_not_notice_makes_two_blocks_of_one() {
        let heap = Heap::new(Live::new());
        assert!(heap.harden());
        let mut cache = ThreadCache::new();
        let block = heap.malloc(&mut cache, &mut NoSink, 24).unwrap().addr;
        // SAFETY: the block is live and nobody uses it.
        unsafe { heap.free(&mut cache, &mut NoSink, block) }.unwrap();
        // The mark of what is in a cache, by which libc notices a second free.
        Words(heap.system()).set_bk(block.0 - HEADER, 0);
        // SAFETY: the block's words are mapped, here and below.
        assert_eq!(unsafe { heap.verdict_on_free(&mut cache, block, Everywhere) }, Verdict::Passes);
        // SAFETY: libc lets it pass, and the blocks that follow from it are not used.
        unsafe { heap.free_unnoticed(&mut cache, block) };
        for _ in 0..2 {
            assert_eq!(heap.malloc(&mut cache, &mut NoSink, 24).unwrap().addr, block);
        }
        assert_ne!(heap.malloc(&mut cache, &mut NoSink, 24).unwrap().addr, block);
    }
}
