//! Maps of files that somebody else can shorten while they are read.
//!
//! A recorded program can reach its own segment by name and cut it short; then the kernel answers a touch of the lost
//! pages with SIGBUS, which would end the recorder and with it the recordings of all other processes. Here such a touch
//! finds zeroes instead, and the map remembers that it was cut: the rest of the file is read as before, and whoever holds
//! the map can say what happened. The same holds for a program's binary that a build writes over while its symbols are
//! read (`os::file`).
//!
//! # Why not copy by `pread`
//! A copy needs no handler, but the rings' indices are atomics that both sides change, and a thread sleeps on one of
//! them: they must be mapped. To check the file's length before each look proves nothing about the moment after.
//!
//! # Why a page and not the rest of the map
//! A page is also lost where the file system has no room for it (the page of a hole in a full tmpfs), and the pages
//! behind it may hold what was recorded.
//!
//! # Invariant
//! An entry's range is empty, or that of a living [`SharedMap`]: it is filled after mapping and emptied before unmapping.
//! Entries are made when all are taken, never removed, and found without a lock: the handler may run at any instruction.
//!
//! # Safety
//! - The handler runs in the thread that touched the page (`BUS_ADRERR` says so), in the middle of a read or write of a
//!   registered map. It maps over a page inside that map's range, which nobody unmaps while it is being read.
//! - It calls `mmap`, `sigaction` and `raise`, and reads atomics and cells that are written once: all allowed in a
//!   handler. `OnceLock::get` only loads.
//! - What appears in the page is zeroes, which the readers of shared memory take for a value as they do any other.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use memmap2::MmapRaw;
use xalloc_core::units::PAGE_BYTES;

const PAGE: usize = PAGE_BYTES as usize;

/// A map that survives that its file is shortened.
#[derive(Debug)]
pub(super) struct SharedMap {
    entry: &'static Entry,
    map: MmapRaw,
}

impl SharedMap {
    pub(super) fn new(map: MmapRaw) -> SharedMap {
        static CATCH: Once = Once::new();
        CATCH.call_once(catch);
        let entry = Entry::take();
        entry.fill(map.as_ptr().addr(), map.len());
        SharedMap { entry, map }
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.map.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether a page was touched that the file does not have any more.
    pub(super) fn is_cut(&self) -> bool {
        // Relaxed: set by a handler on the thread that touched the page, which is the one that asks, or has handed what it
        // read to the one that asks.
        self.entry.is_cut.load(Ordering::Relaxed)
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        self.entry.empty();
    }
}

/// The range of one map, for the handler.
#[derive(Debug)]
struct Entry {
    is_taken: AtomicBool,
    start: AtomicUsize,
    /// 0: there is no map.
    end: AtomicUsize,
    is_cut: AtomicBool,
    next: OnceLock<Box<Entry>>,
}

static FIRST: Entry = Entry::new();

impl Entry {
    const fn new() -> Entry {
        Entry {
            is_taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            is_cut: AtomicBool::new(false),
            next: OnceLock::new(),
        }
    }

    /// An entry that no other map has.
    fn take() -> &'static Entry {
        let mut entry = &FIRST;
        // ORDERING: pairs with the Release store in `empty`: the former map's range is gone.
        while entry.is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            entry = entry.next.get_or_init(|| Box::new(Entry::new()));
        }
        entry
    }

    fn fill(&self, start: usize, bytes: usize) {
        self.is_cut.store(false, Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        // ORDERING: pairs with the Acquire load in `of`: a range that is not empty has its start.
        self.end.store(start.saturating_add(bytes), Ordering::Release);
    }

    fn empty(&self) {
        self.end.store(0, Ordering::Relaxed);
        // ORDERING: pairs with the Acquire exchange in `take`.
        self.is_taken.store(false, Ordering::Release);
    }

    /// The entry whose range holds `address`.
    fn of(address: usize) -> Option<&'static Entry> {
        let mut entry = &FIRST;
        loop {
            // ORDERING: pairs with the Release store in `fill`.
            let end = entry.end.load(Ordering::Acquire);
            if address < end && address >= entry.start.load(Ordering::Relaxed) {
                return Some(entry);
            }
            entry = entry.next.get()?;
        }
    }
}

fn catch() {
    // SAFETY: a zeroed `sigaction` is a valid value: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: reads one struct, whose handler is a function of the type that `SA_SIGINFO` asks for. It fails for a
    // signal that does not exist, or cannot be caught, only.
    unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) };
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid `siginfo_t`.
    let info = unsafe { &*info };
    // SAFETY: a SIGBUS's `siginfo_t` has an address; where a process sent it, other numbers, which the code tells.
    let address = unsafe { info.si_addr() }.addr();
    let entry = if info.si_code == libc::BUS_ADRERR { Entry::of(address) } else { None };
    if let Some(entry) = entry
        && put_zeroes_at(address & !(PAGE - 1))
    {
        entry.is_cut.store(true, Ordering::Relaxed);
        return;
    }
    // Not ours: what would have happened without a handler.
    // SAFETY: a zeroed `sigaction` is the default handler.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: reads one struct.
    unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
    // SAFETY: takes a number; the signal waits until this handler returns.
    unsafe { libc::raise(signal) };
}

/// Maps a page of zeroes over the one at `page`, which lies in a registered map.
fn put_zeroes_at(page: usize) -> bool {
    let place = ptr::with_exposed_provenance_mut(page);
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: first bullet of the module; the third says what its readers see.
    let answer = unsafe { libc::mmap(place, PAGE, rights, flags, -1, 0) };
    answer != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use memmap2::MmapOptions;

    use super::*;

    #[test]
    fn a_page_that_its_file_lost_reads_as_zeroes_and_the_others_as_before() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE as u64).unwrap();
        let map = SharedMap::new(MmapOptions::new().map_raw(&file).unwrap());
        let other = SharedMap::new(MmapOptions::new().map_raw(&file).unwrap());
        let byte = |map: &SharedMap, page: usize| {
            assert!(page * PAGE < map.len());
            // SAFETY: inside the map, and nobody writes it meanwhile.
            unsafe { map.as_ptr().wrapping_add(page * PAGE).read_volatile() }
        };
        // SAFETY: inside the map, which is writable.
        unsafe { map.as_ptr().cast_mut().write_bytes(7, 3 * PAGE) };
        file.set_len(PAGE as u64).unwrap();
        assert!(!map.is_cut());
        assert_eq!([0, 1, 2].map(|page| byte(&map, page)), [7, 0, 0]);
        assert!(map.is_cut() && !other.is_cut());
        drop(map);
        let third = SharedMap::new(MmapOptions::new().map_raw(&file).unwrap());
        assert!(!third.is_cut(), "an entry begins anew with its next map");
    }
}
