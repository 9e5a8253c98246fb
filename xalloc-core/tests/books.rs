//! The books of the simulated heap balance after every operation, under the rules of every release.

#[path = "placement/generate.rs"]
mod generate;
#[path = "placement/simulate.rs"]
mod simulate;
#[path = "placement/trace.rs"]
mod trace;

use std::collections::BTreeMap;

use generate::{Others, Plan, generate};
use simulate::Replay;
use trace::{Kind, Op};
use xalloc_core::heap::sim::Simulation;
use xalloc_core::heap::{Class, NoSink, Policy, Served, Tunables};
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::{BinKind, GrowthRule, HeapEvent, Merged};

const RELEASES: [(&str, Policy); 10] = [
    ("2.27", Policy::GLIBC_2_27),
    ("2.31", Policy::GLIBC_2_31),
    ("2.36", Policy::GLIBC_2_36),
    ("2.37", Policy::GLIBC_2_37),
    ("2.38", Policy::GLIBC_2_38),
    ("2.39", Policy::GLIBC_2_39),
    ("2.41", Policy::GLIBC_2_41),
    ("2.42", Policy::GLIBC_2_42),
    ("2.43", Policy::GLIBC_2_43),
    ("2.44", Policy::GLIBC_2_44),
];

/// The program's view: its blocks, none of which may touch another.
#[derive(Default)]
struct Program {
    /// End of each block, by its start.
    ends: BTreeMap<u64, u64>,
    blocks: BTreeMap<u32, Addr>,
}

impl Program {
    fn forget(&mut self, slot: u32) {
        if let Some(addr) = self.blocks.remove(&slot) {
            self.ends.remove(&addr.0);
        }
    }

    fn learn(&mut self, slot: u32, addr: Addr, usable_bytes: u64) {
        self.forget(slot);
        let end = addr.0 + usable_bytes;
        if let Some((&other, &other_end)) = self.ends.range(..end).next_back() {
            assert!(other_end <= addr.0, "block {addr:x?} of {usable_bytes} bytes overlaps that at {other:x}");
        }
        self.blocks.insert(slot, addr);
        self.ends.insert(addr.0, end);
    }
}

/// Runs a trace and checks the heap after each operation.
fn check(name: &str, policy: &Policy, ops: &[Op]) {
    let mut replay = Replay::new(policy, &Tunables::NONE);
    let mut program = Program::default();
    for (at, op) in ops.iter().enumerate() {
        let outcome = replay.step(op);
        match op.kind {
            Kind::Free => program.forget(op.slot),
            Kind::Malloc | Kind::Calloc | Kind::Memalign | Kind::Realloc => {
                let addr = replay.block(op.slot).expect("the simulated system is never short of memory");
                let wanted = op.size;
                assert!(outcome.usable >= wanted, "{name}, operation {at}: {wanted} bytes wanted, got {outcome:?}");
                assert!(op.kind != Kind::Memalign || addr.0.is_multiple_of(op.align), "{name}, operation {at}");
                program.learn(op.slot, addr, outcome.usable);
            }
            Kind::Trim | Kind::Mallopt | Kind::Start | Kind::StartBare | Kind::Exit | Kind::Sbrk | Kind::Block => {}
        }
        if let Err(imbalance) = replay.simulation.validate() {
            panic!("{name}, after operation {at} {op:?}: {imbalance:x?}");
        }
    }
}

#[test]
fn the_books_balance_after_every_operation_of_one_thread() {
    for (release, policy) in RELEASES {
        for seed in 0..6 {
            let others = if seed % 3 == 2 { Others::MoveByBytes } else { Others::Nothing };
            let plan = Plan { ops: 700, threads: 0, raise_mmap_threshold: false, others };
            check(&format!("{release}, seed {seed}"), &policy, &generate(seed, plan));
        }
    }
}

#[test]
fn the_books_balance_after_every_operation_of_several_threads() {
    for (release, policy) in RELEASES {
        for seed in 100..104 {
            let plan = Plan { ops: 700, threads: 5, raise_mmap_threshold: seed % 2 == 1, others: Others::Nothing };
            check(&format!("{release}, seed {seed}"), &policy, &generate(seed, plan));
        }
    }
}

