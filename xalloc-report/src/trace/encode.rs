//! Events of one process into columns.
//!
//! The encoder is told events whose blocks are already known by slot; it chooses the shortest op that the reader's
//! mirror will understand, and keeps the mirror. [`super::decode`] is its inverse, op by op.
//!
//! # Invariant
//! After every call the mirror is what a reader has after the event. Whatever op is chosen, its operands and the mirror
//! alone say which slot and which address are meant.

use xalloc_core::sys::prefetch;
use xalloc_core::units::{ArenaId, slack_expected};
use xalloc_core::wire::Call;

use self::origins::{Origin, Origins};
use super::bins::Bins;
use super::container::{BlockHeader, BlockKind, FLAG_ANEW, FLAG_RELATIVE};
use super::heap_steps::History;
use super::mirror::{self, FreedAs, Mirror};
use super::ops::*;
use super::packing::Unpacked;
use super::rows::{Allocation, Rows, empty_fields};
use super::tally::{By, Obtained, Tally};
use super::varint::{fold, put, zigzag};
use super::{Block, Event, StackIndex, ThreadIndex, rare};

mod origins;
mod steps;

pub(super) use steps::Binned;

/// With so many blocks, all that is known of them takes as much as a second-level cache holds.
const NEAR_BLOCKS: usize = 16 << 10;

/// What every event says besides what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Who {
    /// Microseconds since the recording's start.
    pub(super) at_us: u64,
    pub(super) thread: ThreadIndex,
    pub(super) stack: StackIndex,
}

/// A block that is to be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) addr: u64,
    pub(super) size_bytes: u64,
    pub(super) slack_bytes: u16,
    pub(super) arena: ArenaId,
    pub(super) arena_seq: Option<u16>,
    pub(super) call: Call,
}

/// Where the block behind this one would begin if its chunk is as large as its usable size says.
#[inline]
pub(super) fn end_of(addr: u64, size_bytes: u64, slack_bytes: u16) -> u64 {
    addr.wrapping_add(size_bytes.wrapping_add(u64::from(slack_bytes)).wrapping_add(8 + 15) & !15)
}

/// Events in a row of one thread, in the open block.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ThreadRun {
    thread: u32,
    /// How many events the block had before it.
    begins_at: u32,
}

impl ThreadRun {
    /// No thread has this number: Linux knows fewer than 2^32.
    const NONE: ThreadRun = ThreadRun { thread: u32::MAX, begins_at: 0 };
}

/// Writes the events of one process, and tells a tally of each what [`super::skim`] would read for it.
pub(super) struct Encoder<T: Tally> {
    tally: T,
    mirror: Mirror,
    /// The block in each slot that is not free.
    blocks: Vec<Block>,
    rows: Rows,
    addrs: Vec<u64>,
    slots: Vec<u64>,
    origins: Origins,
    history: History,
    bins: Bins,
    /// Whether the bins were empty when the open block began.
    is_anew: bool,
    run: ThreadRun,
    first_seq: u64,
    first_us: u64,
    last_us: u64,
}

impl<T: Tally> Encoder<T> {
    /// An encoder of a process that begins with the blocks of `inherited`.
    pub(super) fn new(inherited: Option<LiveSet>, mut tally: T) -> Encoder<T> {
        let LiveSet { mirror, blocks } =
            inherited.unwrap_or_else(|| LiveSet { mirror: Mirror::new(mirror::MOST_SLOTS), blocks: Vec::new() });
        for (slot, block) in (0..).zip(&blocks).filter(|&(slot, _)| mirror.is_live(slot)) {
            tally.inherited(slot, block.size_bytes);
        }
        Encoder {
            tally,
            mirror,
            blocks,
            rows: Rows::new(),
            addrs: Vec::new(),
            slots: Vec::new(),
            origins: Origins::new(),
            history: History::default(),
            bins: Bins::default(),
            is_anew: true,
            run: ThreadRun::NONE,
            first_seq: 0,
            first_us: 0,
            last_us: 0,
        }
    }

    /// Events of the open block.
    pub(super) fn events(&self) -> u32 {
        self.rows.len()
    }

    /// A column of the open block.
    #[cfg(test)]
    pub(super) fn column(&mut self, field: Field) -> &[u8] {
        self.rows.put_down();
        self.rows.field(field)
    }

