//! Heaps with a known culprit, each with a twin that has none.

use xalloc_core::units::PAGE_BYTES;

use super::*;
use crate::analysis::frames::CallStack;
use crate::model::sample::Sample;
use crate::model::sample::simulated::Simulated;
use crate::trace::{Entry, Mapping, PagesFrom, Reason, Snapshot};

fn look(sample: &Sample, at: At) -> Fragmentation {
    fragmentation(sample, ProcessIndex(0), at, Predict::Never).expect("the books balance")
}

fn at_exit(program: Simulated) -> Fragmentation {
    look(&program.finish(Allocator::Core), At::Exit)
}

fn leaf(at: &CallStack) -> String {
    at.frames[0].name()
}

/// 150 blocks of 100,000 bytes, a small one behind them if so, and the large ones are freed again.
fn plugin_above_work(has_plugin: bool) -> (Fragmentation, u64, u64) {
    let mut program = Simulated::new();
    let (work, plugin) = (program.site("work"), program.site("plugin_register"));
    let keep = program.malloc(0, work, 64);
    let blocks: Vec<_> = (0..150).map(|_| program.malloc(0, work, 100_000)).collect();
    if has_plugin {
        program.malloc(0, plugin, 72);
    }
    let end = program.heap.break_bytes() + xalloc_core::heap::sim::BREAK_BASE;
    for block in blocks {
        program.free(0, block);
    }
    let lowest = (keep.block.addr + 64).next_multiple_of(16);
    (at_exit(program), end, lowest)
}

#[test]
fn a_small_block_above_what_was_freed_is_said_to_keep_the_top() {
    let (seen, end, lowest) = plugin_above_work(true);
    let step = &seen.staircase[0];
    assert_eq!((leaf(&step.at).as_str(), step.chunks, step.size), ("plugin_register", 1, 72));
    assert_eq!(step.gain_bytes, end - lowest.next_multiple_of(PAGE_BYTES) - (128 << 10));
    assert!(step.gain_bytes > 14 << 20);
    assert_eq!(seen.ladder.systrim, 0, "the top itself is small");
    let (twin, _, _) = plugin_above_work(false);
    assert_eq!(twin.staircase, []);
    assert!(twin.books.segments < 300 << 10, "what was freed went back by itself");
}

#[test]
fn no_step_gives_back_more_than_the_ideal_where_a_live_block_was_never_written_to() {
    let mut program = Simulated::new();
    let work = program.site("work");
    program.malloc(0, work, 100_000);
    let freed = program.malloc(0, work, 20_000);
    let base = xalloc_core::heap::sim::BREAK_BASE;
    let end = base + program.heap.break_bytes();
    let first = (freed.block.addr - base) / PAGE_BYTES;
    program.free(0, freed);
    let mut sample = program.finish(Allocator::Core);
    // The first page, and what was freed: four whole pages and the two at its ends.
    let mapping = Mapping {
        start: base,
        end,
        rights: 3,
        name: "[heap]".to_owned(),
        resident_bytes: 7 * PAGE_BYTES,
        anonymous_bytes: 7 * PAGE_BYTES,
        runs: Some(vec![(0, 1), (first as u32 - 1, 6)]),
    };
    sample.snapshots.push(Snapshot {
        process: ProcessIndex(0),
        at_ns: sample.contents.processes[0].ended_at_ns,
        reason: Reason::Exit,
        resident_bytes: 7 * PAGE_BYTES,
        swapped_bytes: 0,
        minor_faults: 7,
        major_faults: 0,
        pages_from: PagesFrom::Pagemap,
        mappings: vec![mapping],
        cost_ns: 1000,
    });
    let seen = look(&sample, At::Exit);
    assert_eq!((seen.residency, seen.ladder.resident), (ResidencyView::Measured, 7 * PAGE_BYTES));
    assert!(seen.ladder.malloc_trim >= 4 * PAGE_BYTES, "{:?}", seen.ladder);
    assert!(seen.ladder.after_flush <= seen.ladder.ideal, "{:?}", seen.ladder);
    // What the kernel counts beside the rows has its sign.
    let unexplained = [6, 7, 9].map(|pages| {
        sample.snapshots[0].resident_bytes = pages * PAGE_BYTES;
        look(&sample, At::Exit).rss.map(|rss| rss.unexplained)
    });
    assert_eq!(unexplained, [-4096, 0, 8192].map(Some));
    // Pages of a mapping that got its rights while it was looked at are in a row, too.
    let snapshot = &mut sample.snapshots[0];
    let grown =
        Mapping { start: end, end: end + PAGE_BYTES, rights: 0, name: String::new(), ..snapshot.mappings[0].clone() };
    snapshot.mappings.push(Mapping { resident_bytes: PAGE_BYTES, runs: Some(vec![(0, 1)]), ..grown });
    snapshot.resident_bytes = 8 * PAGE_BYTES;
    assert_eq!(look(&sample, At::Exit).rss.map(|rss| (rss.unexplained, rss.others_resident)), Some((0, PAGE_BYTES)));
}

