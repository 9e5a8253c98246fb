//! Events of one process into columns.
//!
//! The encoder is told events whose blocks are already known by slot; it chooses the shortest op that the reader's
//! mirror will understand, and keeps the mirror. [`super::decode`] is its inverse, op by op.
//!
//! # Invariant
//! After every call the mirror is what a reader has after the event. Whatever op is chosen, its operands and the mirror
//! alone say which slot and which address are meant.

use rustc_hash::FxHashMap;
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::{BinKind, Call, HeapEvent, MOST_FILLED};

use super::container::{BlockHeader, BlockKind};
use super::error::Malformed;
use super::heap_steps::{self, Expected, Flat, History, StepKind};
use super::mirror::{self, FreedAs, Mirror};
use super::ops::*;
use super::packing::Unpacked;
use super::tally::{By, Obtained, Tally};
use super::varint::{fold, put, zigzag};
use super::{Block, Event, StackIndex, ThreadIndex, rare};

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

/// Slack beyond what rounding to a chunk of glibc's gives; mostly 0, and then no information.
#[inline]
pub(super) fn slack_expected(size_bytes: u64) -> u16 {
    (mirror::chunk_bytes(size_bytes).wrapping_sub(8).wrapping_sub(size_bytes)) as u16
}

/// Where an allocation comes from: slack beyond the expected, arena, call with order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Triple(u64);

/// Entries of [`Encoder::near_origins`].
const NEAR_ORIGINS: usize = 16;

impl Triple {
    /// No allocation's: a triple has 40 bits.
    const NONE: Triple = Triple(u64::MAX);

    #[inline]
    fn new(slack_bytes: u16, arena: ArenaId, call: u8) -> Triple {
        Triple(u64::from(slack_bytes) << 24 | u64::from(arena.0) << 8 | u64::from(call))
    }

