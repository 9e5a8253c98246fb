//! The only door to the system, and the only door to memory.
//!
//! The policy asks for address space by [`Os`] and reads and writes words by [`Memory`]; it never holds a Rust
//! reference into the heap. That is what makes one policy serve three times: the live heap answers with `sbrk`, `mmap`
//! and raw accesses, the simulator with a virtual break and a sparse table of words.
//!
//! # Why methods on `&self`
//! The live heap is a `static` that every thread uses at once. An implementation with state of its own (the simulator)
//! uses interior mutability and is not `Sync`.
//!
//! # Safety
//! - This room only declares; the obligations stand with the traits and their methods.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::HugePages;

/// Pages that are asked for or given back.
///
/// Lengths and addresses are multiples of [`Os::page_bytes`], unless said otherwise.
///
/// # Safety
/// - Ranges that `break_by`, `map`, `remap` and `commit` hand out are readable, writable, zero where never written
///   before, and belong to the heap alone until it gives them back.
/// - [`Os::arena_home`] and [`Os::ends_home`] return storage as described there.
pub unsafe trait Os: Memory {
    /// Moves the break by `delta` bytes and returns where it was: the semantics of `sbrk`. `None`: it cannot be moved.
    ///
    /// # Safety
    /// - Moving down, the range that the break leaves is the heap's, and nothing in it is used any more.
    unsafe fn break_by(&self, delta: i64) -> Option<u64>;

    /// Maps `len` private, anonymous, readable and writable bytes.
    fn map(&self, len: u64) -> Option<u64>;

    /// As [`Os::map`], made of huge pages of `page_bytes`, whatever `len` is a multiple of. `None`: there are not enough.
    fn map_huge(&self, len: u64, page_bytes: u64) -> Option<u64>;

    /// As [`Os::reserve`], made of huge pages of `page_bytes`.
    fn reserve_huge(&self, hint: u64, len: u64, page_bytes: u64) -> Option<u64>;

    /// Reserves `len` bytes of address space without access (`PROT_NONE`, `MAP_NORESERVE`), at `hint` if that is free.
    fn reserve(&self, hint: u64, len: u64) -> Option<u64>;

    /// Gives a mapped or reserved range back. `false`: the system refused.
    ///
    /// # Safety
    /// - The range is the heap's, and nothing in it is used any more.
    unsafe fn unmap(&self, addr: u64, len: u64) -> bool;

    /// Resizes a mapping, which may move (`MREMAP_MAYMOVE`).
    ///
    /// # Safety
    /// - The range is the heap's, and nobody else refers to it: it may move.
    unsafe fn remap(&self, addr: u64, old_len: u64, new_len: u64) -> Option<u64>;

    /// Makes a reserved range readable and writable.
    ///
    /// # Safety
    /// - The range is the heap's.
    unsafe fn commit(&self, addr: u64, len: u64) -> bool;

    /// Tells the system that the contents of a range are not needed (`MADV_DONTNEED`); it reads as zero afterwards.
    ///
    /// # Safety
    /// - The range is the heap's, and nothing in it is used any more.
    unsafe fn discard(&self, addr: u64, len: u64) -> bool;

    /// Replaces a committed range by a reserved one at the same place (`MAP_FIXED`).
    ///
    /// # Safety
    /// - The range is the heap's, and nothing in it is used any more.
    unsafe fn decommit(&self, addr: u64, len: u64) -> bool;

    /// Asks for transparent huge pages in a range (`MADV_HUGEPAGE`). `len` may end within a page.
    ///
    /// # Safety
    /// - The range is the heap's.
    unsafe fn advise_huge(&self, addr: u64, len: u64);

    /// What the system does about transparent huge pages: never [`HugePages::Mapped`].
    fn transparent_pages(&self) -> HugePages;

    /// Bytes of the default huge page, or those asked for if the system has such pages.
    fn huge_page_bytes(&self, asked: Option<u64>) -> Option<u64>;

    /// Where libc takes the break to be. `None`: nobody has moved it or asked for it yet.
    fn remembered_break(&self) -> Option<u64>;

    /// Whether a shrinking sub-heap must decommit rather than discard: strict overcommit accounting
    /// (`vm.overcommit_memory` 2) or a process of raised privilege (placement policy, section 9).
    fn shrinks_by_decommit(&self) -> bool;

    /// Bytes of a page.
    fn page_bytes(&self) -> u64;

    /// Number of processors online: the arena limit is made from it (placement policy, section 10).
    fn cores(&self) -> u64;

    /// Kernel id of the calling thread, not 0. Asked once per thread cache.
    fn thread_id(&self) -> u32;

    /// Whether the calling thread is the one that the process began with; it uses the main arena.
    fn is_main_thread(&self) -> bool;

    /// Storage for the state of an arena whose first sub-heap has reserved [`super::ARENA_BYTES`] at `addr`: that
    /// place itself, or another one out of band.
    ///
    /// The storage has [`super::ARENA_BYTES`] bytes, alignment 16, and is exclusively the arena's for as long as `self`
    /// lives.
    ///
    /// # Safety
    /// - `addr` is a multiple of 16 in a range that [`Os::commit`] made accessible, [`super::ARENA_BYTES`] before its
    ///   end, which is never given back, and this is the only call for it.
    unsafe fn arena_home(&self, addr: u64) -> NonNull<u8>;

    /// Where [`Memory`] finds the ends of an arena's lists, which lie at `addr` in this process: there, or at another
    /// address, always the same for an arena, where as many words can be read and written that no other range has.
    fn ends_home(&self, arena: u16, addr: u64) -> u64;

    /// Zeroed memory out of the heap, for the heap's own bookkeeping, a multiple of a page long and so aligned; it is
    /// there as long as `self` lives, and takes no more pages than are written to.
    fn side_table(&self, len: u64) -> Option<NonNull<u8>>;
}

/// Words of heap memory.
///
/// # Safety
/// - A `load` returns what the last `store`, `fill` or `copy` put there.
pub unsafe trait Memory {
    /// Reads the word at `addr`, a multiple of 8.
    ///
    /// # Safety
    /// - The 8 bytes at `addr` belong to the heap, and if another thread writes them meanwhile, it does so by `store`.
    unsafe fn load(&self, addr: u64) -> u64;

    /// Writes the word at `addr`, a multiple of 8.
    ///
    /// # Safety
    /// - The 8 bytes at `addr` belong to the heap, and if another thread accesses them meanwhile, it does so by `load`.
    unsafe fn store(&self, addr: u64, value: u64);

    /// Copies `len` bytes between blocks that do not overlap. A simulation, which has no contents, does nothing.
    ///
    /// # Safety
    /// - Both ranges belong to the heap and to the caller alone, and they do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, len: u64);

    /// Fills `len` bytes of a block with `byte`. A simulation, which has no contents, does nothing.
    ///
    /// # Safety
    /// - The range belongs to the heap and to the caller alone.
    unsafe fn fill(&self, addr: u64, len: u64, byte: u8);
}
