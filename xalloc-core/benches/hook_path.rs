//! What one event costs the recorded program: a push into the ring, a stack in the trie.
//!
//! Run with `cargo bench -p xalloc-core`. The figures are single-threaded and warm: a floor, to see a regression by.
//!
//! # Safety
//! Each ring here has one producer and one consumer, over a number of slots that is a power of two.
#![allow(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro defines an undocumented function")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use xalloc_core::intern::{Counters, FrameWord, Node, Trie};
use xalloc_core::primitive::AtomicU32;
use xalloc_core::ring::{Consumer, Indices, Producer, Slot};
use xalloc_core::units::{Addr, ArenaId, StackId, Stamp};
use xalloc_core::wire::{Call, Event, Record, Stamped};

/// Slots of the largest rings of a segment: 1 MiB of records.
const SLOTS: usize = (1 << 20) / size_of::<Record>();
/// Records between two visits of the consumer: a quarter of the ring.
const BATCH: usize = SLOTS / 4;

fn allocation(number: u64) -> Stamped {
    let event = Event::Alloc {
        addr: Addr(0x5555_0000_0000 + number * 64),
        size_bytes: 48,
        slack_bytes: 8,
        arena: ArenaId::MAIN,
        arena_seq: Some(number as u16),
        call: Call::Malloc,
    };
    Stamped { stamp: Stamp(number), stack: StackId(7), event }
}

fn ring(c: &mut Criterion) {
    let indices = Indices::new();
    let slots: Vec<Slot> = (0..SLOTS).map(|_| Slot::empty()).collect();
    // SAFETY: the only producer of this ring; SLOTS is a power of two.
    let mut producer = unsafe { Producer::new(&indices, &slots) };
    // SAFETY: the only consumer of this ring; SLOTS is a power of two.
    let mut consumer = unsafe { Consumer::new(&indices, &slots) };

    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("encode and push", |b| {
        b.iter(|| {
            for number in 0..BATCH as u64 {
                producer.push_one(allocation(black_box(number)).encode()).expect("drained after each batch");
            }
            let _ = consumer.release(BATCH);
        });
    });
    group.bench_function("push and pop", |b| {
        let record = allocation(1).encode();
        b.iter(|| {
            for _ in 0..BATCH {
                producer.push_one(black_box(record)).expect("drained after each batch");
            }
            let available = consumer.available();
            let mut sum = 0;
            for ahead in 0..available {
                sum ^= consumer.peek(ahead).a;
            }
            let _ = consumer.release(available);
            sum
        });
    });
    group.bench_function("decode", |b| {
        let records: Vec<Record> = (0..BATCH as u64).map(|number| allocation(number).encode()).collect();
        b.iter(|| records.iter().filter(|record| black_box(record).decode().is_some()).count());
    });
    group.finish();
}

/// Frames of a stack, about what a call of `malloc` in a C++ program has.
const DEPTH: u64 = 16;
/// Distinct innermost frames; the callers are common to all.
const STACKS: u64 = 1 << 12;

struct Memory {
    counters: Counters,
    nodes: Vec<Node>,
    levels: [Vec<AtomicU32>; 2],
}

impl Memory {
    fn new() -> Memory {
        let level = |entries: usize| (0..entries).map(|_| AtomicU32::new(0)).collect();
        Memory {
            counters: Counters::new(),
            nodes: (0..1 << 14).map(|_| Node::empty()).collect(),
            levels: [level(1 << 14), level(1 << 17)],
        }
    }

    fn insert_all(&self) -> StackId {
        let levels = [self.levels[0].as_slice(), self.levels[1].as_slice()];
        let trie = Trie::new(&self.counters, &self.nodes, &levels);
        let mut last = StackId::NONE;
        for stack in 0..STACKS {
            last = StackId::NONE;
            for frame in 0..DEPTH - 1 {
                last = trie.insert(last, FrameWord::return_address(0x40_0000 + frame * 64));
            }
            last = trie.insert(last, FrameWord::return_address(0x50_0000 + stack * 16));
        }
        last
    }
}

fn interner(c: &mut Criterion) {
    let mut group = c.benchmark_group("interner");
    group.throughput(Throughput::Elements(STACKS));
    group.bench_function("stack of 16 frames, known", |b| {
        let memory = Memory::new();
        memory.insert_all();
        b.iter(|| memory.insert_all());
    });
    group.bench_function("stack of 16 frames, innermost new", |b| {
        b.iter_batched_ref(Memory::new, |memory| memory.insert_all(), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, ring, interner);
criterion_main!(benches);
