//! Which thread uses which arena, and what a thread leaves behind (placement policy, section 10).
//!
//! The main thread uses the main arena. Another thread takes an arena whose last thread ended, else makes one, else
//! shares one when the limit is reached: round robin over the arenas, the main one first and then the latest first.
//!
//! # Invariant
//! `count` arenas exist, the main one included, and their numbers are `0..count`: an arena is never destroyed. The
//! table, the free list and the numbers of attached threads change under `lock` only, and no arena's lock is waited for
//! while it is held.
//!
//! # Safety
//! - A pointer in the table was made from storage of [`Os::arena_home`], initialised before it was published, and that
//!   storage lives as long as the heap.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::Heap;
use super::arena::{ARENA_BYTES, Arena, ArenaGuard, ArenaRef, ArenaState, NO_ARENA};
use super::chunk::{ALIGNMENT, HEADER, PREV_INUSE, round_up};
use super::os::Os;
use super::policy::ArenaLimit;
use super::sink::Sink;
use super::step::Step;
use super::tcache::{Stage, ThreadCache};
use super::words::Words;
use crate::sys::lock::Lock;
use crate::units::Addr;
use crate::wire::HeapEvent;

/// Arenas that the table has room for; the policy's limit is 8 per core, so this serves 256 cores.
const TABLE: usize = 2048;
/// Arenas per core beyond `arena_test` (placement policy, section 10).
const ARENAS_PER_CORE: u64 = 8;

/// The arenas of a heap, and which of them wait for a thread.
#[derive(Debug)]
pub(super) struct Arenas {
    lock: Lock,
    /// By number; entry 0 stays empty, the main arena is the heap's own.
    table: [AtomicPtr<Arena>; TABLE],
    count: AtomicU32,
    /// Head of the free list, or [`NO_ARENA`].
    free: AtomicU32,
    /// Where sharing goes on.
    cursor: AtomicU32,
    /// The limit once it was worked out; 0 before.
    limit: AtomicU32,
    /// Arenas that forks lost: they serve nobody, so the limit does not count them.
    lost: AtomicU32,
}

impl Arenas {
    pub(super) const fn new() -> Arenas {
        Arenas {
            lock: Lock::new(),
            table: [const { AtomicPtr::new(core::ptr::null_mut()) }; TABLE],
            count: AtomicU32::new(1),
            free: AtomicU32::new(NO_ARENA),
            cursor: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            lost: AtomicU32::new(0),
        }
    }

    /// Number of arenas.
    pub(super) fn count(&self) -> u32 {
        // ORDERING: pairs with the Release store in `publish`.
        self.count.load(Ordering::Acquire)
    }

    /// The arena of a number, or `None`: there is none.
    #[inline]
    pub(super) fn get<'a>(&'a self, number: ArenaRef, main: &'a Arena) -> Option<&'a Arena> {
        if number == 0 {
            return Some(main);
        }
        // ORDERING: pairs with the Release store in `publish`: the arena's state is initialised.
        let arena = self.table.get(usize::from(number))?.load(Ordering::Acquire);
        // SAFETY: by the bullet of the module the pointer is null or that of an arena that lives as long as the heap.
        unsafe { arena.as_ref() }
    }

    /// The arena after `number` in the policy's order: main, then the latest first.
    pub(super) fn after(&self, number: ArenaRef) -> ArenaRef {
        let last = if number == 0 { self.count() } else { u32::from(number) };
        (last - 1) as ArenaRef
    }

    fn publish(&self, number: ArenaRef, arena: *mut Arena) {
        // ORDERING: publishes the initialised arena; pairs with the Acquire load in `get`.
        self.table[usize::from(number)].store(arena, Ordering::Release);
        // ORDERING: pairs with the Acquire load in `count`: whoever counts the arena finds it in the table.
        self.count.store(u32::from(number) + 1, Ordering::Release);
    }

    /// Puts an arena on the free list. Called under the table's lock, or alone.
    fn push_free(&self, arena: &Arena) {
        arena.next_free.store(self.free.load(Ordering::Relaxed), Ordering::Relaxed);
        self.free.store(u32::from(arena.number), Ordering::Relaxed);
    }

    /// Takes the arena that was put on the free list last. Called under the table's lock.
    fn pop_free<'a>(&'a self, main: &'a Arena) -> Option<&'a Arena> {
        let head = self.free.load(Ordering::Relaxed);
        let arena = self.get(ArenaRef::try_from(head).ok()?, main)?;
        self.free.store(arena.next_free.load(Ordering::Relaxed), Ordering::Relaxed);
        arena.attached.store(0, Ordering::Relaxed);
        Some(arena)
    }

