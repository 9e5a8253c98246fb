//! The requests of the file, read a batch at a time into a mapping.
//!
//! # Safety
//! - `asks` is null with `filled` 0, or a mapping of [`BATCH`] requests of which `filled` were read.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::null_mut;

use super::format::Ask;
use super::map;

const BATCH: usize = 4096;

/// The requests that are still to be served.
pub(super) struct Batch {
    file: c_int,
    asks: *mut Ask,
    at: usize,
    filled: usize,
}

impl Batch {
    /// No requests.
    pub(super) const fn none() -> Batch {
        Batch { file: -1, asks: null_mut(), at: 0, filled: 0 }
    }

    /// The requests from the file's position on; `None` if there is no memory.
    pub(super) fn of(file: c_int) -> Option<Batch> {
        let asks = map(BATCH * size_of::<Ask>())?.cast();
        Some(Batch { file, asks, at: 0, filled: 0 })
    }

    /// The next request, which stays the next one.
    pub(super) fn peek(&mut self) -> Option<Ask> {
        if self.at == self.filled {
            self.at = 0;
            // SAFETY: the mapping has that many bytes.
            let got = unsafe { libc::read(self.file, self.asks.cast(), BATCH * size_of::<Ask>()) };
            self.filled = usize::try_from(got).unwrap_or(0) / size_of::<Ask>();
            if self.filled == 0 {
                return None;
            }
        }
        // SAFETY: below `filled`, so the file's bytes stand there; each pattern of them is an `Ask`.
        Some(unsafe { self.asks.wrapping_add(self.at).read() })
    }

    /// Goes on to the request after the one that `peek` showed.
    pub(super) fn advance(&mut self) {
        self.at += 1;
    }
}
