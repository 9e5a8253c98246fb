//! Random programs: contents for them, and events that hit the same few hundred addresses over and over.

use std::path::PathBuf;

use proptest::prelude::*;
use xalloc_core::units::{Addr, ArenaId, StackId, Stamp, chunk_bytes};
use xalloc_core::wire::{
    BinKind, Call, Event as Wire, GrowthRule, HeapEvent, LedTo, LossReason, MergeBinned, Merged, Protection, PutAway,
    Stamped,
};

use super::super::*;

pub(super) fn process(pid: u32, parent: Option<ProcessIndex>) -> Process {
    Process {
        pid,
        parent,
        forked: parent.is_some(),
        exe: PathBuf::from("/usr/bin/app"),
        command: vec!["app".into(), "--fast".into()],
        started_at_ns: 5_000,
        ended_at_ns: 9_000_000,
        end: End::Signalled(9),
        allocator: Allocator::Core,
        events: 12,
        losses: vec![Loss { reason: LossReason::RingFull, events: 3 }],
        repairs: Repairs::default(),
        waits: Waits { times: 2, waited_ns: 70_000 },
    }
}

pub(super) fn contents(processes: u32, threads: u32, stacks: u32) -> Contents {
    let mut contents = Contents {
        recording: Recording { command: vec!["./app".into()], tool_version: "0.1.0".into(), ..Recording::default() },
        ..Contents::default()
    };
    for index in 0..processes {
        contents.processes.push(process(100 + index, index.checked_sub(1).map(ProcessIndex)));
    }
    for index in 0..threads {
        contents.threads.push(Thread {
            process: ProcessIndex(0),
            tid: 100 + index,
            name: format!("worker {index}"),
            started_at_ns: 7,
            ended_at_ns: (index % 2 == 0).then_some(9),
        });
    }
    contents.modules.push(Module { path: PathBuf::from("/usr/bin/app"), build_id: vec![1, 2, 3] });
    for index in 0..stacks {
        let module = (index % 3 != 2).then_some(ModuleIndex(0));
        contents.frames.push(Frame {
            module,
            address: 0x1000 + u64::from(index) * 7,
            functions: Vec::new(),
            jumped: None,
        });
        let parent = StackIndex(if index < 3 { 0 } else { index / 2 });
        contents.stacks.push(StackNode { parent, frame: (index > 1).then_some(FrameIndex(index)) });
    }
    contents
}

/// One step of a random program: what, which thread, two numbers.
pub(super) type Step = (u8, u8, u16, u16);

pub(super) fn steps(len: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0u8..100, 0u8..3, any::<u16>(), any::<u16>()), 0..len)
}

pub(super) const STACKS: u32 = 40;

/// The text of an event that [`events`] made.
pub(super) fn text(incoming: &Incoming) -> &'static str {
    match incoming.event() {
        Some(Wire::ProgramMap { .. } | Wire::Marker { .. }) => "λ: x",
        Some(_) | None => "",
    }
}

/// Pushes events, each with its text.
pub(super) fn push(writer: &mut Writer<impl Tally>, process: u32, events: &[Incoming]) -> Result<(), TraceError> {
    events.chunk_by(|before, after| text(before).is_empty() && text(after).is_empty()).try_for_each(|some| match some {
        [one] => writer.push_with_text(ProcessIndex(process), one, text(one)),
        more => writer.push_all(ProcessIndex(process), more),
    })
}

