//! Questions about the heap, and its settings: `malloc_usable_size`, `malloc_trim`, `mallopt`, `mallinfo` and so on.
//!
//! # Safety
//! - Pointers that a C caller passes are what the C function's contract says.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::fmt;

use xalloc_core::heap::{MallInfo, NoSink, ThreadCache};
use xalloc_core::units::Addr;
use xalloc_core::wire::{Event, HeapCall};

use crate::arch::Entry;
use crate::backend::next::call;
use crate::backend::{self, HEAP};
use crate::guard::{self, Access, Inside};
use crate::segment::Segment;
use crate::stacks::{self, Steps};
use crate::thread::Own;

/// C `malloc_usable_size`.
pub(crate) unsafe fn usable_size(block: *mut c_void) -> usize {
    if block.is_null() {
        return 0;
    }
    // SAFETY: by the bullet of the module the block is live. It needs no thread state, but an allocator.
    unsafe { backend::usable_bytes(Addr(block.expose_provenance() as u64)) as usize }
}

/// C `malloc_trim`.
pub(crate) extern "C" fn on_malloc_trim(pad: usize, ip: usize, sp: usize, fp: usize) -> c_int {
    let entry = Entry { ip, sp, fp };
    let Access::Inside(mut inside) = guard::enter() else { return next_trim(pad) };
    if !backend::is_core() {
        drop(inside);
        return next_trim(pad);
    }
    let recording = inside.recording();
    let event = Event::HeapCall { call: HeapCall::MallocTrim, argument: 0, value: pad as u64 };
    tell(&mut inside, recording, event, entry);
    let own = inside.own();
    let did = match recording {
        Some(segment) => {
            let stack = stacks::stack_of_steps(own, segment, entry);
            let Own { cache, stream, .. } = own;
            let mut steps = Steps::new(segment, stream, stack);
            let did = HEAP.trim(cache, &mut steps, pad as u64);
            steps.settle();
            did
        }
        None => HEAP.trim(&mut own.cache, &mut NoSink, pad as u64),
    };
    c_int::from(did)
}

/// Records what is asked of the heap, before it is done.
fn tell(inside: &mut Inside<'_>, recording: Option<&'static Segment>, event: Event, entry: Entry) {
    if let Some(segment) = recording {
        inside.flush_spare();
        let stack = stacks::stack_of(inside.own(), entry);
        let stream = &mut inside.own().stream;
        stream.event(segment, segment.now(), stack, event);
    }
}

fn next_trim(pad: usize) -> c_int {
    if backend::is_core() { 0 } else { call!(malloc_trim as fn(usize) -> c_int, (pad), or 0) }
}

/// C `mallopt`.
pub(crate) extern "C" fn on_mallopt(parameter: c_int, value: c_int, ip: usize, sp: usize, fp: usize) -> c_int {
    let entry = Entry { ip, sp, fp };
    let access = guard::enter();
    if !backend::is_core() {
        drop(access);
        return call!(mallopt as fn(c_int, c_int) -> c_int, (parameter, value), or 0);
    }
    let Access::Inside(mut inside) = access else { return 0 };
    let recording = inside.recording();
    let event = Event::HeapCall { call: HeapCall::Mallopt, argument: parameter, value: i64::from(value) as u64 };
    tell(&mut inside, recording, event, entry);
    let own = inside.own();
    let did = match recording {
        Some(segment) => {
            let stack = stacks::stack_of_steps(own, segment, entry);
            let Own { cache, stream, .. } = own;
            let mut steps = Steps::new(segment, stream, stack);
            let did = HEAP.mallopt(cache, &mut steps, parameter, value);
            steps.settle();
            did
        }
        None => HEAP.mallopt(&mut own.cache, &mut NoSink, parameter, value),
    };
    c_int::from(did)
}

/// Asks the core's heap, if it serves the program and the thread may enter.
fn ask<R>(question: impl FnOnce(&mut ThreadCache) -> R) -> Option<R> {
    let access = guard::enter();
    if !backend::is_core() {
        return None;
    }
    match access {
        Access::Inside(mut inside) => Some(question(&mut inside.own().cache)),
        Access::Nested(_) | Access::Bare => None,
    }
}

fn core_info() -> Option<MallInfo> {
    ask(|cache| HEAP.mallinfo2(cache))
}

/// C `mallinfo2`.
pub(crate) fn mallinfo2() -> libc::mallinfo2 {
    let nothing = libc::mallinfo2 {
        arena: 0,
        ordblks: 0,
        smblks: 0,
        hblks: 0,
        hblkhd: 0,
        usmblks: 0,
        fsmblks: 0,
        uordblks: 0,
        fordblks: 0,
        keepcost: 0,
    };
    match core_info() {
        Some(info) => libc::mallinfo2 {
            arena: info.arena as usize,
            ordblks: info.ordblks as usize,
            smblks: info.smblks as usize,
            hblks: info.hblks as usize,
            hblkhd: info.hblkhd as usize,
            usmblks: info.usmblks as usize,
            fsmblks: info.fsmblks as usize,
            uordblks: info.uordblks as usize,
            fordblks: info.fordblks as usize,
            keepcost: info.keepcost as usize,
        },
        None if backend::is_core() => nothing,
        None => call!(mallinfo2 as fn() -> libc::mallinfo2, (), or nothing),
    }
}

/// C `mallinfo`: the same, truncated to `int`.
pub(crate) fn mallinfo() -> libc::mallinfo {
    let info = mallinfo2();
    libc::mallinfo {
        arena: info.arena as c_int,
        ordblks: info.ordblks as c_int,
        smblks: info.smblks as c_int,
        hblks: info.hblks as c_int,
        hblkhd: info.hblkhd as c_int,
        usmblks: info.usmblks as c_int,
        fsmblks: info.fsmblks as c_int,
        uordblks: info.uordblks as c_int,
        fordblks: info.fordblks as c_int,
        keepcost: info.keepcost as c_int,
    }
}

/// Text on its way to a C stream. It is gathered, and written when the heap is not being asked any more, for writing
/// to a stream may allocate.
struct Page {
    bytes: [u8; 16 << 10],
    length: usize,
}

impl fmt::Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

fn print(to: *mut libc::FILE, write: impl FnOnce(&mut ThreadCache, &mut Page) -> fmt::Result) {
    let mut page = Page { bytes: [0; 16 << 10], length: 0 };
    // A text that does not fit is cut.
    let _is_whole = ask(|cache| write(cache, &mut page));
    // SAFETY: by the bullet of the module the stream is open; the bytes lie in the page.
    unsafe { libc::fwrite(page.bytes.as_ptr().cast(), 1, page.length, to) };
}

/// C `malloc_info`.
pub(crate) unsafe fn info(options: c_int, to: *mut libc::FILE) -> c_int {
    if !backend::is_core() {
        return call!(malloc_info as fn(c_int, *mut libc::FILE) -> c_int, (options, to), or libc::EINVAL);
    }
    if options != 0 {
        return libc::EINVAL;
    }
    print(to, |cache, page| HEAP.info_xml(cache, page));
    0
}

unsafe extern "C" {
    static stderr: *mut libc::FILE;
}

/// C `malloc_stats`.
pub(crate) fn stats() {
    if !backend::is_core() {
        return call!(malloc_stats as fn() -> (), (), or());
    }
    // SAFETY: libc's pointer to its open stream.
    print(unsafe { stderr }, |cache, page| HEAP.stats(cache, page));
}
