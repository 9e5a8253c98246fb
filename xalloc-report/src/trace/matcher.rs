//! Which block an event is about: addresses become slots here, once, so that no reader has to look one up.
//!
//! Events arrive in the merged order. It is right up to the few that were stamped but not yet published when their
//! pass was cut; their stamps tell them from real faults, so they are put right where they land:
//!
//! | seen | meaning | done |
//! |---|---|---|
//! | free of an unknown address, then an allocation there with an earlier stamp | the allocation was late | allocation, free |
//! | free of an unknown address, nothing of the kind within a block of events | memory from before the recording | an unknown free, counted |
//! | allocation at a live address | the free between was lost, or is late | a free is implied, counted |
//! | free whose stamp is earlier than the allocation that implied a free there | the late one of that pair | nothing more |
//!
//! # Invariant
//! The table holds exactly the addresses of the encoder's live slots; a slot held by a realloc is not in it.
//!
//! # Why unknown frees wait
//! Told at once, a free whose allocation comes a millisecond later would be counted as foreign and its block as
//! leaked. Waiting costs a map that is empty in nearly every recording.

use rustc_hash::FxHashMap;
use xalloc_core::units::{CHUNK_HEADER_BYTES, Stamp, chunk_bytes, slack_expected};
use xalloc_core::wire::{self, BinKind, Call, HeapEvent, Merged, PutAway, Record};

use super::encode::{Binned, Encoder, LiveSet, Request, Who};
use super::heap_steps::Flat;
use super::ops::BLOCK_EVENTS;
use super::table::{Entry, Table};
use super::tally::Tally;
use super::{Event, Incoming, ProcessEvent, ProgramEvent, Repairs, StackIndex};

/// Most frees that wait; with more, the oldest assumption (they are foreign) is made for all.
const MAX_PARKED: usize = 4096;
const ALLOC: u8 = wire::Kind::Alloc as u8;
const FREE: u8 = wire::Kind::Free as u8;
const SPLIT: u8 = wire::Kind::HeapSplit as u8;
const COALESCE: u8 = wire::Kind::HeapCoalesce as u8;
const BIN: u8 = wire::Kind::HeapBin as u8;
const FREE_BINNED: u8 = wire::Kind::FreeBinned as u8;
const CACHE_FILL: u8 = wire::Kind::HeapCacheFill as u8;
const MERGE_BINNED: u8 = wire::Kind::HeapMergeBinned as u8;
const ALLOC_SPLIT: u8 = wire::Kind::AllocSplit as u8;
const ALLOC_FILLED: u8 = wire::Kind::AllocFilled as u8;
/// User addresses have 48 bits ([`xalloc_core::units::Addr::MAX`]).
const ADDR_MASK: u64 = (1 << 48) - 1;

/// Events whose blocks are asked for together: some hundred and fifty cache lines, a fifth of a first-level cache.
pub(super) const FETCHED: usize = 32;
/// Slots in a row, of which all that is known fills a page or two.
const RUN_SLOTS: u32 = 64;
/// In so many runs [`FETCHED`] events lie far apart. Of blocks that come and go at random there are some twenty, of those of an
/// interpreter, which come in a row and go in a row, a handful.
const SCATTERED_RUNS: u32 = 12;

/// A free of an address at which nothing was known to live.
#[derive(Clone, Copy)]
struct Parked {
    stamp: Stamp,
    who: Who,
    /// Number of the event before which it arrived.
    seq: u64,
}

/// Matches the events of one process.
pub(super) struct Matcher {
    table: Table,
    parked: FxHashMap<u64, Parked>,
    /// Addresses at which a free was implied, with the stamp of the allocation that did.
    implied: FxHashMap<u64, Stamp>,
    /// Reallocs under way of blocks that are not known, by thread.
    unknown_reallocs: FxHashMap<u32, u64>,
    /// First halves of remaps, by thread.
    remaps: FxHashMap<u32, (u64, u64)>,
    repairs: Repairs,
}

