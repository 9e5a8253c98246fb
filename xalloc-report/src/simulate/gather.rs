//! From the events of a trace to the requests that they tell of.
//!
//! An allocation is recorded after it was made and a free before, so the merged order is the order in which one thread
//! was served. Threads that share an arena can be a step apart: they are put into the arena's order ([`super::order`]), and
//! [`super::placement`] finds out whether that is all.

use rustc_hash::FxHashMap;
use xalloc_core::heap::Tunable;
use xalloc_core::units::{ArenaId, PAGE_BYTES};
use xalloc_core::wire::{Call, GrowthRule, HeapCall, HeapEvent};

use super::order::{Obtained, Order, Waiting};
use super::requests::{Kind, Placed, Request, Requests};
use super::touched::Watcher;
use crate::model::Recorded;
use crate::trace::{Block, Entry, Event, ProcessEvent, ProcessIndex, ProgramEvent, Replay, ThreadIndex};

/// Time is told to the requests in steps of at least this.
const TICK_NS: u64 = 100_000;

/// A request that the heap itself fails is smaller than the largest dynamic mmap threshold (placement policy, section
/// 1); larger ones fail because the machine has no more.
const FAILED_BY_HEAP: u64 = 32 << 20;

/// Why the requests of a process cannot be served again.
#[derive(thiserror::Error, Debug)]
pub enum GatherError<E: std::error::Error + 'static> {
    /// The trace cannot be read.
    #[error(transparent)]
    Unreadable(#[from] E),
    /// The heap of a forked process begins as a copy of its parent's.
    #[error("process {pid} began as a fork, with its parent's heap: its own requests do not say what that held")]
    Forked {
        /// Its process id.
        pid: u32,
    },
    /// Threads are numbered with 16 bits.
    #[error("the process had more than {} threads", u16::MAX)]
    TooManyThreads,
}

/// Reads the requests of a process.
///
/// # Errors
/// When the trace cannot be read, or the process's heap did not begin empty.
pub fn gather<R: Recorded>(recorded: &R, process: ProcessIndex) -> Result<Requests, GatherError<R::Error>> {
    let mut main = None;
    if let Some(found) = recorded.contents().processes.get(process.0 as usize) {
        if found.forked {
            return Err(GatherError::Forked { pid: found.pid });
        }
        let is_main = |thread: &crate::trace::Thread| thread.process == process && thread.tid == found.pid;
        main = recorded.contents().threads.iter().position(is_main).map(|at| ThreadIndex(at as u32));
    }
    let looks = recorded.snapshots(process)?;
    let mut gatherer = Gatherer::of(main, Watcher::of(looks));
    recorded.replay(process, &mut gatherer)?;
    if gatherer.has_too_many_threads {
        return Err(GatherError::TooManyThreads);
    }
    let Gatherer { mut requests, watcher, order, .. } = gatherer;
    order.finish(&mut requests, watcher.finish());
    Ok(requests)
}

/// A thread of the recording.
#[derive(Clone, Copy)]
struct Running {
    number: u16,
    has_ended: bool,
    /// Alignment that its next allocation asks for.
    align: u64,
    /// The slot of the block that it is changing.
    realloc_of: Option<u32>,
    /// The first step of that change, if there was one: where it grows or shrinks in its place, that is all the arena says.
    realloc_step: Option<(ArenaId, u64)>,
    /// The slot of the block whose change has just failed.
    undone: Option<u32>,
}

struct Gatherer {
    requests: Requests,
    order: Order,
    /// Allocations so far, in the merged order.
    allocations: u32,
    watcher: Watcher,
    threads: FxHashMap<ThreadIndex, Running>,
    main: Option<ThreadIndex>,
    /// When time was told last; `None`: nothing has happened yet.
    ticked_ns: Option<u64>,
    has_too_many_threads: bool,
}

impl Gatherer {
    fn of(main: Option<ThreadIndex>, watcher: Watcher) -> Gatherer {
        let requests = Requests { threads: 1, ..Requests::default() };
        Gatherer {
            requests,
            order: Order::default(),
            allocations: 0,
            watcher,
            threads: FxHashMap::default(),
            main,
            ticked_ns: None,
            has_too_many_threads: false,
        }
    }

