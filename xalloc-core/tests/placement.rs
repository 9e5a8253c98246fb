//! The heap places chunks as the running libc does: random traces, operation by operation.
//!
//! Every trace runs twice, on the real libc by `tests/programs/xreplay.c` and on the simulated heap, and after each
//! operation the block's place, its usable size, the break and the sub-heap's size must be equal. A difference is
//! shrunk to the smallest trace that shows it. `XALLOC_PLACEMENT_TRACES=1000` makes a long campaign of every test;
//! `XALLOC_PLACEMENT_PRELOAD=libxalloc_preload.so` has every trace run once more under that library, on the live heap;
//! `XALLOC_PLACEMENT_SEED=775 XALLOC_PLACEMENT_TRACES=1` is the one trace of that seed.

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

use std::path::Path;

use generate::{Others, Plan, generate};
use oracle::Oracle;
use simulate::simulate;
use trace::{Kind, Op, Outcome};
use xalloc_core::heap::{
    AlignedRests, ArenaLimit, BreakFallback, CacheBirth, HugePages, HugeTlb, Live, MappedLayout, Os, Policy,
    ReallocSlack, Tunable, Tunables,
};

/// What a variable says, if it is a number.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn first_difference(left: &[Outcome], right: &[Outcome]) -> Option<usize> {
    left.iter().zip(right).position(|(left, right)| left != right)
}

/// Compares one trace on one libc, under `list` as `GLIBC_TUNABLES`, with the simulated heap and with a live one.
fn compare(oracle: &Oracle, name: &str, list: &str, ops: &[Op]) {
    let mut tunables = Tunables::NONE;
    tunables.apply_glibc_tunables(list.as_bytes());
    let real = |ops: &[Op]| oracle.run(ops, list);
    let expected = real(ops);
    let demand = |heap: &str, ours: &dyn Fn(&[Op]) -> Vec<Outcome>| {
        if first_difference(&expected, &ours(ops)).is_some() {
            report(&format!("{name} {list}, {heap}"), ops.to_vec(), &real, ours);
        }
    };
    demand("simulated", &|ops| simulate(&oracle.policy, &tunables, ops));
    if let Some(library) = oracle::preload() {
        demand(&library, &|ops| oracle.run_under(&library, ops, list));
    }
}

/// Shrinks a trace to the smallest that shows a difference, and shows it.
fn report(name: &str, ops: Vec<Op>, real: &dyn Fn(&[Op]) -> Vec<Outcome>, ours: &dyn Fn(&[Op]) -> Vec<Outcome>) {
    let least = shrink::shrink(ops, 3000, |ops| first_difference(&real(ops), &ours(ops)));
    let (real, ours) = (real(&least), ours(&least));
    for (at, op) in least.iter().enumerate() {
        println!("{at:4} {op:?}");
        println!("       libc {:x?}", real[at]);
        if real[at] != ours[at] {
            println!("       ours {:x?}", ours[at]);
        }
    }
    panic!("{name}: the smallest trace that differs has {} operations", least.len());
}

/// The libcs that can be asked; prints why there is none.
fn oracles() -> &'static [Oracle] {
    oracle::all().as_deref().unwrap_or_else(|why| {
        println!("skipped: {why}");
        &[]
    })
}

/// Runs `usual` traces of a plan on every libc, each under the tunables that `list` makes of its seed.
fn campaign(name: &str, first_seed: u64, usual: u64, plan: Plan, list: impl Fn(u64) -> String) {
    let first_seed = number("XALLOC_PLACEMENT_SEED").unwrap_or(first_seed);
    let count = number("XALLOC_PLACEMENT_TRACES").unwrap_or(usual);
    for oracle in oracles() {
        let mut equal_ops = 0;
        for seed in first_seed..first_seed + count {
            let ops = generate(seed, plan);
            equal_ops += ops.len();
            compare(oracle, &format!("{name}, glibc {}, seed {seed}", oracle.version), &list(seed), &ops);
        }
        println!("{name}: glibc {}: {count} traces, {equal_ops} operations, all equal", oracle.version);
    }
}

