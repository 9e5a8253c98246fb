//! A simulated process: what a what-if run and the tests drive.
//!
//! # Safety
//! - The words of a simulated heap are entries of a table ([`super`], first bullet): whatever an address is, an access
//!   by it stays in the table.
#![allow(unsafe_code)]

use alloc::vec::Vec;

use super::super::chunk::round_up;
use super::super::{
    AllocError, Allocation, Books, Explanation, Heap, HeapFault, Imbalance, MallInfo, Os, Policy, Reallocated, Sink,
    Span, ThreadCache, Tunables, WalkError,
};
use super::{BREAK_BASE, Machine, Sim, SystemCalls};
use crate::units::{Addr, PAGE_BYTES};

/// A simulated process: a heap and its threads, number 0 the main one.
///
/// Its functions are safe: an address that is no live block is found out, or changes the simulation's result, but never
/// touches memory of this process.
#[derive(Debug)]
pub struct Simulation {
    heap: Heap<Sim>,
    threads: Vec<ThreadCache>,
}

impl Simulation {
    /// A process under `policy` with `tunables`, on a machine of `cores` processors.
    #[must_use]
    pub fn new(policy: &Policy, tunables: &Tunables, cores: u64) -> Simulation {
        Simulation::on_machine(policy, tunables, Machine::with_cores(cores))
    }

    /// A process under `policy` with `tunables`.
    #[must_use]
    pub fn on_machine(policy: &Policy, tunables: &Tunables, machine: Machine) -> Simulation {
        // SAFETY: a simulation is no `Sync`, and its functions do not call each other.
        let heap = unsafe { Heap::single_threaded(Sim::new(machine)) };
        heap.configure(policy, tunables);
        Simulation { heap, threads: Vec::from([ThreadCache::new()]) }
    }

    /// The heap itself, for what is asked of it without a thread.
    #[must_use]
    pub fn heap(&self) -> &Heap<Sim> {
        &self.heap
    }

    /// Starts a thread and returns its number. What `pthread_create` itself allocates is the caller's to replay.
    pub fn spawn(&mut self) -> usize {
        self.heap.note_multithreaded();
        self.threads.push(ThreadCache::new());
        self.threads.len() - 1
    }

    fn on(&mut self, thread: usize) -> (&Heap<Sim>, &mut ThreadCache) {
        self.heap.os.thread.set(thread as u32 + 1);
        (&self.heap, &mut self.threads[thread])
    }

    /// C `malloc` on a thread.
    pub fn malloc<S: Sink>(&mut self, thread: usize, sink: &mut S, bytes: u64) -> Option<Allocation> {
        let (heap, cache) = self.on(thread);
        heap.malloc(cache, sink, bytes)
    }

    /// An allocation by a mapping of its own, as from a signal handler.
    pub fn malloc_detached<S: Sink>(&mut self, sink: &mut S, bytes: u64, align: u64) -> Option<Allocation> {
        self.heap.malloc_detached(sink, bytes, align)
    }

    /// C `calloc` on a thread.
    pub fn calloc<S: Sink>(&mut self, thread: usize, sink: &mut S, count: u64, size: u64) -> Option<Allocation> {
        let (heap, cache) = self.on(thread);
        heap.calloc(cache, sink, count, size)
    }

    /// C `free` on a thread.
    ///
    /// # Errors
    /// As for [`Heap::free`].
    pub fn free<S: Sink>(&mut self, thread: usize, sink: &mut S, addr: Addr) -> Result<(), HeapFault> {
        let (heap, cache) = self.on(thread);
        // SAFETY: by the bullet of the module no address can go astray.
        unsafe { heap.free(cache, sink, addr) }
    }

    /// What is at a pointer that a free or a realloc found fault with.
    pub fn explain(&mut self, addr: Addr, fault: HeapFault) -> Explanation {
        let (heap, cache) = self.on(0);
        heap.explain(cache, addr, fault)
    }

    /// C `realloc` of a block on a thread.
    ///
    /// # Errors
    /// As for [`Heap::realloc`].
    pub fn realloc<S: Sink>(
        &mut self,
        thread: usize,
        sink: &mut S,
        addr: Addr,
        bytes: u64,
    ) -> Result<Reallocated, HeapFault> {
        let (heap, cache) = self.on(thread);
        // SAFETY: by the bullet of the module no address can go astray.
        unsafe { heap.realloc(cache, sink, addr, bytes) }
    }

    /// C `memalign` on a thread.
    ///
    /// # Errors
    /// As for [`Heap::memalign`].
    pub fn memalign<S: Sink>(
        &mut self,
        thread: usize,
        sink: &mut S,
        align: u64,
        bytes: u64,
    ) -> Result<Allocation, AllocError> {
        let (heap, cache) = self.on(thread);
        heap.memalign(cache, sink, align, bytes)
    }

    /// C `malloc_trim` on a thread.
    pub fn trim<S: Sink>(&mut self, thread: usize, sink: &mut S, pad_bytes: u64) -> bool {
        let (heap, cache) = self.on(thread);
        heap.trim(cache, sink, pad_bytes)
    }

