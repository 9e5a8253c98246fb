//! The allocator and the recording primitives of xalloc.
#![cfg_attr(not(test), no_std)]

#[cfg(any(test, feature = "simulator"))]
extern crate alloc;

pub mod global;
pub mod heap;
pub mod sys;
pub mod units;
pub mod wire;
