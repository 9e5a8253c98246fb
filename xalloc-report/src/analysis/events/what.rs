//! What an event did, as JSON and text tell it.

use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::wire::{HeapCall, HeapEvent};

use crate::analysis::names::{self, address};
use crate::trace::{Entry, Event, ProcessEvent, ProgramEvent};

/// What happened. Sizes are bytes: requested sizes for blocks, whole chunks for steps of the heap; addresses of heap
/// steps are chunk addresses, 16 below the block's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "fields are explained with their variant")]
pub enum What {
    /// A block was obtained, with `slack` bytes more than asked for.
    Alloc { addr: String, size: u64, slack: u16, call: String },
    /// A call for memory failed.
    AllocFailed { size: u64, call: String },
    /// A block was given back, `age_ns` after it was obtained.
    Free { addr: String, size: u64, age_ns: u64 },
    /// Memory was freed that no recorded allocation made.
    FreeUnknown { addr: String },
    /// A realloc of this block begins.
    ReallocBegin { addr: String, size: u64 },
    /// The realloc failed or changed nothing.
    ReallocUndo { addr: String, size: u64 },
    /// The heap moved the break up by `size`.
    Brk { from: String, to: String, size: u64, rule: String },
    /// The heap moved the break down by `size`.
    Trim { from: String, to: String, size: u64 },
    /// Free pages inside the heap went back to the system.
    Release { addr: String, size: u64 },
    /// A chunk got a mapping of its own.
    Mmap { addr: String, size: u64 },
    /// A chunk's own mapping was given back.
    Munmap { addr: String, size: u64 },
    /// A chunk's own mapping is about to be resized.
    MremapFrom { addr: String, size: u64 },
    /// Where that mapping is now.
    MremapTo { addr: String, size: u64 },
    /// A free chunk was cut into `size`, handed out, and `rest`, still free.
    Split { addr: String, size: u64, rest: u64, from_top: bool },
    /// A freed chunk of `freed` bytes merged with free neighbours to `size`.
    Coalesce { addr: String, size: u64, freed: u64, previous: bool, next: bool, top: bool },
    /// A free chunk was put into a bin, or by the heap itself into the thread's cache.
    Bin { addr: String, size: u64, bin: String, index: u8 },
    /// A thread's cache came into being: its bookkeeping is this chunk.
    CacheBirth { addr: String, size: u64 },
    /// A thread's cache gave its chunks back.
    TcacheFlush { chunks: u32, size: u64 },
    /// The fast bins were emptied into the unsorted bin.
    Consolidate { chunks: u32, size: u64 },
    /// An arena was made.
    ArenaBirth { addr: String },
    /// The last thread of an arena ended.
    ArenaIdle,
    /// A thread was attached to an arena.
    ArenaAttach,
    /// A sub-heap of an arena was mapped.
    HeapBirth { addr: String, size: u64 },
    /// A sub-heap grew or shrank to `size`.
    HeapResize { addr: String, size: u64, rule: String },
    /// A sub-heap was unmapped.
    HeapDeath { addr: String, size: u64 },
    /// Requests of this size and more now get a mapping of their own.
    Threshold { size: u64 },
    /// The program mapped memory; `path` is empty for anonymous memory.
    ProgramMmap { addr: String, size: u64, protection: String, shared: bool, path: String },
    /// The program unmapped memory.
    ProgramMunmap { addr: String, size: u64 },
    /// The program moved or resized a mapping.
    ProgramMremap { addr: String, size: u64, to: String, to_size: u64 },
    /// The program advised the system about a range, or locked it.
    ProgramMadvise { addr: String, size: u64, advice: String },
    /// The program itself moved the break.
    ProgramBrk { from: String, to: String },
    /// The thread's next allocation asks for this alignment.
    Aligned { align: u64 },
    /// The program called `malloc_trim`, which leaves `pad` bytes at the top.
    MallocTrim { pad: u64 },
    /// The program called `mallopt`.
    Mallopt { parameter: String, value: i64 },
    /// The environment set a tunable of malloc.
    Tunable { name: String, value: u64 },
    /// The program wants checks for leaks to ignore the block that this address lies in.
    Ignore { addr: String },
    /// The process was copied here, to be checked for leaks.
    Copied,
    /// Where only some allocations are recorded: the thread's first one behind one that was, not recorded itself.
    Passed,
    /// A thread's first event.
    ThreadStart,
    /// A thread's last event.
    ThreadExit,
    /// The process forked.
    Fork,
    /// The process is about to become another program.
    Exec { path: String },
    /// It did not.
    ExecFailed,
    /// The process began to end.
    Exit { status: i32 },
    /// A mark.
    Marker { text: String },
    /// The program gave an address to free or realloc, which refused it: `fault` says what it was.
    Fault { addr: String, fault: String },
    /// Events of this thread are missing here.
    Lost { events: u64, reason: String },
    /// Modules were unloaded.
    Dlclose,
}

