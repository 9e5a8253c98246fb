//! Which memory is a root, and the walk over it.
//!
//! Everything that the program can write is, but for: the heap, of which only live blocks count; this library's own
//! memory, the set of live blocks included; stacks below their stack pointers, and stacks for signal handlers while no
//! handler of the program's runs; the stacks that libc keeps of threads that are gone.
//!
//! # Threads that are gone
//! glibc keeps their stacks for the next thread, with all that was on them. They are told by the descriptor at their
//! upper end, which names itself in two words and whose thread number the kernel has cleared. Of a thread that somebody
//! may still join the descriptor counts: its result is in there. `pthread_join` makes the number -1; a detached thread
//! names itself a third time, as the one that joins it.
//!
//! # Where the heap is
//! Chunk headers say it, for this library's heap and for glibc's alike: the break, aligned sub-heaps, mappings of single
//! chunks. Of another allocator it is known only what its live blocks lie in; those mappings are left out whole.
//!
//! # Safety
//! - The calling thread's descriptor is read below the length that `arch` answers for.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ops::{ControlFlow, Range};

use xalloc_core::reach::{Block, Marker, Memory};
use xalloc_core::session::blocks::{self, REGION_PATH, Region, region};
use xalloc_core::units::{Addr, PAGE_BYTES, StackId};

use super::excluded::Excluded;
use super::memory::{Kind, Map, Own, Piece};
use super::own_break;
use super::pages::{Pages, Wanted};
use super::root_regions;
use super::stop::{self, Seen, Stopped};
use super::way_out::stack_end;
use super::{MOST_HINT_WORDS, Whose};
use crate::arch;
use crate::backend::{self, HEAP, next};
use crate::host;
use crate::modules;

/// What of the calling thread counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boundary {
    /// Its stack counts from here on.
    pub(super) sp: u64,
    /// Registers that hold something of the program's.
    pub(super) registers: [u64; 6],
    /// The stack of the call that ends the process, where that leaves frames at work.
    pub(super) stack: StackId,
    /// Where a signal interrupted it, if that is how it came here: then all of its registers may hold something.
    pub(super) interrupted: Interrupted,
    /// Its number; in a copy of the process, that of the thread that was copied.
    pub(super) tid: u32,
}

/// The context that the kernel passed to a signal handler of the calling thread, which has not returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupted(*mut c_void);

impl Interrupted {
    /// The thread came by a call.
    pub(super) const NOWHERE: Interrupted = Interrupted(core::ptr::null_mut());
}

impl Boundary {
    /// The boundary in a signal handler with this context.
    pub(super) fn interrupted(context: *mut c_void) -> Option<Boundary> {
        let sp = stop::stack_in_use(stop::registers_of(context)?, &libc_code());
        let interrupted = Interrupted(context);
        Some(Boundary { sp, registers: [0; 6], stack: StackId::NONE, interrupted, tid: host::tid() })
    }
}

/// What was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) root_bytes: u64,
    pub(super) unreadable_pages: u64,
    pub(super) regions: u64,
}

/// Alignment and size of a sub-heap of glibc's, unless huge pages make it another.
const SUB_HEAP_BYTES: u64 = 64 << 20;
/// Flags of a chunk's size word.
const IS_MMAPPED: u64 = 2;
const NON_MAIN: u64 = 4;
/// The calling convention leaves so much below the stack pointer to the running function.
pub(super) const RED_ZONE_BYTES: u64 = 128;
/// More than a thread's descriptor takes, less than that and a page.
const DESCRIPTOR_BYTES: u64 = 0x700;

/// A piece of memory that holds roots, and how its pages are chosen.
fn counts(piece: &Piece) -> Option<Wanted> {
    let is_shared = piece.permissions[3] == b's';
    match piece.kind {
        Kind::Apart | Kind::Break => None,
        Kind::File | Kind::Anonymous | Kind::Stack => match (piece.is_readable(), piece.is_writable()) {
            (false, _) => None,
            (true, true) if is_shared => Some(Wanted::Shared),
            (true, true) => Some(Wanted::Present),
            // Data that was made read-only when it was complete.
            (true, false) if !is_shared => Some(Wanted::Written),
            (true, false) => None,
        },
    }
}

/// Whether the mapping below ends where this one begins, and cannot be read: a stack's guard.
fn is_guarded(map: &Map, at: usize) -> bool {
    let pieces = map.pieces();
    let below = at.checked_sub(1).and_then(|below| pieces.get(below));
    below.zip(pieces.get(at)).is_some_and(|(below, piece)| below.end == piece.start && !below.is_readable())
}

