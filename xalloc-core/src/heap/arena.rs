//! An arena: one set of bins, one top, one lock.
//!
//! The main arena lives in the break and its state in [`super::Heap`]; a thread arena lives in sub-heaps of 64 MiB, and
//! its state where [`super::Os::arena_home`] says, normally in the 2,200 bytes that glibc reserves for it as well.
//!
//! # Invariant
//! The state is reached through an [`ArenaGuard`] only. While the process has one thread the guard takes no lock
//! (placement policy, section 10); from the first second thread on it holds the lock for as long as it lives.
//!
//! # Safety
//! - `state` is only dereferenced by a guard, and at most one guard of an arena exists at a time: by the lock if there
//!   are threads, and by the heap's own discipline (no room enters an arena that it is in) if there is one.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::bins::{Bins, Ends};
use super::os::Os;
use super::words::Words;
use crate::sys::lock::Lock;
use crate::units::ArenaId;

/// Bytes that an arena's state takes at the start of its first sub-heap (placement policy, section 1).
pub const ARENA_BYTES: usize = 2200;

/// Fast bins: chunks of 32 to 176 bytes.
pub(super) const FAST_BINS: usize = 10;

/// The number of an arena: its index in the table of arenas, 0 for the main one.
pub(super) type ArenaRef = u16;

/// In place of the number of an arena: none.
pub(super) const NO_ARENA: u32 = u32::MAX;

/// An arena, shared between threads.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) lock: Lock,
    pub(super) number: ArenaRef,
    /// Whether a thread that did not survive a fork held the lock: the state may be half changed and is left alone.
    pub(super) lost: AtomicBool,
    /// Threads that use the arena; changed under the lock of the table of arenas.
    pub(super) attached: AtomicU32,
    /// The next arena of the free list, or [`NO_ARENA`]; changed under the lock of the table of arenas.
    pub(super) next_free: AtomicU32,
    /// The ends of the lists in the state's bins. Reached by their address, as the words of chunks are.
    ends: Ends,
    state: UnsafeCell<ArenaState>,
}

const _: () = assert!(size_of::<Arena>() <= ARENA_BYTES && align_of::<Arena>() <= 16);

// SAFETY: by the bullet of the module the state is only touched through a guard.
unsafe impl Sync for Arena {}

/// What an arena's lock protects.
#[derive(Debug)]
pub(super) struct ArenaState {
    pub(super) number: ArenaRef,
    /// Sequence number of the next event.
    seq: u16,
    /// Whether a fast bin may hold something.
    pub(super) have_fast: bool,
    /// Whether the break has served every growth so far; only the main arena can lose this.
    pub(super) contiguous: bool,
    /// Heads of the fast bins, 0 for none.
    pub(super) fast: [u64; FAST_BINS],
    /// The chunk at the upper end, from which growth is cut; 0 before the first growth.
    pub(super) top: u64,
    /// Address of the rest of the latest split for a small request. Never cleared: it may name another chunk by now
    /// (placement policy, section 2).
    pub(super) last_remainder: u64,
    /// Bytes that the arena has from the system.
    pub(super) system_bytes: u64,
    /// Largest value of `system_bytes` so far.
    pub(super) max_system_bytes: u64,
    pub(super) bins: Bins,
}

impl Arena {
    pub(super) const fn new(number: ArenaRef) -> Arena {
        Arena {
            lock: Lock::new(),
            number,
            lost: AtomicBool::new(false),
            attached: AtomicU32::new(1),
            next_free: AtomicU32::new(NO_ARENA),
            ends: Ends::new(),
            state: UnsafeCell::new(ArenaState {
                number,
                seq: 0,
                have_fast: false,
                contiguous: number == 0,
                fast: [0; FAST_BINS],
                top: 0,
                last_remainder: 0,
                system_bytes: 0,
                max_system_bytes: 0,
                bins: Bins::new(),
            }),
        }
    }

