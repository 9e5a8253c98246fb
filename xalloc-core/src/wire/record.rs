//! The 32 bytes of a record and the two total functions between them and the typed events.

use super::kinds::{Advice, BinKind, Call, FaultKind, GrowthRule, HeapCall, Kind, LossReason, Merged, Protection};
use super::together::{PutAway, pack_fill, unpack_fill};
use super::{Event, HeapEvent, Stamped};
use crate::units::{Addr, ArenaId, StackId, Stamp};

/// Bytes of text that one record carries: all of it but the stack id, the kind and the two small fields.
pub const TEXT_BYTES: usize = 24;

/// Records that `bytes` of text take behind the record that announces them.
#[must_use]
pub const fn text_records(bytes: usize) -> usize {
    bytes.div_ceil(TEXT_BYTES)
}

/// One slot of a ring.
///
/// `a` and `b` hold an operand in the low 48 bits and a small field in the high 16, or one operand of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C, align(32))]
pub struct Record {
    /// Time of the event; text bytes 0 to 7 in a text record.
    pub stamp: u64,
    /// First operand; text bytes 8 to 15.
    pub a: u64,
    /// Second operand; text bytes 16 to 23.
    pub b: u64,
    /// Call stack.
    pub stack: u32,
    /// [`Kind`] by number.
    pub kind: u8,
    /// The closed set that belongs to the kind (call, rule, advice, flags); of an allocation the call, shifted up by one,
    /// and in the lowest bit whether `extra` is the arena's sequence number.
    pub sub: u8,
    /// A small field of the kind, mostly the arena's sequence number.
    pub extra: u16,
}

const _: () = assert!(size_of::<Record>() == 32);

impl Record {
    /// The record as it lies in a ring and in the file of a recording without recorder: field behind field, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.to_words()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record that [`Self::to_bytes`] gives. Every pattern of bytes is one; [`Self::decode`] says whether it means
    /// something.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Record {
        let mut words = [0; 4];
        for (word, place) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*place);
        }
        Record::from_words(words)
    }

    /// The record as four words, which a function is passed in registers.
    #[must_use]
    #[inline(always)]
    pub const fn to_words(&self) -> [u64; 4] {
        let Record { stamp, a, b, stack, kind, sub, extra } = *self;
        [stamp, a, b, stack as u64 | (kind as u64) << 32 | (sub as u64) << 40 | (extra as u64) << 48]
    }

    /// The record that [`Self::to_words`] gives.
    #[must_use]
    #[inline(always)]
    pub const fn from_words([stamp, a, b, last]: [u64; 4]) -> Record {
        let [.., kind, sub, low, high] = last.to_le_bytes();
        Record { stamp, a, b, stack: last as u32, kind, sub, extra: u16::from_le_bytes([low, high]) }
    }
}

const LOW: u64 = (1 << 48) - 1;

const fn pack(low: u64, high: u16) -> u64 {
    (low & LOW) | (high as u64) << 48
}

const fn low(word: u64) -> u64 {
    word & LOW
}

const fn high(word: u64) -> u16 {
    (word >> 48) as u16
}

/// Two chunk sizes in one word, in units of 16 bytes; a size of 64 GiB or more is stored as 64 GiB − 16.
const fn pack_sizes(first: u64, second: u64) -> u64 {
    const fn units(bytes: u64) -> u64 {
        let units = bytes >> 4;
        if units > u32::MAX as u64 { u32::MAX as u64 } else { units }
    }
    units(first) | units(second) << 32
}

const fn sizes(word: u64) -> (u64, u64) {
    ((word & 0xffff_ffff) << 4, (word >> 32) << 4)
}

/// Calls, bins and neighbours of a free with its steps in one byte: three bits of neighbours, two of the bin, the call.
#[inline(always)]
const fn pack_put_away(call: Call, put_away: PutAway) -> u8 {
    let bin = match put_away.bin {
        None => 0,
        Some(BinKind::Fast) => 1,
        Some(BinKind::Unsorted | BinKind::Cache | BinKind::Large) => 2,
        Some(BinKind::Small) => 3,
    };
    let call = (call as u8).wrapping_sub(Call::Free as u8) & 3;
    put_away.merged.to_bits() | bin << 3 | call << 5
}

