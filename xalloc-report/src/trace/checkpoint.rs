//! Checkpoints: all slots of a process at one point, so that reading can start there.
//!
//! One stands at the start of a process that inherited blocks, and others wherever their price, spread over the events
//! since the last one, stays below a tenth of a byte an event. A checkpoint holds the blocks that are live or held
//! by a realloc, and the free lists in their order with the addresses that predict: what comes after it was encoded
//! with them. It is cut into parts of [`PART_SLOTS`] slots, each a block of the file.
//!
//! # Why not differences to the last checkpoint
//! They would be smaller, but reading could then start only where all the earlier ones have been read.

use std::io;

use rustc_hash::FxHashMap;
use xalloc_core::units::{ArenaId, slack_expected};
use xalloc_core::wire::Call;

use super::columns::{Column, Packer, Unpacker};
use super::container::{BlockHeader, BlockKind, FLAG_FIRST_PART, FLAG_LAST_PART};
use super::course::Known;
use super::encode::Encoder;
use super::error::Malformed;
use super::mirror::{self, Mirror, Place, Restored};
use super::ops::BLOCK_EVENTS;
use super::tally::Tally;
use super::varint::{Cursor, fold, put, unfold, unzigzag, zigzag};
use super::{Block, StackIndex, ThreadIndex};

/// Slots of one part.
const PART_SLOTS: usize = 64 << 10;
/// Fewest events between two checkpoints.
pub(super) const INTERVAL_EVENTS: u64 = 16 * BLOCK_EVENTS as u64;
/// Events for each slot between two checkpoints; a slot takes 4 to 10 bytes.
const EVENTS_A_SLOT: u64 = 128;

/// Whether a checkpoint is worth its bytes after `events` events since the last one, of which there are to be
/// `interval_events` at least.
pub(super) fn is_due(events: u64, slots: usize, interval_events: u64) -> bool {
    events >= interval_events.max(slots as u64 * EVENTS_A_SLOT)
}

const FREE: u8 = 0;
const LIVE: u8 = 1;
const HELD: u8 = 2;

#[derive(Clone, Copy)]
#[repr(usize)]
enum Field {
    /// Of the first part: slots, allocations, threads with their allocations.
    Head,
    /// One byte a slot: free, live or held.
    Place,
    Slot,
    Addr,
    /// Class of a free slot, size of a block.
    Size,
    Time,
    Stack,
    Thread,
    /// Number of the block's allocation in its thread.
    Nth,
    /// Number of the block's allocation in the process.
    Number,
    /// Slack beyond the expected, arena, call.
    Origin,
    /// Thread whose realloc holds the slot.
    Holder,
}

const FIELDS: usize = Field::Holder as usize + 1;

/// What the differences in a part refer to: the slot before.
#[derive(Clone, Copy)]
struct Before {
    slot: u64,
    addr: u64,
    at_us: u64,
    nth: u64,
    number: u64,
}

const NOTHING_BEFORE: Before = Before { slot: 0, addr: 0, at_us: 0, nth: 0, number: 0 };

/// One slot of a checkpoint.
#[derive(Clone, Copy)]
enum Entry {
    Free { class: u8, addr: u64 },
    Block { block: Block, number: u64, holder: Option<u32> },
}

struct Part {
    fields: [Vec<u8>; FIELDS],
    before: Before,
    slots: u32,
}

impl Part {
    fn new() -> Part {
        Part { fields: std::array::from_fn(|_| Vec::new()), before: NOTHING_BEFORE, slots: 0 }
    }

    fn put(&mut self, field: Field, value: u64) {
        put(&mut self.fields[field as usize], value);
    }

    fn add(&mut self, slot: u32, entry: Entry) {
        self.slots += 1;
        let before = self.before;
        self.put(Field::Slot, zigzag(u64::from(slot).wrapping_sub(before.slot)));
        self.before.slot = u64::from(slot);
        let (place, addr) = match entry {
            Entry::Free { class, addr } => {
                self.put(Field::Size, u64::from(class));
                (FREE, addr)
            }
            Entry::Block { block, number, holder } => {
                let at_us = block.at_ns / 1000;
                let nth = u64::from(block.nth_of_thread);
                self.put(Field::Size, block.size_bytes);
                self.put(Field::Time, zigzag(at_us.wrapping_sub(before.at_us)));
                self.put(Field::Stack, u64::from(block.stack.0));
                self.put(Field::Thread, u64::from(block.thread.0));
                self.put(Field::Nth, zigzag(nth.wrapping_sub(before.nth)));
                self.put(Field::Number, zigzag(number.wrapping_sub(before.number)));
                let slack = block.slack_bytes.wrapping_sub(slack_expected(block.size_bytes));
                self.put(Field::Origin, u64::from(slack));
                self.put(Field::Origin, u64::from(block.arena.0));
                self.put(Field::Origin, block.call as u64);
                self.before = Before { at_us, nth, number, ..self.before };
                match holder {
                    Some(thread) => {
                        self.put(Field::Holder, u64::from(thread));
                        (HELD, block.addr)
                    }
                    None => (LIVE, block.addr),
                }
            }
        };
        self.put(Field::Addr, fold(addr.wrapping_sub(before.addr)));
        self.before.addr = addr;
        self.fields[Field::Place as usize].push(place);
    }

