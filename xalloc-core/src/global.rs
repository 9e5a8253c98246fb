//! The heap as a Rust program's global allocator, recorded or not.
//!
//! ```
//! use xalloc_core::global::Xalloc;
//!
//! #[global_allocator]
//! static HEAP: Xalloc = Xalloc::new();
//!
//! let squares: Vec<u64> = (0..1000).map(|n| n * n).collect();
//! assert!(HEAP.heap().arena_count() >= 1);
//! # drop(squares);
//! ```
//!
//! Each thread's cache is found by a pthread key and lives in pages of its own. At the end of a thread the key's
//! destructor gives cache and arena back; it asks for another round until the last, so that what other destructors
//! free still finds its cache.
//!
//! # What happens under a recording
//! Then a library is preloaded that has this same heap behind C's `malloc`, with all that records it. A process with two
//! heaps would show half of itself, so an [`Xalloc`] looks once for that library, and where it is there hands every call
//! to C's functions: blocks, stacks, threads and checks are then those of any other program, and the heap here stays
//! empty. It costs a load and a branch in a program that is not recorded.
//!
//! # Why a key and not `thread_local!`
//! A thread-local with a destructor registers it by an allocation, which would enter the allocator again before it has
//! a cache; and Rust's own are gone before those of C libraries run.
//!
//! # Why locks from the first call on
//! Nobody tells a global allocator about the first `pthread_create`, so it takes its arenas' locks always. An uncontended
//! one costs a few nanoseconds, and only where the cache does not serve.
//!
//! # Why one heap for every [`Xalloc`]
//! Threads keep a way back to the heap until they end, and a process has one break. So the heap is a static of this
//! module and an [`Xalloc`] only a name for it: it may be made, moved and dropped wherever its owner likes.
//!
//! # Safety
//! - A value of the key is null or a `Local` that this module made, that only its thread uses, and that lives in pages
//!   that are never unmapped.
//! - Blocks come from the heap with the size and alignment that their layout asks for.
//! - Which of both serves never changes, for the loader preloads nothing later: a block goes back to where it came from.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

use crate::heap::{Heap, HeapFault, Live, NoSink, Os, Policy, Reallocated, ThreadCache, Tunables};
use crate::units::Addr;

/// Alignment that every block has.
const USUAL_ALIGN: usize = 16;
/// Rounds of key destructors that POSIX promises (`PTHREAD_DESTRUCTOR_ITERATIONS`); the last one gives the cache back.
const DESTRUCTOR_ROUNDS: u32 = 4;
/// Bytes that thread states are taken from at once.
const SLAB_BYTES: u64 = 64 << 10;

/// Who serves: a value of [`server`].
static SERVER: AtomicU8 = AtomicU8::new(server::NOT_LOOKED_FOR);

/// Values of [`SERVER`].
mod server {
    pub(super) const NOT_LOOKED_FOR: u8 = 0;
    /// The heap of this module.
    pub(super) const OWN: u8 = 1;
    /// C's functions, which are the preloaded library's.
    pub(super) const LIBRARY: u8 = 2;
}

/// Whether C's functions are the preloaded library's, and serve.
#[inline(always)]
fn is_preloaded() -> bool {
    // Relaxed: what is found never changes, so two threads that look at once find the same.
    match SERVER.load(Ordering::Relaxed) {
        server::OWN => false,
        server::LIBRARY => true,
        _ => look_for_library(),
    }
}

#[cold]
#[inline(never)]
fn look_for_library() -> bool {
    // SAFETY: looks a name up that ends with a NUL. What it allocates comes from C's `malloc`.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__xalloc_marker".as_ptr()) };
    if found.is_null() {
        // SAFETY: takes nothing. It takes back that a name was not found, of which the program never asked.
        unsafe { libc::dlerror() };
    }
    SERVER.store(if found.is_null() { server::OWN } else { server::LIBRARY }, Ordering::Relaxed);
    !found.is_null()
}

/// What a thread has of its own.
struct Local {
    cache: ThreadCache,
    /// Rounds of key destructors that have seen this thread.
    rounds: u32,
    /// Next state that waits for a thread.
    next: *mut Local,
}

/// The heap as a global allocator.
#[derive(Clone, Copy, Debug)]
pub struct Xalloc {
    _private: (),
}

/// The one heap behind every [`Xalloc`].
static SHARED: Shared = Shared {
    heap: Heap::new(Live::new()),
    key: AtomicU64::new(0),
    pool: AtomicPtr::new(null_mut()),
    pool_lock: crate::sys::lock::Lock::new(),
};

/// The heap, and the states of its threads.
struct Shared {
    heap: Heap<Live>,
    /// The pthread key plus one; 0 before there is one.
    key: AtomicU64,
    /// States of threads that ended, a stack under `pool_lock`.
    pool: AtomicPtr<Local>,
    pool_lock: crate::sys::lock::Lock,
}