/// The call of such a byte: those by which blocks are given back stand together.
#[inline(always)]
const fn put_away_call(sub: u8) -> Option<Call> {
    match sub >> 5 {
        0 => Some(Call::Free),
        1 => Some(Call::FreeSized),
        2 => Some(Call::FreeAlignedSized),
        _ => None,
    }
}

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
            Event::AllocFailed { size_bytes, call } => {
                Body { sub: call as u8, ..body(Kind::AllocFailed, 0, size_bytes) }
            }
            Event::Free { addr, call } => Body { sub: call as u8, ..body(Kind::Free, addr.0, 0) },
            Event::FreeBinned { addr, call, arena, seq, put_away } => Body {
                sub: pack_put_away(call, put_away),
                extra: seq,
                ..body(Kind::FreeBinned, pack(addr.0, arena.0), pack_sizes(put_away.freed_bytes, put_away.total_bytes))
            },
            Event::CacheFill { arena, seq, size_bytes, chunks } => Body {
                extra: seq,
                ..body(Kind::HeapCacheFill, pack(chunks[0].0, arena.0), pack_fill(size_bytes, chunks))
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

/// By the number of a kind, how many values its `sub` has, counted from 0: 256 where any will do, 0 for what is no kind.
const SUBS: [u16; 256] = {
    let mut subs = [0; 256];
    let mut at = 0;
    while at < Kind::ALL.len() {
        let kind = Kind::ALL[at];
        while subs[kind as usize] < 256 && knows(kind, subs[kind as usize] as u8) {
            subs[kind as usize] += 1;
        }
        at += 1;
    }
    subs
};

/// Whether `sub` is a value that records of `kind` have.
const fn knows(kind: Kind, sub: u8) -> bool {
    match kind {
        Kind::Alloc => Call::from_number(sub >> 1).is_some(),
        Kind::AllocFailed | Kind::Free => Call::from_number(sub).is_some(),
        Kind::FreeBinned => put_away_call(sub).is_some(),
        Kind::HeapBrk | Kind::HeapResize => GrowthRule::from_number(sub).is_some(),
        Kind::HeapBin => BinKind::from_number(sub).is_some(),
        Kind::ProgramAdvise => Advice::from_number(sub).is_some(),
        Kind::HeapCall => HeapCall::from_number(sub).is_some(),
        Kind::Lost => LossReason::from_number(sub).is_some(),
        Kind::Fault => FaultKind::from_number(sub).is_some(),
        Kind::ReallocBegin
        | Kind::ReallocUndo
        | Kind::HeapTrim
        | Kind::HeapRelease
        | Kind::HeapChunkMap
        | Kind::HeapChunkUnmap
        | Kind::HeapChunkRemapFrom
        | Kind::HeapChunkRemapTo
        | Kind::HeapSplit
        | Kind::HeapCoalesce
        | Kind::HeapCacheBirth
        | Kind::HeapCacheFill
        | Kind::HeapTcacheFlush
        | Kind::HeapConsolidate
        | Kind::HeapArenaBirth
        | Kind::HeapArenaIdle
        | Kind::HeapArenaAttach
        | Kind::HeapBirth
        | Kind::HeapDeath
        | Kind::HeapThreshold
        | Kind::ProgramMap
        | Kind::ProgramUnmap
        | Kind::ProgramRemapFrom
        | Kind::ProgramRemapTo
        | Kind::ProgramBrk
        | Kind::ThreadStart
        | Kind::ThreadExit
        | Kind::Fork
        | Kind::Exec
        | Kind::ExecFailed
        | Kind::Exit
        | Kind::Module
        | Kind::ModuleRange
        | Kind::ModulesClosed
        | Kind::Marker
        | Kind::Text => true,
    }
}

/// Parts of a record, for who knows its kind and wants no more: a recorder reads millions a second.
impl Record {
    /// The address in the first operand.
    #[must_use]
    #[inline]
    pub const fn addr(&self) -> Addr {
        Addr(low(self.a))
    }

    /// The arena in the first operand.
    #[must_use]
    #[inline]
    pub const fn arena(&self) -> ArenaId {
        ArenaId(high(self.a))
    }

    /// The size in the second operand and the small field beside it: slack of an allocation, index of a bin.
    #[must_use]
    #[inline]
    pub const fn size_and_small(&self) -> (u64, u16) {
        (low(self.b), high(self.b))
    }

    /// The call that a record of an allocation names.
    #[must_use]
    #[inline]
    pub const fn alloc_call(&self) -> Option<Call> {
        Call::from_number(self.sub >> 1)
    }

    /// The number in the order of its arena that a record of an allocation has, if an arena served it.
    #[must_use]
    #[inline]
    pub const fn arena_seq(&self) -> Option<u16> {
        if self.sub & 1 != 0 { Some(self.extra) } else { None }
    }

    /// The two chunk sizes in the second operand, bytes.
    #[must_use]
    #[inline]
    pub const fn chunk_sizes(&self) -> (u64, u64) {
        sizes(self.b)
    }

    /// What a record of a free with its steps says of them.
    #[must_use]
    #[inline]
    pub const fn put_away(&self) -> PutAway {
        let (freed_bytes, total_bytes) = sizes(self.b);
        let bin = match self.sub >> 3 & 3 {
            0 => None,
            1 => Some(BinKind::Fast),
            2 => Some(BinKind::Unsorted),
            _ => Some(BinKind::Small),
        };
        PutAway { freed_bytes, total_bytes, merged: Merged::from_bits(self.sub), bin }
    }

    /// Size and addresses of the chunks that a record of a cache's filling names.
    #[must_use]
    #[inline]
    pub const fn filled(&self) -> (u64, [Addr; super::MOST_FILLED]) {
        unpack_fill(self.addr(), self.b)
    }

    /// How many events the record stands for.
    #[must_use]
    pub fn events(&self) -> u64 {
        // Text belongs to the event before it, and what cannot be read is one that is lost.
        self.decode().map_or(1, |stamped| stamped.apart().count() as u64)
    }

    /// How many values the `sub` of a record of `kind` has, counted from 0; 256 where any will do.
    #[must_use]
    pub const fn subs_of(kind: Kind) -> u16 {
        SUBS[kind as usize]
    }

    /// Whether [`Record::decode`] gives an event.
    #[must_use]
    #[inline]
    pub const fn is_known(&self) -> bool {
        (self.sub as u16) < SUBS[self.kind as usize]
    }

    /// The typed reading of this record, or `None` where a number is none that this version knows.
    #[must_use]
    #[inline]
    pub fn decode(&self) -> Option<Stamped> {
        let kind = Kind::from_number(self.kind)?;
        let addr = Addr(low(self.a));
        let len_bytes = self.b;
        let text_bytes = self.extra;
        let event = match kind {
            Kind::Alloc => Event::Alloc {
                addr,
                size_bytes: low(self.b),
                slack_bytes: high(self.b),
                arena: ArenaId(high(self.a)),
                arena_seq: self.arena_seq(),
                call: self.alloc_call()?,
            },
            Kind::AllocFailed => Event::AllocFailed { size_bytes: self.b, call: Call::from_number(self.sub)? },
            Kind::Free => Event::Free { addr, call: Call::from_number(self.sub)? },
            Kind::FreeBinned => Event::FreeBinned {
                addr,
                call: put_away_call(self.sub)?,
                arena: ArenaId(high(self.a)),
                seq: self.extra,
                put_away: self.put_away(),
            },
            Kind::HeapCacheFill => {
                let (size_bytes, chunks) = self.filled();
                Event::CacheFill { arena: ArenaId(high(self.a)), seq: self.extra, size_bytes, chunks }
            }
            Kind::ReallocBegin => Event::ReallocBegin { addr },
            Kind::ReallocUndo => Event::ReallocUndo { addr },
            Kind::ProgramMap => Event::ProgramMap {
                addr,
                len_bytes,
                protection: Protection::from_prot((self.sub & 7) as i32),
                shared: self.sub & 8 != 0,
                text_bytes,
            },
            Kind::ProgramUnmap => Event::ProgramUnmap { addr, len_bytes },
            Kind::ProgramRemapFrom => Event::ProgramRemapFrom { addr, len_bytes },
            Kind::ProgramRemapTo => Event::ProgramRemapTo { addr, len_bytes },
            Kind::ProgramAdvise => Event::ProgramAdvise { addr, len_bytes, advice: Advice::from_number(self.sub)? },
            Kind::ProgramBrk => Event::ProgramBrk { from: addr, to: Addr(self.b) },
            Kind::HeapCall => Event::HeapCall {
                call: HeapCall::from_number(self.sub)?,
                argument: self.a as u32 as i32,
                value: self.b,
            },
            Kind::ThreadStart => Event::ThreadStart { tid: self.a as u32, text_bytes },
            Kind::ThreadExit => Event::ThreadExit,
            Kind::Fork => Event::Fork { fork_serial: self.a as u32 },
            Kind::Exec => Event::Exec { text_bytes },
            Kind::ExecFailed => Event::ExecFailed,
            Kind::Exit => Event::Exit { status: self.a as u32 as i32 },
            Kind::Module => Event::Module { bias: addr, serial: self.b as u16, text_bytes },
            Kind::ModuleRange => Event::ModuleRange { start: addr, len_bytes, serial: self.extra },
            Kind::ModulesClosed => Event::ModulesClosed { generation: self.a as u32 },
            Kind::Marker => Event::Marker { text_bytes },
            Kind::Lost => Event::Lost { count: self.b, reason: LossReason::from_number(self.sub)? },
            Kind::Fault => Event::Fault { addr, kind: FaultKind::from_number(self.sub)? },
            Kind::Text => {
                let mut bytes = [0; TEXT_BYTES];
                bytes[..8].copy_from_slice(&self.stamp.to_le_bytes());
                bytes[8..16].copy_from_slice(&self.a.to_le_bytes());
                bytes[16..].copy_from_slice(&self.b.to_le_bytes());
                Event::Text { bytes }
            }
            Kind::HeapBrk
            | Kind::HeapTrim
            | Kind::HeapRelease
            | Kind::HeapChunkMap
            | Kind::HeapChunkUnmap
            | Kind::HeapChunkRemapFrom
            | Kind::HeapChunkRemapTo
            | Kind::HeapSplit
            | Kind::HeapCoalesce
            | Kind::HeapBin
            | Kind::HeapCacheBirth
            | Kind::HeapTcacheFlush
            | Kind::HeapConsolidate
            | Kind::HeapArenaBirth
            | Kind::HeapArenaIdle
            | Kind::HeapArenaAttach
            | Kind::HeapBirth
            | Kind::HeapResize
            | Kind::HeapDeath
            | Kind::HeapThreshold => {
                Event::Heap { arena: ArenaId(high(self.a)), seq: self.extra, step: self.heap_step(kind)? }
            }
        };
        if kind == Kind::Text {
            return Some(Stamped { stamp: Stamp(0), stack: StackId::NONE, event });
        }
        Some(Stamped { stamp: Stamp(self.stamp), stack: StackId(self.stack), event })
    }

    fn heap_step(&self, kind: Kind) -> Option<HeapEvent> {
        let addr = Addr(low(self.a));
        let len_bytes = self.b;
        let (first, second) = sizes(self.b);
        let chunks = low(self.a) as u32;
        Some(match kind {
            Kind::HeapBrk => HeapEvent::Brk { from: addr, to: Addr(self.b), rule: GrowthRule::from_number(self.sub)? },
            Kind::HeapTrim => HeapEvent::Trim { from: addr, to: Addr(self.b) },
            Kind::HeapRelease => HeapEvent::Release { addr, len_bytes },
            Kind::HeapChunkMap => HeapEvent::ChunkMap { addr, len_bytes },
            Kind::HeapChunkUnmap => HeapEvent::ChunkUnmap { addr, len_bytes },
            Kind::HeapChunkRemapFrom => HeapEvent::ChunkRemapFrom { addr, len_bytes },
            Kind::HeapChunkRemapTo => HeapEvent::ChunkRemapTo { addr, len_bytes },
            Kind::HeapSplit => {
                HeapEvent::Split { addr, front_bytes: first, rest_bytes: second, from_top: self.sub & 1 != 0 }
            }
            Kind::HeapCoalesce => HeapEvent::Coalesce {
                addr,
                freed_bytes: first,
                total_bytes: second,
                merged: Merged::from_bits(self.sub),
            },
            Kind::HeapBin => HeapEvent::Bin {
                addr,
                size_bytes: low(self.b),
                bin: BinKind::from_number(self.sub)?,
                index: high(self.b) as u8,
            },
            Kind::HeapCacheBirth => HeapEvent::CacheBirth { addr, size_bytes: self.b },
            Kind::HeapTcacheFlush => HeapEvent::TcacheFlush { chunks, size_bytes: self.b },
            Kind::HeapConsolidate => HeapEvent::Consolidate { chunks, size_bytes: self.b },
            Kind::HeapArenaBirth => HeapEvent::ArenaBirth { addr },
            Kind::HeapArenaIdle => HeapEvent::ArenaIdle,
            Kind::HeapArenaAttach => HeapEvent::ArenaAttach,
            Kind::HeapBirth => HeapEvent::HeapBirth { addr, len_bytes },
            Kind::HeapResize => HeapEvent::HeapResize { addr, len_bytes, rule: GrowthRule::from_number(self.sub)? },
            Kind::HeapDeath => HeapEvent::HeapDeath { addr, len_bytes },
            Kind::HeapThreshold => HeapEvent::Threshold { mmap_bytes: self.b },
            Kind::Alloc
            | Kind::AllocFailed
            | Kind::Free
            | Kind::FreeBinned
            | Kind::HeapCacheFill
            | Kind::ReallocBegin
            | Kind::ReallocUndo
            | Kind::ProgramMap
            | Kind::ProgramUnmap
            | Kind::ProgramRemapFrom
            | Kind::ProgramRemapTo
            | Kind::ProgramAdvise
            | Kind::ProgramBrk
            | Kind::HeapCall
            | Kind::ThreadStart
            | Kind::ThreadExit
            | Kind::Fork
            | Kind::Exec
            | Kind::ExecFailed
            | Kind::Exit
            | Kind::Module
            | Kind::ModuleRange
            | Kind::ModulesClosed
            | Kind::Marker
            | Kind::Lost
            | Kind::Fault
            | Kind::Text => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_is_the_bytes_that_lie_in_the_ring() {
        let record = Record { stamp: 1, a: 2 << 60, b: 3, stack: 0x0403_0201, kind: 5, sub: 6, extra: 0x0807 };
        let bytes = record.to_bytes();
        assert_eq!(bytes[24..], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((bytes[0], bytes[15], bytes[16]), (1, 0x20, 3));
        assert_eq!(Record::from_bytes(&bytes), record);
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_a_record_that_decodes_to_the_same(
            stamp: u64, a: u64, b: u64, stack: u32, kind: u8, sub: u8, extra: u16,
        ) {
            let record = Record { stamp, a, b, stack, kind, sub, extra };
            prop_assert_eq!(record.is_known(), record.decode().is_some());
            if let Some(event) = record.decode() {
                let again = event.encode();
                prop_assert_eq!(again.decode(), Some(event));
            }
        }
    }

    #[test]
    fn every_kind_of_record_has_a_reading() {
        for &kind in Kind::ALL {
            let record = Record { kind: kind as u8, ..Record::default() };
            assert!(record.decode().is_some(), "{kind:?}");
        }
    }

    #[test]
    fn a_split_of_64_gib_is_stored_as_the_largest_size_that_fits() {
        let step = HeapEvent::Split { addr: Addr(0x1000), front_bytes: 48, rest_bytes: 1 << 40, from_top: true };
        let event = Event::Heap { arena: ArenaId::MAIN, seq: 7, step };
        let back = Stamped { stamp: Stamp(1), stack: StackId(2), event }.encode().decode();
        let Some(Stamped { event: Event::Heap { step: HeapEvent::Split { front_bytes, rest_bytes, .. }, .. }, .. }) =
            back
        else {
            panic!("{back:?}")
        };
        assert_eq!((front_bytes, rest_bytes), (48, (1 << 36) - 16));
    }
}
