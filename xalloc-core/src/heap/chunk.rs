//! The arithmetic of chunks: no memory is touched here.
//!
//! A chunk starts with the size of the chunk below it (valid while that one is free) and its own size word, whose low
//! bits are flags; the user's block follows. Addresses are chunk addresses, plain numbers; the block is 16 bytes on.
//! Every constant is from the placement policy, section 1.

use crate::units::{CHUNK_HEADER_BYTES, CHUNK_OVERHEAD_BYTES, chunk_bytes};

/// Chunks are multiples of this, and so are user addresses.
pub(super) const ALIGNMENT: u64 = 16;
/// Smallest chunk: room for both words and the two links of a bin.
pub(super) const MIN_CHUNK: u64 = 32;
/// From a chunk's address to its user address.
pub(super) const HEADER: u64 = CHUNK_HEADER_BYTES;
/// Bytes of a live heap chunk that the user cannot have: the size word.
pub(super) const OVERHEAD: u64 = CHUNK_OVERHEAD_BYTES;
/// Chunks from here on are large: their bins hold ranges of sizes.
pub(super) const LARGE_MIN: u64 = 1024;
/// Largest request that `M_MXFAST` accepts.
pub(super) const MXFAST_LIMIT: u64 = 160;
/// A free whose merged result is this large empties the fast bins and may trim.
pub(super) const CONSOLIDATION_THRESHOLD: u64 = 65536;

/// Flag of a size word: the chunk below is live.
pub(super) const PREV_INUSE: u64 = 1;
/// Flag of a size word: the chunk has a mapping of its own.
pub(super) const IS_MMAPPED: u64 = 2;
/// Flag of a size word: the chunk belongs to a thread arena.
pub(super) const NON_MAIN: u64 = 4;
/// All flags.
pub(super) const FLAGS: u64 = 7;

/// The chunk size that serves a request, or `None` beyond `PTRDIFF_MAX`.
#[inline]
pub(super) const fn for_request(bytes: u64) -> Option<u64> {
    if bytes > i64::MAX as u64 {
        return None;
    }
    Some(chunk_bytes(bytes))
}

/// `value` rounded up to a multiple of `unit`, a power of two. Wraps at the end of the address space.
#[inline]
pub(super) const fn round_up(value: u64, unit: u64) -> u64 {
    value.wrapping_add(unit - 1) & !(unit - 1)
}

/// `value` rounded down to a multiple of `unit`, a power of two.
#[inline]
pub(super) const fn round_down(value: u64, unit: u64) -> u64 {
    value & !(unit - 1)
}

/// The bin of a chunk size: 2 to 63 small, one size each; 64 to 126 large, with the spacing of section 1. Traces are
/// written by it too: a step that files a large chunk says only how its bin differs from this.
#[inline(always)]
#[must_use]
pub const fn bin_index(size: u64) -> usize {
    if size < LARGE_MIN {
        return (size >> 4) as usize;
    }
    let [finer, coarser] = &SPACINGS[lesser(size.ilog2(), LAST_SPACED) as usize - LARGE_MIN.ilog2() as usize];
    lesser(finer.index(size), coarser.index(size)) as usize
}

/// How the bins of some large sizes are spaced.
#[derive(Clone, Copy)]
struct Spacing {
    base: u8,
    shift: u8,
}

impl Spacing {
    #[inline(always)]
    const fn index(self, size: u64) -> u32 {
        self.base as u32 + (size >> self.shift) as u32
    }
}

/// The highest power of two that has a row in [`SPACINGS`].
const LAST_SPACED: u32 = 19;

/// The spacings that hold for sizes from a power of two to the next, 1 KiB first. Where one gives way to the other the
/// coarser one leads to the lower bin, and before that to none lower: so the lesser of the two counts, and nobody has to
/// guess on which side of the border a size lies, as a processor would.
const SPACINGS: [[Spacing; 2]; 10] = {
    let [a, b, c, d, e, last] = [(48, 6), (91, 9), (110, 12), (119, 15), (124, 18), (126, 63)];
    let rows = [(a, a), (a, b), (b, b), (b, c), (c, c), (c, d), (d, d), (d, e), (e, e), (last, last)];
    let mut spacings = [[Spacing { base: 0, shift: 0 }; 2]; 10];
    let mut row = 0;
    while row < rows.len() {
        let ((finer_base, finer_shift), (coarser_base, coarser_shift)) = rows[row];
        spacings[row] =
            [Spacing { base: finer_base, shift: finer_shift }, Spacing { base: coarser_base, shift: coarser_shift }];
        row += 1;
    }
    spacings
};

#[inline(always)]
const fn lesser(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

/// The fast bin of a chunk size between 32 and 176.
#[inline]
pub(super) const fn fast_index(size: u64) -> usize {
    ((size >> 4) as usize).wrapping_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_to_the_chunks_of_the_policy() {
        for (request, chunk) in [(0, 32), (24, 32), (25, 48), (1032, 1040), (1033, 1056), (131_048, 131_056)] {
            assert_eq!(for_request(request), Some(chunk), "{request}");
        }
        assert_eq!(for_request(i64::MAX as u64 + 1), None);
    }

    #[test]
    fn large_bins_start_where_the_policy_says() {
        let starts = [(64, 1024), (97, 3136), (112, 10_752), (120, 40_960), (124, 163_840), (126, 524_288)];
        for (bin, start) in starts {
            assert_eq!(bin_index(start), bin, "first size of bin {bin}");
            assert!(bin_index(start - 16) < bin, "size below bin {bin}");
        }
        assert_eq!(bin_index(45_056), 120);
        assert_eq!(bin_index(65_520), 120);
        assert_eq!(bin_index(1 << 40), 126);
    }

    #[test]
    fn the_bin_of_every_large_size_is_that_of_the_first_row_of_the_policy_that_holds() {
        let rows = [(6, 48, 48), (9, 20, 91), (12, 10, 110), (15, 4, 119), (18, 2, 124)];
        for size in (1024..1 << 21).step_by(16).chain((21..63).map(|bit| 1 << bit)) {
            let row = rows.iter().find(|(shift, most, _)| size >> shift <= *most);
            let bin = row.map_or(126, |(shift, _, base)| base + (size >> shift));
            assert_eq!(bin_index(size) as u64, bin, "{size}");
        }
    }
}