    /// Enters the arena without its lock: the process has one thread.
    #[inline(always)]
    pub(super) fn enter_alone<O: Os>(&self, os: &O) -> ArenaGuard<'_> {
        ArenaGuard { arena: self, locked: false }.settled(os)
    }

    /// Enters the arena, waiting for its lock.
    #[inline]
    pub(super) fn enter<O: Os>(&self, os: &O, tid: u32) -> ArenaGuard<'_> {
        self.lock.acquire(tid);
        ArenaGuard { arena: self, locked: true }.settled(os)
    }

    /// Enters the arena if its lock is free and its state was not left half changed.
    pub(super) fn try_enter<O: Os>(&self, os: &O, tid: u32) -> Option<ArenaGuard<'_>> {
        if self.lost.load(Ordering::Relaxed) || !self.lock.try_acquire(tid) {
            return None;
        }
        Some(ArenaGuard { arena: self, locked: true }.settled(os))
    }
}

impl ArenaState {
    /// Whether this is the arena of the break.
    #[inline(always)]
    pub(super) fn is_main(&self) -> bool {
        self.number == 0
    }

    /// The arena's name in events.
    #[inline(always)]
    pub(super) fn id(&self) -> ArenaId {
        ArenaId(self.number)
    }

    /// The flag that the chunks handed out by this arena carry.
    #[inline(always)]
    pub(super) fn chunk_flag(&self) -> u64 {
        if self.is_main() { 0 } else { super::chunk::NON_MAIN }
    }

    /// Draws the next sequence number.
    #[inline(always)]
    pub(super) fn tick(&mut self) -> u16 {
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        seq
    }

    /// Counts bytes obtained from the system.
    pub(super) fn grew(&mut self, bytes: u64) {
        self.system_bytes = self.system_bytes.wrapping_add(bytes);
        self.max_system_bytes = self.max_system_bytes.max(self.system_bytes);
    }
}

/// The right to change an arena's state; gives the lock back at its end.
pub(super) struct ArenaGuard<'a> {
    arena: &'a Arena,
    locked: bool,
}

impl ArenaGuard<'_> {
    /// This guard, once the bins know their ends: a heap is a value, and values move.
    #[inline(always)]
    fn settled<O: Os>(mut self, os: &O) -> Self {
        let ends = os.ends_home(self.arena.number, self.arena.ends.expose());
        self.bins.settle(Words(os), ends);
        self
    }
}

impl Deref for ArenaGuard<'_> {
    type Target = ArenaState;

    #[inline(always)]
    fn deref(&self) -> &ArenaState {
        // SAFETY: by the bullet of the module this guard is the only way to the state.
        unsafe { &*self.arena.state.get() }
    }
}

impl DerefMut for ArenaGuard<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut ArenaState {
        // SAFETY: by the bullet of the module this guard is the only way to the state.
        unsafe { &mut *self.arena.state.get() }
    }
}

impl Drop for ArenaGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.locked {
            self.arena.lock.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::heap::{Heap, Live, NoSink, Policy, ThreadCache, Tunables};

    #[test]
    fn a_heap_that_is_moved_finds_its_free_chunks_again() {
        let mut heap = Heap::new(Live::new());
        heap.configure(&Policy::GLIBC_2_36, &Tunables::NONE);
        let mut cache = ThreadCache::new();
        let sizes = [3_000, 5_000, 7_000];
        let blocks = sizes.map(|bytes| {
            let block = heap.malloc(&mut cache, &mut NoSink, bytes).unwrap().addr;
            // What lies between keeps the free chunks apart.
            heap.malloc(&mut cache, &mut NoSink, 24).unwrap();
            block
        });
        for &block in &blocks[..2] {
            // SAFETY: the block is live and nobody uses it, here and below.
            unsafe { heap.free(&mut cache, &mut NoSink, block) }.unwrap();
        }
        // Sorts the queue: two chunks are in large bins then, and the third waits.
        heap.malloc(&mut cache, &mut NoSink, 9_000).unwrap();
        // SAFETY: as above.
        unsafe { heap.free(&mut cache, &mut NoSink, blocks[2]) }.unwrap();
        let mut moved = Vec::with_capacity(2);
        moved.push(Heap::new(Live::new()));
        core::mem::swap(&mut heap, &mut moved[0]);
        moved[0].validate(&mut cache).unwrap();
        for (block, bytes) in blocks.into_iter().zip(sizes) {
            assert_eq!(moved[0].malloc(&mut cache, &mut NoSink, bytes).unwrap().addr, block);
        }
    }
}
