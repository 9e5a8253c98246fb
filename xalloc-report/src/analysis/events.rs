//! The events themselves, as a story: what each one did, by whom and from where.
//!
//! Events are handed on one by one and never collected, so a window of any size costs no memory.

use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::units::ArenaId;

use super::frames::{FrameView, innermost};
use super::names::Named;
use super::process::{ThreadNames, pid};
use crate::trace::{Block, Contents, Entry, Event, Moment, ProcessIndex, Replay, StackIndex};

mod kind;
mod what;

pub use kind::EventKind;
pub use what::What;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct EventView {
    /// Number in its process, from 0.
    pub seq: u64,
    /// Nanoseconds since the recording's start, to the microsecond.
    pub at_ns: u64,
    /// Process id.
    pub pid: u32,
    /// Number of the thread in its process, from 1.
    pub thread: u32,
    /// Kernel thread id.
    pub tid: u32,
    /// The arena, for steps of the heap; 0 is the one in the break.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arena: Option<u16>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// The innermost function of the program that caused it; absent if no stack was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<FrameView>,
}

/// Which events are wanted.
#[derive(Clone, Default, Debug)]
pub struct EventWindow {
    /// Kinds; none means all.
    pub kinds: Vec<EventKind>,
    /// The first wanted instant.
    pub from: Option<Moment>,
    /// The last wanted instant.
    pub to: Option<Moment>,
    /// A thread, by its number in its process or by its kernel id.
    pub thread: Option<u32>,
}

impl EventWindow {
    /// Where a replay for the window may begin.
    #[must_use]
    pub fn first(&self) -> Moment {
        self.from.unwrap_or(Moment::Seq(0))
    }

    /// Behind what a replay for the window may end.
    #[must_use]
    pub fn last(&self) -> Option<Moment> {
        self.to
    }

    fn contains(&self, entry: &Entry<'_>) -> bool {
        let after = match self.from {
            None => true,
            Some(Moment::Time(ns)) => entry.at_ns >= ns,
            Some(Moment::Seq(seq)) => entry.seq >= seq,
        };
        let before = match self.to {
            None => true,
            Some(Moment::Time(ns)) => entry.at_ns <= ns,
            Some(Moment::Seq(seq)) => entry.seq <= seq,
        };
        after && before && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.includes(&entry.event)))
    }
}

/// Hands the wanted events of one process on.
pub struct Observer<'a, F> {
    contents: &'a Contents,
    window: &'a EventWindow,
    pid: u32,
    threads: ThreadNames<'a>,
    stacks: rustc_hash::FxHashMap<StackIndex, Option<FrameView>>,
    each: F,
}

impl<'a, F: FnMut(EventView)> Observer<'a, F> {
    /// Calls `each` for every wanted event of `process`.
    pub fn of(contents: &'a Contents, process: ProcessIndex, window: &'a EventWindow, each: F) -> Observer<'a, F> {
        let pid = pid(contents, process);
        let threads = ThreadNames::of(contents);
        Observer { contents, window, pid, threads, stacks: rustc_hash::FxHashMap::default(), each }
    }

    fn innermost(&mut self, stack: StackIndex) -> Option<FrameView> {
        let contents = self.contents;
        self.stacks.entry(stack).or_insert_with(|| innermost(contents, stack)).clone()
    }
}

impl<F: FnMut(EventView)> Replay for Observer<'_, F> {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    fn entry(&mut self, entry: Entry<'_>) {
        if !self.window.contains(&entry) {
            return;
        }
        let (thread, tid) = self.threads.numbers(entry.thread);
        if self.window.thread.is_some_and(|wanted| wanted != thread && wanted != tid) {
            return;
        }
        let arena = match entry.event {
            Event::Heap { arena, .. } => (arena != ArenaId::NONE).then_some(arena.0),
            Event::Alloc { block, .. } => (block.arena != ArenaId::NONE).then_some(block.arena.0),
            Event::AllocFailed { .. }
            | Event::Free { .. }
            | Event::FreeUnknown { .. }
            | Event::ReallocBegin { .. }
            | Event::ReallocUndo { .. }
            | Event::Program(_)
            | Event::HeapCall { .. }
            | Event::Process(_)
            | Event::Fault { .. }
            | Event::Marker { .. }
            | Event::Lost { .. } => None,
        };
        let by = self.innermost(entry.stack);
        let what = What::of(&entry);
        (self.each)(EventView { seq: entry.seq, at_ns: entry.at_ns, pid: self.pid, thread, tid, arena, what, by });
    }
}

impl EventKind {
    /// The kinds that a comma-separated list names.
    ///
    /// # Errors
    /// The first word that is no kind.
    pub fn list(text: &str) -> Result<Vec<EventKind>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| EventKind::from_name(word).ok_or_else(|| word.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Recorded;
    use crate::model::sample::server;

    fn observed(window: &EventWindow) -> Vec<EventView> {
        let sample = server();
        let mut events = Vec::new();
        let mut observer = Observer::of(&sample.contents, ProcessIndex(0), window, |event| events.push(event));
        sample.replay(ProcessIndex(0), &mut observer).expect("a sample has no errors");
        events
    }

    #[test]
    fn a_window_keeps_what_it_names_and_nothing_else() {
        let all = observed(&EventWindow::default());
        let kinds = EventKind::list("split,brk").expect("both are kinds");
        let heap = observed(&EventWindow { kinds, ..EventWindow::default() });
        assert!(matches!(
            heap[..],
            [
                EventView { what: What::Brk { size: 0x21000, .. }, .. },
                EventView { what: What::Split { size: 30_736, rest: 104_416, from_top: true, .. }, .. },
            ]
        ));
        let worker = observed(&EventWindow { thread: Some(2), ..EventWindow::default() });
        assert_eq!(worker.len(), all.iter().filter(|event| event.thread == 2).count());
        let to = Some(Moment::Seq(4));
        assert_eq!(observed(&EventWindow { from: Some(Moment::Seq(2)), to, ..EventWindow::default() }).len(), 3);
    }

    #[test]
    fn a_realloc_is_found_with_both_of_its_halves() {
        let kinds = vec![EventKind::Realloc];
        let events = observed(&EventWindow { kinds, ..EventWindow::default() });
        assert!(matches!(
            events[..],
            [
                EventView { what: What::ReallocBegin { size: 4096, .. }, .. },
                EventView { what: What::Alloc { size: 8192, .. }, .. },
                EventView { what: What::ReallocBegin { .. }, .. },
                EventView { what: What::ReallocUndo { .. }, .. },
            ]
        ));
    }

    #[test]
    fn a_word_that_is_no_kind_is_named() {
        assert_eq!(EventKind::list("brk,chunks"), Err("chunks".to_owned()));
    }
}
