//! Columns back into events: the inverse of [`super::encode`].
//!
//! Reading is cut so that two cores share it ([`super::pipeline`]). [`Expander`] works out slots and addresses with its
//! mirror; what comes out is plain columns in a [`Batch`] that fits a second-level cache. [`super::play`] keeps
//! the blocks by slot, and calls the replay. Neither looks up an address anywhere.
//!
//! # Invariant
//! The expander believes nothing: a slot is live before it is freed, an index is in its table, a column is as long as
//! its events need. Thus the player's steps are always possible.

use xalloc_core::units::{ArenaId, CHUNK_HEADER_BYTES, slack_expected};
use xalloc_core::wire::Call;

use super::bins::Bins;
use super::columns::{Column, SHORT, Unpacker};
use super::container::{BlockHeader, FLAG_ANEW};
use super::course::{Course, Known, NO_KIND, NO_ORIGIN, UNKNOWN_CALL, WIDE, gather};
use super::encode::end_of;
use super::error::Malformed;
use super::heap_steps::{self, Expected, Flat, History, Remembered, Rules, StepKind};
use super::mirror::{self, Mirror};
use super::ops::*;
use super::pipeline::{Columns, Expand};
use super::step_stacks::StepStacksRead;
use super::varint::{Cursor, unfold};
use super::{Block, StackIndex, ThreadIndex};

/// Events of a batch: with their allocations about 160 KiB.
const BATCH_EVENTS: usize = 4 << 10;

/// Some consecutive events, expanded: columns again, of what a player needs.
///
/// Each column has an entry for those events only that it is about, in their order.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) first_seq: u64,
    /// Op of each event.
    pub(super) ops: Vec<u8>,
    /// Time of each event, nanoseconds since the recording's start.
    pub(super) at_ns: Vec<u64>,
    /// Threads, each with the number of events that it has in a row.
    pub(super) runs: Vec<(u32, usize)>,
    /// Slot of each event that is about a block.
    pub(super) slots: Vec<u32>,
    /// Block of each allocation, and its number in the order of its arena.
    pub(super) obtained: Vec<(Block, Option<u16>)>,
    /// Stack of each event that is no allocation; empty if none has one.
    pub(super) other_stacks: Vec<u64>,
    pub(super) heap: Vec<(ArenaId, u16, Flat)>,
    /// The rare events, as they lie in their column.
    pub(super) rare: Vec<u8>,
}

impl Batch {
    fn clear(&mut self, first_seq: u64) {
        self.first_seq = first_seq;
        self.ops.clear();
        self.runs.clear();
        self.slots.clear();
        self.obtained.clear();
        self.other_stacks.clear();
        self.heap.clear();
        self.rare.clear();
    }
}

/// What its columns say of an allocation.
struct Request {
    at_ns: u64,
    size_bytes: u64,
    stack: u32,
    /// Place in the table of origins.
    origin: u64,
}

/// What the columns say of the allocations of a batch, one entry each.
#[derive(Default)]
struct Asked {
    sizes: Vec<u64>,
    stacks: Vec<u64>,
    origins: Vec<u64>,
}

/// Turns blocks into batches.
pub(super) struct Expander {
    course: Course,
    /// Kept for its memory.
    asked: Asked,
    origins: Vec<(u16, ArenaId, Call, Order)>,
    history: History,
    bins: Bins,
    step_stacks: StepStacksRead,
    stated_addrs: usize,
}

impl Expander {
    pub(super) fn new(mirror: Mirror, known: Known) -> Expander {
        Expander {
            course: Course::new(mirror, known),
            asked: Asked::default(),
            origins: Vec::new(),
            history: History::default(),
            bins: Bins::default(),
            step_stacks: StepStacksRead::default(),
            stated_addrs: 0,
        }
    }
}

impl Expand for Expander {
    type Batch = Batch;

    fn unpack(
        unpacker: &mut Unpacker,
        header: &BlockHeader,
        payload: &[u8],
        columns: &mut Columns,
    ) -> Result<(), Malformed> {
        let mut from = Cursor::new(payload);
        let mut allowance_bytes = header.raw_bytes as usize;
        let (of_it, others) = columns.split_at_mut(if header.is_relative() { FIELDS } else { FIELDS_BEFORE_3 });
        for column in of_it {
            unpacker.unpack(&mut from, &mut allowance_bytes, column.refill())?;
        }
        others.iter_mut().for_each(|column| column.refill().clear());
        Ok(())
    }

    fn begin_block(&mut self, header: &BlockHeader, columns: &mut Columns) -> Result<(), Malformed> {
        self.course.begin_block(header, columns)?;
        self.origins.clear();
        self.history.clear();
        self.step_stacks = StepStacksRead::default();
        if header.flags & FLAG_ANEW != 0 {
            self.bins.clear();
        }
        self.bins.begin_block();
        self.stated_addrs = 0;
        Ok(())
    }

