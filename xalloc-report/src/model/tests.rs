//! The model against hand-made truths, and against a recount of all events that knows no cleverness.

use std::collections::BTreeMap;

use proptest::prelude::*;
use xalloc_core::wire::{Call, FaultKind, HeapCall, LossReason};

use super::sample::{Sample, Stream, server, server_with_child};
use super::{Aggregates, Model, Settings, Timeline};
use crate::trace::{Block, Event, LiveChange, Loss, ProcessEvent, ProcessIndex, Sampling, StackIndex};

fn replayed(sample: &Sample, settings: Settings) -> Model {
    let all = (0..sample.streams.len() as u32).map(ProcessIndex);
    Model::of(sample, all, settings).expect("a sample has no errors")
}

fn one_process(stream: Stream, stacks: usize) -> Sample {
    let mut sample = Sample::default();
    let frames: Vec<_> = (0..stacks).map(|nth| sample.frame("app", nth as u64, &[])).collect();
    for frame in frames {
        sample.stack(&[frame]);
    }
    sample.process(1, "app", &["a", "b", "c"], stream);
    sample
}

fn of_stream(stream: Stream, stacks: usize) -> Aggregates {
    replayed(&one_process(stream, stacks), Settings::default()).sum
}

const HERE: StackIndex = StackIndex(2);

#[test]
fn a_block_that_is_never_freed_is_alive_at_exit_with_its_age() {
    let mut stream = Stream::default();
    stream.alloc(0, HERE, 100);
    stream.after_us(7).alloc(1, HERE, 28);
    stream.after_us(3).push(0, StackIndex::NONE, Event::Process(ProcessEvent::Exit { status: 0 }));
    let sum = of_stream(stream, 1);
    let alive = &sum.sites[0].alive;
    assert_eq!((alive.bytes, alive.blocks, alive.oldest_ns, alive.youngest_ns), (128, 2, 10_000, 3_000));
    assert_eq!(alive.threads.len(), 2);
    assert_eq!((sum.totals.alive_bytes, sum.totals.alive_blocks), (128, 2));
}

#[test]
fn a_realloc_is_one_free_and_one_allocation_and_a_failed_one_is_neither() {
    let mut stream = Stream::default();
    let block = stream.alloc(0, HERE, 10);
    let block = stream.after_us(1).realloc(0, block, HERE, 30);
    stream.after_us(1).realloc_fails(0, block);
    let sum = of_stream(stream, 1);
    assert_eq!((sum.totals.allocations, sum.totals.frees, sum.totals.allocated_bytes), (2, 1, 40));
    assert_eq!((sum.reallocs.moved, sum.reallocs.in_place, sum.reallocs.undone), (1, 0, 1));
    assert_eq!(sum.reallocs.copied_bytes, 10);
    assert_eq!((sum.totals.alive_bytes, sum.totals.alive_blocks), (30, 1));
    assert_eq!(sum.lifetime.count(), 1);
}

#[test]
fn a_realloc_that_was_cut_off_has_given_its_block_back() {
    let mut stream = Stream::default();
    let block = stream.alloc(0, HERE, 10);
    stream.realloc_begin(0, block);
    let sum = of_stream(stream, 1);
    assert_eq!((sum.totals.frees, sum.totals.alive_blocks), (1, 0));
}

#[test]
fn a_malloc_after_a_cut_realloc_is_no_reallocation() {
    let mut stream = Stream::default();
    let block = stream.alloc(0, HERE, 10);
    stream.realloc_begin(0, block);
    stream.alloc_by(0, HERE, 20, Call::Malloc);
    let sum = of_stream(stream, 1);
    assert_eq!((sum.totals.allocations, sum.totals.frees), (2, 1));
    assert_eq!(sum.reallocs.moved + sum.reallocs.in_place, 0);
}

#[test]
fn temporary_is_what_its_own_thread_frees_before_its_next_allocation() {
    let mut stream = Stream::default();
    let own = stream.alloc(0, HERE, 1);
    stream.alloc(1, HERE, 2);
    stream.free(0, own);
    let late = stream.alloc(0, HERE, 4);
    let foreign = stream.alloc(0, HERE, 8);
    stream.free(0, late);
    stream.free(1, foreign);
    let sum = of_stream(stream, 1);
    assert_eq!((sum.totals.temporary, sum.totals.temporary_bytes), (1, 1));
    assert_eq!(sum.totals.foreign_frees, 1);
}

