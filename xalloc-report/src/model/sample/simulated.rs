//! Recordings of programs that run on the simulated heap: every step is the one that the real heap makes.

use xalloc_core::heap::sim::Simulation;
use xalloc_core::heap::{Policy, Reallocated, Tunables};
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::{Call, HeapCall, HeapEvent};

use super::{Sample, Stream};
use crate::trace::{Allocator, Block, Event, StackIndex, ThreadIndex};

/// A program under way. Its call stacks are a function each, called by `main`.
pub(crate) struct Simulated {
    pub(crate) heap: Simulation,
    sample: Sample,
    stream: Stream,
    free_slots: Vec<u32>,
    slots: u32,
    threads: Vec<&'static str>,
}

/// A block of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) slot: u32,
    pub(crate) block: &'static Block,
}

impl Simulated {
    pub(crate) fn new() -> Simulated {
        Simulated::tuned(&Tunables::NONE)
    }

    pub(crate) fn tuned(tunables: &Tunables) -> Simulated {
        let mut sample = Sample::default();
        sample.contents.recording.libc = "2.36".to_owned();
        sample.contents.recording.symbolized = true;
        sample.contents.recording.command = vec!["./app".to_owned()];
        Simulated {
            heap: Simulation::new(&Policy::GLIBC_2_36, tunables, 2),
            sample,
            stream: Stream::default(),
            free_slots: Vec::new(),
            slots: 0,
            threads: vec!["app"],
        }
    }

    /// The call stack of `function`, called by `main`.
    pub(crate) fn site(&mut self, function: &str) -> StackIndex {
        let main = self.sample.frame("/srv/app", 0x1000, &[("main", "/srv/app.c", 1)]);
        let address = function.bytes().fold(0x2000, |sum: u64, byte| (sum * 31 + u64::from(byte)) & 0xff_ffff);
        let leaf = self.sample.frame("/srv/app", address, &[(function, "/srv/app.c", 7)]);
        self.sample.stack(&[main, leaf])
    }

    pub(crate) fn spawn(&mut self, name: &'static str) -> usize {
        self.threads.push(name);
        self.heap.spawn()
    }

    fn steps(&mut self, thread: usize, stack: StackIndex, steps: Vec<(ArenaId, HeapEvent)>) {
        for (arena, step) in steps {
            self.stream.push(thread as u32, stack, Event::Heap { arena, seq: 0, step });
        }
    }

    fn told(&mut self, thread: usize, stack: StackIndex, made: xalloc_core::heap::Allocation, bytes: u64) -> Own {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        let block = Box::leak(Box::new(Block {
            addr: made.addr.0,
            size_bytes: bytes,
            at_ns: self.stream.now_ns,
            stack,
            thread: ThreadIndex(thread as u32),
            nth_of_thread: 0,
            slack_bytes: (made.usable_bytes - bytes) as u16,
            arena: made.arena,
            call: Call::Malloc,
        }));
        self.stream.push(thread as u32, stack, Event::Alloc { slot, block, arena_seq: None });
        Own { slot, block }
    }

    pub(crate) fn malloc(&mut self, thread: usize, stack: StackIndex, bytes: u64) -> Own {
        self.stream.after_us(10);
        let mut steps = Vec::new();
        let mut sink = |arena: ArenaId, _: u16, step: HeapEvent| steps.push((arena, step));
        let made = self.heap.malloc(thread, &mut sink, bytes).expect("the simulated system is never short of memory");
        self.steps(thread, stack, steps);
        self.told(thread, stack, made, bytes)
    }

    pub(crate) fn mallopt(&mut self, parameter: i32, value: i32) {
        self.heap.mallopt(0, &mut |_: ArenaId, _: u16, _: HeapEvent| (), parameter, value);
        let event = Event::HeapCall { call: HeapCall::Mallopt, argument: parameter, value: value as u64 };
        self.stream.push(0, StackIndex::NONE, event);
    }

    pub(crate) fn free(&mut self, thread: usize, own: Own) {
        self.stream.after_us(10);
        self.stream.push(thread as u32, StackIndex::NONE, Event::Free { slot: own.slot, block: own.block });
        self.free_slots.push(own.slot);
        let mut steps = Vec::new();
        let mut sink = |arena: ArenaId, _: u16, step: HeapEvent| steps.push((arena, step));
        self.heap.free(thread, &mut sink, Addr(own.block.addr)).expect("the block is live");
        self.steps(thread, StackIndex::NONE, steps);
    }

    pub(crate) fn realloc(&mut self, thread: usize, stack: StackIndex, own: Own, bytes: u64) -> Own {
        self.stream.after_us(10);
        self.stream.push(thread as u32, StackIndex::NONE, Event::ReallocBegin { slot: own.slot, block: own.block });
        let mut steps = Vec::new();
        let mut sink = |arena: ArenaId, _: u16, step: HeapEvent| steps.push((arena, step));
        let outcome = self.heap.realloc(thread, &mut sink, Addr(own.block.addr), bytes).expect("the block is live");
        self.steps(thread, stack, steps);
        let (Reallocated::InPlace(made) | Reallocated::Moved(made)) = outcome else { unreachable!("{outcome:?}") };
        self.free_slots.push(own.slot);
        self.told(thread, stack, made, bytes)
    }

    /// The recording, of one process.
    pub(crate) fn finish(self, allocator: Allocator) -> Sample {
        let Simulated { mut sample, stream, threads, .. } = self;
        let process = sample.process(77, "/srv/app", &threads, stream);
        sample.contents.processes[process.0 as usize].allocator = allocator;
        sample
    }
}
