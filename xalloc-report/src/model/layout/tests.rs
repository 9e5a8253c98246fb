//! The layout against the heap's own walk, on the simulated heap.

use std::collections::BTreeMap;

use xalloc_core::heap::sim::Simulation;
use xalloc_core::heap::{Allocation, Class, Policy, Reallocated, Tunables};
use xalloc_core::units::{Addr, ArenaId, PAGE_BYTES};
use xalloc_core::wire::{Call, HeapEvent};

use super::*;

/// Where the simulator's mappings begin; the break is below.
const MAPS_START: u64 = 0x4000_0000_0000;

/// Numbers that look random.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A simulated process and the layout that is told what it does.
struct Pair {
    heap: Simulation,
    layout: Layout,
    live: Vec<(u32, Block)>,
    free_slots: Vec<u32>,
    slots: u32,
    seq: u64,
}

impl Pair {
    fn new(policy: &Policy, libc: &str, tunables: &Tunables) -> Pair {
        let mut contents = Contents::default();
        contents.recording.libc = libc.to_owned();
        Pair {
            heap: Simulation::new(policy, tunables, 2),
            layout: Layout::of(&contents),
            live: Vec::new(),
            free_slots: Vec::new(),
            slots: 0,
            seq: 0,
        }
    }

    fn tell(&mut self, thread: usize, event: Event<'_>) {
        let thread = ThreadIndex(thread as u32);
        self.layout.entry(Entry { seq: self.seq, at_ns: self.seq * 1000, thread, stack: StackIndex::NONE, event });
        self.seq += 1;
    }

    fn tell_steps(&mut self, thread: usize, steps: Vec<(ArenaId, HeapEvent)>) {
        for (arena, step) in steps {
            self.tell(thread, Event::Heap { arena, seq: 0, step });
        }
    }

    fn tell_alloc(&mut self, thread: usize, made: Allocation, size_bytes: u64, call: Call) {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        let block = Block {
            addr: made.addr.0,
            size_bytes,
            at_ns: 0,
            stack: StackIndex::NONE,
            thread: ThreadIndex(thread as u32),
            nth_of_thread: 0,
            slack_bytes: (made.usable_bytes - size_bytes) as u16,
            arena: made.arena,
            call,
        };
        self.tell(thread, Event::Alloc { slot, block: &block, arena_seq: None });
        self.live.push((slot, block));
    }

    fn allocate(&mut self, thread: usize, size_bytes: u64, align: u64) {
        let mut steps = Vec::new();
        let mut sink = |arena: ArenaId, _: u16, step: HeapEvent| steps.push((arena, step));
        let made = match align {
            0 => self.heap.malloc(thread, &mut sink, size_bytes),
            1 => self.heap.calloc(thread, &mut sink, 1, size_bytes),
            _ => self.heap.memalign(thread, &mut sink, align, size_bytes).ok(),
        };
        self.tell_steps(thread, steps);
        if let Some(made) = made {
            self.tell_alloc(thread, made, size_bytes, Call::Malloc);
        }
    }

    fn free(&mut self, thread: usize, at: usize) {
        let (slot, block) = self.live.swap_remove(at);
        self.tell(thread, Event::Free { slot, block: &block });
        self.free_slots.push(slot);
        let mut steps = Vec::new();
        let mut sink = |arena: ArenaId, _: u16, step: HeapEvent| steps.push((arena, step));
        self.heap.free(thread, &mut sink, Addr(block.addr)).expect("the block is live");
        self.tell_steps(thread, steps);
    }

    fn reallocate(&mut self, thread: usize, at: usize, size_bytes: u64) {
        let (slot, block) = self.live.swap_remove(at);
        self.tell(thread, Event::ReallocBegin { slot, block: &block });
        let mut steps = Vec::new();
        let mut sink = |arena: ArenaId, _: u16, step: HeapEvent| steps.push((arena, step));
        let outcome = self.heap.realloc(thread, &mut sink, Addr(block.addr), size_bytes).expect("the block is live");
        self.tell_steps(thread, steps);
        match outcome {
            Reallocated::InPlace(made) | Reallocated::Moved(made) => {
                self.free_slots.push(slot);
                self.tell_alloc(thread, made, size_bytes, Call::Realloc);
            }
            Reallocated::Freed | Reallocated::Failed => {
                self.tell(thread, Event::ReallocUndo { slot, block: &block });
                self.live.push((slot, block));
            }
        }
    }

