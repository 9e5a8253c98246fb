//! The kernel behind safe types: locks that sleep in the kernel.

pub mod lock;