/// No tunables.
fn untuned(_: u64) -> String {
    String::new()
}

const SINGLE: Plan = Plan { ops: 8_000, threads: 0, raise_mmap_threshold: false, others: Others::Nothing };

#[test]
fn a_single_thread_gets_every_chunk_where_libc_places_it() {
    campaign("single thread", 1, 40, SINGLE, untuned);
}

#[test]
fn a_trim_raises_the_break_under_a_top_of_the_least_size_as_in_libc() {
    let op = |kind, slot, size| Op { kind, thread: 0, slot, size, align: 0 };
    for oracle in oracles() {
        let first = op(Kind::Malloc, 0, 24);
        let place = oracle.run(&[first], "")[0];
        let top_bytes = place.brk - (place.offset + 16);
        for pad in [0, 1, 4095, 4096, 65_536] {
            let second = op(Kind::Malloc, 1, top_bytes - 32 - 8);
            let ops = [first, second, op(Kind::Trim, 0xffff, pad), op(Kind::Malloc, 2, 1_000), op(Kind::Free, 1, 0)];
            let outcomes = oracle.run(&ops, "");
            assert_eq!(outcomes[1].brk, place.brk, "the top served it");
            assert!(outcomes[2].brk > place.brk, "this libc raises the break");
            compare(oracle, &format!("least top, glibc {}, pad {pad}", oracle.version), "", &ops);
        }
    }
}

#[test]
fn an_arena_that_an_aligned_request_makes_is_as_large_as_in_libc() {
    let op = |kind, size, align| Op { kind, thread: 1, slot: 0, size, align };
    for oracle in oracles() {
        // Around the sizes at which the arena's first sub-heap needs one page more.
        for bytes in 1_720..1_780 {
            let ops = [op(Kind::Start, 0, 0), op(Kind::Memalign, bytes, if bytes % 2 == 0 { 32 } else { 64 })];
            compare(oracle, &format!("first arena, glibc {}, {bytes} bytes", oracle.version), "", &ops);
        }
    }
}

#[test]
fn a_break_that_others_move_or_block_leads_to_the_same_chunks() {
    campaign("disturbed break", 10_000, 15, Plan { others: Others::MoveByBytes, ..SINGLE }, untuned);
}

#[test]
fn threads_in_lock_step_get_every_chunk_where_libc_places_it() {
    campaign("threads", 20_000, 15, Plan { ops: 4_000, threads: 6, ..SINGLE }, untuned);
}

#[test]
fn more_threads_than_arenas_share_them_as_in_libc() {
    campaign("arena limit", 30_000, 8, Plan { ops: 4_000, threads: 40, ..SINGLE }, untuned);
}

#[test]
fn arenas_of_several_sub_heaps_grow_and_shrink_as_in_libc() {
    campaign("sub-heaps", 40_000, 8, Plan { ops: 3_000, threads: 3, raise_mmap_threshold: true, ..SINGLE }, untuned);
}

/// Two of the tunables, with values around the ones that matter.
fn tuned(seed: u64) -> String {
    let mut rng = generate::Rng::new(seed ^ 0x7a11);
    let mut list = Vec::new();
    for _ in 0..2 {
        let (name, value) = match rng.below(9) {
            0 => ("tcache_count", rng.below(20)),
            1 => ("tcache_max", rng.below(1100)),
            2 => ("tcache_unsorted_limit", rng.below(10)),
            3 => ("mxfast", rng.below(170)),
            4 => ("top_pad", rng.below(1 << 18)),
            5 => ("trim_threshold", rng.below(1 << 19)),
            6 => ("mmap_threshold", rng.below(1 << 21)),
            7 => ("mmap_max", rng.below(10)),
            _ => ("arena_max", rng.below(4)),
        };
        list.push(format!("glibc.malloc.{name}={value}"));
    }
    list.join(":")
}

#[test]
fn tunables_move_chunks_as_they_do_in_libc() {
    campaign("tunables", 50_000, 30, Plan { ops: 4_000, threads: 3, ..SINGLE }, tuned);
}

