//! Blocks of events to whoever wants them, on as many cores as there are.
//!
//! One thread reads and unpacks blocks, one expands them, the caller's plays. The first is the lightest by far: it fills
//! what the other two leave of two cores. Columns and batches go back and forth, so that memory is a few of each.
//!
//! What is unpacked, what a batch is and what is done with it is for the three to agree on: [`super::decode`] and
//! [`super::play`], or [`super::skim`] alone. The caller's thread plays, so that what it tells need not be able to move
//! between threads.

use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use super::columns::{Column, Unpacker};
use super::container::BlockHeader;
use super::error::{Malformed, TraceError};
use super::footer::Entry;
use super::ops::FIELDS;

/// Batches that exist.
const BATCHES: usize = 6;
/// Blocks that are unpacked and not expanded.
const BLOCKS_AHEAD: usize = 2;
/// Threads cost more than they save on so many blocks.
const FEW_BLOCKS: usize = 2;

/// The columns of a block.
pub(super) type Columns = [Column; FIELDS];

/// Columns to unpack the first block into.
pub(super) fn columns() -> Columns {
    std::array::from_fn(|_| Column::default())
}

/// Turns blocks into batches.
pub(super) trait Expand: Send {
    /// Some consecutive events, expanded.
    type Batch: Default + Send;

    /// Unpacks what is read of a block of events.
    fn unpack(
        unpacker: &mut Unpacker,
        header: &BlockHeader,
        payload: &[u8],
        columns: &mut Columns,
    ) -> Result<(), Malformed>;

    /// A block begins; takes its columns and leaves those of the block before.
    fn begin_block(&mut self, header: &BlockHeader, columns: &mut Columns) -> Result<(), Malformed>;

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

/// A block on its way to be expanded.
type Unpacked = Result<(BlockHeader, Columns), TraceError>;

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
        unpacker: Unpacker,
        play: &mut impl FnMut(&E::Batch) -> Result<(), Malformed>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        if self.entries.len() > FEW_BLOCKS {
            self.in_parallel(expander, unpacker, play, progress)
        } else {
            self.in_turns(expander, unpacker, play, progress)
        }
    }

    /// Does everything on one thread.
    pub(super) fn in_turns<E: Expand>(
        &self,
        mut expander: E,
        mut unpacker: Unpacker,
        play: &mut impl FnMut(&E::Batch) -> Result<(), Malformed>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        let mut columns = columns();
        let mut batch = E::Batch::default();
        let mut payload = Vec::new();
        let mut done_bytes = 0;
        for entry in self.entries {
            let header = self.unpack::<E>(entry, &mut unpacker, &mut payload, &mut columns)?;
            let at = |fault: Malformed| fault.at(entry.offset_bytes);
            expander.begin_block(&header, &mut columns).map_err(at)?;
            while expander.expand(&mut batch).map_err(at)? {
                play(&batch).map_err(at)?;
            }
            done_bytes += entry.header.len_bytes();
            progress(done_bytes);
        }
        Ok(())
    }

    fn unpack<E: Expand>(
        &self,
        entry: &Entry,
        unpacker: &mut Unpacker,
        payload: &mut Vec<u8>,
        columns: &mut Columns,
    ) -> Result<BlockHeader, TraceError> {
        let header = (self.read)(entry, payload)?;
        E::unpack(unpacker, &header, payload, columns).map_err(|fault| fault.at(entry.offset_bytes))?;
        Ok(header)
    }

    fn in_parallel<E: Expand>(
        &self,
        expander: E,
        unpacker: Unpacker,
        play: &mut impl FnMut(&E::Batch) -> Result<(), Malformed>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        std::thread::scope(|scope| {
            let (unpacked_out, unpacked_in) = mpsc::sync_channel::<Unpacked>(BLOCKS_AHEAD);
            let (used_out, used_in) = mpsc::channel::<Columns>();
            let (full_out, full_in) = mpsc::sync_channel::<Message<E::Batch>>(BATCHES);
            let (empty_out, empty_in) = mpsc::channel::<E::Batch>();
            // The receivers live in this function, so what is sent arrives.
            for _ in 0..BLOCKS_AHEAD {
                let _ = used_out.send(columns());
            }
            for _ in 0..BATCHES {
                let _ = empty_out.send(E::Batch::default());
            }
            scope.spawn(move || self.unpack_all::<E>(unpacker, &used_in, &unpacked_out));
            scope.spawn(move || {
                let unpacked = self.entries.iter().zip(unpacked_in);
                if let Err(error) = expand_all(expander, unpacked, &used_out, &empty_in, &full_out) {
                    let _ = full_out.send(Message::Failed(error));
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

    /// Reads and unpacks every block, up to the first that cannot be, or until nobody wants them.
    fn unpack_all<E: Expand>(&self, mut unpacker: Unpacker, used: &Receiver<Columns>, to: &SyncSender<Unpacked>) {
        let mut payload = Vec::new();
        for (entry, mut columns) in self.entries.iter().zip(used) {
            let unpacked = self.unpack::<E>(entry, &mut unpacker, &mut payload, &mut columns);
            let is_last = unpacked.is_err();
            if to.send(unpacked.map(|header| (header, columns))).is_err() || is_last {
                return;
            }
        }
    }
}

/// Expands every block, or until the player has stopped: it met an error of its own.
fn expand_all<'a, E: Expand>(
    mut expander: E,
    blocks: impl Iterator<Item = (&'a &'a Entry, Unpacked)>,
    used: &Sender<Columns>,
    empty: &Receiver<E::Batch>,
    to: &SyncSender<Message<E::Batch>>,
) -> Result<(), TraceError> {
    let mut spare = None;
    for (entry, unpacked) in blocks {
        let at = |fault: Malformed| fault.at(entry.offset_bytes);
        let (header, mut columns) = unpacked?;
        expander.begin_block(&header, &mut columns).map_err(at)?;
        // Nobody takes them when all blocks are unpacked.
        let _ = used.send(columns);
        loop {
            let Some(mut batch) = spare.take().or_else(|| empty.recv().ok()) else { return Ok(()) };
            if !expander.expand(&mut batch).map_err(at)? {
                spare = Some(batch);
                break;
            }
            if to.send(Message::Batch(batch)).is_err() {
                return Ok(());
            }
        }
        if to.send(Message::BlockDone).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
