//! The events, and the 32 bytes that each of them is on its way through a ring.
//!
//! A [`Record`] is what a hook writes: a time stamp, two operands of 48 bits with 16 spare bits each, a stack id, a
//! kind. [`Event`] is its typed reading; [`Stamped::encode`] and [`Record::decode`] are inverse to each other. An event
//! with text (a path, a marker) is one record followed by [`Kind::Text`] records that hold 24 bytes each; the first
//! record says how many bytes follow, and all of them are published together. Steps of a heap that lead to an allocation,
//! that follow from a free or from each other share [one record](Stamped::apart).
//!
//! # Order
//! A free is stamped before the memory goes back, an allocation after it was obtained, so that two threads that hand
//! an address over never appear in the wrong order. Heap events are stamped under their arena's lock and carry the
//! low 16 bits of the arena's sequence number: sorting by stamp within an arena keeps the order in which the heap
//! changed, and a gap in the sequence shows a lost event.

use crate::units::{Addr, ArenaId, StackId, Stamp};

mod decode;
mod encode;
mod fill;
mod kinds;
mod made;
mod record;
mod together;

pub use fill::{MOST_FILLED, MOST_FILLED_FAR, fill_fits};
pub use kinds::{Advice, BinKind, Call, FaultKind, GrowthRule, HeapCall, Kind, LossReason, Merged, Protection};
pub use made::LedTo;
pub use record::{Record, TEXT_BYTES, text_records};
pub use together::{MergeBinned, PutAway};

/// Version of the record format. A recorder refuses a segment of another version.
pub const VERSION: u16 = 6;

/// What happened inside a heap: one step of the placement policy.
///
/// Sizes are chunk sizes in bytes, size word included; addresses are chunk addresses (user address minus 16).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "fields are explained with their variant")]
pub enum HeapEvent {
    /// The break moved up from `from` to `to` for a growth of the main arena; `rule` says why the bins did not serve.
    Brk { from: Addr, to: Addr, rule: GrowthRule },
    /// The break moved down from `from` to `to`: the top's free pages went back to the system.
    Trim { from: Addr, to: Addr },
    /// Whole free pages inside the heap were returned with `MADV_DONTNEED` by `malloc_trim`.
    Release { addr: Addr, len_bytes: u64 },
    /// A chunk with a mapping of its own was made.
    ChunkMap { addr: Addr, len_bytes: u64 },
    /// A chunk's own mapping was given back.
    ChunkUnmap { addr: Addr, len_bytes: u64 },
    /// A chunk's own mapping was resized; the new place follows as [`HeapEvent::ChunkRemapTo`].
    ChunkRemapFrom { addr: Addr, len_bytes: u64 },
    /// Where the mapping of the preceding [`HeapEvent::ChunkRemapFrom`] is now.
    ChunkRemapTo { addr: Addr, len_bytes: u64 },
    /// A free chunk (or the top) at `addr` was cut into `front_bytes`, handed out, and `rest_bytes`, still free.
    Split { addr: Addr, front_bytes: u64, rest_bytes: u64, from_top: bool },
    /// A freed chunk merged with free neighbours: the result starts at `addr`, `total_bytes` long, of which
    /// `freed_bytes` came from the chunk that was freed. With [`Merged::top`] the result is the new top.
    Coalesce { addr: Addr, freed_bytes: u64, total_bytes: u64, merged: Merged },
    /// A free chunk was put into a bin, or by the heap itself into the thread's cache. What the program frees into a
    /// cache has no step: a freed chunk that no other step names is there.
    Bin { addr: Addr, size_bytes: u64, bin: BinKind, index: u8 },
    /// A thread's cache came into being: its bookkeeping is the chunk at `addr`.
    CacheBirth { addr: Addr, size_bytes: u64 },
    /// A thread's cache gave its chunks back (thread exit): `chunks` of them, `size_bytes` in sum.
    TcacheFlush { chunks: u32, size_bytes: u64 },
    /// The fast bins were emptied into the unsorted bin: `chunks` of them, `size_bytes` in sum.
    Consolidate { chunks: u32, size_bytes: u64 },
    /// An arena was made; its first heap starts at `addr`.
    ArenaBirth { addr: Addr },
    /// The last thread of an arena ended; the arena waits on the free list.
    ArenaIdle,
    /// A thread was attached to an existing arena.
    ArenaAttach,
    /// A sub-heap of a thread arena was mapped: `len_bytes` of it usable.
    HeapBirth { addr: Addr, len_bytes: u64 },
    /// A sub-heap grew or shrank to `len_bytes`.
    HeapResize { addr: Addr, len_bytes: u64, rule: GrowthRule },
    /// A sub-heap was unmapped.
    HeapDeath { addr: Addr, len_bytes: u64 },
    /// The dynamic mmap threshold moved to `bytes` because an mmapped chunk of that size was freed.
    Threshold { mmap_bytes: u64 },
}

