//! What a program does wrong with its heap: what is said of it, and what becomes of the program.
//!
//! The report goes to standard error by system calls, from memory on the stack, so it can be made inside of `malloc` and
//! in a signal handler. It says what is wrong, on which thread, by which calls, what lies there and beside it, and what
//! libc does about it. Where a recorder is, the fault is an event with its stack, and the trace knows who allocated and
//! freed the blocks that the report names.
//!
//! # What becomes of the program
//! What would become of it on libc: where that aborts, it ends by the same message and `abort`, unless the user asked to
//! go on; where libc would read memory that is not there, that is read; and where libc notices nothing, the program goes
//! on, and the free is done as libc does it: what that makes of the lists of free chunks decides how later calls end. Where
//! the user asked to go on after errors, a refused pointer is left alone and the heap stays whole.
//!
//! # Safety
//! - What the heap reads to find that out is what the kernel has said can be read. A program that gives
//!   such memory back at that very moment ends by SIGSEGV, as it may on libc.
#![allow(unsafe_code)]

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU32, Ordering};

use xalloc_core::heap::{self, Class, Damage, Explanation, HeapFault, Neighbour, Verdict};
use xalloc_core::intern::{FrameMeaning, Trie};
use xalloc_core::session::on_error;
use xalloc_core::units::{Addr, StackId};
use xalloc_core::wire::{Call, Event, FaultKind};

use crate::arch::{self, Entry};
use crate::backend::{self, HEAP};
use crate::config::PATH;
use crate::guard::{self, Access, Brief, Inside};
use crate::host;
use crate::modules::{maps, range_at};
use crate::stacks;
use crate::text::Text;

/// Bytes of a report; what does not fit is cut.
const REPORT: usize = 8192;
/// Frames that a report names.
const FRAMES: usize = 24;
/// Reports that a process prints; all faults are recorded.
const PRINTED: u32 = 16;

/// What the program asked for when a fault was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// By which function.
    pub(super) call: Call,
    /// The pointer that it gave, or where damage was noticed.
    pub(super) addr: Addr,
    /// The size that it gave; 0 to a free.
    pub(super) bytes: u64,
}

/// What the process's mappings allow.
struct AsMapped;

impl heap::Access for AsMapped {
    fn is_readable(&self, addr: u64) -> bool {
        host::is_readable(addr as usize)
    }

    fn is_writable(&self, addr: u64) -> bool {
        maps::at(addr, |mapping| mapping.permissions[1] == b'w').unwrap_or(false)
    }
}

/// Refuses a pointer that is no live block. Returns where libc or the user lets the program go on.
#[cold]
#[inline(never)]
pub(super) fn refuse(mut inside: Inside<'_>, entry: Entry, asked: Asked, fault: HeapFault) {
    let verdict = if fault == HeapFault::NotABlock {
        let cache = &mut inside.own().cache;
        if asked.call.is_realloc() {
            // SAFETY: the kernel is asked what can be read.
            unsafe { HEAP.verdict_on_realloc(cache, asked.addr, asked.bytes, AsMapped) }
        } else {
            // SAFETY: as above.
            unsafe { HEAP.verdict_on_free(cache, asked.addr, AsMapped) }
        }
    } else {
        Verdict::Aborts(fault)
    };
    report(&mut inside, entry, asked, fault, Some(verdict));
    if is_followed(asked, verdict) {
        // SAFETY: the verdict, made above, has looked at what can be read and written.
        unsafe { HEAP.free_unnoticed(&mut inside.own().cache, asked.addr) };
    }
    // A handler of the signal that follows may allocate: the hook ends first.
    drop(inside);
    follow(verdict);
}

/// Whether a free that libc lets pass is done as libc does it. A `realloc` is not: who called gives the program a block of
/// its own.
fn is_followed(asked: Asked, verdict: Verdict) -> bool {
    let is_free = asked.call.is_free() || asked.call.is_realloc() && asked.bytes == 0;
    is_free && verdict == Verdict::Passes && backend::is_core() && backend::on_error() != on_error::REPORT
}

/// Reports that the words of a live block do not agree with those around it, which libc may not notice: the call is to
/// be served as libc serves it.
#[cold]
#[inline(never)]
pub(super) fn warn(inside: &mut Inside<'_>, entry: Entry, asked: Asked, fault: HeapFault) {
    report(inside, entry, asked, fault, None);
}

/// Reports what a call came upon in the heap. Returns where the user asked to go on after errors.
#[cold]
#[inline(never)]
pub(super) fn damaged(mut inside: Inside<'_>, entry: Entry, call: Call, damage: Damage) {
    let verdict = Verdict::Aborts(damage.fault);
    let asked = Asked { call, addr: damage.addr, bytes: 0 };
    report(&mut inside, entry, asked, damage.fault, Some(verdict));
    drop(inside);
    follow(verdict);
}