impl Matcher {
    pub(super) fn new() -> Matcher {
        Matcher {
            table: Table::new(),
            parked: FxHashMap::default(),
            implied: FxHashMap::default(),
            unknown_reallocs: FxHashMap::default(),
            remaps: FxHashMap::default(),
            repairs: Repairs::default(),
        }
    }

    /// A matcher that knows the blocks which a fork inherits.
    pub(super) fn inheriting(live: &LiveSet) -> Matcher {
        let mut matcher = Matcher::new();
        for (slot, block) in (0..).zip(&live.blocks) {
            if live.mirror.is_live(slot) {
                matcher.table.place(block.addr).insert(slot);
            }
        }
        matcher
    }

    /// The slot of the block that lives at `addr`.
    pub(super) fn live_at(&self, addr: u64) -> Option<u32> {
        match self.table.get(addr)? {
            Entry::Live(slot) => Some(slot),
            Entry::Gone(_) => None,
        }
    }

    /// What had to be repaired so far; late events are counted by who merges.
    pub(super) fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// Takes the next event, and the text that followed it, and tells `encoder` what it means.
    ///
    /// What programs do by the million is read from the record where it is needed; all else goes by the typed event.
    #[inline(always)]
    pub(super) fn push(&mut self, incoming: &Incoming, text: &str, encoder: &mut Encoder<impl Tally>) {
        let Incoming { record, at_us, thread, stack } = incoming;
        let who = Who { at_us: *at_us, thread: *thread, stack: *stack };
        match record.kind {
            ALLOC | ALLOC_SPLIT | ALLOC_FILLED => {
                if let Some(request) = led_to(who, record, encoder) {
                    self.alloc(who, Stamp(record.stamp), request, encoder);
                }
            }
            FREE | FREE_BINNED => {
                // The stack of a free with its steps is that of the steps.
                let stack = if record.kind == FREE { who.stack } else { StackIndex::NONE };
                self.free(Who { stack, ..who }, Stamp(record.stamp), record.addr().0, encoder);
                if record.kind == FREE_BINNED {
                    put_away(who, record, encoder);
                }
            }
            CACHE_FILL => {
                let (size_bytes, chunks) = record.filled();
                encoder.fill_cache(who, record.arena(), record.extra, size_bytes, chunks);
            }
            MERGE_BINNED => tell_steps(who, record, record.merging().steps(), encoder),
            SPLIT | COALESCE | BIN => {
                if let Some(flat) = Flat::of_record(record) {
                    encoder.heap(who, record.arena(), record.extra, flat);
                }
            }
            _ => self.other(who, incoming, text, encoder),
        }
    }

    /// Whether the next events, of which these are the first, are likely to touch blocks that lie far apart.
    #[inline(never)]
    pub(super) fn are_scattered(&self, some: &[Incoming]) -> bool {
        let mut runs = 0_u64;
        for one in some {
            if let Some(slot) = self.table.likely_slot(one.record.addr().0) {
                runs |= 1 << (slot / RUN_SLOTS % u64::BITS);
            }
        }
        runs.count_ones() >= SCATTERED_RUNS
    }

    /// Asks the processor for what [`Self::push`] is going to touch of these events' blocks.
    ///
    /// First for all entries, then for what these lead to: each of two rounds waits for memory once, and not for every event
    /// anew.
    #[inline(never)]
    pub(super) fn prefetch(&self, some: &[Incoming], encoder: &Encoder<impl Tally>) {
        for one in some {
            self.table.prefetch(one.record.addr().0);
        }
        for one in some {
            if let Some(slot) = self.table.likely_slot(one.record.addr().0) {
                encoder.prefetch(slot);
            }
        }
    }

