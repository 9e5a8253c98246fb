//! Recording, analysis and rendering of xalloc traces.

pub mod analysis;
pub mod check;
pub mod cli;
pub mod model;
pub mod os;
pub mod record;
pub mod render;
pub mod simulate;
pub mod symbols;
pub mod trace;