/// Leaves out the part of a stack below `sp`.
fn exclude_dead_part(excluded: &mut Excluded, map: &Map, sp: u64) {
    let Some(at) = map.find(sp) else { return };
    let Some(piece) = map.pieces().get(at) else { return };
    if piece.kind == Kind::Stack || is_guarded(map, at) {
        excluded.add(piece.start..sp);
    }
}

/// Marks everything that the program can reach.
pub(super) fn mark(
    mut marker: Marker<'_, Own<'_>>,
    map: &Map,
    stopped: &Stopped,
    boundary: &Boundary,
    whose: Whose,
    regions: &mut [Region],
) -> Found {
    let pages = Pages::open(whose);
    let mut found = Found { root_bytes: 0, unreadable_pages: 0, regions: 0 };
    let Some(mut excluded) = Excluded::new() else { return found };
    exclude_heap(&mut excluded, map, &mut marker);
    exclude_live_set(&mut excluded, marker.parts().0);
    excluded.add(modules::own_extent());
    host::own::each(|range| excluded.add(range));
    exclude_dead_part(&mut excluded, map, boundary.sp);
    stopped.idle_stacks().for_each(|idle| excluded.add(idle));
    excluded.add(stop::idle_part(&host::signal_stack(), boundary.sp));
    let libcs = libc_code();
    for seen in stopped.threads(&libcs) {
        match seen {
            Seen::At { sp } => exclude_dead_part(&mut excluded, map, sp),
            Seen::Running => {}
        }
    }
    if stopped.first_is_gone()
        && let Some(piece) = map.pieces().iter().find(|piece| piece.kind == Kind::Stack)
    {
        excluded.add(piece.start..stack_end().min(piece.end));
    }
    exclude_gone_threads(&mut excluded, map, &pages, stopped, boundary.tid, &mut marker);
    excluded.settle();

    for (thread, value) in stopped.values().chain(boundary.registers.map(|value| (0, value))) {
        marker.value(u64::from(thread) + 1, value);
    }
    let Interrupted(context) = boundary.interrupted;
    if let Some(registers) = stop::registers_of(context) {
        registers.iter().for_each(|&value| marker.value(1, value as u64));
    }
    for range in stopped.saved_vectors(&libcs).chain(stop::vectors_of(context, &libcs)) {
        marker.root(range);
    }
    root_regions::each(|range| {
        found.root_bytes += range.end - range.start;
        marker.root(range);
    });
    for stack in stopped.threads(&libcs).filter_map(Seen::sp).chain([boundary.sp]) {
        marker.holding(stack);
    }
    for piece in map.pieces() {
        let before = found.root_bytes;
        let mut read = |rest: Range<u64>, wanted| {
            let whole = rest.start / PAGE_BYTES * PAGE_BYTES..rest.end.next_multiple_of(PAGE_BYTES);
            pages.runs(whole, wanted, |run| {
                let run = run.start.max(rest.start)..run.end.min(rest.end);
                found.root_bytes += run.end - run.start;
                marker.root(run);
            });
        };
        if let Some(wanted) = counts(piece) {
            excluded.rest(piece.range(), |rest| read(rest, wanted));
        } else if piece.kind == Kind::Break {
            let own = own_break::ranges().map(|own| own.start.max(piece.start)..own.end.min(piece.end));
            own.filter(|own| !own.is_empty()).for_each(|own| read(own, Wanted::Present));
        }
        if found.root_bytes > before
            && let Some(place) = regions.get_mut(found.regions as usize)
        {
            *place = describe(map, piece, marker.parts().1);
            found.regions += 1;
        }
    }
    name(regions.get_mut(..found.regions as usize).unwrap_or_default());
    marker.finish();
    found.unreadable_pages = marker.unreadable_pages();
    if marker.has_leaders() {
        hint(&mut marker, map, &mut excluded, &pages);
    }
    found
}

