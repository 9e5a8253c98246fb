//! The system, behind small safe functions and types: time stamps, futexes, and a lock that sleeps in the kernel.
//!
//! Everything that depends on the processor's architecture in this crate is in [`clock`].

pub mod clock;
pub mod futex;
pub mod lock;
