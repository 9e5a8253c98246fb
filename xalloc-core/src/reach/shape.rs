//! Shapes of data that are held by a pointer into their middle.
//!
//! Each rule looks at a few words around the pointer. A rule that is met by chance hides a possible leak, so each asks
//! for two facts that agree and none is satisfied by zeroes.

use super::{Block, Memory};

/// Whether `value`, which lies at `at` and points into the middle of `block`, is how such a block is held.
pub(super) fn explains(block: &Block, value: u64, at: u64, memory: &mut impl Memory) -> bool {
    let offset = value - block.addr;
    if !offset.is_multiple_of(8) {
        return false;
    }
    let Some(first) = memory.word(block.addr) else { return false };
    (offset == 8 && (is_array_cookie(block, first) || is_length_word(block, first)))
        || (offset == 16 && is_shared_count(block, first, memory))
        || (offset == 24 && is_old_string(block, first, memory))
        || is_aligned_inside(block, value, memory)
        || is_exception(offset, value, memory)
        || is_swiss_table(block, value, at, memory)
        || is_second_base(first, value, memory)
        || is_list_node(block, value, at, memory)
}

/// `new T[n]` of a type with a destructor: the count lies before the elements (Itanium C++ ABI, 2.7).
fn is_array_cookie(block: &Block, first: u64) -> bool {
    let elements_bytes = block.size_bytes() - 8;
    first != 0 && first <= elements_bytes && elements_bytes.is_multiple_of(first)
}

/// An allocator that keeps the size in front of what it hands out, as sqlite's does.
fn is_length_word(block: &Block, first: u64) -> bool {
    first != 0 && (first == block.size_bytes() - 8 || first == (block.size_bytes() - 8).next_multiple_of(8))
}

/// Rust's `ArcInner` and `RcInner`: two counters, then the value that `into_raw` points to.
fn is_shared_count(block: &Block, strong: u64, memory: &mut impl Memory) -> bool {
    const MANY: u64 = 1 << 20;
    let weak = memory.word(block.addr + 8);
    (1..MANY).contains(&strong) && weak.is_some_and(|weak| (1..MANY).contains(&weak))
}

/// The string of libstdc++ before C++11: length, capacity, a count of references, then the text that it points to.
fn is_old_string(block: &Block, length: u64, memory: &mut impl Memory) -> bool {
    let capacity = memory.word(block.addr + 8);
    // The capacity is rounded so that the allocation fills pages; it always fits, with the text's NUL.
    capacity.is_some_and(|capacity| {
        length <= capacity && capacity != 0 && capacity.checked_add(25).is_some_and(|bytes| bytes == block.size_bytes())
    })
}

/// An aligned allocation on top of `malloc`: the address to free lies before what was handed out.
fn is_aligned_inside(block: &Block, value: u64, memory: &mut impl Memory) -> bool {
    value - block.addr >= 8 && memory.word(value - 8) == Some(block.addr)
}

/// A C++ exception: the runtime's header lies before it, and ends with the unwinder's, of four words, whose first names
/// the language (Itanium C++ ABI, exception handling, 1.2 and 2.2); its last byte tells an exception of its own from one
/// that stands for another.
fn is_exception(offset: u64, value: u64, memory: &mut impl Memory) -> bool {
    const UNWINDERS_BYTES: u64 = 32;
    const LANGUAGES: [u64; 2] = [u64::from_be_bytes(*b"GNUCC++\0"), u64::from_be_bytes(*b"CLNGC++\0")];
    let class = if offset >= UNWINDERS_BYTES { memory.word(value - UNWINDERS_BYTES) } else { None };
    class.is_some_and(|class| LANGUAGES.contains(&(class & !1)))
}

/// A hash table of Rust's: the pointer is to the bytes of control behind the buckets, one for each bucket and for a group
/// of 16 more, and the bucket count less one is its neighbour.
fn is_swiss_table(block: &Block, value: u64, at: u64, memory: &mut impl Memory) -> bool {
    const GROUP_BYTES: u64 = 16;
    let Some(buckets) = block.end().checked_sub(value + GROUP_BYTES).filter(|buckets| buckets.is_power_of_two()) else {
        return false;
    };
    value.is_multiple_of(GROUP_BYTES)
        && [at.wrapping_add(8), at.wrapping_sub(8)].into_iter().any(|at| memory.word(at) == Some(buckets - 1))
}

/// A pointer to a second base class: a table of virtual functions at the object's start, and another at the pointer.
fn is_second_base(first: u64, value: u64, memory: &mut impl Memory) -> bool {
    let second = memory.word(value);
    second.is_some_and(|second| second != first && is_table(second, memory)) && is_table(first, memory)
}

/// A table of virtual functions: in constant data, and one of its first entries is code. Pure functions have entries too.
fn is_table(addr: u64, memory: &mut impl Memory) -> bool {
    if !addr.is_multiple_of(8) || !memory.is_constant(addr) {
        return false;
    }
    let mut entries = [0; 3];
    let read = memory.copy(addr, &mut entries);
    entries.iter().take(read).any(|&entry| memory.is_code(entry))
}

/// A node of a list that is a member of its element: its neighbours point back to it.
fn is_list_node(block: &Block, value: u64, at: u64, memory: &mut impl Memory) -> bool {
    if value + 8 > block.end() {
        return false;
    }
    let next = memory.word(value).unwrap_or(0);
    let previous = memory.word(value + 8).unwrap_or(0);
    let inside = |addr: u64| block.addr <= addr && addr < block.end();
    // Both ways: the next node's link back, or the previous one's link forward, is this node. A node that only points to
    // itself is in no list.
    let next_agrees = next != value && !inside(next) && next != 0 && memory.word(next.wrapping_add(8)) == Some(value);
    let previous_agrees = previous != value
        && !inside(previous)
        && previous != 0
        && memory.word(previous) == Some(value)
        // Where the only neighbour is the word that was just followed, that word must be a list's head: with the
        // node's `next` empty or a way back to it.
        && (previous != at || next == 0 || next == previous || next_agrees);
    next_agrees || previous_agrees
}