    /// Whether there may be so many blocks more.
    pub(super) fn has_room(&self, blocks: usize) -> bool {
        self.mirror.slots() + blocks <= mirror::MOST_SLOTS as usize
    }

    /// Number of the next event.
    pub(super) fn seq(&self) -> u64 {
        self.first_seq + u64::from(self.events())
    }

    /// Time of the last event.
    pub(super) fn last_us(&self) -> u64 {
        self.last_us
    }

    pub(super) fn mirror(&mut self) -> &mut Mirror {
        &mut self.mirror
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The blocks that are live now.
    pub(super) fn live_blocks(&self) -> Vec<Block> {
        let live = self.blocks.iter().zip(0..).filter(|&(_, slot)| self.mirror.is_live(slot));
        live.map(|(block, _)| *block).collect()
    }

    /// What a checkpoint does not hold is forgotten; the open block has no events.
    pub(super) fn forget_bins(&mut self) {
        debug_assert_eq!(self.events(), 0, "a checkpoint stands between two blocks");
        self.bins.clear();
        self.is_anew = true;
    }

    /// The tally, which was told of all that came.
    pub(super) fn into_tally(self) -> T {
        self.tally
    }

    /// What a fork of this process inherits now.
    pub(super) fn live_set(&self) -> LiveSet {
        LiveSet { mirror: self.mirror.forked(), blocks: self.blocks.clone() }
    }

    #[inline]
    fn field(&mut self, field: Field) -> &mut Vec<u8> {
        self.rows.field(field)
    }

    /// Goes to the time of an event whose thread was entered; returns the microseconds since the event before.
    #[inline]
    fn pass_to(&mut self, who: Who) -> u64 {
        let before_us = self.last_us;
        self.last_us = who.at_us.max(before_us);
        self.last_us - before_us
    }

    /// An event that is neither an allocation nor a step, by its op.
    #[inline]
    fn other_event(&mut self, who: Who, op: u8) {
        let passed_us = self.pass_to(who);
        self.rows.other(op, passed_us, who.stack);
    }

    /// A step of a heap, of which [`Rows::step_word`] says what it was.
    #[inline]
    fn step_event(&mut self, who: Who) {
        let passed_us = self.pass_to(who);
        self.rows.step(HEAP, passed_us, who.stack);
    }

    /// Who did the event that was begun last, and when.
    #[inline]
    fn by(&self, who: Who) -> By {
        By { thread: who.thread, at_ns: self.last_us * 1000 }
    }

    /// Goes to the event's thread, so that an op can be chosen by what the thread did.
    #[inline]
    fn enter(&mut self, who: Who) {
        if who.thread.0 != self.run.thread {
            self.turn_to(who);
        }
    }

    /// Another thread than that of the event before, or a new block.
    #[inline(never)]
    fn turn_to(&mut self, who: Who) {
        if self.events() == 0 {
            self.mirror.begin_block();
            self.first_us = who.at_us.max(self.last_us);
            self.last_us = self.first_us;
        }
        self.close_run();
        self.mirror.switch_to(who.thread.0);
        self.run = ThreadRun { thread: who.thread.0, begins_at: self.events() };
    }

    fn close_run(&mut self) {
        let ThreadRun { thread, begins_at } = self.run;
        let len = self.events() - begins_at;
        if len > 0 && self.run != ThreadRun::NONE {
            let field = self.field(Field::Threads);
            put(field, u64::from(thread));
            put(field, u64::from(len));
        }
    }

    /// Whether there are so many blocks that some may have to be waited for.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.blocks.len() > NEAR_BLOCKS
    }

    /// Asks the processor for what an event about the block in `slot` is going to touch, if there is such a slot.
    #[inline(always)]
    pub(super) fn prefetch(&self, slot: u32) {
        let Some(block) = self.blocks.get(slot as usize) else { return };
        // Every second block lies in two cache lines.
        prefetch(block);
        prefetch(&block.call);
        self.mirror.prefetch(slot);
        self.tally.prefetch(slot);
    }

