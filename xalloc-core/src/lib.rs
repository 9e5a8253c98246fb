//! The allocator and the recording primitives of xalloc.
#![cfg_attr(not(test), no_std)]

#[cfg(any(test, feature = "simulator"))]
extern crate alloc;

#[cfg(not(xalloc_loom))]
pub mod global;
#[cfg(not(xalloc_loom))]
pub mod heap;
pub mod intern;
pub mod primitive;
#[cfg(not(xalloc_loom))]
pub mod reach;
pub mod ring;
#[cfg(not(xalloc_loom))]
pub mod session;
#[cfg(not(xalloc_loom))]
pub mod sys;
pub mod units;
pub mod wire;
