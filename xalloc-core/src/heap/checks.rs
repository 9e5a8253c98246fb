//! Where libc looks whether the heap is whole, and what it finds.
//!
//! Each check stands where glibc has it and looks at no more than glibc does: a program whose damage glibc lets pass is to
//! go on here as well, and one that glibc ends is to end at the same call. The checks change nothing. They are made of
//! the words alone, so that [`super::Verdict`] can ask them about memory that may not be there.

use super::arena::ArenaState;
use super::bins::{Bins, UNSORTED, is_known_ahead, links_meet};
use super::chunk::{ALIGNMENT, FLAGS, HEADER, LARGE_MIN, MIN_CHUNK, PREV_INUSE, fast_index, round_down};
use super::fault::HeapFault;
use super::free::Merging;
use super::os::Memory;
use super::policy::{MappedLayout, Policy, ShapeChecks};
use super::words::Words;

/// What a release makes of a chunk that [`shape`] found fault with, which it says as most releases do.
#[cold]
pub(super) fn judged_by(policy: &Policy, fault: HeapFault, chunk: u64, size: u64) -> Result<(), HeapFault> {
    match policy.shape_checks {
        ShapeChecks::PlaceThenSize => Err(fault),
        ShapeChecks::SizeAtOnce if !chunk.is_multiple_of(ALIGNMENT) => Err(HeapFault::InvalidPointer),
        ShapeChecks::SizeAtOnce if size < MIN_CHUNK || chunk > size.wrapping_neg() => Err(HeapFault::InvalidSize),
        ShapeChecks::SizeAtOnce => Ok(()),
    }
}

/// Whether a chunk that comes back can have that place and size at all.
#[inline(always)]
pub(super) fn shape(chunk: u64, size: u64) -> Result<(), HeapFault> {
    if chunk > size.wrapping_neg() || !chunk.is_multiple_of(ALIGNMENT) {
        Err(HeapFault::InvalidPointer)
    } else if size < MIN_CHUNK || !size.is_multiple_of(ALIGNMENT) {
        Err(HeapFault::InvalidSize)
    } else {
        Ok(())
    }
}

/// Whether a chunk of a right shape can go to its arena, as far as that is looked at before anything changes.
pub(super) fn free<M: Memory>(
    words: Words<'_, M>,
    arena: &ArenaState,
    max_fast: u64,
    chunk: u64,
    size: u64,
) -> Result<(), HeapFault> {
    entrance(words, arena, max_fast, chunk, size)?;
    if size <= max_fast {
        return Ok(());
    }
    if !words.prev_inuse(chunk) {
        let previous_size = words.prev_size(chunk);
        let previous = chunk.wrapping_sub(previous_size);
        size_below(words, previous, previous_size, Merging::Free)?;
        unlink(words, previous)?;
    }
    let next = chunk.wrapping_add(size);
    if next != arena.top {
        if !words.inuse(next, words.size(next)) {
            unlink(words, next)?;
        }
        front_of_unsorted(words, &arena.bins, HeapFault::UnsortedAtFree)?;
    }
    Ok(())
}

/// The part of [`free`] that looks at no neighbour's lists: whether a chunk can go to a fast bin, up to `max_fast`, or to
/// where it is merged.
#[inline(always)]
pub(super) fn entrance<M: Memory>(
    words: Words<'_, M>,
    arena: &ArenaState,
    max_fast: u64,
    chunk: u64,
    size: u64,
) -> Result<(), HeapFault> {
    let next = chunk.wrapping_add(size);
    if size <= max_fast {
        if !is_size_in(arena, words.head(next)) {
            return Err(HeapFault::InvalidNextSizeFast);
        }
        return if arena.fast[fast_index(size)] == chunk { Err(HeapFault::DoubleFreeFast) } else { Ok(()) };
    }
    if chunk == arena.top {
        return Err(HeapFault::DoubleFreeTop);
    }
    if arena.contiguous && arena.is_main() && arena.top != 0 && next >= arena.top.wrapping_add(words.size(arena.top)) {
        return Err(HeapFault::BeyondTop);
    }
    let next_head = words.head(next);
    if next_head & PREV_INUSE == 0 {
        return Err(HeapFault::DoubleFree);
    }
    if !is_size_in(arena, next_head) {
        return Err(HeapFault::InvalidNextSize);
    }
    Ok(())
}