/// A block of nearly a page and a small one behind it, 200 times; the large ones are freed.
fn one_small_block_a_page(has_small: bool, predict: Predict) -> Fragmentation {
    let mut program = Simulated::new();
    let (page, note) = (program.site("read_page"), program.site("keep_note"));
    let mut blocks = Vec::new();
    for _ in 0..200 {
        blocks.push(program.malloc(0, page, PAGE_BYTES - 64));
        if has_small {
            program.malloc(0, note, 40);
        }
    }
    for block in blocks {
        program.free(0, block);
    }
    let sample = program.finish(Allocator::Core);
    fragmentation(&sample, ProcessIndex(0), At::Exit, predict).expect("the books balance")
}

#[test]
fn one_small_block_on_each_page_pins_them_all() {
    let seen = one_small_block_a_page(true, Predict::Never);
    let pin = &seen.pins[0];
    assert_eq!((leaf(&pin.at).as_str(), pin.live_blocks, pin.live_bytes), ("keep_note", 200, 8_000));
    // A chunk of 48 bytes on each of 200 pages, which hold nothing else but the cache's bookkeeping on the first.
    let shares: u64 = seen.pins.iter().map(|pin| pin.share_bytes).sum();
    assert_eq!(shares, seen.pinned_bytes);
    assert!(pin.share_bytes + 2 * PAGE_BYTES > 200 * (PAGE_BYTES - 48), "{}", pin.share_bytes);
    assert!(pin.marginal_bytes >= 198 * PAGE_BYTES && pin.leverage > 90.0);
    assert_eq!(leaf(&seen.cover[0].at), "keep_note");
    assert!(pin.pin_byte_seconds > 0.0);
    let twin = one_small_block_a_page(false, Predict::Never);
    assert!(twin.pins.is_empty() && twin.cover.is_empty());
}

#[test]
fn a_fix_is_tried_for_who_pins_and_says_what_peak_and_end_would_be() {
    let fixes = one_small_block_a_page(true, Predict::Always).fixes;
    let unfixed = fixes.unfixed.expect("a fix was tried");
    assert!(fixes.identical == Some(true) && unfixed.end_footprint_bytes > 800 << 10);
    let best = &fixes.tried[0];
    let at = best.at.as_ref().expect("the fix is of a site");
    assert_eq!((best.finding, leaf(at).as_str(), best.calls), (Suggested::Pins, "keep_note", Some(200)));
    assert_eq!(best.option, format!("--pool {}", at.id));
    // 200 blocks of 48 bytes come from one slab of 64 KiB; without them the break goes back to its padding.
    assert_eq!(best.predicted.end_footprint_bytes, (64 << 10) + (132 << 10));
    assert!(best.saves(&unfixed));
    let twin = one_small_block_a_page(false, Predict::Always).fixes;
    assert_eq!(twin, FixesView::default(), "nothing is pinned, and nothing is tried");
}