    #[inline(never)]
    fn other(&mut self, who: Who, incoming: &Incoming, text: &str, encoder: &mut Encoder<impl Tally>) {
        let Some(event) = incoming.event() else { return };
        match event {
            wire::Event::ReallocBegin { addr } => {
                let addr = addr.0 & ADDR_MASK;
                match self.table.remove(addr) {
                    Some(slot) => encoder.realloc_begin(who, slot),
                    None => {
                        self.unknown_reallocs.insert(who.thread.0, addr);
                    }
                }
            }
            wire::Event::ReallocUndo { .. } => self.undo(who, encoder),
            wire::Event::Heap { arena, seq, step } => encoder.heap_step(who, arena, seq, step),
            wire::Event::AllocFailed { size_bytes, call } => {
                encoder.other(who, &Event::AllocFailed { size_bytes, call });
            }
            wire::Event::ProgramMap { addr, len_bytes, protection, shared, .. } => {
                let path = text;
                encoder.other(
                    who,
                    &Event::Program(ProgramEvent::Map { addr: addr.0, len_bytes, protection, shared, path }),
                );
            }
            wire::Event::ProgramUnmap { addr, len_bytes } => {
                encoder.other(who, &Event::Program(ProgramEvent::Unmap { addr: addr.0, len_bytes }));
            }
            wire::Event::ProgramRemapFrom { addr, len_bytes } => {
                self.remaps.insert(who.thread.0, (addr.0, len_bytes));
            }
            wire::Event::ProgramRemapTo { addr, len_bytes } => {
                // Without its first half (lost) the mapping is known from here on: it is said to have been resized.
                let (from, from_bytes) = self.remaps.remove(&who.thread.0).unwrap_or((addr.0, len_bytes));
                let event = Event::Program(ProgramEvent::Remap { from, from_bytes, to: addr.0, to_bytes: len_bytes });
                encoder.other(who, &event);
            }
            wire::Event::ProgramAdvise { addr, len_bytes, advice } => {
                encoder.other(who, &Event::Program(ProgramEvent::Advise { addr: addr.0, len_bytes, advice }));
            }
            wire::Event::ProgramBrk { from, to } => {
                encoder.other(who, &Event::Program(ProgramEvent::Brk { from: from.0, to: to.0 }));
            }
            wire::Event::HeapCall { call, argument, value } => {
                encoder.other(who, &Event::HeapCall { call, argument, value });
            }
            wire::Event::ThreadStart { .. } => encoder.other(who, &Event::Process(ProcessEvent::ThreadStart)),
            wire::Event::ThreadExit => encoder.other(who, &Event::Process(ProcessEvent::ThreadExit)),
            wire::Event::Fork { .. } => encoder.other(who, &Event::Process(ProcessEvent::Fork)),
            wire::Event::Exec { .. } => encoder.other(who, &Event::Process(ProcessEvent::Exec { path: text })),
            wire::Event::ExecFailed => encoder.other(who, &Event::Process(ProcessEvent::ExecFailed)),
            wire::Event::Exit { status } => encoder.other(who, &Event::Process(ProcessEvent::Exit { status })),
            wire::Event::ModulesClosed { .. } => encoder.other(who, &Event::Process(ProcessEvent::ModulesClosed)),
            wire::Event::Marker { .. } => encoder.other(who, &Event::Marker { text }),
            wire::Event::Lost { count, reason } => encoder.other(who, &Event::Lost { events: count, reason }),
            wire::Event::Fault { addr, kind } => encoder.other(who, &Event::Fault { addr: addr.0, kind }),
            // Told above.
            wire::Event::Alloc { .. }
            | wire::Event::AllocAfter { .. }
            | wire::Event::MergeBinned { .. }
            | wire::Event::Free { .. }
            | wire::Event::FreeBinned { .. }
            | wire::Event::CacheFill { .. } => {}
            // Modules are in the contents, text is with the event that it belongs to.
            wire::Event::Module { .. } | wire::Event::ModuleRange { .. } | wire::Event::Text { .. } => {}
        }
    }

    #[inline(always)]
    fn alloc(&mut self, who: Who, stamp: Stamp, request: Request, encoder: &mut Encoder<impl Tally>) {
        let addr = request.addr;
        let is_quiet = self.is_quiet();
        let mut place = self.table.place(addr);
        let mut freed_by = None;
        if !is_quiet || matches!(place.entry(), Some(Entry::Live(_))) {
            freed_by = self.make_way(who, stamp, addr, request.call, encoder);
            place = self.table.place(addr);
        }
        let had = place.entry().map(|(Entry::Live(slot) | Entry::Gone(slot))| slot);
        let slot = encoder.alloc(who, request, had);
        place.insert(slot);
        if let Some(freed_by) = freed_by {
            self.free_rarely(freed_by, addr, encoder);
        }
    }