    /// The part as a block of the file; the next part begins.
    fn take(&mut self, packer: &mut Packer, header: BlockHeader) -> io::Result<Vec<u8>> {
        let mut payload = Vec::new();
        let mut raw_bytes = 0;
        for field in &mut self.fields {
            packer.pack(field, &mut payload)?;
            raw_bytes += field.len();
            field.clear();
        }
        let raw_bytes = u32::try_from(raw_bytes).expect("64 Ki slots take at most some MiB");
        let framed = BlockHeader { items: self.slots, raw_bytes, ..header }.frame(&payload);
        self.slots = 0;
        self.before = NOTHING_BEFORE;
        Ok(framed)
    }
}

/// Makes a checkpoint of what `encoder` has between two blocks; each part goes to `emit`, in order.
///
/// The encoder forgets what a reader that starts here cannot know.
pub(super) fn write<E: From<io::Error>>(
    process: u32,
    encoder: &mut Encoder<impl Tally>,
    packer: &mut Packer,
    mut emit: impl FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let mut part = Part::new();
    let (first_item, last_us) = (encoder.seq(), encoder.last_us());
    encoder.forget_bins();
    let mirror = encoder.mirror();
    mirror.forget_recent();
    let slots = mirror.slots() as u32;
    part.put(Field::Head, u64::from(slots));
    part.put(Field::Head, mirror.allocs());
    let mut holders = FxHashMap::default();
    for thread in mirror.threads() {
        if let Some((slot, number)) = thread.held {
            holders.insert(slot, (thread.index, number));
        }
    }
    let threads: Vec<_> = mirror.threads().iter().map(|thread| (thread.index, thread.allocs)).collect();
    part.put(Field::Head, threads.len() as u64);
    for (index, allocs) in threads {
        part.put(Field::Head, u64::from(index));
        part.put(Field::Head, u64::from(allocs));
    }

    let mut entries = Vec::with_capacity(slots as usize);
    for slot in 0..slots {
        let held = holders.get(&slot);
        if held.is_some() || encoder.mirror().is_live(slot) {
            let block = encoder.blocks()[slot as usize];
            let number = held.map_or_else(|| encoder.mirror().number(slot), |&(_, number)| number);
            encoder.mirror().remember_recent(slot, block.thread.0, block.nth_of_thread);
            entries.push((slot, Entry::Block { block, number, holder: held.map(|&(holder, _)| holder) }));
        }
    }
    let mirror = encoder.mirror();
    entries.extend(mirror.free_slots().map(|(slot, class)| (slot, Entry::Free { class, addr: mirror.addr(slot) })));

    let header = BlockHeader {
        process,
        slots,
        first_item,
        first_us: last_us,
        last_us,
        ..BlockHeader::of(BlockKind::Checkpoint)
    };
    let parts = entries.len().div_ceil(PART_SLOTS).max(1);
    for at in 0..parts {
        for &(slot, entry) in entries.iter().skip(at * PART_SLOTS).take(PART_SLOTS) {
            part.add(slot, entry);
        }
        let first = if at == 0 { FLAG_FIRST_PART } else { 0 };
        let last = if at + 1 == parts { FLAG_LAST_PART } else { 0 };
        emit(part.take(packer, BlockHeader { flags: first | last, ..header })?)?;
    }
    Ok(())
}

/// A checkpoint while its parts are read.
pub(super) struct Restoring {
    pub(super) mirror: Mirror,
    /// By slot; those of free slots mean nothing.
    pub(super) blocks: Vec<Block>,
    /// Which slots are live.
    pub(super) live: Vec<bool>,
    left: u32,
    known: Known,
    columns: [Column; FIELDS],
}

const EMPTY: Block = Block {
    addr: 0,
    size_bytes: 0,
    at_ns: 0,
    stack: StackIndex::NONE,
    thread: ThreadIndex(0),
    nth_of_thread: 0,
    slack_bytes: 0,
    arena: ArenaId::NONE,
    call: Call::Malloc,
};

impl Restoring {
    /// Nothing restored yet: the state of a process that inherits nothing.
    pub(super) fn new(limit: u32, known: Known) -> Restoring {
        Restoring {
            mirror: Mirror::new(limit),
            blocks: Vec::new(),
            live: Vec::new(),
            left: 0,
            known,
            columns: std::array::from_fn(|_| Column::default()),
        }
    }

