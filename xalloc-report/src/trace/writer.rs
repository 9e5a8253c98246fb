//! Writing a trace while the program runs.
//!
//! Events come in the merged order of each process, are matched and encoded at once, and leave as blocks of 64 Ki
//! events, or of fewer where the caller wants them in the file. Nothing is written twice and nothing is seeked: what is
//! in the file stays there, so that a recorder that is killed or a disk that is full leaves a trace up to the last whole
//! block.
//!
//! Full blocks are compressed by a thread of their own ([`super::packing`]); all is written by the one that calls.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::checkpoint;
use super::columns::{MAX_RAW_BYTES, Packer};
use super::container::{self, BlockHeader, BlockKind};
use super::dictionary::Collector;
use super::encode::{Encoder, LiveSet};
use super::error::{Malformed, TraceError};
use super::footer;
use super::matcher::{self, Matcher};
use super::mirror::MOST_SLOTS;
use super::ops::BLOCK_EVENTS;
use super::packing::{Packing, Unpacked};
use super::tally::Tally;
use super::{Block, Contents, Incoming, ProcessIndex, Repairs, Sampling, Snapshot};

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Events of all processes.
    pub events: u64,
    /// Bytes of the blocks of events.
    pub event_bytes: u64,
    /// Bytes of the checkpoints.
    pub checkpoint_bytes: u64,
    /// Bytes of processes, threads, modules, frames, stacks and symbols.
    pub contents_bytes: u64,
}

/// Events between two looks whether the block is full: with what repairs add to them they stay far below
/// [`super::ops::MAX_BLOCK_EVENTS`].
const AT_ONCE: usize = 512;

/// What a whole trace says, for who wrote it and need not read it.
pub struct Tallied<T> {
    /// Everything but the events.
    pub contents: Contents,
    /// What each process's tally was told, in the order of [`Contents::processes`].
    pub tallies: Vec<T>,
}

/// Makes the tally of a process that begins.
type TallyOf<T> = Box<dyn FnMut(&Contents, ProcessIndex) -> T + Send>;

/// Tallies of processes that are over. A tally takes some 100 KiB, and a build of a large program has ten thousand
/// processes: with more than this, all are let go, and who wants the sums reads them from the trace.
const MOST_TALLIES: usize = 64;

/// The tallies of processes that wait for their first event, or are over.
struct Tallies<T> {
    of: TallyOf<T>,
    /// By process; `None` from its first event on.
    waiting: Vec<Option<T>>,
    /// Those of processes that are over; `None` once there were more than [`MOST_TALLIES`].
    ended: Option<Vec<(usize, T)>>,
}

impl<T> Tallies<T> {
    /// Makes those of processes that the contents gained.
    fn gain(&mut self, contents: &Contents) {
        for process in self.waiting.len()..contents.processes.len() {
            let tally = (self.of)(contents, ProcessIndex(process as u32));
            self.waiting.push(Some(tally));
        }
    }

    fn ended(&mut self, process: usize, tally: T) {
        self.ended = self.ended.take().filter(|ended| ended.len() < MOST_TALLIES).map(|mut ended| {
            ended.push((process, tally));
            ended
        });
    }

    /// All of them, unless some were let go.
    fn all(mut self) -> Option<Vec<T>> {
        for (process, tally) in self.ended? {
            self.waiting[process] = Some(tally);
        }
        self.waiting.into_iter().collect()
    }
}

struct ProcessWriter<T: Tally> {
    matcher: Matcher,
    encoder: Encoder<T>,
    /// Number of the event before which the last checkpoint stands.
    checkpoint_seq: u64,
}

/// Writes one trace, and tells tallies what happens in its processes as [`super::Trace::tally`] would.
pub struct Writer<T: Tally = ()> {
    out: Box<dyn Write + Send>,
    packer: Packer,
    packing: Option<Packing>,
    /// Columns of a block that is in the file, for their memory.
    spare: Option<Unpacked>,
    collector: Collector,
    tallies: Tallies<T>,
    /// Apart from the list, which has a place for each process that ever was: open ones are few, and large.
    processes: Vec<Option<Box<ProcessWriter<T>>>>,
    repairs: Vec<Repairs>,
    index: Vec<footer::Entry>,
    written: Written,
    checkpoint_interval_events: u64,
    has_failed: bool,
}

