//! The record of an event: a total function.

use super::fill::pack_fill;
use super::kinds::Kind;
use super::made::pack_filled;
use super::record::{Record, pack, pack_merging, pack_put_away, pack_sizes};
use super::{Event, HeapEvent, LedTo, Stamped};

/// What differs between kinds: everything of a record but stamp and stack.
struct Body {
    kind: Kind,
    sub: u8,
    extra: u16,
    a: u64,
    b: u64,
}

const fn body(kind: Kind, a: u64, b: u64) -> Body {
    Body { kind, sub: 0, extra: 0, a, b }
}

impl Stamped {
    /// The record of this event. Where the kind of event is known to the compiler only its stores remain.
    #[must_use]
    #[inline(always)]
    pub fn encode(&self) -> Record {
        if let Event::Text { bytes } = self.event {
            let word = |at: usize| {
                let mut eight = [0; 8];
                eight.copy_from_slice(&bytes[at..at + 8]);
                u64::from_le_bytes(eight)
            };
            return Record { stamp: word(0), a: word(8), b: word(16), kind: Kind::Text as u8, ..Record::default() };
        }
        let Body { kind, sub, extra, a, b } = self.event.body();
        Record { stamp: self.stamp.0, a, b, stack: self.stack.0, kind: kind as u8, sub, extra }
    }
}

impl Event {
    #[inline(always)]
    fn body(&self) -> Body {
        match *self {
            Event::Alloc { addr, size_bytes, slack_bytes, arena, arena_seq, call } => Body {
                sub: (call as u8) << 1 | arena_seq.is_some() as u8,
                extra: arena_seq.unwrap_or_default(),
                ..body(Kind::Alloc, pack(addr.0, arena.0), pack(size_bytes, slack_bytes))
            },
            Event::AllocAfter { addr, size_bytes, arena, seq, call, led_to: LedTo::Split { rest_bytes, from_top } } => {
                Body {
                    sub: (call as u8) << 1 | from_top as u8,
                    extra: seq,
                    ..body(
                        Kind::AllocSplit,
                        pack(addr.0, arena.0),
                        size_bytes & u32::MAX as u64 | rest_bytes >> 4 << 32,
                    )
                }
            }
            Event::AllocAfter { addr, size_bytes, arena, seq, call, led_to: LedTo::Filled { chunks } } => Body {
                sub: call as u8,
                extra: seq,
                ..body(Kind::AllocFilled, pack(addr.0, arena.0), pack_filled(addr, size_bytes, chunks))
            },
            Event::AllocFailed { size_bytes, call } => {
                Body { sub: call as u8, ..body(Kind::AllocFailed, 0, size_bytes) }
            }
            Event::Free { addr, call } => Body { sub: call as u8, ..body(Kind::Free, addr.0, 0) },
            Event::FreeBinned { addr, call, arena, seq, put_away } => Body {
                sub: pack_put_away(call, put_away),
                extra: seq,
                ..body(Kind::FreeBinned, pack(addr.0, arena.0), pack_sizes(put_away.freed_bytes, put_away.total_bytes))
            },
            Event::CacheFill { arena, seq, size_bytes, chunks } => {
                let (sub, b) = pack_fill(size_bytes, chunks);
                Body { sub, extra: seq, ..body(Kind::HeapCacheFill, pack(chunks[0].0, arena.0), b) }
            }
            Event::MergeBinned { arena, seq, merging } => Body {
                sub: pack_merging(merging),
                extra: seq,
                ..body(
                    Kind::HeapMergeBinned,
                    pack(merging.addr.0, arena.0),
                    pack_sizes(merging.freed_bytes, merging.total_bytes),
                )
            },
            Event::ReallocBegin { addr } => body(Kind::ReallocBegin, addr.0, 0),
            Event::ReallocUndo { addr } => body(Kind::ReallocUndo, addr.0, 0),
            Event::Heap { arena, seq, step } => {
                let step = step.body();
                Body { extra: seq, a: pack(step.a, arena.0), ..step }
            }
            Event::ProgramMap { addr, len_bytes, protection, shared, text_bytes } => Body {
                sub: protection.to_bits() | (shared as u8) << 3,
                extra: text_bytes,
                ..body(Kind::ProgramMap, addr.0, len_bytes)
            },
            Event::ProgramUnmap { addr, len_bytes } => body(Kind::ProgramUnmap, addr.0, len_bytes),
            Event::ProgramRemapFrom { addr, len_bytes } => body(Kind::ProgramRemapFrom, addr.0, len_bytes),
            Event::ProgramRemapTo { addr, len_bytes } => body(Kind::ProgramRemapTo, addr.0, len_bytes),
            Event::ProgramAdvise { addr, len_bytes, advice } => {
                Body { sub: advice as u8, ..body(Kind::ProgramAdvise, addr.0, len_bytes) }
            }
            Event::ProgramBrk { from, to } => body(Kind::ProgramBrk, from.0, to.0),
            Event::HeapCall { call, argument, value } => {
                Body { sub: call as u8, ..body(Kind::HeapCall, argument as u32 as u64, value) }
            }
            Event::ThreadStart { tid, text_bytes } => {
                Body { extra: text_bytes, ..body(Kind::ThreadStart, tid as u64, 0) }
            }
            Event::ThreadExit => body(Kind::ThreadExit, 0, 0),
            Event::Fork { fork_serial } => body(Kind::Fork, fork_serial as u64, 0),
            Event::Exec { text_bytes } => Body { extra: text_bytes, ..body(Kind::Exec, 0, 0) },
            Event::ExecFailed => body(Kind::ExecFailed, 0, 0),
            Event::Exit { status } => body(Kind::Exit, status as u32 as u64, 0),
            Event::Module { bias, serial, text_bytes } => {
                Body { extra: text_bytes, ..body(Kind::Module, bias.0, serial as u64) }
            }
            Event::ModuleRange { start, len_bytes, serial } => {
                Body { extra: serial, ..body(Kind::ModuleRange, start.0, len_bytes) }
            }
            Event::ModulesClosed { generation } => body(Kind::ModulesClosed, generation as u64, 0),
            Event::Marker { text_bytes } => Body { extra: text_bytes, ..body(Kind::Marker, 0, 0) },
            Event::Lost { count, reason } => Body { sub: reason as u8, ..body(Kind::Lost, 0, count) },
            Event::Fault { addr, kind } => Body { sub: kind as u8, ..body(Kind::Fault, addr.0, 0) },
            Event::Text { .. } => body(Kind::Text, 0, 0),
        }
    }
}

