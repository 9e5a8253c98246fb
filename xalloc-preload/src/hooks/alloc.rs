//! `malloc`, `calloc` and the aligned family, as C calls them: what is recorded is [`told`], all else is served here.

mod told;

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use xalloc_core::heap::NoSink;
use xalloc_core::units::Addr;
use xalloc_core::wire::Call;

use super::fault;
use crate::arch::Entry;
use crate::backend::{HEAP, Request};
use crate::guard::{self, Brief};
use crate::host;
use told::{allocate, allocate_inside, allocate_plain, errno_of, pointer};

pub(super) use told::{made, note, tell_ignored};

/// `malloc` but for the case that needs least; a function of its own, so that the other has no frame.
#[inline(never)]
extern "C" fn malloc_fully(bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    allocate_plain(Call::Malloc, bytes, ip, sp, fp)
}

/// C `malloc`.
pub(crate) extern "C" fn on_malloc(bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    match guard::enter_briefly() {
        Some(brief) => malloc_briefly(brief, bytes),
        None => malloc_told(bytes, ip, sp, fp),
    }
}

/// `malloc` where something is recorded, if only of some blocks; a function of its own, as [`malloc_fully`] is.
#[inline(never)]
extern "C" fn malloc_told(bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    plain_told(Call::Malloc, bytes, Entry { ip, sp, fp }, |Entry { ip, sp, fp }| malloc_fully(bytes, ip, sp, fp))
}

/// Serves a request of `malloc`'s kind where only some blocks are recorded; `otherwise` does it where all are.
#[inline(always)]
fn plain_told(call: Call, bytes: usize, entry: Entry, otherwise: impl FnOnce(Entry) -> *mut c_void) -> *mut c_void {
    let Some(mut brief) = guard::enter_sampled() else { return otherwise(entry) };
    if brief.countdown().passes(bytes as u64) {
        return malloc_briefly(brief, bytes);
    }
    let Entry { ip, sp, fp } = entry;
    plain_stopped(bytes, ip, sp, fp, brief, call)
}

/// Serves a request that was counted and did not pass. What it is given is in the registers that it comes in already.
#[cold]
#[inline(never)]
fn plain_stopped(bytes: usize, ip: usize, sp: usize, fp: usize, brief: Brief, call: Call) -> *mut c_void {
    stopped(brief, Request::plain(call, bytes), Entry { ip, sp, fp })
}

fn stopped(mut brief: Brief, request: Request, entry: Entry) -> *mut c_void {
    brief.countdown().take_back(request.bytes());
    pointer(allocate_inside(brief.into_inside(), request, entry))
}

/// `malloc` where nothing is recorded.
#[inline(always)]
pub(super) fn malloc_briefly(mut brief: Brief, bytes: usize) -> *mut c_void {
    match brief.heap().malloc_cached(brief.cache(), bytes as u64) {
        Some(addr) => block_at(brief.leave(addr)),
        None => malloc_uncached(brief, bytes),
    }
}

/// `malloc` where nothing is recorded and the thread's cache has no such block.
#[inline(never)]
fn malloc_uncached(mut brief: Brief, bytes: usize) -> *mut c_void {
    let made = brief.heap().malloc_uncached(brief.cache(), bytes as u64);
    if brief.cache().has_damage() {
        return leave_damaged(brief, Call::Malloc, Entry { ip: 0, sp: 0, fp: 0 }, made);
    }
    leave_with(brief, made)
}

/// Ends a hook that records nothing and came upon damage.
#[cold]
#[inline(never)]
pub(super) fn leave_damaged(brief: Brief, call: Call, entry: Entry, made: Option<Addr>) -> *mut c_void {
    fault::damaged_briefly(brief, entry, call);
    made.map_or(null_mut(), block_at)
}

/// Ends a hook that records nothing by what the heap said: a block, or that there is no memory.
#[inline(always)]
pub(super) fn leave_with(brief: Brief, made: Option<Addr>) -> *mut c_void {
    match made {
        Some(addr) => block_at(brief.leave(addr)),
        None => {
            drop(brief);
            host::set_errno(libc::ENOMEM);
            null_mut()
        }
    }
}