    fn push(&mut self, kind: Kind, thread: u16, slot: u32, size: u64) {
        self.wait(Waiting::plain(Request { size, slot, thread, kind, align_log2: 0 }));
    }

    fn wait(&mut self, waiting: Waiting) {
        self.order.push(waiting, &mut self.requests);
    }

    /// The thread of an event, begun if this is its first.
    fn thread(&mut self, index: ThreadIndex) -> &mut Running {
        // A trace without the main thread's own number has its first thread as the main one.
        let main = *self.main.get_or_insert(index);
        let Gatherer { requests, order, has_too_many_threads: overflow, .. } = self;
        self.threads.entry(index).or_insert_with(|| {
            let mut number = 0;
            if index != main {
                number = requests.threads;
                *overflow |= number == u16::MAX;
                requests.threads = number.saturating_add(1);
                order.share();
                let start = Request { size: 0, slot: 0, thread: number, kind: Kind::Start, align_log2: 0 };
                order.push(Waiting::plain(start), requests);
            }
            Running { number, has_ended: false, align: 0, realloc_of: None, realloc_step: None, undone: None }
        })
    }

    fn tick(&mut self, at_ns: u64) {
        self.requests.to_ns = at_ns;
        let is_due = self.ticked_ns.is_none_or(|ticked_ns| at_ns >= ticked_ns.saturating_add(TICK_NS));
        if is_due {
            if self.ticked_ns.is_none() {
                self.requests.from_ns = at_ns;
            }
            self.ticked_ns = Some(at_ns);
            self.push(Kind::Tick, 0, 0, at_ns);
        }
    }

    fn alloc(&mut self, index: ThreadIndex, slot: u32, block: &Block, arena_seq: Option<u16>) {
        let thread = self.thread(index);
        let number = thread.number;
        let align = std::mem::take(&mut thread.align);
        let realloc_of = thread.realloc_of.take();
        let realloc_step = thread.realloc_step.take();
        let mut align_log2 = 0;
        let mut size = block.size_bytes;
        let kind = match block.call {
            Call::Calloc => Kind::Calloc,
            Call::Realloc | Call::Reallocarray if realloc_of.is_some() => Kind::Realloc,
            Call::Valloc | Call::Pvalloc => {
                align_log2 = PAGE_BYTES.trailing_zeros() as u8;
                if block.call == Call::Pvalloc {
                    size = size.checked_next_multiple_of(PAGE_BYTES).unwrap_or(size);
                }
                Kind::Memalign
            }
            Call::Memalign | Call::AlignedAlloc | Call::PosixMemalign if align > 0 => {
                align_log2 = align.checked_next_power_of_two().map_or(63, u64::trailing_zeros) as u8;
                Kind::Memalign
            }
            Call::Malloc
            | Call::Realloc
            | Call::Reallocarray
            | Call::Memalign
            | Call::AlignedAlloc
            | Call::PosixMemalign
            | Call::Free
            | Call::FreeSized
            | Call::FreeAlignedSized
            | Call::GlobalAlloc => Kind::Malloc,
        };
        let names = realloc_of.filter(|_| kind == Kind::Realloc).map(|slot| Request {
            size: 0,
            slot,
            thread: number,
            kind: Kind::ReallocOf,
            align_log2: 0,
        });
        self.watcher.made(self.allocations, slot, block);
        self.requests.slots = self.requests.slots.max(slot.saturating_add(1));
        let slack_bytes = block.size_bytes.saturating_add(block.slack_bytes.into()).saturating_sub(size);
        let placed = Placed::new(block.addr, slack_bytes as u16);
        let obtained = Obtained { placed, stack: block.stack, number: self.allocations };
        self.allocations += 1;
        let own = match names {
            Some(names) if names.slot == slot => slot,
            Some(_) | None => self.order.slot_for(slot),
        };
        let request = Request { size, slot: own, thread: number, kind, align_log2 };
        let served = realloc_step.or(arena_seq.map(|seq| (block.arena, self.order.widen(block.arena, seq))));
        self.wait(Waiting { names, request, obtained: Some(obtained), served });
    }

