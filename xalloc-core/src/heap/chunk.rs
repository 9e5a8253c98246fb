//! The arithmetic of chunks: no memory is touched here.
//!
//! A chunk starts with the size of the chunk below it (valid while that one is free) and its own size word, whose low
//! bits are flags; the user's block follows. Addresses are chunk addresses, plain numbers; the block is 16 bytes on.
//! Every constant is from the placement policy, section 1.

use crate::units::CHUNK_HEADER_BYTES;

/// Chunks are multiples of this, and so are user addresses.
pub(super) const ALIGNMENT: u64 = 16;
/// Smallest chunk: room for both words and the two links of a bin.
pub(super) const MIN_CHUNK: u64 = 32;
/// From a chunk's address to its user address.
pub(super) const HEADER: u64 = CHUNK_HEADER_BYTES;
/// Bytes of a live heap chunk that the user cannot have: the size word.
pub(super) const OVERHEAD: u64 = 8;
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
    let rounded = (bytes + OVERHEAD + ALIGNMENT - 1) & !(ALIGNMENT - 1);
    Some(if rounded < MIN_CHUNK { MIN_CHUNK } else { rounded })
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

/// The bin of a chunk size: 2 to 63 small, one size each; 64 to 126 large, with the spacing of section 1.
#[inline(always)]
pub(super) const fn bin_index(size: u64) -> usize {
    let index = if size < LARGE_MIN {
        size >> 4
    } else if size >> 6 <= 48 {
        48 + (size >> 6)
    } else if size >> 9 <= 20 {
        91 + (size >> 9)
    } else if size >> 12 <= 10 {
        110 + (size >> 12)
    } else if size >> 15 <= 4 {
        119 + (size >> 15)
    } else if size >> 18 <= 2 {
        124 + (size >> 18)
    } else {
        126
    };
    index as usize
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
}
