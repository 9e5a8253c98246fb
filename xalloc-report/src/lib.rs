//! Recording, analysis and rendering of xalloc traces.

pub mod analysis;
pub mod model;
pub mod trace;
