//! The anonymous mappings of this library: what is in them is none of the program's.
//!
//! A list of fixed length without a lock: mappings are made inside of hooks, by any thread. One for which there is no
//! entry is forgotten, and a check for leaks takes what it holds for the program's.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Mappings that are remembered: the states of 32,768 threads, and some more.
const MOST: usize = 8192;

static STARTS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
static BYTES: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
/// Entries that were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

pub(super) fn enter(memory: NonNull<u8>, bytes: usize) {
    for (nth, (start, length)) in STARTS.iter().zip(&BYTES).enumerate() {
        // Relaxed, here and below: who looks at the list has stopped all others.
        if start.compare_exchange(0, memory.as_ptr() as usize, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            length.store(bytes, Ordering::Relaxed);
            USED.fetch_max(nth + 1, Ordering::Relaxed);
            return;
        }
    }
}

/// Takes a mapping off the list.
pub(crate) fn forget(memory: NonNull<u8>) {
    let used = STARTS.get(..USED.load(Ordering::Relaxed)).unwrap_or(&STARTS);
    if let Some(start) = used.iter().find(|start| start.load(Ordering::Relaxed) == memory.as_ptr() as usize) {
        start.store(0, Ordering::Relaxed);
    }
}

/// Shows all of them.
pub(crate) fn each(mut show: impl FnMut(Range<u64>)) {
    for (start, bytes) in STARTS.iter().zip(&BYTES).take(USED.load(Ordering::Relaxed)) {
        let start = start.load(Ordering::Relaxed) as u64;
        if start != 0 {
            show(start..start + bytes.load(Ordering::Relaxed) as u64);
        }
    }
}
