//! Names for addresses, after the run.

mod demangle;

pub use self::demangle::{MAX_NAME_BYTES, demangle};
