//! Words of a stretch of simulated addresses, as the system gives them: zeroed, and touched page by page.
//!
//! A simulated heap reads words all over the place, as the real one does, but beside a table of pages. In pages of
//! 4 KiB nearly every such read would miss the TLB, which in a virtual machine costs more than the miss of the cache;
//! where the words lie close together, as they do in the break, the kernel is asked for huge pages.
//!
//! # Safety
//! - `words` points to [`WORDS`] words of a mapping that only this slab knows, readable and writable until it is
//!   dropped.
#![allow(unsafe_code)]

use alloc::alloc::handle_alloc_error;
use core::alloc::Layout;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Bytes of a slab: a huge page of x86-64.
pub(super) const SLAB: usize = 2 << 20;
const WORDS: usize = SLAB / 8;
/// A mapping of twice the size holds an aligned slab wherever the kernel puts it; the rest is never touched.
const MAPPED: usize = 2 * SLAB;

/// How the words of a slab will be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Density {
    /// Nearly every page is.
    Dense,
    /// A word here and there.
    Sparse,
}

/// The words.
#[derive(Debug)]
pub(super) struct Slab {
    words: NonNull<[u64; WORDS]>,
    mapping: NonNull<libc::c_void>,
}

impl Slab {
    /// Words that are all zero. Ends the process as any allocation does if there is no memory.
    pub(super) fn new(density: Density) -> Slab {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that is there.
        let mapped = unsafe { libc::mmap(core::ptr::null_mut(), MAPPED, rights, flags, -1, 0) };
        let Some(mapping) = NonNull::new(mapped).filter(|_| mapped != libc::MAP_FAILED) else {
            handle_alloc_error(Layout::new::<[u64; WORDS]>());
        };
        let to_slab = mapping.align_offset(SLAB);
        // SAFETY: the mapping is page aligned and twice as long as a slab, so the aligned slab lies within it.
        let aligned = unsafe { mapping.byte_add(to_slab) };
        if density == Density::Dense {
            // SAFETY: the range is the slab's own. Advice changes no contents, and what is refused is as it was.
            unsafe { libc::madvise(aligned.as_ptr(), SLAB, libc::MADV_HUGEPAGE) };
        }
        Slab { words: aligned.cast(), mapping }
    }
}

impl Deref for Slab {
    type Target = [u64; WORDS];

    #[inline]
    fn deref(&self) -> &[u64; WORDS] {
        // SAFETY: by the bullet of the module; `self` is borrowed for as long as the words are.
        unsafe { self.words.as_ref() }
    }
}

impl DerefMut for Slab {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u64; WORDS] {
        // SAFETY: by the bullet of the module; `self` is borrowed mutably for as long as the words are.
        unsafe { self.words.as_mut() }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length by `new`, and by the bullet of the module nobody else knows it.
        unsafe { libc::munmap(self.mapping.as_ptr(), MAPPED) };
    }
}