    /// A block is allocated; returns its slot. The last block at its address had the slot `had`, as far as is known.
    #[inline(always)]
    pub(super) fn alloc(&mut self, who: Who, request: Request, had: Option<u32>) -> u32 {
        let Request { addr, size_bytes, slack_bytes, arena, arena_seq, call } = request;
        self.enter(who);
        let class = mirror::class_of(size_bytes);
        let (op, slot) = if call.is_realloc() && self.mirror.thread().held.is_some() {
            self.place_moved(class, addr, had)
        } else if let Some(slot) = self.mirror.take_if_at(class, addr) {
            (ALLOC_SAME, slot)
        } else {
            self.place(class, addr, had)
        };
        let passed_us = self.pass_to(who);
        let order = self.order(arena, arena_seq);
        let slack_beyond_bytes = slack_bytes.wrapping_sub(slack_expected(size_bytes));
        let origin = Origin::new(slack_beyond_bytes, arena, call_byte(call, order));
        let origin = self.origins.place(origin, self.rows.field(Field::Origins));
        self.rows.allocation(op, passed_us, Allocation { size_bytes, stack: who.stack, origin });
        let (nth_of_thread, near) = self.mirror.occupy(slot, addr, class);
        let end = end_of(addr, size_bytes, slack_bytes);
        near.ended(op, end);
        if arena_seq.is_some() {
            self.bins.served(arena, addr, end);
        }
        let by = self.by(who);
        let block = Block {
            addr,
            size_bytes,
            at_ns: by.at_ns,
            stack: who.stack,
            thread: who.thread,
            nth_of_thread,
            slack_bytes,
            arena,
            call,
        };
        match self.blocks.get_mut(slot as usize) {
            Some(entry) => *entry = block,
            None => self.blocks.push(block),
        }
        let in_place = op == ALLOC_IN_PLACE;
        self.tally.obtained(by, slot, Obtained { size_bytes, slack_bytes, stack: who.stack, call, in_place });
        slot
    }

    /// The op and the slot of an allocation that ends the realloc of a block.
    #[inline(never)]
    fn place_moved(&mut self, class: u8, addr: u64, had: Option<u32>) -> (u8, u32) {
        if let Some((slot, _)) = self.mirror.thread().held
            && self.mirror.addr(slot) == addr
        {
            self.mirror.thread().held = None;
            return (ALLOC_IN_PLACE, slot);
        }
        self.mirror.release_held();
        match self.mirror.take_if_at(class, addr) {
            Some(slot) => (ALLOC_SAME, slot),
            None => self.place(class, addr, had),
        }
    }

    /// The op and the slot of an allocation that is not at the address of the next slot.
    #[inline(never)]
    fn place(&mut self, class: u8, addr: u64, had: Option<u32>) -> (u8, u32) {
        if let Some(slot) = had
            && let Some(depth) = self.mirror.take_waiting(class, slot, addr)
        {
            let Some(depth) = depth else {
                self.state_slot(slot);
                return (ALLOC_SLOT, slot);
            };
            return (ALLOC_DEEP + depth, slot);
        }
        let near = &self.mirror.thread().near;
        let op = if near.split == addr {
            ALLOC_SPLIT
        } else if near.missed_end == addr {
            ALLOC_AFTER_MISS
        } else if near.end == addr {
            ALLOC_AFTER_LAST
        } else {
            let difference = addr.wrapping_sub(near.missed_end);
            self.addrs.push(fold(difference));
            ALLOC_STATED
        };
        (op, self.mirror.take_any(class))
    }

    /// How the reader learns an allocation's number in the order of its arena.
    #[inline(always)]
    fn order(&mut self, arena: ArenaId, seq: Option<u16>) -> Order {
        let Some(seq) = seq else { return Order::None };
        let expected = self.history.next_seq(arena);
        let skipped = seq.wrapping_sub(*expected);
        *expected = seq.wrapping_add(1);
        if skipped == 0 {
            return Order::Next;
        }
        put(self.field(Field::HeapSeq), u64::from(skipped));
        Order::Stated
    }

    fn state_slot(&mut self, slot: u32) {
        let before = self.mirror.thread().near.freed_slot;
        self.slots.push(zigzag(u64::from(slot).wrapping_sub(u64::from(before))));
    }

