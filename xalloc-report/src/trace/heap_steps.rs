//! Steps inside a heap, as differences from what the placement policy makes likely.
//!
//! A step mostly follows from what came before it: the top is split where the last split of the top ended, what is
//! coalesced or put into a bin is the chunk that the thread has just freed, the rest of a split goes into a bin next.
//! Each operand is stored as its difference from that expectation, so most columns are runs of zeros. What waits in
//! bins is expected in the order of their lists ([`super::bins`]). A request that
//! finds more chunks in a bin than it asked for moves them to its thread's cache: they are expected in the order of the
//! mirror's free list, which on an interpreter made the trace a quarter as large.
//!
//! A step is flattened to an arena, a kind, a small operand (rule, bin, flags) and three numbers. The first three
//! recur, and are named by one byte: their place in a table that the block carries. Half of the byte's values say that
//! all else is as expected, sequence number included; such a step takes one byte in one column.

use rustc_hash::FxHashMap;
use xalloc_core::heap::bin_index;
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::{BinKind, GrowthRule, HeapEvent, Kind, Merged, Record};

use super::error::Malformed;

/// A step without its arena: three numbers, of which a kind uses as many as it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flat {
    /// [`Kind`] by number.
    pub(super) kind: u8,
    /// Rule, bin or flags.
    pub(super) sub: u8,
    pub(super) addr: u64,
    pub(super) first: u64,
    pub(super) second: u64,
}

const BRK: u8 = Kind::HeapBrk as u8;
const TRIM: u8 = Kind::HeapTrim as u8;
const RELEASE: u8 = Kind::HeapRelease as u8;
const CHUNK_MAP: u8 = Kind::HeapChunkMap as u8;
const CHUNK_UNMAP: u8 = Kind::HeapChunkUnmap as u8;
const CHUNK_REMAP_FROM: u8 = Kind::HeapChunkRemapFrom as u8;
const CHUNK_REMAP_TO: u8 = Kind::HeapChunkRemapTo as u8;
pub(super) const SPLIT: u8 = Kind::HeapSplit as u8;
pub(super) const COALESCE: u8 = Kind::HeapCoalesce as u8;
pub(super) const BIN: u8 = Kind::HeapBin as u8;
const CACHE_BIRTH: u8 = Kind::HeapCacheBirth as u8;
const TCACHE_FLUSH: u8 = Kind::HeapTcacheFlush as u8;
const CONSOLIDATE: u8 = Kind::HeapConsolidate as u8;
const ARENA_BIRTH: u8 = Kind::HeapArenaBirth as u8;
const ARENA_IDLE: u8 = Kind::HeapArenaIdle as u8;
const ARENA_ATTACH: u8 = Kind::HeapArenaAttach as u8;
const HEAP_BIRTH: u8 = Kind::HeapBirth as u8;
const HEAP_RESIZE: u8 = Kind::HeapResize as u8;
const HEAP_DEATH: u8 = Kind::HeapDeath as u8;
const THRESHOLD: u8 = Kind::HeapThreshold as u8;
/// In [`StepKind::kind`], no kind of the wire's: a chunk's way to a thread's cache where the free list of its class says
/// which chunk is expected, see [`super::mirror::Mirror::next_filled`]. The small operand is the chunk's size in units of
/// 16 bytes. Since 1.2.
pub(super) const LISTED: u8 = 128;
/// As [`LISTED`], where the bin of its size says which chunk is expected, see [`super::bins::Bins::next_to_cache`]. Since
/// 3.0.
pub(super) const QUEUED: u8 = 129;

/// [`Flat::stays_within`] by the number of a kind.
#[inline]
pub(super) fn stays_within(kind: u8) -> bool {
    matches!(kind, SPLIT | COALESCE | BIN | LISTED | QUEUED)
}

impl Flat {
    fn new(kind: u8, addr: Addr, first: u64) -> Flat {
        Flat { kind, sub: 0, addr: addr.0, first, second: 0 }
    }

    /// Whether chunks were split, merged or moved between bins, and no more. These are nearly all steps, and the only
    /// ones that are expected by what their thread did before: all others can be read without them.
    #[inline]
    pub(super) fn stays_within(self) -> bool {
        stays_within(self.kind)
    }

