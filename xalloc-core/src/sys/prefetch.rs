//! Asking the processor for memory that will be read soon.
//!
//! # Safety
//! - A prefetch reads nothing that the program can see, and one of an address that cannot be read does nothing.
#![allow(unsafe_code)]

/// Begins to fetch the cache line of a value; it is wanted in some hundred instructions.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the bullet of the module; SSE is part of every x86-64 processor.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(core::ptr::from_ref(value).cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
