//! The simulator: the same policy over a virtual break, virtual mappings and a sparse table of words.
//!
//! A what-if run replays the requests of a recorded program under other rules and asks how high the break would have
//! gone. Nothing of the simulated heap exists: only the words that the policy itself reads and writes are kept, page
//! by page, as they are first written. Blocks have no contents.
//!
//! # Invariant
//! `holes` are the unmapped ranges of the virtual mapping area, disjoint and never adjacent. Pages that are not in the
//! tables read as zero, as fresh pages do, and pages that are given back leave the tables.
//!
//! # Safety
//! - Every address names a word of a table, and a word that was never written is zero: no access can go astray, so the
//!   obligations of [`Memory`] and of ranges are void here. This is why [`Simulation`] may be safe.
//! - Storage for arenas and side tables is allocated, aligned as promised, and kept until the simulation ends.
#![allow(unsafe_code)]

mod pages;
mod simulation;
mod slab;

pub use simulation::{BlockWords, Simulation, SubHeap};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;

use self::pages::{Page, Pages};
use self::slab::Density;
use super::chunk::{round_down, round_up};
use super::{ARENA_BYTES, HugePages, Memory, Os};
use crate::units::PAGE_BYTES;

/// Where the simulated break begins. Only its alignment matters: results are compared as offsets to it.
pub const BREAK_BASE: u64 = 0x0000_1000_0000_0000;
/// Where the ends of the arenas' lists seem to lie, a page for each arena; nothing of it counts as memory.
const ENDS_BASE: u64 = 0x0000_0800_0000_0000;
/// Behind those of the last arena that there can be.
const ENDS_END: u64 = ENDS_BASE + (u16::MAX as u64 + 1) * PAGE_BYTES;
/// Upper end of the area of mappings, which are placed downwards as Linux does.
const MAPS_END: u64 = 0x0000_7f00_0000_0000;
/// Lower end of the area of mappings.
const MAPS_START: u64 = 0x0000_4000_0000_0000;

/// Storage for an arena's state, aligned as [`Os::arena_home`] promises.
type Home = [u128; ARENA_BYTES.div_ceil(16)];

/// How often a heap asked the system for something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SystemCalls {
    /// Moves of the break, in either direction.
    pub brk: u64,
    /// Mappings made.
    pub mmap: u64,
    /// Mappings given back.
    pub munmap: u64,
    /// Mappings resized.
    pub mremap: u64,
    /// Ranges discarded, or advised to be of huge pages.
    pub madvise: u64,
}

impl SystemCalls {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.brk + self.mmap + self.munmap + self.mremap + self.madvise
    }
}

impl core::ops::AddAssign for SystemCalls {
    fn add_assign(&mut self, other: SystemCalls) {
        let SystemCalls { brk, mmap, munmap, mremap, madvise } = other;
        self.brk += brk;
        self.mmap += mmap;
        self.munmap += munmap;
        self.mremap += mremap;
        self.madvise += madvise;
    }
}

/// What a simulated process finds when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Processors: the number of arenas is limited by them.
    pub cores: u64,
    /// What there is of transparent huge pages: never [`HugePages::Mapped`].
    pub transparent_pages: HugePages,
    /// Bytes of the default huge page.
    pub huge_page_bytes: u64,
    /// Whether there are as many of them as are asked for, or none.
    pub has_huge_pages: bool,
}

impl Machine {
    /// An x86-64 machine as distributions set one up, with huge pages of each kind for who asks for them.
    #[must_use]
    pub const fn with_cores(cores: u64) -> Machine {
        let huge_page_bytes = 2 << 20;
        let transparent_pages = HugePages::Advised(huge_page_bytes);
        Machine { cores, transparent_pages, huge_page_bytes, has_huge_pages: true }
    }
}

/// Bytes of the other huge page that an x86-64 processor has.
const GIGANTIC_PAGE_BYTES: u64 = 1 << 30;