impl Xalloc {
    /// The process's heap, for a `static` with `#[global_allocator]` or for calls of one's own.
    #[must_use]
    pub const fn new() -> Xalloc {
        Xalloc { _private: () }
    }

    /// The heap itself, to walk or to validate; in a recorded program it is empty, because the library's serves.
    #[must_use]
    pub fn heap(&self) -> &'static Heap<Live> {
        &SHARED.heap
    }
}

impl Shared {
    /// Runs `work` with the calling thread's cache.
    #[inline]
    fn with_cache<R>(&self, work: impl FnOnce(&mut ThreadCache) -> R) -> R {
        let key = self.key.load(Ordering::Relaxed);
        let mut local: *mut Local = null_mut();
        if key != 0 {
            // SAFETY: the key was created by `make_key` and is never deleted.
            local = unsafe { libc::pthread_getspecific((key - 1) as libc::pthread_key_t) }.cast();
        }
        if local.is_null() {
            local = self.make_local();
        }
        // SAFETY: by the first bullet of the module it is this thread's alone, and no call below comes back here.
        let local = unsafe { local.as_mut() };
        match local {
            Some(local) => {
                let done = work(&mut local.cache);
                if let Some(damage) = local.cache.take_damage() {
                    die(damage.fault);
                }
                done
            }
            // No memory for a state: the thread goes without a cache, for this call.
            None => work(&mut ThreadCache::new()),
        }
    }

    /// The key, created by the first call. The very first caller also learns the libc's rules.
    fn make_key(&self) -> Option<libc::pthread_key_t> {
        self.pool_lock.acquire(self.heap.system().thread_id());
        let mut key = self.key.load(Ordering::Relaxed);
        if key == 0 {
            self.heap.configure(&libc_policy(), &Tunables::NONE);
            let mut fresh: libc::pthread_key_t = 0;
            // SAFETY: `fresh` is writable, and the destructor fits the values that are set.
            if unsafe { libc::pthread_key_create(&raw mut fresh, Some(end_of_thread)) } == 0 {
                key = u64::from(fresh) + 1;
                self.key.store(key, Ordering::Relaxed);
            }
            // SAFETY: the handler fits the child's side of a fork. Without it a child has no more than other threads'
            // locks to lose, so a failure is not fatal.
            unsafe { libc::pthread_atfork(None, None, Some(after_fork_in_child)) };
        }
        self.pool_lock.release();
        key.checked_sub(1).map(|key| key as libc::pthread_key_t)
    }

    /// Makes the calling thread's state, or null if there is no memory.
    #[cold]
    #[inline(never)]
    fn make_local(&self) -> *mut Local {
        let Some(key) = self.make_key() else { return null_mut() };
        let local = self.take_local();
        if !local.is_null() {
            let fresh = Local { cache: ThreadCache::new(), rounds: 0, next: null_mut() };
            // SAFETY: `take_local` returned storage for a state that nobody else has.
            unsafe { local.write(fresh) };
            // SAFETY: the key exists, and the value is what its destructor expects.
            unsafe { libc::pthread_setspecific(key, local.cast()) };
        }
        local
    }

    /// Takes storage for a state from the pool, which is filled from the system.
    fn take_local(&self) -> *mut Local {
        self.pool_lock.acquire(self.heap.system().thread_id());
        if self.pool.load(Ordering::Relaxed).is_null()
            && let Some(slab) = self.heap.system().map(SLAB_BYTES)
        {
            let slab: *mut Local = core::ptr::with_exposed_provenance_mut(slab as usize);
            for index in 0..SLAB_BYTES as usize / size_of::<Local>() {
                // SAFETY: the index is within the slab.
                let local = unsafe { slab.add(index) };
                self.put_local(local);
            }
        }
        let local = self.pool.load(Ordering::Relaxed);
        if !local.is_null() {
            // SAFETY: what is in the pool is a state that no thread uses; the pool is locked.
            let next = unsafe { (*local).next };
            self.pool.store(next, Ordering::Relaxed);
        }
        self.pool_lock.release();
        local
    }

    /// Puts storage for a state into the pool, which is locked.
    fn put_local(&self, local: *mut Local) {
        // SAFETY: the storage is a slab's and no thread's; the pool is locked.
        unsafe { (*local).next = self.pool.load(Ordering::Relaxed) };
        self.pool.store(local, Ordering::Relaxed);
    }
}

impl Default for Xalloc {
    fn default() -> Xalloc {
        Xalloc::new()
    }
}

/// The rules of the running libc, or the default ones if it is unknown.
fn libc_policy() -> Policy {
    // SAFETY: the function returns a constant C string.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: as above; it lives as long as the process.
    let version = unsafe { core::ffi::CStr::from_ptr(version) };
    Policy::nearest_to(version.to_str().unwrap_or_default())
}