    fn other(&mut self, thread: usize, call: impl FnOnce(&mut Simulation, &mut dyn FnMut(ArenaId, HeapEvent))) {
        let mut steps = Vec::new();
        call(&mut self.heap, &mut |arena, step| steps.push((arena, step)));
        self.tell_steps(thread, steps);
    }

    /// Compares chunk for chunk.
    fn compare(&mut self, what: &str) {
        let mut walked = BTreeMap::new();
        self.heap
            .walk(|span| {
                walked.insert(span.addr.0, (span.size_bytes, span.class));
                true
            })
            .expect("the heap can be walked");
        let mut laid = BTreeMap::new();
        self.layout.spans(|span| {
            if span.range.kind == RangeKind::Mapped {
                return;
            }
            let class = match span.place {
                Place::Live(_) | Place::Bookkeeping => Class::Live,
                Place::Handed => panic!("{what}: nothing is under way, yet {span:x?}"),
                Place::Cached(_) => Class::Cached,
                Place::Fast(_) => Class::Fast,
                Place::Binned(_) => Class::Binned,
                Place::Top => Class::Top,
                Place::Header | Place::Fence => Class::Metadata,
            };
            laid.insert(span.addr, (span.size_bytes, class));
        });
        for (addr, span) in &walked {
            assert_eq!(laid.get(addr), Some(span), "{what}: at {addr:#x} the heap has {span:?}");
        }
        assert_eq!(laid.len(), walked.len(), "{what}");
        let books = self.layout.books().unwrap_or_else(|imbalance| panic!("{what}: {imbalance}"));
        let info = self.heap.mallinfo2();
        // glibc counts what others put between two moves of the break as the arena's.
        let pieces: Vec<_> = self
            .layout
            .ranges
            .iter()
            .filter(|range| range.kind == RangeKind::Main && range.start < MAPS_START)
            .collect();
        let foreign_bytes: u64 = pieces.windows(2).map(|pair| pair[1].start - pair[0].end).sum();
        assert_eq!(books.segments_bytes + foreign_bytes, info.arena + info.hblkhd, "{what}");
        assert_eq!(books.bin_free_bytes + books.fastbin_bytes + books.top_bytes, info.fordblks, "{what}");
    }
}

/// A random program of `threads` threads, compared now and then.
fn random_program(policy: &Policy, libc: &str, seed: u64, threads: u64, tunables: &Tunables) {
    let mut rng = Rng(seed);
    let mut pair = Pair::new(policy, libc, tunables);
    let mut ids = vec![0];
    for nth in 0..6_000u64 {
        if (ids.len() as u64) < threads && rng.below(200) == 0 {
            ids.push(pair.heap.spawn());
        }
        let thread = ids[rng.below(ids.len() as u64) as usize];
        let size = match rng.below(12) {
            0..5 => rng.below(140),
            5..8 => rng.below(1_100),
            8..10 => rng.below(9_000),
            10 => 65_000 + rng.below(60_000),
            _ => rng.below(300_000),
        };
        let bias = if nth / 700 % 2 == 0 { 65 } else { 35 };
        let live = pair.live.len() as u64;
        match rng.below(100) {
            0 => pair.other(thread, |heap, tell| {
                heap.trim(thread, &mut |arena: ArenaId, _: u16, step: HeapEvent| tell(arena, step), 0);
            }),
            1..4 => pair.allocate(thread, size, 32 << rng.below(8)),
            4..9 if live > 0 => pair.reallocate(thread, rng.below(live) as usize, size.max(1)),
            9..12 => pair.allocate(thread, size, 1),
            pick if pick < bias || live == 0 => pair.allocate(thread, size, 0),
            _ => pair.free(thread, rng.below(live) as usize),
        }
        if ids.len() > 2 && rng.below(600) == 0 {
            let gone = ids.swap_remove(1 + rng.below(ids.len() as u64 - 1) as usize);
            pair.other(gone, |heap, tell| {
                heap.exit(gone, &mut |arena: ArenaId, _: u16, step: HeapEvent| tell(arena, step));
            });
        }
        if rng.below(400) == 0 {
            // Somebody else moves the break: the next growth begins a range of its own.
            pair.heap.move_break(8_192);
        }
        if nth % 50 == 49 || nth < 60 {
            pair.compare(&format!("{libc}, seed {seed}, {threads} threads, operation {nth}"));
        }
    }
}

