//! What the program took of the break itself, by `sbrk` and `brk`: memory of its own between chunks of the heap.
//!
//! The heap takes its part through libc's other names for these functions, so that every call that is noticed here is
//! the program's.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Ranges that are remembered. Programs that do this take one, and grow it.
const MOST: usize = 64;

static RANGES: [[AtomicU64; 2]; MOST] = [const { [AtomicU64::new(0), AtomicU64::new(0)] }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The program moved the break.
///
/// All accesses are Relaxed: a program that moves the break from two threads at once does not know itself what it has,
/// and who asks for the ranges has stopped all others.
pub(crate) fn moved(from: u64, to: u64) {
    let count = COUNT.load(Ordering::Relaxed);
    if from < to {
        let last = count.checked_sub(1).and_then(|last| RANGES.get(last));
        if let Some([_, end]) = last.filter(|[_, end]| end.load(Ordering::Relaxed) == from) {
            end.store(to, Ordering::Relaxed);
        } else if let Some([start, end]) = RANGES.get(count) {
            start.store(from, Ordering::Relaxed);
            end.store(to, Ordering::Relaxed);
            COUNT.store(count + 1, Ordering::Relaxed);
        }
    } else {
        for bounds in RANGES.iter().take(count).flatten() {
            bounds.fetch_min(to, Ordering::Relaxed);
        }
    }
}

/// The ranges that it still has, in the order in which it took them.
pub(super) fn ranges() -> impl Iterator<Item = Range<u64>> {
    let ranges = RANGES.iter().take(COUNT.load(Ordering::Relaxed));
    let ranges = ranges.map(|[start, end]| start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed));
    ranges.filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_no_longer_the_programs() {
        moved(0x1000, 0x3000);
        moved(0x3000, 0x4000);
        moved(0x9000, 0xa000);
        assert_eq!(ranges().collect::<Vec<_>>(), [0x1000..0x4000, 0x9000..0xa000]);
        moved(0xa000, 0x2000);
        assert!(ranges().eq(std::iter::once(0x1000..0x2000)));
    }
}