#[test]
fn a_wider_threshold_takes_in_what_was_freed_later() {
    let mut sample = Sample::default();
    let frame = sample.frame("app", 0, &[]);
    let here = sample.stack(&[frame]);
    let mut stream = Stream::default();
    let first = stream.alloc(0, here, 1);
    let second = stream.alloc(0, here, 1);
    stream.free(0, first);
    stream.free(0, second);
    sample.process(1, "app", &["a"], stream);
    let temporary = |threshold| {
        let settings = Settings { temporary_threshold: threshold };
        replayed(&sample, settings).sum.totals.temporary
    };
    assert_eq!((temporary(0), temporary(1), temporary(2)), (0, 1, 2));
}

#[test]
fn a_free_that_nothing_explains_is_a_second_one_only_where_no_event_is_missing() {
    let mut sample = server();
    let freed = sample.streams[0].entries.iter().rev().find_map(|entry| match entry.event.live_change() {
        Some(LiveChange::Ends { block, .. }) => Some(block.addr),
        _ => None,
    });
    let addr = freed.expect("the server frees");
    sample.streams[0].push(0, StackIndex::NONE, Event::FreeUnknown { addr });
    let faults = |sample: &Sample| replayed(sample, Settings::default()).processes[0].faults.len();
    assert_eq!(faults(&sample), 1);
    sample.contents.processes[0].losses = vec![Loss { reason: LossReason::RingFull, events: 1 }];
    assert_eq!(faults(&sample), 0);
    sample.streams[0].push(0, StackIndex::NONE, Event::Fault { addr, kind: FaultKind::DoubleFree });
    assert_eq!(faults(&sample), 1, "the heap noticed it");
}

#[test]
fn a_child_neither_allocated_nor_leaks_what_it_has_from_its_parent() {
    let sample = server_with_child();
    let model = replayed(&sample, Settings::default());
    let child = &model.processes[1];
    assert_eq!((child.totals.allocations, child.totals.frees), (1, 0));
    assert_eq!((child.totals.alive_bytes, child.totals.alive_blocks), (64, 1));
    assert_eq!((child.inherited.blocks, child.inherited.bytes), (2, 1200));
    assert_eq!((child.inherited.freed_blocks, child.inherited.freed_bytes), (1, 500));
    assert_eq!(child.peak.bytes, 64);
}

#[test]
fn processes_add_up_and_the_time_of_a_common_peak_is_not_known() {
    let alone = replayed(&server(), Settings::default());
    let both = replayed(&server_with_child(), Settings::default());
    assert_eq!(both.sum.totals.allocations, alone.sum.totals.allocations + 1);
    assert_eq!(both.sum.peak.bytes, alone.sum.peak.bytes + 64);
    assert!(alone.sum.peak.at_ns.is_some());
    assert_eq!(both.sum.peak.at_ns, None);
    assert_eq!(both.sum.sites.len(), alone.sum.sites.len());
    assert_eq!(both.sum.heap_unknown_processes, 1);
}

#[test]
fn the_heap_line_follows_the_break_of_the_core_allocator() {
    let sum = replayed(&server(), Settings::default()).sum;
    let last = sum.timeline.buckets().last().expect("there were events");
    assert_eq!(last.heap_bytes, 0x11000);
    assert_eq!(sum.timeline.buckets().iter().map(|b| b.heap_max_bytes).max(), Some(0x21000));
    assert!(sum.heap_known());
}

#[test]
fn a_slot_that_is_filled_twice_displaces_the_first_block_and_breaks_nothing() {
    let mut stream = Stream::default();
    let slot = stream.alloc(0, HERE, 10);
    let block = stream.block_in(slot);
    stream.push(0, HERE, Event::Alloc { slot, block, arena_seq: None });
    stream.free(0, slot);
    stream.push(0, StackIndex(99), Event::Free { slot, block });
    let sum = of_stream(stream, 1);
    assert_eq!((sum.totals.allocations, sum.totals.frees, sum.totals.alive_blocks), (2, 1, 0));
}

