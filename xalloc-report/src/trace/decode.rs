//! Columns back into events: the inverse of [`super::encode`].
//!
//! Reading is cut in two so that two cores share it. [`Expander`] unpacks a block and works out slots and addresses
//! with its mirror; what comes out are plain [`Step`]s in batches that fit a second-level cache. [`super::play`] keeps
//! the blocks by slot, and calls the replay. Neither looks up an address anywhere.
//!
//! # Invariant
//! The expander believes nothing: a slot is live before it is freed, an index is in its table, a column is as long as
//! its events need. Thus the player's steps are always possible.

use xalloc_core::units::ArenaId;
use xalloc_core::wire::{Call, HeapEvent};

use super::columns::{Column, Unpacker};
use super::container::BlockHeader;
use super::encode::{end_of, is_realloc, slack_expected};
use super::error::Malformed;
use super::heap_steps::{self, Expected, Flat, History, Remembered, StepKind};
use super::mirror::{self, Mirror};
use super::ops::*;
use super::rare;
use super::varint::{Cursor, unfold, unzigzag};

/// Events of a batch: with their allocations about 160 KiB.
const BATCH_EVENTS: usize = 4 << 10;

/// A column ends too early.
pub(super) const SHORT: Malformed = Malformed::Bytes("a column ends before its events do");
const NOT_LIVE: Malformed = Malformed::Bytes("an event frees a slot that holds no block");

/// What an event does to the slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Alloc,
    Free,
    ReallocBegin,
    ReallocUndo,
    Heap,
    Rare,
}

/// One event, with its slot.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) at_us: u64,
    pub(super) thread: u32,
    pub(super) stack: u32,
    pub(super) slot: u32,
    pub(super) act: Act,
}

/// What a step of [`Act::Alloc`] has besides.
#[derive(Clone, Copy)]
pub(super) struct Obtained {
    pub(super) addr: u64,
    pub(super) size_bytes: u64,
    pub(super) nth_of_thread: u32,
    pub(super) slack_bytes: u16,
    pub(super) arena: ArenaId,
    pub(super) arena_seq: Option<u16>,
    pub(super) call: Call,
}

/// Some consecutive events, expanded.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) first_seq: u64,
    pub(super) steps: Vec<Step>,
    pub(super) obtained: Vec<Obtained>,
    pub(super) heap: Vec<(ArenaId, u16, HeapEvent)>,
    /// The rare events, as they lie in their column.
    pub(super) rare: Vec<u8>,
}

impl Batch {
    fn clear(&mut self, first_seq: u64) {
        self.first_seq = first_seq;
        self.steps.clear();
        self.obtained.clear();
        self.heap.clear();
        self.rare.clear();
    }
}

/// How many entries the tables of the contents have; an event that names another one is malformed.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) stacks: u32,
    pub(super) threads: u32,
}

/// Turns blocks into batches.
pub(super) struct Expander {
    mirror: Mirror,
    known: Known,
    unpacker: Unpacker,
    columns: [Column; FIELDS],
    origins: Vec<(u16, ArenaId, Call, Order)>,
    history: History,
    stated_addrs: usize,
    stated_slots: usize,
    run_left: u64,
    at_us: u64,
    next_seq: u64,
    left: usize,
}

impl Expander {
    pub(super) fn new(mirror: Mirror, known: Known, unpacker: Unpacker) -> Expander {
        Expander {
            mirror,
            known,
            unpacker,
            columns: std::array::from_fn(|_| Column::default()),
            origins: Vec::new(),
            history: History::default(),
            stated_addrs: 0,
            stated_slots: 0,
            run_left: 0,
            at_us: 0,
            next_seq: 0,
            left: 0,
        }
    }

