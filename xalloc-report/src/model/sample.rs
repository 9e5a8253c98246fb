//! Recordings made by hand, for the tests of this and the higher rooms.

use std::convert::Infallible;

use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::{BinKind, Call, GrowthRule, HeapEvent, Merged, Protection};

use super::Recorded;
use crate::trace::{
    Allocator, Block, Checked, Contents, Disguise, End, Entry, Event, Finding, Frame, FrameIndex, Function, Hint,
    Holder, Inheritance, LeakClass, Module, ModuleIndex, Occasion, Process, ProcessEvent, ProcessIndex, ProgramEvent,
    Recording, Repairs, Replay, Scan, ScanOutcome, Snapshot, StackIndex, StackNode, Thread, ThreadIndex, Waits,
};

pub(crate) mod simulated;
mod written;

/// A recording in memory.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) contents: Contents,
    pub(crate) streams: Vec<Stream>,
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Recorded for Sample {
    type Error = Infallible;

    fn contents(&self) -> &Contents {
        &self.contents
    }

    fn events(&self, process: ProcessIndex) -> u64 {
        self.streams[process.0 as usize].entries.len() as u64
    }

    fn replay(&self, process: ProcessIndex, to: &mut impl Replay) -> Result<(), Infallible> {
        let stream = &self.streams[process.0 as usize];
        for (slot, block) in &stream.inherited {
            to.inherited(*slot, block);
        }
        for entry in &stream.entries {
            to.entry(*entry);
        }
        Ok(())
    }

    fn inheritance(&self, process: ProcessIndex) -> Result<Inheritance, Infallible> {
        let blocks = self.streams[process.0 as usize].inherited.len() as u64;
        Ok(Inheritance { allocations: blocks, live: blocks })
    }

    fn snapshots(&self, process: ProcessIndex) -> Result<Vec<Snapshot>, Infallible> {
        Ok(self.snapshots.iter().filter(|snapshot| snapshot.process == process).cloned().collect())
    }
}

impl Sample {
    /// Adds a process with `threads` threads and its stream.
    pub(crate) fn process(&mut self, pid: u32, exe: &str, threads: &[&str], stream: Stream) -> ProcessIndex {
        let process = ProcessIndex(self.contents.processes.len() as u32);
        for (nth, name) in threads.iter().enumerate() {
            self.contents.threads.push(Thread {
                process,
                tid: pid + nth as u32,
                name: (*name).to_owned(),
                started_at_ns: 0,
                ended_at_ns: None,
            });
        }
        self.contents.processes.push(Process {
            pid,
            parent: None,
            forked: false,
            exe: exe.into(),
            command: vec![exe.to_owned()],
            started_at_ns: 0,
            ended_at_ns: stream.now_ns,
            end: End::Exited(0),
            allocator: Allocator::Core,
            events: stream.entries.len() as u64,
            losses: Vec::new(),
            repairs: Repairs::default(),
            waits: Waits::default(),
        });
        self.streams.push(stream);
        process
    }

    /// The call stack of the first process's first block of this size.
    pub(crate) fn stack_of(&self, size_bytes: u64) -> StackIndex {
        let found = self.streams[0].entries.iter().find_map(|entry| {
            let Event::Alloc { block, .. } = entry.event else { return None };
            (block.size_bytes == size_bytes).then_some(block.stack)
        });
        found.expect("the sample has a block of this size")
    }

    /// Adds a code location and returns it.
    pub(crate) fn frame(&mut self, module: &str, address: u64, functions: &[(&str, &str, u32)]) -> FrameIndex {
        let module = match self.contents.modules.iter().position(|known| known.path.as_os_str() == module) {
            Some(place) => place,
            None => {
                self.contents.modules.push(Module { path: module.into(), build_id: Vec::new() });
                self.contents.modules.len() - 1
            }
        };
        let functions = functions
            .iter()
            .enumerate()
            .map(|(nth, (name, file, line))| Function {
                name: (*name).to_owned(),
                file: (!file.is_empty()).then(|| file.into()),
                line: (*line > 0).then_some(*line),
                inlined: nth + 1 < functions.len(),
            })
            .collect();
        self.contents.frames.push(Frame { module: Some(ModuleIndex(module as u32)), address, functions, jumped: None });
        FrameIndex(self.contents.frames.len() as u32 - 1)
    }

