//! Columns into what a [`Tally`] is told: blocks that come and go, without their addresses.
//!
//! Which slot a block gets, and which one a free means, is said by sizes, by the order of a thread's allocations and by
//! slots that are stated; addresses follow from slots, never the other way. So the mirror is kept without addresses, and
//! the columns of addresses, of arenas' sequence numbers and of other events' stacks stay packed.
//!
//! Half of the events of a program that allocates much are steps by which its heap splits, merges and files chunks. No
//! tally is told of them, so they are taken out here, in a loop without a branch, before anything is decided event by
//! event. A block that has no other steps, which its table of kinds tells, keeps all columns of steps packed.
//!
//! # Invariant
//! As that of [`super::decode`]: what is read is not believed. What is passed over is not looked at, beyond the block's
//! checksum.

use xalloc_core::units::{ArenaId, slack_expected};
use xalloc_core::wire::{Call, HeapEvent};

use super::columns::{Packed, SHORT, Unpacker};
use super::container::BlockHeader;
use super::course::{Course, Known, NO_KIND, NO_ORIGIN, UNKNOWN_CALL, WIDE};
use super::error::Malformed;
use super::heap_steps::{Expected, Flat, History, Remembered, Rules, StepKind, stays_within};
use super::mirror::{self, Mirror};
use super::ops::*;
use super::pipeline::{Columns, Expand};
use super::rare;
use super::tally::{By, Obtained, Tally};
use super::varint::{Cursor, unfold};
use super::{StackIndex, ThreadIndex};

/// Events of a batch; of most programs half of them are taken out.
const BATCH_EVENTS: usize = 8 << 10;

/// Some consecutive events, without the steps that stay within a heap.
#[derive(Default)]
pub(super) struct Skimmed {
    /// How many events there were, with those that were taken out.
    events: u64,
    last_at_us: u64,
    /// Events that are left: as many entries of the next three columns count, what lies behind them is left over.
    kept: usize,
    /// Op of each event.
    ops: Vec<u8>,
    /// Time of each event, microseconds since the recording's start.
    at_us: Vec<u64>,
    /// Slot of each event; 0 where it is not about a block.
    slots: Vec<u32>,
    /// Threads, each with the number of events left that it has in a row.
    runs: Vec<(u32, usize)>,
    /// Of each allocation, size, stack, and place in `origins`.
    sizes: Vec<u64>,
    stacks: Vec<u64>,
    places: Vec<u64>,
    /// Slack beyond the expected, and call.
    origins: Vec<(u16, Call)>,
    steps: Vec<HeapEvent>,
    /// The rare events, as they lie in their column.
    rare: Vec<u8>,
}

impl Skimmed {
    fn clear(&mut self) {
        self.kept = 0;
        self.ops.resize(BATCH_EVENTS, 0);
        self.at_us.resize(BATCH_EVENTS, 0);
        self.slots.resize(BATCH_EVENTS, 0);
        self.runs.clear();
        self.steps.clear();
        self.rare.clear();
    }

    /// Appends what is wanted of these events, and returns how many that are.
    fn keep(&mut self, ops: &[u8], at_us: &[u64], mut is_wanted: impl FnMut(u8) -> bool) -> usize {
        let (to_ops, to_at_us) = (&mut self.ops[self.kept..], &mut self.at_us[self.kept..]);
        let mut kept = 0;
        for (&op, &at_us) in ops.iter().zip(at_us) {
            (to_ops[kept], to_at_us[kept]) = (op, at_us);
            kept += usize::from(is_wanted(op));
        }
        self.kept += kept;
        kept
    }

