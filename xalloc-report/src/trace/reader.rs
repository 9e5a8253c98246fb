//! Reading a trace: what it contains, and the events of each process in their order.
//!
//! Opening reads the footer and the dictionary blocks. A replay goes through the blocks of one process
//! ([`super::pipeline`]). Memory is what the live blocks take (about 70 bytes each), whatever the number of events.
//!
//! A trace that is not whole is salvaged: `salvage` says what can be known of it.
//!
//! # Invariant
//! Nothing in the file is believed: a wrong byte is an error with its place, never a panic, and never memory beyond
//! [`Limits`].

use std::fs::File;
use std::io;
use std::path::Path;

use super::checkpoint::Restoring;
use super::columns::Unpacker;
use super::container::{BlockKind, FILE_HEADER_BYTES, FLAG_FIRST_PART, Source, Trust};
use super::course::Known;
use super::decode::Expander;
use super::dictionary::Loader;
use super::error::TraceError;
use super::footer::{self, Entry};
use super::moment::Moment;
use super::pipeline::Pipeline;
use super::play::Player;
use super::skim::Skimmer;
use super::tally::Tally;
use super::varint::Cursor;
use super::{Contents, ProcessIndex, Replay, Snapshot, salvage};

/// What a process has from its parent: a state of the parent's at one of its forks. Zero of one that was not forked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inheritance {
    /// Allocations that were made before, those that the parent inherited included.
    pub allocations: u64,
    /// Blocks that were live.
    pub live: u64,
}

/// What a reader may use of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Blocks that are live at once, in one process.
    pub live_blocks: u32,
    /// Bytes for processes, threads, modules, frames, stacks and symbols.
    pub contents_bytes: u64,
}

impl Default for Limits {
    /// 2^28 live blocks (about 18 GiB when they are there), 4 GiB of contents.
    fn default() -> Limits {
        Limits { live_blocks: 1 << 28, contents_bytes: 4 << 30 }
    }
}

/// Where a reading of one process begins.
struct Prepared<'a> {
    known: Known,
    /// What was there.
    restored: Restoring,
    unpacker: Unpacker,
    /// The blocks of events to read.
    entries: Vec<&'a Entry>,
}

/// A trace, open for reading. Several threads may replay it at once.
pub struct Trace {
    source: Source,
    trust: Trust,
    limits: Limits,
    contents: Contents,
    index: Vec<Entry>,
}

impl Trace {
    /// Opens a trace. One that was cut short (no footer) is salvaged, which its
    /// [`super::Recording::salvage`] says.
    ///
    /// # Errors
    /// [`TraceError::Open`], [`TraceError::NoFile`], [`TraceError::Read`], [`TraceError::NotATrace`],
    /// [`TraceError::NewerVersion`]; [`TraceError::Damaged`] only if the contents need more than the limits allow.
    pub fn open(path: &Path) -> Result<Trace, TraceError> {
        Trace::open_with(path, Limits::default())
    }

