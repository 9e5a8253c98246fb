//! What few events say, taken from them alike however the rest is added up.

use xalloc_core::wire::HeapEvent;

use super::aggregates::Totals;
use super::faults::Unexplained;
use super::marks::Marks;
use super::segments::Segments;
use crate::trace::{Allocator, By, Contents, Event, ProcessIndex};

/// The heap's own memory, marks, and what went wrong.
#[derive(Debug)]
pub(super) struct Uncommon {
    pub(super) marks: Marks,
    pub(super) unexplained: Unexplained,
    pub(super) is_heap_known: bool,
    segments: Segments,
}

impl Uncommon {
    /// Of one process of a trace.
    pub(super) fn of(contents: &Contents, process: ProcessIndex) -> Uncommon {
        let process = contents.processes.get(process.0 as usize);
        Uncommon {
            marks: Marks::default(),
            unexplained: Unexplained::default(),
            is_heap_known: contents.recording.sampling.is_none()
                && process.is_some_and(|process| process.allocator == Allocator::Core && !process.forked),
            segments: Segments::default(),
        }
    }

    /// The heap's bytes after a step of it, if they are known and the step moved memory.
    pub(super) fn heap_bytes_after(&mut self, step: HeapEvent) -> Option<u64> {
        if !self.is_heap_known {
            return None;
        }
        self.segments.apply(step)?;
        Some(self.segments.bytes())
    }

    /// Takes an event that is about no block of the process.
    pub(super) fn take(&mut self, by: By, event: Event<'_>, totals: &mut Totals) {
        match event {
            Event::FreeUnknown { addr } => {
                totals.unknown_frees += 1;
                self.unexplained.add_free(addr);
            }
            Event::Fault { addr, .. } => self.unexplained.add_fault(addr),
            Event::Lost { events, .. } => totals.lost_events = totals.lost_events.saturating_add(events),
            Event::Marker { text } => self.marks.add(by.at_ns, text),
            Event::Program(_) | Event::HeapCall { .. } | Event::Process(_) => {}
            // Counted for what it stands for by who adds up.
            Event::AllocFailed { .. } => {}
            // Told by functions of their own.
            Event::Alloc { .. }
            | Event::Free { .. }
            | Event::ReallocBegin { .. }
            | Event::ReallocUndo { .. }
            | Event::Heap { .. } => {}
        }
    }
}
