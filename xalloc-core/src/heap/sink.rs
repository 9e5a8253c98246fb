//! Where the heap tells what it does.
//!
//! A sink is called under the arena's lock, in the order in which the arena changes. It must not allocate from the heap
//! that calls it.

use super::Allocation;
use crate::units::{Addr, ArenaId};
use crate::wire::{BinKind, HeapEvent, MOST_FILLED};

/// A receiver of heap events.
pub trait Sink {
    /// Whether events are wanted at all. Where this is `false`, what only serves the events is not computed.
    const RECORDS: bool = true;

    /// Takes one step of `arena`, the `seq`th of it (low 16 bits). Steps that belong to no arena (mappings of chunks,
    /// the mmap threshold) carry [`ArenaId::NONE`] and 0, and are called under no lock.
    fn event(&mut self, arena: ArenaId, seq: u16, event: HeapEvent);

    /// Takes the steps by which free chunks of `size_bytes`, those in `chunks` up to the first that is 0, went to a thread's
    /// cache: the first is the `seq`th of `arena`, the others follow.
    #[inline]
    fn cache_filled(&mut self, arena: ArenaId, seq: u16, size_bytes: u64, chunks: [Addr; MOST_FILLED]) {
        self.cache_filled_by_each(arena, seq, size_bytes, chunks);
    }

    /// Takes a block that a malloc or a calloc is about to get from an arena: all of the arena's steps are told, and its lock
    /// is held still.
    #[inline(always)]
    fn served(&mut self, _: &Allocation) {}

    /// Takes the same steps one by one.
    #[inline]
    fn cache_filled_by_each(&mut self, arena: ArenaId, seq: u16, size_bytes: u64, chunks: [Addr; MOST_FILLED]) {
        let index = (size_bytes / 16).wrapping_sub(2) as u8;
        let mut seq = seq;
        for addr in chunks.into_iter().take_while(|chunk| chunk.0 != 0) {
            self.event(arena, seq, HeapEvent::Bin { addr, size_bytes, bin: BinKind::Cache, index });
            seq = seq.wrapping_add(1);
        }
    }
}

/// The sink that wants nothing, and compiles to nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoSink;

impl Sink for NoSink {
    const RECORDS: bool = false;

    #[inline(always)]
    fn event(&mut self, _: ArenaId, _: u16, _: HeapEvent) {}
}

impl<F: FnMut(ArenaId, u16, HeapEvent)> Sink for F {
    fn event(&mut self, arena: ArenaId, seq: u16, event: HeapEvent) {
        self(arena, seq, event);
    }
}