    /// The numbers of a record of the commonest steps: splits, merges, moves into a bin. `None` for any other.
    #[inline]
    pub(super) fn of_record(record: &Record) -> Option<Flat> {
        let flat = Flat { sub: record.sub, ..Flat::new(record.kind, record.addr(), 0) };
        let (first, second) = record.chunk_sizes();
        match record.kind {
            SPLIT => Some(Flat { sub: record.sub & 1, first, second, ..flat }),
            COALESCE => Some(Flat { sub: record.sub & 7, first, second, ..flat }),
            BIN if BinKind::from_number(record.sub).is_some() => {
                let (size_bytes, index) = record.size_and_small();
                Some(Flat { first: size_bytes, second: u64::from(index & 0xff), ..flat })
            }
            _ => None,
        }
    }

    /// The numbers of a chunk's way into the bin of its size, if there is one.
    #[inline(always)]
    pub(super) fn to_bin(bin: BinKind, chunk: Addr, size_bytes: u64) -> Option<Flat> {
        let index = bin.index_of(size_bytes)?;
        Some(Flat { sub: bin as u8, second: u64::from(index), ..Flat::new(BIN, chunk, size_bytes) })
    }

    /// The step that a [`LISTED`] or [`QUEUED`] one of so many units means, where a block at `addr` is expected; `self` are
    /// its numbers less the expected ones.
    #[inline]
    pub(super) fn listed(self, addr: u64, units: u8) -> Flat {
        let size_bytes = u64::from(units) * 16;
        Flat {
            kind: BIN,
            sub: BinKind::Cache as u8,
            addr: addr.wrapping_sub(16).wrapping_add(self.addr),
            first: size_bytes.wrapping_add(self.first),
            second: u64::from(units.wrapping_sub(2)).wrapping_add(self.second),
        }
    }

    /// Whether a step to a cache has the numbers that [`QUEUED`] says with so many units.
    #[inline]
    pub(super) fn is_cached_as(self, units: u8) -> bool {
        self.first == u64::from(units) * 16 && self.second == u64::from(units.wrapping_sub(2))
    }