/// A wish for huge pages, now and then beside another tunable.
fn with_huge_pages(seed: u64) -> String {
    let mut rng = generate::Rng::new(seed ^ 0x4096);
    let gigantic = if simulate::has_huge_pages() { 0 } else { 1 << 30 };
    let value = [0, 1, 1, 1, 2, 2, 2 << 20, gigantic, 3, (2 << 20) + 1][rng.below(10) as usize];
    let list = format!("glibc.malloc.hugetlb={value}");
    if rng.percent(40) { format!("{list}:{}", tuned(seed)) } else { list }
}

#[test]
fn huge_pages_move_chunks_as_they_do_in_libc() {
    let all_huge_pages = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap_or_default();
    if all_huge_pages.trim() != "0" && !simulate::has_huge_pages() {
        // How many are free at any moment cannot be known.
        return println!(
            "skipped: the kernel has some huge pages, and XALLOC_PLACEMENT_HUGE_PAGES does not say enough"
        );
    }
    let plan = Plan { ops: 4_000, threads: 3, ..SINGLE };
    campaign("huge pages, one thread", 60_000, 12, SINGLE, with_huge_pages);
    campaign("huge pages, threads", 61_000, 12, plan, with_huge_pages);
    campaign("huge pages, large chunks", 62_000, 6, Plan { raise_mmap_threshold: true, ..plan }, with_huge_pages);
    campaign("huge pages, disturbed break", 63_000, 6, Plan { others: Others::MoveByPages, ..SINGLE }, with_huge_pages);
}

/// Operations on which a rule, changed by one step, must show.
const MUTATION_SEEDS: std::ops::Range<u64> = 0..24;

/// What a real libc did.
struct Run {
    tunables: Tunables,
    ops: Vec<Op>,
    real: Vec<Outcome>,
}

impl Run {
    fn of(oracle: &Oracle, list: &str, ops: Vec<Op>) -> Run {
        let mut tunables = Tunables::NONE;
        tunables.apply_glibc_tunables(list.as_bytes());
        let real = oracle.run(&ops, list);
        Run { tunables, ops, real }
    }

    fn differs(&self, policy: &Policy, tunables: &Tunables) -> bool {
        first_difference(&self.real, &simulate(policy, tunables, &self.ops)).is_some()
    }
}

/// Random programs hardly ever do this.
fn raise_the_mmap_threshold_beyond_32_mib() -> Vec<Op> {
    let tuned = Op { kind: Kind::Mallopt, thread: 0, slot: 0, size: -3_i64 as u64, align: 40 << 20 };
    vec![tuned, Op { kind: Kind::Malloc, thread: 0, slot: 1, size: 35 << 20, align: 0 }]
}