    /// Before an allocation at an address where something lives, or while something waits: what lives there is gone.
    /// Returns who freed the block that comes, if the allocation is later here than its free.
    #[inline(never)]
    fn make_way(
        &mut self,
        who: Who,
        stamp: Stamp,
        addr: u64,
        call: Call,
        encoder: &mut Encoder<impl Tally>,
    ) -> Option<Who> {
        if call.is_realloc()
            && let Some(old) = self.unknown_reallocs.remove(&who.thread.0)
        {
            self.tell_unknown(Who { stack: StackIndex::NONE, ..who }, old, encoder);
        }
        let mut freed_by = None;
        if let Some(parked) = self.parked.remove(&addr) {
            if stamp < parked.stamp {
                freed_by = Some(parked.who);
            } else {
                self.tell_unknown(parked.who, addr, encoder);
            }
        }
        if self.free_rarely(Who { stack: StackIndex::NONE, ..who }, addr, encoder) {
            self.repairs.implied_frees += 1;
            if self.implied.len() >= MAX_PARKED {
                self.implied.clear();
            }
            self.implied.insert(addr, stamp);
        }
        freed_by
    }

    /// Whether nothing waits for a late event, as nearly always.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.parked.len() | self.implied.len() | self.unknown_reallocs.len() == 0
    }

    #[inline(always)]
    fn free(&mut self, who: Who, stamp: Stamp, addr: u64, encoder: &mut Encoder<impl Tally>) {
        if !self.implied.is_empty() && self.was_implied(stamp, addr) {
            return;
        }
        if !self.free_now(who, addr, encoder) {
            self.park(who, stamp, addr, encoder);
        }
    }

    /// As [`Self::free_now`], for who calls it seldom: without a copy of its code there.
    #[inline(never)]
    fn free_rarely(&mut self, who: Who, addr: u64, encoder: &mut Encoder<impl Tally>) -> bool {
        self.free_now(who, addr, encoder)
    }

    /// Frees the block at `addr`; false if there is none.
    #[inline(always)]
    fn free_now(&mut self, who: Who, addr: u64, encoder: &mut Encoder<impl Tally>) -> bool {
        let slot = self.table.remove(addr);
        if let Some(slot) = slot {
            encoder.free(who, slot);
        }
        slot.is_some()
    }

    /// Whether a free is the late one that an allocation implied.
    #[cold]
    fn was_implied(&mut self, stamp: Stamp, addr: u64) -> bool {
        self.implied.remove(&addr).is_some_and(|implied_by| stamp < implied_by)
    }

    /// A free of an address where nothing is known to live waits.
    #[cold]
    #[inline(never)]
    fn park(&mut self, who: Who, stamp: Stamp, addr: u64, encoder: &mut Encoder<impl Tally>) {
        if addr == 0 {
            return;
        }
        if self.parked.len() >= MAX_PARKED {
            self.settle(encoder, u64::MAX);
        }
        let parked = Parked { stamp, who, seq: encoder.seq() };
        if let Some(earlier) = self.parked.insert(addr, parked) {
            self.tell_unknown(earlier.who, addr, encoder);
        }
    }

    fn undo(&mut self, who: Who, encoder: &mut Encoder<impl Tally>) {
        if self.unknown_reallocs.remove(&who.thread.0).is_some() {
            return;
        }
        // Without a begin (lost) there is nothing to undo: the block never went.
        let Some(slot) = encoder.held(who.thread) else { return };
        let addr = encoder.blocks()[slot as usize].addr;
        if self.free_rarely(Who { stack: StackIndex::NONE, ..who }, addr, encoder) {
            self.repairs.implied_frees += 1;
        }
        if let Some(slot) = encoder.realloc_undo(who) {
            self.table.place(addr).insert(slot);
        }
    }

    fn tell_unknown(&mut self, who: Who, addr: u64, encoder: &mut Encoder<impl Tally>) {
        encoder.other(who, &Event::FreeUnknown { addr });
        self.repairs.unknown_frees += 1;
    }

    /// Gives up on frees that have waited for a block of events.
    pub(super) fn settle_old(&mut self, encoder: &mut Encoder<impl Tally>) {
        let before_seq = encoder.seq().saturating_sub(BLOCK_EVENTS as u64);
        self.settle(encoder, before_seq);
    }

    /// Gives up on all frees that wait.
    pub(super) fn settle_all(&mut self, encoder: &mut Encoder<impl Tally>) {
        self.settle(encoder, u64::MAX);
    }

    fn settle(&mut self, encoder: &mut Encoder<impl Tally>, before_seq: u64) {
        if self.parked.is_empty() {
            return;
        }
        let mut given_up: Vec<_> = self.parked.extract_if(|_, parked| parked.seq < before_seq).collect();
        given_up.sort_unstable_by_key(|(addr, parked)| (parked.seq, *addr));
        for (addr, parked) in given_up {
            self.tell_unknown(parked.who, addr, encoder);
        }
    }
}