    /// Tells the events.
    pub(super) fn tell(&self, tally: &mut impl Tally) -> Result<(), Malformed> {
        let mut obtained = self.sizes.iter().zip(&self.stacks).zip(&self.places);
        let mut steps = self.steps.iter();
        let mut rare = Cursor::new(&self.rare);
        let mut events = self.ops.iter().zip(&self.at_us).zip(&self.slots).take(self.kept);
        for &(thread, run) in &self.runs {
            let thread = ThreadIndex(thread);
            for ((&op, &at_us), &slot) in events.by_ref().take(run) {
                let by = By { thread, at_ns: at_us * 1000 };
                if op < FREE_RECENT {
                    let ((&size_bytes, &stack), &place) = obtained.next().ok_or(SHORT)?;
                    let &(slack_beyond, call) = self.origins.get(place as usize).ok_or(NO_ORIGIN)?;
                    let slack_bytes = slack_beyond.wrapping_add(slack_expected(size_bytes));
                    let (stack, in_place) = (StackIndex(stack as u32), op == ALLOC_IN_PLACE);
                    tally.obtained(by, slot, Obtained { size_bytes, slack_bytes, stack, call, in_place });
                } else if op < REALLOC_RECENT {
                    tally.freed(by, slot);
                } else if op < REALLOC_UNDO {
                    tally.realloc_begins(by, slot);
                } else if op == REALLOC_UNDO {
                    tally.realloc_undone(by, slot);
                } else if op == HEAP {
                    tally.heap(by, *steps.next().ok_or(SHORT)?);
                } else {
                    tally.other(by, rare::decode(&mut rare)?);
                }
            }
        }
        tally.passed(self.events, self.last_at_us * 1000);
        Ok(())
    }
}

/// Turns blocks into batches for a tally.
pub(super) struct Skimmer {
    course: Course,
    /// Slack beyond the expected and call, by place in the block's table of origins.
    origins: Vec<(u16, Call)>,
    history: History,
    /// Whether a tally is told of a kind of step, by place in the block's table of kinds.
    telling: Vec<bool>,
    has_telling_steps: bool,
    /// Kept for their memory: what the columns say of a batch, and of each of its steps whether a tally is told of it.
    ops: Vec<u8>,
    at_us: Vec<u64>,
    steps: Vec<u64>,
    tells: Vec<bool>,
}

impl Skimmer {
    /// For a process that begins with this mirror; addresses in it stay as they are.
    pub(super) fn new(mirror: Mirror, known: Known) -> Skimmer {
        Skimmer {
            course: Course::new(mirror, known),
            origins: Vec::new(),
            history: History::default(),
            telling: Vec::new(),
            has_telling_steps: false,
            ops: Vec::new(),
            at_us: Vec::new(),
            steps: Vec::new(),
            tells: Vec::new(),
        }
    }

    /// Reads the block's table of origins.
    fn read_origins(&mut self) -> Result<(), Malformed> {
        self.origins.clear();
        let field = self.course.column(Field::Origins);
        while !field.at_end() {
            let slack = u16::try_from(field.varint()?).map_err(|_| WIDE)?;
            u16::try_from(field.varint()?).map_err(|_| WIDE)?;
            let (call, _) = from_call_byte(field.byte()?).ok_or(UNKNOWN_CALL)?;
            self.origins.push((slack, call));
        }
        Ok(())
    }

    /// Reads the block's table of the kinds of steps.
    fn read_kinds(&mut self) -> Result<(), Malformed> {
        self.history.clear();
        self.telling.clear();
        let mut kinds = self.course.column(Field::HeapKinds).cursor();
        each_kind(&mut kinds, |kind| {
            self.history.push(kind);
            self.telling.push(tells(kind));
        })?;
        self.has_telling_steps = self.telling.contains(&true);
        Ok(())
    }