#[test]
fn every_block_that_the_program_has_is_a_live_span_of_a_walk() {
    let plan = Plan { ops: 2_000, threads: 3, raise_mmap_threshold: false, others: Others::Nothing };
    for seed in 200..205 {
        let ops = generate(seed, plan);
        let mut replay = Replay::new(&Policy::GLIBC_2_36, &Tunables::NONE);
        for op in &ops {
            replay.step(op);
        }
        let mut live = BTreeMap::new();
        replay
            .simulation
            .walk(|span| {
                if span.class == Class::Live {
                    live.insert(span.addr.up(16), span.size_bytes - 8);
                }
                true
            })
            .expect("the heap can be walked");
        let slots: Vec<u32> = ops.iter().map(|op| op.slot).collect();
        for addr in slots.into_iter().filter_map(|slot| replay.block(slot)) {
            let words = replay.simulation.block(addr);
            assert!(words.is_mapped || live.get(&addr) == Some(&words.usable_bytes), "{addr:x?} is live");
        }
    }
}

/// What the heap did, without the moves of its first allocation.
fn story(tunables: &Tunables) -> (Vec<HeapEvent>, [u64; 4]) {
    let mut events = Vec::new();
    let mut sink = |_: ArenaId, _: u16, event: HeapEvent| events.push(event);
    let mut process = Simulation::new(&Policy::GLIBC_2_36, tunables, 1);
    let sizes = [30 << 10, 40 << 10, 200 << 10, 100 << 10];
    let [a, b, c, d] = sizes.map(|size| process.malloc(0, &mut sink, size).expect("there is memory").addr);
    for block in [c, b, d] {
        process.free(0, &mut sink, block).expect("the block is live");
    }
    (events, [a, b, c, d].map(|block| block.0 - 16))
}

/// The part of the story that does not depend on the thresholds: up to the free of D.
fn expected_story([a, b, c, d]: [u64; 4]) -> Vec<HeapEvent> {
    let base = a - 0x290;
    let (a_size, b_size, d_size) = (30_736_u64, 40_976, 102_416);
    // 0x290 for the thread's cache, 128 KiB of padding and the smallest top, in pages (section 8).
    let first = 0x21000;
    // What D needs with padding and the smallest top, less what is there, in pages.
    let second = (d_size + 131_072 + 32 - (first - 0x290 - a_size - b_size)).next_multiple_of(4096);
    let top = |addr, front_bytes, rest_bytes| HeapEvent::Split { addr, front_bytes, rest_bytes, from_top: true };
    let rest = first - 0x290;
    let grown = base + first + second;
    vec![
        HeapEvent::Brk { from: Addr(base), to: Addr(base + first), rule: GrowthRule::First },
        top(Addr(base), 0x290, rest),
        HeapEvent::CacheBirth { addr: Addr(base), size_bytes: 0x290 },
        top(Addr(a), a_size, rest - a_size),
        top(Addr(b), b_size, rest - a_size - b_size),
        HeapEvent::ChunkMap { addr: Addr(c), len_bytes: 208_896 },
        HeapEvent::Brk { from: Addr(base + first), to: Addr(grown), rule: GrowthRule::NoFit },
        top(Addr(d), d_size, grown - d - d_size),
    ]
}

fn after_frees([_, b, c, d]: [u64; 4], end: u64) -> [HeapEvent; 3] {
    let merged = Merged { previous: true, next: false, top: true };
    let total_bytes = end - b;
    [
        HeapEvent::ChunkUnmap { addr: Addr(c), len_bytes: 208_896 },
        HeapEvent::Bin { addr: Addr(b), size_bytes: d - b, bin: BinKind::Unsorted, index: 1 },
        HeapEvent::Coalesce { addr: Addr(b), freed_bytes: 102_416, total_bytes, merged },
    ]
}

#[test]
fn with_fixed_thresholds_the_last_free_of_the_textbook_story_trims_all_but_the_padding() {
    let fixed =
        Tunables { mmap_threshold_bytes: Some(128 << 10), trim_threshold_bytes: Some(128 << 10), ..Tunables::NONE };
    let (events, chunks) = story(&fixed);
    let mut expected = expected_story(chunks);
    let end = chunks[0] - 0x290 + 0x21000 + 172_032;
    expected.extend(after_frees(chunks, end));
    // Section 7: whole pages of the top beyond 33 bytes and the padding of 128 KiB.
    let released = (end - chunks[1] - 33 - 131_072) / 4096 * 4096;
    expected.push(HeapEvent::Trim { from: Addr(end), to: Addr(end - released) });
    assert_eq!(events, expected);
}

#[test]
fn with_the_usual_thresholds_the_free_of_a_mapped_block_prevents_the_trim_of_the_textbook_story() {
    let (events, chunks) = story(&Tunables::NONE);
    let mut expected = expected_story(chunks);
    expected.push(HeapEvent::Threshold { mmap_bytes: 208_896 });
    expected.extend(after_frees(chunks, chunks[0] - 0x290 + 0x21000 + 172_032));
    assert_eq!(events, expected);
}

