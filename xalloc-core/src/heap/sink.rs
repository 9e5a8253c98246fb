//! Where the heap tells what it does.
//!
//! A sink is called under the arena's lock, in the order in which the arena changes. It must not allocate from the heap
//! that calls it.

use crate::units::ArenaId;
use crate::wire::HeapEvent;

/// A receiver of heap events.
pub trait Sink {
    /// Whether events are wanted at all. Where this is `false`, what only serves the events is not computed.
    const RECORDS: bool = true;

    /// Takes one step of `arena`, the `seq`th of it (low 16 bits). Steps that belong to no arena (mappings of chunks,
    /// the mmap threshold) carry [`ArenaId::NONE`] and 0, and are called under no lock.
    fn event(&mut self, arena: ArenaId, seq: u16, event: HeapEvent);
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
