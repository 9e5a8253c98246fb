//! The classes of sizes whose slots are used for one another: those whose chunks an allocator takes for one another.

use xalloc_core::units::chunk_bytes;

/// Classes of sizes whose freed slots are used for one another.
pub(super) const CLASSES: usize = u8::MAX as usize + 1;

/// The class of a request of `size_bytes`: glibc's chunk size in units of 16 up to 1,024 bytes (each such size has a
/// cache of its own there), four classes a doubling above.
#[inline]
pub(in crate::trace) const fn class_of(size_bytes: u64) -> u8 {
    let units = chunk_bytes(size_bytes) / 16;
    if units <= 64 {
        return units as u8;
    }
    let log = 63 - units.leading_zeros() as u64;
    let class = 64 + (log - 6) * 4 + ((units >> (log - 2)) & 3);
    if class > u8::MAX as u64 { u8::MAX } else { class as u8 }
}

/// The class of blocks in chunks of `size_bytes`, where they have one of their own.
#[inline]
pub(in crate::trace) const fn chunk_class(size_bytes: u64) -> Option<u8> {
    let units = size_bytes / 16;
    if 2 <= units && units <= 64 { Some(units as u8) } else { None }
}