    fn alloc_failed(&mut self, index: ThreadIndex, size: u64) {
        let thread = self.thread(index);
        let number = thread.number;
        let align_log2 = std::mem::take(&mut thread.align).checked_next_power_of_two().map_or(63, u64::trailing_zeros);
        let undone = thread.undone.take();
        if size >= FAILED_BY_HEAP {
            self.requests.failed += 1;
            return;
        }
        let kind = match undone {
            Some(_) => Kind::ReallocFailed,
            None => Kind::Failed,
        };
        let names = undone.map(|slot| Request { size: 0, slot, thread: number, kind: Kind::ReallocOf, align_log2: 0 });
        let request = Request { size, slot: 0, thread: number, kind, align_log2: align_log2 as u8 };
        self.wait(Waiting { names, ..Waiting::plain(request) });
    }

    fn heap_call(&mut self, index: ThreadIndex, call: HeapCall, argument: i32, value: u64) {
        let thread = self.thread(index);
        let number = thread.number;
        match call {
            HeapCall::Aligned => thread.align = value,
            HeapCall::MallocTrim => self.push(Kind::Trim, number, 0, value),
            HeapCall::Mallopt => self.push(Kind::Mallopt, number, argument as u32, value),
            HeapCall::Ignore | HeapCall::Copied | HeapCall::Passed => {}
            HeapCall::Tunable => {
                let known = usize::try_from(argument).ok().and_then(|at| Tunable::ALL.get(at));
                if let Some(&tunable) = known {
                    self.requests.tunables.set(tunable, value);
                }
            }
        }
    }

    fn end(&mut self, index: ThreadIndex) {
        let thread = self.thread(index);
        if !std::mem::replace(&mut thread.has_ended, true) {
            let number = thread.number;
            self.push(Kind::Exit, number, 0, 0);
        }
    }
}

impl Replay for Gatherer {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        self.tick(entry.at_ns);
        self.watcher.tick(entry.at_ns);
        let index = entry.thread;
        match entry.event {
            Event::Alloc { slot, block, arena_seq } => self.alloc(index, slot, block, arena_seq),
            Event::Free { slot, block } => {
                self.watcher.gone(slot, block);
                let thread = self.thread(index).number;
                let slot = self.order.slot_of(slot);
                self.push(Kind::Free, thread, slot, 0);
            }
            Event::ReallocBegin { slot, block } => {
                self.watcher.gone(slot, block);
                let slot = self.order.slot_of(slot);
                self.order.hold(slot);
                let thread = self.thread(index);
                thread.realloc_of = Some(slot);
                thread.realloc_step = None;
            }
            Event::ReallocUndo { slot, .. } => {
                let thread = self.thread(index);
                let was = thread.realloc_of.take();
                thread.undone = was;
                self.order.stays(slot, was);
            }
            Event::AllocFailed { size_bytes, .. } => self.alloc_failed(index, size_bytes),
            Event::FreeUnknown { .. } => self.requests.unknown_frees += 1,
            Event::HeapCall { call, argument, value } => self.heap_call(index, call, argument, value),
            Event::Program(ProgramEvent::Brk { from, to }) => {
                self.requests.break_base.get_or_insert(from);
                let thread = self.thread(index).number;
                self.push(Kind::Break, thread, 0, to.wrapping_sub(from));
            }
            Event::Process(ProcessEvent::ThreadStart) => {
                self.thread(index);
            }
            // The flush is the end as the heap sees it; other threads may be served before the thread says goodbye.
            Event::Heap { step: HeapEvent::TcacheFlush { .. }, .. } | Event::Process(ProcessEvent::ThreadExit) => {
                self.end(index)
            }
            Event::Heap { step: HeapEvent::Brk { from, rule: GrowthRule::First, .. }, .. } => {
                self.requests.break_base.get_or_insert(from.0);
            }
            Event::Lost { events, .. } => self.requests.lost += events,
            Event::Heap { arena, seq, .. } if self.requests.threads > 1 => {
                let served = self.order.widen(arena, seq);
                let thread = self.thread(index);
                let number = thread.number;
                if thread.realloc_of.is_some() {
                    thread.realloc_step.get_or_insert((arena, served));
                } else {
                    self.order.step(number, arena, served);
                }
            }
            Event::Heap { .. } | Event::Program(_) | Event::Process(_) | Event::Fault { .. } | Event::Marker { .. } => {
            }
        }
    }
}
