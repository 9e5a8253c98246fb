//! A program on xalloc's heap, whose allocations are known exactly; `tests/global_allocator.rs` records it.

use std::collections::BTreeMap;
use std::hint::black_box;

use xalloc_core::global::Xalloc;

#[global_allocator]
static HEAP: Xalloc = Xalloc::new();

/// A hundred boxes of 40 bytes, given back at once.
#[inline(never)]
fn truth_boxes() {
    for number in 0..100_u64 {
        black_box(Box::new([number; 5]));
    }
}

/// Four buffers of zeroes, 3,000 bytes each, that live to the end of their owner.
#[inline(never)]
fn truth_zeroes() -> Vec<Box<[u8]>> {
    let mut kept = Vec::with_capacity(4);
    for _ in 0..4 {
        kept.push(black_box(vec![0_u8; 3000].into_boxed_slice()));
    }
    kept
}

/// One buffer that grows by `realloc` from 64 bytes to 4,096 in six steps.
#[inline(never)]
fn truth_grows() -> Vec<u8> {
    let mut buffer = Vec::with_capacity(64);
    for _ in 0..6 {
        buffer.resize(buffer.capacity(), 1_u8);
        buffer.reserve_exact(buffer.capacity());
    }
    black_box(buffer)
}

/// Three blocks that begin with a page, one of which is resized.
#[inline(never)]
fn truth_aligned() {
    #[repr(align(4096))]
    struct Page(#[allow(dead_code, reason = "its size matters")] [u8; 4096]);
    black_box(Box::new(Page([1; 4096])));
    let mut pages = Vec::with_capacity(1);
    pages.push(Page([2; 4096]));
    pages.reserve_exact(1);
    assert!(black_box(&pages).as_ptr().addr().is_multiple_of(4096));
}

/// A block of 7,777 bytes that nobody can find any more.
#[inline(never)]
fn truth_leaks() {
    black_box(Vec::<u8>::with_capacity(7777)).leak();
}

/// What another thread allocates, this one gives back.
#[inline(never)]
fn truth_hands_over() -> BTreeMap<u32, String> {
    let filled = std::thread::spawn(|| (0..50).map(|number| (number, number.to_string())).collect());
    filled.join().unwrap_or_default()
}

/// Overwrites what the calls above left on the stack.
#[inline(never)]
fn wipe() {
    black_box([0_u8; 16384]);
}

fn main() {
    truth_boxes();
    let kept = truth_zeroes();
    let grown = truth_grows();
    truth_aligned();
    truth_leaks();
    let numbers = truth_hands_over();
    wipe();
    let zeroes = kept.iter().flat_map(|block| block.iter()).filter(|&&byte| byte == 0).count();
    println!("{zeroes} {} {}", grown.len(), numbers.len());
}