    /// Opens a trace within limits of the caller's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: &Path, limits: Limits) -> Result<Trace, TraceError> {
        Trace::read(file(path)?, Trust::Checksum, limits)
    }

    /// Opens a trace of which a block turned out to be damaged, without what lies behind the damage: the later events
    /// of the block's process, or, where the footer and the contents are damaged too, everything.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn salvage(path: &Path) -> Result<Trace, TraceError> {
        Trace::salvaged(file(path)?)
    }

    pub(super) fn salvaged(source: Source) -> Result<Trace, TraceError> {
        let mut trace = Trace::read(source, Trust::Checksum, Limits::default())?;
        // A scan has read every block that it lists.
        if trace.contents.recording.salvage.is_none() {
            let mut index = std::mem::take(&mut trace.index);
            let said = salvage::drop_damaged(&mut index, |entry, payload| trace.block(entry, payload).map(|_| ()));
            (trace.index, trace.contents.recording.salvage) = (index, said);
        }
        Ok(trace)
    }

    /// Opens a trace that lies in memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Trace, TraceError> {
        Trace::read(Source::Memory(bytes), Trust::Checksum, Limits::default())
    }

    pub(super) fn read(source: Source, trust: Trust, limits: Limits) -> Result<Trace, TraceError> {
        let sampling = source.check_file_header()?;
        let mut trace = Trace::read_blocks(source, trust, limits)?;
        trace.contents.recording.sampling = sampling;
        Ok(trace)
    }

    fn read_blocks(source: Source, trust: Trust, limits: Limits) -> Result<Trace, TraceError> {
        let mut payload = Vec::new();
        if let Some(offset_bytes) = source.footer_offset_bytes()?
            && let Ok(header) = source.block(offset_bytes, &mut payload, trust)
            && let Ok(index) = footer::read(&header, &payload, &mut unpacker()?)
            && let Ok(contents) = load(&source, trust, limits, &index)
        {
            return Ok(Trace { source, trust, limits, contents, index });
        }
        Trace::scan(source, trust, limits)
    }

    fn scan(source: Source, trust: Trust, limits: Limits) -> Result<Trace, TraceError> {
        let mut index = Vec::new();
        let mut loader = Loader::new(limits.contents_bytes);
        let mut unpacker = unpacker()?;
        let mut payload = Vec::new();
        let mut offset_bytes = FILE_HEADER_BYTES;
        let mut is_whole = false;
        let stopped_by = loop {
            if offset_bytes == source.len_bytes() {
                break None;
            }
            let header = match source.block(offset_bytes, &mut payload, trust) {
                Ok(header) => header,
                Err(error) => break Some(error),
            };
            if header.kind == BlockKind::Footer as u8 {
                is_whole = source.footer_offset_bytes()? == Some(offset_bytes);
                break None;
            }
            if header.kind == BlockKind::Dictionary as u8
                && let Err(fault) = loader.load(&header, &payload, &mut unpacker)
            {
                break Some(fault.at(offset_bytes));
            }
            index.push(Entry { offset_bytes, header });
            offset_bytes += header.len_bytes();
        };
        let mut contents = loader.into_contents();
        if stopped_by.is_some() || !is_whole {
            salvage::complete(&mut contents, &index);
            contents.recording.salvage = Some(salvage::cut(&index, offset_bytes, source.len_bytes(), stopped_by));
        }
        Ok(Trace { source, trust, limits, contents, index })
    }

    /// The trace with contents to which somebody has added what it does not say: names, for one that was cut.
    #[must_use]
    pub fn completed(mut self, complete: impl FnOnce(&mut Contents)) -> Trace {
        complete(&mut self.contents);
        self
    }

    /// Everything but the events.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Events of a process.
    #[must_use]
    pub fn events(&self, process: ProcessIndex) -> u64 {
        self.blocks_of(process, BlockKind::Events).map(|entry| u64::from(entry.header.items)).sum()
    }

    /// Bytes in the file of a process's blocks of events: what a replay's progress is counted in.
    #[must_use]
    pub fn event_bytes(&self, process: ProcessIndex) -> u64 {
        self.blocks_of(process, BlockKind::Events).map(|entry| entry.header.len_bytes()).sum()
    }

    /// What the kernel said of a process's memory, in order of time.
    ///
    /// # Errors
    /// [`TraceError::Read`], [`TraceError::Damaged`].
    pub fn snapshots(&self, process: ProcessIndex) -> Result<Vec<Snapshot>, TraceError> {
        let mut unpacker = unpacker()?;
        let mut payload = Vec::new();
        let mut column = Vec::new();
        let mut snapshots = Vec::new();
        for entry in self.blocks_of(process, BlockKind::Snapshot) {
            let header = self.block(entry, &mut payload)?;
            let mut allowance_bytes = header.raw_bytes as usize;
            let snapshot = unpacker
                .unpack(&mut Cursor::new(&payload), &mut allowance_bytes, &mut column)
                .and_then(|()| Snapshot::decode(process, &column));
            snapshots.push(snapshot.map_err(|fault| fault.at(entry.offset_bytes))?);
        }
        Ok(snapshots)
    }

    /// What the process had from its parent when it began.
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub fn inheritance(&self, process: ProcessIndex) -> Result<Inheritance, TraceError> {
        let Restoring { mirror, live, .. } = self.prepare(process, Moment::Seq(0))?.restored;
        Ok(Inheritance { allocations: mirror.allocs(), live: live.iter().filter(|&&lives| lives).count() as u64 })
    }

    fn blocks_of(&self, process: ProcessIndex, kind: BlockKind) -> impl Iterator<Item = &Entry> {
        self.index.iter().filter(move |entry| entry.header.process == process.0 && entry.header.kind == kind as u8)
    }

    /// Tells `replay` all blocks that the process inherited and all its events.
    ///
    /// # Errors
    /// [`TraceError::NoSuchProcess`], [`TraceError::Read`], [`TraceError::Damaged`], [`TraceError::TooManyLive`]; what
    /// came before the fault has been told.
    pub fn replay(&self, process: ProcessIndex, replay: &mut impl Replay) -> Result<(), TraceError> {
        self.replay_with_progress(process, Moment::Seq(0), replay, &mut |_| {})
    }

    /// Tells `replay` the blocks that are live at `start` (as inherited) and all events from there on. Reading begins
    /// at the last checkpoint before it. A block whose realloc is under way at `start` is told with its undo, if that
    /// comes.
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub fn replay_from(
        &self,
        process: ProcessIndex,
        start: Moment,
        replay: &mut impl Replay,
    ) -> Result<(), TraceError> {
        self.replay_with_progress(process, start, replay, &mut |_| {})
    }

    /// As [`Self::replay_from`], without the blocks of the file that begin behind `last`; some later events than that
    /// may be told.
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub fn replay_within(
        &self,
        process: ProcessIndex,
        first: Moment,
        last: Option<Moment>,
        replay: &mut impl Replay,
    ) -> Result<(), TraceError> {
        let mut prepared = self.prepare(process, first)?;
        let begins_within = |entry: &&Entry| match last {
            None => true,
            Some(Moment::Seq(seq)) => entry.header.first_item <= seq,
            Some(Moment::Time(at_ns)) => entry.header.first_us.saturating_mul(1000) <= at_ns,
        };
        prepared.entries.truncate(prepared.entries.iter().take_while(|entry| begins_within(entry)).count());
        self.play(process, prepared, first, replay, &mut |_| {})
    }

    /// Replays every process, one after the other, each into a replay of its own.
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub fn replay_all<R: Replay>(&self, mut replay_of: impl FnMut(ProcessIndex) -> R) -> Result<Vec<R>, TraceError> {
        let mut replays = Vec::new();
        for process in (0..self.contents.processes.len() as u32).map(ProcessIndex) {
            let mut replay = replay_of(process);
            self.replay(process, &mut replay)?;
            replays.push(replay);
        }
        Ok(replays)
    }

    /// As [`Self::replay_from`]; `progress` is told, after each block, how many of [`Self::event_bytes`] are done.
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub fn replay_with_progress(
        &self,
        process: ProcessIndex,
        start: Moment,
        replay: &mut impl Replay,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        let prepared = self.prepare(process, start)?;
        self.play(process, prepared, start, replay, progress)
    }

    /// As [`Self::replay`], for who adds up only; `progress` as for [`Self::replay_with_progress`].
    ///
    /// # Errors
    /// As [`Self::replay`].
    pub fn tally(
        &self,
        process: ProcessIndex,
        tally: &mut impl Tally,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        let Prepared { known, restored, unpacker, entries } = self.prepare(process, Moment::Seq(0))?;
        let Restoring { mirror, blocks, live, .. } = restored;
        for (slot, (block, _)) in (0..).zip(blocks.iter().zip(live)).filter(|(_, (_, lives))| *lives) {
            tally.inherited(slot, block.size_bytes);
        }
        drop(blocks);
        let read = |entry: &Entry, payload: &mut Vec<u8>| self.block(entry, payload);
        let pipeline = Pipeline { entries: &entries, read: &read };
        pipeline.run(Skimmer::new(mirror, known), unpacker, &mut |batch| batch.tell(tally), progress)
    }

    fn play(
        &self,
        process: ProcessIndex,
        prepared: Prepared<'_>,
        start: Moment,
        replay: &mut impl Replay,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), TraceError> {
        let Prepared { known, restored, unpacker, entries } = prepared;
        let Restoring { mirror, blocks, live, .. } = restored;
        let mut player = Player::new(blocks, live, start);
        player.expect(self.blocks_of(process, BlockKind::Events).map(|entry| entry.header.slots).max().unwrap_or(0));
        let read = |entry: &Entry, payload: &mut Vec<u8>| self.block(entry, payload);
        let pipeline = Pipeline { entries: &entries, read: &read };
        let expander = Expander::new(mirror, known);
        pipeline.run(expander, unpacker, &mut |batch| player.play(batch, replay), progress)?;
        player.begin(replay);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn replay_on_one_thread(
        &self,
        process: ProcessIndex,
        replay: &mut impl Replay,
    ) -> Result<(), TraceError> {
        let prepared = self.prepare(process, Moment::Seq(0))?;
        let Restoring { mirror, blocks, live, .. } = prepared.restored;
        let mut player = Player::new(blocks, live, Moment::Seq(0));
        let read = |entry: &Entry, payload: &mut Vec<u8>| self.block(entry, payload);
        let pipeline = Pipeline { entries: &prepared.entries, read: &read };
        let expander = Expander::new(mirror, prepared.known);
        pipeline.in_turns(expander, prepared.unpacker, &mut |batch| player.play(batch, replay), &mut |_| {})?;
        player.begin(replay);
        Ok(())
    }

    /// Numbers of the events before which the process has checkpoints.
    #[cfg(test)]
    pub(super) fn checkpoints(&self, process: ProcessIndex) -> Vec<u64> {
        let parts = self.blocks_of(process, BlockKind::Checkpoint);
        parts.filter(|entry| entry.header.flags & FLAG_FIRST_PART != 0).map(|entry| entry.header.first_item).collect()
    }

    /// Restores the last checkpoint at or before `start`; returns what continues from there, and the blocks to read.
    fn prepare(&self, process: ProcessIndex, start: Moment) -> Result<Prepared<'_>, TraceError> {
        let processes = self.contents.processes.len();
        if process.0 as usize >= processes {
            return Err(TraceError::NoSuchProcess { process: process.0, processes });
        }
        let known =
            Known { stacks: self.contents.stacks.len().max(2) as u32, threads: self.contents.threads.len() as u32 };
        let mut unpacker = unpacker()?;
        let mut restoring = Restoring::new(self.limits.live_blocks, known);
        // A checkpoint's time is that of the event before it: it serves a start that is later, as events at that very
        // time may lie before the checkpoint.
        let serves = |entry: &&Entry| match start {
            Moment::Seq(seq) => entry.header.first_item <= seq,
            Moment::Time(at_ns) => entry.header.first_item == 0 || entry.header.last_us.saturating_mul(1000) < at_ns,
        };
        let parts: Vec<&Entry> = self.blocks_of(process, BlockKind::Checkpoint).collect();
        let is_first = |entry: &&Entry| entry.header.flags & FLAG_FIRST_PART != 0;
        let mut first_seq = 0;
        if let Some(at) = parts.iter().rposition(|entry| is_first(entry) && serves(entry)) {
            first_seq = parts[at].header.first_item;
            let mut payload = Vec::new();
            let others = parts[at + 1..].iter().take_while(|entry| !is_first(entry));
            for entry in std::iter::once(&parts[at]).chain(others) {
                let header = self.block(entry, &mut payload)?;
                restoring.part(&header, &payload, &mut unpacker).map_err(|fault| fault.at(entry.offset_bytes))?;
            }
        }
        let entries =
            self.blocks_of(process, BlockKind::Events).filter(|entry| entry.header.first_item >= first_seq).collect();
        Ok(Prepared { known, restored: restoring, unpacker, entries })
    }

    /// Reads a block, which has to be what the index says.
    fn block(&self, entry: &Entry, payload: &mut Vec<u8>) -> Result<super::container::BlockHeader, TraceError> {
        let header = self.source.block(entry.offset_bytes, payload, self.trust)?;
        if header != entry.header {
            let what = "a block is not what the footer says";
            return Err(TraceError::Damaged { offset_bytes: entry.offset_bytes, what });
        }
        Ok(header)
    }
}

