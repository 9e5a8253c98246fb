//! The functions behind us: those that the program would call if this library were not there.
//!
//! They are looked up by `dlsym(RTLD_NEXT)`. The allocator's are resolved while the program image boots, the others
//! when they are first called; a function that the system does not have is null.
//!
//! # Safety
//! - A symbol of a libc function's name, found in the libraries behind us, has that function's C type.
//! - A table entry is null or what `dlsym` returned for its name.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use xalloc_core::heap::AllocError;
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::Call;

use super::{Block, Outcome, Request};
use crate::modules::Image;

/// Defines the table: a function's place and its name.
macro_rules! symbols {
    ($($name:ident = $text:literal,)*) => {
        /// A function behind us.
        #[allow(non_camel_case_types, reason = "each is the C function of that name")]
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Symbol { $($name,)* }

        const ALL: &[Symbol] = &[$(Symbol::$name,)*];
        const NAMES: &[&CStr] = &[$($text,)*];
        static ADDRESSES: [AtomicPtr<c_void>; NAMES.len()] = [const { AtomicPtr::new(null_mut()) }; NAMES.len()];
    };
}

symbols! {
    malloc = c"malloc", calloc = c"calloc", realloc = c"realloc", free = c"free", memalign = c"memalign",
    aligned_alloc = c"aligned_alloc", posix_memalign = c"posix_memalign", valloc = c"valloc", pvalloc = c"pvalloc",
    malloc_usable_size = c"malloc_usable_size", malloc_trim = c"malloc_trim", mallopt = c"mallopt",
    mallinfo2 = c"mallinfo2", malloc_info = c"malloc_info", malloc_stats = c"malloc_stats",
    brk = c"brk", dlclose = c"dlclose", dlopen = c"dlopen", dlmopen = c"dlmopen", pthread_create = c"pthread_create", quick_exit = c"quick_exit",
    exit = c"exit", abort = c"abort", __assert_fail = c"__assert_fail",
    __libc_stack_end = c"__libc_stack_end",
    execvpe = c"execvpe", posix_spawn = c"posix_spawn", posix_spawnp = c"posix_spawnp",
}

/// The address of a function, or null; looked up when it is not known yet.
#[inline(always)]
pub(crate) fn address(symbol: Symbol) -> *mut c_void {
    let known = ADDRESSES.get(symbol as usize).map_or(null_mut(), |place| place.load(Ordering::Relaxed));
    if known.is_null() { look_up(symbol) } else { known }
}

#[cold]
#[inline(never)]
fn look_up(symbol: Symbol) -> *mut c_void {
    let (Some(name), Some(place)) = (NAMES.get(symbol as usize), ADDRESSES.get(symbol as usize)) else {
        return null_mut();
    };
    // SAFETY: the name ends with a NUL. The caller that decides what is next is this function.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    place.store(found, Ordering::Relaxed);
    found
}

/// Resolves the allocator. Called while the program image boots; what `dlsym` allocates comes from the bootstrap arena.
pub(super) fn resolve() {
    for symbol in [
        Symbol::free,
        Symbol::calloc,
        Symbol::realloc,
        Symbol::memalign,
        Symbol::aligned_alloc,
        Symbol::posix_memalign,
        Symbol::valloc,
        Symbol::pvalloc,
        Symbol::malloc_usable_size,
        Symbol::malloc,
    ] {
        look_up(symbol);
    }
}

/// Resolves every function of the table that is not known yet.
pub(crate) fn resolve_all() {
    ALL.iter().for_each(|&symbol| {
        address(symbol);
    });
}

/// The address of what is behind us by that name, which some library there defines.
pub(crate) fn behind(name: &CStr) -> u64 {
    // SAFETY: the name ends with a NUL. The caller that decides what is next is this function.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.expose_provenance() as u64
}

/// libc's image.
pub(crate) fn libc_image() -> Option<Image<'static>> {
    // A function that nobody stands in front of.
    let own = core::ptr::with_exposed_provenance_mut(behind(c"gnu_get_libc_version") as usize);
    let start = base_of(own).expose_provenance() as u64;
    // SAFETY: where the loader says that the module of libc's function begins; libc is never unloaded.
    (start != 0).then(|| unsafe { Image::at(start) })?
}

/// Whether [`resolve`] is done.
pub(super) fn is_resolved() -> bool {
    ADDRESSES.get(Symbol::malloc as usize).is_some_and(|place| !place.load(Ordering::Relaxed).is_null())
}

/// Whether the `malloc` behind us is not libc's: the program is linked with an allocator of its own.
pub(super) fn is_not_libc() -> bool {
    let malloc = base_of(look_up(Symbol::malloc));
    let libc = base_of(look_up(Symbol::posix_spawn));
    ADDRESSES.iter().for_each(|place| place.store(null_mut(), Ordering::Relaxed));
    !malloc.is_null() && malloc != libc
}

