//! `malloc_trim`, `mallopt`, `mallinfo` and their relatives.

use core::fmt;

use super::{Heap, Os, Sink, ThreadCache};

/// The fields of C `mallinfo2`, in bytes and chunks; `mallinfo` is the same, truncated to `int` by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MallInfo {
    /// Bytes that the arenas have from the system, mapped chunks not included.
    pub arena: u64,
    /// Free chunks in bins, the top of the main arena included.
    pub ordblks: u64,
    /// Free chunks in fast bins.
    pub smblks: u64,
    /// Chunks with a mapping of their own.
    pub hblks: u64,
    /// Bytes in those.
    pub hblkhd: u64,
    /// Always 0, as glibc has it.
    pub usmblks: u64,
    /// Bytes in fast bins.
    pub fsmblks: u64,
    /// Bytes in use: what is neither in a bin nor the top. Chunks in thread caches count as used.
    pub uordblks: u64,
    /// Bytes free in bins, fast bins and tops.
    pub fordblks: u64,
    /// Bytes of the main arena's top.
    pub keepcost: u64,
}

impl<O: Os> Heap<O> {
    /// C `malloc_trim`: whether memory went back to the system.
    pub fn trim<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, pad_bytes: u64) -> bool {
        let _ = (cache, sink, pad_bytes);
        false
    }

    /// C `mallopt`: whether the parameter is known and the value was accepted.
    pub fn mallopt<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, parameter: i32, value: i32) -> bool {
        let _ = (cache, sink, parameter, value);
        false
    }

    /// C `mallinfo2`.
    pub fn mallinfo2(&self, cache: &mut ThreadCache) -> MallInfo {
        let _ = cache;
        MallInfo::default()
    }

    /// The XML of C `malloc_info(0, …)`.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn info_xml(&self, cache: &mut ThreadCache, out: &mut dyn fmt::Write) -> fmt::Result {
        let _ = cache;
        out.write_str("")
    }

    /// The text of C `malloc_stats`.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn stats(&self, cache: &mut ThreadCache, out: &mut dyn fmt::Write) -> fmt::Result {
        let _ = cache;
        out.write_str("")
    }
}
