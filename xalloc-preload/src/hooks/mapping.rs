//! The program's own mappings: `mmap` and its relatives, `brk` and `sbrk`.
//!
//! The calls go to the kernel as they are, save for the break, which is libc's to move. A mapping is recorded after it
//! was made, an unmapping before it happens, for the same reason as blocks.
//!
//! # Safety
//! - The program's arguments are passed on unchanged; what they may do to memory is the program's own doing.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};

use xalloc_core::units::{Addr, PAGE_BYTES};
use xalloc_core::wire::{Advice, Event, Protection};

use super::alloc::note;
use crate::arch::Entry;
use crate::backend::next::call;
use crate::guard::{self, Access};
use crate::host::{self, word};
use crate::scan;
use crate::stacks;
use crate::text::Text;

const PAGE: usize = PAGE_BYTES as usize;

/// Records an event with the caller's stack.
fn record(entry: Entry, event: Event) {
    match guard::enter() {
        Access::Inside(mut inside) => {
            if let Some(segment) = inside.recording() {
                inside.flush_spare();
                let stack = stacks::stack_of(inside.own(), entry);
                let stream = &mut inside.own().stream;
                stream.event(segment, segment.now(), stack, event);
            }
        }
        Access::Nested(thread) => note(thread, |_| event),
        Access::Bare => {}
    }
}

fn address(place: *mut c_void) -> Addr {
    Addr(place.addr() as u64)
}

/// C `mmap` and `mmap64`.
#[allow(clippy::too_many_arguments, reason = "six of C's and three of the entry")]
pub(crate) unsafe extern "C" fn on_mmap(
    hint: *mut c_void,
    length: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
    ip: usize,
    sp: usize,
    fp: usize,
) -> *mut c_void {
    // SAFETY: by the bullet of the module.
    let got = unsafe { libc::syscall(libc::SYS_mmap, hint, length, word(prot), word(flags), word(fd), offset) };
    let place = core::ptr::with_exposed_provenance_mut(got as usize);
    if place != libc::MAP_FAILED {
        record_map(Entry { ip, sp, fp }, address(place), length, prot, flags, fd);
    }
    place
}

fn record_map(entry: Entry, addr: Addr, length: usize, prot: c_int, flags: c_int, fd: c_int) {
    let protection = Protection::from_prot(prot);
    // MAP_SHARED is 1, MAP_SHARED_VALIDATE 3, MAP_PRIVATE 2.
    let shared = flags & libc::MAP_SHARED != 0;
    let map = |text_bytes| Event::ProgramMap { addr, len_bytes: length as u64, protection, shared, text_bytes };
    if flags & libc::MAP_ANONYMOUS != 0 {
        return record(entry, map(0));
    }
    match guard::enter() {
        Access::Inside(mut inside) => {
            if let Some(segment) = inside.recording() {
                inside.flush_spare();
                let mut link = Text::<32>::of(b"/proc/self/fd/");
                link.push_number(fd.max(0) as u64);
                let mut path = [0; crate::config::PATH];
                let length = host::read_link(link.as_c(), &mut path);
                let stack = stacks::stack_of(inside.own(), entry);
                let stream = &mut inside.own().stream;
                stream.push_text(segment, stack, path.get(..length).unwrap_or_default(), map);
            }
        }
        Access::Nested(thread) => note(thread, |_| map(0)),
        Access::Bare => {}
    }
}

/// C `munmap`.
pub(crate) unsafe extern "C" fn on_munmap(place: *mut c_void, length: usize, ip: usize, sp: usize, fp: usize) -> c_int {
    let entry = Entry { ip, sp, fp };
    let (addr, len_bytes) = (address(place), length as u64);
    // What the kernel is sure to refuse is not recorded; what it refuses all the same is taken back.
    let is_told = place.addr().is_multiple_of(PAGE) && length > 0;
    if is_told {
        record(entry, Event::ProgramUnmap { addr, len_bytes });
    }
    // SAFETY: by the bullet of the module.
    let answer = unsafe { libc::syscall(libc::SYS_munmap, place, length) as c_int };
    if is_told && answer != 0 {
        record(entry, Event::ProgramRemapTo { addr, len_bytes });
    }
    answer
}