/// What the program of a property test does next.
#[derive(Clone, Debug)]
enum Op {
    Alloc { thread: u32, stack: u32, size_bytes: u64 },
    Free { thread: u32, victim: usize },
    Realloc { thread: u32, victim: usize, stack: u32, size_bytes: u64, fails: bool },
    Wait { us: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let (thread, stack, size) = (0..3u32, 2..7u32, 0..5_000u64);
    prop_oneof![
        4 => (thread.clone(), stack.clone(), size.clone())
            .prop_map(|(thread, stack, size_bytes)| Op::Alloc { thread, stack, size_bytes }),
        3 => (thread.clone(), any::<usize>()).prop_map(|(thread, victim)| Op::Free { thread, victim }),
        2 => (thread, any::<usize>(), stack, size, any::<bool>()).prop_map(
            |(thread, victim, stack, size_bytes, fails)| Op::Realloc { thread, victim, stack, size_bytes, fails }
        ),
        1 => (0..3_000u64).prop_map(|us| Op::Wait { us }),
    ]
}

fn written(ops: &[Op]) -> Stream {
    let mut stream = Stream::default();
    for op in ops {
        let live = stream.live_slots();
        match *op {
            Op::Alloc { thread, stack, size_bytes } => {
                stream.alloc(thread, StackIndex(stack), size_bytes);
            }
            Op::Free { thread, victim } if !live.is_empty() => stream.free(thread, live[victim % live.len()]),
            Op::Realloc { thread, victim, stack, size_bytes, fails } if !live.is_empty() => {
                let slot = live[victim % live.len()];
                if fails {
                    stream.realloc_fails(thread, slot);
                } else {
                    stream.realloc(thread, slot, StackIndex(stack), size_bytes);
                }
            }
            Op::Wait { us } => {
                stream.after_us(us);
            }
            Op::Free { .. } | Op::Realloc { .. } => {}
        }
    }
    stream
}

fn given_back(event: &Event<'_>) -> Option<u32> {
    if let Event::Free { slot, .. } | Event::ReallocBegin { slot, .. } = *event { Some(slot) } else { None }
}

/// Live blocks after the first `events` events: (stack, size, thread) by slot. Recounts from the beginning each time.
fn live_after(stream: &Stream, events: usize) -> BTreeMap<u32, (StackIndex, u64)> {
    let mut live = BTreeMap::new();
    for entry in &stream.entries[..events] {
        if let Event::Alloc { slot, block, .. } | Event::ReallocUndo { slot, block } = entry.event {
            live.insert(slot, (block.stack, block.size_bytes));
        } else if let Some(slot) = given_back(&entry.event) {
            live.remove(&slot);
        }
    }
    live
}

fn by_stack(live: &BTreeMap<u32, (StackIndex, u64)>) -> BTreeMap<StackIndex, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for &(stack, size) in live.values() {
        let sum: &mut (u64, u64) = sums.entry(stack).or_default();
        *sum = (sum.0 + size, sum.1 + 1);
    }
    sums
}