/// One event, typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "fields are explained with their variant")]
pub enum Event {
    /// The program obtained a block. `slack_bytes` is usable minus requested size. `arena_seq` is the number that the
    /// allocation took in the order of its arena's steps; `None`: no arena was entered, because a thread's cache or a
    /// mapping of its own served it, or the allocator has no such order.
    Alloc { addr: Addr, size_bytes: u64, slack_bytes: u16, arena: ArenaId, arena_seq: Option<u16>, call: Call },
    /// The steps that led to an allocation, the first of them the `seq`th of `arena`, and [`Event::Alloc`], which took the
    /// number after them and is as large as its chunk allows: told by one record, stamped under the arena's lock.
    AllocAfter { addr: Addr, size_bytes: u64, arena: ArenaId, seq: u16, call: Call, led_to: LedTo },
    /// A call for memory failed.
    AllocFailed { size_bytes: u64, call: Call },
    /// The program gave a block back.
    Free { addr: Addr, call: Call },
    /// [`Event::Free`] and the steps by which `arena` then put the chunk away, the first of them its `seq`th: told by one
    /// record, stamped under the arena's lock. The stack is that of the steps.
    FreeBinned { addr: Addr, call: Call, arena: ArenaId, seq: u16, put_away: PutAway },
    /// A merge, the `seq`th step of `arena`, and the next one, by which the result went to a bin.
    MergeBinned { arena: ArenaId, seq: u16, merging: MergeBinned },
    /// Steps of [`BinKind::Cache`], one after another from the `seq`th of `arena` on, of chunks of one size; address 0: none.
    CacheFill { arena: ArenaId, seq: u16, size_bytes: u64, chunks: [Addr; MOST_FILLED] },
    /// A `realloc` of `addr` begins: the block counts as given back until the matching [`Event::Alloc`] of the same
    /// thread, or [`Event::ReallocUndo`], arrives.
    ReallocBegin { addr: Addr },
    /// The `realloc` failed or kept the block as it was; the block that the last [`Event::ReallocBegin`] named lives on.
    ReallocUndo { addr: Addr },
    /// A step of the heap's own.
    Heap { arena: ArenaId, seq: u16, step: HeapEvent },
    /// The program called `mmap`: `text_bytes` of path follow (none: anonymous).
    ProgramMap { addr: Addr, len_bytes: u64, protection: Protection, shared: bool, text_bytes: u16 },
    /// The program called `munmap`.
    ProgramUnmap { addr: Addr, len_bytes: u64 },
    /// The program called `mremap`; [`Event::ProgramRemapTo`] follows.
    ProgramRemapFrom { addr: Addr, len_bytes: u64 },
    /// Where the mapping of the preceding [`Event::ProgramRemapFrom`] is now; without one, that the preceding
    /// [`Event::ProgramUnmap`] of this range failed.
    ProgramRemapTo { addr: Addr, len_bytes: u64 },
    /// The program called `madvise`, `mlock` or `munlock` on a range.
    ProgramAdvise { addr: Addr, len_bytes: u64, advice: Advice },
    /// The program itself moved the break with `brk` or `sbrk`.
    ProgramBrk { from: Addr, to: Addr },
    /// The program asked something of the heap besides a block; stamped before it is done. The steps that it leads to
    /// follow in the same thread.
    HeapCall { call: HeapCall, argument: i32, value: u64 },
    /// A thread's first event. `text_bytes` of thread name follow.
    ThreadStart { tid: u32, text_bytes: u16 },
    /// A thread's last event.
    ThreadExit,
    /// The process is about to fork. The child says hello with the same `fork_serial` in its segment's header.
    Fork { fork_serial: u32 },
    /// The process is about to be replaced by another program; `text_bytes` of its path follow.
    Exec { text_bytes: u16 },
    /// The exec failed; the process goes on.
    ExecFailed,
    /// The process is about to end in an orderly way with `status`.
    Exit { status: i32 },
    /// A module is in use from here on: `bias` is its load bias, `[start, end)` its executable range;
    /// `text_bytes` follow: one byte of build-id length, the build-id, the path. Two records: see [`Event::ModuleRange`].
    Module { bias: Addr, serial: u16, text_bytes: u16 },
    /// The address range of the module that the preceding [`Event::Module`] named.
    ModuleRange { start: Addr, len_bytes: u64, serial: u16 },
    /// `dlclose` unmapped modules; stacks captured from here on belong to stack generation `generation`.
    ModulesClosed { generation: u32 },
    /// A mark that the program or the user set; `text_bytes` follow.
    Marker { text_bytes: u16 },
    /// `count` events of this thread could not be recorded.
    Lost { count: u64, reason: LossReason },
    /// The program gave `addr` to a free or a realloc, and that was refused: nothing was freed. The stack is the call's.
    Fault { addr: Addr, kind: FaultKind },
    /// 24 bytes of the text that an earlier record announced.
    Text { bytes: [u8; TEXT_BYTES] },
}

/// An event with what every record carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamped {
    /// When it happened.
    pub stamp: Stamp,
    /// The call stack that caused it, or [`StackId::NONE`].
    pub stack: StackId,
    /// What happened.
    pub event: Event,
}
