//! The calling thread's errno, kept out of the way of system calls that are not the program's.
//!
//! # Safety
//! - libc gives every thread its errno; the pointer is valid for the life of the thread, and other threads have their own.
#![allow(unsafe_code)]

/// Runs `call`, and leaves errno as it was before.
#[inline(always)]
pub fn preserving<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: the function only returns the place.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: by the bullet of the module.
    let before = unsafe { place.read() };
    let result = call();
    // SAFETY: by the bullet of the module.
    unsafe { place.write(before) };
    result
}