    /// Adds the stack of these frames, outermost first.
    pub(crate) fn stack(&mut self, frames: &[FrameIndex]) -> StackIndex {
        if self.contents.stacks.is_empty() {
            self.contents.stacks = vec![StackNode { parent: StackIndex::NONE, frame: None }; 2];
        }
        frames.iter().fold(StackIndex::NONE, |parent, &frame| {
            let node = StackNode { parent, frame: Some(frame) };
            let known = self.contents.stacks.iter().skip(2).position(|&other| other == node);
            StackIndex(known.map_or_else(
                || {
                    self.contents.stacks.push(node);
                    self.contents.stacks.len() as u32 - 1
                },
                |place| place as u32 + 2,
            ))
        })
    }
}

/// The events of one process, written by calling what the program calls.
///
/// Blocks live as long as the test run: entries borrow them, and tests are short.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) now_ns: u64,
    pub(crate) entries: Vec<Entry<'static>>,
    pub(crate) inherited: Vec<(u32, &'static Block)>,
    slots: Vec<Option<&'static Block>>,
    next_nth: Vec<u32>,
    next_addr: u64,
}

impl Stream {
    pub(crate) fn push(&mut self, thread: u32, stack: StackIndex, event: Event<'static>) {
        self.entries.push(Entry {
            seq: self.entries.len() as u64,
            at_ns: self.now_ns,
            thread: ThreadIndex(thread),
            stack,
            event,
        });
    }

    pub(crate) fn after_us(&mut self, us: u64) -> &mut Stream {
        self.now_ns += us * 1000;
        self
    }

    fn block(&mut self, thread: u32, stack: StackIndex, size_bytes: u64, call: Call) -> &'static Block {
        let thread_slot = thread as usize;
        if thread_slot >= self.next_nth.len() {
            self.next_nth.resize(thread_slot + 1, 0);
        }
        let nth_of_thread = self.next_nth[thread_slot];
        self.next_nth[thread_slot] += 1;
        let usable_bytes = (size_bytes + 8).next_multiple_of(16).max(32) - 8;
        self.next_addr += usable_bytes + 8;
        Box::leak(Box::new(Block {
            addr: 0x5555_5557_9000 + self.next_addr,
            size_bytes,
            at_ns: self.now_ns,
            stack,
            thread: ThreadIndex(thread),
            nth_of_thread,
            slack_bytes: (usable_bytes - size_bytes) as u16,
            arena: ArenaId::MAIN,
            call,
        }))
    }

    pub(crate) fn alloc_by(&mut self, thread: u32, stack: StackIndex, size_bytes: u64, call: Call) -> u32 {
        let block = self.block(thread, stack, size_bytes, call);
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(block);
        self.push(thread, stack, Event::Alloc { slot: slot as u32, block, arena_seq: None });
        slot as u32
    }

    pub(crate) fn alloc(&mut self, thread: u32, stack: StackIndex, size_bytes: u64) -> u32 {
        self.alloc_by(thread, stack, size_bytes, Call::Malloc)
    }

    pub(crate) fn inherit(&mut self, stack: StackIndex, size_bytes: u64) -> u32 {
        let block = self.block(0, stack, size_bytes, Call::Malloc);
        self.slots.push(Some(block));
        let slot = self.slots.len() as u32 - 1;
        self.inherited.push((slot, block));
        slot
    }

    pub(crate) fn block_in(&self, slot: u32) -> &'static Block {
        self.slots[slot as usize].expect("the test names a live block")
    }

    pub(crate) fn free(&mut self, thread: u32, slot: u32) {
        let block = self.block_in(slot);
        self.slots[slot as usize] = None;
        self.push(thread, StackIndex::NONE, Event::Free { slot, block });
    }

    pub(crate) fn realloc_begin(&mut self, thread: u32, slot: u32) -> &'static Block {
        let block = self.block_in(slot);
        self.slots[slot as usize] = None;
        self.push(thread, StackIndex::NONE, Event::ReallocBegin { slot, block });
        block
    }

    pub(crate) fn realloc(&mut self, thread: u32, slot: u32, stack: StackIndex, size_bytes: u64) -> u32 {
        self.realloc_begin(thread, slot);
        self.alloc_by(thread, stack, size_bytes, Call::Realloc)
    }

    pub(crate) fn realloc_fails(&mut self, thread: u32, slot: u32) {
        let block = self.realloc_begin(thread, slot);
        self.slots[slot as usize] = Some(block);
        self.push(thread, StackIndex::NONE, Event::ReallocUndo { slot, block });
    }

    pub(crate) fn heap(&mut self, thread: u32, stack: StackIndex, step: HeapEvent) {
        self.push(thread, stack, Event::Heap { arena: ArenaId::MAIN, seq: 0, step });
    }

    pub(crate) fn live_slots(&self) -> Vec<u32> {
        (0..self.slots.len() as u32).filter(|&slot| self.slots[slot as usize].is_some()).collect()
    }
}

