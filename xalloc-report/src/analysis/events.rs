//! The events themselves, as a story: what each one did, by whom and from where.
//!
//! Events are handed on one by one and never collected, so a window of any size costs no memory.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::units::ArenaId;

use super::frames::{FrameView, innermost};
use super::names::Named;
use super::process::{ThreadName, pid};
use crate::trace::{Block, Contents, Entry, Event, ProcessIndex, Replay, StackIndex, Start, ThreadIndex};

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

/// One end of a window: a time, or the number of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instant {
    /// Nanoseconds since the recording's start.
    AtNs(u64),
    /// Number of an event in its process.
    Seq(u64),
}

/// Why a text is no [`Instant`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is neither a time such as 1.5s, 20ms, 300us or 7ns nor the number of an event")]
pub struct InstantError(String);

impl FromStr for Instant {
    type Err = InstantError;

    fn from_str(text: &str) -> Result<Instant, InstantError> {
        let bad = || InstantError(text.to_owned());
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
        for (unit, ns) in units {
            // "ns" before "s": a longer unit that ends like a shorter one comes first.
            if let Some(number) = text.strip_suffix(unit) {
                let value: f64 = number.trim_end().parse().map_err(|_| bad())?;
                let inside = value.is_finite() && (0.0..=u64::MAX as f64).contains(&(value * ns));
                return if inside { Ok(Instant::AtNs((value * ns).round() as u64)) } else { Err(bad()) };
            }
        }
        text.parse().map(Instant::Seq).map_err(|_| bad())
    }
}

/// Which events are wanted.
#[derive(Clone, Default, Debug)]
pub struct EventWindow {
    /// Kinds; none means all.
    pub kinds: Vec<EventKind>,
    /// The first wanted instant.
    pub from: Option<Instant>,
    /// The last wanted instant.
    pub to: Option<Instant>,
    /// A thread, by its number in its process or by its kernel id.
    pub thread: Option<u32>,
}

impl From<Instant> for Start {
    fn from(instant: Instant) -> Start {
        match instant {
            Instant::AtNs(ns) => Start::Time(ns),
            Instant::Seq(seq) => Start::Seq(seq),
        }
    }
}

impl EventWindow {
    /// Where a replay for the window may begin.
    #[must_use]
    pub fn first(&self) -> Start {
        self.from.map_or(Start::Seq(0), Start::from)
    }

    /// Behind what a replay for the window may end.
    #[must_use]
    pub fn last(&self) -> Option<Start> {
        self.to.map(Start::from)
    }

    fn contains(&self, entry: &Entry<'_>) -> bool {
        let after = match self.from {
            None => true,
            Some(Instant::AtNs(ns)) => entry.at_ns >= ns,
            Some(Instant::Seq(seq)) => entry.seq >= seq,
        };
        let before = match self.to {
            None => true,
            Some(Instant::AtNs(ns)) => entry.at_ns <= ns,
            Some(Instant::Seq(seq)) => entry.seq <= seq,
        };
        after && before && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.includes(&entry.event)))
    }
}

/// Hands the wanted events of one process on.
pub struct Observer<'a, F> {
    contents: &'a Contents,
    window: &'a EventWindow,
    pid: u32,
    threads: Vec<(ThreadIndex, ThreadName)>,
    stacks: rustc_hash::FxHashMap<StackIndex, Option<FrameView>>,
    each: F,
}

impl<'a, F: FnMut(EventView)> Observer<'a, F> {
    /// Calls `each` for every wanted event of `process`.
    pub fn of(contents: &'a Contents, process: ProcessIndex, window: &'a EventWindow, each: F) -> Observer<'a, F> {
        let pid = pid(contents, process);
        Observer { contents, window, pid, threads: Vec::new(), stacks: rustc_hash::FxHashMap::default(), each }
    }

    /// Number and kernel id of a thread. Threads take turns in runs, so the last one asked for is first.
    fn thread(&mut self, index: ThreadIndex) -> (u32, u32) {
        if let Some(place) = self.threads.iter().position(|(of, _)| *of == index) {
            self.threads.swap(0, place);
        } else {
            self.threads.insert(0, (index, ThreadName::of(self.contents, index)));
        }
        let name = &self.threads[0].1;
        (name.number, name.tid)
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
        let (thread, tid) = self.thread(entry.thread);
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
    fn times_have_units_and_bare_numbers_are_events() {
        assert_eq!("1.5s".parse(), Ok(Instant::AtNs(1_500_000_000)));
        assert_eq!("20ms".parse(), Ok(Instant::AtNs(20_000_000)));
        assert_eq!("300us".parse(), Ok(Instant::AtNs(300_000)));
        assert_eq!("7ns".parse(), Ok(Instant::AtNs(7)));
        assert_eq!("42".parse(), Ok(Instant::Seq(42)));
        for bad in ["", "s", "-1s", "1.5", "NaNs", "infs", "1h"] {
            assert!(bad.parse::<Instant>().is_err(), "{bad}");
        }
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
        let to = Some(Instant::Seq(4));
        assert_eq!(observed(&EventWindow { from: Some(Instant::Seq(2)), to, ..EventWindow::default() }).len(), 3);
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