/// As [`damaged`], of a hook that records nothing; an entry of zeroes is not known.
#[cold]
#[inline(never)]
pub(super) fn damaged_briefly(brief: Brief, entry: Entry, call: Call) {
    drop(brief);
    if let Access::Inside(mut inside) = guard::enter()
        && let Some(damage) = inside.own().cache.take_damage()
    {
        damaged(inside, entry, call, damage);
    }
}

/// Refuses in a hook that has no state to look around with, because it interrupts another. What libc, whose `free` cannot
/// be interrupted by itself, would do is not known; the program goes on.
#[cold]
#[inline(never)]
pub(super) fn refuse_blindly(asked: Asked) {
    let mut text = Text::<REPORT>::new();
    write_head(&mut text, asked, FaultKind::NotABlock);
    text.push(b"  the call interrupted another call into the heap, so no more can be said; it has no effect\n");
    print(&text);
}

/// Ends the program as libc ends it for a fault that was reported already, unless the user asked to go on.
pub(super) fn follow(verdict: Verdict) {
    if backend::on_error() == on_error::REPORT {
        return;
    }
    match verdict {
        Verdict::Aborts(fault) => host::abort_with(HEAP.message(fault)),
        Verdict::CrashesReading(addr) => arch::read_byte(addr.0 as usize),
        Verdict::CrashesWriting(addr) => arch::touch_byte(addr.0 as usize),
        Verdict::Passes => {}
    }
}

/// Records a fault and prints what is known of it.
fn report(inside: &mut Inside<'_>, entry: Entry, asked: Asked, fault: HeapFault, verdict: Option<Verdict>) {
    let addr = asked.addr;
    let mut explanation = HEAP.explain(&mut inside.own().cache, addr, fault);
    if explanation.kind == FaultKind::NotABlock && is_beside(entry.sp as u64, addr) {
        explanation.kind = FaultKind::OnStack;
    }
    let mut text = Text::<REPORT>::new();
    write_head(&mut text, asked, explanation.kind);
    if let Some(segment) = inside.recording() {
        let stack = stacks::stack_of(inside.own(), entry);
        let stream = &mut inside.own().stream;
        let event = Event::Fault { addr, kind: explanation.kind };
        stream.event(segment, segment.now(), stack, event);
        write_stack(&mut text, &segment.trie(), stack);
    } else if entry.ip != 0 {
        write_frame(&mut text, entry.ip as u64);
    }
    write_surroundings(&mut text, &explanation);
    let goes_on = backend::on_error() == on_error::REPORT;
    text.push(match verdict {
        Some(Verdict::Aborts(_)) if goes_on => b"  libc would end the program for it\n".as_slice(),
        Some(Verdict::Aborts(_)) => b"  libc ends the program for it:\n",
        Some(Verdict::CrashesReading(_) | Verdict::CrashesWriting(_)) if goes_on => {
            b"  libc would touch memory that it may not, and the kernel would end the program\n"
        }
        Some(Verdict::CrashesReading(_)) => {
            b"  libc reads memory that is not there, for which the kernel ends the program\n"
        }
        Some(Verdict::CrashesWriting(_)) => {
            b"  libc writes to memory that cannot be, for which the kernel ends the program\n"
        }
        Some(verdict @ Verdict::Passes) if is_followed(asked, verdict) => {
            b"  libc lets it pass, and its lists of free memory are damaged by it, here as there\n"
        }
        Some(Verdict::Passes) => b"  libc lets it pass; here it has no effect\n",
        None => b"  libc lets it pass, and the call is served\n",
    });
    print(&text);
}

/// Prints a report, unless there were many.
fn print(text: &Text<REPORT>) {
    static REPORTS: AtomicU32 = AtomicU32::new(0);
    match REPORTS.fetch_add(1, Ordering::Relaxed) {
        0..PRINTED => host::print_error(text.as_bytes()),
        PRINTED => host::print_error(b"xalloc: more faults like these are recorded, but not printed\n"),
        _ => {}
    }
}

/// Whether both addresses are in one mapping.
fn is_beside(sp: u64, addr: Addr) -> bool {
    range_at(addr.0).is_some_and(|range| range.contains(&sp))
}

fn write_head(text: &mut Text<REPORT>, Asked { call, addr, .. }: Asked, kind: FaultKind) {
    text.push(b"xalloc: ");
    text.push(call.name().as_bytes());
    text.push(if call.takes_block() { b" of ".as_slice() } else { b" came upon " });
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
            Class::Live if explanation.kind == FaultKind::DoubleFree => b", which looks as if in use\n".as_slice(),
            Class::Live => b", in use\n",
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
