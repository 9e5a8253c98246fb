//! The allocator and the recording primitives of xalloc.
#![cfg_attr(not(test), no_std)]

pub mod units;
pub mod wire;
