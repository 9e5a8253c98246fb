//! The words that lie in the heap itself: chunk headers, list links, sub-heap headers.
//!
//! This is the one room of the policy that touches memory. Its functions are safe to call within the heap by the
//! boundary of trust that [`super`] describes: the addresses that reach them come from the system, from words that the
//! heap wrote itself, or from a pointer that the caller of an `unsafe` function vouched for.
//!
//! # Layout
//! | offset | live | free in a bin | in a thread's cache |
//! |---|---|---|---|
//! | 0 | data of the chunk below | size of the chunk below, if free | |
//! | 8 | size and flags | size and flags | size and flags |
//! | 16 | data | link to the front | next |
//! | 24 | data | link to the back | key |
//! | 32, 40 | data | links between sizes (large only) | |
//!
//! # Safety
//! - Every address is that of a chunk, an arena's top or a sub-heap header in a range that [`super::Os`] handed out and
//!   has not taken back, so the words named here are inside it: no chunk is smaller than 32 bytes, and only large ones
//!   are asked for their size links. Or it is that of a list's end, whose links are where [`super::Os::ends_home`] says,
//!   and the word behind them is the next end's.
//! - The words are written under the lock of the arena that owns the chunk, or by the only thread that has it (a live
//!   block, a block in its cache).
#![allow(unsafe_code)]

use super::chunk::{FLAGS, PREV_INUSE};
use super::os::Memory;

/// A door to the heap's words.
pub(super) struct Words<'m, M: Memory>(pub(super) &'m M);

impl<M: Memory> Clone for Words<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for Words<'_, M> {}

/// Defines a reader and a writer of the word at a fixed offset.
macro_rules! word {
    ($(#[$meta:meta])* $get:ident, $set:ident, $offset:literal) => {
        $(#[$meta])*
        #[inline(always)]
        pub(super) fn $get(self, at: u64) -> u64 {
            // SAFETY: by both bullets of the module.
            unsafe { self.0.load(at.wrapping_add($offset)) }
        }

        #[doc = concat!("Writes what [`Self::", stringify!($get), "`] reads.")]
        #[inline(always)]
        pub(super) fn $set(self, at: u64, value: u64) {
            // SAFETY: by both bullets of the module.
            unsafe { self.0.store(at.wrapping_add($offset), value) }
        }
    };
}

impl<M: Memory> Words<'_, M> {
    word!(
        /// Size of the free chunk below; of a mapped chunk its offset in the mapping.
        prev_size, set_prev_size, 0
    );
    word!(
        /// Size and flags.
        head, set_head, 8
    );
    word!(
        /// Next chunk of a list on its way from front to back, or the end of the list.
        fd, set_fd, 16
    );
    word!(
        /// Next chunk of a list on its way from back to front, or the end of the list.
        bk, set_bk, 24
    );
    word!(
        /// Head of the next smaller size in a large bin (after the smallest comes the largest), or 0: not a head.
        smaller, set_smaller, 32
    );
    word!(
        /// Head of the next larger size in a large bin (after the largest comes the smallest).
        larger, set_larger, 40
    );
    word!(
        /// Header of a sub-heap: number of its arena.
        heap_arena, set_heap_arena, 0
    );
    word!(
        /// Header of a sub-heap: the arena's previous sub-heap, or 0.
        heap_prev, set_heap_prev, 8
    );
    word!(
        /// Header of a sub-heap: bytes in use.
        heap_size, set_heap_size, 16
    );
    word!(
        /// Header of a sub-heap: bytes that are readable and writable.
        heap_committed, set_heap_committed, 24
    );
    word!(
        /// Header of a sub-heap: bytes of its pages, written only where huge ones are to be mapped.
        heap_page, set_heap_page, 32
    );

    /// Size of a chunk.
    #[inline(always)]
    pub(super) fn size(self, at: u64) -> u64 {
        self.head(at) & !FLAGS
    }

    /// Whether the chunk below `at` is live.
    #[inline(always)]
    pub(super) fn prev_inuse(self, at: u64) -> bool {
        self.head(at) & PREV_INUSE != 0
    }

    /// Whether the chunk at `at`, `size` long, is live: the flag is in the chunk above.
    #[inline(always)]
    pub(super) fn inuse(self, at: u64, size: u64) -> bool {
        self.prev_inuse(at + size)
    }

    /// Says in the chunk above that the chunk at `at` is live.
    #[inline(always)]
    pub(super) fn mark_inuse(self, at: u64, size: u64) {
        self.set_head(at + size, self.head(at + size) | PREV_INUSE);
    }

    /// Copies user data between live blocks.
    pub(super) fn copy(self, from: u64, to: u64, len: u64) {
        // SAFETY: both are blocks of at least `len` bytes that the caller of `realloc` or the heap owns, and different.
        unsafe { self.0.copy(from, to, len) }
    }

    /// Clears user data of a live block.
    pub(super) fn zero(self, at: u64, len: u64) {
        self.fill(at, len, 0);
    }

    /// Fills user data of a block that was just allocated or is being freed.
    pub(super) fn fill(self, at: u64, len: u64, byte: u8) {
        // SAFETY: a block of at least `len` bytes that is the caller's alone.
        unsafe { self.0.fill(at, len, byte) }
    }
}
