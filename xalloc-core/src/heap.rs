//! A malloc that places chunks exactly as glibc does: same requests, same offsets, same chunk sizes, same `brk` steps.
//!
//! Fragmentation is a property of a placement policy meeting a program. A profiler that measures the fragmentation of
//! some other allocator says nothing about production; so the heap here follows glibc's policy chunk for chunk, and
//! tells a [`Sink`] what it does and why while it does it.
//!
//! # One policy, three instantiations
//! [`Heap`] is generic over [`Os`], its only door to the system and to memory. The live heap answers with `sbrk`, `mmap`
//! and raw accesses; the simulator with a virtual break and a sparse table of words. What a report simulates is what
//! runs in the process.
//!
//! # Rooms, bottom to top
//! | room | subject |
//! |---|---|
//! | [`os`](Os), `live`, `sink` | the doors: system and memory, events |
//! | `policy`, `tunables`, `settings` | the rules of a release, what a user sets, what is in force |
//! | `chunk`, `words`, `pages` | size arithmetic; the in-band words of a chunk; ranges that are given back |
//! | `bins`, `fastbins`, `tcache` | the lists of free chunks |
//! | `fault`, `checks` | what libc ends a program for, in its words; where it looks for that |
//! | `blocks`, `claim`, `marked` | which blocks the program has; what is wrong with a pointer that came back; blocks to be known again |
//! | `arena`, `step`, `threads`, `fork` | the state of an arena; which thread uses which; what a fork leaves |
//! | `malloc`, `allocate`, `free`, `realloc`, `memalign` | the operations |
//! | `unhardened` | the shortest ways through them, where nothing is kept or told |
//! | `system`, `subheap`, `huge` | growth and trimming: mappings and the break; sub-heaps of thread arenas; huge pages |
//! | `verdict` | what libc would do with a pointer that was refused |
//! | `inspect`, `validate`, `info`, `xml` | walking, checking and counting what is there |
//!
//! # Invariant
//! The chunks of a heap segment tile it without gap, from its first byte to the top's last. A chunk that is free in a
//! bin has no free neighbour and does not border the top. Everything that is reached from an arena's state is changed
//! under that arena's lock only; a thread's cache is its own.
//!
//! # The boundary of trust
//! The words of a chunk are in the program's reach, and only the program can know whether a pointer that it frees is
//! one it was given. The functions that take such a pointer are therefore `unsafe`; within the rooms addresses are
//! plain numbers, and two rooms, `words` and `pages`, turn them into accesses to memory and ranges.
//!
//! # Why not safe-linking
//! glibc mangles the links of its singly linked lists since 2.32. It changes no placement, costs a shift on the path
//! that must be shortest, and would make a recorded heap harder to read; a corrupted link is glibc's to find.

mod allocate;
mod arena;
mod bins;
mod blocks;
mod checks;
mod chunk;
mod claim;
mod fastbins;
mod fault;
mod fork;
mod free;
mod huge;
mod info;
mod inspect;
mod live;
mod malloc;
mod marked;
mod memalign;
mod os;
mod pages;
mod policy;
mod realloc;
mod settings;
#[cfg(any(test, feature = "simulator"))]
pub mod sim;
mod sink;
mod step;
mod subheap;
mod system;
mod tcache;
mod threads;
mod tunables;
mod unhardened;
mod validate;
mod verdict;
mod words;
mod xml;

pub use arena::ARENA_BYTES;
pub use chunk::bin_index;
pub use claim::{Explanation, Neighbour};
pub use fault::{Damage, HeapFault};
pub use free::{Cacheable, FastBinnable};
pub use huge::HugePages;
pub use info::MallInfo;
pub use inspect::{Class, Span, WalkError};
pub use live::Live;
pub use marked::Marked;
pub use os::{Memory, Os};
pub use policy::{
    AlignedRests, ArenaLimit, BreakFallback, CacheBirth, HugeTlb, MappedLayout, Policy, ReallocSlack, ShapeChecks,
};
pub use realloc::Reallocated;
pub use sink::{NoSink, Sink};
pub use tcache::ThreadCache;
pub use tunables::{Parameter, Tunable, Tunables};
pub use unhardened::{Resized, Unhardened};
pub use validate::{Books, Imbalance};
pub use verdict::{Access, Verdict};

use core::sync::atomic::{AtomicBool, Ordering};

use crate::units::{Addr, ArenaId};
use arena::{Arena, ArenaGuard, ArenaRef};
use blocks::Blocks;
use settings::{Number, Settings};
use threads::Arenas;
use words::Words;

/// Disjoint ranges of the main arena that are remembered: one, unless something else moves the break or the arena grows by
/// mappings of huge pages.
const REGIONS: usize = 1024;
/// Unmapped blocks that are remembered, so that a second free of one can be told from that of any other pointer.
const UNMAPPED: usize = 64;

/// The heap of a process: its arenas, its thresholds, and the door to the system.
///
/// Usable as a `static`: [`Heap::new`] is `const`, and no memory is taken before the first allocation.
#[derive(Debug)]
pub struct Heap<O: Os> {
    os: O,
    settings: Settings,
    main: Arena,
    arenas: Arenas,
    /// Whether locks are taken; in a process that libc serves alike, from the first `pthread_create` on and for good
    /// (placement policy, section 10).
    multithreaded: AtomicBool,
    /// Chunks with a mapping of their own, and bytes in them; and the most of either so far.
    mapped_chunks: Number,
    mapped_bytes: Number,
    max_mapped_chunks: Number,
    max_mapped_bytes: Number,
    /// Where the main arena's first memory begins; 0 before it has any.
    break_base: Number,
    /// Where it ends, as far as the break goes; 0 before it has any.
    break_end: Number,
    /// Where the next sub-heap is tried first, or 0.
    next_heap_hint: Number,
    /// Starts of the main arena's disjoint ranges, written under its lock.
    regions: [Number; REGIONS],
    region_count: Number,
    /// Walks so far; each marks fast chunks by a number of its own.
    walks: Number,
    /// The program's live blocks, if the heap is hardened.
    blocks: Blocks,
    /// The blocks whose own mappings went back last, and how many ever did; noted by a hardened heap.
    unmapped: [Number; UNMAPPED],
    unmapped_count: Number,
}

