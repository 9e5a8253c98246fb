//! Steps into entries: blocks by slot, and the calls of a replay.
//!
//! The player is the second half of reading (see [`super::decode`]). It runs in the caller's thread, so that a replay
//! need not be able to move between threads.

use super::decode::{Act, Batch, Obtained, SHORT, Step};
use super::error::Malformed;
use super::varint::Cursor;
use super::{Block, Entry, Event, Replay, StackIndex, ThreadIndex, rare};

/// Where a replay starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With the event of that number.
    Seq(u64),
    /// With the first event that is not before that time, in nanoseconds since the recording's start.
    Time(u64),
}

/// Keeps the blocks by slot and tells a replay what happens.
pub(super) struct Player {
    /// The block in each slot: current if the slot is live or held, stale if it is free.
    blocks: Vec<Block>,
    /// Which slots are live, while the start has not been reached and events are played without being told.
    live: Option<Vec<bool>>,
    start: Start,
}

impl Player {
    /// A player that begins with these blocks, of which those are live.
    pub(super) fn new(blocks: Vec<Block>, live: Vec<bool>, start: Start) -> Player {
        Player { blocks, live: Some(live), start }
    }

    /// Makes room for that many slots, within reason: it is only what the file says.
    pub(super) fn expect(&mut self, slots: u32) {
        const BELIEVED: usize = 1 << 20;
        self.blocks.reserve((slots as usize).min(BELIEVED).saturating_sub(self.blocks.len()));
    }

    /// Tells what is live at the start, unless that was done.
    pub(super) fn begin(&mut self, replay: &mut impl Replay) {
        let Some(live) = self.live.take() else { return };
        for (slot, block) in self.blocks.iter().enumerate() {
            if live.get(slot) == Some(&true) {
                replay.inherited(slot as u32, block);
            }
        }
    }

    /// Whether what comes at `first_us` and `seq` is to be told.
    pub(super) fn reached(&self, seq: u64, at_us: u64) -> bool {
        match self.start {
            Start::Seq(start) => seq >= start,
            Start::Time(start_ns) => at_us.saturating_mul(1000) >= start_ns,
        }
    }

    /// Plays a batch.
    pub(super) fn play(&mut self, batch: &Batch, replay: &mut impl Replay) -> Result<(), Malformed> {
        let mut obtained = batch.obtained.iter();
        let mut heap = batch.heap.iter();
        let mut rare = Cursor::new(&batch.rare);
        for (seq, step) in (batch.first_seq..).zip(&batch.steps) {
            if self.live.is_some() && self.reached(seq, step.at_us) {
                self.begin(replay);
            }
            let &Step { at_us, thread, stack, slot, act } = step;
            let at_ns = at_us.saturating_mul(1000);
            let (thread, stack) = (ThreadIndex(thread), StackIndex(stack));
            let event = match act {
                Act::Alloc => {
                    let &Obtained { addr, size_bytes, nth_of_thread, slack_bytes, arena, arena_seq, call } =
                        obtained.next().ok_or(SHORT)?;
                    let block =
                        Block { addr, size_bytes, at_ns, stack, thread, nth_of_thread, slack_bytes, arena, call };
                    match self.blocks.get_mut(slot as usize) {
                        Some(entry) => *entry = block,
                        None => self.blocks.push(block),
                    }
                    Event::Alloc { slot, block: &self.blocks[slot as usize], arena_seq }
                }
                Act::Free => Event::Free { slot, block: &self.blocks[slot as usize] },
                Act::ReallocBegin => Event::ReallocBegin { slot, block: &self.blocks[slot as usize] },
                Act::ReallocUndo => Event::ReallocUndo { slot, block: &self.blocks[slot as usize] },
                Act::Heap => {
                    let &(arena, seq, step) = heap.next().ok_or(SHORT)?;
                    Event::Heap { arena, seq, step }
                }
                Act::Rare => rare::decode(&mut rare)?,
            };
            match &mut self.live {
                None => replay.entry(Entry { seq, at_ns, thread, stack, event }),
                Some(live) => note_life(live, act, slot),
            }
        }
        Ok(())
    }
}

fn note_life(live: &mut Vec<bool>, act: Act, slot: u32) {
    let alive = match act {
        Act::Alloc | Act::ReallocUndo => true,
        Act::Free | Act::ReallocBegin => false,
        Act::Heap | Act::Rare => return,
    };
    if live.len() <= slot as usize {
        live.resize(slot as usize + 1, false);
    }
    live[slot as usize] = alive;
}
