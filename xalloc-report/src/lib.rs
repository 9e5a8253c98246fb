//! Recording, analysis and rendering of xalloc traces.

pub mod os;
pub mod record;
pub mod symbols;
pub mod trace;
