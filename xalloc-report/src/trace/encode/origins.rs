//! Where allocations of a block come from: what recurs with few values, and is named by a place in a table.

use rustc_hash::FxHashMap;
use xalloc_core::units::ArenaId;

use super::super::varint::put;

/// Slack beyond the expected, arena, call with order, in 40 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Origin(u64);

/// Entries of [`Origins::near`].
const NEAR: usize = 16;

impl Origin {
    /// No allocation's.
    const NONE: Origin = Origin(u64::MAX);

    #[inline]
    pub(super) fn new(slack_beyond_bytes: u16, arena: ArenaId, call: u8) -> Origin {
        Origin(u64::from(slack_beyond_bytes) << 24 | u64::from(arena.0) << 8 | u64::from(call))
    }

    /// Its place among the near ones; a Fibonacci hash, of which the highest bits are the best mixed.
    #[inline]
    fn near(self) -> usize {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        (self.0.wrapping_mul(GOLDEN) >> 60) as usize % NEAR
    }

    fn put(self, column: &mut Vec<u8>) {
        put(column, self.0 >> 24);
        put(column, self.0 >> 8 & 0xffff);
        column.push(self.0 as u8);
    }
}

/// The origins of the open block.
pub(super) struct Origins {
    places: FxHashMap<Origin, u32>,
    /// Those that were looked up lately, each where [`Origin::near`] says.
    near: [(Origin, u32); NEAR],
}

impl Origins {
    pub(super) fn new() -> Origins {
        Origins { places: FxHashMap::default(), near: [(Origin::NONE, 0); NEAR] }
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.near = [(Origin::NONE, 0); NEAR];
    }

    /// The place of `origin` in `column`, where it is entered if it is not there.
    #[inline]
    pub(super) fn place(&mut self, origin: Origin, column: &mut Vec<u8>) -> u32 {
        let (near, place) = self.near[origin.near()];
        if near == origin { place } else { self.search(origin, column) }
    }

    #[inline(never)]
    fn search(&mut self, origin: Origin, column: &mut Vec<u8>) -> u32 {
        let next = self.places.len() as u32;
        let place = *self.places.entry(origin).or_insert(next);
        if place == next {
            origin.put(column);
        }
        self.near[origin.near()] = (origin, place);
        place
    }
}