/// A block as the program gets it.
#[inline(always)]
pub(super) fn block_at(addr: Addr) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(addr.0 as usize)
}

/// C `calloc`.
pub(crate) extern "C" fn on_calloc(count: usize, size: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    match guard::enter_briefly() {
        Some(brief) => calloc_briefly(brief, count, size),
        None => calloc_told(count, size, ip, sp, fp),
    }
}

/// `calloc` where something is recorded, if only of some blocks.
#[inline(never)]
fn calloc_told(count: usize, size: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    let Some(mut brief) = guard::enter_sampled() else { return calloc_fully(count, size, ip, sp, fp) };
    if brief.countdown().passes(count.saturating_mul(size) as u64) {
        return calloc_briefly(brief, count, size);
    }
    calloc_stopped(count, size, ip, sp, fp, brief)
}

/// As [`plain_stopped`].
#[cold]
#[inline(never)]
fn calloc_stopped(count: usize, size: usize, ip: usize, sp: usize, fp: usize, brief: Brief) -> *mut c_void {
    let request = Request { call: Call::Calloc, count: count as u64, size: size as u64, align: 0 };
    stopped(brief, request, Entry { ip, sp, fp })
}

/// `calloc` where nothing is recorded.
#[inline(never)]
fn calloc_briefly(mut brief: Brief, count: usize, size: usize) -> *mut c_void {
    let made = HEAP.calloc(brief.cache(), &mut NoSink, count as u64, size as u64);
    if brief.cache().has_damage() {
        return leave_damaged(brief, Call::Calloc, Entry { ip: 0, sp: 0, fp: 0 }, made.map(|block| block.addr));
    }
    leave_with(brief, made.map(|made| made.addr))
}

/// `calloc` where something is to be recorded, or found out first.
#[inline(never)]
fn calloc_fully(count: usize, size: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    let request = Request { call: Call::Calloc, count: count as u64, size: size as u64, align: 0 };
    pointer(allocate(request, Entry { ip, sp, fp }))
}

/// `realloc(NULL, bytes)` where something is recorded, if only of some blocks.
#[inline(never)]
pub(super) extern "C" fn malloc_for_realloc(bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    plain_told(Call::Realloc, bytes, Entry { ip, sp, fp }, |Entry { ip, sp, fp }| {
        allocate_for_realloc(Call::Realloc, bytes, ip, sp, fp)
    })
}

/// `realloc(NULL, bytes)` and its kind.
#[inline(never)]
pub(super) fn allocate_for_realloc(call: Call, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    allocate_plain(call, bytes, ip, sp, fp)
}

/// C `memalign`.
pub(crate) extern "C" fn on_memalign(align: usize, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    pointer(allocate(Request::aligned(Call::Memalign, align, bytes), Entry { ip, sp, fp }))
}

/// C `aligned_alloc`.
pub(crate) extern "C" fn on_aligned_alloc(align: usize, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    pointer(allocate(Request::aligned(Call::AlignedAlloc, align, bytes), Entry { ip, sp, fp }))
}

/// C `valloc`.
pub(crate) extern "C" fn on_valloc(bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    pointer(allocate(Request::plain(Call::Valloc, bytes), Entry { ip, sp, fp }))
}

/// C `pvalloc`.
pub(crate) extern "C" fn on_pvalloc(bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    pointer(allocate(Request::plain(Call::Pvalloc, bytes), Entry { ip, sp, fp }))
}

/// C `posix_memalign`: the error is the result, and errno stays as it was.
pub(crate) extern "C" fn on_posix_memalign(
    place: &mut *mut c_void,
    align: usize,
    bytes: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> c_int {
    let request = Request::aligned(Call::PosixMemalign, align, bytes);
    match host::keeping_errno(|| allocate(request, Entry { ip, sp, fp })) {
        Ok(block) => {
            *place = block.as_ptr();
            0
        }
        Err(error) => errno_of(error),
    }
}