#[test]
fn a_rule_that_is_changed_is_noticed() {
    let Some(oracle) = oracles().iter().find(|oracle| oracle.policy == Policy::GLIBC_2_36) else {
        return println!("skipped: no glibc 2.35 or 2.36");
    };
    let policy = oracle.policy;
    let plan = Plan { ops: 3_000, threads: 2, ..SINGLE };
    let disturbed = Plan { ops: 3_000, others: Others::MoveByBytes, ..SINGLE };
    let random = MUTATION_SEEDS.map(|seed| generate(seed, if seed % 4 == 0 { disturbed } else { plan }));
    let crowd = (0..3).map(|seed| generate(seed, Plan { ops: 3_000, threads: 40, ..SINGLE }));
    let mut runs: Vec<_> = random
        .chain([raise_the_mmap_threshold_beyond_32_mib()])
        .chain(crowd)
        .map(|ops| Run::of(oracle, "", ops))
        .collect();
    runs.push(Run::of(oracle, "glibc.malloc.tcache_max=100000", generate(1, plan)));
    runs.push(Run::of(oracle, "glibc.malloc.hugetlb=1", generate(2, plan)));
    assert!(!runs.iter().any(|run| run.differs(&policy, &run.tunables)), "the unchanged rules are libc's");
    let policies = [
        ("tcache", Policy { tcache: false, ..policy }),
        ("tcache_struct_bytes", Policy { tcache_struct_bytes: 576, ..policy }),
        ("tcache_count", Policy { tcache_count: 6, ..policy }),
        ("tcache_chunk_max_bytes", Policy { tcache_chunk_max_bytes: 1024, ..policy }),
        ("tcache_birth", Policy { tcache_birth: CacheBirth::CacheableAllocation, ..policy }),
        ("tcache_large_bins", Policy { tcache_large_bins: true, ..policy }),
        ("unsorted_fits_are_cached", Policy { unsorted_fits_are_cached: false, ..policy }),
        ("calloc_uses_tcache", Policy { calloc_uses_tcache: true, ..policy }),
        ("small_free_skips_unsorted", Policy { small_free_skips_unsorted: true, ..policy }),
        ("fastbins", Policy { fastbins: false, ..policy }),
        ("memalign_scans_tcache", Policy { memalign_scans_tcache: true, ..policy }),
        ("memalign_scans_bins", Policy { memalign_scans_bins: true, ..policy }),
        ("memalign_rests", Policy { memalign_rests: AlignedRests::Merged, ..policy }),
        ("realloc_slack", Policy { realloc_slack: ReallocSlack::KeepToTrimThreshold, ..policy }),
        // The rule of 2.38 keeps only what could not be split anyway: it cannot be told from that of 2.36.
        ("inner_free_uses_tcache", Policy { inner_free_uses_tcache: false, ..policy }),
        ("heap_header_bytes", Policy { heap_header_bytes: 32, ..policy }),
        ("break_fallback", Policy { break_fallback: BreakFallback::AtLeast, ..policy }),
        ("arena_bytes", Policy { arena_bytes: 2112, ..policy }),
        ("mmap_threshold_is_limited", Policy { mmap_threshold_is_limited: true, ..policy }),
        ("mapped_layout", Policy { mapped_layout: MappedLayout::ShortOfTheEnd, ..policy }),
    ];
    // The first two follow below. The others move no chunk: their tests are beside `heap::memalign` and `heap::checks`.
    let elsewhere = ["arena_limit", "hugetlb", "aligned_alloc_is_strict", "shape_checks", "top_shape_words"];
    let rules = format!("{policy:?}");
    for rule in rules.trim_start_matches("Policy {").split(", ").filter_map(|field| field.split(':').next()) {
        let rule = rule.trim();
        let is_changed = policies.iter().any(|&(changed, _)| changed == rule) || elsewhere.contains(&rule);
        assert!(is_changed, "nobody changes {rule}");
    }
    for (rule, changed) in policies {
        assert!(runs.iter().any(|run| run.differs(&changed, &run.tunables)), "{rule} was changed and nobody noticed");
    }
    if simulate::cores() == 1 {
        println!("skipped: arena_limit: with one core the limits are the same");
    } else {
        let changed = Policy { arena_limit: ArenaLimit::ArenaTestOrCores, ..policy };
        assert!(runs.iter().any(|run| run.differs(&changed, &run.tunables)), "arena_limit");
    }
    if Live::new().transparent_pages() == HugePages::Ordinary {
        println!("skipped: hugetlb: this kernel has no transparent huge pages");
    } else {
        let changed = Policy { hugetlb: HugeTlb::Rounded, ..policy };
        assert!(runs.iter().any(|run| run.differs(&changed, &run.tunables)), "hugetlb");
    }
    let none = Tunables::NONE;
    let tunables = [
        ("top_pad", Tunables { top_pad_bytes: Some(0), ..none }),
        ("trim_threshold", Tunables { trim_threshold_bytes: Some(131_072), ..none }),
        ("mmap_threshold", Tunables { mmap_threshold_bytes: Some(131_072), ..none }),
        ("mmap_max", Tunables { mmap_max: Some(1), ..none }),
        ("mxfast", Tunables { mxfast_bytes: Some(104), ..none }),
        ("tcache_unsorted_limit", Tunables { tcache_unsorted_limit: Some(2), ..none }),
        ("arena_max", Tunables { arena_max: Some(1), ..none }),
        ("arena_test", Tunables { arena_test: Some(60), ..none }),
        ("tcache_count", Tunables { tcache_count: Some(6), ..none }),
        ("tcache_max", Tunables { tcache_max_bytes: Some(500), ..none }),
        ("hugetlb", Tunables { hugetlb: Some(2), ..none }),
    ];
    for tunable in Tunable::ALL {
        let name = tunable.name();
        // `perturb` moves no chunk: `xalloc-preload/tests/perturb.rs` compares what it fills.
        assert!(name == "perturb" || tunables.iter().any(|&(changed, _)| changed == name), "nobody changes {name}");
    }
    for (tunable, changed) in tunables {
        let is_noticed = runs.iter().any(|run| run.tunables == none && run.differs(&policy, &changed));
        assert!(is_noticed, "{tunable} was changed and nobody noticed");
    }
}

