//! What happens when the program calls: pass the guard, serve, record.
//!
//! The functions here have other names than libc's, for a compiler that sees a function named `malloc` call another
//! and clear the block may make it call `calloc`; and a debugger shows the program's `malloc` as the program's.
//!
//! Each hook comes from a stub in [`crate::exports`] and gets, behind the C arguments, the three words of an
//! [`Entry`](crate::arch::Entry).

pub(crate) mod alloc;
mod fault;
pub(crate) mod free;
pub(crate) mod leaks;
pub(crate) mod mapping;
pub(crate) mod marks;
pub(crate) mod query;
pub(crate) mod realloc;
