//! From structs to bytes: text for a terminal, JSON for a script, SVG for a browser.
//!
//! Everything here returns or writes; nothing prints. Text carries ANSI styles, which the caller strips where they do
//! not belong. Names of functions, files, threads and commands come from the recorded program and are hostile: they
//! pass through [`escape`] before they reach a terminal or a picture.

pub mod annotations;
pub mod chart;
mod classes;
pub mod codequality;
pub mod escape;
pub mod flamegraph;
#[cfg(test)]
mod golden;
pub mod heap_picture;
pub mod json;
pub mod junit;
pub mod number;
mod places;
pub mod sarif;
pub mod step_summary;
mod style;
mod table;
pub mod text;
pub mod valgrind_xml;
#[cfg(test)]
mod verdicts;
mod words;
mod xml;
