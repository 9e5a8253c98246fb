//! Memory: mappings of our own, and questions about anybody's.
//!
//! # Safety
//! - `syscall` is given what the essay of [`super`] asks for.
//! - A mapping that is made here is placed by the kernel, unless the caller says where and answers for it.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_long, c_void};
use core::ops::Range;
use core::ptr::NonNull;

use xalloc_core::units::PAGE_BYTES;

use super::{errno, keeping_errno, own, word};

/// Maps `bytes` of zeroed memory of our own, for ever; over what is at `place`, if that is given.
///
/// # Safety
/// - `place` is null, or the start of a mapping of at least `bytes` that is the caller's to replace.
pub(crate) unsafe fn map_anonymous(bytes: usize, place: *mut u8) -> Option<NonNull<u8>> {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: by the contract of this function.
    let made = unsafe { libc::syscall(libc::SYS_mmap, place, bytes, word(rights), word(flags), word(-1), 0_usize) };
    let made = mapped(made)?;
    own::enter(made, bytes);
    Some(made)
}

/// Gives a mapping back.
///
/// # Safety
/// - The mapping is the caller's, and nobody uses it any more.
pub(crate) unsafe fn unmap(memory: NonNull<u8>, bytes: usize) {
    own::forget(memory);
    // SAFETY: by the contract.
    unsafe { libc::syscall(libc::SYS_munmap, memory.as_ptr(), bytes) };
}

/// Changes what may be done with `pages`. False: the kernel does not allow it.
///
/// # Safety
/// - They are mapped, and nobody relies on what is changed.
pub(crate) unsafe fn protect(pages: &Range<u64>, rights: c_int) -> bool {
    let bytes = pages.end - pages.start;
    // SAFETY: by the contract.
    unsafe { libc::syscall(libc::SYS_mprotect, pages.start, bytes, word(rights)) == 0 }
}

/// Makes the kernel touch every page of `place`, which changes nothing in it. False: touching one would have been a
/// SIGBUS.
///
/// The kernel adds nothing to a word of each page, as a part of waking nobody. (`MADV_POPULATE_WRITE` would do it at
/// once, but is younger than the systems that we run on.)
///
/// # Safety
/// - `bytes` from `place`, which begins at a page, are a mapping that may be written to, and stay one.
pub(crate) unsafe fn populate(place: NonNull<u8>, bytes: usize) -> bool {
    const PAGE: usize = PAGE_BYTES as usize;
    // See futex(2): the operation in the top four bits, here FUTEX_OP_ADD of 0; the comparison decides on waking only.
    const ADD_NOTHING: usize = 1 << 28;
    keeping_errno(|| {
        (0..bytes).step_by(PAGE).all(|at| {
            let word = place.as_ptr().wrapping_add(at);
            // SAFETY: by the contract; the addition is atomic, so it takes no other's change back.
            let answer = unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word,
                    libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG,
                    0_usize,
                    0_usize,
                    word,
                    ADD_NOTHING,
                )
            };
            answer >= 0
        })
    })
}

/// Asks the kernel to hand a forked child these pages as zeroes. False: it cannot (before Linux 4.14).
pub(crate) fn wipe_on_fork(page: *mut c_void, bytes: usize) -> bool {
    // SAFETY: changes no contents in this process.
    unsafe { libc::syscall(libc::SYS_madvise, page, bytes, libc::MADV_WIPEONFORK) == 0 }
}

/// Whether the eight bytes at `address`, a multiple of eight, can be read.
///
/// The kernel is asked to change the mask of signals by them, in a way that it does not know: it reads them first.
pub(crate) fn is_readable(address: usize) -> bool {
    const NO_WAY: usize = usize::MAX;
    // SAFETY: the kernel answers with an error where it cannot read, and with another where it can.
    keeping_errno(|| unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, NO_WAY, address, 0_usize, 8_usize);
        // By any other error the call was refused, by a filter say, and nothing is known.
        errno() == libc::EINVAL
    })
}

/// Whether the page at `start` is mapped.
pub(crate) fn is_mapped(start: u64) -> bool {
    let mut resident = 0_u8;
    // SAFETY: first bullet of the module; mincore writes one byte a page, and asks nothing of the page.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_mincore, start, 1_usize, &raw mut resident) == 0 })
}

/// Which pages from `at` on are in memory, in the lowest bit of each byte; `None` where the kernel does not say.
pub(crate) fn residency<const PAGES: usize>(at: u64, pages: usize) -> Option<[u8; PAGES]> {
    let mut resident = [0; PAGES];
    let bytes = pages.min(PAGES) * 4096;
    // SAFETY: first bullet of the module; mincore writes one byte a page, and asks nothing of the pages.
    let answer = unsafe { libc::syscall(libc::SYS_mincore, at, bytes, resident.as_mut_ptr()) };
    (answer == 0).then_some(resident)
}

/// The memory that a call of `mmap` answered with.
pub(super) fn mapped(answer: c_long) -> Option<NonNull<u8>> {
    if answer == -1 {
        return None;
    }
    NonNull::new(core::ptr::with_exposed_provenance_mut(answer as usize))
}
