//! Encoding and decoding of traces, in events a second, on generated streams that resemble programs.
//!
//! `cargo bench -p xalloc-report --bench trace`. The sizes (bytes an event) are printed once at the start. Three
//! streams: temporaries (an interpreter: most blocks die within a few allocations), a tree (built, then torn down in
//! order), random sizes and victims on two threads (nothing to predict).

use std::hint::black_box;
use std::io;
use std::sync::{Arc, Mutex};

use criterion::{BatchSize, Criterion, Throughput};
use xalloc_core::units::{Addr, ArenaId, StackId, Stamp};
use xalloc_core::wire::{Call, Event as Wire, Stamped};
use xalloc_report::trace::{
    Allocator, Block, Contents, End, Entry, Event, Incoming, Process, ProcessIndex, Repairs, Replay, StackIndex,
    StackNode, Thread, ThreadIndex, Trace, Waits, Writer, Written,
};

const EVENTS: usize = 1 << 20;
const STACKS: u32 = 2000;

/// A program with a heap of its own: freed chunks of a size are handed out again, last in first out.
struct Program {
    events: Vec<Incoming>,
    free: Vec<Vec<u64>>,
    top: u64,
    state: u64,
    thread: u32,
}

impl Program {
    fn new() -> Program {
        Program {
            events: Vec::with_capacity(EVENTS),
            free: vec![Vec::new(); 80],
            top: 0x5555_0000_0010,
            state: 7,
            thread: 0,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    fn push(&mut self, stack: u32, event: Wire) {
        let at = self.events.len() as u64;
        self.events.push(Incoming {
            record: Stamped { stamp: Stamp(at), stack: StackId::NONE, event }.encode(),
            at_us: at / 10,
            thread: ThreadIndex(self.thread),
            stack: StackIndex(stack),
        });
    }

    /// Allocates; returns address and size class.
    fn alloc(&mut self, size_bytes: u64, stack: u32) -> (u64, usize) {
        let class = (size_bytes as usize + 8).div_ceil(16).max(2);
        let chunk_bytes = class as u64 * 16;
        let addr = self.free[class].pop().unwrap_or_else(|| {
            self.top += chunk_bytes;
            self.top - chunk_bytes
        });
        let slack_bytes = (chunk_bytes - 8 - size_bytes) as u16;
        let (arena, call) = (ArenaId::MAIN, Call::Malloc);
        self.push(stack, Wire::Alloc { addr: Addr(addr), size_bytes, slack_bytes, arena, arena_seq: None, call });
        (addr, class)
    }

    fn free(&mut self, (addr, class): (u64, usize)) {
        self.free[class].push(addr);
        self.push(0, Wire::Free { addr: Addr(addr), call: Call::Free });
    }
}

fn temporaries() -> Vec<Incoming> {
    let mut program = Program::new();
    let mut live = Vec::new();
    while program.events.len() < EVENTS {
        let kind = program.random(40);
        let block = program.alloc(16 + kind * 8, 2 + kind as u32);
        if program.random(100) < 5 {
            live.push(block);
        } else {
            program.free(block);
        }
        if live.len() > 10_000 {
            let victim = program.random(live.len() as u64) as usize;
            let victim = live.swap_remove(victim);
            program.free(victim);
        }
    }
    program.events
}

fn tree() -> Vec<Incoming> {
    let mut program = Program::new();
    while program.events.len() < EVENTS {
        let mut nodes = Vec::new();
        for _ in 0..50_000 {
            let name_bytes = 3 + program.random(30);
            nodes.push(program.alloc(48, 10));
            nodes.push(program.alloc(name_bytes, 11));
        }
        for node in nodes {
            program.free(node);
        }
    }
    program.events
}

fn random() -> Vec<Incoming> {
    let mut program = Program::new();
    let mut live = Vec::new();
    while program.events.len() < EVENTS {
        program.thread = program.random(2) as u32;
        let (size_bytes, stack) = (program.random(1000), 2 + program.random(u64::from(STACKS) - 2) as u32);
        live.push(program.alloc(size_bytes, stack));
        if live.len() > 1000 {
            let victim = program.random(live.len() as u64) as usize;
            let victim = live.swap_remove(victim);
            program.free(victim);
        }
    }
    program.events
}

fn contents() -> Contents {
    let process = ProcessIndex(0);
    let mut contents = Contents::default();
    contents.processes.push(Process {
        pid: 1,
        parent: None,
        forked: false,
        exe: "/bin/app".into(),
        command: Vec::new(),
        started_at_ns: 0,
        ended_at_ns: 0,
        end: End::Running,
        allocator: Allocator::Core,
        events: 0,
        losses: Vec::new(),
        repairs: Repairs::default(),
        waits: Waits::default(),
    });
    for tid in 1..3 {
        contents.threads.push(Thread { process, tid, name: String::new(), started_at_ns: 0, ended_at_ns: None });
    }
    contents.stacks = vec![StackNode { parent: StackIndex::NONE, frame: None }; STACKS as usize];
    contents
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode(events: &[Incoming], contents: Contents, memory: Memory) -> Written {
    let encoded = || {
        let mut writer = Writer::new(Box::new(memory), None)?;
        writer.sync_contents(&contents);
        writer.begin_process(ProcessIndex(0), None)?;
        writer.push_all(ProcessIndex(0), events)?;
        writer.finish(contents)
    };
    encoded().expect("memory takes what is written").0
}

/// Sums what is live, the least that an analysis does.
#[derive(Default)]
struct Live {
    bytes: u64,
    peak_bytes: u64,
}

impl Replay for Live {
    fn inherited(&mut self, _slot: u32, block: &Block) {
        self.bytes += block.size_bytes;
    }

    fn entry(&mut self, entry: Entry<'_>) {
        if let Event::Alloc { block, .. } = entry.event {
            self.bytes += block.size_bytes;
            self.peak_bytes = self.peak_bytes.max(self.bytes);
        } else if let Event::Free { block, .. } = entry.event {
            self.bytes -= block.size_bytes;
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, events) in [("temporaries", temporaries()), ("tree", tree()), ("random", random())] {
        let memory = Memory::default();
        let written = encode(&events, contents(), memory.clone());
        println!("{name}: {:.3} bytes an event", written.event_bytes as f64 / written.events as f64);
        let bytes = memory.0.lock().expect("no thread panicked with it").clone();
        let trace = Trace::from_bytes(bytes).expect("it was just written");
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(written.events)).sample_size(10);
        group.bench_function("encode", |bencher| {
            let start = || (contents(), Memory::default());
            bencher.iter_batched(start, |(contents, memory)| encode(&events, contents, memory), BatchSize::LargeInput);
        });
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                let mut live = Live::default();
                trace.replay(ProcessIndex(0), &mut live).expect("it was just written");
                black_box(live.peak_bytes)
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
