//! A pointer that was refused: what is said of it, and what becomes of the program.
//!
//! The report goes to standard error by system calls, from memory on the stack, so it can be made inside of `malloc` and
//! in a signal handler. It says what is wrong, on which thread, by which calls, and what lies there and beside it; then
//! the program ends as libc ends it, by its message and `abort`, unless the user asked to go on. Where a recorder is,
//! the fault is an event with its stack, and the trace knows who allocated the blocks that the report names.

use core::ops::ControlFlow;

use xalloc_core::heap::{Class, Explanation, HeapFault, Neighbour};
use xalloc_core::intern::{FrameMeaning, Trie};
use xalloc_core::session::on_error;
use xalloc_core::units::{Addr, StackId};
use xalloc_core::wire::{Call, Event, FaultKind};

use crate::arch::Entry;
use crate::backend::{self, HEAP};
use crate::config::PATH;
use crate::guard::Inside;
use crate::host;
use crate::modules::{maps, range_at};
use crate::stacks;
use crate::text::Text;
use crate::thread::Own;

/// Bytes of a report; what does not fit is cut.
const REPORT: usize = 8192;
/// Frames that a report names.
const FRAMES: usize = 24;

/// Refuses what the program gave to a free or a realloc. Returns where the user asked to go on after errors.
#[cold]
#[inline(never)]
pub(super) fn refuse(mut inside: Inside<'static>, entry: Entry, call: Call, addr: Addr, fault: HeapFault) {
    let mut explanation = HEAP.explain(&mut inside.own().cache, addr, fault);
    if explanation.kind == FaultKind::NotABlock && is_beside(entry.sp as u64, addr) {
        explanation.kind = FaultKind::OnStack;
    }
    let mut text = Text::<REPORT>::new();
    write_head(&mut text, call, addr, explanation.kind);
    if let Some(segment) = inside.recording() {
        let Own { stream, capture, .. } = inside.own();
        let stack = stacks::stack_of(capture, stream, segment, entry);
        let event = Event::Fault { addr, kind: explanation.kind };
        stream.event(segment, segment.now(), stack, event);
        write_stack(&mut text, &segment.trie(), stack);
    } else {
        write_frame(&mut text, entry.ip as u64);
    }
    write_surroundings(&mut text, &explanation);
    // A handler of SIGABRT may allocate: the hook ends first.
    drop(inside);
    host::print_error(text.as_bytes());
    end_unless_wanted(message(call, fault, &explanation));
}

/// Refuses in a hook that has no state to look around with, because it interrupts another or runs before there is any.
#[cold]
#[inline(never)]
pub(super) fn refuse_blindly(call: Call, addr: Addr, fault: HeapFault) {
    let mut text = Text::<REPORT>::new();
    write_head(&mut text, call, addr, FaultKind::NotABlock);
    text.push(b"  the call interrupted another call into the heap, so no more can be said\n");
    host::print_error(text.as_bytes());
    end_unless_wanted(fault.message());
}

fn end_unless_wanted(message: &str) {
    if backend::on_error() != on_error::REPORT {
        host::abort_with(message);
    }
}

/// Whether both addresses are in one mapping.
fn is_beside(sp: u64, addr: Addr) -> bool {
    range_at(addr.0).is_some_and(|range| range.contains(&sp))
}

/// What libc says before it aborts.
fn message(call: Call, fault: HeapFault, explanation: &Explanation) -> &'static str {
    if fault != HeapFault::NotABlock {
        return fault.message();
    }
    let class = explanation.span.map(|span| span.class);
    match (explanation.kind, class) {
        _ if matches!(call, Call::Realloc | Call::Reallocarray) => HeapFault::ReallocInvalidPointer.message(),
        (FaultKind::DoubleFree, Some(Class::Cached)) => HeapFault::DoubleFreeCached.message(),
        (FaultKind::DoubleFree, Some(Class::Fast)) => HeapFault::DoubleFreeFast.message(),
        (FaultKind::DoubleFree, Some(Class::Top)) => HeapFault::DoubleFreeTop.message(),
        (FaultKind::DoubleFree, _) => HeapFault::DoubleFree.message(),
        _ => HeapFault::InvalidPointer.message(),
    }
}

