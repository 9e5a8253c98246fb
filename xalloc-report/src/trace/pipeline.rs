//! Blocks of events to whoever wants them, on two cores.
//!
//! One thread reads, unpacks and expands, the caller's plays, with a few batches between them that go back and forth.
//! What a batch is and what is done with it is for the two sides to agree on: [`super::decode`] and [`super::play`],
//! or [`super::skim`] alone. The caller's thread plays, so that what it tells need not be able to move between threads.

use std::sync::mpsc;

use super::container::BlockHeader;
use super::error::{Malformed, TraceError};
use super::footer::Entry;

/// Batches that exist.
const BATCHES: usize = 6;
/// A thread costs more than it saves on so many blocks.
const FEW_BLOCKS: usize = 2;

/// Turns blocks into batches.
pub(super) trait Expand: Send {
    /// Some consecutive events, expanded.
    type Batch: Default + Send;

    /// Unpacks a block of events.
    fn begin_block(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<(), Malformed>;

    /// Expands the next events of the block into `batch`; false if there are none.
    fn expand(&mut self, batch: &mut Self::Batch) -> Result<bool, Malformed>;
}

/// Reads the payload of a block.
pub(super) type Read<'a> = &'a (dyn Fn(&Entry, &mut Vec<u8>) -> Result<BlockHeader, TraceError> + Sync);

/// Blocks to go through.
pub(super) struct Pipeline<'a> {
    pub(super) entries: &'a [&'a Entry],
    pub(super) read: Read<'a>,
}

/// What the expanding side says.
enum Message<B> {
    Batch(B),
    BlockDone,
    Failed(TraceError),
}

impl Pipeline<'_> {
    /// Goes through the blocks; `progress` is told, after each, how many of their bytes are done.
    pub(super) fn run<E: Expand>(
        &self,
        expander: E,
        play: &mut impl FnMut(&E::Batch) -> Result<(), Malformed>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        if self.entries.len() > FEW_BLOCKS {
            self.with_expander_aside(expander, play, progress)
        } else {
            self.in_turns(expander, play, progress)
        }
    }

    /// Expands and plays on one thread.
    pub(super) fn in_turns<E: Expand>(
        &self,
        mut expander: E,
        play: &mut impl FnMut(&E::Batch) -> Result<(), Malformed>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        let mut batch = E::Batch::default();
        let mut payload = Vec::new();
        let mut done_bytes = 0;
        for entry in self.entries {
            self.begin_block(&mut expander, entry, &mut payload)?;
            let at = |fault: Malformed| fault.at(entry.offset_bytes);
            while expander.expand(&mut batch).map_err(at)? {
                play(&batch).map_err(at)?;
            }
            done_bytes += entry.header.len_bytes();
            progress(done_bytes);
        }
        Ok(())
    }

    fn begin_block(&self, expander: &mut impl Expand, entry: &Entry, payload: &mut Vec<u8>) -> Result<(), TraceError> {
        let header = (self.read)(entry, payload)?;
        expander.begin_block(&header, payload).map_err(|fault| fault.at(entry.offset_bytes))
    }

    fn with_expander_aside<E: Expand>(
        &self,
        mut expander: E,
        play: &mut impl FnMut(&E::Batch) -> Result<(), Malformed>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        std::thread::scope(|scope| {
            let (full_out, full_in) = mpsc::sync_channel::<Message<E::Batch>>(BATCHES);
            let (empty_out, empty_in) = mpsc::channel::<E::Batch>();
            for _ in 0..BATCHES {
                // The receiver lives in this function, so the batch arrives.
                let _ = empty_out.send(E::Batch::default());
            }
            scope.spawn(move || {
                let mut payload = Vec::new();
                let mut spare = None;
                let mut expand = |entry: &Entry| -> Result<bool, TraceError> {
                    self.begin_block(&mut expander, entry, &mut payload)?;
                    while let Some(mut batch) = spare.take().or_else(|| empty_in.recv().ok()) {
                        if !expander.expand(&mut batch).map_err(|fault| fault.at(entry.offset_bytes))? {
                            spare = Some(batch);
                            return Ok(full_out.send(Message::BlockDone).is_ok());
                        }
                        if full_out.send(Message::Batch(batch)).is_err() {
                            return Ok(false);
                        }
                    }
                    Ok(false)
                };
                for &entry in self.entries {
                    match expand(entry) {
                        Ok(true) => {}
                        // The player has stopped: it met an error of its own.
                        Ok(false) => return,
                        Err(error) => {
                            let _ = full_out.send(Message::Failed(error));
                            return;
                        }
                    }
                }
            });
            let mut done = self.entries.iter();
            let mut at = done.next();
            let mut done_bytes = 0;
            for message in full_in {
                match message {
                    Message::Batch(batch) => {
                        let offset_bytes = at.map_or(0, |entry| entry.offset_bytes);
                        play(&batch).map_err(|fault| fault.at(offset_bytes))?;
                        // The expander may have come to its end and dropped the other side.
                        let _ = empty_out.send(batch);
                    }
                    Message::BlockDone => {
                        done_bytes += at.map_or(0, |entry| entry.header.len_bytes());
                        at = done.next();
                        progress(done_bytes);
                    }
                    Message::Failed(error) => return Err(error),
                }
            }
            Ok(())
        })
    }
}