    /// Reads the next so many steps, notes of each whether it tells something, and appends to `told` those that do.
    fn read_steps(&mut self, steps: usize, told: &mut Vec<HeapEvent>) -> Result<(), Malformed> {
        self.course.column(Field::HeapKind).varints(steps, &mut self.steps)?;
        self.tells.clear();
        let rules = if self.course.is_relative() { Rules::Since3 } else { Rules::Before3 };
        for &word in &self.steps {
            let place = usize::try_from(word >> 1).unwrap_or(usize::MAX);
            let &tells = self.telling.get(place).ok_or(NO_KIND)?;
            self.tells.push(tells);
            if word & 1 == 0 && !tells {
                continue;
            }
            let (mut addr, mut first, mut second) = (0, 0, 0);
            if word & 1 != 0 {
                addr = unfold(self.course.column(Field::HeapAddr).varint()?);
                first = unfold(self.course.column(Field::HeapFirst).varint()?);
                second = unfold(self.course.column(Field::HeapSecond).varint()?);
            }
            if tells {
                let (Remembered { kind, last, .. }, _) = self.history.at(place).ok_or(NO_KIND)?;
                let StepKind { kind, sub, .. } = *kind;
                // What the thread freed last is expected of steps alone that stay within their heap.
                let flat =
                    Expected::of(kind, *last, (0, 0).into(), rules).add(Flat { kind, sub, addr, first, second }, *last);
                *last = flat;
                told.push(flat.step()?);
            }
        }
        // One more, for the look at what comes behind the last.
        self.tells.push(false);
        Ok(())
    }
}

/// Whether a tally is told of steps of this kind.
fn tells(kind: StepKind) -> bool {
    !stays_within(kind.kind)
}

/// Goes through a block's table of the kinds of steps.
fn each_kind(table: &mut Cursor<'_>, mut of: impl FnMut(StepKind)) -> Result<(), Malformed> {
    while !table.is_empty() {
        let arena = u16::try_from(table.varint()?).map_err(|_| WIDE)?;
        let (kind, sub) = (table.byte()?, table.byte()?);
        of(StepKind { arena: ArenaId(arena), kind, sub });
    }
    Ok(())
}

/// Finds the slots of events of one thread, and appends what is rare of them.
fn follow<'a>(
    course: &mut Course,
    ops: impl Iterator<Item = (&'a u8, &'a mut u32)>,
    asked: &mut impl Iterator<Item = (u64, u64)>,
    origins: &[(u16, Call)],
    rare: &mut Vec<u8>,
) -> Result<(), Malformed> {
    for (&op, place) in ops {
        *place = if op < FREE_RECENT {
            let (size_bytes, origin) = asked.next().ok_or(SHORT)?;
            let class = mirror::class_of(size_bytes);
            let slot = if op == ALLOC_IN_PLACE {
                course.in_place()?
            } else {
                if course.mirror.thread().held.is_some() {
                    let &(_, call) = origins.get(origin as usize).ok_or(NO_ORIGIN)?;
                    if call.is_realloc() {
                        course.mirror.release_held();
                    }
                }
                match op {
                    ALLOC_SLOT => course.take_stated(class)?,
                    ALLOC_DEEP.. => course.take_deep(class, op - ALLOC_DEEP)?,
                    // The others differ in the address alone.
                    _ => course.mirror.take(class)?,
                }
            };
            course.mirror.occupy(slot, 0, class);
            slot
        } else if op < HEAP {
            course.end(op)?
        } else {
            if op != HEAP {
                course.rare(op, rare)?;
            }
            0
        };
    }
    Ok(())
}

impl Expand for Skimmer {
    type Batch = Skimmed;