    /// The numbers of `step`.
    #[inline]
    pub(super) fn of(step: HeapEvent) -> Flat {
        match step {
            HeapEvent::Brk { from, to, rule } => {
                Flat { sub: rule as u8, ..Flat::new(BRK, from, to.0.wrapping_sub(from.0)) }
            }
            HeapEvent::Trim { from, to } => Flat::new(TRIM, from, from.0.wrapping_sub(to.0)),
            HeapEvent::Release { addr, len_bytes } => Flat::new(RELEASE, addr, len_bytes),
            HeapEvent::ChunkMap { addr, len_bytes } => Flat::new(CHUNK_MAP, addr, len_bytes),
            HeapEvent::ChunkUnmap { addr, len_bytes } => Flat::new(CHUNK_UNMAP, addr, len_bytes),
            HeapEvent::ChunkRemapFrom { addr, len_bytes } => Flat::new(CHUNK_REMAP_FROM, addr, len_bytes),
            HeapEvent::ChunkRemapTo { addr, len_bytes } => Flat::new(CHUNK_REMAP_TO, addr, len_bytes),
            HeapEvent::Split { addr, front_bytes, rest_bytes, from_top } => {
                Flat { sub: u8::from(from_top), second: rest_bytes, ..Flat::new(SPLIT, addr, front_bytes) }
            }
            HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged } => {
                let sub = u8::from(merged.previous) | u8::from(merged.next) << 1 | u8::from(merged.top) << 2;
                Flat { sub, second: total_bytes, ..Flat::new(COALESCE, addr, freed_bytes) }
            }
            HeapEvent::Bin { addr, size_bytes, bin, index } => {
                Flat { sub: bin as u8, second: u64::from(index), ..Flat::new(BIN, addr, size_bytes) }
            }
            HeapEvent::CacheBirth { addr, size_bytes } => Flat::new(CACHE_BIRTH, addr, size_bytes),
            HeapEvent::TcacheFlush { chunks, size_bytes } => {
                Flat { second: u64::from(chunks), ..Flat::new(TCACHE_FLUSH, Addr(0), size_bytes) }
            }
            HeapEvent::Consolidate { chunks, size_bytes } => {
                Flat { second: u64::from(chunks), ..Flat::new(CONSOLIDATE, Addr(0), size_bytes) }
            }
            HeapEvent::ArenaBirth { addr } => Flat::new(ARENA_BIRTH, addr, 0),
            HeapEvent::ArenaIdle => Flat::new(ARENA_IDLE, Addr(0), 0),
            HeapEvent::ArenaAttach => Flat::new(ARENA_ATTACH, Addr(0), 0),
            HeapEvent::HeapBirth { addr, len_bytes } => Flat::new(HEAP_BIRTH, addr, len_bytes),
            HeapEvent::HeapResize { addr, len_bytes, rule } => {
                Flat { sub: rule as u8, ..Flat::new(HEAP_RESIZE, addr, len_bytes) }
            }
            HeapEvent::HeapDeath { addr, len_bytes } => Flat::new(HEAP_DEATH, addr, len_bytes),
            HeapEvent::Threshold { mmap_bytes } => Flat::new(THRESHOLD, Addr(0), mmap_bytes),
        }
    }

    /// The step that these numbers mean.
    #[inline]
    pub(super) fn step(self) -> Result<HeapEvent, Malformed> {
        const UNKNOWN: Malformed = Malformed::Bytes("a heap step has a number that this version does not know");
        let Flat { kind, sub, addr, first, second } = self;
        let len_bytes = first;
        let addr = Addr(addr);
        let small = || u32::try_from(second).map_err(|_| UNKNOWN);
        let rule = || GrowthRule::from_number(sub).ok_or(UNKNOWN);
        Ok(match kind {
            BRK => HeapEvent::Brk { from: addr, to: addr.up(first), rule: rule()? },
            TRIM => HeapEvent::Trim { from: addr, to: Addr(addr.0.wrapping_sub(first)) },
            RELEASE => HeapEvent::Release { addr, len_bytes },
            CHUNK_MAP => HeapEvent::ChunkMap { addr, len_bytes },
            CHUNK_UNMAP => HeapEvent::ChunkUnmap { addr, len_bytes },
            CHUNK_REMAP_FROM => HeapEvent::ChunkRemapFrom { addr, len_bytes },
            CHUNK_REMAP_TO => HeapEvent::ChunkRemapTo { addr, len_bytes },
            SPLIT => HeapEvent::Split { addr, front_bytes: first, rest_bytes: second, from_top: sub & 1 != 0 },
            COALESCE => HeapEvent::Coalesce {
                addr,
                freed_bytes: first,
                total_bytes: second,
                merged: Merged { previous: sub & 1 != 0, next: sub & 2 != 0, top: sub & 4 != 0 },
            },
            BIN => HeapEvent::Bin {
                addr,
                size_bytes: first,
                bin: BinKind::from_number(sub).ok_or(UNKNOWN)?,
                index: u8::try_from(second).map_err(|_| UNKNOWN)?,
            },
            CACHE_BIRTH => HeapEvent::CacheBirth { addr, size_bytes: first },
            TCACHE_FLUSH => HeapEvent::TcacheFlush { chunks: small()?, size_bytes: first },
            CONSOLIDATE => HeapEvent::Consolidate { chunks: small()?, size_bytes: first },
            ARENA_BIRTH => HeapEvent::ArenaBirth { addr },
            ARENA_IDLE => HeapEvent::ArenaIdle,
            ARENA_ATTACH => HeapEvent::ArenaAttach,
            HEAP_BIRTH => HeapEvent::HeapBirth { addr, len_bytes },
            HEAP_RESIZE => HeapEvent::HeapResize { addr, len_bytes, rule: rule()? },
            HEAP_DEATH => HeapEvent::HeapDeath { addr, len_bytes },
            THRESHOLD => HeapEvent::Threshold { mmap_bytes: first },
            _ => return Err(UNKNOWN),
        })
    }
}

/// The numbers of a step less the expected ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Less {
    pub(super) addr: u64,
    pub(super) first: u64,
    pub(super) second: u64,
}

impl Less {
    /// Of a step that is as expected.
    pub(super) const NOTHING: Less = Less { addr: 0, first: 0, second: 0 };
}

/// By which rules a block's steps are expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rules {
    /// Those of format versions before 3: a bin's number and a count are that of the last step of the kind.
    Before3,
    /// A large bin's number follows from the size, and counts are stored like sizes, sixteen times as large.
    Since3,
}

/// What a step is expected to be, and what its numbers are without that.
///
/// The writer subtracts, the reader adds; both then tell [`leaves`] what the step was.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    addr: u64,
    first: u64,
    beside_bytes: u64,
    rules: Rules,
}