/// In a forked child: locks of threads that were left behind are given up.
unsafe extern "C" fn after_fork_in_child() {
    SHARED.pool_lock.abandon();
    // SAFETY: a child of fork has one thread, and a signal handler that forks inside of its own allocator is not served.
    SHARED.with_cache(|cache| unsafe { SHARED.heap.fork_child(cache) });
}

/// The key's destructor.
extern "C" fn end_of_thread(value: *mut c_void) {
    let local: *mut Local = value.cast();
    // SAFETY: by the first bullet of the module it is the ending thread's state.
    let Some(state) = (unsafe { local.as_mut() }) else { return };
    state.rounds += 1;
    if state.rounds < DESTRUCTOR_ROUNDS {
        let key = SHARED.key.load(Ordering::Relaxed) - 1;
        // SAFETY: the key exists; a value set inside a destructor asks for another round.
        unsafe { libc::pthread_setspecific(key as libc::pthread_key_t, value) };
        return;
    }
    SHARED.heap.thread_exit(&mut state.cache, &mut NoSink);
    SHARED.pool_lock.acquire(SHARED.heap.system().thread_id());
    SHARED.put_local(local);
    SHARED.pool_lock.release();
}

/// Ends the process as glibc does when the program damaged the heap.
#[cold]
fn die(fault: HeapFault) -> ! {
    for text in [SHARED.heap.message(fault), "\n"] {
        // SAFETY: the text is readable for its length.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: abort has no precondition.
    unsafe { libc::abort() }
}

// SAFETY: by the second bullet of the module; no function here panics or unwinds.
unsafe impl GlobalAlloc for Xalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_preloaded() {
            let block = if layout.align() <= USUAL_ALIGN {
                // SAFETY: any size may be asked for.
                unsafe { libc::malloc(layout.size()) }
            } else {
                // SAFETY: as above, and the alignment of a layout is a power of two.
                unsafe { libc::memalign(layout.align(), layout.size()) }
            };
            return block.cast();
        }
        let (bytes, align) = (layout.size() as u64, layout.align());
        SHARED
            .with_cache(|cache| {
                if align <= USUAL_ALIGN {
                    SHARED.heap.malloc(cache, &mut NoSink, bytes)
                } else {
                    SHARED.heap.memalign(cache, &mut NoSink, align as u64, bytes).ok()
                }
            })
            .map_or(null_mut(), |block| block.as_ptr())
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        if is_preloaded() {
            // SAFETY: by the contract and the third bullet of the module it is a block of C's `malloc`.
            return unsafe { libc::free(block.cast()) };
        }
        let addr = Addr(block.expose_provenance() as u64);
        // SAFETY: by the contract of `GlobalAlloc` the block came from `alloc` and is used no more.
        let done = SHARED.with_cache(|cache| unsafe { SHARED.heap.free(cache, &mut NoSink, addr) });
        if let Err(fault) = done {
            die(fault);
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= USUAL_ALIGN {
            if is_preloaded() {
                // SAFETY: any size may be asked for.
                return unsafe { libc::calloc(1, layout.size()) }.cast();
            }
            return SHARED
                .with_cache(|cache| SHARED.heap.calloc(cache, &mut NoSink, 1, layout.size() as u64))
                .map_or(null_mut(), |block| block.as_ptr());
        }
        // SAFETY: the contract is this function's.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block has at least that many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if layout.align() > USUAL_ALIGN {
            return self.move_aligned(block, layout, new_size);
        }
        if is_preloaded() {
            // SAFETY: by the contract and the third bullet of the module it is a block of C's `malloc`.
            return unsafe { libc::realloc(block.cast(), new_size) }.cast();
        }
        let addr = Addr(block.expose_provenance() as u64);
        // SAFETY: by the contract of `GlobalAlloc` the block came from `alloc` and is not used meanwhile.
        let done = SHARED.with_cache(|cache| unsafe { SHARED.heap.realloc(cache, &mut NoSink, addr, new_size as u64) });
        match done {
            Ok(Reallocated::InPlace(block) | Reallocated::Moved(block)) => block.as_ptr(),
            Ok(Reallocated::Freed | Reallocated::Failed) => null_mut(),
            Err(fault) => die(fault),
        }
    }
}

impl Xalloc {
    /// A `realloc` of a block of large alignment, which C's would not keep.
    fn move_aligned(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        // SAFETY: the layout has the size that the caller of `realloc` vouched for, which is not 0.
        let to = unsafe { self.alloc(new_layout) };
        if !to.is_null() {
            // SAFETY: both blocks have at least the smaller size, and the new one overlaps none.
            unsafe { core::ptr::copy_nonoverlapping(block, to, layout.size().min(new_size)) };
            // SAFETY: the block came from `alloc` with this layout and is used no more.
            unsafe { self.dealloc(block, layout) };
        }
        to
    }
}