/// A block that was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// The user address.
    pub addr: Addr,
    /// Bytes that the program may use, at least what it asked for; what `malloc_usable_size` says.
    pub usable_bytes: u64,
    /// The arena that owns the chunk, or [`ArenaId::NONE`] if it has a mapping of its own. Not determined (`NONE`) when
    /// the sink does not record.
    pub arena: ArenaId,
    /// What served the request.
    pub served: Served,
    /// Place of this allocation in the order of its arena. An allocation that the arena served takes a number of its
    /// own, between those of the heap events around it; any other has none, and 0 stands here.
    pub arena_seq: u16,
}

/// What served a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Served {
    /// The thread's cache, or the block as it was: no arena was entered.
    Cache,
    /// The arena, under its lock.
    Arena,
    /// A mapping of its own.
    Mapping,
}

impl From<Allocation> for Addr {
    #[inline(always)]
    fn from(made: Allocation) -> Addr {
        made.addr
    }
}

impl Allocation {
    /// The block as the pointer that a C caller gets. Only meaningful for a live heap.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.addr.0 as usize)
    }
}

/// Why an allocation with rules of its own failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocError {
    /// `ENOMEM`: too large, or the system has no more.
    NoMemory,
    /// `EINVAL`: the alignment is not allowed.
    BadAlignment,
}

impl<O: Os> Heap<O> {
    /// A heap that has nothing yet. Its rules are those of [`Policy::default`] unless [`Heap::configure`] comes first.
    ///
    /// Its locks are taken from the first call on.
    pub const fn new(os: O) -> Heap<O> {
        Heap::with_locks(os, true)
    }

    /// As [`Heap::new`], but no lock is taken and the main arena serves every thread until
    /// [`Heap::note_multithreaded`]: what libc does until the first `pthread_create`.
    ///
    /// # Safety
    /// - Until [`Heap::note_multithreaded`] was called, and seen by who calls next, no two calls into the heap overlap:
    ///   not on two threads, and not from within a [`Sink`] or a visitor of [`Heap::walk`].
    #[allow(unsafe_code, reason = "states an obligation of its callers; does nothing unsafe")]
    pub const unsafe fn single_threaded(os: O) -> Heap<O> {
        Heap::with_locks(os, false)
    }

    const fn with_locks(os: O, locks: bool) -> Heap<O> {
        Heap {
            os,
            settings: Settings::new(),
            main: Arena::new(0),
            arenas: Arenas::new(),
            multithreaded: AtomicBool::new(locks),
            mapped_chunks: Number::new(0),
            mapped_bytes: Number::new(0),
            max_mapped_chunks: Number::new(0),
            max_mapped_bytes: Number::new(0),
            break_base: Number::new(0),
            break_end: Number::new(0),
            next_heap_hint: Number::new(0),
            regions: [const { Number::new(0) }; REGIONS],
            region_count: Number::new(0),
            walks: Number::new(0),
            blocks: Blocks::new(),
            unmapped: [const { Number::new(0) }; UNMAPPED],
            unmapped_count: Number::new(0),
        }
    }

    /// Sets the rules and numbers that hold for the life of the heap. Must come before the first allocation; later, or
    /// a second time, it changes nothing and returns `false`.
    pub fn configure(&self, policy: &Policy, tunables: &Tunables) -> bool {
        let huge_pages = HugePages::wanted(&self.os, policy, tunables);
        self.settings.configure(policy, tunables, huge_pages)
    }

    /// The door to the system that this heap uses.
    pub const fn system(&self) -> &O {
        &self.os
    }

    /// Whether a second thread was ever about to exist.
    #[inline(always)]
    fn is_multithreaded(&self) -> bool {
        // What a new thread must see is published by its creation; the flag orders nothing.
        self.multithreaded.load(Ordering::Relaxed)
    }

    /// The number of the arena that owns a heap chunk.
    #[inline(always)]
    fn arena_of(&self, chunk: u64) -> ArenaRef {
        let words = Words(&self.os);
        if words.head(chunk) & chunk::NON_MAIN == 0 { 0 } else { words.heap_arena(self.heap_of(chunk)) as ArenaRef }
    }

    /// The calling thread's kernel id, asked for once.
    #[inline]
    fn tid(&self, cache: &mut ThreadCache) -> u32 {
        if cache.thread_id() == 0 {
            cache.set_thread_id(self.os.thread_id());
        }
        cache.thread_id()
    }

    /// Enters an arena; `None` if its state was lost in a fork.
    #[inline(always)]
    fn enter<'a>(&self, arena: &'a Arena, cache: &mut ThreadCache) -> Option<ArenaGuard<'a>> {
        if !self.is_multithreaded() {
            return Some(arena.enter_alone(&self.os));
        }
        if arena.lost.load(Ordering::Relaxed) {
            return None;
        }
        Some(arena.enter(&self.os, self.tid(cache)))
    }

    /// Remembers where a range of the main arena begins. Beyond the table's room a walk of the heap is incomplete.
    fn note_region(&self, start: u64) {
        let count = self.region_count.get();
        if let Some(slot) = self.regions.get(count as usize) {
            slot.set(start);
        }
        self.region_count.set(count + 1);
    }
}
