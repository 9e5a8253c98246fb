//! The heap places chunks as the running libc does: random traces, operation by operation.
//!
//! Every trace runs twice, on the real libc by `tests/programs/xreplay.c` and on the simulated heap, and after each
//! operation the block's place, its usable size, the break and the sub-heap's size must be equal. A difference is
//! shrunk to the smallest trace that shows it. `XALLOC_PLACEMENT_TRACES=1000` makes a long campaign of every test.

#[path = "placement/generate.rs"]
mod generate;
#[path = "placement/oracle.rs"]
mod oracle;
#[path = "placement/shrink.rs"]
mod shrink;
#[path = "placement/simulate.rs"]
mod simulate;
#[path = "placement/trace.rs"]
mod trace;

use generate::{Plan, generate};
use simulate::simulate;
use trace::{Op, Outcome};
use xalloc_core::heap::{Policy, Tunables};

/// Traces that a campaign runs.
fn traces(usual: u64) -> u64 {
    std::env::var("XALLOC_PLACEMENT_TRACES").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

fn first_difference(left: &[Outcome], right: &[Outcome]) -> Option<usize> {
    left.iter().zip(right).position(|(left, right)| left != right)
}

/// Compares one trace; shrinks and reports a difference.
fn compare(name: &str, policy: &Policy, ops: Vec<Op>) {
    let differs = |ops: &[Op]| {
        let real = oracle::run(ops, &[]).expect("it ran before");
        first_difference(&real, &simulate(policy, &Tunables::NONE, ops))
    };
    let real = oracle::run(&ops, &[]).expect("the caller asked");
    if first_difference(&real, &simulate(policy, &Tunables::NONE, &ops)).is_none() {
        return;
    }
    let least = shrink::shrink(ops, 3000, differs);
    let real = oracle::run(&least, &[]).expect("it ran before");
    let ours = simulate(policy, &Tunables::NONE, &least);
    for (at, op) in least.iter().enumerate() {
        println!("{at:4} {op:?}");
        println!("       libc {:x?}", real[at]);
        if real[at] != ours[at] {
            println!("       ours {:x?}", ours[at]);
        }
    }
    panic!("{name}: the smallest trace that differs has {} operations", least.len());
}

/// Runs `usual` traces of a plan against the running libc.
fn campaign(name: &str, first_seed: u64, usual: u64, plan: Plan) {
    let policy = match oracle::policy().and_then(|policy| oracle::available().map(|()| policy)) {
        Ok(policy) => policy,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let mut ops_equal = 0;
    let count = traces(usual);
    for seed in first_seed..first_seed + count {
        let ops = generate(seed, plan);
        ops_equal += ops.len();
        compare(&format!("{name}, seed {seed}"), &policy, ops);
    }
    println!("{name}: {count} traces, {ops_equal} operations, all equal");
}

const SINGLE: Plan = Plan { ops: 8_000, threads: 0, raise_mmap_threshold: false, disturb_break: false };

#[test]
fn a_single_thread_gets_every_chunk_where_libc_places_it() {
    campaign("single thread", 1, 40, SINGLE);
}

#[test]
fn a_break_that_others_move_or_block_leads_to_the_same_chunks() {
    campaign("disturbed break", 10_000, 15, Plan { disturb_break: true, ..SINGLE });
}

#[test]
fn threads_in_lock_step_get_every_chunk_where_libc_places_it() {
    campaign("threads", 20_000, 15, Plan { ops: 4_000, threads: 6, ..SINGLE });
}

#[test]
fn more_threads_than_arenas_share_them_as_in_libc() {
    campaign("arena limit", 30_000, 8, Plan { ops: 4_000, threads: 40, ..SINGLE });
}

#[test]
fn arenas_of_several_sub_heaps_grow_and_shrink_as_in_libc() {
    campaign("sub-heaps", 40_000, 8, Plan { ops: 3_000, threads: 3, raise_mmap_threshold: true, ..SINGLE });
}
