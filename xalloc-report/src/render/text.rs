//! Text for a terminal: aligned, with units, needing no manual.

mod check;
mod events;
mod faults;
mod fixes;
mod fragmentation;
mod frames;
mod gaps;
mod histogram;
mod leaks;
mod sampling;
mod summary;
mod timeline;
mod top;
mod what_if;

pub use check::check;
pub use events::{event, process_heading};
pub use fragmentation::fragmentation;
pub use gaps::gaps;
pub use histogram::histogram;
pub use leaks::leaks;
pub use sampling::sampled;
pub use summary::summary;
pub use timeline::timeline;
pub use top::top;
pub use what_if::what_if;

/// How much of a list of call stacks is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Call stacks.
    pub sites: usize,
    /// Functions of each.
    pub frames: usize,
}

impl Default for Extent {
    fn default() -> Extent {
        Extent { sites: 10, frames: 8 }
    }
}
