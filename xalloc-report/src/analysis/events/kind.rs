//! The kinds by which events are selected.

use xalloc_core::wire::{HeapCall, HeapEvent};

use crate::analysis::names::Named;
use crate::trace::{Event, ProcessEvent, ProgramEvent};

/// A kind of event, as a user thinks of it: one may take in several events of the format, and an event may be of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A block was obtained, or could not be.
    Alloc,
    /// A block was given back.
    Free,
    /// A realloc: its beginning, its new block, its undoing.
    Realloc,
    /// The break moved up.
    Brk,
    /// The break moved down, or the program asked for it with `malloc_trim`.
    Trim,
    /// Free pages inside the heap went back to the system.
    Release,
    /// Memory was mapped, by the heap or by the program.
    Mmap,
    /// Memory was unmapped.
    Munmap,
    /// A mapping was moved or resized.
    Mremap,
    /// The program advised the system about a range.
    Madvise,
    /// A free chunk was cut.
    Split,
    /// Free chunks were merged.
    Coalesce,
    /// A free chunk was put into a bin.
    Bin,
    /// A thread's cache gave its chunks back.
    Tcache,
    /// The fast bins were emptied.
    Consolidate,
    /// An arena or one of its heaps began, changed or ended.
    Arena,
    /// The mmap threshold moved.
    Threshold,
    /// `mallopt`, and what the environment set of malloc's numbers.
    Setting,
    /// A thread began or ended.
    Thread,
    /// fork, exec and exit.
    Process,
    /// A mark of the program's.
    Marker,
    /// A pointer that free or realloc refused.
    Fault,
    /// Events are missing here.
    Lost,
    /// Modules were unloaded.
    Dlclose,
}

impl Named for EventKind {
    const ALL: &'static [EventKind] = &[
        EventKind::Alloc,
        EventKind::Free,
        EventKind::Realloc,
        EventKind::Brk,
        EventKind::Trim,
        EventKind::Release,
        EventKind::Mmap,
        EventKind::Munmap,
        EventKind::Mremap,
        EventKind::Madvise,
        EventKind::Split,
        EventKind::Coalesce,
        EventKind::Bin,
        EventKind::Tcache,
        EventKind::Consolidate,
        EventKind::Arena,
        EventKind::Threshold,
        EventKind::Setting,
        EventKind::Thread,
        EventKind::Process,
        EventKind::Marker,
        EventKind::Fault,
        EventKind::Lost,
        EventKind::Dlclose,
    ];

    fn name(self) -> &'static str {
        match self {
            EventKind::Alloc => "alloc",
            EventKind::Free => "free",
            EventKind::Realloc => "realloc",
            EventKind::Brk => "brk",
            EventKind::Trim => "trim",
            EventKind::Release => "release",
            EventKind::Mmap => "mmap",
            EventKind::Munmap => "munmap",
            EventKind::Mremap => "mremap",
            EventKind::Madvise => "madvise",
            EventKind::Split => "split",
            EventKind::Coalesce => "coalesce",
            EventKind::Bin => "bin",
            EventKind::Tcache => "tcache",
            EventKind::Consolidate => "consolidate",
            EventKind::Arena => "arena",
            EventKind::Threshold => "threshold",
            EventKind::Setting => "setting",
            EventKind::Thread => "thread",
            EventKind::Process => "process",
            EventKind::Marker => "marker",
            EventKind::Fault => "fault",
            EventKind::Lost => "lost",
            EventKind::Dlclose => "dlclose",
        }
    }
}

impl EventKind {
    /// Whether the events of this kind are steps of the heap, but for rare ones. Of maps and what becomes of them the
    /// program's own are as many.
    #[must_use]
    pub fn is_heap_step(self) -> bool {
        match self {
            EventKind::Brk
            | EventKind::Trim
            | EventKind::Release
            | EventKind::Split
            | EventKind::Coalesce
            | EventKind::Bin
            | EventKind::Tcache
            | EventKind::Consolidate
            | EventKind::Arena
            | EventKind::Threshold => true,
            EventKind::Alloc
            | EventKind::Free
            | EventKind::Realloc
            | EventKind::Mmap
            | EventKind::Munmap
            | EventKind::Mremap
            | EventKind::Madvise
            | EventKind::Setting
            | EventKind::Thread
            | EventKind::Process
            | EventKind::Marker
            | EventKind::Fault
            | EventKind::Lost
            | EventKind::Dlclose => false,
        }
    }

