//! Captures of this test program's own stacks, compared with the `backtrace` crate and with the plain walk.
//!
//! # Safety
//! - The entry stub hands the caller's registers on and jumps; it is called as the C function that it is.
//! - Memory that is leaked and zeroed is a valid header, and lives for ever.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::hint::black_box;

use xalloc_core::intern::{Counters, FrameMeaning, Node, Trie};
use xalloc_core::primitive::AtomicU32;
use xalloc_core::session::{Header, Options};

use super::*;
use crate::modules::ModuleSeen;

struct Silent;

impl Announce for Silent {
    fn module(&mut self, _: &ModuleSeen<'_>) {}
}

/// A trie of 2^18 nodes that lives for ever.
fn shared(options: &Options) -> Shared {
    let nodes: Vec<Node> = (0..1 << 18).map(|_| Node::empty()).collect();
    let levels = [1 << 14, 1 << 20]
        .map(|entries| -> &'static [AtomicU32] { (0..entries).map(|_| AtomicU32::new(0)).collect::<Vec<_>>().leak() });
    let trie = Trie::new(Box::leak(Box::new(Counters::new())), nodes.leak(), Vec::from(levels).leak());
    let header = vec![0_u64; size_of::<Header>() / 8 + 512].leak().as_mut_ptr();
    let aligned = header.map_addr(|at| at.next_multiple_of(align_of::<Header>()));
    // SAFETY: second bullet of the module; every field of a header is an integer or an atomic one.
    let header = unsafe { &*aligned.cast::<Header>() };
    Shared::new(trie, header, options).expect("memory for the tables")
}

struct Probe {
    cache: Box<ThreadCapture>,
    shared: &'static Shared,
    compared: u64,
    /// Of these, found without a walk.
    repeated: u64,
}

thread_local! {
    static PROBE: RefCell<Option<Probe>> = const { RefCell::new(None) };
}

/// Calls `body` with captures by [`here`] on; how many there were.
fn probing(shared: &'static Shared, body: impl FnOnce()) -> u64 {
    probed(shared, body).compared
}

/// The same, with all that was counted.
fn probed(shared: &'static Shared, body: impl FnOnce()) -> Probe {
    let probe = Probe { cache: Box::new(ThreadCapture::new()), shared, compared: 0, repeated: 0 };
    PROBE.with(|place| *place.borrow_mut() = Some(probe));
    body();
    PROBE.with(|place| place.borrow_mut().take()).expect("set above")
}

/// Captures the caller's stack and compares it.
#[unsafe(naked)]
extern "C" fn here() {
    core::arch::naked_asm!(
        ".cfi_startproc", "mov rdi, [rsp]", "lea rsi, [rsp + 8]", "mov rdx, rbp", "jmp {h}", ".cfi_endproc",
        h = sym compare)
}

extern "C" fn compare(ip: usize, sp: usize, fp: usize) {
    let mut expected = Vec::new();
    backtrace::trace(|frame| {
        // libgcc shows the end of a thread's stack as a last frame at 0.
        expected.extend((!frame.ip().is_null()).then_some(frame.ip() as u64));
        true
    });
    PROBE.with(|place| {
        let mut place = place.borrow_mut();
        let Some(probe) = place.as_mut() else { return };
        let entry = Entry { ip, sp, fp };
        let known = repeated(&mut probe.cache, entry, probe.shared);
        probe.repeated += u64::from(known.is_some());
        let id = known.unwrap_or_else(|| capture_anew(&mut probe.cache, entry, probe.shared, &mut Silent));
        let got = frames(probe.shared, id);
        let at = expected.iter().position(|&frame| frame == ip as u64).expect("the caller is on the stack");
        let expected: Vec<String> = expected[at..].iter().map(|ip| format!("{ip:x}")).collect();
        let depth = probe.shared.depth;
        if expected.len() <= depth {
            assert_eq!(got, expected);
        } else {
            assert_eq!(got[..depth], expected[..depth]);
            assert_eq!(got[depth..], ["cut".to_owned()]);
        }
        let first = State { word: FrameWord::return_address(ip as u64), sp: sp as u64, fp: fp as u64 };
        assert!(verify::equals_plain_walk(&mut probe.cache, first, probe.shared, id));
        probe.compared += 1;
    });
}

fn frames(shared: &Shared, mut id: StackId) -> Vec<String> {
    let mut frames = Vec::new();
    while let Some((parent, word)) = shared.trie.get(id) {
        frames.push(match word.meaning() {
            FrameMeaning::ReturnAddress(ip) | FrameMeaning::Interrupted(ip) => format!("{ip:x}"),
            FrameMeaning::Cut => "cut".to_owned(),
            FrameMeaning::Paused => "paused".to_owned(),
            FrameMeaning::Generation(number) => format!("generation {number}"),
        });
        id = parent;
    }
    frames
}

fn leaked(options: &Options) -> &'static Shared {
    Box::leak(Box::new(shared(options)))
}

#[inline(never)]
fn recursion(depth: u32, at_each_level: bool) {
    if depth > 0 {
        if at_each_level {
            here();
        }
        recursion(black_box(depth - 1), at_each_level);
    }
    here();
    black_box(depth);
}

#[inline(never)]
fn inner() {
    here();
    black_box(());
}

#[inline(never)]
fn middle() {
    inner();
    black_box(());
}

#[test]
fn a_stack_equals_the_full_unwind_at_every_depth_of_a_recursion() {
    let compared = probing(leaked(&Options::new()), || {
        recursion(200, true);
        recursion(3, false);
        recursion(200, false);
    });
    assert_eq!(compared, 401 + 4 + 201);
}

#[test]
fn two_calls_of_the_same_function_from_one_frame_give_two_stacks() {
    let shared = leaked(&Options::new());
    let compared = probing(shared, || {
        for _ in 0..100 {
            middle();
            middle();
        }
    });
    assert_eq!(compared, 200);
}

#[test]
fn stacks_that_differ_only_in_an_outer_caller_are_found_again_without_a_walk() {
    let probe = probed(leaked(&Options::new()), || {
        for _ in 0..100 {
            middle();
            middle();
            middle();
            middle();
        }
    });
    assert_eq!((probe.compared, probe.repeated), (400, 396));
}

#[test]
fn a_stack_beyond_the_limit_is_cut_at_its_root_and_counted() {
    for depth in [1, 2, 16, 1024] {
        let shared = leaked(&Options { depth, ..Options::new() });
        let compared = probing(shared, || {
            recursion(1_100, false);
            for _ in 0..10 {
                middle();
                middle();
            }
        });
        assert_eq!(compared, 1_121);
        assert!(shared.header.cut_stacks.load(Ordering::Relaxed) >= 77, "{depth}");
    }
}

#[test]
fn after_a_dlclose_stacks_begin_at_the_root_of_a_new_generation_and_modules_are_told_anew() {
    let shared = leaked(&Options::new());
    let last = |id| frames(shared, id).pop();
    let mut cache = Box::new(ThreadCapture::new());
    let (word, sp) = ([0_u64; 4], 0_usize);
    let entry = Entry { ip: libc::qsort as *const () as usize + 1, sp: word.as_ptr() as usize, fp: sp };
    let before = capture(&mut cache, entry, shared, &mut Silent);
    assert!(!last(before).expect("frames").starts_with("generation"));
    assert_eq!(on_dlclose(shared), 1);
    let after = capture(&mut cache, entry, shared, &mut Silent);
    assert_ne!(before, after);
    assert_eq!(last(after).expect("frames"), "generation 1");
}

#[test]
fn the_self_check_counts_every_nth_capture_and_no_difference() {
    let shared = leaked(&Options { verify_every: 3, ..Options::new() });
    probing(shared, || recursion(298, false));
    assert_eq!(shared.header.verified_stacks.load(Ordering::Relaxed), 100);
    assert_eq!(shared.header.differing_stacks.load(Ordering::Relaxed), 0);
}
