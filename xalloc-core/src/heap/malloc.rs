//! `malloc` and `calloc`.

use super::arena::ArenaState;
use super::chunk::{self, HEADER};
use super::os::Os;
use super::sink::Sink;
use super::step::Step;
use super::tcache::{Stage, ThreadCache};
use super::words::Words;
use super::{Allocation, CacheBirth, Heap, Served};
use crate::units::Addr;
use crate::wire::HeapEvent;

/// Who may need a thread's cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    Allocation,
    Free,
    Realloc,
}

/// Where a chunk of exactly the size was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    SmallBin,
    Unsorted,
}

impl<O: Os> Heap<O> {
    /// Allocates `bytes` (0 counts as 1). `None`: no memory (`ENOMEM`).
    #[inline]
    pub fn malloc<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, bytes: u64) -> Option<Allocation> {
        if let Some(made) = self.malloc_cached::<S>(cache, bytes) {
            return Some(made);
        }
        self.malloc_uncached(cache, sink, bytes)
    }

    /// The part of [`Heap::malloc`] that enters no arena, and so tells the sink nothing. `None`: the cache has no such
    /// chunk, and nothing has changed.
    #[inline(always)]
    pub fn malloc_cached<S: Sink>(&self, cache: &mut ThreadCache, bytes: u64) -> Option<Allocation> {
        let made = self.take_cached::<S>(cache, bytes)?;
        self.hand_out(made.addr);
        Some(made)
    }

    /// The same, as far as it makes no call: the block is the program's by [`Heap::hand_out`] only.
    #[inline(always)]
    pub fn take_cached<S: Sink>(&self, cache: &mut ThreadCache, bytes: u64) -> Option<Allocation> {
        let bin = ThreadCache::bin_for(bytes);
        let found = cache.pop_bin(Words(&self.os), bin)?;
        Some(self.cached::<S>(found, ThreadCache::size_of_bin(bin)))
    }

    /// The rest of a malloc that [`Heap::malloc_cached`] denied.
    #[inline]
    pub fn malloc_uncached<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, bytes: u64) -> Option<Allocation> {
        let size = chunk::for_request(bytes)?;
        let made = match cache.pop_beyond_bins(Words(&self.os), size) {
            Some(found) => self.cached::<S>(found, size),
            None => Step { heap: self, cache, sink }.malloc_slowly(size, bytes)?,
        };
        self.hand_out(made.addr);
        Some(made)
    }

    /// Allocates `count * size` bytes and clears the block's whole usable size. `None`: no memory, or the product is
    /// larger than any block.
    pub fn calloc<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, count: u64, size: u64) -> Option<Allocation> {
        let size = chunk::for_request(count.checked_mul(size)?)?;
        let made = Step { heap: self, cache, sink }.calloc(size)?;
        self.hand_out(made.addr);
        Some(made)
    }

    /// Allocates by a mapping of its own, touching neither a cache nor an arena nor a lock: for a signal handler that
    /// interrupted the heap. The block goes back by any `free`, or by [`Heap::free_detached`].
    ///
    /// `align` is a power of two, at most a page.
    pub fn malloc_detached<S: Sink>(&self, sink: &mut S, bytes: u64, align: u64) -> Option<Allocation> {
        let align = align.max(chunk::ALIGNMENT);
        let page = self.os.page_bytes();
        if !align.is_power_of_two() || align > page {
            return None;
        }
        // A block of larger alignment starts one alignment into the mapping, its chunk a header before that.
        let lead = align.saturating_sub(HEADER);
        let size = chunk::for_request(bytes.checked_add(lead)?)?;
        let mut unused = ThreadCache::new();
        let mut step = Step { heap: self, cache: &mut unused, sink };
        let mapped = step.map_chunk(size)?;
        let words = step.words();
        let found = mapped + lead;
        if lead > 0 {
            let total = words.size(mapped);
            words.set_prev_size(found, lead);
            words.set_head(found, (total - lead) | chunk::IS_MMAPPED);
        }
        let made = step.mapped(found);
        self.hand_out(made.addr);
        Some(made)
    }

    /// Bytes that the program may use of a mapped chunk of `size` bytes: the policy says which words are the heap's.
    #[inline]
    pub(super) fn usable_of_mapped(&self, size: u64) -> u64 {
        size.wrapping_sub(self.settings.policy().mapped_layout.unusable_bytes())
    }
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// An allocation that the cache did not serve at once.
    #[inline(always)]
    pub(super) fn malloc_slowly(&mut self, size: u64, bytes: u64) -> Option<Allocation> {
        self.cache.look_for_damage(size);
        self.ensure_cache_for(Caller::Allocation, size);
        let made = self.allocate_anywhere(size, size)?;
        self.perturb_allocated(made.addr.0, bytes);
        Some(made)
    }

    /// As [`Step::malloc_slowly`], where nothing is to be prepared: the thread has its cache and the process has no other
    /// thread. Only the chunk is said. The outer `None`: it is otherwise, and nothing has changed.
    #[inline(always)]
    pub(super) fn malloc_alone(&mut self, size: u64, bytes: u64) -> Option<Option<u64>> {
        let heap = self.heap;
        let is_prepared = self.cache.stage != Stage::Unborn && self.cache.is_at_home_in(heap.settings.heap());
        if !is_prepared || heap.is_multithreaded() {
            return None;
        }
        self.cache.look_for_damage(size);
        let made = self.allocate_inline(&mut heap.main.enter_alone(&heap.os), size);
        if let Some(chunk) = made {
            self.perturb_allocated(chunk + HEADER, bytes);
        }
        Some(made)
    }

    /// Fills what an arena or a mapping served for the program, if the user wants that (`M_PERTURB`).
    #[inline]
    pub(super) fn perturb_allocated(&self, addr: u64, bytes: u64) {
        let byte = self.heap.settings.perturb.get() as u8;
        if byte != 0 {
            self.words().fill(addr, bytes, !byte);
        }
    }

    #[inline(never)]
    fn calloc(&mut self, size: u64) -> Option<Allocation> {
        self.ensure_cache_for(Caller::Allocation, size);
        let words = self.words();
        if self.policy().calloc_uses_tcache
            && let Some(found) = self.cache.pop(words, size)
        {
            words.zero(found + HEADER, size - chunk::OVERHEAD);
            return Some(self.heap.cached::<S>(found, size));
        }
        if self.policy().calloc_uses_tcache {
            self.cache.look_for_damage(size);
        }
        self.allocate_cleared(size)
    }

    /// Step 1 of section 3: makes the thread's cache before anything else, if this call about a chunk of `size` bytes is
    /// one that does so.
    #[inline]
    pub(super) fn ensure_cache_for(&mut self, caller: Caller, size: u64) {
        if self.cache.stage != Stage::Unborn {
            return;
        }
        let largest = self.heap.settings.tcache_chunk_max.get();
        let makes = match (self.policy().tcache_birth, caller) {
            (CacheBirth::AnyCall, _) => true,
            (CacheBirth::CacheableAllocation, Caller::Allocation) => size < largest,
            (CacheBirth::FreeOrFit | CacheBirth::FreeOrSmallFit, Caller::Free) => {
                size <= largest && self.heap.settings.tcache_count.get() > 0
            }
            (CacheBirth::CacheableAllocation | CacheBirth::FreeOrFit | CacheBirth::FreeOrSmallFit, _) => false,
        };
        if makes {
            self.make_cache();
        }
    }

    /// Makes the thread's cache where an allocation came upon a chunk of exactly its size, if the release does so.
    #[inline]
    pub(super) fn ensure_cache_for_fit(&mut self, arena: &mut ArenaState, size: u64, fit: Fit) {
        if self.cache.stage != Stage::Unborn {
            return;
        }
        let policy = self.policy();
        let request = match policy.tcache_birth {
            CacheBirth::AnyCall | CacheBirth::CacheableAllocation => return,
            _ if self.heap.settings.tcache_count.get() == 0 => return,
            _ if fit == Fit::SmallBin && size > self.heap.settings.tcache_chunk_max.get() => return,
            CacheBirth::FreeOrFit => chunk::for_request(policy.tcache_struct_bytes),
            CacheBirth::FreeOrSmallFit if fit == Fit::Unsorted => return,
            CacheBirth::FreeOrSmallFit => Some(policy.tcache_struct_bytes),
        };
        self.cache.stage = Stage::Making;
        let made = request.and_then(chunk::for_request).and_then(|size| self.make_cache_in(arena, size));
        self.open_cache(made);
    }

    #[cold]
    #[inline(never)]
    fn make_cache(&mut self) {
        let policy = self.policy();
        if !policy.tcache {
            return;
        }
        let Some(size) = chunk::for_request(policy.tcache_struct_bytes) else { return };
        self.cache.stage = Stage::Making;
        let made = self.in_some_arena(policy.tcache_struct_bytes, |step, arena| step.make_cache_in(arena, size));
        self.open_cache(made);
    }

    /// Without memory for its bookkeeping the cache stays unborn.
    fn open_cache(&mut self, bookkeeping: Option<Allocation>) {
        match bookkeeping {
            Some(home) => self.cache.open(home.addr.0, &self.heap.settings),
            None => self.cache.stage = Stage::Unborn,
        }
    }

    fn make_cache_in(&mut self, arena: &mut ArenaState, size: u64) -> Option<Allocation> {
        let chunk = self.allocate(arena, size)?;
        let home = self.served(arena, chunk);
        if home.served == Served::Arena {
            let size_bytes = self.words().size(chunk);
            self.tell(arena, HeapEvent::CacheBirth { addr: Addr(chunk), size_bytes });
        }
        Some(home)
    }

    /// Steps 3 to 9 in the thread's arena; if that fails, in another one. `hint_bytes` is what an arena that has to be
    /// made is told to expect.
    #[inline(always)]
    pub(super) fn allocate_anywhere(&mut self, size: u64, hint_bytes: u64) -> Option<Allocation> {
        self.in_some_arena(hint_bytes, |step, arena| {
            let found = step.allocate(arena, size)?;
            Some(step.served_to_program(arena, found))
        })
    }

    /// As [`Step::allocate_anywhere`], cleared. What comes fresh from the system is not cleared again.
    fn allocate_cleared(&mut self, size: u64) -> Option<Allocation> {
        self.in_some_arena(size, |step, arena| {
            let words = step.words();
            let old_top = arena.top;
            let mut dirty_bytes = if old_top == 0 { 0 } else { words.size(old_top) };
            if arena.is_main() && old_top != 0 {
                // Pages that the top had once and gave back count as dirty, as in glibc.
                let highest = step.heap.break_base.get() + arena.max_system_bytes;
                dirty_bytes = dirty_bytes.max(highest.saturating_sub(old_top));
            }
            let found = step.allocate(arena, size)?;
            let head = words.head(found);
            if head & chunk::IS_MMAPPED == 0 {
                let found_size = head & !chunk::FLAGS;
                let fresh_from_top = found == old_top && found_size > dirty_bytes;
                let cleared_size = if fresh_from_top { dirty_bytes } else { found_size };
                words.zero(found + HEADER, cleared_size.saturating_sub(chunk::OVERHEAD));
            }
            Some(step.served_to_program(arena, found))
        })
    }
}