    /// Unpacks a block of events.
    pub(super) fn begin_block(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<(), Malformed> {
        let mut from = Cursor::new(payload);
        let mut allowance_bytes = header.raw_bytes as usize;
        for column in &mut self.columns {
            self.unpacker.unpack(&mut from, &mut allowance_bytes, column.refill())?;
        }
        let events = header.items as usize;
        if events > MAX_BLOCK_EVENTS || self.column(Field::Op).bytes().len() != events {
            return Err(Malformed::Bytes("a block has not as many ops as events"));
        }
        self.mirror.begin_block();
        self.origins.clear();
        self.history.clear();
        self.stated_addrs = 0;
        self.stated_slots = 0;
        self.run_left = 0;
        self.at_us = header.first_us;
        self.next_seq = header.first_item;
        self.left = events;
        Ok(())
    }

    #[inline]
    fn column(&mut self, field: Field) -> &mut Column {
        &mut self.columns[field as usize]
    }

    /// Expands the next events of the block into `batch`; false if there are none.
    pub(super) fn expand(&mut self, batch: &mut Batch) -> Result<bool, Malformed> {
        batch.clear(self.next_seq);
        let events = self.left.min(BATCH_EVENTS);
        let mut left = events as u64;
        while left > 0 {
            if self.run_left == 0 {
                self.next_run()?;
            }
            let run = self.run_left.min(left);
            for _ in 0..run {
                self.expand_one(batch)?;
            }
            self.run_left -= run;
            left -= run;
        }
        self.left -= events;
        self.next_seq += events as u64;
        Ok(events > 0)
    }

    #[inline]
    fn expand_one(&mut self, batch: &mut Batch) -> Result<(), Malformed> {
        let op = self.column(Field::Op).byte()?;
        let passed_us = self.column(Field::Time).varint()?;
        self.at_us = self.at_us.checked_add(passed_us).ok_or(Malformed::Bytes("time runs past its end"))?;
        let (act, slot) = match op {
            ALLOC_SAME..FREE_RECENT => return self.expand_alloc(op, batch),
            FREE_RECENT..FREE_NUMBER => {
                let slot = self.mirror.recent((op - FREE_RECENT) as usize);
                (Act::Free, self.vacate(slot)?)
            }
            FREE_NUMBER..FREE_SLOT => {
                let near = self.mirror.thread().near.freed_number;
                let number = near.wrapping_add(u64::from(op - FREE_NUMBER)).wrapping_sub(u64::from(NUMBER_REACH));
                let slot = self.mirror.by_number(number);
                (Act::Free, self.vacate(slot)?)
            }
            FREE_SLOT => {
                let slot = self.stated_slot();
                (Act::Free, self.vacate(slot)?)
            }
            REALLOC_RECENT..REALLOC_SLOT => {
                let slot = self.mirror.recent((op - REALLOC_RECENT) as usize);
                (Act::ReallocBegin, self.hold(slot)?)
            }
            REALLOC_SLOT => {
                let slot = self.stated_slot();
                (Act::ReallocBegin, self.hold(slot)?)
            }
            REALLOC_UNDO => {
                let undone = self.mirror.revive_held();
                (Act::ReallocUndo, undone.ok_or(Malformed::Bytes("a realloc is undone that never began"))?)
            }
            HEAP => {
                batch.heap.push(self.heap_step()?);
                (Act::Heap, 0)
            }
            RARE => {
                let column = &mut self.columns[Field::Rare as usize];
                let mut cursor = column.cursor();
                rare::decode(&mut cursor)?;
                let bytes = column.cursor().left_bytes() - cursor.left_bytes();
                batch.rare.extend_from_slice(column.cursor().take(bytes)?);
                column.skip(bytes);
                (Act::Rare, 0)
            }
            _ => return Err(Malformed::Bytes("an op is none that this version knows")),
        };
        let stack =
            if self.columns[Field::OtherStack as usize].is_empty() { 0 } else { self.stack(Field::OtherStack)? };
        let thread = self.mirror.thread().index;
        batch.steps.push(Step { at_us: self.at_us, thread, stack, slot, act });
        Ok(())
    }

    #[inline]
    fn expand_alloc(&mut self, op: u8, batch: &mut Batch) -> Result<(), Malformed> {
        let size_bytes = self.column(Field::Size).varint()?;
        let stack = self.stack(Field::Stack)?;
        let (slack_beyond, arena, call, order) = self.origin()?;
        let arena_seq = self.arena_seq(arena, order)?;
        let slack_bytes = slack_beyond.wrapping_add(slack_expected(size_bytes));
        let class = mirror::class_of(size_bytes);
        let (slot, addr) = if op == ALLOC_IN_PLACE {
            let held = self.mirror.thread().held.take();
            let (slot, _) = held.ok_or(Malformed::Bytes("a realloc ends in place that never began"))?;
            (slot, self.mirror.addr(slot))
        } else {
            if is_realloc(call) {
                self.mirror.release_held();
            }
            let near = self.mirror.thread().near;
            match op {
                ALLOC_SAME => {
                    let slot = self.mirror.take(class)?;
                    (slot, self.mirror.addr(slot))
                }
                ALLOC_SPLIT => (self.mirror.take(class)?, near.split),
                ALLOC_AFTER_MISS => (self.mirror.take(class)?, near.missed_end),
                ALLOC_AFTER_LAST => (self.mirror.take(class)?, near.end),
                ALLOC_SLOT => {
                    let slot = self.stated_slot();
                    if !self.mirror.take_named(class, slot) {
                        return Err(Malformed::Bytes("an allocation's slot is not in its free list"));
                    }
                    (slot, self.mirror.addr(slot))
                }
                ALLOC_STATED => (self.mirror.take(class)?, near.missed_end.wrapping_add(unfold(self.stated_addr()))),
                _ => {
                    let slot = self.mirror.take_deep(class, op - ALLOC_DEEP);
                    let slot = slot.ok_or(Malformed::Bytes("an allocation's slot is deeper than its free list"))?;
                    (slot, self.mirror.addr(slot))
                }
            }
        };
        let nth_of_thread = self.mirror.occupy(slot, addr, class);
        let thread = self.mirror.thread();
        thread.near.ended(op, end_of(addr, size_bytes, slack_bytes));
        batch.steps.push(Step { at_us: self.at_us, thread: thread.index, stack, slot, act: Act::Alloc });
        batch.obtained.push(Obtained { addr, size_bytes, nth_of_thread, slack_bytes, arena, arena_seq, call });
        Ok(())
    }

    #[cold]
    fn next_run(&mut self) -> Result<(), Malformed> {
        let field = self.column(Field::Threads);
        let (thread, events) = (field.varint32()?, field.varint()?);
        if thread >= self.known.threads || events == 0 {
            return Err(Malformed::Bytes("an event is of a thread that the trace does not have"));
        }
        self.mirror.switch_to(thread);
        self.run_left = events;
        Ok(())
    }

    #[inline]
    fn stack(&mut self, field: Field) -> Result<u32, Malformed> {
        let stack = self.column(field).varint()?;
        if stack >= u64::from(self.known.stacks) {
            return Err(Malformed::Bytes("an event names a stack that the trace does not have"));
        }
        Ok(stack as u32)
    }

    #[inline]
    fn origin(&mut self) -> Result<(u16, ArenaId, Call, Order), Malformed> {
        let place = self.column(Field::Origin).varint()? as usize;
        if let Some(&origin) = self.origins.get(place) {
            return Ok(origin);
        }
        if place != self.origins.len() {
            return Err(Malformed::Bytes("an allocation's origin is not in its table"));
        }
        let small = |value| u16::try_from(value).map_err(|_| Malformed::Bytes("a number exceeds 16 bits"));
        let field = self.column(Field::Origins);
        let (slack, arena, call) = (small(field.varint()?)?, small(field.varint()?)?, field.byte()?);
        let (call, order) = from_call_byte(call).ok_or(Malformed::Bytes("a call is none that this version knows"))?;
        self.origins.push((slack, ArenaId(arena), call, order));
        Ok((slack, ArenaId(arena), call, order))
    }

    /// An allocation's number in the order of its arena.
    #[inline]
    fn arena_seq(&mut self, arena: ArenaId, order: Order) -> Result<Option<u16>, Malformed> {
        let skipped = match order {
            Order::None => return Ok(None),
            Order::Next => 0,
            Order::Stated => self.column(Field::HeapSeq).varint()? as u16,
        };
        let expected = self.history.next_seq(arena);
        let seq = expected.wrapping_add(skipped);
        *expected = seq.wrapping_add(1);
        Ok(Some(seq))
    }

    fn stated_addr(&mut self) -> u64 {
        let at = self.stated_addrs;
        self.stated_addrs += 1;
        gather(&self.columns[Field::Addr as usize..][..ADDR_PLANES], at)
    }

    fn stated_slot(&mut self) -> u32 {
        let at = self.stated_slots;
        self.stated_slots += 1;
        let difference = unzigzag(gather(&self.columns[Field::Slot as usize..][..SLOT_PLANES], at));
        u64::from(self.mirror.thread().near.freed_slot).wrapping_add(difference) as u32
    }

    #[inline]
    fn vacate(&mut self, slot: u32) -> Result<u32, Malformed> {
        if self.mirror.vacate(slot) { Ok(slot) } else { Err(NOT_LIVE) }
    }

    fn hold(&mut self, slot: u32) -> Result<u32, Malformed> {
        if self.mirror.hold(slot) { Ok(slot) } else { Err(NOT_LIVE) }
    }

    fn heap_step(&mut self) -> Result<(ArenaId, u16, HeapEvent), Malformed> {
        let word = self.column(Field::HeapKind).varint()?;
        let place = usize::try_from(word >> 1).unwrap_or(usize::MAX);
        if place == self.history.len() {
            let field = self.column(Field::HeapKinds);
            let arena = u16::try_from(field.varint()?).map_err(|_| Malformed::Bytes("a number exceeds 16 bits"))?;
            let (kind, sub) = (field.byte()?, field.byte()?);
            self.history.push(StepKind { arena: ArenaId(arena), kind, sub });
        }
        let (mut skipped, mut addr, mut first, mut second) = (0, 0, 0, 0);
        if word & 1 != 0 {
            skipped = self.column(Field::HeapSeq).varint()? as u16;
            addr = unfold(self.column(Field::HeapAddr).varint()?);
            first = unfold(self.column(Field::HeapFirst).varint()?);
            second = unfold(self.column(Field::HeapSecond).varint()?);
        }
        let (Remembered { kind, last, .. }, expected_seq) =
            self.history.at(place).ok_or(Malformed::Bytes("a heap step's kind is not in its table"))?;
        let StepKind { arena, kind, sub } = *kind;
        let near = &mut self.mirror.thread().near;
        let expected = Expected::of(kind, *last, near.free_chunk);
        let flat = expected.add(Flat { kind, sub, addr, first, second }, *last);
        *last = flat;
        heap_steps::leaves(flat, &mut near.free_chunk, &mut near.split);
        let seq = expected_seq.wrapping_add(skipped);
        *expected_seq = seq.wrapping_add(1);
        Ok((arena, seq, flat.step()?))
    }
}

/// The value whose bytes lie at `at` of the planes; planes that are absent are zero.
#[inline]
fn gather(planes: &[Column], at: usize) -> u64 {
    let byte = |plane: &Column| u64::from(plane.bytes().get(at).copied().unwrap_or(0));
    planes.iter().rev().fold(0, |value, plane| value << 8 | byte(plane))
}