    /// Whether the event is of this kind.
    pub(super) fn includes(self, event: &Event<'_>) -> bool {
        let (first, second) = kinds(event);
        self == first || Some(self) == second
    }
}

fn kinds(event: &Event<'_>) -> (EventKind, Option<EventKind>) {
    match event {
        Event::Alloc { block, .. } => (EventKind::Alloc, block.call.is_realloc().then_some(EventKind::Realloc)),
        Event::AllocFailed { call, .. } => (EventKind::Alloc, call.is_realloc().then_some(EventKind::Realloc)),
        Event::Free { .. } | Event::FreeUnknown { .. } => (EventKind::Free, None),
        Event::ReallocBegin { .. } | Event::ReallocUndo { .. } => (EventKind::Realloc, None),
        Event::Heap { step, .. } => heap(step),
        Event::Program(event) => (program(event), None),
        Event::HeapCall { call: HeapCall::Aligned, .. } => (EventKind::Alloc, None),
        Event::HeapCall { call: HeapCall::MallocTrim, .. } => (EventKind::Trim, None),
        Event::HeapCall {
            call: HeapCall::Mallopt | HeapCall::Tunable | HeapCall::Ignore | HeapCall::Copied | HeapCall::Passed,
            ..
        } => (EventKind::Setting, None),
        Event::Process(event) => (process(event), None),
        Event::Marker { .. } => (EventKind::Marker, None),
        Event::Fault { .. } => (EventKind::Fault, None),
        Event::Lost { .. } => (EventKind::Lost, None),
    }
}

fn program(event: &ProgramEvent<'_>) -> EventKind {
    match event {
        ProgramEvent::Map { .. } => EventKind::Mmap,
        ProgramEvent::Unmap { .. } => EventKind::Munmap,
        ProgramEvent::Remap { .. } => EventKind::Mremap,
        ProgramEvent::Advise { .. } => EventKind::Madvise,
        ProgramEvent::Brk { .. } => EventKind::Brk,
    }
}

fn process(event: &ProcessEvent<'_>) -> EventKind {
    match event {
        ProcessEvent::ThreadStart | ProcessEvent::ThreadExit => EventKind::Thread,
        ProcessEvent::Fork | ProcessEvent::Exec { .. } | ProcessEvent::ExecFailed | ProcessEvent::Exit { .. } => {
            EventKind::Process
        }
        ProcessEvent::ModulesClosed => EventKind::Dlclose,
    }
}

fn heap(step: &HeapEvent) -> (EventKind, Option<EventKind>) {
    match step {
        HeapEvent::Brk { .. } => (EventKind::Brk, None),
        HeapEvent::Trim { .. } => (EventKind::Trim, None),
        HeapEvent::Release { .. } => (EventKind::Release, None),
        HeapEvent::ChunkMap { .. } => (EventKind::Mmap, None),
        HeapEvent::ChunkUnmap { .. } => (EventKind::Munmap, None),
        HeapEvent::ChunkRemapFrom { .. } | HeapEvent::ChunkRemapTo { .. } => (EventKind::Mremap, None),
        HeapEvent::Split { .. } => (EventKind::Split, None),
        HeapEvent::Coalesce { .. } => (EventKind::Coalesce, None),
        HeapEvent::Bin { .. } => (EventKind::Bin, None),
        HeapEvent::CacheBirth { .. } | HeapEvent::TcacheFlush { .. } => (EventKind::Tcache, None),
        HeapEvent::Consolidate { .. } => (EventKind::Consolidate, None),
        HeapEvent::HeapBirth { .. } => (EventKind::Arena, Some(EventKind::Mmap)),
        HeapEvent::HeapDeath { .. } => (EventKind::Arena, Some(EventKind::Munmap)),
        HeapEvent::ArenaBirth { .. } | HeapEvent::ArenaIdle | HeapEvent::ArenaAttach | HeapEvent::HeapResize { .. } => {
            (EventKind::Arena, None)
        }
        HeapEvent::Threshold { .. } => (EventKind::Threshold, None),
    }
}