/// Looks for disguised pointers in roots, and in the blocks that are reachable, as far as that does not take too long.
fn hint(marker: &mut Marker<'_, Own<'_>>, map: &Map, excluded: &mut Excluded, pages: &Pages) {
    let mut left = MOST_HINT_WORDS;
    for piece in map.pieces() {
        let Some(wanted @ (Wanted::Present | Wanted::Shared)) = counts(piece) else { continue };
        excluded.rest(piece.range(), |rest| {
            let whole = rest.start / PAGE_BYTES * PAGE_BYTES..rest.end.next_multiple_of(PAGE_BYTES);
            pages.runs(whole, wanted, |run| {
                let run = run.start.max(rest.start)..run.end.min(rest.end).min(run.start + 8 * left);
                left = left.saturating_sub(marker.hint(run));
            });
        });
    }
    marker.hint_in_blocks(left);
}

fn exclude_heap(excluded: &mut Excluded, map: &Map, marker: &mut Marker<'_, Own<'_>>) {
    let is_foreign = {
        let of = |addr: usize| map.find(addr as u64);
        let (malloc, libcs) = (next::target(next::Symbol::malloc), next::target(next::Symbol::exit));
        !backend::is_core() && of(malloc) != of(libcs)
    };
    let (blocks, memory) = marker.parts();
    for block in blocks {
        let addr = block.addr;
        let at = if excluded.last_holds(addr) { None } else { map.find(addr) };
        let Some(piece) = at.and_then(|at| map.pieces().get(at)).filter(|piece| piece.kind != Kind::Break) else {
            continue;
        };
        let [prev_size, size] = if is_foreign { [0, 0] } else { header(block, memory) };
        let chunk = addr.wrapping_sub(16);
        if size & IS_MMAPPED != 0 {
            let start = chunk.wrapping_sub(prev_size) / PAGE_BYTES * PAGE_BYTES;
            let end = (chunk + (size & !7)).next_multiple_of(PAGE_BYTES);
            excluded.add(start.max(piece.start)..end.min(piece.end));
        } else if size & NON_MAIN != 0 {
            let start = addr / sub_heap_bytes() * sub_heap_bytes();
            excluded.add(start..start + sub_heap_bytes());
        } else {
            excluded.add(piece.range());
        }
    }
    for piece in map.pieces().iter().filter(|piece| is_sub_heap(piece, memory)) {
        excluded.add(piece.start..piece.start + sub_heap_bytes());
    }
}

/// Leaves out the bytes that say where live blocks are: in a row they look like pointers. Those that lie near none of
/// `blocks` are zero.
fn exclude_live_set(excluded: &mut Excluded, blocks: &[Block]) {
    excluded.add(HEAP.live_set_root());
    for block in blocks {
        let leaf = HEAP.live_set_at(Addr(block.addr));
        if !excluded.last_holds(leaf.start) {
            excluded.add(leaf);
        }
    }
}

/// The two words before a block.
fn header(block: &Block, memory: &mut impl Memory) -> [u64; 2] {
    let mut words = [0; 2];
    memory.copy(block.addr.wrapping_sub(16), &mut words);
    words
}

/// Alignment and size of a sub-heap.
fn sub_heap_bytes() -> u64 {
    if backend::is_core() { HEAP.sub_heap_bytes() } else { SUB_HEAP_BYTES }
}

/// Whether a sub-heap begins here: its header says how much of it is accessible. One of which every block is free has
/// no block to tell of it.
fn is_sub_heap(piece: &Piece, memory: &mut impl Memory) -> bool {
    if !piece.start.is_multiple_of(sub_heap_bytes()) || !piece.is_writable() || piece.kind != Kind::Anonymous {
        return false;
    }
    let mut words = [0; 4];
    memory.copy(piece.start, &mut words);
    let [_, _, size, committed] = words;
    let is_size = |bytes: u64| bytes != 0 && bytes <= sub_heap_bytes() && bytes.is_multiple_of(PAGE_BYTES);
    is_size(size) && is_size(committed) && size <= committed && piece.end >= piece.start + committed
}

/// Where the first segment of the module that the mapping belongs to begins: segments lie one behind another, and the
/// first begins with an ELF header.
fn image_start(map: &Map, mut at: usize, memory: &mut impl Memory) -> u64 {
    const MAGIC: u64 = u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0");
    let pieces = map.pieces();
    while let Some(piece) = pieces.get(at) {
        let below = at.checked_sub(1).and_then(|below| pieces.get(below));
        let goes_on = below.is_some_and(|below| below.end == piece.start && below.kind == Kind::File);
        if !goes_on || memory.word(piece.start).is_some_and(|word| word & MAGIC == MAGIC) {
            return piece.start;
        }
        at -= 1;
    }
    0
}