impl Writer {
    /// Begins a trace in a file of that name; what it held is gone.
    ///
    /// # Errors
    /// [`TraceError::Create`], [`TraceError::Write`].
    pub fn create(path: &Path) -> Result<Writer, TraceError> {
        let file = File::create(path).map_err(|source| TraceError::Create { path: path.to_owned(), source })?;
        Writer::new(Box::new(file), None)
    }

    /// Begins a trace that goes to `out`, which gets whole blocks and needs no buffer; of the blocks that `sampling` says,
    /// or of all.
    ///
    /// # Errors
    /// [`TraceError::Write`].
    pub fn new(out: Box<dyn Write + Send>, sampling: Option<Sampling>) -> Result<Writer, TraceError> {
        Writer::telling(out, sampling, |_, _| ())
    }
}

impl<T: Tally> Writer<T> {
    /// As [`Writer::new`], with tallies that are told everything.
    ///
    /// # Errors
    /// [`TraceError::Write`].
    pub fn telling(
        out: Box<dyn Write + Send>,
        sampling: Option<Sampling>,
        tally_of: impl FnMut(&Contents, ProcessIndex) -> T + Send + 'static,
    ) -> Result<Writer<T>, TraceError> {
        let packer = Packer::new().map_err(|source| TraceError::Write { written_bytes: 0, source })?;
        let mut writer = Writer {
            out,
            packer,
            packing: None,
            spare: None,
            collector: Collector::default(),
            tallies: Tallies { of: Box::new(tally_of), waiting: Vec::new(), ended: Some(Vec::new()) },
            processes: Vec::new(),
            repairs: Vec::new(),
            index: Vec::new(),
            written: Written::default(),
            checkpoint_interval_events: checkpoint::INTERVAL_EVENTS,
            has_failed: false,
        };
        writer.emit(&container::file_header(sampling))?;
        Ok(writer)
    }

    /// Makes checkpoints after that many events, so that a test needs fewer.
    #[cfg(test)]
    pub(super) fn set_checkpoint_interval(&mut self, events: u64) {
        self.checkpoint_interval_events = events;
    }

    /// Bytes and events written so far, without those that wait in open blocks.
    #[must_use]
    pub fn written(&self) -> Written {
        self.written
    }

    /// Notes what `contents` gained since the last call; it is written before the next block of events.
    ///
    /// Cheap when nothing was gained. Indices only grow: an entry that was there keeps its index, and what changes of
    /// it (an end, a time) is written by [`Self::finish`]. Must be called before an event that names a new process,
    /// thread or stack is pushed.
    pub fn sync_contents(&mut self, contents: &Contents) {
        self.collector.gain(contents);
        self.tallies.gain(contents);
    }

    /// Opens a process for events. With `inherits_from` it begins with the blocks that are live in that process now:
    /// call it when all events of the parent up to the fork are pushed, and none later, or keep
    /// [`Self::live_set`] from then.
    ///
    /// # Errors
    /// [`TraceError::ProcessNotOpen`] for the parent, [`TraceError::Write`].
    pub fn begin_process(
        &mut self,
        process: ProcessIndex,
        inherits_from: Option<ProcessIndex>,
    ) -> Result<(), TraceError> {
        let inherited = match inherits_from {
            Some(parent) => Some(self.live_set(parent)?),
            None => None,
        };
        self.begin_process_with(process, inherited)
    }

    /// What a fork of `process` inherits if it happens now.
    ///
    /// # Errors
    /// [`TraceError::ProcessNotOpen`].
    pub fn live_set(&self, process: ProcessIndex) -> Result<LiveSet, TraceError> {
        let open = self.processes.get(process.0 as usize).and_then(Option::as_ref);
        Ok(open.ok_or(TraceError::ProcessNotOpen { process: process.0 })?.encoder.live_set())
    }

    /// The blocks that are live in `process` now, in no order.
    ///
    /// # Errors
    /// [`TraceError::ProcessNotOpen`].
    pub fn live_blocks(&self, process: ProcessIndex) -> Result<Vec<Block>, TraceError> {
        let open = self.processes.get(process.0 as usize).and_then(Option::as_ref);
        Ok(open.ok_or(TraceError::ProcessNotOpen { process: process.0 })?.encoder.live_blocks())
    }

