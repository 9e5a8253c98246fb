//! The thread's own stack: where it lies, and loads from it.
//!
//! A load per word is what makes a capture fast, so it must be certain that the word is there. From the stack pointer
//! of running code up to the stack's end everything is mapped; the end is looked up once a thread.
//!
//! # How the bounds are found
//! glibc puts a thread's descriptor at the upper end of its stack, whether it mapped the stack itself or the program
//! gave it one; so the stack of a thread that is not the first ends at its descriptor and begins where the mapping
//! that holds the descriptor begins. The first thread's stack is the mapping that the kernel put the arguments of
//! exec into; it grows, but never further than its limit, and the kernel keeps at least 128 MiB below its end free of
//! other mappings (`mmap_base` in `arch/x86/mm/mmap.c`).
//!
//! A process that [confined](host::is_confined) itself may not read that list any more. Then the pages below the descriptor
//! are probed, some 0.1 us each.
//!
//! # Why not `pthread_getattr_np`
//! It allocates (the set of the thread's processors, of which nobody asked) and for the first thread it reads
//! `/proc/self/maps` through stdio, which allocates again.
//!
//! # Safety
//! - While a thread runs with its stack pointer inside of its own stack, all words from there to the stack's end can
//!   be read. Words that were readable so stay readable until the thread ends: nobody unmaps a part of a stack.
//! - Other threads may write to the words that a walk reads, if the program passes pointers to locals: a load then
//!   finds the one value or the other, and the walk is bounded whatever it finds. Loads are volatile, so that each is
//!   made once.
#![allow(unsafe_code)]

use xalloc_core::units::PAGE_BYTES;

use super::walk::Memory;
use crate::modules::range_at;
use crate::{arch, host};

/// What the kernel keeps free for the first thread's stack.
const GROWTH_BYTES: u64 = 128 << 20;

/// How far a stack is probed: 8 MiB, what a thread is given where nobody says otherwise.
const PROBED_PAGES: u64 = 2048;

/// The bounds of a thread's stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    low: u64,
    high: u64,
}

impl Bounds {
    /// Not looked up yet. (Zeroed memory is the same.)
    pub(super) const UNKNOWN: Bounds = Bounds { low: 0, high: 0 };

    pub(super) fn is_known(self) -> bool {
        self.high != 0
    }

    /// The bounds of the calling thread's stack, whose stack pointer is or was `sp`.
    #[cold]
    #[inline(never)]
    pub(super) fn find(sp: u64) -> Bounds {
        let descriptor = arch::thread_pointer() as u64;
        let around_descriptor = range_at(descriptor);
        if let Some(range) = around_descriptor.clone()
            && (range.start..descriptor).contains(&sp)
        {
            return Bounds { low: range.start, high: descriptor & !7 };
        }
        let range = if host::pid() == host::tid() { range_at(host::auxiliary(libc::AT_EXECFN)) } else { None };
        match (range, around_descriptor) {
            (Some(range), _) => Bounds { low: range.end.saturating_sub(GROWTH_BYTES), high: range.end },
            (None, Some(range)) => Bounds { low: range.start, high: descriptor & !7 },
            (None, None) => Bounds::probed(sp, descriptor),
        }
    }

    /// The bounds of a stack that ends at `descriptor`, where nothing can be looked up: down to the first page that cannot
    /// be read, which is the guard page. Where the thread is on another stack, none counts as its own, and nothing is
    /// touched: to read a page of somebody's sparse file is to give it memory.
    fn probed(sp: u64, descriptor: u64) -> Bounds {
        let top = descriptor & !(PAGE_BYTES - 1);
        let pages = (0..PROBED_PAGES).map(|page| top.wrapping_sub(page * PAGE_BYTES));
        let low = match descriptor.wrapping_sub(sp) < PROBED_PAGES * PAGE_BYTES {
            true => pages.take_while(|&page| host::is_readable(page as usize)).last(),
            false => None,
        };
        match low {
            Some(low) if low <= sp => Bounds { low, high: descriptor & !7 },
            _ => Bounds { low: u64::MAX, high: u64::MAX },
        }
    }

    /// The stack as a walk from `sp` may read it, if it is the thread's own.
    #[inline(always)]
    pub(super) fn above(self, sp: u64) -> Option<OwnStack> {
        (sp.wrapping_sub(self.low) < self.high - self.low).then(|| OwnStack { floor: sp, len: self.high - sp })
    }
}

/// The thread's own stack, from the frame where a walk began to the end.
#[derive(Debug)]
pub(super) struct OwnStack {
    floor: u64,
    len: u64,
}

impl OwnStack {
    /// Whether the walk may read the word at `at`.
    #[inline(always)]
    pub(super) fn holds(&self, at: u64) -> bool {
        at & 7 == 0 && at.wrapping_sub(self.floor) < self.len
    }
}

impl Memory for OwnStack {
    const MANY_STACKS: bool = false;

    #[inline(always)]
    fn read(&mut self, at: u64) -> Option<u64> {
        if !self.holds(at) {
            return None;
        }
        // SAFETY: by the first bullet of the module: aligned, and between the stack pointer and the stack's end, both
        // multiples of 8 or cut to less than a word before the end.
        Some(unsafe { load(at) })
    }
}

/// The bits in which the word at `at`, that a walk of this thread on its own stack read before, is not `value` any more.
///
/// # Safety
/// - An [`OwnStack`] of the calling thread gave the word at `at` to an earlier walk.
#[inline(always)]
pub(super) unsafe fn change(at: u64, value: u64) -> u64 {
    // SAFETY: by the contract, and the first bullet of the module.
    unsafe { load(at) ^ value }
}

/// # Safety
/// - `at` is a multiple of 8 and 8 bytes are mapped there.
#[inline(always)]
unsafe fn load(at: u64) -> u64 {
    let word = core::ptr::with_exposed_provenance::<u64>(at as usize);
    // SAFETY: by the contract.
    unsafe { word.read_volatile() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> u64 {
        let local = 0_u64;
        std::hint::black_box(&raw const local) as u64
    }

    #[test]
    fn a_thread_of_its_own_knows_its_stack_and_no_other() {
        let outer = here();
        let bounds = std::thread::spawn(move || {
            let bounds = Bounds::find(here());
            assert!(bounds.above(here()).is_some());
            assert!(bounds.above(outer).is_none());
            bounds
        });
        let bounds = bounds.join().expect("the thread checks itself");
        assert!(bounds.above(outer).is_none());
        assert!(bounds.high - bounds.low >= 1 << 20);
    }

    #[test]
    fn a_thread_that_is_on_a_foreign_stack_first_still_finds_its_own() {
        std::thread::spawn(|| {
            assert_eq!(Bounds::find(0x10_0000), Bounds::find(here()));
        })
        .join()
        .expect("the thread checks itself");
    }

    #[test]
    fn words_below_the_first_frame_behind_the_end_and_unaligned_ones_are_not_read() {
        std::thread::spawn(|| {
            let sp = here() & !7;
            let bounds = Bounds::find(sp);
            let mut stack = bounds.above(sp).expect("own");
            assert!(stack.read(sp).is_some());
            assert!(stack.read(sp + 1).is_none());
            assert!(stack.read(sp - 8).is_none());
            assert!(stack.read(bounds.high - 8).is_some());
            assert!(stack.read(bounds.high).is_none());
            assert!(stack.read(u64::MAX - 7).is_none());
        })
        .join()
        .expect("the thread checks itself");
    }
}
