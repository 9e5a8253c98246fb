//! The only room of this crate with unsafe code: what the system offers and Rust cannot check.
//!
//! Everything above speaks to the kernel through the safe functions of this room, so that a reader who looks for the
//! source of undefined behaviour has one directory to read. Unsafe code is denied for the crate and allowed file by
//! file, each after an essay that says what its callers and the system must keep.

pub mod cache;
pub mod control;
pub mod file;
pub mod inherited;
pub mod lock;
pub mod pagemap;
pub mod pidfd;
pub mod proc;
pub mod segment;
pub mod server;
mod shared;
pub mod signals;
pub mod system;