/// The temporary allocations by definition: freed by their thread with fewer than `threshold` allocations between.
fn temporary(stream: &Stream, threshold: usize) -> u64 {
    let mut count = 0;
    for (place, entry) in stream.entries.iter().enumerate() {
        let Event::Alloc { slot, block, .. } = entry.event else { continue };
        let mut between = 0;
        for later in &stream.entries[place + 1..] {
            let undone = || {
                let of_thread = stream.entries[place + 1..].iter().skip_while(|e| e.seq <= later.seq);
                let next = of_thread.filter(|e| e.thread == later.thread).map(|e| e.event).next();
                matches!(next, Some(Event::ReallocUndo { .. }))
            };
            if matches!(later.event, Event::Alloc { .. }) && later.thread == block.thread {
                between += 1;
            }
            if given_back(&later.event) == Some(slot) && !undone() {
                count += u64::from(later.thread == block.thread && between < threshold);
                break;
            }
        }
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_the_summary_shows_is_added_up_alike_for_it_alone(ops in prop::collection::vec(op(), 0..120)) {
        assert_as_brief(&one_process(written(&ops), 5), Settings::default());
    }

    #[test]
    fn one_pass_finds_what_a_recount_of_all_events_finds(ops in prop::collection::vec(op(), 0..120)) {
        let stream = written(&ops);
        let entries = stream.entries.len();
        let at_end = by_stack(&live_after(&stream, entries));
        // The first instant at which the live bytes are largest.
        let mut peak = (0, None);
        for events in 1..=entries {
            let live = live_after(&stream, events);
            let bytes: u64 = live.values().map(|(_, size)| size).sum();
            if bytes > peak.0 {
                peak = (bytes, Some((events, live)));
            }
        }
        let at_peak = peak.1.as_ref().map(|(_, live)| by_stack(live)).unwrap_or_default();
        let peak_at_ns = peak.1.as_ref().map(|(events, _)| stream.entries[events - 1].at_ns);
        let allocations = stream.entries.iter().filter(|e| matches!(e.event, Event::Alloc { .. })).count() as u64;
        let allocated: u64 = stream.entries.iter().map(|e| {
            if let Event::Alloc { block, .. } = e.event { block.size_bytes } else { 0 }
        }).sum();
        let undone = stream.entries.iter().filter(|e| matches!(e.event, Event::ReallocUndo { .. })).count() as u64;
        let ends = stream.entries.iter().filter(|e| given_back(&e.event).is_some()).count() as u64;
        let temporary = temporary(&stream, 1);

        let sum = of_stream(stream, 5);
        prop_assert_eq!(sum.peak.bytes, peak.0);
        prop_assert_eq!(sum.peak.at_ns, peak_at_ns);
        prop_assert_eq!(sum.totals.allocations, allocations);
        prop_assert_eq!(sum.totals.allocated_bytes, allocated);
        prop_assert_eq!(sum.totals.frees, ends - undone);
        prop_assert_eq!(sum.totals.temporary, temporary);
        prop_assert_eq!(sum.totals.allocations - sum.totals.frees, sum.totals.alive_blocks);
        prop_assert_eq!(sum.requested.count(), allocations);
        prop_assert_eq!(sum.lifetime.count(), sum.totals.frees);
        prop_assert_eq!(sum.sites.iter().map(|s| s.allocations).sum::<u64>(), allocations);
        prop_assert_eq!(sum.threads.iter().map(|t| t.allocations).sum::<u64>(), allocations);
        for site in &sum.sites {
            let held = at_peak.get(&site.stack).copied().unwrap_or_default();
            prop_assert_eq!((site.at_peak.bytes, site.at_peak.blocks), held);
            let left = at_end.get(&site.stack).copied().unwrap_or_default();
            prop_assert_eq!((site.alive.bytes, site.alive.blocks), left);
        }
        let buckets = sum.timeline.buckets();
        prop_assert_eq!(buckets.iter().map(|b| b.live_max_bytes).max().unwrap_or(0), peak.0);
        prop_assert_eq!(buckets.iter().map(|b| b.allocations).sum::<u64>(), allocations);
    }
}

/// That what the summary shows is the same in both.
fn assert_as_brief(sample: &Sample, settings: Settings) {
    let all = || (0..sample.streams.len() as u32).map(ProcessIndex);
    let (full, brief) =
        (replayed(sample, settings), Model::brief(sample, all(), settings).expect("a sample has no errors"));
    assert_eq!(full.processes, brief.processes);
    let (full, brief) = (full.sum, brief.sum);
    assert_eq!(full.totals, brief.totals);
    assert_eq!((full.reallocs, full.inherited, full.peak), (brief.reallocs, brief.inherited, brief.peak));
    assert_eq!(full.threads, brief.threads);
    let stacks = |sum: &Aggregates| sum.stacks.iter().collect::<Vec<_>>();
    assert_eq!(stacks(&full), stacks(&brief));
    assert_eq!(full.stacks.count(), full.sites.len() as u64);
    let spans = |sum: &Timeline| (sum.width_ns(), sum.buckets().iter().map(|b| b.live_max_bytes).collect::<Vec<_>>());
    assert_eq!(spans(&full.timeline), spans(&brief.timeline));
    assert_eq!((full.marks, full.errors), (brief.marks, brief.errors));
}

#[test]
fn a_summary_is_the_same_whether_all_is_added_up_or_only_what_it_shows() {
    for sample in [server(), server_with_child(), thinned(server_with_child(), 100)] {
        for temporary_threshold in [0, 1, 5] {
            assert_as_brief(&sample, Settings { temporary_threshold });
        }
    }
}

/// A sample of which it is said that one byte in so many was looked at.
fn thinned(mut sample: Sample, mean_bytes: u32) -> Sample {
    sample.contents.recording.sampling = Sampling::of_mean(mean_bytes);
    sample
}

#[test]
fn a_sampled_request_that_failed_counts_for_what_it_stands_for() {
    let mut stream = Stream::default();
    for _ in 0..1000 {
        stream.push(0, HERE, Event::AllocFailed { size_bytes: 99, call: Call::Malloc });
    }
    let sample = one_process(stream, 1);
    let failed = |sample: &Sample| replayed(sample, Settings::default()).sum.totals.failed;
    assert_eq!(failed(&sample), 1000);
    let sampled = thinned(sample, 200);
    let sampling = sampled.contents.recording.sampling.expect("it was set");
    assert!((failed(&sampled) as f64 - 1000.0 / sampling.chance(99)).abs() < 2.0);
    assert_as_brief(&sampled, Settings::default());
}

/// All blocks that were allocated.
fn blocks_of(sample: &Sample) -> impl Iterator<Item = Block> {
    let entries = sample.streams.iter().flat_map(|stream| &stream.entries);
    entries.filter_map(|entry| if let Event::Alloc { block, .. } = entry.event { Some(*block) } else { None })
}

#[test]
fn a_sampled_block_counts_for_what_it_stands_for_wherever_it_is_counted() {
    let sample = thinned(server_with_child(), 100);
    let sampling = sample.contents.recording.sampling.expect("it was set");
    let sum = replayed(&sample, Settings::default()).sum;
    let sizes: Vec<u64> = blocks_of(&sample).map(|block| block.size_bytes).collect();
    let bytes: u64 = sizes.iter().map(|&size| sampling.bytes(size)).sum();
    assert_eq!(sum.totals.allocated_bytes, bytes);
    assert_eq!(sum.totals.allocations, sum.totals.frees + sum.totals.alive_blocks);
    let blocks: f64 = sizes.iter().map(|&size| 1.0 / sampling.chance(size)).sum();
    assert!((sum.totals.allocations as f64 - blocks).abs() < sizes.len() as f64 / 2.0);
    for spread in [&sum.requested, &sum.usable] {
        assert_eq!(spread.count(), sum.totals.allocations);
    }
    assert_eq!(sum.requested.sum(), bytes);
    let usable: u64 = blocks_of(&sample)
        .map(|block| sampling.weighted(block.size_bytes, block.size_bytes + u64::from(block.slack_bytes)))
        .sum();
    assert_eq!(sum.usable.sum(), usable);
    assert_eq!(sum.lifetime.count(), sum.totals.frees);
    assert_eq!(sum.sites.iter().map(|site| site.recorded).sum::<u64>(), sizes.len() as u64);
    assert_eq!(sum.threads.iter().map(|thread| thread.allocations).sum::<u64>(), sum.totals.allocations);
    assert_eq!(sum.sites.iter().map(|site| site.at_peak.bytes).sum::<u64>(), sum.peak.bytes);
    assert_eq!(sum.inherited.bytes, sampling.bytes(500) + sampling.bytes(700));
    let told = sum.timeline.buckets().iter().map(|bucket| bucket.allocated_bytes).sum::<u64>();
    assert_eq!(told, sum.totals.allocated_bytes);
    let variance: f64 = sizes.iter().map(|&size| sampling.variance(size).bytes).sum();
    assert_eq!(sum.errors.map(|errors| errors.allocated_bytes()), Some(variance.sqrt().ceil() as u64));
}

#[test]
fn nothing_is_in_doubt_where_every_byte_was_looked_at_or_nothing_was_said_of_samples() {
    let exact = replayed(&server(), Settings::default()).sum;
    let sampled = replayed(&thinned(server(), 1), Settings::default()).sum;
    assert_eq!(exact.totals, sampled.totals);
    assert_eq!(exact.peak, sampled.peak);
    assert_eq!(exact.errors, None);
    let errors = sampled.errors.expect("it is sampled");
    // A block of a few bytes is not quite sure to be met.
    assert!(errors.allocations() <= 1);
    assert!(errors.alive_bytes() <= 1 && errors.peak_bytes() <= 1);
}

#[test]
fn an_allocation_that_was_not_recorded_ends_the_time_of_a_temporary_block() {
    let passed = Event::HeapCall { call: HeapCall::Passed, argument: 0, value: 0 };
    let mut stream = Stream::default();
    let at_once = stream.alloc(0, HERE, 100);
    stream.free(0, at_once);
    stream.push(0, StackIndex::NONE, passed);
    let later = stream.alloc(0, HERE, 100);
    stream.push(0, StackIndex::NONE, passed);
    stream.free(0, later);
    let sum = of_stream(stream, 1);
    assert_eq!((sum.totals.allocations, sum.totals.temporary), (2, 1));
}
