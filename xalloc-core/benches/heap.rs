//! The heap beside the running libc's malloc, in one process and one thread: the paths that programs take most.
#![allow(unsafe_code, reason = "calls allocators directly")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use xalloc_core::heap::{Heap, Live, NoSink, Policy, ThreadCache, Tunables};
use xalloc_core::units::Addr;

static HEAP: Heap<Live> = Heap::new(Live::new());

/// An allocator as the benchmark needs it.
trait Subject {
    fn malloc(&mut self, bytes: usize) -> u64;
    fn free(&mut self, addr: u64);
}

struct Ours(ThreadCache);

impl Subject for Ours {
    fn malloc(&mut self, bytes: usize) -> u64 {
        HEAP.malloc(&mut self.0, &mut NoSink, bytes as u64).map_or(0, |block| block.addr.0)
    }

    fn free(&mut self, addr: u64) {
        // SAFETY: the benchmark frees what it allocated, once.
        let done = unsafe { HEAP.free(&mut self.0, &mut NoSink, Addr(addr)) };
        assert!(done.is_ok());
    }
}

struct Libc;

impl Subject for Libc {
    fn malloc(&mut self, bytes: usize) -> u64 {
        // SAFETY: malloc has no precondition.
        let block = unsafe { libc::malloc(bytes) };
        block.expose_provenance() as u64
    }

    fn free(&mut self, addr: u64) {
        // SAFETY: the benchmark frees what it allocated, once.
        unsafe { libc::free(std::ptr::with_exposed_provenance_mut(addr as usize)) };
    }
}

/// One block, again and again: the cache's hit path.
fn pairs(subject: &mut impl Subject) {
    for bytes in [24, 100, 500] {
        let block = subject.malloc(black_box(bytes));
        subject.free(black_box(block));
    }
}

/// More blocks than a cache holds, freed oldest first: fast bins, unsorted, merging, splitting.
fn waves(subject: &mut impl Subject, blocks: &mut Vec<u64>) {
    for index in 0..400 {
        blocks.push(subject.malloc(black_box(16 + index * 37 % 2_000)));
    }
    for block in blocks.drain(..) {
        subject.free(block);
    }
}

fn compare(criterion: &mut Criterion) {
    HEAP.configure(&Policy::GLIBC_2_36, &Tunables::NONE);
    let mut ours = Ours(ThreadCache::new());
    let mut blocks = Vec::with_capacity(400);
    let mut group = criterion.benchmark_group("three pairs from the cache");
    group.bench_function("xalloc", |bencher| bencher.iter(|| pairs(&mut ours)));
    group.bench_function("libc", |bencher| bencher.iter(|| pairs(&mut Libc)));
    group.finish();
    let mut group = criterion.benchmark_group("400 blocks through the bins");
    group.bench_function("xalloc", |bencher| bencher.iter(|| waves(&mut ours, &mut blocks)));
    group.bench_function("libc", |bencher| bencher.iter(|| waves(&mut Libc, &mut blocks)));
    group.finish();
}

criterion_group!(benches, compare);
criterion_main!(benches);
