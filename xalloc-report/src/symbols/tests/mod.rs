//! Symbolisation of programs that are built for the test, in every shape in which debug information is shipped.
//!
//! A test whose tool is not installed prints `skipped:` and why.

mod hostile;
mod kit;
mod lines;
mod remembered;
mod separate;
mod split_dwarf;
mod tables;