    /// C `mallopt` on a thread.
    pub fn mallopt<S: Sink>(&mut self, thread: usize, sink: &mut S, parameter: i32, value: i32) -> bool {
        let (heap, cache) = self.on(thread);
        heap.mallopt(cache, sink, parameter, value)
    }

    /// The end of a thread.
    pub fn exit<S: Sink>(&mut self, thread: usize, sink: &mut S) {
        let (heap, cache) = self.on(thread);
        heap.thread_exit(cache, sink);
    }

    /// C `mallinfo2`.
    pub fn mallinfo2(&mut self) -> MallInfo {
        let (heap, cache) = self.on(0);
        heap.mallinfo2(cache)
    }

    /// Checks the heap and returns its books.
    ///
    /// # Errors
    /// The first thing that does not balance.
    pub fn validate(&mut self) -> Result<Books, Imbalance> {
        let (heap, cache) = self.on(0);
        heap.validate(cache)
    }

    /// Visits every span of every arena.
    ///
    /// # Errors
    /// As for [`Heap::walk`].
    pub fn walk(&mut self, visit: impl FnMut(Span) -> bool) -> Result<(), WalkError> {
        let (heap, cache) = self.on(0);
        heap.walk(cache, visit)
    }

    /// The kernel puts the break `delta` bytes higher than it would have, before the process has looked.
    pub fn start_break(&mut self, delta: u64) -> bool {
        let has_moved = self.move_break(delta as i64);
        self.heap.os.has_seen_break.set(false);
        has_moved
    }

    /// The program itself moves the break by `delta` bytes. `false`: it cannot be moved.
    pub fn move_break(&mut self, delta: i64) -> bool {
        // SAFETY: by the bullet of the module no range can be missed.
        unsafe { self.heap.os.break_by(delta) }.is_some()
    }

    /// Something is mapped right behind the break, where it stays in the way.
    pub fn block_break(&mut self) {
        let end = round_up(self.heap.os.brk.get(), PAGE_BYTES);
        self.heap.os.obstacle.set(end.min(self.heap.os.obstacle.get()));
    }

    /// Bytes by which the break is above its beginning.
    #[must_use]
    pub fn break_bytes(&self) -> u64 {
        self.heap.os.brk.get() - BREAK_BASE
    }

    /// How often the system was asked so far.
    #[must_use]
    pub fn calls(&self) -> SystemCalls {
        self.heap.os.calls.get()
    }

    /// The block at `addr`, of `bytes` bytes, will be freed or resized soon: the words that this takes, its own and its
    /// neighbour's size, are fetched while others are served.
    #[inline]
    pub fn expect(&self, addr: Addr, bytes: u64) {
        self.heap.os.expect(addr.0.wrapping_sub(8));
        // The next chunk's size word, wherever rounding put it, is on the line behind the block or the one after.
        self.heap.os.expect(addr.0.wrapping_add(bytes + 8));
    }

    /// The program writes to `len` bytes from `addr` on: their pages count as resident from here on.
    pub fn touch(&mut self, addr: Addr, len: u64) {
        self.heap.os.touch(addr.0, len);
    }

    /// Bytes of the pages that the heap or the program wrote to and that were not given back since.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.heap.os.resident_bytes()
    }

    /// Bytes of a range that lie on resident pages.
    #[must_use]
    pub fn resident_bytes_of(&self, addr: Addr, len: u64) -> u64 {
        self.heap.os.resident_of(addr.0, len)
    }

    /// Counts system calls from here on.
    pub fn forget_calls(&mut self) {
        self.heap.os.calls.set(SystemCalls::default());
    }

    /// The in-band words of a block that the policy's equality with glibc is judged by.
    #[must_use]
    pub fn block(&self, addr: Addr) -> BlockWords {
        let words = super::super::words::Words(&self.heap.os);
        let head = words.head(addr.0.wrapping_sub(16));
        let sub_heap = (head & super::super::chunk::NON_MAIN != 0).then(|| {
            let at = self.heap.heap_of(addr.0);
            let mut depth = 0;
            let mut previous = words.heap_prev(at);
            while previous != 0 {
                depth += 1;
                previous = words.heap_prev(previous);
            }
            SubHeap { arena: words.heap_arena(at), depth, size_bytes: words.heap_size(at), offset: addr.0 - at }
        });
        // SAFETY: by the bullet of the module no address can go astray.
        let usable_bytes = unsafe { self.heap.usable_size(addr) };
        BlockWords { is_mapped: head & super::super::chunk::IS_MMAPPED != 0, usable_bytes, sub_heap }
    }
}

/// What a block's words say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockWords {
    /// Whether the block has a mapping of its own.
    pub is_mapped: bool,
    /// What `malloc_usable_size` says.
    pub usable_bytes: u64,
    /// The sub-heap of a thread arena that holds the block.
    pub sub_heap: Option<SubHeap>,
}

/// A sub-heap as the header says, and a block's place in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubHeap {
    /// Number of the arena.
    pub arena: u64,
    /// Sub-heaps that the arena had before this one.
    pub depth: u64,
    /// Bytes in use of the sub-heap.
    pub size_bytes: u64,
    /// The block's distance from the sub-heap's start.
    pub offset: u64,
}