    /// Takes an arena off the free list, wherever in it. Called under the table's lock.
    fn remove_free(&self, arena: &Arena, main: &Arena) {
        let mut link = &self.free;
        while let Ok(number) = ArenaRef::try_from(link.load(Ordering::Relaxed)) {
            let Some(entry) = self.get(number, main) else { return };
            if number == arena.number {
                link.store(entry.next_free.load(Ordering::Relaxed), Ordering::Relaxed);
                return;
            }
            link = &entry.next_free;
        }
    }

    /// Gives the locks of a process that was forked from another thread's view back, and empties the free list; called
    /// by the only thread of a child.
    pub(super) fn reset_after_fork(&self) {
        self.lock.abandon();
        self.free.store(NO_ARENA, Ordering::Relaxed);
    }

    /// Gives an arena up in a forked child: a thread that is gone was changing it.
    pub(super) fn lose_after_fork(&self, arena: &Arena) {
        arena.lost.store(true, Ordering::Relaxed);
        arena.lock.abandon();
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes an arena free in a forked child.
    pub(super) fn idle_after_fork(&self, arena: &Arena) {
        arena.attached.store(0, Ordering::Relaxed);
        self.push_free(arena);
    }
}

impl<O: Os> Heap<O> {
    /// Says that a second thread is about to exist: from now on locks are taken and threads get arenas of their own.
    /// Called before the first `pthread_create`; never undone, not even by a fork.
    pub fn note_multithreaded(&self) {
        self.multithreaded.store(true, Ordering::Relaxed);
    }

    /// Gives the calling thread's cache and arena back: called when the thread ends, after every other destructor. What
    /// is freed later with the same cache goes to the bins, what is allocated comes from them.
    pub fn thread_exit<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S) {
        Step { heap: self, cache, sink }.leave();
    }

    /// Arenas that exist, the main one included.
    #[must_use]
    pub fn arena_count(&self) -> u32 {
        self.arenas.count()
    }

    /// Whether one more arena may be made ([`ArenaLimit`]).
    ///
    /// A lost arena is not counted. So where every arena is lost (a limit of 1, and a fork while a thread was in the one
    /// arena) the child makes another, and [`Step::share_arena`] always has a living one to share.
    fn may_make_arena(&self) -> bool {
        let arenas = &self.arenas;
        let count = u64::from(arenas.count());
        let mut limit = u64::from(arenas.limit.load(Ordering::Relaxed));
        if limit == 0 {
            let tuned = self.settings.arena_max.get();
            let test = self.settings.arena_test.get();
            if tuned != 0 {
                limit = tuned;
            } else {
                match self.settings.policy().arena_limit {
                    ArenaLimit::EightPerCore if count > test => limit = ARENAS_PER_CORE * self.os.cores(),
                    ArenaLimit::EightPerCore => {}
                    ArenaLimit::ArenaTestOrCores => limit = test.max(self.os.cores()),
                }
            }
            arenas.limit.store(limit.min(u64::from(u32::MAX)) as u32, Ordering::Relaxed);
        }
        let living = count - u64::from(arenas.lost.load(Ordering::Relaxed));
        (limit == 0 || living < limit) && count < TABLE as u64
    }
}

impl<'h, O: Os, S: Sink> Step<'h, O, S> {
    /// Runs `serve` in the thread's arena and, if that cannot serve, in another one: the main arena instead of a thread
    /// arena, any other instead of the main arena. A process with one thread has no other.
    #[inline(always)]
    pub(super) fn in_some_arena<T>(
        &mut self,
        hint_bytes: u64,
        mut serve: impl FnMut(&mut Self, &mut ArenaState) -> Option<T>,
    ) -> Option<T> {
        // Whoever comes here first settles the rules.
        self.policy();
        let heap = self.heap;
        if !self.cache.bind(heap.settings.heap()) {
            return None;
        }
        if !heap.is_multithreaded() {
            self.cache.arena.get_or_insert(0);
            return serve(self, &mut heap.main.enter_alone(&heap.os));
        }
        self.in_locked_arena(hint_bytes, serve)
    }

    /// The same in a process with threads.
    #[inline(always)]
    fn in_locked_arena<T>(
        &mut self,
        hint_bytes: u64,
        mut serve: impl FnMut(&mut Self, &mut ArenaState) -> Option<T>,
    ) -> Option<T> {
        let mut first = self.own_arena(hint_bytes)?;
        if let Some(served) = serve(self, &mut first) {
            return Some(served);
        }
        if self.cache.has_damage() {
            return None;
        }
        let failed = first.number;
        drop(first);
        let mut second = self.enter_instead(hint_bytes, failed)?;
        serve(self, &mut second)
    }