/// The simulated system.
#[derive(Debug)]
pub struct Sim {
    below: RefCell<Pages>,
    above: RefCell<Pages>,
    ends: RefCell<Vec<u64>>,
    holes: RefCell<BTreeMap<u64, u64>>,
    homes: RefCell<Vec<NonNull<Home>>>,
    tables: RefCell<Vec<(NonNull<u8>, Layout)>>,
    brk: Cell<u64>,
    /// The mapping next above the break.
    obstacle: Cell<u64>,
    calls: Cell<SystemCalls>,
    /// Whether libc knows where the break is.
    has_seen_break: Cell<bool>,
    thread: Cell<u32>,
    machine: Machine,
    /// Ends and pages of the mappings of huge pages, by their start.
    huge: RefCell<BTreeMap<u64, (u64, u64)>>,
}

impl Sim {
    fn new(machine: Machine) -> Sim {
        Sim {
            below: RefCell::new(Pages::new(Density::Dense)),
            above: RefCell::new(Pages::new(Density::Sparse)),
            ends: RefCell::default(),
            holes: RefCell::new(BTreeMap::from([(MAPS_START, MAPS_END - MAPS_START)])),
            homes: RefCell::default(),
            tables: RefCell::default(),
            brk: Cell::new(BREAK_BASE),
            obstacle: Cell::new(MAPS_START),
            calls: Cell::default(),
            has_seen_break: Cell::new(false),
            thread: Cell::new(1),
            machine,
            huge: RefCell::default(),
        }
    }

    fn count(&self, count: impl FnOnce(&mut SystemCalls)) {
        let mut calls = self.calls.get();
        count(&mut calls);
        self.calls.set(calls);
    }

    /// Takes `len` bytes out of the highest hole that has them, at its upper end.
    fn take_hole(&self, len: u64) -> Option<u64> {
        let mut holes = self.holes.borrow_mut();
        let (&start, &hole) = holes.iter().rev().find(|&(_, &hole)| hole >= len)?;
        holes.remove(&start);
        if hole > len {
            holes.insert(start, hole - len);
        }
        Some(start + hole - len)
    }

    /// Takes `len` bytes that start at a multiple of `align` out of the highest hole that has them.
    fn take_aligned_hole(&self, len: u64, align: u64) -> Option<u64> {
        let place = |start: u64, hole: u64| {
            let addr = round_down((start + hole).checked_sub(len)?, align);
            (addr >= start).then_some(addr)
        };
        let addr = self.holes.borrow().iter().rev().find_map(|(&start, &hole)| place(start, hole))?;
        self.take_hole_at(addr, len).then_some(addr)
    }

    /// Maps `len` bytes in pages of `page_bytes`, at `hint` if that is free. As the kernel does it, of whole pages.
    fn take_huge(&self, hint: u64, len: u64, page_bytes: u64) -> Option<u64> {
        self.count(|calls| calls.mmap += 1);
        if !self.machine.has_huge_pages {
            return None;
        }
        let len = round_up(len, page_bytes);
        let addr =
            if hint != 0 && self.take_hole_at(hint, len) { hint } else { self.take_aligned_hole(len, page_bytes)? };
        self.huge.borrow_mut().insert(addr, (addr + len, page_bytes));
        Some(addr)
    }

    /// Start, end and page of the mapping of huge pages that holds `addr`.
    fn huge_around(&self, addr: u64) -> Option<(u64, u64, u64)> {
        let huge = self.huge.borrow();
        let (&start, &(end, page_bytes)) = huge.range(..=addr).next_back()?;
        (addr < end).then_some((start, end, page_bytes))
    }

    /// Gives `[addr, addr + len)` of a mapping of huge pages back, which has to be whole pages of it.
    fn cut_huge(&self, addr: u64, len: u64) -> bool {
        let Some((start, end, page_bytes)) = self.huge_around(addr) else { return true };
        if !(addr | len).is_multiple_of(page_bytes) {
            return false;
        }
        let mut huge = self.huge.borrow_mut();
        huge.remove(&start);
        if start < addr {
            huge.insert(start, (addr, page_bytes));
        }
        if addr + len < end {
            huge.insert(addr + len, (end, page_bytes));
        }
        true
    }

