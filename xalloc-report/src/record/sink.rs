//! The trace's writer as the place where the drain's events go.

use super::drain::Sink;
use crate::trace::{Block, Contents, Incoming, LiveSet, ProcessIndex, Snapshot, Tally, TraceError, Writer};

impl<T: Tally> Sink for Writer<T> {
    type Error = TraceError;
    type LiveSet = LiveSet;

    fn gain(&mut self, contents: &Contents) {
        self.sync_contents(contents);
    }

    fn begin(&mut self, process: ProcessIndex, inherited: Option<LiveSet>) -> Result<(), TraceError> {
        self.begin_process_with(process, inherited)
    }

    fn live_set(&self, process: ProcessIndex) -> Result<LiveSet, TraceError> {
        Writer::live_set(self, process)
    }

    fn live_blocks(&self, process: ProcessIndex) -> Result<Vec<Block>, TraceError> {
        Writer::live_blocks(self, process)
    }

    fn live_block(&mut self, process: ProcessIndex, addr: u64) -> Result<Option<Block>, TraceError> {
        Writer::live_block(self, process, addr)
    }

    fn push_all(&mut self, process: ProcessIndex, events: &[Incoming]) -> Result<(), TraceError> {
        Writer::push_all(self, process, events)
    }

    fn push_with_text(&mut self, process: ProcessIndex, event: &Incoming, text: &str) -> Result<(), TraceError> {
        Writer::push_with_text(self, process, event, text)
    }

    fn end(&mut self, process: ProcessIndex) -> Result<(), TraceError> {
        self.end_process(process)
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), TraceError> {
        self.push_snapshot(snapshot)
    }

    fn save(&mut self) -> Result<(), TraceError> {
        self.flush()
    }
}