/// A small server: it leaks in `cache_insert`, makes temporary strings in `parse_header` and has a worker thread.
pub(crate) fn server() -> Sample {
    let mut sample = Sample::default();
    let start = sample.frame("/srv/app/server", 0x1100, &[("_start", "", 0)]);
    let main = sample.frame("/srv/app/server", 0x1a2b, &[("main", "/srv/app/src/main.cc", 41)]);
    let load = sample.frame("/srv/app/server", 0x2040, &[("load_config(Config&)", "/srv/app/src/config.cc", 17)]);
    let parse = sample.frame(
        "/srv/app/server",
        0x3010,
        &[
            ("copy_value(std::string_view)", "/srv/app/src/parse.h", 9),
            ("parse_header(Request&)", "/srv/app/src/parse.cc", 88),
        ],
    );
    let cache = sample.frame("/srv/app/server", 0x4000, &[("cache_insert", "/srv/app/src/cache.cc", 120)]);
    let plugin = sample.frame("/usr/lib/plugin.so", 0x77, &[]);
    let hostile = sample.frame("/srv/app/server", 0x5000, &[("<b>&\"evil\"</b>;\u{1b}[31m 12", "", 0)]);
    let new = sample.frame("/usr/lib/libstdc++.so.6", 0xa00, &[("operator new(unsigned long)", "", 0)]);
    let hook = sample.frame("/tmp/libxalloc_preload.so", 0x9, &[("malloc", "", 0)]);

    let config = sample.stack(&[start, main, load, hook]);
    let header = sample.stack(&[start, main, parse, new, hook]);
    let entry = sample.stack(&[start, main, cache, hook]);
    let vendor = sample.stack(&[start, main, plugin, hook]);
    let attack = sample.stack(&[start, main, hostile, hook]);

    let mut stream = Stream { now_ns: 120_000, ..Stream::default() };
    stream.push(0, StackIndex::NONE, Event::Process(ProcessEvent::ThreadStart));
    let top = Addr(0x5555_5557_9000);
    stream.heap(0, config, HeapEvent::Brk { from: top, to: top.up(0x21000), rule: GrowthRule::First });
    stream.heap(0, config, HeapEvent::Split { addr: top, front_bytes: 30_736, rest_bytes: 104_416, from_top: true });
    let settings = stream.alloc(0, config, 30_720);
    for round in 0..40u64 {
        let line = stream.after_us(50).alloc(0, header, 24 + round);
        stream.after_us(3).free(0, line);
        if round % 4 == 0 {
            stream.after_us(2).alloc(0, entry, 1_000);
        }
    }
    let buffer = stream.after_us(10).alloc(1, vendor, 4_096);
    let buffer = stream.after_us(10).realloc(1, buffer, vendor, 8_192);
    stream.after_us(5).realloc_fails(1, buffer);
    let probe = stream.after_us(1).alloc(1, attack, 0);
    stream.after_us(40).free(0, probe);
    stream.heap(0, StackIndex::NONE, HeapEvent::Bin { addr: top.up(64), size_bytes: 48, bin: BinKind::Fast, index: 1 });
    stream.push(
        1,
        vendor,
        Event::Program(ProgramEvent::Map {
            addr: 0x7fff_f7d0_0000,
            len_bytes: 1 << 20,
            protection: Protection { read: true, write: true, execute: false },
            shared: false,
            path: "",
        }),
    );
    stream.after_us(300).free(0, settings);
    let merged = Merged { previous: false, next: true, top: true };
    stream.heap(
        0,
        StackIndex::NONE,
        HeapEvent::Coalesce { addr: top, freed_bytes: 30_736, total_bytes: 98_304, merged },
    );
    stream.heap(0, StackIndex::NONE, HeapEvent::Trim { from: top.up(0x21000), to: top.up(0x11000) });
    stream.after_us(20).push(0, StackIndex::NONE, Event::Process(ProcessEvent::Exit { status: 0 }));
    sample.process(4242, "/srv/app/server", &["server", "worker"], stream);

    sample.contents.recording = Recording {
        command: vec!["./server".to_owned(), "--port".to_owned(), "80".to_owned()],
        started_unix_ns: 1_700_000_000_000_000_000,
        duration_ns: 3_210_000,
        tool_version: "0.1.0".to_owned(),
        host: "build-7".to_owned(),
        libc: "2.36".to_owned(),
        processors: 2,
        end: Some(End::Exited(0)),
        symbolized: true,
        sampling: None,
        salvage: None,
    };
    sample
}

