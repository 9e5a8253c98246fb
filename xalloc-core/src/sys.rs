//! The system, behind small safe functions and types: time stamps, errno, futexes, a lock that sleeps in the kernel, and places
//! that threads hold and leave.
//!
//! Everything that depends on the processor's architecture in this crate is in [`clock`] and [`mod@prefetch`].

#[cfg(not(xalloc_loom))]
pub mod clock;
pub mod errno;
pub mod futex;
pub mod lock;
mod prefetch;
pub mod tenure;

pub use prefetch::prefetch;
