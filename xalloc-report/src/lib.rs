//! Recording, analysis and rendering of xalloc traces.