fn base_of(address: *mut c_void) -> *mut c_void {
    let mut info = libc::Dl_info {
        dli_fname: core::ptr::null(),
        dli_fbase: null_mut(),
        dli_sname: core::ptr::null(),
        dli_saddr: null_mut(),
    };
    // SAFETY: fills `info`, whatever the address.
    unsafe { libc::dladdr(address, &mut info) };
    info.dli_fbase
}

/// Calls a function of the table, or gives `$or` if the system does not have it.
macro_rules! call {
    ($symbol:ident as fn($($type:ty),*) -> $result:ty, ($($argument:expr),*), or $or:expr) => {{
        let address = $crate::backend::next::address($crate::backend::next::Symbol::$symbol);
        if address.is_null() {
            $or
        } else {
            // SAFETY: first bullet of the module `next`: the function has the C type of its name.
            let function = unsafe {
                core::mem::transmute::<*mut core::ffi::c_void, unsafe extern "C" fn($($type),*) -> $result>(address)
            };
            // SAFETY: the arguments are the program's own, or allowed by the contract of the caller.
            unsafe { function($($argument),*) }
        }
    }};
}
pub(crate) use call;

/// Allocates by the function of the same name.
#[inline(always)]
pub(super) fn allocate(request: &Request) -> Result<Block, AllocError> {
    let Request { call, count, size, align } = *request;
    let (count, size, align) = (count as usize, size as usize, align as usize);
    let block = match call {
        Call::Malloc | Call::GlobalAlloc => call!(malloc as fn(usize) -> *mut c_void, (size), or null_mut()),
        Call::Calloc => call!(calloc as fn(usize, usize) -> *mut c_void, (count, size), or null_mut()),
        Call::Realloc | Call::Reallocarray => {
            call!(realloc as fn(*mut c_void, usize) -> *mut c_void, (null_mut(), size), or null_mut())
        }
        Call::Memalign => call!(memalign as fn(usize, usize) -> *mut c_void, (align, size), or null_mut()),
        Call::AlignedAlloc => call!(aligned_alloc as fn(usize, usize) -> *mut c_void, (align, size), or null_mut()),
        Call::Valloc => call!(valloc as fn(usize) -> *mut c_void, (size), or null_mut()),
        Call::Pvalloc => call!(pvalloc as fn(usize) -> *mut c_void, (size), or null_mut()),
        Call::PosixMemalign => {
            let mut block = null_mut();
            let answer = call!(
                posix_memalign as fn(*mut *mut c_void, usize, usize) -> c_int, (&mut block, align, size),
                or libc::ENOMEM
            );
            if answer == libc::EINVAL {
                return Err(AllocError::BadAlignment);
            }
            if answer == 0 { block } else { null_mut() }
        }
        Call::Free | Call::FreeSized | Call::FreeAlignedSized => null_mut(),
    };
    if block.is_null() {
        let is_bad = crate::host::errno() == libc::EINVAL && align != 0;
        return Err(if is_bad { AllocError::BadAlignment } else { AllocError::NoMemory });
    }
    Ok(describe(block))
}

fn describe(block: *mut c_void) -> Block {
    let usable_bytes = call!(malloc_usable_size as fn(*mut c_void) -> usize, (block), or 0) as u64;
    let addr = Addr(block.expose_provenance() as u64);
    Block { addr, usable_bytes, arena: ArenaId::NONE, arena_seq: None }
}

fn pointer(addr: Addr) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(addr.0 as usize)
}

/// C `free`.
///
/// # Safety
/// - `addr` is a block of the next allocator, handed back by the program.
#[inline(always)]
pub(super) unsafe fn free(addr: Addr) {
    call!(free as fn(*mut c_void) -> (), (pointer(addr)), or());
}

/// C `realloc`.
///
/// # Safety
/// - As for [`free`].
pub(super) unsafe fn reallocate(addr: Addr, bytes: u64) -> Outcome {
    let new = call!(realloc as fn(*mut c_void, usize) -> *mut c_void, (pointer(addr), bytes as usize), or null_mut());
    if !new.is_null() {
        Outcome::Block(describe(new))
    } else if bytes == 0 {
        Outcome::Freed
    } else {
        Outcome::Failed
    }
}

/// C `malloc_usable_size`.
///
/// # Safety
/// - The block is live.
pub(super) unsafe fn usable_bytes(addr: Addr) -> u64 {
    call!(malloc_usable_size as fn(*mut c_void) -> usize, (pointer(addr)), or 0) as u64
}

/// The address of a function as a value that a stub can jump to.
pub(crate) fn target(symbol: Symbol) -> usize {
    address(symbol).expose_provenance()
}
