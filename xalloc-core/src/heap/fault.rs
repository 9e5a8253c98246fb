//! What a heap finds wrong with itself or with a pointer that it is given, in the distinctions and the words of libc.
//!
//! A program that damages its heap ends by libc with one of these lines, and people search the web for them; so the
//! same damage ends it with the same line here. Which check says what was found by experiment with glibc 2.36
//! (`xalloc-preload/tests/misuse.rs` holds the programs). What other releases say and check otherwise is in their [`Policy`].

use super::os::Os;
use super::{Heap, Policy};
use crate::units::Addr;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeapFault {
    /// `free` or `realloc` of what the set of live blocks does not have: a block that was freed, the inside of one, or any
    /// other pointer. Only a hardened heap knows. [`Heap::explain`](super::Heap::explain) says which, and
    /// [`Heap::verdict_on_free`](super::Heap::verdict_on_free) what libc, which has no such set, makes of it.
    NotABlock,
    /// `free` of what is not a block: misaligned, or its size wraps the address space.
    InvalidPointer,
    /// `free` of a block whose size word is no chunk size.
    InvalidSize,
    /// `free` of a mapped block whose bounds are not those of pages.
    InvalidMapping,
    /// `free` of a block that is in this thread's cache.
    DoubleFreeCached,
    /// `free` of the block at the head of its fast bin.
    DoubleFreeFast,
    /// `free` of the top.
    DoubleFreeTop,
    /// `free` of a block beyond the top.
    BeyondTop,
    /// `free` of a block that its neighbour says is free.
    DoubleFree,
    /// The size word of the block above is no chunk size: something wrote beyond a block.
    InvalidNextSize,
    /// As before, where the block goes to a fast bin.
    InvalidNextSizeFast,
    /// The size before a block and the size of the free chunk there disagree.
    SizeMismatchBelow,
    /// The size of a free chunk and its copy in the chunk above disagree.
    SizeMismatch,
    /// The links of a free chunk's list do not meet.
    CorruptedLinks,
    /// The links between the sizes of a large bin do not meet.
    CorruptedSizeLinks,
    /// The front of the unsorted bin does not know the bin, when a free puts a chunk there.
    UnsortedAtFree,
    /// `realloc` of what is not a block.
    ReallocInvalidPointer,
    /// `realloc` of a block whose size word is no chunk size.
    ReallocInvalidSize,
    /// `realloc` of a block below one whose size word is no chunk size.
    ReallocInvalidNextSize,
    /// `realloc` of a mapped block whose bounds are not those of pages.
    ReallocInvalidMapping,
    /// A list of the thread's cache goes on at what is no chunk.
    CacheLink,
    /// As before, noticed when a free looked whether the list has its block.
    CacheLinkAtFree,
    /// As before, noticed as the thread ends.
    CacheLinkAtExit,
    /// A fast bin begins with what is no chunk.
    FastHead,
    /// A fast bin goes on at what is no chunk.
    FastLink,
    /// A chunk of a fast bin has the size of another.
    FastSize,
    /// As [`HeapFault::FastLink`], noticed as the fast bins are emptied.
    ConsolidatedLink,
    /// As [`HeapFault::FastSize`], noticed as the fast bins are emptied.
    ConsolidatedSize,
    /// As [`HeapFault::SizeMismatchBelow`], noticed as the fast bins are emptied.
    ConsolidatedBelow,
    /// The links of a small bin do not meet.
    SmallLinks,
    /// The size word of a chunk of the unsorted bin is no chunk size.
    UnsortedSize,
    /// The size word above a chunk of the unsorted bin is no chunk size.
    UnsortedNextSize,
    /// The size of a chunk of the unsorted bin and its copy in the chunk above disagree.
    UnsortedMismatch,
    /// The links of the unsorted bin do not meet.
    UnsortedLinks,
    /// The chunk above one of the unsorted bin takes that for live.
    UnsortedInUse,
    /// The front of the unsorted bin does not know the bin, when the rest of a chunk of the request's own bin goes there.
    UnsortedAtSplit,
    /// As before, of the rest of a chunk of a larger bin.
    UnsortedAtBestFit,
    /// The links between the sizes of a large bin do not meet where a chunk is put in.
    LargeSizeLinks,
    /// The links of a large bin do not meet where a chunk is put in.
    LargeLinks,
    /// The top is larger than all that the arena has.
    TopSize,
    /// The top is too small, or does not end with a page.
    TopShape,
}