    /// The block of `process` that is live now and holds `addr`; one that begins there is found at once, another by
    /// looking at all.
    ///
    /// # Errors
    /// [`TraceError::ProcessNotOpen`].
    pub fn live_block(&mut self, process: ProcessIndex, addr: u64) -> Result<Option<Block>, TraceError> {
        let open = self.processes.get_mut(process.0 as usize).and_then(Option::as_mut);
        let open = open.ok_or(TraceError::ProcessNotOpen { process: process.0 })?;
        if let Some(slot) = open.matcher.live_at(addr) {
            return Ok(open.encoder.blocks().get(slot as usize).copied());
        }
        let holds = |block: &Block| block.addr <= addr && addr - block.addr < block.size_bytes;
        Ok(open.encoder.live_blocks().into_iter().find(holds))
    }

    /// Opens a process that begins with these blocks.
    ///
    /// # Errors
    /// [`TraceError::NotInContents`], [`TraceError::Write`].
    pub fn begin_process_with(&mut self, process: ProcessIndex, inherited: Option<LiveSet>) -> Result<(), TraceError> {
        let at = process.0 as usize;
        let known = self.tallies.waiting.len();
        let tally = self.tallies.waiting.get_mut(at).and_then(Option::take);
        let tally = tally.ok_or_else(|| not_synced("process", process.0, known))?;
        if self.processes.len() <= at {
            self.processes.resize_with(at + 1, || None);
            self.repairs.resize(at + 1, Repairs::default());
        }
        let matcher = inherited.as_ref().map_or_else(Matcher::new, Matcher::inheriting);
        let has_inherited = inherited.is_some();
        let encoder = Encoder::new(inherited, tally);
        self.processes[at] = Some(Box::new(ProcessWriter { matcher, encoder, checkpoint_seq: 0 }));
        if has_inherited { self.checkpoint(process) } else { Ok(()) }
    }

    /// Adds the next events of a process.
    ///
    /// Records of modules are ignored here, they are in the contents; so are texts, which belong to their event
    /// ([`Self::push_with_text`]), and records that do not decode.
    ///
    /// # Errors
    /// [`TraceError::NotInContents`] and [`TraceError::ProcessNotOpen`] before anything has changed;
    /// [`TraceError::Write`] when a full block could not be written, which shows when the next one is full or at
    /// [`Self::flush`]; [`TraceError::Stopped`] after that.
    pub fn push_all(&mut self, process: ProcessIndex, incoming: &[Incoming]) -> Result<(), TraceError> {
        let most = |most: (u32, u32), next: &Incoming| (most.0.max(next.stack.0), most.1.max(next.thread.0));
        let (stack, thread) = incoming.iter().fold((0, 0), most);
        self.check_synced(stack, thread)?;
        incoming.chunks(AT_ONCE).try_for_each(|some| self.add(process, some, ""))
    }

    /// Adds the next event of a process, with the text that followed it.
    ///
    /// # Errors
    /// As [`Self::push_all`].
    pub fn push_with_text(&mut self, process: ProcessIndex, incoming: &Incoming, text: &str) -> Result<(), TraceError> {
        self.check_synced(incoming.stack.0, incoming.thread.0)?;
        self.add(process, std::slice::from_ref(incoming), text)
    }

    fn check_synced(&self, stack: u32, thread: u32) -> Result<(), TraceError> {
        let synced = self.collector.synced();
        if stack as usize >= synced.stacks.max(2) {
            return Err(not_synced("stack", stack, synced.stacks));
        }
        if thread as usize >= synced.threads {
            return Err(not_synced("thread", thread, synced.threads));
        }
        Ok(())
    }