#[test]
fn an_unlucky_size_is_named_with_those_that_would_waste_nothing() {
    let padded = |size| {
        let mut program = Simulated::new();
        let site = program.site("make_node");
        for _ in 0..1000 {
            program.malloc(0, site, size);
        }
        at_exit(program)
    };
    let seen = padded(25);
    let size = &seen.padding_by_size[0];
    assert_eq!((size.size_bytes, size.blocks, size.padding_bytes), (25, 1000, 15_000));
    assert_eq!((size.full_bytes, size.smaller_bytes), (40, Some(24)));
    assert_eq!((leaf(&size.at).as_str(), seen.padding), ("make_node", 15_000));
    let twin = padded(24);
    assert_eq!((twin.padding_by_size.len(), twin.padding), (0, 0));
}

#[test]
fn caches_full_of_one_size_are_told_by_thread_and_size() {
    let cached = |frees: usize| {
        let mut program = Simulated::new();
        let site = program.site("work");
        let thread = program.spawn("worker");
        let blocks: Vec<_> = (0..7).map(|_| program.malloc(thread, site, 1_000)).collect();
        for block in blocks.into_iter().take(frees) {
            program.free(thread, block);
        }
        at_exit(program)
    };
    let seen = cached(7);
    assert_eq!(seen.free.caches.len(), 1);
    assert_eq!(seen.free.caches[0].sizes, [SizeCount { chunk_bytes: 1_008, chunks: 7 }]);
    assert_eq!((seen.free.caches[0].thread.name.as_str(), seen.books.tcache), ("worker", 7_056));
    assert_eq!(cached(0).free.caches, []);
}

#[test]
fn what_a_consumer_frees_stays_in_the_producers_arena() {
    let handed = |is_own: bool| {
        let mut program = Simulated::new();
        let site = program.site("produce");
        let (producer, consumer) = (program.spawn("producer"), program.spawn("consumer"));
        let own = program.malloc(consumer, site, 2_000);
        program.malloc(producer, site, 2_000);
        let made = if is_own { consumer } else { producer };
        let blocks: Vec<_> = (0..200).map(|_| program.malloc(made, site, 2_000)).collect();
        program.malloc(made, site, 2_000);
        for block in blocks {
            program.free(consumer, block);
        }
        // What the consumer needs next comes from its own arena.
        let arena = own.block.arena.0;
        for _ in 0..150 {
            program.malloc(consumer, site, 2_000);
        }
        let seen = at_exit(program);
        let other = seen.arenas.iter().filter(|view| view.arena.is_some_and(|number| number != arena && number != 0));
        other.map(|view| view.books.bin_free).sum::<u64>()
    };
    assert_eq!(handed(false), 200 * 2_016);
    assert_eq!(handed(true), 0);
}

#[test]
fn a_growth_although_enough_was_free_is_external_fragmentation() {
    let grown = |is_scattered: bool| {
        let mut program = Simulated::new();
        let (fill, hold, large) = (program.site("fill"), program.site("hold"), program.site("load_image"));
        let mut blocks = Vec::new();
        for _ in 0..200 {
            blocks.push(program.malloc(0, fill, 3_000));
            if is_scattered {
                program.malloc(0, hold, 40);
            }
        }
        program.malloc(0, hold, 2_000);
        for block in blocks {
            program.free(0, block);
        }
        program.malloc(0, large, 120_000);
        at_exit(program)
    };
    let seen = grown(true);
    let [growth] = &seen.external[..] else { panic!("{:?}", seen.external) };
    assert_eq!((leaf(&growth.at).as_str(), growth.events, growth.needed_bytes), ("load_image", 1, 120_016));
    assert_eq!(growth.largest_free_bytes, Some(3_008));
    assert_eq!(growth.separated_by.as_ref().map(leaf), Some("hold".to_owned()));
    assert!(growth.free_bytes > 600_000 && growth.rule == "no-fit", "{growth:?}");
    assert_eq!(grown(false).external, []);
}