    /// Takes exactly `[addr, addr + len)` if it is unmapped.
    fn take_hole_at(&self, addr: u64, len: u64) -> bool {
        let mut holes = self.holes.borrow_mut();
        let Some((&start, &hole)) = holes.range(..=addr).next_back() else { return false };
        if addr + len > start + hole {
            return false;
        }
        holes.remove(&start);
        if addr > start {
            holes.insert(start, addr - start);
        }
        if addr + len < start + hole {
            holes.insert(addr + len, start + hole - addr - len);
        }
        true
    }

    fn make_hole(&self, addr: u64, len: u64) {
        self.forget(addr, len);
        let mut holes = self.holes.borrow_mut();
        let (mut start, mut end) = (addr, addr + len);
        if let Some((&below, &hole)) = holes.range(..addr).next_back()
            && below + hole == addr
        {
            start = below;
        }
        if let Some(&hole) = holes.get(&end) {
            holes.remove(&end);
            end += hole;
        }
        holes.insert(start, end - start);
    }

    /// Drops the contents of whole pages.
    fn forget(&self, addr: u64, len: u64) {
        self.on_pages(addr, len, Pages::clear);
    }

    /// Calls `on` with the area that holds `[addr, addr + len)` and the numbers there of the range's pages, the first
    /// and the last one.
    fn on_pages(&self, addr: u64, len: u64, on: impl FnOnce(&mut Pages, usize, usize)) {
        let Some(last) = len.checked_sub(1).map(|rest| addr.saturating_add(rest)) else { return };
        if addr >= MAPS_START {
            if last < MAPS_END {
                on(&mut self.above.borrow_mut(), number_above(last), number_above(addr));
            }
        } else if addr >= BREAK_BASE {
            let number = |addr: u64| ((addr - BREAK_BASE) / PAGE_BYTES) as usize;
            on(&mut self.below.borrow_mut(), number(addr), number(last));
        }
    }

    /// The program writes to `[addr, addr + len)`.
    fn touch(&self, addr: u64, len: u64) {
        self.on_pages(addr, len, Pages::mark);
    }

    /// Bytes of `[addr, addr + len)` on pages that were written to.
    fn resident_of(&self, addr: u64, len: u64) -> u64 {
        let mut bytes = 0;
        self.on_pages(addr, len, |pages, first, last| {
            let is_above = addr >= MAPS_START;
            for number in (first..=last).filter(|&number| pages.is_resident(number)) {
                let start = if is_above {
                    MAPS_END - (number as u64 + 1) * PAGE_BYTES
                } else {
                    BREAK_BASE + number as u64 * PAGE_BYTES
                };
                bytes += (addr + len).min(start + PAGE_BYTES) - addr.max(start);
            }
        });
        bytes
    }

    /// Bytes of all pages that were written to since the system gave them.
    fn resident_bytes(&self) -> u64 {
        (self.below.borrow().resident() + self.above.borrow().resident()) * PAGE_BYTES
    }

    /// The word at `addr` will be read soon.
    fn expect(&self, addr: u64) {
        let slot = (addr % PAGE_BYTES / 8) as usize;
        if (BREAK_BASE..MAPS_START).contains(&addr) {
            self.below.borrow().expect((addr - BREAK_BASE) / PAGE_BYTES, slot);
        }
    }

    fn take_page(&self, addr: u64) -> Option<Page> {
        if addr >= MAPS_START {
            self.above.borrow_mut().take((MAPS_END - 1 - addr) / PAGE_BYTES)
        } else {
            self.below.borrow_mut().take(addr.checked_sub(BREAK_BASE)? / PAGE_BYTES)
        }
    }
}

/// Number of the word of an address among those of ends.
fn end_slot(addr: u64) -> usize {
    (addr.wrapping_sub(ENDS_BASE) / 8) as usize
}