/// The committed traces, each with the results of several real libcs, for machines where another one runs.
/// `XALLOC_PLACEMENT_WRITE_GOLDEN=1` writes those anew whose libc is there.
const GOLDEN: [(&str, u64, Plan); 4] = [
    ("single", 7, Plan { ops: 1_500, ..SINGLE }),
    ("single-large", 17, Plan { ops: 1_500, ..SINGLE }),
    ("disturbed-break", 10_004, Plan { ops: 1_000, others: Others::MoveByBytes, ..SINGLE }),
    ("threads", 20_002, Plan { ops: 1_500, threads: 5, ..SINGLE }),
];

/// The libcs whose results are committed.
const GOLDEN_LIBCS: [&str; 5] = ["2.31", "2.36", "2.41", "2.43", "2.44"];

/// Writes a golden trace anew. One that changes makes every committed result of it stale, so all those libcs must be there.
fn write_trace(file: &Path, trace: &[u8]) {
    if std::fs::read(file).is_ok_and(|committed| committed == trace) {
        return;
    }
    let there: Vec<_> = oracles().iter().map(|oracle| oracle.version.as_str()).collect();
    let missing: Vec<_> = GOLDEN_LIBCS.iter().filter(|libc| !there.contains(libc)).collect();
    assert!(missing.is_empty(), "{} changes, and its results of {missing:?} cannot be written anew", file.display());
    std::fs::write(file, trace).expect("the directory exists");
}

#[test]
fn the_golden_traces_lead_to_the_chunks_of_the_libcs_that_wrote_their_results() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/placement");
    let write = std::env::var_os("XALLOC_PLACEMENT_WRITE_GOLDEN").is_some_and(|value| value == "1");
    for (name, seed, plan) in GOLDEN {
        let trace_file = directory.join(format!("{name}.trace"));
        if write {
            write_trace(&trace_file, &trace::encode(&generate(seed, plan)));
        }
        let ops = trace::decode(&std::fs::read(trace_file).expect("the trace is committed"));
        for libc in GOLDEN_LIBCS {
            let result_file = directory.join(format!("{name}.{libc}.result"));
            if write && let Some(oracle) = oracles().iter().find(|oracle| oracle.version == libc) {
                let real = trace::encode_outcomes(&oracle.run(&ops, ""));
                std::fs::write(&result_file, real).expect("the directory exists");
            }
            let real = trace::decode_outcomes(&std::fs::read(result_file).expect("the result is committed"));
            let policy = Policy::for_libc(libc).expect("it has a profile");
            let ours = simulate(&policy, &Tunables::NONE, &ops);
            assert_eq!((ops.len(), real.len()), (plan.ops, plan.ops), "{name} is whole");
            if let Some(at) = first_difference(&real, &ours) {
                panic!("{name}, operation {at} {:?}:\n  glibc {libc} {:x?}\n  ours {:x?}", ops[at], real[at], ours[at]);
            }
        }
    }
}