#[test]
fn a_moved_mmap_threshold_is_told_with_who_moved_it() {
    let moved = |size| {
        let mut program = Simulated::new();
        let site = program.site("decode");
        let block = program.malloc(0, site, size);
        program.free(0, block);
        at_exit(program).mmap_threshold
    };
    let threshold = moved(3 << 20).expect("it moved");
    assert_eq!(threshold.bytes, (3 << 20) + 4096);
    assert_eq!(moved(100_000), None);
}

#[test]
fn the_moment_is_the_one_that_is_asked_for() {
    let mut program = Simulated::new();
    let site = program.site("work");
    let kept = program.malloc(0, site, 1_000);
    let block = program.malloc(0, site, 50_000);
    program.free(0, block);
    program.realloc(0, site, kept, 2_000);
    let sample = program.finish(Allocator::Core);
    let peak = look(&sample, At::Peak);
    assert_eq!((peak.requested, peak.blocks), (51_000, 2));
    assert_eq!(look(&sample, At::Seq(peak.seq - 1)), peak);
    assert_eq!(look(&sample, At::Time(peak.at_ns)).requested, 51_000);
    let exit = look(&sample, At::Exit);
    assert_eq!((exit.requested, exit.blocks), (2_000, 1));
    assert!(!exit.map.is_empty() && exit.map.last().is_some_and(|column| column.requested == 2_000));
    assert_eq!(look(&sample, At::Time(exit.at_ns)).requested, 2_000);
    let last = sample.streams[0].entries.last().expect("there are events");
    assert_eq!(look(&sample, At::Seq(last.seq)).requested, 2_000);
    for beyond in [At::Time(last.at_ns + 1), At::Seq(last.seq + 1), At::Seq(u64::MAX)] {
        let error = fragmentation(&sample, ProcessIndex(0), beyond, Predict::Never).expect_err("nothing was there");
        assert!(matches!(error, FragmentationError::AfterTheEnd { .. }), "{error}");
    }
}

#[test]
fn without_steps_there_is_no_layout_and_the_report_says_so() {
    let mut program = Simulated::new();
    let site = program.site("work");
    program.malloc(0, site, 1_000);
    let mut sample = program.finish(Allocator::Core);
    sample.streams[0].entries.retain(|entry| !matches!(entry.event, crate::trace::Event::Heap { .. }));
    let error =
        fragmentation(&sample, ProcessIndex(0), At::Exit, Predict::Never).expect_err("nothing is known of the heap");
    assert!(matches!(error, FragmentationError::NoSteps), "{error}");
}

#[test]
fn a_lost_step_is_an_imbalance_and_not_a_wrong_figure() {
    let mut program = Simulated::new();
    let site = program.site("work");
    let blocks: Vec<_> = (0..20).map(|_| program.malloc(0, site, 5_000)).collect();
    program.malloc(0, site, 100);
    for block in blocks.into_iter().step_by(2) {
        program.free(0, block);
    }
    let mut sample = program.finish(Allocator::Core);
    let is_bin = |entry: &Entry<'_>| {
        matches!(entry.event, crate::trace::Event::Heap { step: xalloc_core::wire::HeapEvent::Split { .. }, .. })
    };
    let lost = sample.streams[0].entries.iter().rposition(is_bin).expect("there are splits");
    sample.streams[0].entries.remove(lost);
    let error = fragmentation(&sample, ProcessIndex(0), At::Exit, Predict::Never).expect_err("a step is missing");
    assert!(matches!(error, FragmentationError::Imbalance(_)), "{error}");
}

