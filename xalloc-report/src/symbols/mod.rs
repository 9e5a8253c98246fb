//! Names for addresses, after the run: functions with their inlined callees, files and lines.
//!
//! The recorder stores which modules a process had loaded and where; this room opens their files again and asks DWARF,
//! then symbol tables, what lies at an address. Nothing here touches the recorded program, so it may take its time, read
//! hundreds of megabytes and use every processor: modules are resolved in parallel, each distinct address once.
//!
//! # What is trusted
//! Nothing that is read. A file may be truncated, replaced since the recording, or made to harm. It is checked by its
//! build-id, every length is checked where it is used, names and paths are bounded, decompression is bounded before it
//! begins (`image`, `minidebug`). What cannot be read becomes a [`Missing`] that is printed, never a wrong name and
//! never a panic. Two costs remain that only the DWARF reader could bound: a hostile file can make it slow, and can make
//! it hold many copies of one long directory name.
//!
//! # Layers
//! `symbolizer` (all modules) and `early` (while the program runs) use `remember` (one module, from memory), which uses
//! `resolve` (one module, from its files), which uses `locate` (files), `dwarf` and `split` (lines and inlined functions),
//! `table`, `plt` and `minidebug` (names), `call` (what a call names), `demangle`. All open files through `trail` and
//! parse through `image`. No file of this room knows the trace's format.
//!
//! # Why our own locator
//! No library finds all debug information by itself; each knows the build-id directory or the debug link, few both, and
//! none says which package would supply what it did not find.

mod call;
mod demangle;
mod dwarf;
mod early;
mod error;
mod image;
mod locate;
mod minidebug;
mod missing;
mod nesting;
mod plt;
mod remember;
mod resolve;
mod shelf;
mod split;
mod symbolizer;
mod table;
#[cfg(test)]
mod tests;
mod trail;
mod untrusted;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::demangle::{MAX_NAME_BYTES, demangle};
pub use self::early::Early;
pub use self::error::Error;
pub use self::locate::Places;
pub use self::missing::Missing;
pub use self::symbolizer::{Resolved, Symbolizer, Wanted};
pub use self::untrusted::parse_untrusted;

/// Position of a module in the list that a [`Symbolizer`] was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleIndex(pub usize);

/// A program or library as the recorder saw it in the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    /// Its path at the time of the recording; `[vdso]` for what the kernel maps.
    pub path: PathBuf,
    /// The GNU build-id, usually 20 bytes; empty when it had none, and then the file at `path` is believed.
    pub build_id: Vec<u8>,
}

/// One function at an address, and where in its source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Frame {
    /// The readable name, at most [`MAX_NAME_BYTES`] long; `None` when only the line is known.
    pub function: Option<String>,
    /// The linker's name, when it differs from `function`.
    pub raw_name: Option<String>,
    /// The source file as the compiler wrote it down, usually an absolute path of the build machine.
    pub file: Option<String>,
    /// The line, from 1. In a caller of an inlined function: the line of the call.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
    /// Whether this function was inlined into the frame that follows it.
    pub inlined: bool,
}

/// How much is known about a module; each grade includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Detail {
    /// No names at all.
    Nothing,
    /// The names that the dynamic linker needs: exported functions and PLT entries.
    Exports,
    /// The names of all functions.
    Functions,
    /// Inlined functions, files and lines.
    Lines,
}