/// Number of the page of an address in the area of mappings, counted from its upper end.
fn number_above(addr: u64) -> usize {
    ((MAPS_END - 1 - addr) / PAGE_BYTES) as usize
}

impl Drop for Sim {
    fn drop(&mut self) {
        for home in self.homes.get_mut().drain(..) {
            // SAFETY: it was leaked from a box by `arena_home`, once, and the heap that used it ends with `self`.
            drop(unsafe { Box::from_raw(home.as_ptr()) });
        }
        for (table, layout) in self.tables.get_mut().drain(..) {
            // SAFETY: it was allocated with this layout by `side_table`, and the heap that used it ends with `self`.
            unsafe { alloc::alloc::dealloc(table.as_ptr(), layout) };
        }
    }
}

// SAFETY: by the bullets of the module: ranges are virtual and disjoint by the bookkeeping of holes.
unsafe impl Os for Sim {
    unsafe fn break_by(&self, delta: i64) -> Option<u64> {
        let old = self.brk.get();
        self.has_seen_break.set(true);
        if delta == 0 {
            return Some(old);
        }
        self.count(|calls| calls.brk += 1);
        let now = old.checked_add_signed(delta)?;
        let (old_end, end) = (round_up(old, PAGE_BYTES), round_up(now, PAGE_BYTES));
        // Linux keeps a page free between a growing break and the next mapping.
        if now < BREAK_BASE || (end > old_end && end + PAGE_BYTES > self.obstacle.get()) {
            return None;
        }
        if end < old_end {
            self.forget(end, old_end - end);
        }
        self.brk.set(now);
        Some(old)
    }

    fn map(&self, len: u64) -> Option<u64> {
        self.count(|calls| calls.mmap += 1);
        self.take_hole(len)
    }

    fn reserve(&self, hint: u64, len: u64) -> Option<u64> {
        self.count(|calls| calls.mmap += 1);
        if hint != 0 && self.take_hole_at(hint, len) {
            return Some(hint);
        }
        self.take_hole(len)
    }

    fn map_huge(&self, len: u64, page_bytes: u64) -> Option<u64> {
        self.take_huge(0, len, page_bytes)
    }

    fn reserve_huge(&self, hint: u64, len: u64, page_bytes: u64) -> Option<u64> {
        self.take_huge(hint, len, page_bytes)
    }

    unsafe fn unmap(&self, addr: u64, len: u64) -> bool {
        self.count(|calls| calls.munmap += 1);
        let is_whole = self.cut_huge(addr, len);
        if is_whole {
            self.make_hole(addr, len);
        }
        is_whole
    }

    unsafe fn remap(&self, addr: u64, old_len: u64, new_len: u64) -> Option<u64> {
        self.count(|calls| calls.mremap += 1);
        if let Some((_, _, page_bytes)) = self.huge_around(addr) {
            // One of huge pages shrinks by whole ones and does not grow.
            let (old_len, new_len) = (round_up(old_len, page_bytes), round_up(new_len, page_bytes));
            if new_len < old_len && self.cut_huge(addr + new_len, old_len - new_len) {
                self.make_hole(addr + new_len, old_len - new_len);
            }
            return (new_len <= old_len).then_some(addr);
        }
        if new_len < old_len {
            self.make_hole(addr + new_len, old_len - new_len);
            return Some(addr);
        }
        if self.take_hole_at(addr + old_len, new_len - old_len) {
            return Some(addr);
        }
        let to = self.take_hole(new_len)?;
        for offset in (0..old_len).step_by(PAGE_BYTES as usize) {
            if self.above.borrow().is_resident(number_above(addr + offset)) {
                self.touch(to + offset, PAGE_BYTES);
            }
            if let Some(page) = self.take_page(addr + offset) {
                for (slot, &word) in page.iter().enumerate().filter(|&(_, &word)| word != 0) {
                    let at = (MAPS_END - 1 - to - offset) / PAGE_BYTES;
                    self.above.borrow_mut().set_word(at, slot, word);
                }
            }
        }
        self.make_hole(addr, old_len);
        Some(to)
    }