/// Tells the steps that a record of a free names.
#[inline]
fn put_away(who: Who, record: &Record, encoder: &mut Encoder<impl Tally>) {
    let PutAway { total_bytes: size_bytes, merged, bin, .. } = record.put_away();
    if merged == Merged::default()
        && let Some(bin @ (BinKind::Fast | BinKind::Small)) = bin
        && bin.index_of(size_bytes).is_some()
    {
        let chunk = record.addr().0.wrapping_sub(CHUNK_HEADER_BYTES);
        encoder.binned(who, Binned { arena: record.arena(), seq: record.extra, bin, chunk, size_bytes });
    } else {
        put_away_otherwise(who, record, encoder);
    }
}

#[inline(never)]
fn put_away_otherwise(who: Who, record: &Record, encoder: &mut Encoder<impl Tally>) {
    let (block, put_away) = (record.addr(), record.put_away());
    tell_steps(who, record, [put_away.merge_step(block), put_away.bin_step(block)], encoder);
}

/// Tells steps of which the record says the first one's number.
#[inline]
fn tell_steps(who: Who, record: &Record, steps: [Option<HeapEvent>; 2], encoder: &mut Encoder<impl Tally>) {
    for (step, seq) in steps.into_iter().flatten().zip(0..) {
        encoder.heap(who, record.arena(), record.extra.wrapping_add(seq), Flat::of(step));
    }
}

/// Tells the steps that a record of an allocation names, and says what was allocated.
#[inline(always)]
fn led_to(who: Who, record: &Record, encoder: &mut Encoder<impl Tally>) -> Option<Request> {
    let (addr, arena, seq) = (record.addr(), record.arena(), record.extra);
    if record.kind == ALLOC {
        let (size_bytes, slack_bytes) = record.size_and_small();
        let (arena_seq, call) = (record.arena_seq(), record.alloc_call()?);
        return Some(Request { addr: addr.0, size_bytes, slack_bytes, arena, arena_seq, call });
    }
    let (size_bytes, call, steps) = if record.kind == ALLOC_SPLIT {
        let (size_bytes, split) = record.split_for();
        encoder.heap(who, arena, seq, Flat::of(split));
        (size_bytes, record.alloc_call()?, 1)
    } else {
        let (size_bytes, chunks) = record.filled_for();
        encoder.fill_cache(who, arena, seq, chunk_bytes(size_bytes), chunks);
        let steps = chunks.iter().filter(|chunk| chunk.0 != 0).count();
        (size_bytes, Call::from_number(record.sub)?, steps as u16)
    };
    let (slack_bytes, arena_seq) = (slack_expected(size_bytes), Some(seq.wrapping_add(steps)));
    Some(Request { addr: addr.0, size_bytes, slack_bytes, arena, arena_seq, call })
}
