//! The LD_PRELOAD library.

pub mod arch;
pub mod capture;
pub mod host;
pub mod modules;
