//! A small arena for the calls that come before anything else works.
//!
//! `dlsym` may allocate while it looks for the allocator behind us; a resolver of an indirect function may allocate
//! while this library is not even relocated. Both are few and small, and what they get is never reused.
//!
//! # Invariant
//! Nothing here calls another function or reads a relocated word: the arena works before relocation.
//!
//! # Safety
//! - Space is handed out once, by counting up what fits; a block lies behind 16 bytes of which the first word is its
//!   size and the second, where the heap would look for the size of a chunk, is 0.
//! - The arena is zero-initialised data, so a block is zero without being cleared.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use xalloc_core::units::{Addr, ArenaId};

use super::{Block, Outcome};

const BYTES: usize = 64 << 10;
const HEAD: usize = 16;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; BYTES]>);

// SAFETY: by the first bullet of the module nobody shares a byte of it.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; BYTES]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Whether a block is of the arena.
#[inline(always)]
pub(crate) fn holds(addr: Addr) -> bool {
    (addr.0 as usize).wrapping_sub(ARENA.0.get().addr()) < BYTES
}

/// A zeroed block; an alignment that is no power of two counts as the next one, as for C `memalign`. `None`: the arena
/// has no room for it, and is as it was.
pub(super) fn allocate(bytes: u64, align: u64) -> Option<Block> {
    let align = (align as usize).max(HEAD).checked_next_power_of_two()?;
    let bytes = (bytes as usize).checked_next_multiple_of(HEAD)?;
    let base = ARENA.0.get().cast::<u8>();
    let mut taken = TAKEN.load(Ordering::Relaxed);
    let block = loop {
        // The address is aligned, not the offset: the arena itself is aligned to a page.
        let first = base.addr().checked_add(taken)?.checked_add(HEAD)?;
        let block = first.checked_next_multiple_of(align)? - base.addr();
        let end = block.checked_add(bytes)?;
        if end > BYTES {
            return None;
        }
        // Relaxed: only uniqueness matters.
        match TAKEN.compare_exchange(taken, end, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => break block,
            Err(newer) => taken = newer,
        }
    };
    let place = base.wrapping_add(block - HEAD).cast::<usize>();
    // SAFETY: first bullet of the module: the head lies in the space just taken, aligned to 16.
    unsafe { place.write(bytes) };
    let addr = Addr(base.wrapping_add(block).expose_provenance() as u64);
    Some(Block { addr, usable_bytes: bytes as u64, arena: ArenaId::NONE, arena_seq: None })
}

/// Size of a block.
///
/// # Safety
/// - `addr` is a block of the arena.
pub(crate) unsafe fn usable_bytes(addr: Addr) -> u64 {
    let place = core::ptr::with_exposed_provenance::<usize>(addr.0 as usize - HEAD);
    // SAFETY: by the contract the size stands there.
    unsafe { place.read() as u64 }
}

/// Moves a block to where `allocate` says.
///
/// # Safety
/// - `addr` is a block of the arena; what `allocate` returns has at least `bytes`.
pub(super) unsafe fn leave(addr: Addr, bytes: u64, allocate: impl FnOnce() -> Option<Block>) -> Outcome {
    if bytes == 0 {
        return Outcome::Freed;
    }
    let Some(block) = allocate() else { return Outcome::Failed };
    // SAFETY: a block of the arena.
    let length = unsafe { usable_bytes(addr) }.min(bytes);
    let from = core::ptr::with_exposed_provenance::<u8>(addr.0 as usize);
    for at in 0..length as usize {
        // SAFETY: within the block.
        let byte = unsafe { from.wrapping_add(at).read_volatile() };
        // SAFETY: within the new block, which is distinct. Volatile, lest this become a call of `memcpy`.
        unsafe { block.as_ptr().cast::<u8>().wrapping_add(at).write_volatile(byte) };
    }
    Outcome::Block(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_holds_blocks_are_apart_and_a_refusal_takes_nothing() {
        let mut end = 0;
        for align in [1, 16, 24, 48, 4096, 5000, 8192] {
            let block = allocate(40, align).unwrap();
            assert!(block.addr.0.is_multiple_of(align.max(16).next_power_of_two()), "{align}");
            assert!(block.addr.0 >= end);
            assert!(holds(block.addr));
            // SAFETY: a block of the arena.
            assert_eq!(unsafe { usable_bytes(block.addr) }, 48);
            end = block.addr.0 + 48;
        }
        for (bytes, align) in
            [(BYTES as u64, 16), (16, 1 << 40), (u64::MAX, 16), (16, u64::MAX), (u64::MAX - 7, 1 << 63)]
        {
            assert!(allocate(bytes, align).is_none());
        }
        assert_eq!(allocate(16, 16).unwrap().addr.0, end + 16);
    }
}
