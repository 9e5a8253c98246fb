//! The pool of a counterfactual: blocks of one call site in memory of their own.
//!
//! It is the plain pool that a programmer would write: sizes rounded up to 16 bytes, no header, slabs of 64 KiB that
//! are mapped one after another and never given back, a list of free blocks for each size. A block of more than half a
//! slab has a mapping of its own, which goes back when it is freed.

use rustc_hash::FxHashMap;
use xalloc_core::units::PAGE_BYTES;

/// Bytes of a slab.
const SLAB: u64 = 64 << 10;
const ALIGNMENT: u64 = 16;

/// What the pool holds, without contents.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Free blocks of each size.
    free: FxHashMap<u64, u64>,
    /// Unused bytes of the last slab.
    left_bytes: u64,
    held_bytes: u64,
    resident_bytes: u64,
    pub(super) maps: u64,
    pub(super) unmaps: u64,
}

/// Bytes that a request takes.
fn rounded(size: u64) -> u64 {
    let size = size.max(1);
    if size > SLAB / 2 { size.next_multiple_of(PAGE_BYTES) } else { size.next_multiple_of(ALIGNMENT) }
}

impl Pool {
    /// A block of `size` bytes is made.
    pub(super) fn make(&mut self, size: u64) {
        let bytes = rounded(size);
        if bytes > SLAB / 2 {
            self.held_bytes += bytes;
            self.resident_bytes += bytes;
            self.maps += 1;
            return;
        }
        if let Some(count) = self.free.get_mut(&bytes).filter(|count| **count > 0) {
            *count -= 1;
            return;
        }
        if self.left_bytes < bytes {
            self.left_bytes = SLAB;
            self.held_bytes += SLAB;
            self.maps += 1;
        }
        let pages = |left: u64| (SLAB - left).div_ceil(PAGE_BYTES);
        self.resident_bytes += (pages(self.left_bytes - bytes) - pages(self.left_bytes)) * PAGE_BYTES;
        self.left_bytes -= bytes;
    }

    /// A block of `size` bytes goes back.
    pub(super) fn take_back(&mut self, size: u64) {
        let bytes = rounded(size);
        if bytes > SLAB / 2 {
            self.held_bytes -= bytes;
            self.resident_bytes -= bytes;
            self.unmaps += 1;
        } else {
            *self.free.entry(bytes).or_insert(0) += 1;
        }
    }

    /// A block of `from` bytes becomes one of `to` bytes.
    pub(super) fn resize(&mut self, from: u64, to: u64) {
        if rounded(from) != rounded(to) {
            self.make(to);
            self.take_back(from);
        }
    }

    /// Bytes that the pool has from the system.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes of its pages that hold or held a block.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_went_back_are_used_again_and_slabs_stay() {
        let mut pool = Pool::default();
        for _ in 0..SLAB / 32 {
            pool.make(24);
        }
        assert_eq!((pool.held_bytes(), pool.resident_bytes()), (SLAB, SLAB));
        pool.take_back(24);
        pool.make(30);
        assert_eq!(pool.held_bytes(), SLAB);
        pool.make(31);
        assert_eq!((pool.held_bytes(), pool.resident_bytes()), (2 * SLAB, SLAB + PAGE_BYTES));
    }

    #[test]
    fn a_large_block_has_a_mapping_that_goes_back_with_it() {
        let mut pool = Pool::default();
        pool.make(100_000);
        assert_eq!(pool.held_bytes(), 25 * PAGE_BYTES);
        pool.resize(100_000, 100_100);
        pool.take_back(100_100);
        assert_eq!((pool.held_bytes(), pool.maps, pool.unmaps), (0, 1, 1));
    }
}
