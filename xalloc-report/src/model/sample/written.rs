//! A hand-made recording as a trace file, through the writer that `record` uses.

use std::path::Path;

use xalloc_core::units::{Addr, StackId, Stamp};
use xalloc_core::wire::{Call, Event as Wire, Stamped};

use super::{Sample, Stream};
use crate::trace::{Entry, Event, Incoming, ProcessEvent, ProcessIndex, ProgramEvent, TraceError, Writer};

impl Sample {
    /// Writes the recording. A forked process inherits what its parent holds at its end.
    pub(crate) fn write(&self, path: &Path) -> Result<(), TraceError> {
        let mut writer = Writer::create(path)?;
        writer.sync_contents(&self.contents);
        for (index, (process, stream)) in self.contents.processes.iter().zip(&self.streams).enumerate() {
            let index = ProcessIndex(index as u32);
            writer.begin_process(index, process.parent.filter(|_| process.forked))?;
            push(&mut writer, index, stream)?;
        }
        writer.finish(self.contents.clone()).map(drop)
    }
}

fn push(writer: &mut Writer, process: ProcessIndex, stream: &Stream) -> Result<(), TraceError> {
    for entry in &stream.entries {
        let (events, text) = wire(entry);
        for event in events {
            let record = Stamped { stamp: Stamp(entry.seq), stack: StackId::NONE, event }.encode();
            let (at_us, thread, stack) = (entry.at_ns / 1000, entry.thread, entry.stack);
            writer.push_with_text(process, &Incoming { record, at_us, thread, stack }, text)?;
        }
    }
    Ok(())
}

/// The records that an entry was made of, and the text of the first.
fn wire<'a>(entry: &Entry<'a>) -> (Vec<Wire>, &'a str) {
    let one = |event| (vec![event], "");
    match entry.event {
        Event::Alloc { block, arena_seq, .. } => one(Wire::Alloc {
            addr: Addr(block.addr),
            size_bytes: block.size_bytes,
            slack_bytes: block.slack_bytes,
            arena: block.arena,
            arena_seq,
            call: block.call,
        }),
        Event::AllocFailed { size_bytes, call } => one(Wire::AllocFailed { size_bytes, call }),
        Event::Free { block, .. } => one(Wire::Free { addr: Addr(block.addr), call: Call::Free }),
        Event::FreeUnknown { addr } => one(Wire::Free { addr: Addr(addr), call: Call::Free }),
        Event::ReallocBegin { block, .. } => one(Wire::ReallocBegin { addr: Addr(block.addr) }),
        Event::ReallocUndo { block, .. } => one(Wire::ReallocUndo { addr: Addr(block.addr) }),
        Event::Heap { arena, seq, step } => one(Wire::Heap { arena, seq, step }),
        Event::Program(ProgramEvent::Map { addr, len_bytes, protection, shared, path }) => {
            let text_bytes = path.len() as u16;
            (vec![Wire::ProgramMap { addr: Addr(addr), len_bytes, protection, shared, text_bytes }], path)
        }
        Event::Program(ProgramEvent::Unmap { addr, len_bytes }) => {
            one(Wire::ProgramUnmap { addr: Addr(addr), len_bytes })
        }
        Event::Program(ProgramEvent::Remap { from, from_bytes, to, to_bytes }) => {
            let from = Wire::ProgramRemapFrom { addr: Addr(from), len_bytes: from_bytes };
            (vec![from, Wire::ProgramRemapTo { addr: Addr(to), len_bytes: to_bytes }], "")
        }
        Event::Program(ProgramEvent::Advise { addr, len_bytes, advice }) => {
            one(Wire::ProgramAdvise { addr: Addr(addr), len_bytes, advice })
        }
        Event::HeapCall { call, argument, value } => one(Wire::HeapCall { call, argument, value }),
        Event::Program(ProgramEvent::Brk { from, to }) => one(Wire::ProgramBrk { from: Addr(from), to: Addr(to) }),
        Event::Process(ProcessEvent::ThreadStart) => one(Wire::ThreadStart { tid: 0, text_bytes: 0 }),
        Event::Process(ProcessEvent::ThreadExit) => one(Wire::ThreadExit),
        Event::Process(ProcessEvent::Fork) => one(Wire::Fork { fork_serial: 0 }),
        Event::Process(ProcessEvent::Exec { path }) => (vec![Wire::Exec { text_bytes: path.len() as u16 }], path),
        Event::Fault { addr, kind } => one(Wire::Fault { addr: Addr(addr), kind }),
        Event::Process(ProcessEvent::ExecFailed) => one(Wire::ExecFailed),
        Event::Process(ProcessEvent::Exit { status }) => one(Wire::Exit { status }),
        Event::Marker { text } => (vec![Wire::Marker { text_bytes: text.len() as u16 }], text),
        Event::Lost { events, reason } => one(Wire::Lost { count: events, reason }),
        Event::Process(ProcessEvent::ModulesClosed) => one(Wire::ModulesClosed { generation: 0 }),
    }
}