    /// Enters the arena that is asked where `failed` could not serve.
    #[cold]
    #[inline(never)]
    fn enter_instead(&mut self, hint_bytes: u64, failed: ArenaRef) -> Option<ArenaGuard<'h>> {
        if failed == 0 {
            return self.attach(hint_bytes, Some(failed));
        }
        self.heap.enter(&self.heap.main, self.cache)
    }

    /// Enters the thread's arena; finds it one if it has none.
    #[inline(always)]
    fn own_arena(&mut self, hint_bytes: u64) -> Option<ArenaGuard<'h>> {
        let heap = self.heap;
        if self.cache.arena.is_none() && self.cache.stage != Stage::ShutDown && heap.os.is_main_thread() {
            self.cache.arena = Some(0);
        }
        if let Some(arena) = self.cache.arena.and_then(|number| heap.arenas.get(number, &heap.main))
            && let Some(guard) = heap.enter(arena, self.cache)
        {
            return Some(guard);
        }
        self.attach(hint_bytes, None)
    }

    /// Finds the thread an arena: a free one, a new one, a shared one that is not `avoid`.
    #[inline(never)]
    fn attach(&mut self, hint_bytes: u64, avoid: Option<ArenaRef>) -> Option<ArenaGuard<'h>> {
        let heap = self.heap;
        let tid = heap.tid(self.cache);
        heap.arenas.lock.acquire(tid);
        let found = heap.arenas.pop_free(&heap.main);
        if let Some(arena) = found {
            self.reattach(arena);
        }
        heap.arenas.lock.release();
        if let Some(arena) = found {
            let mut guard = heap.enter(arena, self.cache)?;
            self.tell(&mut guard, HeapEvent::ArenaAttach);
            return Some(guard);
        }
        match self.make_arena(hint_bytes) {
            Some(guard) => Some(guard),
            None => self.share_arena(avoid),
        }
    }

    /// Moves the thread from its arena to `arena`. Called under the table's lock.
    fn reattach(&mut self, arena: &Arena) {
        let heap = self.heap;
        if let Some(old) = self.cache.arena.and_then(|number| heap.arenas.get(number, &heap.main)) {
            old.attached.fetch_sub(1, Ordering::Relaxed);
        }
        arena.attached.fetch_add(1, Ordering::Relaxed);
        self.cache.arena = Some(arena.number);
    }

    /// Makes an arena, if one more is allowed and the system has room for its first sub-heap.
    fn make_arena(&mut self, hint_bytes: u64) -> Option<ArenaGuard<'h>> {
        let heap = self.heap;
        let tid = heap.tid(self.cache);
        heap.arenas.lock.acquire(tid);
        let made = if heap.may_make_arena() { self.build_arena(hint_bytes) } else { None };
        heap.arenas.lock.release();
        let (arena, addr, len_bytes) = made?;
        let mut guard = heap.enter(arena, self.cache)?;
        self.tell(&mut guard, HeapEvent::ArenaBirth { addr: Addr(addr) });
        self.tell(&mut guard, HeapEvent::HeapBirth { addr: Addr(addr), len_bytes });
        Some(guard)
    }

    /// Maps an arena's first sub-heap, initialises its state and publishes it. Called under the table's lock.
    fn build_arena(&mut self, hint_bytes: u64) -> Option<(&'h Arena, u64, u64)> {
        let heap = self.heap;
        let header = self.policy().heap_header_bytes;
        let reserved = self.policy().arena_bytes;
        let needed = header + reserved + ALIGNMENT;
        let pad = heap.settings.top_pad.get();
        // A first request too large for a sub-heap is left to a mapping of its own.
        let (addr, len_bytes) = match self.new_heap(hint_bytes.saturating_add(needed), pad) {
            Some(made) => made,
            None => self.new_heap(needed, pad)?,
        };
        let number = heap.arenas.count() as ArenaRef;
        let words = self.words();
        words.set_heap_arena(addr, u64::from(number));
        words.set_heap_prev(addr, 0);
        let mut top = addr + header + reserved;
        if !top.is_multiple_of(ALIGNMENT) {
            top += ALIGNMENT - top % ALIGNMENT;
        }
        words.set_head(top, (addr + len_bytes - top) | PREV_INUSE);
        let home = if reserved < ARENA_BYTES as u64 {
            // The release reserves less than the state takes here: it lies elsewhere.
            heap.os.side_table(round_up(ARENA_BYTES as u64, heap.os.page_bytes()))?
        } else {
            // SAFETY: `new_heap` made the range accessible beyond the arena's state, which is asked for once; an
            // arena's first sub-heap is never given back.
            unsafe { heap.os.arena_home(addr + header) }
        };
        let home = home.cast::<Arena>();
        // SAFETY: by the contracts of `arena_home` and `side_table` the storage is large enough, aligned, and this arena's alone.
        unsafe { home.write(Arena::new(number)) };
        // SAFETY: initialised above; it lives as long as the heap and is only shared from here on.
        let arena: &'h Arena = unsafe { home.as_ref() };
        {
            let mut state = arena.enter_alone(&heap.os);
            state.top = top;
            state.grew(len_bytes);
        }
        heap.arenas.publish(number, home.as_ptr());
        arena.attached.store(0, Ordering::Relaxed);
        self.reattach(arena);
        Some((arena, addr, len_bytes))
    }

    /// The limit is reached: the first arena from the cursor on whose lock is free, or the one at the cursor; none that
    /// a fork lost.
    fn share_arena(&mut self, avoid: Option<ArenaRef>) -> Option<ArenaGuard<'h>> {
        let heap = self.heap;
        let tid = heap.tid(self.cache);
        let arenas = &heap.arenas;
        let start = arenas.cursor.load(Ordering::Relaxed) as ArenaRef;
        let mut number = start;
        let mut entered = loop {
            let arena = arenas.get(number, &heap.main)?;
            if let Some(guard) = arena.try_enter(&heap.os, tid) {
                break Some((arena, guard));
            }
            number = arenas.after(number);
            if number == start {
                break None;
            }
        };
        if entered.is_none() {
            let is_lost = |number| arenas.get(number, &heap.main).is_some_and(|it| it.lost.load(Ordering::Relaxed));
            while avoid == Some(number) || is_lost(number) {
                number = arenas.after(number);
                if number == start {
                    return None;
                }
            }
            let arena = arenas.get(number, &heap.main)?;
            entered = heap.enter(arena, self.cache).map(|guard| (arena, guard));
        }
        let (arena, mut guard) = entered?;
        // The table's lock is never held while an arena's is waited for, but may be taken while one is held.
        arenas.lock.acquire(tid);
        arenas.remove_free(arena, &heap.main);
        self.reattach(arena);
        arenas.lock.release();
        arenas.cursor.store(u32::from(arenas.after(number)), Ordering::Relaxed);
        self.tell(&mut guard, HeapEvent::ArenaAttach);
        Some(guard)
    }

    /// The thread ends: its cache is emptied in order of size, each bin from its head, then the cache's own chunk goes,
    /// then its arena loses a thread.
    fn leave(&mut self) {
        self.policy();
        let heap = self.heap;
        if !self.cache.bind(heap.settings.heap()) {
            return;
        }
        let words = self.words();
        let (chunks, size_bytes) = self.cache.contents();
        if S::RECORDS
            && chunks > 0
            && let Some(mut arena) = self.attached_arena()
        {
            self.tell(&mut arena, HeapEvent::TcacheFlush { chunks, size_bytes });
        }
        self.cache.close();
        while let Some(chunk) = self.cache.pop_any(words) {
            if !self.free_flushed(words, chunk) {
                // glibc ends the program. A list that leads back to the chunk would never end.
                break;
            }
        }
        let home = core::mem::take(&mut self.cache.home);
        if home != 0 {
            self.free_flushed(words, home - HEADER);
        }
        let Some(number) = self.cache.arena else { return };
        let Some(arena) = heap.arenas.get(number, &heap.main) else { return };
        let tid = heap.tid(self.cache);
        heap.arenas.lock.acquire(tid);
        let was_last = arena.attached.fetch_sub(1, Ordering::Relaxed) == 1;
        if was_last {
            heap.arenas.push_free(arena);
        }
        heap.arenas.lock.release();
        if S::RECORDS
            && was_last
            && let Some(mut guard) = self.attached_arena()
        {
            self.tell(&mut guard, HeapEvent::ArenaIdle);
        }
        self.cache.arena = None;
    }

    /// Frees a chunk that left the cache. One with which that finds fault stays where it is, and the answer is `false`.
    fn free_flushed(&mut self, words: Words<'h, O>, chunk: u64) -> bool {
        let freed = self.free_slowly(chunk, words.head(chunk));
        if let Err(fault) = freed {
            self.note_fault(fault, chunk);
        }
        freed.is_ok()
    }

    fn attached_arena(&mut self) -> Option<ArenaGuard<'h>> {
        let heap = self.heap;
        let arena = heap.arenas.get(self.cache.arena?, &heap.main)?;
        heap.enter(arena, self.cache)
    }
}