#[test]
fn a_block_that_is_freed_twice_is_a_fault() {
    let mut process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 1);
    for size in [24, 100, 5_000] {
        let block = process.malloc(0, &mut NoSink, size).expect("there is memory").addr;
        process.malloc(0, &mut NoSink, 24).expect("there is memory");
        process.free(0, &mut NoSink, block).expect("the block is live");
        let fault = process.free(0, &mut NoSink, block).expect_err("it is free by now");
        assert!(process.heap().message(fault).contains("double free"), "{size}: {fault:?}");
        process.validate().expect("the second free changed nothing");
    }
}

#[test]
fn a_pointer_that_is_no_block_is_a_fault() {
    let mut process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 1);
    let block = process.malloc(0, &mut NoSink, 100).expect("there is memory").addr;
    for wrong in [block.up(8), block.up(16), block.up(1)] {
        assert!(process.free(0, &mut NoSink, wrong).is_err(), "{wrong:x?}");
        assert!(process.realloc(0, &mut NoSink, wrong, 200).is_err(), "{wrong:x?}");
    }
    process.validate().expect("nothing was changed");
}

#[test]
fn a_detached_block_is_aligned_holds_its_size_and_leaves_the_arenas_alone() {
    let mut process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 1);
    for align in [1, 16, 32, 64, 1024, 4096] {
        for bytes in [0, 1, 100, 4096, 70_000] {
            let block = process.malloc_detached(&mut NoSink, bytes, align).expect("there is memory");
            assert!(block.addr.0.is_multiple_of(align.max(16)), "{align}");
            assert!(block.usable_bytes >= bytes && process.block(block.addr).is_mapped);
            process.free(0, &mut NoSink, block.addr).expect("any free takes it back");
        }
    }
    assert_eq!(process.mallinfo2().hblks, 0);
    assert_eq!(process.break_bytes(), 0, "no arena was touched");
}

#[test]
fn mallinfo_agrees_with_the_books() {
    for seed in 300..310 {
        let plan = Plan { ops: 1_500, threads: 3, raise_mmap_threshold: false, others: Others::Nothing };
        let mut replay = Replay::new(&Policy::GLIBC_2_36, &Tunables::NONE);
        for op in generate(seed, plan) {
            replay.step(&op);
        }
        let info = replay.simulation.mallinfo2();
        let books = replay.simulation.validate().expect("the books balance");
        assert_eq!(info.arena, books.total_bytes());
        assert_eq!(info.fordblks, books.binned_bytes + books.fast_bytes + books.top_bytes);
        assert_eq!(info.uordblks, books.live_bytes + books.cached_bytes + books.metadata_bytes);
        assert_eq!(info.fsmblks, books.fast_bytes);
    }
}

#[test]
fn the_steps_of_an_arena_and_what_it_serves_are_numbered_without_a_gap() {
    let mut rng = generate::Rng::new(5);
    let mut process = Simulation::new(&Policy::GLIBC_2_36, &Tunables::NONE, 2);
    let threads = [0, process.spawn(), process.spawn()];
    let mut next = BTreeMap::<ArenaId, u16>::new();
    let mut steps = Vec::new();
    let mut blocks = Vec::new();
    for _ in 0..30_000 {
        let thread = threads[rng.below(3) as usize];
        let mut sink = |arena: ArenaId, seq: u16, _: HeapEvent| steps.push((arena, seq));
        let served = if blocks.len() > 200 && rng.percent(60) {
            let at = rng.below(blocks.len() as u64) as usize;
            process.free(thread, &mut sink, blocks.swap_remove(at)).expect("the block is live");
            None
        } else {
            let size = rng.below(3_000);
            let served = process.malloc(thread, &mut sink, size).expect("there is memory");
            blocks.push(served.addr);
            Some(served)
        };
        let numbered = steps.drain(..).filter(|&(arena, _)| arena != ArenaId::NONE);
        for (arena, seq) in numbered.collect::<Vec<_>>() {
            let expected = next.entry(arena).or_default();
            // The cache's bookkeeping is served before the first request, and takes a number of its own.
            assert!(seq == *expected || seq == expected.wrapping_add(1), "{arena:?}: {seq} after {expected}");
            *expected = seq.wrapping_add(1);
        }
        if let Some(block) = served.filter(|block| block.served == Served::Arena) {
            let expected = next.entry(block.arena).or_default();
            assert_eq!(block.arena_seq, *expected, "{:?}", block.arena);
            *expected = expected.wrapping_add(1);
        }
    }
}