/// Damage that an operation came upon in the heap itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// What glibc would end the program for.
    pub fault: HeapFault,
    /// The user address of the chunk at which it was noticed, as far as the damaged words tell.
    pub addr: Addr,
}

impl HeapFault {
    /// The line that a release of glibc writes to standard error before it aborts, without the line end.
    const fn words_of(self, policy: &Policy) -> &'static str {
        match self {
            HeapFault::NotABlock | HeapFault::InvalidPointer => "free(): invalid pointer",
            HeapFault::InvalidSize => "free(): invalid size",
            HeapFault::InvalidMapping => "munmap_chunk(): invalid pointer",
            HeapFault::DoubleFreeCached => "free(): double free detected in tcache 2",
            HeapFault::DoubleFreeFast => "double free or corruption (fasttop)",
            HeapFault::DoubleFreeTop => "double free or corruption (top)",
            HeapFault::BeyondTop => "double free or corruption (out)",
            HeapFault::DoubleFree => "double free or corruption (!prev)",
            HeapFault::InvalidNextSize => "free(): invalid next size (normal)",
            HeapFault::InvalidNextSizeFast => "free(): invalid next size (fast)",
            HeapFault::SizeMismatchBelow => "corrupted size vs. prev_size while consolidating",
            HeapFault::SizeMismatch => "corrupted size vs. prev_size",
            HeapFault::CorruptedLinks => "corrupted double-linked list",
            HeapFault::CorruptedSizeLinks => "corrupted double-linked list (not small)",
            HeapFault::UnsortedAtFree => "free(): corrupted unsorted chunks",
            HeapFault::ReallocInvalidPointer => "realloc(): invalid pointer",
            HeapFault::ReallocInvalidSize => "realloc(): invalid old size",
            HeapFault::ReallocInvalidNextSize => "realloc(): invalid next size",
            HeapFault::ReallocInvalidMapping => "mremap_chunk(): invalid pointer",
            HeapFault::CacheLink => "malloc(): unaligned tcache chunk detected",
            HeapFault::CacheLinkAtFree => "free(): unaligned chunk detected in tcache 2",
            HeapFault::CacheLinkAtExit => "tcache_thread_shutdown(): unaligned tcache chunk detected",
            HeapFault::FastHead => "malloc(): unaligned fastbin chunk detected 2",
            HeapFault::FastLink => "malloc(): unaligned fastbin chunk detected 3",
            HeapFault::FastSize => "malloc(): memory corruption (fast)",
            HeapFault::ConsolidatedLink => "malloc_consolidate(): unaligned fastbin chunk detected",
            HeapFault::ConsolidatedSize => "malloc_consolidate(): invalid chunk size",
            HeapFault::ConsolidatedBelow => "corrupted size vs. prev_size in fastbins",
            HeapFault::SmallLinks => "malloc(): smallbin double linked list corrupted",
            HeapFault::UnsortedSize => "malloc(): invalid size (unsorted)",
            HeapFault::UnsortedNextSize => "malloc(): invalid next size (unsorted)",
            HeapFault::UnsortedMismatch => "malloc(): mismatching next->prev_size (unsorted)",
            HeapFault::UnsortedLinks => "malloc(): unsorted double linked list corrupted",
            HeapFault::UnsortedInUse => "malloc(): invalid next->prev_inuse (unsorted)",
            HeapFault::UnsortedAtSplit => "malloc(): corrupted unsorted chunks",
            HeapFault::UnsortedAtBestFit => "malloc(): corrupted unsorted chunks 2",
            HeapFault::LargeSizeLinks => "malloc(): largebin double linked list corrupted (nextsize)",
            HeapFault::LargeLinks => "malloc(): largebin double linked list corrupted (bk)",
            HeapFault::TopSize => "malloc(): corrupted top size",
            HeapFault::TopShape => policy.top_shape_words,
        }
    }
}

impl<O: Os> Heap<O> {
    /// The line that glibc writes to standard error before it aborts for a fault, without the line end.
    pub fn message(&self, fault: HeapFault) -> &'static str {
        fault.words_of(self.settings.policy())
    }
}
