//! Who serves the memory: the core's heap, or the allocator that the program would have without us.
//!
//! The choice is made once per program image, at the first call. The core's heap is the default, for it can say what it
//! does. `auto` keeps an allocator that the program brought itself: measuring a program that is tuned for another
//! malloc under this one would say nothing about it.
//!
//! # Where the choice does not hold
//! Calls that find no thread state (the library, or the thread, is being set up) or a busy one (a signal handler inside
//! a hook) are served without touching a cache or an arena: [`bare`] and [`nested`].
//!
//! # Safety
//! - A pointer that the program hands back is one of the blocks it was given by this room, or by the next allocator
//!   before; that is the program's obligation by the contract of C `free` and `realloc`.
//! - Blocks of the [`bootstrap`] arena are recognised by their address, and never given to another allocator.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use xalloc_core::heap::{
    AllocError, Damage, Heap, HeapFault, Live, NoSink, Policy, Reallocated, Served, Sink, ThreadCache,
};
use xalloc_core::session::{Options, allocator, on_error};
use xalloc_core::units::{Addr, ArenaId, StackId};
use xalloc_core::wire::{Call, Event, FaultKind};

use crate::config::config;
use crate::host;
use crate::segment::Segment;
use crate::stacks;
use crate::thread::{Own, Thread};

mod bare;
pub(crate) mod bootstrap;
mod nested;
pub(crate) mod next;

pub(crate) use bare::{allocate as allocate_bare, free as free_bare, reallocate as reallocate_bare};
pub(crate) use nested::{allocate as allocate_nested, free as free_nested, reallocate as reallocate_nested};

/// The core's heap. It takes no memory before its first allocation.
///
/// It takes no locks until the first `pthread_create`, of which `process` hears before it happens; a thread that some
/// other way makes (a raw `clone`) races with the first one in libc's own malloc as well.
// SAFETY: the guard lets one call of a thread in at a time, and a second thread is announced before it exists.
pub(crate) static HEAP: Heap<Live> = unsafe { Heap::single_threaded(Live::new()) };

static IS_CORE: AtomicBool = AtomicBool::new(false);
static ON_ERROR: AtomicU32 = AtomicU32::new(on_error::ABORT);

/// Whether the core's heap serves the program.
#[inline(always)]
pub(crate) fn is_core() -> bool {
    // Relaxed: written while booting, before the phase that callers have read.
    IS_CORE.load(Ordering::Relaxed)
}

/// What the program asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// By which function.
    pub(crate) call: Call,
    /// Number of elements: 1 but for `calloc`.
    pub(crate) count: u64,
    /// Bytes of one.
    pub(crate) size: u64,
    /// Alignment, where the function has one; else 0.
    pub(crate) align: u64,
}

impl Request {
    /// `malloc(bytes)` or a function like it.
    pub(crate) const fn plain(call: Call, bytes: usize) -> Request {
        Request { call, count: 1, size: bytes as u64, align: 0 }
    }

    /// A function with an alignment.
    pub(crate) const fn aligned(call: Call, align: usize, bytes: usize) -> Request {
        Request { call, count: 1, size: bytes as u64, align: align as u64 }
    }

    /// Whether it is `malloc`'s or `calloc`'s kind of request: any place will do.
    pub(crate) const fn is_unaligned(&self) -> bool {
        match self.call {
            Call::Malloc | Call::Calloc | Call::Realloc | Call::Reallocarray | Call::GlobalAlloc => true,
            Call::Memalign | Call::AlignedAlloc | Call::PosixMemalign | Call::Valloc | Call::Pvalloc => false,
            Call::Free | Call::FreeSized | Call::FreeAlignedSized => false,
        }
    }

    /// The bytes asked for, or the largest number if that is too many.
    pub(crate) const fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.size)
    }
}

/// A block as the program gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) addr: Addr,
    pub(crate) usable_bytes: u64,
    pub(crate) arena: ArenaId,
    /// See [`xalloc_core::wire::Event::Alloc`].
    pub(crate) arena_seq: Option<u16>,
}

