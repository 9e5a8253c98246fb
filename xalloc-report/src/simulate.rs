//! The recorded requests, served once more under other rules: what-if runs.
//!
//! A trace holds every request of a process, and xalloc's heap runs as well over a simulated system as over the real
//! one. So the question "what would the heap have been with a smaller trim threshold, with glibc 2.41, without that
//! call site" is answered by serving the same requests again and looking.
//!
//! # Rooms, bottom to top
//! | room | subject |
//! |---|---|
//! | `requests`, `gather`, `touched` | the requests of a process, and how they are read from a trace; what was written of their blocks |
//! | `order` | the order in which threads that share an arena were served |
//! | `settings` | the rules of a run |
//! | `placement` | whether the simulated heap puts blocks where the recorded one did |
//! | `fixes`, `pool` | the requests after a fix at one call site |
//! | `player`, `meter` | serving the requests; what is measured meanwhile |
//! | `runs` | several runs at once |
//! | `real` | the requests really served, by another allocator |
//!
//! # Invariant
//! With the recording's own settings the simulated heap gives back every recorded address, to the last event. Where
//! it does not, [`Parting`] says at which allocation, and figures of the run are worth as much as what came before it.
//!
//! # What a run cannot know
//! The requests are those that the program made under the recorded rules. A program that asks for other blocks when
//! addresses, times or usable sizes differ would have made others.

mod fixes;
mod gather;
mod meter;
mod order;
mod placement;
mod player;
mod pool;
mod real;
mod requests;
mod runs;
mod settings;
mod touched;

pub use fixes::Fix;
pub use gather::{GatherError, gather};
pub use meter::Measured;
pub use placement::Parting;
pub use real::{ALLOCATORS, Allocator, ServeError, Touch, serve};
pub use requests::{Kind, Request, Requests};
pub use runs::{Outcome, Run, run_all};
pub use settings::{PROFILES, SettingError, Settings};