    unsafe fn commit(&self, _: u64, _: u64) -> bool {
        true
    }

    unsafe fn discard(&self, addr: u64, len: u64) -> bool {
        self.count(|calls| calls.madvise += 1);
        self.forget(addr, len);
        true
    }

    unsafe fn decommit(&self, addr: u64, len: u64) -> bool {
        self.forget(addr, len);
        true
    }

    unsafe fn advise_huge(&self, _: u64, _: u64) {
        self.count(|calls| calls.madvise += 1);
    }

    fn transparent_pages(&self) -> HugePages {
        self.machine.transparent_pages
    }

    fn huge_page_bytes(&self, asked: Option<u64>) -> Option<u64> {
        match asked {
            None => Some(self.machine.huge_page_bytes),
            Some(bytes) => [self.machine.huge_page_bytes, GIGANTIC_PAGE_BYTES].contains(&bytes).then_some(bytes),
        }
    }

    fn remembered_break(&self) -> Option<u64> {
        self.has_seen_break.get().then(|| self.brk.get())
    }

    fn shrinks_by_decommit(&self) -> bool {
        false
    }

    fn page_bytes(&self) -> u64 {
        PAGE_BYTES
    }

    fn cores(&self) -> u64 {
        self.machine.cores
    }

    fn thread_id(&self) -> u32 {
        self.thread.get()
    }

    fn is_main_thread(&self) -> bool {
        self.thread.get() == 1
    }

    unsafe fn arena_home(&self, _: u64) -> NonNull<u8> {
        let home = NonNull::from(Box::leak(Box::new([0; ARENA_BYTES.div_ceil(16)])));
        self.homes.borrow_mut().push(home);
        home.cast()
    }

    fn ends_home(&self, arena: u16, _: u64) -> u64 {
        ENDS_BASE + u64::from(arena) * PAGE_BYTES
    }

    fn side_table(&self, len: u64) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(len as usize, PAGE_BYTES as usize).ok()?;
        // SAFETY: no caller asks for a table of no bytes.
        let table = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) })?;
        self.tables.borrow_mut().push((table, layout));
        Some(table)
    }
}

// SAFETY: by the first bullet of the module.
unsafe impl Memory for Sim {
    unsafe fn load(&self, addr: u64) -> u64 {
        let slot = (addr % PAGE_BYTES / 8) as usize;
        if addr >= MAPS_START {
            self.above.borrow().word(MAPS_END.wrapping_sub(1 + addr) / PAGE_BYTES, slot)
        } else if addr >= BREAK_BASE {
            self.below.borrow().word((addr - BREAK_BASE) / PAGE_BYTES, slot)
        } else {
            self.ends.borrow().get(end_slot(addr)).copied().unwrap_or(0)
        }
    }

    unsafe fn store(&self, addr: u64, value: u64) {
        let slot = (addr % PAGE_BYTES / 8) as usize;
        if (MAPS_START..MAPS_END).contains(&addr) {
            self.above.borrow_mut().set_word((MAPS_END - 1 - addr) / PAGE_BYTES, slot, value);
        } else if (BREAK_BASE..self.brk.get() + PAGE_BYTES).contains(&addr) {
            self.below.borrow_mut().set_word((addr - BREAK_BASE) / PAGE_BYTES, slot, value);
        } else if (ENDS_BASE..ENDS_END).contains(&addr) {
            let mut ends = self.ends.borrow_mut();
            if end_slot(addr) >= ends.len() {
                ends.resize(end_slot(addr) + 1, 0);
            }
            ends[end_slot(addr)] = value;
        }
    }

    unsafe fn copy(&self, _: u64, _: u64, _: u64) {}

    unsafe fn fill(&self, _: u64, _: u64, _: u8) {}
}