/// Whether a size word is one that a chunk of the arena can have. The lower bound is held against the word with its
/// flags: a fence of 16 bytes passes.
#[inline(always)]
fn is_size_in(arena: &ArenaState, head: u64) -> bool {
    head > HEADER && head & !FLAGS < arena.system_bytes
}

/// Whether the free chunk below is as long as the chunk above it says.
#[inline]
pub(super) fn size_below<M: Memory>(
    words: Words<'_, M>,
    previous: u64,
    previous_size: u64,
    merging: Merging,
) -> Result<(), HeapFault> {
    if words.size(round_down(previous, 8)) == previous_size {
        return Ok(());
    }
    Err(match merging {
        Merging::Free => HeapFault::SizeMismatchBelow,
        Merging::Consolidation => HeapFault::ConsolidatedBelow,
    })
}

/// Whether a chunk can leave whatever list it is in: what [`Bins::unlink`] looks at, which also does it.
pub(super) fn unlink<M: Memory>(words: Words<'_, M>, chunk: u64) -> Result<(), HeapFault> {
    let size = words.size(chunk);
    if words.prev_size(chunk.wrapping_add(size)) != size {
        return Err(HeapFault::SizeMismatch);
    }
    if !links_meet(words, chunk) {
        return Err(HeapFault::CorruptedLinks);
    }
    if size < LARGE_MIN {
        return Ok(());
    }
    match words.smaller(chunk) {
        0 => Ok(()),
        smaller => size_links(words, chunk, smaller, words.larger(chunk)),
    }
}

/// Whether the neighbours of a head in the ring of sizes know it.
#[inline(always)]
pub(super) fn size_links<M: Memory>(
    words: Words<'_, M>,
    head: u64,
    smaller: u64,
    larger: u64,
) -> Result<(), HeapFault> {
    let do_meet = if (smaller | larger).is_multiple_of(8) {
        words.larger(smaller) == head && words.smaller(larger) == head
    } else {
        leads_nowhere(words, smaller, larger, head)
    };
    if do_meet { Ok(()) } else { Err(HeapFault::CorruptedSizeLinks) }
}

/// What is said of size links of which one is no chunk's place, once they were followed as far as libc follows them.
#[cold]
#[inline(never)]
fn leads_nowhere<M: Memory>(words: Words<'_, M>, smaller: u64, larger: u64, head: u64) -> bool {
    if words.larger(round_down(smaller, 8)) == head {
        words.smaller(round_down(larger, 8));
    }
    false
}

/// Whether the chunk at the front of the unsorted bin knows that it is; else `otherwise`.
#[inline]
pub(super) fn front_of_unsorted<M: Memory>(
    words: Words<'_, M>,
    bins: &Bins,
    otherwise: HeapFault,
) -> Result<(), HeapFault> {
    let end = bins.end(UNSORTED);
    if words.bk(words.fd(end)) == end { Ok(()) } else { Err(otherwise) }
}

/// The size of the chunk that has waited longest in the unsorted bin, and what is ahead of it there, if it can be taken
/// out.
#[inline(always)]
pub(super) fn unsorted<M: Memory>(
    words: Words<'_, M>,
    arena: &ArenaState,
    chunk: u64,
) -> Result<(u64, u64), HeapFault> {
    let size = words.size(chunk);
    if size <= HEADER || size > arena.system_bytes {
        return Err(HeapFault::UnsortedSize);
    }
    let next = chunk + round_down(size, 8);
    let next_head = words.head(next);
    if next_head < HEADER || next_head > arena.system_bytes {
        return Err(HeapFault::UnsortedNextSize);
    }
    if words.prev_size(next) != size {
        return Err(HeapFault::UnsortedMismatch);
    }
    let ahead = words.bk(chunk);
    if !is_known_ahead(words, ahead, chunk) || words.fd(chunk) != arena.bins.end(UNSORTED) {
        return Err(HeapFault::UnsortedLinks);
    }
    if next_head & PREV_INUSE != 0 {
        return Err(HeapFault::UnsortedInUse);
    }
    Ok((size, ahead))
}