impl Block {
    /// The block as a C pointer.
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        core::ptr::with_exposed_provenance_mut(self.addr.0 as usize)
    }
}

impl From<xalloc_core::heap::Allocation> for Block {
    fn from(made: xalloc_core::heap::Allocation) -> Block {
        let arena_seq = (made.served == Served::Arena).then_some(made.arena_seq);
        Block { addr: made.addr, usable_bytes: made.usable_bytes, arena: made.arena, arena_seq }
    }
}

/// How a `realloc` ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The block, where it is now.
    Block(Block),
    /// The size was 0: the block is gone.
    Freed,
    /// There is no memory; the block is as it was.
    Failed,
    /// It is no block, or the heap around it was overwritten; nothing has changed.
    Refused(HeapFault),
}

/// Chooses. Called once, while the program image boots.
pub(crate) fn choose(options: &Options) {
    let wanted = options.allocator;
    // Relaxed: written while booting, before the phase that callers have read.
    ON_ERROR.store(options.on_error, Ordering::Relaxed);
    let keeps_own = wanted == allocator::AUTO && next::is_not_libc();
    if wanted == allocator::SYSTEM || keeps_own {
        return next::resolve();
    }
    let version = host::libc_version().to_str().unwrap_or_default();
    HEAP.configure(&Policy::nearest_to(version), &config().tunables);
    IS_CORE.store(true, Ordering::Relaxed);
}

/// Has the core's heap keep the set of the program's blocks, if it serves the program. Called before its first block.
pub(crate) fn harden() {
    if is_core() {
        // Without memory for the set the heap notices what libc's would.
        let _is_hardened = HEAP.harden();
    }
}

/// Whether the core's heap serves the program and keeps no set of its blocks.
pub(crate) fn is_plain_core() -> bool {
    is_core() && !HEAP.is_hardened()
}

/// What follows the report of a pointer that was refused; see [`xalloc_core::session::on_error`].
pub(crate) fn on_error() -> u32 {
    ON_ERROR.load(Ordering::Relaxed)
}

/// Gives a block that was claimed back to the program: the call that claimed it had no effect.
pub(crate) fn restore(addr: Addr) {
    if is_core() && !bootstrap::holds(addr) {
        HEAP.restore(addr);
    }
}

/// Takes a block from the program, which hands it back; `Err`: it is none.
#[inline(always)]
pub(crate) fn claim(addr: Addr) -> Result<(), HeapFault> {
    if is_core() && !bootstrap::holds(addr) { HEAP.claim(addr) } else { Ok(()) }
}

/// Takes a block although [`claim`] found fault with its words; `Err`: it is none.
pub(crate) fn claim_faulty(addr: Addr) -> Result<(), HeapFault> {
    if is_core() && !bootstrap::holds(addr) { HEAP.claim_faulty(addr) } else { Ok(()) }
}

/// Allocates.
#[inline(always)]
pub(crate) fn allocate<S: Sink>(request: &Request, cache: &mut ThreadCache, sink: &mut S) -> Result<Block, AllocError> {
    if !is_core() {
        return next::allocate(request);
    }
    let Request { call, count, size, align } = *request;
    let plain = |made: Option<_>| made.ok_or(AllocError::NoMemory);
    let made = match call {
        Call::Malloc | Call::Realloc | Call::Reallocarray | Call::GlobalAlloc => plain(HEAP.malloc(cache, sink, size)),
        Call::Calloc => plain(HEAP.calloc(cache, sink, count, size)),
        Call::Memalign => HEAP.memalign(cache, sink, align, size),
        Call::AlignedAlloc => HEAP.aligned_alloc(cache, sink, align, size),
        Call::PosixMemalign => HEAP.posix_memalign(cache, sink, align, size),
        Call::Valloc => HEAP.valloc(cache, sink, size),
        Call::Pvalloc => HEAP.pvalloc(cache, sink, size),
        Call::Free | Call::FreeSized | Call::FreeAlignedSized => Err(AllocError::NoMemory),
    };
    made.map(Block::from)
}