    fn unpack(
        unpacker: &mut Unpacker,
        header: &BlockHeader,
        payload: &[u8],
        columns: &mut Columns,
    ) -> Result<(), Malformed> {
        const ALWAYS: [Field; 9] = [
            Field::Op,
            Field::Time,
            Field::Threads,
            Field::Size,
            Field::Stack,
            Field::Origin,
            Field::Origins,
            Field::HeapKinds,
            Field::Rare,
        ];
        const OF_STEPS: [Field; 4] = [Field::HeapKind, Field::HeapAddr, Field::HeapFirst, Field::HeapSecond];
        let mut from = Cursor::new(payload);
        let mut allowance_bytes = header.raw_bytes as usize;
        let mut packed = [Packed::EMPTY; FIELDS];
        let columns_of_it = if header.is_relative() { FIELDS } else { FIELDS_BEFORE_3 };
        for column in &mut packed[..columns_of_it] {
            *column = Packed::next(&mut from, &mut allowance_bytes)?;
        }
        let mut unpack = |field: usize| unpacker.unfold(packed[field], columns[field].refill());
        let planes = Field::Slot as usize..Field::Slot as usize + SLOT_PLANES;
        ALWAYS.map(|field| field as usize).into_iter().chain(planes).try_for_each(&mut unpack)?;
        let mut has_telling_steps = false;
        each_kind(&mut columns[Field::HeapKinds as usize].cursor(), |kind| has_telling_steps |= tells(kind))?;
        for column in OF_STEPS.map(|field| field as usize) {
            let packed = if has_telling_steps { packed[column] } else { Packed::EMPTY };
            unpacker.unfold(packed, columns[column].refill())?;
        }
        Ok(())
    }

    fn begin_block(&mut self, header: &BlockHeader, columns: &mut Columns) -> Result<(), Malformed> {
        self.course.begin_block(header, columns)?;
        self.read_origins()?;
        self.read_kinds()
    }

    fn expand(&mut self, batch: &mut Skimmed) -> Result<bool, Malformed> {
        batch.clear();
        let events = self.course.left().min(BATCH_EVENTS);
        let mut ops = std::mem::take(&mut self.ops);
        let mut at_us = std::mem::take(&mut self.at_us);
        ops.clear();
        ops.extend_from_slice(self.course.column(Field::Op).take(events)?);
        self.course.times_us(events, &mut at_us)?;
        let (allocations, steps) = counts(&ops);
        self.course.column(Field::Size).varints(allocations, &mut batch.sizes)?;
        self.course.stacks(allocations, &mut batch.stacks)?;
        self.course.column(Field::Origin).varints(allocations, &mut batch.places)?;
        batch.origins.clone_from(&self.origins);
        if self.has_telling_steps {
            self.read_steps(steps, &mut batch.steps)?;
        }
        let mut step = 0;
        let (sizes, places) = (std::mem::take(&mut batch.sizes), std::mem::take(&mut batch.places));
        let mut asked = sizes.iter().copied().zip(places.iter().copied());
        let mut read = 0;
        while read < events {
            let run = self.course.run(events - read)?;
            let thread = self.course.mirror.thread().index;
            let (ops, at_us) = (&ops[read..read + run], &at_us[read..read + run]);
            let before = batch.kept;
            let kept = if self.has_telling_steps {
                batch.keep(ops, at_us, |op| {
                    let tells = self.tells.get(step) == Some(&true);
                    step += usize::from(op == HEAP);
                    op != HEAP || tells
                })
            } else {
                batch.keep(ops, at_us, |op| op != HEAP)
            };
            batch.runs.push((thread, kept));
            let Skimmed { ops, slots, origins, rare, .. } = batch;
            let ops = ops[before..][..kept].iter().zip(&mut slots[before..]);
            follow(&mut self.course, ops, &mut asked, origins, rare)?;
            read += run;
        }
        drop(asked);
        (batch.sizes, batch.places) = (sizes, places);
        batch.events = events as u64;
        batch.last_at_us = at_us.last().copied().unwrap_or(0);
        (self.ops, self.at_us) = (ops, at_us);
        self.course.passed(events);
        Ok(events > 0)
    }
}

/// How many of these events are allocations, and how many steps of a heap.
fn counts(ops: &[u8]) -> (usize, usize) {
    let count = |is: fn(u8) -> bool| ops.iter().filter(|op| is(**op)).count();
    (count(|op| op < FREE_RECENT), count(|op| op == HEAP))
}