    fn add(&mut self, process: ProcessIndex, incoming: &[Incoming], text: &str) -> Result<(), TraceError> {
        let open = self.processes.get_mut(process.0 as usize).and_then(Option::as_mut);
        let open = open.ok_or(TraceError::ProcessNotOpen { process: process.0 })?;
        let ProcessWriter { matcher, encoder, .. } = open.as_mut();
        if !encoder.has_room(incoming.len()) {
            return Err(Malformed::Slots(MOST_SLOTS).at(self.written.file_bytes));
        }
        let first = &incoming[..incoming.len().min(matcher::FETCHED)];
        let is_scattered = encoder.is_large() && matcher.are_scattered(first);
        for some in incoming.chunks(if is_scattered { matcher::FETCHED } else { AT_ONCE }) {
            if is_scattered {
                matcher.prefetch(some, encoder);
            }
            for one in some {
                matcher.push(one, text, encoder);
            }
        }
        if (encoder.events() as usize) < BLOCK_EVENTS { Ok(()) } else { self.close_block(process) }
    }

    /// Writes the events that wait in open blocks, so that a recorder killed after this loses none of them. Costs
    /// some of the compression when done often.
    ///
    /// # Errors
    /// [`TraceError::Write`], [`TraceError::Stopped`].
    pub fn flush(&mut self) -> Result<(), TraceError> {
        for process in 0..self.processes.len() {
            self.close_block(ProcessIndex(process as u32))?;
        }
        self.emit_packed()?;
        self.emit_increments()
    }