/// Frees `addr`, which is not null and was claimed. `Err`: it is none, or the heap around it was overwritten.
///
/// # Safety
/// - The program handed it back (module, "Safety").
#[inline(always)]
pub(crate) unsafe fn free<S: Sink>(cache: &mut ThreadCache, sink: &mut S, addr: Addr) -> Result<(), HeapFault> {
    if bootstrap::holds(addr) {
        return Ok(());
    }
    if !is_core() {
        // SAFETY: by the contract.
        unsafe { next::free(addr) };
        return Ok(());
    }
    // SAFETY: by the contract.
    unsafe { HEAP.free_claimed(cache, sink, addr) }
}

/// Changes the size of the block `addr`, which is not null and was claimed.
///
/// # Safety
/// - The program handed it back (module, "Safety").
#[inline(always)]
pub(crate) unsafe fn reallocate<S: Sink>(
    cache: &mut ThreadCache,
    sink: &mut S,
    addr: Addr,
    call: Call,
    bytes: u64,
) -> Outcome {
    if bootstrap::holds(addr) {
        let request = Request { call, count: 1, size: bytes, align: 0 };
        // SAFETY: the block is of the arena, whose sizes are known, and the new one is at least as large as is copied.
        return unsafe { bootstrap::leave(addr, bytes, || allocate(&request, cache, sink).ok()) };
    }
    if !is_core() {
        // SAFETY: by the contract.
        return unsafe { next::reallocate(addr, bytes) };
    }
    // SAFETY: by the contract.
    match unsafe { HEAP.realloc_claimed(cache, sink, addr, bytes) } {
        Ok(Reallocated::InPlace(made) | Reallocated::Moved(made)) => Outcome::Block(made.into()),
        Ok(Reallocated::Freed) => Outcome::Freed,
        Ok(Reallocated::Failed) => Outcome::Failed,
        Err(fault) => Outcome::Refused(fault),
    }
}

/// Bytes of the block `addr`, not null, that the program may use.
///
/// # Safety
/// - The block is live.
pub(crate) unsafe fn usable_bytes(addr: Addr) -> u64 {
    if bootstrap::holds(addr) {
        // SAFETY: a block of the arena.
        return unsafe { bootstrap::usable_bytes(addr) };
    }
    if is_core() {
        // SAFETY: by the contract.
        unsafe { HEAP.usable_size(addr) }
    } else {
        // SAFETY: by the contract.
        unsafe { next::usable_bytes(addr) }
    }
}

/// Frees what nested calls left. Their frees are recorded already.
#[cold]
pub(crate) fn free_deferred(cache: &mut ThreadCache, thread: &Thread) {
    while let Some(block) = thread.take_deferred() {
        // A block that cannot be freed, for the heap around it was overwritten, stays where it is.
        // SAFETY: the program handed the block to a nested `free`, which claimed it.
        let _is_freed = unsafe { free(cache, &mut NoSink, Addr(block as u64)) };
    }
}

/// Gives a thread's cache back; its steps go to the thread's stream.
pub(crate) fn thread_exit(own: &mut Own, segment: Option<&'static Segment>) {
    if !is_core() {
        return;
    }
    match segment {
        Some(segment) => {
            let Own { cache, stream, .. } = own;
            HEAP.thread_exit(cache, &mut stacks::Unattributed::new(segment, stream));
        }
        None => HEAP.thread_exit(&mut own.cache, &mut NoSink),
    }
    if let Some(Damage { fault, addr }) = own.cache.take_damage() {
        if let Some(segment) = segment {
            let event = Event::Fault { addr, kind: FaultKind::CorruptedLists };
            own.stream.event(segment, segment.now(), StackId::NONE, event);
        }
        if on_error() != on_error::REPORT {
            host::abort_with(HEAP.message(fault));
        }
    }
}

/// Puts the heap in order after a fork, in the child.
pub(crate) fn forked(cache: &mut ThreadCache) {
    if is_core() {
        // SAFETY: the child boots with its one thread, which is in no hook (`lifecycle::make_ready`).
        unsafe { HEAP.fork_child(cache) };
    }
}