/// Whether what is written there cannot be read again: a FIFO or a device.
///
/// # Errors
/// What `stat` reports.
pub fn is_no_file(path: &Path) -> io::Result<bool> {
    let found = path.metadata()?;
    Ok(!found.is_file() && !found.is_dir())
}

fn file(path: &Path) -> Result<Source, TraceError> {
    let failed = |source| TraceError::Open { path: path.to_owned(), source };
    // Asked before it is opened, which may wait for a writer.
    if is_no_file(path).map_err(failed)? {
        return Err(TraceError::NoFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let len_bytes = file.metadata().map_err(failed)?.len();
    Ok(Source::File(file, len_bytes))
}

fn unpacker() -> Result<Unpacker, TraceError> {
    Unpacker::new().map_err(|source| TraceError::Read { offset_bytes: 0, len_bytes: 0, source })
}

fn load(source: &Source, trust: Trust, limits: Limits, index: &[Entry]) -> Result<Contents, TraceError> {
    let mut loader = Loader::new(limits.contents_bytes);
    let mut unpacker = unpacker()?;
    let mut payload = Vec::new();
    for entry in index.iter().filter(|entry| entry.header.kind == BlockKind::Dictionary as u8) {
        let header = source.block(entry.offset_bytes, &mut payload, trust)?;
        loader.load(&header, &payload, &mut unpacker).map_err(|fault| fault.at(entry.offset_bytes))?;
    }
    Ok(loader.into_contents())
}

/// Reads bytes that anyone may have made, to the end or to the first error; for fuzzing. Checksums are believed, so
/// that the code behind them is reached. Uses at most some 300 MiB.
pub fn read_untrusted(bytes: &[u8]) {
    struct Ignore;
    impl Replay for Ignore {
        fn inherited(&mut self, _slot: u32, _block: &super::Block) {}
        fn entry(&mut self, _entry: super::Entry<'_>) {}
    }
    let limits = Limits { live_blocks: 1 << 20, contents_bytes: 64 << 20 };
    for trust in [Trust::Checksum, Trust::Anything] {
        let Ok(trace) = Trace::read(Source::Memory(bytes.to_vec()), trust, limits) else { continue };
        for process in (0..trace.contents.processes.len() as u32).map(ProcessIndex) {
            // An error is a good answer to bad bytes; a panic is not.
            let _ = trace.replay(process, &mut Ignore);
            let _ = trace.tally(process, &mut (), &mut |_| {});
            let _ = trace.snapshots(process);
            let _ = trace.replay_from(process, Moment::Seq(u64::MAX), &mut Ignore);
        }
    }
}