fn write_head(text: &mut Text<REPORT>, call: Call, addr: Addr, kind: FaultKind) {
    text.push(b"xalloc: ");
    text.push(match call {
        Call::Realloc => b"realloc".as_slice(),
        Call::Reallocarray => b"reallocarray",
        Call::FreeSized => b"free_sized",
        Call::FreeAlignedSized => b"free_aligned_sized",
        Call::Free
        | Call::Malloc
        | Call::Calloc
        | Call::Memalign
        | Call::AlignedAlloc
        | Call::PosixMemalign
        | Call::Valloc
        | Call::Pvalloc
        | Call::GlobalAlloc => b"free",
    });
    text.push(b" of ");
    text.push_address(addr.0);
    text.push(match kind {
        FaultKind::NotABlock => b", which is no block of the heap".as_slice(),
        FaultKind::InsideBlock => b", which is inside of a block",
        FaultKind::OnStack => b", which is on the stack",
        FaultKind::DoubleFree => b", which is free already",
        FaultKind::Overwritten => b": a size in the heap was overwritten there",
        FaultKind::CorruptedLists => b": a list of free memory was overwritten there",
    });
    text.push(b"\n  by thread ");
    text.push_number(u64::from(host::tid()));
    let name = host::thread_name();
    text.push(b" (");
    text.push(name.split(|&byte| byte == 0).next().unwrap_or_default());
    text.push(b") of process ");
    text.push_number(u64::from(host::pid()));
    text.push(b"\n");
}

fn write_stack(text: &mut Text<REPORT>, trie: &Trie<'_>, stack: StackId) {
    let mut next = stack;
    for _ in 0..FRAMES {
        let Some((parent, frame)) = trie.get(next) else { return };
        match frame.meaning() {
            // The call is what the frame is about, and it lies before the address behind it.
            FrameMeaning::ReturnAddress(address) => write_frame(text, address.wrapping_sub(1)),
            FrameMeaning::Interrupted(address) => write_frame(text, address),
            FrameMeaning::Cut | FrameMeaning::Paused | FrameMeaning::Generation(_) => return,
        }
        next = parent;
    }
}

fn write_frame(text: &mut Text<REPORT>, address: u64) {
    text.push(b"    at ");
    match file_at(address) {
        Some((path, start)) => {
            text.push(path.as_bytes());
            text.push(b"+");
            text.push_address(address.wrapping_sub(start));
        }
        None => text.push_address(address),
    }
    text.push(b"\n");
}

/// The file that is mapped at `address`, and where the first of its mappings starts.
fn file_at(address: u64) -> Option<(Text<PATH>, u64)> {
    let mut path = Text::<PATH>::new();
    let mut start = 0;
    let found = maps::search(|mapping| {
        if path.as_bytes() != mapping.path || mapping.path.is_empty() {
            path = Text::of(mapping.path);
            start = mapping.range.start;
        }
        match mapping.range.contains(&address) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    (found.is_some() && !path.as_bytes().is_empty()).then_some((path, start))
}

fn write_surroundings(text: &mut Text<REPORT>, explanation: &Explanation) {
    if let Some(span) = explanation.span {
        text.push(b"  there: ");
        text.push_address(span.addr.0);
        text.push(b", a chunk of ");
        text.push_number(span.size_bytes);
        text.push(b" bytes of arena ");
        text.push_number(u64::from(span.arena.0));
        text.push(match span.class {
            Class::Live => b", in use\n".as_slice(),
            Class::Cached => b", in a thread's cache\n",
            Class::Fast => b", in a fast bin\n",
            Class::Binned => b", in a bin\n",
            Class::Top => b", the top\n",
            Class::Metadata => b", the heap's own\n",
        });
    }
    write_neighbour(text, b"  live block at or below: ", explanation.below);
    write_neighbour(text, b"  live block above: ", explanation.above);
}

fn write_neighbour(text: &mut Text<REPORT>, what: &[u8], neighbour: Option<Neighbour>) {
    let Some(Neighbour { addr, usable_bytes }) = neighbour else { return };
    text.push(what);
    text.push_address(addr.0);
    match usable_bytes {
        Some(bytes) => {
            text.push(b", ");
            text.push_number(bytes);
            text.push(b" bytes\n");
        }
        None => text.push(b", its size was overwritten\n"),
    }
}