    /// Adds what the kernel said of a process's memory.
    ///
    /// # Errors
    /// [`TraceError::Write`], [`TraceError::Stopped`].
    pub fn push_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), TraceError> {
        let column = snapshot.encode();
        // A process of millions of mappings has a larger map than a block may be; it goes without.
        let Some(raw_bytes) = u32::try_from(column.len()).ok().filter(|_| column.len() <= MAX_RAW_BYTES) else {
            return Ok(());
        };
        self.emit_packed()?;
        let mut payload = Vec::new();
        self.packer.pack(&column, &mut payload).map_err(|source| self.failed(source))?;
        let at_us = snapshot.at_ns / 1000;
        let header = BlockHeader {
            process: snapshot.process.0,
            raw_bytes,
            items: 1,
            first_us: at_us,
            last_us: at_us,
            ..BlockHeader::of(BlockKind::Snapshot)
        };
        self.emit_block(&header.frame(&payload))
    }

    /// Closes a process: what waits of it is written, and its memory is given back.
    ///
    /// # Errors
    /// [`TraceError::Write`], [`TraceError::Stopped`].
    pub fn end_process(&mut self, process: ProcessIndex) -> Result<(), TraceError> {
        let at = process.0 as usize;
        if let Some(open) = self.processes.get_mut(at).and_then(Option::as_mut) {
            let ProcessWriter { matcher, encoder, .. } = open.as_mut();
            matcher.settle_all(encoder);
            self.repairs[at] = matcher.repairs();
            self.close_block(process)?;
            if let Some(open) = self.processes[at].take() {
                self.tallies.ended(at, open.encoder.into_tally());
            }
        }
        Ok(())
    }

    /// Ends the trace with the final contents, in which indices mean what they meant when they were synchronised.
    ///
    /// The repairs that matching made are filled in; late events are the caller's to count. What the trace says is
    /// returned, unless it has so many processes that not all of their tallies were kept.
    ///
    /// # Errors
    /// [`TraceError::Write`], [`TraceError::Stopped`].
    pub fn finish(mut self, mut contents: Contents) -> Result<(Written, Option<Tallied<T>>), TraceError> {
        for process in 0..self.processes.len() {
            self.end_process(ProcessIndex(process as u32))?;
        }
        for (process, repairs) in contents.processes.iter_mut().zip(&self.repairs) {
            process.repairs.unknown_frees = repairs.unknown_frees;
            process.repairs.implied_frees = repairs.implied_frees;
        }
        self.collector.finish(&contents);
        self.emit_packed()?;
        self.emit_increments()?;
        let footer_offset_bytes = self.written.file_bytes;
        for framed in footer::frame(&self.index, &mut self.packer).map_err(|source| self.failed(source))? {
            self.emit(&framed)?;
        }
        self.emit(&container::trailer(footer_offset_bytes))?;
        self.out.flush().map_err(|source| self.failed(source))?;
        let tallies = self.tallies.all();
        Ok((self.written, tallies.map(|tallies| Tallied { contents, tallies })))
    }

    fn close_block(&mut self, process: ProcessIndex) -> Result<(), TraceError> {
        self.emit_packed()?;
        self.emit_increments()?;
        let Some(open) = self.processes.get_mut(process.0 as usize).and_then(Option::as_mut) else { return Ok(()) };
        let open = open.as_mut();
        open.matcher.settle_old(&mut open.encoder);
        let closed = open.encoder.take_block(process.0, self.spare.take());
        let is_due = checkpoint::is_due(
            open.encoder.seq() - open.checkpoint_seq,
            open.encoder.mirror().slots(),
            self.checkpoint_interval_events,
        );
        if let Some(closed) = closed {
            self.pack(closed)?;
        }
        if is_due { self.checkpoint(process) } else { Ok(()) }
    }

    /// Packs a closed block: in the thread for that, if it is a full one.
    fn pack(&mut self, mut closed: Unpacked) -> Result<(), TraceError> {
        if closed.header.items as usize >= BLOCK_EVENTS {
            if self.packing.is_none() {
                // Without a thread the work is done here.
                self.packing = Packing::start().ok();
            }
            if let Some(packing) = &mut self.packing {
                return packing.give(closed).map_err(|source| self.failed(source));
            }
        }
        let framed = closed.pack(&mut self.packer).map_err(|source| self.failed(source))?;
        self.emit_events(closed, &framed)
    }

    /// Writes the block that was given away to be packed.
    fn emit_packed(&mut self) -> Result<(), TraceError> {
        let Some(packing) = &mut self.packing else { return Ok(()) };
        match packing.back() {
            Ok(Some((block, framed))) => self.emit_events(block, &framed),
            Ok(None) => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn emit_events(&mut self, block: Unpacked, framed: &[u8]) -> Result<(), TraceError> {
        self.emit_block(framed)?;
        self.written.events += u64::from(block.header.items);
        self.written.event_bytes += framed.len() as u64;
        self.spare = Some(block);
        Ok(())
    }

    fn checkpoint(&mut self, process: ProcessIndex) -> Result<(), TraceError> {
        self.emit_packed()?;
        self.emit_increments()?;
        let Some(open) = self.processes.get_mut(process.0 as usize).and_then(Option::as_mut) else { return Ok(()) };
        open.checkpoint_seq = open.encoder.seq();
        let mut parts = Vec::new();
        checkpoint::write(process.0, &mut open.encoder, &mut self.packer, |framed| {
            parts.push(framed);
            Ok(())
        })
        .map_err(|source| self.failed(source))?;
        for framed in parts {
            self.emit_block(&framed)?;
            self.written.checkpoint_bytes += framed.len() as u64;
        }
        Ok(())
    }

    fn emit_increments(&mut self) -> Result<(), TraceError> {
        for increment in self.collector.take() {
            let mut payload = Vec::new();
            let mut raw_bytes = 0;
            for column in increment.columns() {
                self.packer.pack_contents(column, &mut payload).map_err(|source| self.failed(source))?;
                raw_bytes += column.len();
            }
            let raw_bytes = u32::try_from(raw_bytes).expect("increments are cut at 1 MiB");
            let framed = BlockHeader { raw_bytes, ..BlockHeader::of(BlockKind::Dictionary) }.frame(&payload);
            self.emit_block(&framed)?;
            self.written.contents_bytes += framed.len() as u64;
        }
        Ok(())
    }

    fn emit_block(&mut self, framed: &[u8]) -> Result<(), TraceError> {
        let entry = footer::Entry::of_framed(self.written.file_bytes, framed);
        self.emit(framed)?;
        self.index.push(entry);
        Ok(())
    }

    fn emit(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        if self.has_failed {
            return Err(TraceError::Stopped { written_bytes: self.written.file_bytes });
        }
        self.out.write_all(bytes).map_err(|source| self.failed(source))?;
        self.written.file_bytes += bytes.len() as u64;
        Ok(())
    }

    /// What could not be packed or written is missing in the file: nothing that comes after it may follow.
    fn failed(&mut self, source: std::io::Error) -> TraceError {
        self.has_failed = true;
        TraceError::Write { written_bytes: self.written.file_bytes, source }
    }
}

#[cold]
fn not_synced(table: &'static str, index: u32, known: usize) -> TraceError {
    TraceError::NotInContents { table, index, known }
}
