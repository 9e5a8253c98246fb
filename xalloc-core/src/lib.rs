//! The allocator and the recording primitives of xalloc.
#![cfg_attr(not(test), no_std)]
