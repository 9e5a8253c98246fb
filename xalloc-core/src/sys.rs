//! The system, behind small safe functions: time stamps and futexes.
//!
//! Everything that depends on the processor's architecture in this crate is in [`clock`].

pub mod clock;
pub mod futex;