/// The chunk that is expected to be merged or put into a bin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chunk {
    /// Where the step begins: at the chunk, or at the one below that it is merged with.
    pub(super) addr: u64,
    /// Bytes of the chunk itself.
    pub(super) size_bytes: u64,
    /// Bytes of what it is merged with.
    pub(super) beside_bytes: u64,
}

impl From<(u64, u64)> for Chunk {
    fn from((addr, size_bytes): (u64, u64)) -> Chunk {
        Chunk { addr, size_bytes, beside_bytes: 0 }
    }
}

impl Expected {
    /// The expectation for a step of `kind`, whose like was last `before`; a chunk that is merged or put into a bin is
    /// expected to be `chunk`.
    #[inline(always)]
    pub(super) fn of(kind: u8, before: Flat, chunk: Chunk, rules: Rules) -> Expected {
        let (addr, first) = match kind {
            SPLIT | BRK => (before.addr.wrapping_add(before.first), before.first),
            COALESCE | BIN => (chunk.addr, chunk.size_bytes),
            _ => (before.addr, before.first),
        };
        Expected { addr, first, beside_bytes: chunk.beside_bytes, rules }
    }

    /// The numbers of `flat` less the expected ones.
    #[inline(always)]
    pub(super) fn subtract(self, flat: Flat, before: Flat) -> Less {
        Less {
            addr: flat.addr.wrapping_sub(self.addr),
            first: flat.first.wrapping_sub(self.first),
            second: flat.second.wrapping_sub(self.second(flat.kind, flat.sub, flat.first, before))
                << self.scale(flat.kind),
        }
    }

    /// The inverse of [`Self::subtract`].
    #[inline]
    pub(super) fn add(self, less: Flat, before: Flat) -> Flat {
        let first = less.first.wrapping_add(self.first);
        let second = (less.second as i64 >> self.scale(less.kind)) as u64;
        Flat {
            addr: less.addr.wrapping_add(self.addr),
            first,
            second: second.wrapping_add(self.second(less.kind, less.sub, first, before)),
            ..less
        }
    }

    /// The second number that a step of this kind is expected to have.
    #[inline(always)]
    fn second(self, kind: u8, sub: u8, first: u64, before: Flat) -> u64 {
        if self.rules == Rules::Since3 && kind == BIN && sub == BinKind::Large as u8 {
            return bin_index(first) as u64;
        }
        if kind == COALESCE {
            return first.wrapping_add(self.beside_bytes);
        }
        second_expected(kind, sub, first, before)
    }

    /// By how many bits a difference between second numbers is shifted, for [`super::varint::fold`] makes multiples of
    /// 16 short.
    #[inline(always)]
    fn scale(self, kind: u8) -> u32 {
        if self.rules == Rules::Since3 && matches!(kind, CONSOLIDATE | TCACHE_FLUSH) { 4 } else { 0 }
    }
}

/// Bins of one size are numbered by it: fast ones and those of a cache from 0 for 32 bytes, small ones from 2 (malloc.c,
/// `fastbin_index` and `smallbin_index_unsafe`).
#[inline(always)]
fn second_expected(kind: u8, sub: u8, first: u64, before: Flat) -> u64 {
    const FAST: u8 = BinKind::Fast as u8;
    const SMALL: u8 = BinKind::Small as u8;
    const CACHE: u8 = BinKind::Cache as u8;
    match kind {
        SPLIT => before.second.wrapping_sub(first),
        BIN if sub == FAST || sub == CACHE => (first / 16).wrapping_sub(2) % 256,
        BIN if sub == SMALL => first / 16 % 256,
        _ => before.second,
    }
}

/// Whether a step of this kind is expected without the last one like it: what a bin gets and its number follow from
/// other things.
#[inline(always)]
pub(super) fn needs_no_like(flat: Flat) -> bool {
    flat.kind == BIN && flat.sub != BinKind::Unsorted as u8
}

/// What a step leaves behind for the thread: the chunk that is free now, and where a split chunk's block begins.
#[inline(always)]
pub(super) fn leaves(flat: Flat, free_chunk: &mut (u64, u64), split: &mut u64) {
    match flat.kind {
        SPLIT => {
            *split = flat.addr.wrapping_add(16);
            *free_chunk = (flat.addr.wrapping_add(flat.first), flat.second);
        }
        COALESCE => *free_chunk = (flat.addr, flat.second),
        _ => {}
    }
}