#[test]
fn the_layout_is_the_heaps_own_chunk_for_chunk_at_any_moment_of_a_random_program() {
    for (libc, policy) in [("2.31", Policy::GLIBC_2_31), ("2.36", Policy::GLIBC_2_36), ("2.41", Policy::GLIBC_2_41)] {
        for seed in 0..4 {
            random_program(&policy, libc, seed, 1, &Tunables::NONE);
            random_program(&policy, libc, 100 + seed, 5, &Tunables::NONE);
        }
    }
}

#[test]
fn sub_heaps_that_come_and_go_are_laid_out_as_the_heap_has_them() {
    let tunables = Tunables { mmap_threshold_bytes: Some(32 << 20), arena_max: Some(3), ..Tunables::NONE };
    for seed in 0..6 {
        let mut rng = Rng(900 + seed);
        let mut pair = Pair::new(&Policy::GLIBC_2_36, "2.36", &tunables);
        let thread = pair.heap.spawn();
        let mut most = 0;
        for nth in 0..400 {
            let live = pair.live.len() as u64;
            let is_filling = nth / 60 % 2 == 0;
            if live == 0 || rng.below(100) < if is_filling { 75 } else { 20 } {
                let size = if rng.below(3) == 0 { 1 + rng.below(20 << 20) } else { rng.below(5_000) };
                pair.allocate(thread, size, 0);
            } else {
                pair.free(thread, rng.below(live) as usize);
            }
            most = most.max(pair.layout.ranges.iter().filter(|range| range.kind == RangeKind::SubHeap).count());
            pair.compare(&format!("seed {seed}, operation {nth}"));
        }
        assert!(most > 2, "the arena had {most} sub-heaps");
    }
}

#[test]
fn a_blocked_break_makes_a_range_of_its_own() {
    let mut pair = Pair::new(&Policy::GLIBC_2_36, "2.36", &Tunables::NONE);
    pair.allocate(0, 1_000, 0);
    pair.heap.block_break();
    for nth in 0..40 {
        pair.allocate(0, 100_000, 0);
        pair.compare(&format!("operation {nth}"));
    }
    assert!(pair.layout.ranges.iter().filter(|range| range.kind == RangeKind::Main).count() > 1);
}

#[test]
fn a_page_is_resident_from_its_first_use_to_its_release() {
    let mut pair = Pair::new(&Policy::GLIBC_2_36, "2.36", &Tunables::NONE);
    pair.allocate(0, 40_000, 0);
    let (top, end) = pair.layout.top(0).expect("the arena has memory");
    assert!(pair.layout.is_touched(top) && !pair.layout.is_touched(top + PAGE_BYTES));
    assert!(end - top > 64 << 10);
    pair.allocate(0, 40_000, 0);
    pair.allocate(0, 100, 0);
    assert!(pair.layout.is_touched(top + 2 * PAGE_BYTES));
    pair.free(0, 1);
    assert!(pair.layout.is_touched(top + 2 * PAGE_BYTES), "a free gives nothing back");
    pair.other(0, |heap, tell| {
        heap.trim(0, &mut |arena: ArenaId, _: u16, step: HeapEvent| tell(arena, step), 0);
    });
    assert!(!pair.layout.is_touched(top + 2 * PAGE_BYTES) && pair.layout.is_touched(top), "whole pages went back");
}