/// The events with each free told together with what its arena did, and some other steps as three chunks to a cache.
pub(super) fn together(events: &[Incoming]) -> Vec<Incoming> {
    let put_away = |addr: Addr| match addr.0 >> 4 & 3 {
        0 => (48, Merged::default(), Some(BinKind::Fast)),
        1 => (2_048, Merged { next: true, ..Merged::default() }, Some(BinKind::Unsorted)),
        2 => (96, Merged { previous: true, ..Merged::default() }, Some(BinKind::Small)),
        _ => (4_096, Merged { top: true, ..Merged::default() }, None),
    };
    let with_steps = |incoming: &Incoming| {
        let mut stamped = incoming.record.decode().expect("an event that was encoded");
        if let Wire::Free { addr, call } = stamped.event {
            let (total_bytes, merged, bin) = put_away(addr);
            let put_away = PutAway { freed_bytes: 48, total_bytes, merged, bin };
            stamped.event = Wire::FreeBinned { addr, call, arena: ArenaId::MAIN, seq: u16::MAX, put_away };
        } else if let Wire::Heap { arena, seq, step: HeapEvent::Brk { from, .. } } = stamped.event {
            let chunks = [from, from.up(64), Addr(from.0 - 128), from.up(640), Addr(0)];
            stamped.event = Wire::CacheFill { arena, seq, size_bytes: 64, chunks };
        } else if let Wire::Heap { arena, seq, step: HeapEvent::Trim { from, .. } } = stamped.event {
            let merged = Merged { previous: true, next: true, top: false };
            let (bin, total_bytes) = (BinKind::Unsorted, 1 << 20);
            let merging = MergeBinned { addr: from, freed_bytes: 48, total_bytes, merged, bin };
            stamped.event = Wire::MergeBinned { arena, seq, merging };
        } else if let Wire::Alloc { addr, size_bytes, arena, arena_seq: Some(seq), call, .. } = stamped.event
            && let Some(led_to) = led_to(addr, size_bytes)
        {
            stamped.event = Wire::AllocAfter { addr, size_bytes, arena, seq, call, led_to };
        }
        Incoming { record: stamped.encode(), ..*incoming }
    };
    events.iter().map(with_steps).collect()
}

/// Steps that lead to an allocation, if it can be told with them.
fn led_to(addr: Addr, size_bytes: u64) -> Option<LedTo> {
    let far = |units: u64| Addr(addr.0 + units * 16);
    match addr.0 >> 4 & 3 {
        0 => None,
        1 => LedTo::filled(chunk_bytes(size_bytes), [far(5), far(90), Addr(0), Addr(0), Addr(0)], addr, size_bytes),
        _ => Some(LedTo::Split { rest_bytes: 4_096, from_top: addr.0 & 16 == 0 }),
    }
}

/// What a record stands for, each as a record of its own.
pub(super) fn apart(incoming: &Incoming) -> impl Iterator<Item = Incoming> {
    let Incoming { at_us, thread, stack, record } = *incoming;
    let stamped = record.decode().expect("an event that was encoded");
    let is_free_with_steps = matches!(stamped.event, Wire::FreeBinned { .. });
    stamped.apart().map(move |part| {
        let is_without_stack = is_free_with_steps && matches!(part.event, Wire::Free { .. });
        let stack = if is_without_stack { StackIndex::NONE } else { stack };
        Incoming { record: part.encode(), at_us, thread, stack }
    })
}