/// [`server`] and a forked child of it, which frees one inherited block, keeps another and leaks one of its own.
pub(crate) fn server_with_child() -> Sample {
    let mut sample = server();
    // Node 0 and 1 are no stacks; the first leaf after them is load_config's.
    let entry = sample.streams[0].entries[2].stack;
    let mut stream = Stream { now_ns: 1_000_000, ..Stream::default() };
    let freed = stream.inherit(entry, 500);
    stream.inherit(entry, 700);
    stream.after_us(1).free(2, freed);
    stream.after_us(1).alloc(2, entry, 64);
    let child = sample.process(4250, "/srv/app/server", &["server"], stream);
    let process = &mut sample.contents.processes[child.0 as usize];
    process.parent = Some(ProcessIndex(0));
    process.forked = true;
    process.started_at_ns = 1_000_000;
    sample
}

/// [`server`], with a scan at its exit: four blocks of the cache are leaked, five reachable, one was not looked at.
pub(crate) fn checked_server() -> Sample {
    let mut sample = server();
    let is_cache = |frame: &Frame| frame.functions.iter().any(|function| function.name == "cache_insert");
    let frame = sample.contents.frames.iter().position(is_cache).expect("the server has a cache");
    let frame = Some(FrameIndex(frame as u32));
    let inner = sample.contents.stacks.iter().position(|node| node.frame == frame).expect("it has a stack");
    // The hook's own frame is the innermost of every stack.
    let stack = StackIndex(inner as u32 + 1);
    let lost = Finding {
        stack,
        call: Call::Malloc,
        class: LeakClass::Definite,
        leader: StackIndex::NONE,
        blocks: 4,
        bytes: 4_000,
        oldest_at_ns: 120_000,
        youngest_at_ns: 900_000,
        threads: vec![ThreadIndex(0)],
        held_blocks: 0,
        held_bytes: 0,
        holders: Vec::new(),
        hint: Some(Hint { disguise: Disguise::TopTagged, at_addr: 0x5555_5555_8018 }),
    };
    let held = Finding {
        class: LeakClass::Reachable,
        blocks: 5,
        bytes: 5_000,
        holders: vec![
            Holder::Block { stack, call: Call::Malloc, size_bytes: 1_000, offset_bytes: 16 },
            Holder::Root { name: "server: g_cache+0x18".to_owned() },
        ],
        hint: None,
        ..lost.clone()
    };
    let checked = Checked {
        duration_ns: 700_000,
        root_bytes: 90_000,
        unreadable_pages: 0,
        threads: 1,
        running_threads: 0,
        exit_stack: StackIndex::NONE,
        suppressions: String::new(),
        findings: vec![lost, held],
    };
    sample.contents.scans.push(Scan {
        process: ProcessIndex(0),
        at_ns: 3_000_000,
        occasion: Occasion::Exit,
        outcome: ScanOutcome::Checked(checked),
    });
    sample
}

/// A program that fragments its heap: notes on every page of what was read and given back, and a plugin above them.
pub(crate) fn fragmented() -> Sample {
    let mut program = simulated::Simulated::new();
    let (page, note) = (program.site("read_page"), program.site("keep_note"));
    let (image, plugin) = (program.site("load_image"), program.site("plugin_register"));
    let mut blocks = Vec::new();
    for _ in 0..200 {
        blocks.push(program.malloc(0, page, 4_032));
        program.malloc(0, note, 41);
    }
    blocks.extend((0..20).map(|_| program.malloc(0, page, 100_000)));
    program.malloc(0, plugin, 72);
    for block in blocks {
        program.free(0, block);
    }
    for size in [100, 100, 250, 3_000] {
        let block = program.malloc(0, note, size);
        program.free(0, block);
    }
    let worker = program.spawn("worker");
    program.malloc(worker, image, 3 << 20);
    program.finish(Allocator::Core)
}
