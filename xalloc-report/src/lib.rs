//! Recording, analysis and rendering of xalloc traces.

pub mod model;
pub mod trace;
