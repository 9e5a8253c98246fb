//! Batches into entries: blocks by slot, and the calls of a replay.
//!
//! The player is the second half of reading (see [`super::decode`]). It runs in the caller's thread, so that a replay
//! need not be able to move between threads.
//!
//! The replay is called apart for each kind of event, with its variant in sight: where the replay is inlined, only
//! what it does with that variant remains, and no [`Event`] is ever made in memory.

use xalloc_core::units::ArenaId;

use super::columns::SHORT;
use super::decode::Batch;
use super::error::Malformed;
use super::heap_steps::Flat;
use super::moment::Moment;
use super::ops::{FREE_RECENT, HEAP, REALLOC_RECENT, REALLOC_UNDO};
use super::varint::Cursor;
use super::{Block, Entry, Event, LiveChange, Replay, StackIndex, ThreadIndex, rare};

/// Keeps the blocks by slot and tells a replay what happens.
pub(super) struct Player {
    /// The block in each slot: current if the slot is live or held, stale if it is free.
    blocks: Vec<Block>,
    /// Which slots are live, while the start has not been reached and events are played without being told.
    live: Option<Life>,
    start: Moment,
}

impl Player {
    /// A player that begins with these blocks, of which those are live.
    pub(super) fn new(blocks: Vec<Block>, live: Vec<bool>, start: Moment) -> Player {
        Player { blocks, live: Some(Life(live)), start }
    }

    /// Makes room for that many slots, within reason: it is only what the file says.
    pub(super) fn expect(&mut self, slots: u32) {
        const BELIEVED: usize = 1 << 20;
        self.blocks.reserve((slots as usize).min(BELIEVED).saturating_sub(self.blocks.len()));
    }

    /// Tells what is live at the start, unless that was done.
    pub(super) fn begin(&mut self, replay: &mut impl Replay) {
        let Some(Life(live)) = self.live.take() else { return };
        for (slot, block) in self.blocks.iter().enumerate() {
            if live.get(slot) == Some(&true) {
                replay.inherited(slot as u32, block);
            }
        }
    }

    /// How many of the batch's events come before the start.
    fn before_start(&self, batch: &Batch) -> usize {
        match self.start {
            Moment::Seq(seq) => usize::try_from(seq.saturating_sub(batch.first_seq)).unwrap_or(usize::MAX),
            Moment::Time(at_ns) => batch.at_ns.partition_point(|&of_event| of_event < at_ns),
        }
    }

    /// Plays a batch.
    pub(super) fn play(&mut self, batch: &Batch, replay: &mut impl Replay) -> Result<(), Malformed> {
        let events = batch.ops.len();
        let mut reading = Reading::of(batch);
        if self.live.is_some() {
            let untold = self.before_start(batch);
            if let Some(life) = &mut self.live {
                reading.tell(untold.min(events), &mut self.blocks, life)?;
            }
            if untold >= events {
                return Ok(());
            }
            self.begin(replay);
        }
        reading.tell(events, &mut self.blocks, replay)
    }
}

/// A batch and the places in its columns that have been reached.
struct Reading<'a> {
    batch: &'a Batch,
    event: usize,
    runs: std::slice::Iter<'a, (u32, usize)>,
    thread: u32,
    run_left: usize,
    slots: std::slice::Iter<'a, u32>,
    obtained: std::slice::Iter<'a, (Block, Option<u16>)>,
    other_stacks: std::slice::Iter<'a, u64>,
    heap: std::slice::Iter<'a, (ArenaId, u16, Flat)>,
    rare: Cursor<'a>,
}

impl<'a> Reading<'a> {
    fn of(batch: &'a Batch) -> Reading<'a> {
        Reading {
            batch,
            event: 0,
            runs: batch.runs.iter(),
            thread: 0,
            run_left: 0,
            slots: batch.slots.iter(),
            obtained: batch.obtained.iter(),
            other_stacks: batch.other_stacks.iter(),
            heap: batch.heap.iter(),
            rare: Cursor::new(&batch.rare),
        }
    }

    /// Tells the events up to number `end` of the batch.
    fn tell(&mut self, end: usize, blocks: &mut Vec<Block>, replay: &mut impl Replay) -> Result<(), Malformed> {
        while self.event < end {
            if self.run_left == 0 {
                (self.thread, self.run_left) = *self.runs.next().ok_or(SHORT)?;
            }
            let run = self.run_left.min(end - self.event);
            self.tell_run(run, blocks, replay)?;
            self.run_left -= run;
            self.event += run;
        }
        Ok(())
    }

    /// Tells the next `run` events, which are of one thread.
    #[inline]
    fn tell_run(&mut self, run: usize, blocks: &mut Vec<Block>, replay: &mut impl Replay) -> Result<(), Malformed> {
        let Reading { batch, event, .. } = *self;
        let thread = ThreadIndex(self.thread);
        let first_seq = batch.first_seq + event as u64;
        let events = batch.ops.iter().zip(&batch.at_ns).skip(event).take(run);
        for (seq, (&op, &at_ns)) in (first_seq..).zip(events) {
            if op < FREE_RECENT {
                let (&(ref block, arena_seq), &slot) = self.obtained.next().zip(self.slots.next()).ok_or(SHORT)?;
                match blocks.get_mut(slot as usize) {
                    Some(place) => *place = *block,
                    None => blocks.push(*block),
                }
                let event = Event::Alloc { slot, block, arena_seq };
                replay.entry(Entry { seq, at_ns, thread, stack: block.stack, event });
                continue;
            }
            let stack = StackIndex(self.other_stacks.next().map_or(0, |stack| *stack as u32));
            if op < HEAP {
                let &slot = self.slots.next().ok_or(SHORT)?;
                let block = blocks.get(slot as usize).ok_or(SHORT)?;
                if op < REALLOC_RECENT {
                    replay.entry(Entry { seq, at_ns, thread, stack, event: Event::Free { slot, block } });
                } else if op < REALLOC_UNDO {
                    replay.entry(Entry { seq, at_ns, thread, stack, event: Event::ReallocBegin { slot, block } });
                } else {
                    replay.entry(Entry { seq, at_ns, thread, stack, event: Event::ReallocUndo { slot, block } });
                }
            } else if op == HEAP {
                let &(arena, seq_of_arena, step) = self.heap.next().ok_or(SHORT)?;
                let event = Event::Heap { arena, seq: seq_of_arena, step: step.step()? };
                replay.entry(Entry { seq, at_ns, thread, stack, event });
            } else {
                let event = rare::decode(&mut self.rare)?;
                replay.entry(Entry { seq, at_ns, thread, stack, event });
            }
        }
        Ok(())
    }
}

/// Which slots are live: the replay of what comes before the start.
struct Life(Vec<bool>);

impl Life {
    fn note(&mut self, slot: u32, lives: bool) {
        if self.0.len() <= slot as usize {
            self.0.resize(slot as usize + 1, false);
        }
        self.0[slot as usize] = lives;
    }
}

impl Replay for Life {
    fn inherited(&mut self, slot: u32, _block: &Block) {
        self.note(slot, true);
    }

    #[inline]
    fn entry(&mut self, entry: Entry<'_>) {
        match entry.event.live_change() {
            Some(LiveChange::Begins { slot, .. }) => self.note(slot, true),
            Some(LiveChange::Ends { slot, .. }) => self.note(slot, false),
            None => {}
        }
    }
}