impl HeapEvent {
    #[inline(always)]
    fn body(self) -> Body {
        match self {
            HeapEvent::Brk { from, to, rule } => Body { sub: rule as u8, ..body(Kind::HeapBrk, from.0, to.0) },
            HeapEvent::Trim { from, to } => body(Kind::HeapTrim, from.0, to.0),
            HeapEvent::Release { addr, len_bytes } => body(Kind::HeapRelease, addr.0, len_bytes),
            HeapEvent::ChunkMap { addr, len_bytes } => body(Kind::HeapChunkMap, addr.0, len_bytes),
            HeapEvent::ChunkUnmap { addr, len_bytes } => body(Kind::HeapChunkUnmap, addr.0, len_bytes),
            HeapEvent::ChunkRemapFrom { addr, len_bytes } => body(Kind::HeapChunkRemapFrom, addr.0, len_bytes),
            HeapEvent::ChunkRemapTo { addr, len_bytes } => body(Kind::HeapChunkRemapTo, addr.0, len_bytes),
            HeapEvent::Split { addr, front_bytes, rest_bytes, from_top } => {
                Body { sub: from_top as u8, ..body(Kind::HeapSplit, addr.0, pack_sizes(front_bytes, rest_bytes)) }
            }
            HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged } => {
                Body { sub: merged.to_bits(), ..body(Kind::HeapCoalesce, addr.0, pack_sizes(freed_bytes, total_bytes)) }
            }
            HeapEvent::Bin { addr, size_bytes, bin, index } => {
                Body { sub: bin as u8, ..body(Kind::HeapBin, addr.0, pack(size_bytes, index as u16)) }
            }
            HeapEvent::CacheBirth { addr, size_bytes } => body(Kind::HeapCacheBirth, addr.0, size_bytes),
            HeapEvent::TcacheFlush { chunks, size_bytes } => body(Kind::HeapTcacheFlush, chunks as u64, size_bytes),
            HeapEvent::Consolidate { chunks, size_bytes } => body(Kind::HeapConsolidate, chunks as u64, size_bytes),
            HeapEvent::ArenaBirth { addr } => body(Kind::HeapArenaBirth, addr.0, 0),
            HeapEvent::ArenaIdle => body(Kind::HeapArenaIdle, 0, 0),
            HeapEvent::ArenaAttach => body(Kind::HeapArenaAttach, 0, 0),
            HeapEvent::HeapBirth { addr, len_bytes } => body(Kind::HeapBirth, addr.0, len_bytes),
            HeapEvent::HeapResize { addr, len_bytes, rule } => {
                Body { sub: rule as u8, ..body(Kind::HeapResize, addr.0, len_bytes) }
            }
            HeapEvent::HeapDeath { addr, len_bytes } => body(Kind::HeapDeath, addr.0, len_bytes),
            HeapEvent::Threshold { mmap_bytes } => body(Kind::HeapThreshold, 0, mmap_bytes),
        }
    }
}
