//! The library that the loader puts before libc: it serves the program's memory and records what happens to it.
//!
//! It lives in somebody else's process and behaves as if it were not there: no thread, no descriptor, no allocation, no
//! signal handler, no output of its own. It has no std, for std in an allocator is the classic mistake: its formatting,
//! panics and thread-locals allocate.
//!
//! # Rooms, bottom to top
//! | room | subject |
//! |---|---|
//! | `arch` | all that depends on x86-64: entry stubs, two registers |
//! | `host`, `text` | libc and the kernel behind small functions; text of bounded length |
//! | `config` | what the environment asks for |
//! | `segment` | the shared memory that events go to: making it, waiting for room in it |
//! | `modules`, `capture` | which file code belongs to; walking a call stack |
//! | `stacks` | from a call's registers to the id of its stack, and the news of modules |
//! | `thread` | what each thread has |
//! | `backend` | who serves the memory |
//! | `lifecycle` | cold, booting, live, off; what a forked child does |
//! | `guard` | the re-entrancy guard and its token |
//! | `scan` | what of the process's memory its program can still reach |
//! | `hooks`, `process`, `exec` | what happens when the program calls |
//! | `exports` | the C symbols |
//!
//! # What a hook may do
//! The recording takes no lock, waits for nobody but the recorder, asks the system only where the program's own call does,
//! a thread is new or more shared memory comes into use, and never panics. (The heap that serves the memory has its
//! arenas' locks, as any malloc.) It runs inside `malloc`, in signal handlers, before constructors and after
//! destructors; where it cannot do its work, it serves the memory and counts.
//!
//! # Two builds of one source
//! The profile `preload` aborts on panic, has no std and exports the symbols. Every other profile (checks, tests)
//! unwinds, has std and exports nothing, so preloading its product does nothing.
#![cfg_attr(all(panic = "abort", not(test)), no_std)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_types,
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        reason = "tests may allocate"
    )
)]
#![cfg_attr(
    test,
    allow(dead_code, unused_macros, unused_imports, reason = "without the exports nothing calls the hooks")
)]

pub mod arch;
mod backend;
pub mod capture;
mod config;
mod exec;
#[cfg(not(test))]
pub mod exports;
mod guard;
mod hooks;
pub mod host;
mod lifecycle;
pub mod modules;
mod process;
#[cfg(all(panic = "abort", not(test)))]
mod rt;
mod sampled;
mod scan;
mod segment;
mod stacks;
mod text;
mod thread;