    fn expand(&mut self, batch: &mut Batch) -> Result<bool, Malformed> {
        batch.clear(self.course.next_seq());
        let events = self.course.left().min(BATCH_EVENTS);
        let mut asked = std::mem::take(&mut self.asked);
        self.read_columns(events, batch, &mut asked)?;
        let ops = std::mem::take(&mut batch.ops);
        let mut requests = asked.sizes.iter().zip(&asked.stacks).zip(&asked.origins);
        let mut timed = ops.iter().zip(&batch.at_ns);
        let mut left = events;
        while left > 0 {
            let run = self.course.run(left)?;
            batch.runs.push((self.course.mirror.thread().index, run));
            for (&op, &at_ns) in timed.by_ref().take(run) {
                if op < FREE_RECENT {
                    let ((&size_bytes, &stack), &origin) = requests.next().ok_or(SHORT)?;
                    let asked = Request { at_ns, size_bytes, stack: stack as u32, origin };
                    let (slot, block, arena_seq) = self.expand_alloc(op, asked)?;
                    batch.slots.push(slot);
                    batch.obtained.push((block, arena_seq));
                } else if op < HEAP {
                    batch.slots.push(self.course.end(op)?);
                } else if op == HEAP {
                    batch.heap.push(self.heap_step()?);
                } else {
                    self.course.rare(op, &mut batch.rare)?;
                }
            }
            left -= run;
        }
        batch.ops = ops;
        self.asked = asked;
        self.course.passed(events);
        Ok(events > 0)
    }
}

impl Expander {
    #[inline]
    fn column(&mut self, field: Field) -> &mut Column {
        self.course.column(field)
    }

    /// Reads what the next events have in columns that need no mirror.
    fn read_columns(&mut self, events: usize, batch: &mut Batch, asked: &mut Asked) -> Result<(), Malformed> {
        batch.ops.extend_from_slice(self.column(Field::Op).take(events)?);
        let allocations = batch.ops.iter().filter(|op| **op < FREE_RECENT).count();
        self.course.times_us(events, &mut batch.at_ns)?;
        batch.at_ns.iter_mut().for_each(|time| *time *= 1000);
        self.column(Field::Size).varints(allocations, &mut asked.sizes)?;
        self.course.stacks(allocations, &mut asked.stacks)?;
        self.column(Field::Origin).varints(allocations, &mut asked.origins)?;
        let has_others = !self.column(Field::OtherStack).is_empty();
        if self.course.is_relative() && !self.column(Field::StepStack).is_empty() {
            self.read_other_stacks(batch, &asked.stacks, has_others)?;
        } else if has_others {
            self.column(Field::OtherStack).varints(events - allocations, &mut batch.other_stacks)?;
        }
        self.course.known.has_stacks(batch.other_stacks.iter())
    }

    /// Reads the stacks of the batch's events that are no allocations, whose stacks are known.
    fn read_other_stacks(
        &mut self,
        batch: &mut Batch,
        of_allocations: &[u64],
        has_others: bool,
    ) -> Result<(), Malformed> {
        let behind = self.course.next_stack()?;
        let mut coming = of_allocations.iter().map(|stack| *stack as u32).chain([behind]);
        let mut next = coming.next().unwrap_or(behind);
        for &op in &batch.ops {
            if op < FREE_RECENT {
                self.step_stacks.allocation(next);
                next = coming.next().unwrap_or(behind);
                continue;
            }
            batch.other_stacks.push(if op == HEAP {
                let number = self.course.column(Field::StepStack).varint()?;
                u64::from(self.step_stacks.step(number, next)?)
            } else if has_others {
                self.course.column(Field::OtherStack).varint()?
            } else {
                u64::from(StackIndex::NONE.0)
            });
        }
        Ok(())
    }

    #[inline]
    fn expand_alloc(&mut self, op: u8, asked: Request) -> Result<(u32, Block, Option<u16>), Malformed> {
        let Request { at_ns, size_bytes, stack, origin } = asked;
        let (slack_beyond, arena, call, order) = self.origin(origin)?;
        let arena_seq = self.arena_seq(arena, order)?;
        let slack_bytes = slack_beyond.wrapping_add(slack_expected(size_bytes));
        let class = mirror::class_of(size_bytes);
        let (slot, addr) = if op == ALLOC_IN_PLACE {
            let slot = self.course.in_place()?;
            (slot, self.course.mirror.addr(slot))
        } else {
            if call.is_realloc() {
                self.course.mirror.release_held();
            }
            self.placed(op, class)?
        };
        let (nth_of_thread, near) = self.course.mirror.occupy(slot, addr, class);
        let end = end_of(addr, size_bytes, slack_bytes);
        near.ended(op, end);
        if arena_seq.is_some() {
            self.bins.served(arena, addr, end);
        }
        let (stack, thread) = (StackIndex(stack), ThreadIndex(self.course.mirror.thread().index));
        let block = Block { addr, size_bytes, at_ns, stack, thread, nth_of_thread, slack_bytes, arena, call };
        Ok((slot, block, arena_seq))
    }