    /// Reads the next part.
    pub(super) fn part(
        &mut self,
        header: &BlockHeader,
        payload: &[u8],
        unpacker: &mut Unpacker,
    ) -> Result<(), Malformed> {
        let mut from = Cursor::new(payload);
        let mut allowance_bytes = header.raw_bytes as usize;
        for column in &mut self.columns {
            unpacker.unpack(&mut from, &mut allowance_bytes, column.refill())?;
        }
        if header.flags & FLAG_FIRST_PART != 0 {
            self.head()?;
        }
        self.left = self
            .left
            .checked_sub(header.items)
            .ok_or(Malformed::Bytes("a checkpoint has more slots than its first part says"))?;
        let mut before = NOTHING_BEFORE;
        for _ in 0..header.items {
            self.slot(&mut before)?;
        }
        if header.flags & FLAG_LAST_PART != 0 && self.left != 0 {
            return Err(Malformed::Bytes("a checkpoint has fewer slots than its first part says"));
        }
        Ok(())
    }

    fn head(&mut self) -> Result<(), Malformed> {
        let field = &mut self.columns[Field::Head as usize];
        let (slots, allocs, threads) = (field.varint32()?, field.varint()?, field.varint()?);
        if self.mirror.slots() != 0 {
            return Err(Malformed::Bytes("a checkpoint begins twice"));
        }
        for _ in 0..threads {
            let (index, allocs) = (field.varint32()?, field.varint32()?);
            if index >= self.known.threads {
                return Err(Malformed::Bytes("a checkpoint names a thread that the trace does not have"));
            }
            self.mirror.restore_thread(index, allocs);
        }
        self.mirror.restore_sizes(slots, allocs)?;
        self.blocks.resize(slots as usize, EMPTY);
        self.live.resize(slots as usize, false);
        self.left = slots;
        Ok(())
    }

    fn slot(&mut self, before: &mut Before) -> Result<(), Malformed> {
        let mut next = |field: Field| self.columns[field as usize].varint();
        let slot = before.slot.wrapping_add(unzigzag(next(Field::Slot)?));
        let addr = before.addr.wrapping_add(unfold(next(Field::Addr)?));
        let size = next(Field::Size)?;
        *before = Before { slot, addr, ..*before };
        let slot = u32::try_from(slot).map_err(|_| Malformed::Bytes("a number exceeds 32 bits"))?;
        let place = self.columns[Field::Place as usize].byte()?;
        if place == FREE {
            let class = u8::try_from(size).ok().filter(|&class| class > 0);
            let class = class.ok_or(Malformed::Bytes("a free slot's size class is none"))?;
            return self.mirror.restore_slot(slot, Restored { addr, class, nth: 0, place: Place::Free });
        }
        let (block, number) = self.block(addr, size, before)?;
        let thread = block.thread.0;
        let nth = block.nth_of_thread;
        let class = mirror::class_of(block.size_bytes);
        let place = match place {
            LIVE => Place::Live { number, thread },
            HELD => Place::Held { number, thread, holder: self.thread(Field::Holder)? },
            _ => return Err(Malformed::Bytes("a slot of a checkpoint is neither free nor live")),
        };
        self.mirror.restore_slot(slot, Restored { addr, class, nth, place })?;
        self.blocks[slot as usize] = block;
        self.live[slot as usize] = matches!(place, Place::Live { .. });
        Ok(())
    }

    fn block(&mut self, addr: u64, size_bytes: u64, before: &mut Before) -> Result<(Block, u64), Malformed> {
        const WIDE: Malformed = Malformed::Bytes("a number of a block is larger than its field");
        let thread = ThreadIndex(self.thread(Field::Thread)?);
        let mut next = |field: Field| self.columns[field as usize].varint();
        let at_us = before.at_us.wrapping_add(unzigzag(next(Field::Time)?));
        let nth = before.nth.wrapping_add(unzigzag(next(Field::Nth)?));
        let number = before.number.wrapping_add(unzigzag(next(Field::Number)?));
        *before = Before { at_us, nth, number, ..*before };
        let stack = u32::try_from(next(Field::Stack)?).ok().filter(|&stack| stack < self.known.stacks);
        let slack = u16::try_from(next(Field::Origin)?).map_err(|_| WIDE)?;
        let arena = u16::try_from(next(Field::Origin)?).map_err(|_| WIDE)?;
        let call = u8::try_from(next(Field::Origin)?).ok().and_then(Call::from_number);
        let block = Block {
            addr,
            size_bytes,
            at_ns: at_us.saturating_mul(1000),
            stack: StackIndex(stack.ok_or(Malformed::Bytes("a block's stack is not in the trace"))?),
            thread,
            nth_of_thread: u32::try_from(nth).map_err(|_| WIDE)?,
            slack_bytes: slack.wrapping_add(slack_expected(size_bytes)),
            arena: ArenaId(arena),
            call: call.ok_or(Malformed::Bytes("a call is none that this version knows"))?,
        };
        Ok((block, number))
    }

    fn thread(&mut self, field: Field) -> Result<u32, Malformed> {
        let thread = self.columns[field as usize].varint32()?;
        if thread >= self.known.threads {
            return Err(Malformed::Bytes("a checkpoint names a thread that the trace does not have"));
        }
        Ok(thread)
    }
}
