//! The records of one thread on their way into the merged order.

use xalloc_core::units::Stamp;
use xalloc_core::wire::{Kind, Record, TEXT_BYTES};

use crate::trace::ThreadIndex;

/// Records of one thread, in the order in which it pushed them.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Serial number of the thread in its process.
    pub(crate) thread_serial: u32,
    /// The thread in the trace; named when its first record comes through.
    pub(crate) thread: Option<ThreadIndex>,
    /// Records that this pass may still take from the ring: what was there when the pass began. A ring whose process
    /// lies about it would else never be empty.
    pub(crate) allowance: usize,
    records: Vec<Record>,
    next: usize,
}

impl Lane {
    /// An empty lane of the thread with this serial number.
    pub(crate) fn of_thread(thread_serial: u32) -> Lane {
        Lane { thread_serial, ..Lane::default() }
    }

    /// The stamp of the next record, if there is one.
    #[inline]
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.records.get(self.next).map(|record| Stamp(record.stamp))
    }

    /// The records that were not popped yet.
    #[inline]
    pub(crate) fn ahead(&self) -> &[Record] {
        self.records.get(self.next..).unwrap_or_default()
    }

    /// Pops the next `records` records.
    pub(crate) fn advance(&mut self, records: usize) {
        self.next += records;
    }

    pub(crate) fn pop(&mut self) -> Option<Record> {
        let record = self.records.get(self.next).copied()?;
        self.next += 1;
        Some(record)
    }

    /// The text of `bytes` bytes that follows the record popped last; `None`, with what is there skipped, if it is cut.
    pub(crate) fn pop_text(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(bytes.next_multiple_of(TEXT_BYTES));
        while text.len() < bytes {
            let record = self.records.get(self.next).filter(|record| record.kind == Kind::Text as u8)?;
            self.next += 1;
            for word in [record.stamp, record.a, record.b] {
                text.extend_from_slice(&word.to_le_bytes());
            }
        }
        text.truncate(bytes);
        Some(text)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.records.len()
    }

    /// The buffer for more records of the same thread. Only an empty lane may be filled.
    pub(crate) fn refill(&mut self) -> &mut Vec<Record> {
        debug_assert!(self.is_empty());
        self.records.clear();
        self.next = 0;
        &mut self.records
    }
}
