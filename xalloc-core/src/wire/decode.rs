//! The event of a record, for every 32 bytes that are one.

use super::fill::knows_fill;
use super::kinds::{Advice, BinKind, Call, FaultKind, GrowthRule, HeapCall, Kind, LossReason, Merged, Protection};
use super::record::{Record, TEXT_BYTES, high, knows_merging, low, put_away_call, sizes};
use super::{Event, HeapEvent, LedTo, Stamped};
use crate::units::{Addr, ArenaId, StackId, Stamp};

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
        Kind::Alloc | Kind::AllocSplit => Call::from_number(sub >> 1).is_some(),
        Kind::AllocFailed | Kind::AllocFilled | Kind::Free => Call::from_number(sub).is_some(),
        Kind::FreeBinned => put_away_call(sub).is_some(),
        Kind::HeapCacheFill => knows_fill(sub),
        Kind::HeapMergeBinned => knows_merging(sub),
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

impl Record {
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
            Kind::AllocSplit => {
                let (size_bytes, split) = self.split_for();
                let led_to = LedTo::split(&split, addr, size_bytes)?;
                self.alloc_after(size_bytes, self.alloc_call()?, led_to)
            }
            Kind::AllocFilled => {
                let (size_bytes, chunks) = self.filled_for();
                self.alloc_after(size_bytes, Call::from_number(self.sub)?, LedTo::Filled { chunks })
            }
            Kind::AllocFailed => Event::AllocFailed { size_bytes: self.b, call: Call::from_number(self.sub)? },
            Kind::Free => Event::Free { addr, call: Call::from_number(self.sub)? },
            Kind::FreeBinned => Event::FreeBinned {
                addr,
                call: put_away_call(self.sub)?,
                arena: ArenaId(high(self.a)),
                seq: self.extra,
                put_away: self.put_away(),
            },
            Kind::HeapCacheFill if !knows_fill(self.sub) => return None,
            Kind::HeapCacheFill => {
                let (size_bytes, chunks) = self.filled();
                Event::CacheFill { arena: ArenaId(high(self.a)), seq: self.extra, size_bytes, chunks }
            }
            Kind::HeapMergeBinned if !knows_merging(self.sub) => return None,
            Kind::HeapMergeBinned => {
                Event::MergeBinned { arena: ArenaId(high(self.a)), seq: self.extra, merging: self.merging() }
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

    const fn alloc_after(&self, size_bytes: u64, call: Call, led_to: LedTo) -> Event {
        Event::AllocAfter { addr: self.addr(), size_bytes, arena: self.arena(), seq: self.extra, call, led_to }
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
            | Kind::AllocSplit
            | Kind::AllocFilled
            | Kind::HeapCacheFill
            | Kind::HeapMergeBinned
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