/// Leaves out the stacks of threads that are gone.
fn exclude_gone_threads(
    excluded: &mut Excluded,
    map: &Map,
    pages: &Pages,
    stopped: &Stopped,
    own_tid: u32,
    marker: &mut Marker<'_, Own<'_>>,
) {
    let Some(tid_offset) = tid_offset(own_tid) else { return };
    let (_, memory) = marker.parts();
    for (at, piece) in map.pieces().iter().enumerate() {
        if piece.kind != Kind::Anonymous || !piece.is_writable() || !is_guarded(map, at) {
            continue;
        }
        let mut from = piece.start;
        pages.runs(piece.range(), Wanted::Present, |run| {
            for place in run.step_by(64) {
                if memory.word(place) == Some(place) && memory.word(place + 16) == Some(place) {
                    let tid = memory.word((place + tid_offset) / 8 * 8).unwrap_or(1);
                    let tid = (tid >> (8 * ((place + tid_offset) % 8))) as u32;
                    let end = (place + DESCRIPTOR_BYTES).next_multiple_of(PAGE_BYTES).min(piece.end);
                    if tid == 0 && !is_detached(memory, place, place + tid_offset..end) {
                        excluded.add(from..place + tid_offset);
                    } else if !(stopped.has(tid) || tid == own_tid) {
                        excluded.add(from..end);
                    }
                    from = end;
                }
            }
        });
    }
}

/// Whether the descriptor of a thread names itself behind the thread's number.
fn is_detached(memory: &mut impl Memory, descriptor: u64, behind: Range<u64>) -> bool {
    (behind.start.next_multiple_of(8)..behind.end).step_by(8).any(|at| memory.word(at) == Some(descriptor))
}

/// Where libc's code is.
fn libc_code() -> Range<u64> {
    modules::range_at(next::target(next::Symbol::exit) as u64).unwrap_or_default()
}

/// Where in a thread's descriptor its number is, asked of the calling thread's own, which is `tid`; glibc has moved it never yet.
fn tid_offset(tid: u32) -> Option<u64> {
    let usual = [0x2d0].into_iter().chain((0x280..0x400).step_by(8));
    let holds = |&offset: &usize| {
        // SAFETY: by the bullet of the module; it is a multiple of 8.
        let word = unsafe { arch::descriptor_word(offset) };
        word as u32 == tid
    };
    usual.into_iter().find(holds).map(|offset| offset as u64)
}

/// What a root's address means to the recorder, but for the path, which [`name`] adds.
fn describe(map: &Map, piece: &Piece, memory: &mut impl Memory) -> Region {
    let at = map.pieces().iter().position(|other| other.start == piece.start).unwrap_or(0);
    let below = at.checked_sub(1).and_then(|below| map.pieces().get(below));
    // A module's zeroed data lies directly behind the rest of its data.
    let follows = below.filter(|below| {
        piece.kind == Kind::Anonymous && below.kind == Kind::File && below.is_writable() && below.end == piece.start
    });
    let kind = match (piece.kind, follows) {
        (Kind::Stack, _) => region::STACK,
        (Kind::File, _) => region::FILE,
        (_, Some(_)) => region::ZEROED,
        (Kind::Anonymous | Kind::Break | Kind::Apart, None) => region::ANONYMOUS,
    };
    let base = match kind {
        region::FILE => image_start(map, at, memory),
        region::ZEROED => image_start(map, at - 1, memory),
        _ => piece.start,
    };
    Region { start: piece.start, end: piece.end, base, kind, path_bytes: 0, path: [0; REGION_PATH] }
}

/// Adds their files' paths to regions, which rise: of a file's own mapping, or of the one below zeroed data. The kernel
/// writes its list anew for each reader, so all are named in one reading.
fn name(regions: &mut [Region]) {
    let _: Option<()> = modules::maps::search(|mapping| {
        let begins = [(mapping.range.start, region::FILE), (mapping.range.end, region::ZEROED)];
        for (start, kind) in begins {
            let at = regions.partition_point(|region| region.start < start);
            if let Some(region) = regions.get_mut(at).filter(|region| (region.start, region.kind) == (start, kind)) {
                let kept = mapping.path.get(mapping.path.len().saturating_sub(REGION_PATH)..).unwrap_or_default();
                for (to, from) in region.path.iter_mut().zip(kept) {
                    *to = *from;
                }
                region.path_bytes = mapping.path.len() as u32;
            }
        }
        ControlFlow::Continue(())
    });
}

const _: () = assert!(blocks::FIRST_ADDRESS <= 1 << 16);