/// C `mremap`; `new_place` means something only with `MREMAP_FIXED`.
#[allow(clippy::too_many_arguments, reason = "five of C's, one unused, and three of the entry")]
pub(crate) unsafe extern "C" fn on_mremap(
    place: *mut c_void,
    old_length: usize,
    new_length: usize,
    flags: c_int,
    new_place: *mut c_void,
    _unused: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> *mut c_void {
    let entry = Entry { ip, sp, fp };
    record(entry, Event::ProgramRemapFrom { addr: address(place), len_bytes: old_length as u64 });
    // SAFETY: by the bullet of the module.
    let got = unsafe { libc::syscall(libc::SYS_mremap, place, old_length, new_length, word(flags), new_place) };
    let (now, length) = if got == -1 { (address(place), old_length) } else { (Addr(got as u64), new_length) };
    record(entry, Event::ProgramRemapTo { addr: now, len_bytes: length as u64 });
    core::ptr::with_exposed_provenance_mut(got as usize)
}

/// C `madvise`.
pub(crate) unsafe extern "C" fn on_madvise(
    place: *mut c_void,
    length: usize,
    advice: c_int,
    ip: usize,
    sp: usize,
    fp: usize,
) -> c_int {
    let kind = match advice {
        libc::MADV_DONTNEED => Advice::DontNeed,
        libc::MADV_FREE => Advice::Free,
        libc::MADV_HUGEPAGE => Advice::HugePage,
        libc::MADV_NOHUGEPAGE => Advice::NoHugePage,
        libc::MADV_WILLNEED | libc::MADV_POPULATE_READ | libc::MADV_POPULATE_WRITE => Advice::WillNeed,
        _ => Advice::Other,
    };
    // SAFETY: by the bullet of the module.
    let answer = unsafe { libc::syscall(libc::SYS_madvise, place, length, advice) as c_int };
    if answer == 0 {
        record_advice(Entry { ip, sp, fp }, place, length, kind);
    }
    answer
}

fn record_advice(entry: Entry, place: *mut c_void, length: usize, advice: Advice) {
    record(entry, Event::ProgramAdvise { addr: address(place), len_bytes: length as u64, advice });
}

/// C `mlock`.
pub(crate) unsafe extern "C" fn on_mlock(place: *mut c_void, length: usize, ip: usize, sp: usize, fp: usize) -> c_int {
    // SAFETY: by the bullet of the module.
    let answer = unsafe { libc::syscall(libc::SYS_mlock, place, length) as c_int };
    if answer == 0 {
        record_advice(Entry { ip, sp, fp }, place, length, Advice::Lock);
    }
    answer
}

/// C `munlock`.
pub(crate) unsafe extern "C" fn on_munlock(
    place: *mut c_void,
    length: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> c_int {
    // SAFETY: by the bullet of the module.
    let answer = unsafe { libc::syscall(libc::SYS_munlock, place, length) as c_int };
    if answer == 0 {
        record_advice(Entry { ip, sp, fp }, place, length, Advice::Unlock);
    }
    answer
}

unsafe extern "C" {
    /// libc's `sbrk` by the name that this library does not define.
    fn __sbrk(increment: isize) -> *mut c_void;
}

fn current_break() -> usize {
    // SAFETY: asks.
    unsafe { __sbrk(0) }.addr()
}

fn record_break(entry: Entry, from: usize, to: usize) {
    if from != to {
        scan::break_moved(from as u64, to as u64);
        record(entry, Event::ProgramBrk { from: Addr(from as u64), to: Addr(to as u64) });
    }
}

/// C `sbrk`.
pub(crate) unsafe extern "C" fn on_sbrk(increment: isize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    // SAFETY: by the bullet of the module.
    let before = unsafe { __sbrk(increment) };
    if increment != 0 && before != libc::MAP_FAILED {
        record_break(Entry { ip, sp, fp }, before.addr(), before.addr().wrapping_add_signed(increment));
    }
    before
}

/// C `brk`.
pub(crate) unsafe extern "C" fn on_brk(to: *mut c_void, ip: usize, sp: usize, fp: usize) -> c_int {
    let from = current_break();
    let answer = call!(brk as fn(*mut c_void) -> c_int, (to), or - 1);
    if answer == 0 {
        record_break(Entry { ip, sp, fp }, from, current_break());
    }
    answer
}