/// An arena, a kind and a small operand that recur together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct StepKind {
    pub(super) arena: ArenaId,
    pub(super) kind: u8,
    pub(super) sub: u8,
}

impl StepKind {
    /// A number that kinds share seldom: fewer than 32 are kinds of steps, and operands are small.
    #[inline]
    fn near(self) -> usize {
        usize::from(self.kind % 32) << 3 | usize::from(self.sub % 8)
    }
}

/// What is remembered of a kind of step within a block.
#[derive(Clone, Copy)]
pub(super) struct Remembered {
    pub(super) kind: StepKind,
    /// The last step of the kind.
    pub(super) last: Flat,
    arena: u32,
}

/// The steps of a block so far: by kind what the last one was, by arena its sequence number.
pub(super) struct History {
    kinds: Vec<Remembered>,
    places: FxHashMap<StepKind, u32>,
    /// Where in `kinds` the last step with each number of a kind and of a bin was: mostly the next one is there too.
    recent: [u32; 256],
    /// The sequence number that the next step of each arena is expected to have.
    seqs: Vec<u16>,
    arenas: FxHashMap<u16, u32>,
    /// The arena that [`History::next_seq`] was asked for last, and its place in `seqs`.
    recent_arena: Option<(ArenaId, u32)>,
}

impl Default for History {
    fn default() -> History {
        History {
            kinds: Vec::new(),
            places: FxHashMap::default(),
            recent: [0; 256],
            seqs: Vec::new(),
            arenas: FxHashMap::default(),
            recent_arena: None,
        }
    }
}

impl History {
    pub(super) fn clear(&mut self) {
        self.kinds.clear();
        self.places.clear();
        self.seqs.clear();
        self.arenas.clear();
        self.recent_arena = None;
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The place of `kind`, and whether it is there for the first time.
    #[inline]
    pub(super) fn place(&mut self, kind: StepKind) -> (usize, bool) {
        let recent = self.recent[kind.near()] as usize;
        if self.kinds.get(recent).is_some_and(|there| there.kind == kind) {
            return (recent, false);
        }
        self.search(kind)
    }

    #[inline(never)]
    fn search(&mut self, kind: StepKind) -> (usize, bool) {
        let next = self.kinds.len() as u32;
        let place = *self.places.entry(kind).or_insert(next);
        if place == next {
            self.push(kind);
        }
        self.recent[kind.near()] = place;
        (place as usize, place == next)
    }

    /// Appends a kind, in the order in which the writer met them.
    pub(super) fn push(&mut self, kind: StepKind) {
        let arena = self.index_of(kind.arena);
        let last = Flat { kind: kind.kind, sub: kind.sub, addr: 0, first: 0, second: 0 };
        self.kinds.push(Remembered { kind, last, arena });
    }

    /// The place of an arena in `seqs`.
    fn index_of(&mut self, arena: ArenaId) -> u32 {
        let next = self.seqs.len() as u32;
        let index = *self.arenas.entry(arena.0).or_insert(next);
        if index == next {
            self.seqs.push(0);
        }
        index
    }

    /// The sequence number that the arena's next step is expected to have, to be replaced by what comes.
    #[inline]
    pub(super) fn next_seq(&mut self, arena: ArenaId) -> &mut u16 {
        let index = match self.recent_arena {
            Some((recent, index)) if recent == arena => index,
            Some(_) | None => self.index_of(arena),
        };
        self.recent_arena = Some((arena, index));
        &mut self.seqs[index as usize]
    }

    /// The last step of the kind at `place`, to be replaced by what comes.
    #[inline(always)]
    pub(super) fn last(&mut self, place: usize) -> &mut Flat {
        &mut self.kinds[place].last
    }

    /// The sequence number that the next step of the arena of the kind at `place` is expected to have, likewise.
    #[inline(always)]
    pub(super) fn seq_at(&mut self, place: usize) -> &mut u16 {
        &mut self.seqs[self.kinds[place].arena as usize]
    }

    /// What is remembered of the kind at `place`, and the sequence number that its arena's next step is expected to
    /// have; both are to be replaced by what comes.
    #[inline]
    pub(super) fn at(&mut self, place: usize) -> Option<(&mut Remembered, &mut u16)> {
        let remembered = self.kinds.get_mut(place)?;
        let seq = self.seqs.get_mut(remembered.arena as usize)?;
        Some((remembered, seq))
    }
}