    /// The block in `slot` is freed.
    #[inline(always)]
    pub(super) fn free(&mut self, who: Who, slot: u32) {
        self.enter(who);
        let (freed_as, before) = self.mirror.vacate_live(slot);
        let op = match freed_as {
            FreedAs::Recent(ago) => FREE_RECENT + ago,
            FreedAs::Numbered(distance) => FREE_NUMBER + distance,
            FreedAs::Slot => {
                self.slots.push(zigzag(u64::from(slot).wrapping_sub(u64::from(before))));
                FREE_SLOT
            }
        };
        self.other_event(who, op);
        self.tally.freed(self.by(who), slot);
    }

    /// A realloc of the block in `slot` begins.
    pub(super) fn realloc_begin(&mut self, who: Who, slot: u32) {
        self.enter(who);
        let op = match self.mirror.recency(slot) {
            Some(ago) if ago < REALLOC_RECENT_COUNT as usize => REALLOC_RECENT + ago as u8,
            Some(_) | None => {
                self.state_slot(slot);
                REALLOC_SLOT
            }
        };
        self.other_event(who, op);
        let was_live = self.mirror.hold(slot);
        debug_assert!(was_live, "the matcher's table holds live slots only");
        self.tally.realloc_begins(self.by(who), slot);
    }

    /// The slot that the thread's realloc holds.
    pub(super) fn held(&self, thread: ThreadIndex) -> Option<u32> {
        self.mirror.held_by(thread.0)
    }

    /// The realloc that the thread began has failed; returns the slot of the block that lives on.
    pub(super) fn realloc_undo(&mut self, who: Who) -> Option<u32> {
        self.enter(who);
        let slot = self.mirror.revive_held()?;
        self.other_event(who, REALLOC_UNDO);
        self.tally.realloc_undone(self.by(who), slot);
        Some(slot)
    }

    /// Any other event.
    pub(super) fn other(&mut self, who: Who, event: &Event<'_>) {
        self.enter(who);
        self.other_event(who, RARE);
        rare::encode(event, self.field(Field::Rare));
        self.tally.other(self.by(who), *event);
    }

    /// Closes the open block, unless it has no events. The next one is put into the columns of `spare`, which are empty.
    pub(super) fn take_block(&mut self, process: u32, spare: Option<Unpacked>) -> Option<Unpacked> {
        let events = self.events();
        if events == 0 {
            return None;
        }
        self.tally.passed(u64::from(events), self.last_us * 1000);
        self.close_run();
        let mut fields = self.rows.take(spare.map_or_else(empty_fields, |spare| spare.fields));
        spread(&self.addrs, &mut fields[Field::Addr as usize..][..ADDR_PLANES]);
        spread(&self.slots, &mut fields[Field::Slot as usize..][..SLOT_PLANES]);
        let raw_bytes: usize = fields.iter().map(Vec::len).sum();
        let header = BlockHeader {
            process,
            raw_bytes: u32::try_from(raw_bytes).expect("a block's events are limited, and so are their texts"),
            items: events,
            slots: self.mirror.slots() as u32,
            first_item: self.first_seq,
            first_us: self.first_us,
            last_us: self.last_us,
            flags: FLAG_RELATIVE | if std::mem::take(&mut self.is_anew) { FLAG_ANEW } else { 0 },
            ..BlockHeader::of(BlockKind::Events)
        };
        self.first_seq += u64::from(events);
        self.run = ThreadRun::NONE;
        self.addrs.clear();
        self.slots.clear();
        self.origins.clear();
        self.history.clear();
        self.bins.begin_block();
        Some(Unpacked { header, fields })
    }
}

/// Bytes of the values by significance: all lowest ones into the first column, and so on. Columns of zeros stay empty.
fn spread(values: &[u64], planes: &mut [Vec<u8>]) {
    let any = values.iter().fold(0, |any, value| any | value);
    for (at, plane) in planes.iter_mut().enumerate() {
        if any >> (8 * at) != 0 {
            plane.extend(values.iter().map(|value| (value >> (8 * at)) as u8));
        }
    }
}

/// The blocks that are live in a process at one point, as a fork inherits them.
pub struct LiveSet {
    pub(super) mirror: Mirror,
    pub(super) blocks: Vec<Block>,
}
