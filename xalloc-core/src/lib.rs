//! The allocator and the recording primitives of xalloc: what runs inside a recorded program, and what its recorder must
//! know of it.
//!
//! # Rooms, bottom to top
//! | room | subject |
//! |---|---|
//! | `primitive`, `units`, `fnv`, `sampling` | atomics that loom can replace; addresses, sizes and ids as types; a hash; which requests stand for all |
//! | `wire` | an event in 32 bytes |
//! | `sys` | time stamps, futexes, a lock, places that threads hold and leave |
//! | `ring`, `intern` | shared memory between a program's threads and the recorder: events, call stacks |
//! | `reach` | which blocks a program can still get at |
//! | `session` | how the two find each other, and where everything lies in a segment |
//! | `heap` | malloc as glibc places it, with every step told |
//! | `global` | the heap as a Rust program's allocator |
//! | `client` | what a Rust program may say to the recording that it is part of |
//!
//! # Why one crate
//! The library in the program and the recorder beside it must agree on every byte that they share, and what is simulated
//! must be what runs. So both are built of this crate, which has no std, allocates nothing of its own and knows neither.
//!
//! # Invariant
//! What two processes share is atomic or has one owner at a time, and no process ever waits for a lock of another: either
//! can be killed at any instruction.
#![cfg_attr(not(test), no_std)]

#[cfg(any(test, feature = "simulator"))]
extern crate alloc;

#[cfg(not(xalloc_loom))]
pub mod client;
pub mod fnv;
#[cfg(not(xalloc_loom))]
pub mod global;
#[cfg(not(xalloc_loom))]
pub mod heap;
pub mod intern;
pub mod primitive;
#[cfg(not(xalloc_loom))]
pub mod reach;
pub mod ring;
pub mod sampling;
#[cfg(not(xalloc_loom))]
pub mod session;
pub mod sys;
pub mod units;
pub mod wire;
