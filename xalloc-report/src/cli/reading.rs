//! A trace that shows on the terminal how far its reading has come.
//!
//! The bar tells of one pass over one process, for how many passes a report takes is the report's business. It appears
//! only when a pass has gone on for a while: small traces are read in no time, and a terminal that asked for no escape
//! sequences gets none for them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::model::Recorded;
use crate::trace::{Contents, Inheritance, Moment, ProcessIndex, Replay, Snapshot, Tally, Trace, TraceError};

/// Time after a pass's first block before the bar appears.
const UNSEEN: Duration = Duration::from_millis(300);

/// A trace that is being read; the bar goes when this is dropped.
pub(super) struct Reading<'a> {
    trace: &'a Trace,
    bar: ProgressBar,
    first_block_at: Cell<Option<Instant>>,
}

impl<'a> Reading<'a> {
    /// Nothing is shown yet, and nothing ever where standard error is no terminal.
    pub(super) fn of(trace: &'a Trace) -> Reading<'a> {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        // The template is constant; if it were refused, the bar would look as the library makes it.
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %, {eta} left") {
            bar.set_style(style);
        }
        Reading { trace, bar, first_block_at: Cell::new(None) }
    }

    fn begin(&self, process: ProcessIndex) {
        let (ProcessIndex(number), processes) = (process, self.trace.contents().processes.len());
        let event_bytes = self.trace.event_bytes(process);
        self.bar.set_length(event_bytes);
        self.bar.set_position(0);
        self.bar.reset_eta();
        self.bar.set_message(match processes {
            0 | 1 => format!("reading {}", HumanBytes(event_bytes)),
            _ => format!("reading {} of process {} of {processes}", HumanBytes(event_bytes), u64::from(number) + 1),
        });
    }

    fn show(&self, done_bytes: u64) {
        let now = Instant::now();
        let first_at = self.first_block_at.get().unwrap_or(now);
        self.first_block_at.set(Some(first_at));
        if self.bar.is_hidden() && now.duration_since(first_at) >= UNSEEN {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done_bytes);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Recorded for Reading<'_> {
    type Error = TraceError;

    fn contents(&self) -> &Contents {
        self.trace.contents()
    }

    fn events(&self, process: ProcessIndex) -> u64 {
        self.trace.events(process)
    }

    fn replay(&self, process: ProcessIndex, to: &mut impl Replay) -> Result<(), TraceError> {
        self.begin(process);
        self.trace.replay_with_progress(process, Moment::Seq(0), to, &mut |done_bytes| self.show(done_bytes))
    }

    fn tally(&self, process: ProcessIndex, to: &mut impl Tally) -> Result<(), TraceError> {
        self.begin(process);
        self.trace.tally(process, to, &mut |done_bytes| self.show(done_bytes))
    }

    fn replay_within(
        &self,
        process: ProcessIndex,
        first: Moment,
        last: Option<Moment>,
        to: &mut impl Replay,
    ) -> Result<(), TraceError> {
        self.trace.replay_within(process, first, last, to)
    }

    fn inheritance(&self, process: ProcessIndex) -> Result<Inheritance, TraceError> {
        self.trace.inheritance(process)
    }

    fn snapshots(&self, process: ProcessIndex) -> Result<Vec<Snapshot>, TraceError> {
        self.trace.snapshots(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::server_with_child;
    use crate::model::{Model, Settings};

    #[test]
    fn the_bar_comes_to_the_end_of_each_process_and_nothing_is_drawn_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample.xtrace");
        server_with_child().write(&path).unwrap();
        let trace = Trace::open(&path).unwrap();
        let reading = Reading::of(&trace);
        for (process, message) in [(0, "of process 1 of 2"), (1, "of process 2 of 2")] {
            Model::of(&reading, [ProcessIndex(process)], Settings::default()).unwrap();
            let event_bytes = trace.event_bytes(ProcessIndex(process));
            assert!(event_bytes > 0);
            assert_eq!((reading.bar.position(), reading.bar.length()), (event_bytes, Some(event_bytes)));
            assert!(reading.bar.message().ends_with(message), "{}", reading.bar.message());
        }
        assert!(reading.bar.is_hidden());
        let bar = reading.bar.clone();
        drop(reading);
        assert!(bar.is_finished());
    }
}
