//! The heap as the global allocator of a real, threaded Rust program: this test.
#![allow(unsafe_code, reason = "calls the allocator itself")]

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};

use xalloc_core::global::Xalloc;
use xalloc_core::heap::ThreadCache;

#[global_allocator]
static HEAP: Xalloc = Xalloc::new();

/// A number sequence that is the same everywhere.
fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Fills blocks with a pattern that names them and checks it before they go: blocks that overlap destroy each other's.
fn churn(seed: u64) {
    let mut state = seed;
    let mut blocks: Vec<Vec<u64>> = Vec::new();
    for _ in 0..20_000 {
        let size = match step(&mut state) % 100 {
            0 => 40_000,
            1..=10 => step(&mut state) % 2_000,
            _ => step(&mut state) % 40,
        } as usize;
        match step(&mut state) % 5 {
            0..=1 if !blocks.is_empty() => {
                let at = step(&mut state) as usize % blocks.len();
                let block = blocks.swap_remove(at);
                assert!(block.iter().all(|&word| word == block.len() as u64 ^ seed), "a block was overwritten");
            }
            2 if !blocks.is_empty() => {
                let at = step(&mut state) as usize % blocks.len();
                let block = &mut blocks[at];
                assert!(block.iter().all(|&word| word == block.len() as u64 ^ seed), "a block was overwritten");
                block.resize(size, 0);
                block.fill(size as u64 ^ seed);
            }
            _ => blocks.push(vec![size as u64 ^ seed; size]),
        }
    }
}

#[test]
fn threads_that_come_and_go_keep_their_blocks_apart_and_the_books_balanced() {
    for round in 0..4 {
        let handed_over: Vec<Vec<Box<u64>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|thread| {
                    scope.spawn(move || {
                        churn(round * 10 + thread);
                        (0..500).map(Box::new).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("the thread ends well")).collect()
        });
        // Freed here, by another thread than the one that allocated.
        drop(handed_over);
    }
    let books = HEAP.heap().validate(&mut ThreadCache::new()).expect("the books balance");
    assert!(books.live_bytes > 0);
    assert!(HEAP.heap().arena_count() > 1, "threads got arenas of their own");
}

#[test]
fn collections_work() {
    let map: HashMap<String, usize> = (0..10_000).map(|n| (format!("key {n}"), n)).collect();
    let sorted: BTreeMap<&String, &usize> = map.iter().collect();
    assert_eq!(sorted.len(), 10_000);
    assert!(sorted.iter().all(|(key, n)| **key == format!("key {n}")));
}

#[test]
fn blocks_have_the_alignment_that_their_layout_asks_for_through_every_realloc() {
    for shift in 0..14 {
        let align = 1 << shift;
        let layout = Layout::from_size_align(100, align).expect("a power of two");
        // SAFETY: the size is not 0.
        let block = unsafe { HEAP.alloc(layout) };
        assert!(!block.is_null() && block.addr().is_multiple_of(align));
        // SAFETY: the block has 100 bytes.
        unsafe { block.write_bytes(0xa5, 100) };
        // SAFETY: the block has that layout, and the size is not 0.
        let larger = unsafe { HEAP.realloc(block, layout, 300_000) };
        assert!(!larger.is_null() && larger.addr().is_multiple_of(align));
        // SAFETY: the first 100 bytes were copied.
        let kept = unsafe { std::slice::from_raw_parts(larger, 100) };
        assert!(kept.iter().all(|&byte| byte == 0xa5));
        let layout = Layout::from_size_align(300_000, align).expect("a power of two");
        // SAFETY: the block has that layout and is used no more.
        unsafe { HEAP.dealloc(larger, layout) };
    }
}

#[test]
fn zeroed_blocks_are_zero_even_where_memory_is_used_again() {
    let mut kept = Vec::new();
    for round in 0..200 {
        let len = 1 + round * 37 % 9_000;
        let dirty = vec![0xff_u8; len];
        drop(dirty);
        let clean = vec![0_u8; len];
        assert!(clean.iter().all(|&byte| byte == 0), "round {round}");
        if round % 3 == 0 {
            kept.push(clean);
        }
    }
}

#[test]
fn a_child_that_was_forked_from_many_threads_can_allocate() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    churn(seed);
                }
            });
        }
        for _ in 0..20 {
            // SAFETY: the child allocates only by this allocator, which is what is tested, and ends by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let blocks: Vec<Vec<u8>> = (0..2_000).map(|len| vec![1; len]).collect();
                let status = i32::from(blocks.iter().map(Vec::len).sum::<usize>() != 1_999_000);
                // SAFETY: ends the child without running what the parent registered.
                unsafe { libc::_exit(status) };
            }
            let mut status = -1;
            // SAFETY: `status` is writable.
            let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((ended, status), (child, 0), "the child allocates and ends well");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
