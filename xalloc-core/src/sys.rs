//! The system, behind small safe functions and types: time stamps, errno, futexes, a lock that sleeps in the kernel, and places
//! that threads hold and leave.
//!
//! Everything that depends on the processor's architecture in this crate is in [`clock`].

#[cfg(not(xalloc_loom))]
pub mod clock;
pub mod errno;
pub mod futex;
pub mod lock;
pub mod tenure;