/// Whether a live chunk of an arena can change its size.
#[inline(always)]
pub(super) fn resize<M: Memory>(
    words: Words<'_, M>,
    arena: &ArenaState,
    chunk: u64,
    size: u64,
) -> Result<(), HeapFault> {
    if size <= HEADER || size >= arena.system_bytes {
        return Err(HeapFault::ReallocInvalidSize);
    }
    let next = chunk + round_down(size, 8);
    if !is_size_in(arena, words.head(next)) {
        return Err(HeapFault::ReallocInvalidNextSize);
    }
    Ok(())
}

/// The mapping of a mapped chunk, or `None` if its words cannot be those of one.
pub(super) fn mapping<M: Memory>(
    words: Words<'_, M>,
    chunk: u64,
    page_bytes: u64,
    layout: MappedLayout,
) -> Option<(u64, u64)> {
    let offset_bytes = layout.offset(words.prev_size(chunk));
    let start = chunk.wrapping_sub(offset_bytes);
    let total = words.size(chunk).wrapping_add(offset_bytes).wrapping_add(layout.tail_bytes());
    let in_page = chunk.wrapping_add(HEADER) % page_bytes;
    let is_one = (start | total).is_multiple_of(page_bytes) && (in_page == 0 || in_page.is_power_of_two());
    is_one.then_some((start, total))
}

#[cfg(test)]
mod tests {
    use crate::heap::sim::Simulation;
    use crate::heap::words::Words;
    use crate::heap::{HeapFault, NoSink, Policy, Tunables};

    /// What a free says of a live block whose size word was overwritten.
    fn said_of(policy: &Policy, head: u64) -> Option<&'static str> {
        let mut process = Simulation::new(policy, &Tunables::NONE, 2);
        let block = process.malloc(0, &mut NoSink, 24).unwrap().addr;
        Words(process.heap().system()).set_head(block.0 - 16, head);
        let fault = process.free(0, &mut NoSink, block).err()?;
        Some(process.heap().message(fault))
    }

    #[test]
    fn each_release_says_of_an_impossible_size_what_it_says_in_the_real_libc() {
        for policy in [Policy::GLIBC_2_31, Policy::GLIBC_2_36, Policy::GLIBC_2_41] {
            assert_eq!(said_of(&policy, 0), Some("free(): invalid pointer"));
            assert_eq!(said_of(&policy, !0xf | 1), Some("free(): invalid pointer"));
            assert_eq!(said_of(&policy, 0x10), Some("free(): invalid size"));
            assert_eq!(said_of(&policy, 0x29), Some("free(): invalid size"));
        }
        for policy in [Policy::GLIBC_2_43, Policy::GLIBC_2_44] {
            assert_eq!(said_of(&policy, 0), Some("free(): invalid size"));
            assert_eq!(said_of(&policy, !0xf | 1), Some("free(): invalid size"));
            assert_eq!(said_of(&policy, 0x10), Some("free(): invalid size"));
            assert_eq!(said_of(&policy, 0x29), None);
        }
    }

    #[test]
    fn the_assertion_about_the_top_is_that_of_the_release() {
        let said = |policy: &Policy| Simulation::new(policy, &Tunables::NONE, 2).heap().message(HeapFault::TopShape);
        for (policy, place) in [
            (Policy::GLIBC_2_36, "malloc assertion failure in sysmalloc: (old"),
            (Policy::GLIBC_2_41, "malloc.c:2601 (sysmalloc): assertion failed: (old"),
            (Policy::GLIBC_2_43, "malloc.c:2371 (sysmalloc): assertion failed: (old"),
            (Policy::GLIBC_2_44, "malloc.c:2199 (sysmalloc): assertion failed: (old"),
        ] {
            assert!(said(&policy).contains(place), "{}", said(&policy));
        }
    }
}