    /// Slot and address of an allocation that no realloc makes in place.
    #[inline]
    fn placed(&mut self, op: u8, class: u8) -> Result<(u32, u64), Malformed> {
        if op == ALLOC_SAME {
            let slot = self.course.mirror.take(class)?;
            return Ok((slot, self.course.mirror.addr(slot)));
        }
        let near = &self.course.mirror.thread().near;
        let (split, missed_end, end) = (near.split, near.missed_end, near.end);
        Ok(match op {
            ALLOC_SPLIT => (self.course.mirror.take(class)?, split),
            ALLOC_AFTER_MISS => (self.course.mirror.take(class)?, missed_end),
            ALLOC_AFTER_LAST => (self.course.mirror.take(class)?, end),
            ALLOC_SLOT => {
                let slot = self.course.take_stated(class)?;
                (slot, self.course.mirror.addr(slot))
            }
            ALLOC_STATED => (self.course.mirror.take(class)?, missed_end.wrapping_add(unfold(self.stated_addr()))),
            _ => {
                let slot = self.course.take_deep(class, op - ALLOC_DEEP)?;
                (slot, self.course.mirror.addr(slot))
            }
        })
    }

    #[inline]
    fn origin(&mut self, place: u64) -> Result<(u16, ArenaId, Call, Order), Malformed> {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(&origin) = self.origins.get(place) {
            return Ok(origin);
        }
        if place != self.origins.len() {
            return Err(NO_ORIGIN);
        }
        self.new_origin()
    }

    /// Reads the origin that is named for the first time in the block.
    #[cold]
    fn new_origin(&mut self) -> Result<(u16, ArenaId, Call, Order), Malformed> {
        let small = |value| u16::try_from(value).map_err(|_| WIDE);
        let field = self.column(Field::Origins);
        let (slack, arena, call) = (small(field.varint()?)?, small(field.varint()?)?, field.byte()?);
        let (call, order) = from_call_byte(call).ok_or(UNKNOWN_CALL)?;
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
        gather(self.course.planes(Field::Addr, ADDR_PLANES), at)
    }

    #[inline]
    fn heap_step(&mut self) -> Result<(ArenaId, u16, Flat), Malformed> {
        let word = self.column(Field::HeapKind).varint()?;
        let place = usize::try_from(word >> 1).unwrap_or(usize::MAX);
        if place == self.history.len() {
            let field = self.column(Field::HeapKinds);
            let arena = u16::try_from(field.varint()?).map_err(|_| WIDE)?;
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
        let (Remembered { kind, last, .. }, expected_seq) = self.history.at(place).ok_or(NO_KIND)?;
        let StepKind { arena, kind, sub } = *kind;
        let less = Flat { kind, sub, addr, first, second };
        let rules = if self.course.is_relative() { Rules::Since3 } else { Rules::Before3 };
        let flat = match kind {
            heap_steps::LISTED => {
                let slot = self.course.mirror.next_filled(sub);
                let slot = slot.ok_or(Malformed::Bytes("a cache gets a chunk that its free list does not have"))?;
                let flat = less.listed(self.course.mirror.addr(slot), sub);
                let near = &mut self.course.mirror.thread().near;
                near.filled = Some(slot);
                self.bins.moved_to_cache(arena, flat.addr, flat.first, near);
                flat
            }
            heap_steps::QUEUED => {
                let near = &mut self.course.mirror.thread().near;
                let chunk = self.bins.next_to_cache(arena, sub, near);
                let chunk = chunk.ok_or(Malformed::Bytes("a cache gets a chunk that its bin does not have"))?;
                let flat = less.listed(chunk.wrapping_add(CHUNK_HEADER_BYTES), sub);
                self.bins.moved_to_cache(arena, flat.addr, flat.first, near);
                flat
            }
            _ => {
                let near = &mut self.course.mirror.thread().near;
                let chunk = match rules {
                    Rules::Since3 => self.bins.expected(arena, kind, sub, near),
                    Rules::Before3 => near.free_chunk.into(),
                };
                let flat = Expected::of(kind, *last, chunk, rules).add(less, *last);
                *last = flat;
                self.bins.happened(arena, flat, near);
                heap_steps::leaves(flat, &mut near.free_chunk, &mut near.split);
                flat
            }
        };
        let seq = expected_seq.wrapping_add(skipped);
        *expected_seq = seq.wrapping_add(1);
        Ok((arena, seq, flat))
    }
}
