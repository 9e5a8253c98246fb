//! Going through the heap in order of address.

use super::marks::Mark;
use super::{Layout, Range, RangeKind};
use crate::trace::ThreadIndex;

/// What a span of the heap is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The program's block in this slot.
    Live(u32),
    /// Handed out, and not told as a block yet: the thread was within a call.
    Handed,
    /// In the cache of this thread.
    Cached(ThreadIndex),
    /// In the fast bin of this number.
    Fast(u8),
    /// In the bin of this number: 1 unsorted, 2 to 63 small, 64 to 126 large.
    Binned(u8),
    /// The arena's top.
    Top,
    /// The header of a sub-heap, with the arena's state in the first one.
    Header,
    /// The bookkeeping of a thread's cache.
    Bookkeeping,
    /// What ends a range that is not the top's.
    Fence,
}

impl Place {
    /// Whether the program could get it without asking the system.
    #[must_use]
    pub const fn is_free(self) -> bool {
        match self {
            Place::Cached(_) | Place::Fast(_) | Place::Binned(_) | Place::Top => true,
            Place::Live(_) | Place::Handed | Place::Header | Place::Bookkeeping | Place::Fence => false,
        }
    }
}

/// A chunk, a top, or a piece of the heap's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The range it lies in.
    pub range: Range,
    /// Where it begins; for a chunk its chunk address.
    pub addr: u64,
    /// Its length.
    pub size_bytes: u64,
    /// What it is.
    pub place: Place,
}

impl Span {
    /// First address behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.addr + self.size_bytes
    }
}

impl Layout {
    /// Visits every span of every range, in order of address. The spans of a range tile it.
    pub fn spans(&self, mut visit: impl FnMut(Span)) {
        for range in self.ranges.iter() {
            self.spans_of(range, &mut visit);
        }
    }

    fn spans_of(&self, range: &Range, visit: &mut impl FnMut(Span)) {
        let range = *range;
        let mut tell = |addr: u64, end: u64, place| {
            if end > addr {
                visit(Span { range, addr, size_bytes: end - addr, place });
            }
        };
        if range.kind == RangeKind::Mapped {
            let place = range.slot.filter(|&slot| self.block(slot).is_some()).map_or(Place::Handed, Place::Live);
            tell(range.start, range.end, place);
            return;
        }
        tell(range.start, range.first, Place::Header);
        let has_top = self.ranges.current(range.arena).is_some_and(|current| current.start == range.start);
        let top = if has_top { self.ranges.arenas[usize::from(range.arena)].top } else { range.end };
        let mut marks = self.marks.walker();
        let mut at = range.first;
        while at < top {
            let (size_bytes, place) = match marks.get(at) {
                Some((size_bytes, mark)) => (size_bytes.max(16), self.place(mark)),
                // Only within an operation: what was cut out is not told yet.
                None => (self.marks.next(at, top).unwrap_or(top) - at, Place::Handed),
            };
            let end = (at + size_bytes).min(top);
            tell(at, end, place);
            at = end;
        }
        tell(top, range.end, Place::Top);
    }

    fn place(&self, mark: Mark) -> Place {
        match mark {
            Mark::Live(slot) if self.block(slot).is_some() => Place::Live(slot),
            Mark::Live(_) | Mark::Handed => Place::Handed,
            Mark::Cached(thread) => Place::Cached(thread),
            Mark::Fast(bin) => Place::Fast(bin),
            Mark::Binned(bin) => Place::Binned(bin),
            Mark::Bookkeeping => Place::Bookkeeping,
            Mark::Fence => Place::Fence,
        }
    }
}
