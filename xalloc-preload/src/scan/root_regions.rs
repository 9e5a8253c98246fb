//! Memory that the program names as a root: pointers in it count, wherever it lies.
//!
//! What a program can write is a root anyway, but for the heap: this is for a pool inside of a block, or for memory that
//! is not a process's own. The regions are kept in places that threads claim and leave without a lock, so that they can
//! be named in a signal handler.
//!
//! # Invariant
//! A place that is [`TAKEN`] has a range that does not change; only who moved the place from one state to the other
//! writes to it.

use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Regions that fit; further ones are passed over.
const MOST: usize = 1024;

const FREE: u32 = 0;
const CHANGING: u32 = 1;
const TAKEN: u32 = 2;

struct Place {
    state: AtomicU32,
    start: AtomicU64,
    end: AtomicU64,
}

static PLACES: [Place; MOST] =
    [const { Place { state: AtomicU32::new(FREE), start: AtomicU64::new(0), end: AtomicU64::new(0) } }; MOST];

fn range_of(start: *const c_void, bytes: usize) -> Range<u64> {
    let start = start.addr() as u64;
    start..start.saturating_add(bytes as u64)
}

/// Moves a place from one state to another, if it is in the first.
fn moves(place: &Place, from: u32, to: u32) -> bool {
    // ORDERING: Acquire pairs with the Release stores below: the range of a place that is taken is seen.
    place.state.load(Ordering::Relaxed) == from
        && place.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// Makes a region a root.
pub(crate) fn register(start: *const c_void, bytes: usize) {
    let Range { start, end } = range_of(start, bytes);
    if let Some(place) = PLACES.iter().find(|place| moves(place, FREE, CHANGING)) {
        // Relaxed: published with the state.
        place.start.store(start, Ordering::Relaxed);
        place.end.store(end, Ordering::Relaxed);
        // ORDERING: pairs with the Acquire loads in `moves` and `each`.
        place.state.store(TAKEN, Ordering::Release);
    }
}

/// Takes [`register`] of the same region back, once; without one nothing happens.
pub(crate) fn unregister(start: *const c_void, bytes: usize) {
    let wanted = range_of(start, bytes);
    for place in PLACES.iter().filter(|place| place.state.load(Ordering::Relaxed) == TAKEN) {
        if !moves(place, TAKEN, CHANGING) {
            continue;
        }
        // Relaxed: seen with the state.
        let is_it = wanted == (place.start.load(Ordering::Relaxed)..place.end.load(Ordering::Relaxed));
        // ORDERING: pairs with the Acquire loads in `moves` and `each`.
        place.state.store(if is_it { FREE } else { TAKEN }, Ordering::Release);
        if is_it {
            return;
        }
    }
}

/// Shows every region, the whole words of it.
pub(super) fn each(mut show: impl FnMut(Range<u64>)) {
    for place in &PLACES {
        // ORDERING: pairs with the Release stores above.
        if place.state.load(Ordering::Acquire) == TAKEN {
            let start = place.start.load(Ordering::Relaxed).next_multiple_of(8);
            let end = place.end.load(Ordering::Relaxed) / 8 * 8;
            if start < end {
                show(start..end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_root_until_it_was_taken_back_as_often_as_it_was_named() {
        let at = |address: usize| core::ptr::without_provenance(address);
        let seen = || {
            let mut seen = Vec::new();
            each(|range| seen.push(range));
            seen
        };
        register(at(0x1003), 40);
        register(at(0x1003), 40);
        register(at(0x2000), 4);
        assert_eq!(seen(), [0x1008..0x1028, 0x1008..0x1028]);
        unregister(at(0x1003), 39);
        unregister(at(0x1003), 40);
        assert_eq!(seen().as_slice(), core::slice::from_ref(&(0x1008..0x1028)));
        unregister(at(0x1003), 40);
        unregister(at(0x1003), 40);
        unregister(at(0x2000), 4);
        assert_eq!(seen(), []);
    }
}