impl What {
    pub(super) fn of(entry: &Entry<'_>) -> What {
        match entry.event {
            Event::Alloc { block, .. } => What::Alloc {
                addr: address(block.addr),
                size: block.size_bytes,
                slack: block.slack_bytes,
                call: block.call.name().to_owned(),
            },
            Event::AllocFailed { size_bytes, call } => {
                What::AllocFailed { size: size_bytes, call: call.name().to_owned() }
            }
            Event::Free { block, .. } => What::Free {
                addr: address(block.addr),
                size: block.size_bytes,
                age_ns: entry.at_ns.saturating_sub(block.at_ns),
            },
            Event::FreeUnknown { addr } => What::FreeUnknown { addr: address(addr) },
            Event::ReallocBegin { block, .. } => {
                What::ReallocBegin { addr: address(block.addr), size: block.size_bytes }
            }
            Event::ReallocUndo { block, .. } => What::ReallocUndo { addr: address(block.addr), size: block.size_bytes },
            Event::Heap { step, .. } => What::of_heap(step),
            Event::Program(event) => What::of_program(event),
            Event::HeapCall { call, argument, value } => match call {
                HeapCall::Aligned => What::Aligned { align: value },
                HeapCall::MallocTrim => What::MallocTrim { pad: value },
                HeapCall::Mallopt => What::Mallopt { parameter: names::parameter(argument), value: value as i64 },
                HeapCall::Tunable => What::Tunable { name: names::tunable(argument), value },
                HeapCall::Ignore => What::Ignore { addr: address(value) },
                HeapCall::Copied => What::Copied,
                HeapCall::Passed => What::Passed,
            },
            Event::Process(event) => What::of_process(event),
            Event::Marker { text } => What::Marker { text: text.to_owned() },
            Event::Lost { events, reason } => What::Lost { events, reason: names::loss(reason).to_owned() },
            Event::Fault { addr, kind } => What::Fault { addr: address(addr), fault: names::fault(kind).to_owned() },
        }
    }

    fn of_program(event: ProgramEvent<'_>) -> What {
        match event {
            ProgramEvent::Map { addr, len_bytes, protection, shared, path } => What::ProgramMmap {
                addr: address(addr),
                size: len_bytes,
                protection: names::protection(protection),
                shared,
                path: path.to_owned(),
            },
            ProgramEvent::Unmap { addr, len_bytes } => What::ProgramMunmap { addr: address(addr), size: len_bytes },
            ProgramEvent::Remap { from, from_bytes, to, to_bytes } => {
                What::ProgramMremap { addr: address(from), size: from_bytes, to: address(to), to_size: to_bytes }
            }
            ProgramEvent::Advise { addr, len_bytes, advice } => {
                What::ProgramMadvise { addr: address(addr), size: len_bytes, advice: names::advice(advice).to_owned() }
            }
            ProgramEvent::Brk { from, to } => What::ProgramBrk { from: address(from), to: address(to) },
        }
    }

    fn of_process(event: ProcessEvent<'_>) -> What {
        match event {
            ProcessEvent::ThreadStart => What::ThreadStart,
            ProcessEvent::ThreadExit => What::ThreadExit,
            ProcessEvent::Fork => What::Fork,
            ProcessEvent::Exec { path } => What::Exec { path: path.to_owned() },
            ProcessEvent::ExecFailed => What::ExecFailed,
            ProcessEvent::Exit { status } => What::Exit { status },
            ProcessEvent::ModulesClosed => What::Dlclose,
        }
    }

    fn of_heap(step: HeapEvent) -> What {
        match step {
            HeapEvent::Brk { from, to, rule } => What::Brk {
                from: address(from.0),
                to: address(to.0),
                size: to.0.saturating_sub(from.0),
                rule: names::rule(rule).to_owned(),
            },
            HeapEvent::Trim { from, to } => {
                What::Trim { from: address(from.0), to: address(to.0), size: from.0.saturating_sub(to.0) }
            }
            HeapEvent::Release { addr, len_bytes } => What::Release { addr: address(addr.0), size: len_bytes },
            HeapEvent::ChunkMap { addr, len_bytes } => What::Mmap { addr: address(addr.0), size: len_bytes },
            HeapEvent::ChunkUnmap { addr, len_bytes } => What::Munmap { addr: address(addr.0), size: len_bytes },
            HeapEvent::ChunkRemapFrom { addr, len_bytes } => {
                What::MremapFrom { addr: address(addr.0), size: len_bytes }
            }
            HeapEvent::ChunkRemapTo { addr, len_bytes } => What::MremapTo { addr: address(addr.0), size: len_bytes },
            HeapEvent::Split { addr, front_bytes, rest_bytes, from_top } => {
                What::Split { addr: address(addr.0), size: front_bytes, rest: rest_bytes, from_top }
            }
            HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged } => What::Coalesce {
                addr: address(addr.0),
                size: total_bytes,
                freed: freed_bytes,
                previous: merged.previous,
                next: merged.next,
                top: merged.top,
            },
            HeapEvent::Bin { addr, size_bytes, bin, index } => {
                What::Bin { addr: address(addr.0), size: size_bytes, bin: names::bin(bin).to_owned(), index }
            }
            HeapEvent::CacheBirth { addr, size_bytes } => What::CacheBirth { addr: address(addr.0), size: size_bytes },
            HeapEvent::TcacheFlush { chunks, size_bytes } => What::TcacheFlush { chunks, size: size_bytes },
            HeapEvent::Consolidate { chunks, size_bytes } => What::Consolidate { chunks, size: size_bytes },
            HeapEvent::ArenaBirth { addr } => What::ArenaBirth { addr: address(addr.0) },
            HeapEvent::ArenaIdle => What::ArenaIdle,
            HeapEvent::ArenaAttach => What::ArenaAttach,
            HeapEvent::HeapBirth { addr, len_bytes } => What::HeapBirth { addr: address(addr.0), size: len_bytes },
            HeapEvent::HeapResize { addr, len_bytes, rule } => {
                What::HeapResize { addr: address(addr.0), size: len_bytes, rule: names::rule(rule).to_owned() }
            }
            HeapEvent::HeapDeath { addr, len_bytes } => What::HeapDeath { addr: address(addr.0), size: len_bytes },
            HeapEvent::Threshold { mmap_bytes } => What::Threshold { size: mmap_bytes },
        }
    }
}