/// Turns random steps into events that hit the same few hundred addresses over and over.
pub(super) fn events(steps: &[Step]) -> Vec<Incoming> {
    let place = |pick: u16| Addr(0x5555_0000_0000 + u64::from(pick % 97) * 48 + u64::from(pick % 5) * 0x30_0000);
    let heap = |what: u8, pick: u16, size: u16| {
        let (addr, bytes) = (place(pick), u64::from(size) * 16);
        match what % 7 {
            0 => HeapEvent::Split { addr, front_bytes: 48, rest_bytes: bytes, from_top: size.is_multiple_of(2) },
            1 => HeapEvent::Coalesce {
                addr,
                freed_bytes: 48,
                total_bytes: bytes,
                merged: Merged { previous: true, next: size.is_multiple_of(2), top: false },
            },
            2 => HeapEvent::Bin { addr, size_bytes: bytes, bin: BinKind::Unsorted, index: size as u8 },
            3 => HeapEvent::Brk { from: addr, to: addr.up(bytes), rule: GrowthRule::NoFit },
            4 => HeapEvent::Trim { from: addr, to: Addr(addr.0 - bytes) },
            5 => HeapEvent::Threshold { mmap_bytes: u64::MAX - bytes },
            _ => HeapEvent::TcacheFlush { chunks: u32::from(size), size_bytes: bytes },
        }
    };
    let mut out = Vec::new();
    // Where each thread's last block ended, and the one before that: what an allocator's top gives next.
    let mut ends = [[0u64; 2]; 3];
    let mut split = 0;
    let mut beside = Vec::new();
    for (at, &(what, thread, pick, size)) in (0u64..).zip(steps) {
        let [last_end, end_before] = ends[usize::from(thread)];
        let addr = match pick % 8 {
            0 if what < 36 && last_end != 0 => Addr(last_end),
            1 if what < 36 && end_before != 0 => Addr(end_before),
            2 if what < 36 && split != 0 => Addr(split + 16),
            3..6 if (36..64).contains(&what) && !beside.is_empty() => {
                beside.swap_remove(usize::from(size) % beside.len())
            }
            _ => place(pick),
        };
        if what < 36 && pick % 8 < 3 {
            beside.push(addr);
        }
        let arena = ArenaId(if size.is_multiple_of(11) { u16::MAX } else { u16::from(thread) });
        // Mostly a few small sizes, so that freed slots of a class are used again.
        let size_bytes =
            if size.is_multiple_of(6) { u64::from(size) << (size % 7) } else { 24 + u64::from(size % 3) * 16 };
        let arena_seq = (pick % 3 != 0).then_some(if pick % 3 == 1 { pick } else { size });
        let alloc = |call| Wire::Alloc { addr, size_bytes, slack_bytes: size % 40, arena, arena_seq, call };
        let event = match what {
            0..36 => alloc(if what < 30 { Call::Malloc } else { Call::Calloc }),
            36..64 => Wire::Free { addr, call: Call::Free },
            64..74 => Wire::ReallocBegin { addr },
            74..80 => alloc(Call::Realloc),
            80..83 => Wire::ReallocUndo { addr },
            83..91 => Wire::Heap { arena, seq: size, step: heap(what, pick, size) },
            91 => Wire::ProgramMap {
                addr,
                len_bytes: 4096,
                protection: Protection::from_prot(5),
                shared: true,
                text_bytes: 4,
            },
            92 => Wire::ProgramRemapFrom { addr, len_bytes: 4096 },
            93 => Wire::ProgramRemapTo { addr, len_bytes: 8192 },
            94 => Wire::Marker { text_bytes: 4 },
            95 => Wire::Lost { count: u64::from(pick), reason: LossReason::Nested },
            96 => Wire::Exit { status: i32::from(pick) - 30_000 },
            _ => Wire::AllocFailed { size_bytes: u64::MAX, call: Call::Calloc },
        };
        if let Wire::Alloc { addr, size_bytes, slack_bytes, .. } = event {
            let end = (addr.0 + size_bytes + u64::from(slack_bytes) + 23) & !15;
            ends[usize::from(thread)] = [end, last_end];
        }
        if let Wire::Heap { step: HeapEvent::Split { addr, .. }, .. } = event {
            split = addr.0;
        }
        // Some events arrive late: their stamps and times are older than what came before.
        let late = if pick.is_multiple_of(13) { 40 } else { 0 };
        let stamp = Stamp((at * 10).saturating_sub(late * 10));
        out.push(Incoming {
            record: Stamped { stamp, stack: StackId::NONE, event }.encode(),
            at_us: (at * u64::from(size % 3)).saturating_sub(late),
            thread: ThreadIndex(u32::from(thread)),
            stack: StackIndex(if what.is_multiple_of(9) { 0 } else { u32::from(size) % STACKS }),
        });
    }
    out
}