#[test]
fn the_rung_of_the_automatic_trim_follows_what_the_program_tuned() {
    const M_TRIM_THRESHOLD: i32 = -1;
    const M_TOP_PAD: i32 = -2;
    let systrim = |tuned: &[(i32, i32)]| {
        let mut program = Simulated::new();
        let site = program.site("work");
        program.malloc(0, site, 100);
        let block = program.malloc(0, site, 100_000);
        program.free(0, block);
        for &(parameter, value) in tuned {
            program.mallopt(parameter, value);
        }
        at_exit(program).ladder.systrim
    };
    assert_eq!(systrim(&[]), 0, "the top is smaller than the threshold");
    // 25 pages of the top were written to.
    let all = systrim(&[(M_TRIM_THRESHOLD, 4096), (M_TOP_PAD, 0)]);
    assert_eq!(all, 24 * PAGE_BYTES);
    let padded = systrim(&[(M_TRIM_THRESHOLD, 4096), (M_TOP_PAD, 64 << 10)]);
    assert!(padded > 0 && padded < all, "{padded}");
    assert_eq!(systrim(&[(M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 0)]), 0, "-1 means never");
}

#[test]
fn who_outlives_what_was_born_beside_it_is_told_apart() {
    let isolation = |is_last: bool| {
        let seen = one_small_block_a_page(is_last, Predict::Never);
        seen.pins.first().and_then(|pin| pin.isolation)
    };
    assert_eq!(isolation(true), Some(1.0), "every page that was read is dead");
    assert_eq!(isolation(false), None, "nobody is left");
    let mut program = Simulated::new();
    let site = program.site("work");
    let blocks: Vec<_> = (0..100).map(|_| program.malloc(0, site, 64)).collect();
    program.free(0, blocks[10]);
    let seen = at_exit(program);
    let share = seen.pins[0].isolation.expect("they have neighbours");
    assert!(share > 0.0 && share < 0.05, "{share}");
}

#[test]
fn what_another_thread_frees_is_counted_where_it_was_allocated() {
    let handed = |is_own: bool| {
        let mut program = Simulated::new();
        let site = program.site("produce");
        let consumer = program.spawn("consumer");
        let blocks: Vec<_> = (0..5).map(|_| program.malloc(0, site, 300)).collect();
        for block in blocks {
            program.free(if is_own { 0 } else { consumer }, block);
        }
        at_exit(program).cross_thread_frees
    };
    let seen = handed(false);
    assert_eq!((seen.frees, seen.bytes, seen.sites.len()), (5, 1_500, 1));
    assert_eq!(leaf(&seen.sites[0].at), "produce");
    assert_eq!(handed(true), CrossThreadView::default());
}

#[test]
fn page_faults_are_charged_to_who_writes_first() {
    let mut program = Simulated::new();
    let (fill, reuse) = (program.site("fill"), program.site("reuse"));
    let block = program.malloc(0, fill, 100_000);
    program.free(0, block);
    program.malloc(0, reuse, 90_000);
    let seen = at_exit(program).system_calls;
    let faults = |name: &str| {
        let site = seen.sites.iter().find(|site| leaf(&site.at) == name);
        site.map_or(0, |site| site.calls.page_faults)
    };
    // 24 pages and a half of the block, and the cache's bookkeeping below it.
    assert_eq!((faults("fill"), faults("reuse")), (25, 0));
    assert_eq!(seen.total.page_faults, 25);
}

#[test]
fn the_index_of_unusable_free_space_is_weighed_by_what_was_asked_for() {
    let asked = |last: u64| {
        let mut program = Simulated::new();
        let (fill, hold) = (program.site("fill"), program.site("hold"));
        let mut blocks = Vec::new();
        for _ in 0..50 {
            blocks.push(program.malloc(0, fill, 3_000));
            program.malloc(0, hold, 40);
        }
        for block in blocks {
            program.free(0, block);
        }
        for _ in 0..1024 {
            program.malloc(0, hold, last);
        }
        at_exit(program).free.unusable_for_requests.expect("something is free")
    };
    assert!(asked(5_000) > 0.99, "no free chunk serves it");
    assert!(asked(16) < 0.01, "any free chunk serves it");
}