    /// Its place among the near ones; a Fibonacci hash, of which the highest bits are the best mixed.
    #[inline]
    fn near(self) -> usize {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        (self.0.wrapping_mul(GOLDEN) >> 60) as usize % NEAR_ORIGINS
    }
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
    fields: Box<[Vec<u8>; FIELDS]>,
    addrs: Vec<u64>,
    slots: Vec<u64>,
    /// Events without a stack that [`Field::OtherStack`] does not hold yet: it stays empty if there are no others.
    without_stack: usize,
    origins: FxHashMap<Triple, u32>,
    /// Origins that were looked up lately, each where [`Triple::near`] says.
    near_origins: [(Triple, u32); NEAR_ORIGINS],
    history: History,
    run: ThreadRun,
    first_seq: u64,
    events: u32,
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
            fields: empty_fields(),
            addrs: Vec::new(),
            slots: Vec::new(),
            without_stack: 0,
            origins: FxHashMap::default(),
            near_origins: [(Triple::NONE, 0); NEAR_ORIGINS],
            history: History::default(),
            run: ThreadRun::NONE,
            first_seq: 0,
            events: 0,
            first_us: 0,
            last_us: 0,
        }
    }

    /// Events of the open block.
    pub(super) fn events(&self) -> usize {
        self.events as usize
    }

    /// A column of the open block.
    #[cfg(test)]
    pub(super) fn column(&self, field: Field) -> &[u8] {
        &self.fields[field as usize]
    }

    /// Number of the next event.
    pub(super) fn seq(&self) -> u64 {
        self.first_seq + u64::from(self.events)
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
        &mut self.fields[field as usize]
    }

    /// The op and the time of an event whose thread was entered.
    #[inline]
    fn begin(&mut self, who: Who, op: u8) {
        self.events += 1;
        self.field(Field::Op).push(op);
        let at_us = who.at_us.max(self.last_us);
        let passed_us = at_us - self.last_us;
        self.last_us = at_us;
        put(self.field(Field::Time), passed_us);
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
        if self.events == 0 {
            self.mirror.begin_block();
            self.first_us = who.at_us.max(self.last_us);
            self.last_us = self.first_us;
        }
        self.close_run();
        self.mirror.switch_to(who.thread.0);
        self.run = ThreadRun { thread: who.thread.0, begins_at: self.events };
    }

    fn close_run(&mut self) {
        let ThreadRun { thread, begins_at } = self.run;
        let len = self.events - begins_at;
        if len > 0 && self.run != ThreadRun::NONE {
            let field = self.field(Field::Threads);
            put(field, u64::from(thread));
            put(field, u64::from(len));
        }
    }

    /// A block is allocated; returns its slot. The last block at its address had the slot `had`, as far as is known.
    #[inline(always)]
    pub(super) fn alloc(&mut self, who: Who, request: Request, had: Option<u32>) -> Result<u32, Malformed> {
        let Request { addr, size_bytes, slack_bytes, arena, arena_seq, call } = request;
        self.enter(who);
        let class = mirror::class_of(size_bytes);
        let (op, slot) = if call.is_realloc() {
            self.place_moved(class, addr, had)?
        } else if let Some(slot) = self.mirror.take_if_at(class, addr) {
            (ALLOC_SAME, slot)
        } else {
            self.place(class, addr, had)?
        };
        self.begin(who, op);
        put(self.field(Field::Size), size_bytes);
        put(self.field(Field::Stack), u64::from(who.stack.0));
        let order = self.order(arena, arena_seq);
        let unexpected_bytes = slack_bytes.wrapping_sub(slack_expected(size_bytes));
        self.origin(Triple::new(unexpected_bytes, arena, call_byte(call, order)));
        let nth_of_thread = self.mirror.occupy(slot, addr, class);
        self.mirror.thread().near.ended(op, end_of(addr, size_bytes, slack_bytes));
        let block = Block {
            addr,
            size_bytes,
            at_ns: self.last_us * 1000,
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
        let obtained = Obtained { size_bytes, slack_bytes, stack: who.stack, call, in_place };
        self.tally.obtained(self.by(who), slot, obtained);
        Ok(slot)
    }

    /// As [`Self::alloc`], for who has it from a path that is seldom taken: without a copy of its code there.
    #[inline(never)]
    pub(super) fn alloc_rarely(&mut self, who: Who, request: Request, had: Option<u32>) -> Result<u32, Malformed> {
        self.alloc(who, request, had)
    }

    /// The op and the slot of an allocation that ends a realloc.
    #[inline(never)]
    fn place_moved(&mut self, class: u8, addr: u64, had: Option<u32>) -> Result<(u8, u32), Malformed> {
        if let Some((slot, _)) = self.mirror.thread().held
            && self.mirror.addr(slot) == addr
        {
            self.mirror.thread().held = None;
            return Ok((ALLOC_IN_PLACE, slot));
        }
        self.mirror.release_held();
        match self.mirror.take_if_at(class, addr) {
            Some(slot) => Ok((ALLOC_SAME, slot)),
            None => self.place(class, addr, had),
        }
    }

    /// The op and the slot of an allocation that is not at the address of the next slot.
    #[inline(never)]
    fn place(&mut self, class: u8, addr: u64, had: Option<u32>) -> Result<(u8, u32), Malformed> {
        if let Some(slot) = had.filter(|&slot| self.mirror.waits(slot, class, addr)) {
            let op = match self.mirror.depth_of(class, slot) {
                Some(depth) => ALLOC_DEEP + depth,
                None => {
                    self.state_slot(slot);
                    ALLOC_SLOT
                }
            };
            self.mirror.take_named(class, slot);
            return Ok((op, slot));
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
        Ok((op, self.mirror.take(class)?))
    }

    /// How the reader learns an allocation's number in the order of its arena.
    #[inline]
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

    #[inline]
    fn origin(&mut self, triple: Triple) {
        let (near, place) = self.near_origins[triple.near()];
        let place = if near == triple { place } else { self.search_origin(triple) };
        put(self.field(Field::Origin), u64::from(place));
    }

    #[inline(never)]
    fn search_origin(&mut self, triple: Triple) -> u32 {
        let next = self.origins.len() as u32;
        let place = *self.origins.entry(triple).or_insert(next);
        if place == next {
            let field = self.field(Field::Origins);
            put(field, triple.0 >> 24);
            put(field, triple.0 >> 8 & 0xffff);
            field.push(triple.0 as u8);
        }
        self.near_origins[triple.near()] = (triple, place);
        place
    }

    #[inline]
    fn no_alloc(&mut self, who: Who, op: u8) {
        self.begin(who, op);
        if who.stack == StackIndex::NONE {
            self.without_stack += 1;
        } else {
            self.with_stack(who.stack);
        }
    }

    #[inline]
    fn with_stack(&mut self, stack: StackIndex) {
        let without = std::mem::take(&mut self.without_stack);
        let field = self.field(Field::OtherStack);
        if without > 0 {
            field.resize(field.len() + without, StackIndex::NONE.0 as u8);
        }
        put(field, u64::from(stack.0));
    }

    fn state_slot(&mut self, slot: u32) {
        let before = self.mirror.thread().near.freed_slot;
        self.slots.push(zigzag(u64::from(slot).wrapping_sub(u64::from(before))));
    }

    /// As [`Self::free`], for who has it from a path that is seldom taken.
    #[inline(never)]
    pub(super) fn free_rarely(&mut self, who: Who, slot: u32) {
        self.free(who, slot);
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
        self.no_alloc(who, op);
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
        self.no_alloc(who, op);
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
        self.no_alloc(who, REALLOC_UNDO);
        self.tally.realloc_undone(self.by(who), slot);
        Some(slot)
    }

    /// A step of a heap of which a tally is told, unless it stays within the heap.
    pub(super) fn heap_step(&mut self, who: Who, arena: ArenaId, seq: u16, step: HeapEvent) {
        let flat = Flat::of(step);
        self.heap(who, arena, seq, flat);
        if !flat.stays_within() {
            self.tally.heap(self.by(who), step);
        }
    }

    /// A step that stays within its heap.
    #[inline(never)]
    pub(super) fn heap(&mut self, who: Who, arena: ArenaId, seq: u16, flat: Flat) {
        self.enter(who);
        self.no_alloc(who, HEAP);
        self.step(arena, seq, flat);
    }

    /// A freed chunk goes to the bin of its size: the step that follows from most frees of some programs.
    #[inline]
    pub(super) fn binned(&mut self, who: Who, arena: ArenaId, seq: u16, flat: Flat) {
        debug_assert!(heap_steps::needs_no_like(flat));
        self.enter(who);
        self.no_alloc(who, HEAP);
        self.step(arena, seq, flat);
    }

    /// Chunks of one size go to the cache of their thread, one after the other.
    pub(super) fn fill_cache(
        &mut self,
        who: Who,
        arena: ArenaId,
        seq: u16,
        size_bytes: u64,
        chunks: [Addr; MOST_FILLED],
    ) {
        self.enter(who);
        let class = mirror::chunk_class(size_bytes);
        let mut seq = seq;
        for chunk in chunks.into_iter().filter(|chunk| chunk.0 != 0) {
            let Some(flat) = Flat::to_bin(BinKind::Cache, chunk, size_bytes) else { return };
            self.no_alloc(who, HEAP);
            let listed = class.and_then(|class| self.mirror.next_filled(class).zip(Some(class)));
            match listed.filter(|&(slot, _)| self.mirror.addr(slot) == chunk.0.wrapping_add(16)) {
                Some((slot, class)) => {
                    self.mirror.thread().near.filled = Some(slot);
                    let kind = StepKind { arena, kind: heap_steps::LISTED, sub: class };
                    let (place, less) = (self.kind_of_step(kind), Flat { addr: 0, first: 0, second: 0, ..flat });
                    self.say_step(place, seq, less);
                }
                None => self.step(arena, seq, flat),
            }
            seq = seq.wrapping_add(1);
        }
    }

    /// What the columns of heap steps say of one.
    #[inline(always)]
    fn step(&mut self, arena: ArenaId, seq: u16, flat: Flat) {
        let place = self.kind_of_step(StepKind { arena, kind: flat.kind, sub: flat.sub });
        let near = &mut self.mirror.thread().near;
        let less = if heap_steps::needs_no_like(flat) {
            Expected::of(flat.kind, flat, near.free_chunk).subtract(flat, flat)
        } else {
            let last = self.history.last(place);
            let less = Expected::of(flat.kind, *last, near.free_chunk).subtract(flat, *last);
            *last = flat;
            heap_steps::leaves(flat, &mut near.free_chunk, &mut near.split);
            less
        };
        self.say_step(place, seq, less);
    }

    /// The place of a kind of step in the block's table, where it is entered if it is new.
    #[inline(always)]
    fn kind_of_step(&mut self, kind: StepKind) -> usize {
        let (place, is_first) = self.history.place(kind);
        if is_first {
            let StepKind { arena, kind, sub } = kind;
            let field = self.field(Field::HeapKinds);
            put(field, u64::from(arena.0));
            field.extend_from_slice(&[kind, sub]);
        }
        place
    }

    /// Puts a step's kind, and its numbers less the expected ones unless nothing is left of them.
    #[inline(always)]
    fn say_step(&mut self, place: usize, seq: u16, less: Flat) {
        let expected_seq = self.history.seq_at(place);
        let skipped = seq.wrapping_sub(*expected_seq);
        *expected_seq = seq.wrapping_add(1);
        let word = (place as u64) << 1;
        if u64::from(skipped) | less.addr | less.first | less.second == 0 {
            put(self.field(Field::HeapKind), word);
        } else {
            put(self.field(Field::HeapKind), word | 1);
            self.say_unexpected(skipped, less);
        }
    }

    #[inline(never)]
    fn say_unexpected(&mut self, skipped: u16, less: Flat) {
        put(self.field(Field::HeapSeq), u64::from(skipped));
        put(self.field(Field::HeapAddr), fold(less.addr));
        put(self.field(Field::HeapFirst), fold(less.first));
        put(self.field(Field::HeapSecond), fold(less.second));
    }

    /// Any other event.
    pub(super) fn other(&mut self, who: Who, event: &Event<'_>) {
        self.enter(who);
        self.no_alloc(who, RARE);
        rare::encode(event, self.field(Field::Rare));
        self.tally.other(self.by(who), *event);
    }

    /// Closes the open block, unless it has no events. The next one is put into the columns of `spare`, which are empty.
    pub(super) fn take_block(&mut self, process: u32, spare: Option<Unpacked>) -> Option<Unpacked> {
        if self.events == 0 {
            return None;
        }
        self.tally.passed(u64::from(self.events), self.last_us * 1000);
        self.close_run();
        let without = std::mem::take(&mut self.without_stack);
        let others = self.field(Field::OtherStack);
        if !others.is_empty() {
            others.resize(others.len() + without, StackIndex::NONE.0 as u8);
        }
        spread(&self.addrs, &mut self.fields[Field::Addr as usize..][..ADDR_PLANES]);
        spread(&self.slots, &mut self.fields[Field::Slot as usize..][..SLOT_PLANES]);
        let raw_bytes: usize = self.fields.iter().map(Vec::len).sum();
        let header = BlockHeader {
            process,
            raw_bytes: u32::try_from(raw_bytes).expect("a block's events are limited, and so are their texts"),
            items: self.events,
            slots: self.mirror.slots() as u32,
            first_item: self.first_seq,
            first_us: self.first_us,
            last_us: self.last_us,
            ..BlockHeader::of(BlockKind::Events)
        };
        self.first_seq += u64::from(self.events);
        self.events = 0;
        self.run = ThreadRun::NONE;
        self.addrs.clear();
        self.slots.clear();
        self.origins.clear();
        self.near_origins = [(Triple::NONE, 0); NEAR_ORIGINS];
        self.history.clear();
        let next = spare.map_or_else(empty_fields, |spare| spare.fields);
        Some(Unpacked { header, fields: std::mem::replace(&mut self.fields, next) })
    }
}

fn empty_fields() -> Box<[Vec<u8>; FIELDS]> {
    Box::new(std::array::from_fn(|_| Vec::new()))
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
