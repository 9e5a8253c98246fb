//! A few records that a nested call leaves for the call it interrupted.
//!
//! # Invariant
//! Cells below `length` are written once the call that took them has returned; since all calls are of one thread, that
//! is so whenever the outermost hook looks.
//!
//! # Safety
//! - A cell is written by the call that took its number, and read by the outermost hook, on the same thread; a nested
//!   call finishes before the one it interrupts goes on.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use xalloc_core::wire::{LossReason, Record};

use super::Stream;
use crate::segment::Segment;

const RECORDS: usize = 128;

/// The buffer. A handler that does more than this is counted, not recorded.
pub(crate) struct Spare {
    length: AtomicU32,
    lost: AtomicU32,
    cells: [UnsafeCell<Record>; RECORDS],
}

const EMPTY: Record = Record { stamp: 0, a: 0, b: 0, stack: 0, kind: 0, sub: 0, extra: 0 };

impl Spare {
    pub(super) const fn new() -> Spare {
        Spare { length: AtomicU32::new(0), lost: AtomicU32::new(0), cells: [const { UnsafeCell::new(EMPTY) }; RECORDS] }
    }

    /// Whether there is nothing to push.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.length.load(Ordering::Relaxed) == 0
    }

    /// Notes a record.
    pub(crate) fn note(&self, record: Record) {
        let number = self.length.fetch_add(1, Ordering::Relaxed);
        let Some(cell) = self.cells.get(number as usize) else {
            self.length.store(RECORDS as u32, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // SAFETY: by the bullet of the module the number makes the cell this call's.
        unsafe { cell.get().write(record) };
        // ORDERING: pairs with the fence in `flush`, on the same thread: the cell is written before it is read.
        compiler_fence(Ordering::SeqCst);
    }

    /// Pushes what was noted, oldest first.
    #[cold]
    pub(crate) fn flush(&self, segment: &'static Segment, stream: &mut Stream) {
        let mut done = 0;
        loop {
            let length = self.length.load(Ordering::Relaxed);
            // ORDERING: pairs with the fence in `note`, in a handler of this thread.
            compiler_fence(Ordering::SeqCst);
            for cell in self.cells.iter().take(length as usize).skip(done) {
                // SAFETY: below `length`, and by the invariant written.
                let record = unsafe { cell.get().read() };
                stream.push(segment, &[record]);
            }
            done = length as usize;
            // A handler may have noted more meanwhile.
            if self.length.compare_exchange(length, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        stream.count_lost(LossReason::Nested, u64::from(self.lost.swap(0, Ordering::Relaxed)));
    }

    /// Drops what was noted: nothing is recorded any more.
    pub(crate) fn forget(&self) {
        self.length.store(0, Ordering::Relaxed);
    }
}
