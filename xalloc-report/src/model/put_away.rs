//! Which step of the heap a free led to.
//!
//! A free is recorded without its call stack: most end in the thread's cache and cost next to nothing. One that goes past
//! the cache makes the heap put the chunk away, and that step has the stack of the free and follows it in its thread.

use xalloc_core::units::CHUNK_HEADER_BYTES;
use xalloc_core::wire::{BinKind, HeapEvent};

/// Whether the step puts away the chunk of the block at `addr`: into a bin, with its neighbours, or back to the system.
pub(crate) fn puts_away(step: HeapEvent, addr: u64) -> bool {
    let chunk = addr.wrapping_sub(CHUNK_HEADER_BYTES);
    match step {
        HeapEvent::Bin { addr, bin, .. } => addr.0 == chunk && bin != BinKind::Cache,
        HeapEvent::Coalesce { addr, total_bytes, .. } => chunk.wrapping_sub(addr.0) < total_bytes,
        HeapEvent::ChunkUnmap { addr, len_bytes } => chunk.wrapping_sub(addr.0) < len_bytes,
        HeapEvent::Brk { .. }
        | HeapEvent::Trim { .. }
        | HeapEvent::Release { .. }
        | HeapEvent::ChunkMap { .. }
        | HeapEvent::ChunkRemapFrom { .. }
        | HeapEvent::ChunkRemapTo { .. }
        | HeapEvent::Split { .. }
        | HeapEvent::CacheBirth { .. }
        | HeapEvent::TcacheFlush { .. }
        | HeapEvent::Consolidate { .. }
        | HeapEvent::ArenaBirth { .. }
        | HeapEvent::ArenaIdle
        | HeapEvent::ArenaAttach
        | HeapEvent::HeapBirth { .. }
        | HeapEvent::HeapResize { .. }
        | HeapEvent::HeapDeath { .. }
        | HeapEvent::Threshold { .. } => false,
    }
}
