//! What goes into a trace comes out of it: against a naive matcher, over forks, from checkpoints, cut and damaged.

use proptest::prelude::*;

use std::path::PathBuf;

use xalloc_core::units::{Addr, StackId, Stamp};
use xalloc_core::wire;

use super::*;

mod disk;
mod keep;
mod naive;
mod program;
mod skimmed;

use disk::Disk;
use keep::Keep;
use naive::Naive;
use program::{STACKS, apart, contents, events, push, steps, text, together};

fn write(events: &[Incoming]) -> Vec<u8> {
    let disk = Disk::of(usize::MAX);
    let contents = contents(1, 3, STACKS);
    let mut writer = Writer::new(Box::new(disk.clone()), None).unwrap();
    writer.sync_contents(&contents);
    writer.set_checkpoint_interval(65_536);
    writer.begin_process(ProcessIndex(0), None).unwrap();
    push(&mut writer, 0, events).unwrap();
    writer.finish(contents).unwrap();
    disk.bytes()
}

fn replay(trace: &Trace, process: u32) -> Keep {
    let mut keep = Keep::default();
    trace.replay(ProcessIndex(process), &mut keep).unwrap();
    keep
}

proptest! {
    #[test]
    fn what_is_read_is_what_a_naive_matcher_makes_of_what_was_written(steps in steps(800)) {
        let events = events(&steps);
        let mut naive = Naive::default();
        events.iter().for_each(|event| naive.push(event));
        naive.finish();
        let trace = Trace::from_bytes(write(&events)).unwrap();
        prop_assert_eq!(replay(&trace, 0).told, naive.told);
        let Repairs { unknown_frees, implied_frees, .. } = trace.contents().processes[0].repairs;
        prop_assert_eq!(Repairs { unknown_frees, implied_frees, late_events: 0 }, naive.repairs);
        prop_assert_eq!(&trace.contents().recording.salvage, &None);
    }

    #[test]
    fn a_record_of_several_events_reads_as_those_events(steps in steps(800)) {
        let together = together(&events(&steps));
        let apart: Vec<_> = together.iter().flat_map(apart).collect();
        prop_assert!(together.len() <= apart.len());
        let read = |events: &[Incoming]| replay(&Trace::from_bytes(write(events)).unwrap(), 0).told;
        prop_assert_eq!(read(&together), read(&apart));
    }

    #[test]
    fn a_fork_begins_with_the_blocks_that_its_parent_had(before in steps(300), parent in steps(300), child in steps(300)) {
        let disk = Disk::of(usize::MAX);
        let contents = contents(2, 3, STACKS);
        let mut writer = Writer::new(Box::new(disk.clone()), None).unwrap();
        writer.sync_contents(&contents);
        writer.begin_process(ProcessIndex(0), None).unwrap();
        let mut naive = Naive::default();
        push(&mut writer, 0, &events(&before)).unwrap();
        events(&before).iter().for_each(|event| naive.push(event));
        writer.begin_process(ProcessIndex(1), Some(ProcessIndex(0))).unwrap();
        let mut forked = naive.fork();
        let mut inherited: Vec<_> = forked.live.values().copied().collect();
        push(&mut writer, 0, &events(&parent)).unwrap();
        events(&parent).iter().for_each(|event| naive.push(event));
        push(&mut writer, 1, &events(&child)).unwrap();
        events(&child).iter().for_each(|event| forked.push(event));
        naive.finish();
        forked.finish();
        writer.finish(contents).unwrap();
        let trace = Trace::from_bytes(disk.bytes()).unwrap();
        let [of_parent, mut of_child]: [Keep; 2] =
            trace.replay_all(|_| Keep::default()).unwrap().try_into().ok().unwrap();
        prop_assert_eq!(of_parent.told, naive.told);
        prop_assert_eq!(of_child.told, forked.told);
        inherited.sort_by_key(|block| block.addr);
        of_child.inherited.sort_by_key(|block| block.addr);
        prop_assert_eq!(of_child.inherited, inherited);
    }

    #[test]
    fn random_bytes_behind_a_good_header_are_an_error_and_nothing_worse(bytes: Vec<u8>) {
        read_untrusted(&bytes);
        let mut headed = container::file_header(None);
        headed.extend_from_slice(&bytes);
        read_untrusted(&headed);
        prop_assert!(Trace::from_bytes(headed).unwrap().contents().recording.salvage.is_some());
    }
}

/// A run that allocates, frees and reallocates enough for several blocks and checkpoints.
fn long_run(len: usize) -> Vec<Incoming> {
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as u16
    };
    let steps: Vec<_> = (0..len).map(|_| ((random() % 91) as u8, (random() % 3) as u8, random(), random())).collect();
    events(&steps)
}

#[test]
fn starting_anywhere_tells_what_a_full_replay_would_have_told_from_there() {
    let events = long_run(230_000);
    let trace = Trace::from_bytes(write(&events)).unwrap();
    let full = replay(&trace, 0);
    let checkpoints = trace.checkpoints(ProcessIndex(0));
    assert!(!checkpoints.is_empty());
    let last = full.told.len() as u64;
    for seq in
        [1, 70_000, checkpoints[0] - 1, checkpoints[0], checkpoints[0] + 1, checkpoints[0] + 30_000, last, last + 1]
    {
        let mut keep = Keep::default();
        trace.replay_from(ProcessIndex(0), Moment::Seq(seq), &mut keep).unwrap();
        let from = seq.min(last) as usize;
        assert_eq!(keep.told.len(), full.told.len() - from, "from {seq}");
        assert!(keep.told == full.told[from..], "from {seq}");
        assert_eq!(keep.slots, full.slots, "from {seq}");
    }
    let at_ns = full.told[150_000].1;
    let mut keep = Keep::default();
    trace.replay_from(ProcessIndex(0), Moment::Time(at_ns), &mut keep).unwrap();
    let from = full.told.partition_point(|told| told.1 < at_ns);
    assert!(keep.told == full.told[from..]);
}

#[test]
fn a_window_is_told_whole_and_without_the_blocks_behind_it() {
    let trace = Trace::from_bytes(write(&long_run(230_000))).unwrap();
    let full = replay(&trace, 0);
    let at_ns = |seq: usize| full.told[seq].1;
    let by_time = (Moment::Time(at_ns(80_000)), Moment::Time(at_ns(81_000)));
    for (first, last) in [(Moment::Seq(80_000), Moment::Seq(81_000)), by_time] {
        let mut keep = Keep::default();
        trace.replay_within(ProcessIndex(0), first, Some(last), &mut keep).unwrap();
        let (from, wanted) = match (first, last) {
            (Moment::Seq(first), Moment::Seq(last)) => (first as usize, (last - first) as usize + 1),
            _ => {
                let from = full.told.partition_point(|told| told.1 < at_ns(80_000));
                (from, full.told.partition_point(|told| told.1 <= at_ns(81_000)) - from)
            }
        };
        assert!(keep.told.len() >= wanted && keep.told.len() < 140_000, "{}", keep.told.len());
        assert!(keep.told == full.told[from..from + keep.told.len()]);
    }
}

#[test]
fn reading_on_two_threads_tells_what_reading_on_one_does() {
    let trace = Trace::from_bytes(write(&long_run(200_000))).unwrap();
    let mut serial = Keep::default();
    trace.replay_on_one_thread(ProcessIndex(0), &mut serial).unwrap();
    let parallel = replay(&trace, 0);
    assert!(trace.events(ProcessIndex(0)) > 2 * 65_536);
    assert!(serial.told == parallel.told);
}

#[test]
fn progress_ends_at_the_bytes_that_were_announced() {
    let trace = Trace::from_bytes(write(&long_run(150_000))).unwrap();
    let mut done = Vec::new();
    let process = ProcessIndex(0);
    trace.replay_with_progress(process, Moment::Seq(0), &mut Keep::default(), &mut |bytes| done.push(bytes)).unwrap();
    assert!(done.is_sorted());
    assert_eq!(done.last(), Some(&trace.event_bytes(process)));
}

#[test]
fn contents_read_back_with_their_symbols() {
    let disk = Disk::of(usize::MAX);
    let mut contents = contents(2, 3, 20_000);
    let mut writer = Writer::new(Box::new(disk.clone()), None).unwrap();
    writer.sync_contents(&contents);
    contents.recording.end = Some(End::Exited(3));
    contents.recording.symbolized = true;
    contents.threads[1].ended_at_ns = Some(77);
    for (at, frame) in contents.frames.iter_mut().enumerate() {
        let outer = Function { name: format!("f{}", at % 700), file: None, line: None, inlined: false };
        let file = Some(PathBuf::from(format!("src/{}.c", at % 9)));
        let inner = Function { name: "λ::inner".into(), file, line: Some(at as u32 % 50), inlined: true };
        frame.functions = if at % 4 == 0 { vec![] } else { vec![inner, outer] };
        frame.jumped = (at % 7_000 == 0).then(|| format!("jumped {}", at % 2));
    }
    writer.finish(contents.clone()).unwrap();
    let trace = Trace::from_bytes(disk.bytes()).unwrap();
    assert_eq!(format!("{:?}", trace.contents()), format!("{contents:?}"));
}

#[test]
fn a_trace_cut_at_any_byte_reads_up_to_its_last_whole_block() {
    let events = long_run(400);
    let disk = Disk::of(usize::MAX);
    let contents = contents(1, 3, STACKS);
    let mut writer = Writer::new(Box::new(disk.clone()), None).unwrap();
    writer.sync_contents(&contents);
    writer.begin_process(ProcessIndex(0), None).unwrap();
    for (at, event) in events.iter().enumerate() {
        push(&mut writer, 0, std::slice::from_ref(event)).unwrap();
        if at % 100 == 99 {
            writer.flush().unwrap();
        }
    }
    writer.finish(contents).unwrap();
    let bytes = disk.bytes();
    let full = replay(&Trace::from_bytes(bytes.clone()).unwrap(), 0).told;
    let mut most = 0;
    for len in 0..bytes.len() {
        let trace = match Trace::from_bytes(bytes[..len].to_vec()) {
            Ok(trace) => trace,
            Err(error) => {
                assert!(len < container::FILE_HEADER_BYTES as usize, "{len}: {error}");
                continue;
            }
        };
        let salvage = trace.contents().recording.salvage.as_deref();
        assert!(salvage.is_some_and(|text| text.contains(&format!("of {len} bytes"))), "{len}: {salvage:?}");
        if !trace.contents().processes.is_empty() {
            let told = replay(&trace, 0).told;
            assert!(told.len() >= most && told == full[..told.len()], "{len}");
            let last_ns = told.last().map_or(0, |told| told.1);
            assert!(trace.contents().recording.duration_ns >= last_ns, "{len}");
            assert!(trace.contents().processes[0].ended_at_ns >= last_ns, "{len}");
            most = told.len();
        }
    }
    assert_eq!(most, full.len());
}

#[test]
fn flipped_bits_are_told_and_nothing_worse() {
    let bytes = write(&long_run(300));
    let whole = replay(&Trace::from_bytes(bytes.clone()).unwrap(), 0).told;
    let mut refused = 0;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        read_untrusted(&flipped);
        // The minor version and what is reserved behind it mean nothing to a reader.
        let means_nothing = (10..container::FILE_HEADER_BYTES as usize).contains(&at);
        let mut keep = Keep::default();
        let told = match Trace::from_bytes(flipped) {
            Ok(trace) => {
                let told = trace.contents().recording.salvage.is_some();
                told || trace.replay(ProcessIndex(0), &mut keep).is_err() || keep.told != whole
            }
            Err(_) => true,
        };
        assert!(keep.told == whole[..keep.told.len()], "byte {at}");
        assert!(told || means_nothing, "byte {at}");
        refused += usize::from(told);
    }
    assert!(refused >= bytes.len() - 6);
}

#[test]
fn damage_to_one_process_takes_neither_the_others_nor_the_names() {
    let disk = Disk::of(usize::MAX);
    let mut contents = contents(2, 3, STACKS);
    let mut writer = Writer::new(Box::new(disk.clone()), None).unwrap();
    writer.sync_contents(&contents);
    let mut block_ends = Vec::new();
    for process in [0, 1] {
        writer.begin_process(ProcessIndex(process), None).unwrap();
        for _ in 0..2 {
            push(&mut writer, process, &long_run(500)).unwrap();
            writer.flush().unwrap();
            block_ends.push(disk.bytes().len());
        }
    }
    contents.frames[0].functions = vec![Function { name: "main".into(), file: None, line: None, inlined: false }];
    writer.finish(contents).unwrap();
    let mut bytes = disk.bytes();
    let whole = Trace::from_bytes(bytes.clone()).unwrap().replay_all(|_| Keep::default()).unwrap();
    // The second block of the first process.
    bytes[block_ends[1] - 1] ^= 1;
    let salvaged = Trace::salvaged(container::Source::Memory(bytes)).unwrap();
    assert_eq!(salvaged.contents().frames[0].functions[0].name, "main");
    let read = salvaged.replay_all(|_| Keep::default()).unwrap();
    assert!(!read[0].told.is_empty() && read[0].told.len() < whole[0].told.len());
    assert!(read[0].told == whole[0].told[..read[0].told.len()]);
    assert!(read[1].told == whole[1].told);
    let said = salvaged.contents().recording.salvage.clone().unwrap();
    let (some, all) = (read[0].told.len() + read[1].told.len(), whole[0].told.len() + whole[1].told.len());
    assert!(said.contains(&format!("{some} of {all} events")), "{said}");
}

#[test]
fn a_full_disk_is_an_error_with_the_bytes_that_stay_readable() {
    let events = long_run(150_000);
    let whole_bytes = write(&events).len();
    let disk = Disk::of(whole_bytes / 2);
    let contents = contents(1, 3, STACKS);
    let mut writer = Writer::new(Box::new(disk.clone()), None).unwrap();
    writer.sync_contents(&contents);
    writer.begin_process(ProcessIndex(0), None).unwrap();
    let failed = events.iter().find_map(|event| push(&mut writer, 0, std::slice::from_ref(event)).err());
    // The last full block may be on its way to the disk still.
    let failed = failed.or_else(|| writer.flush().err()).unwrap();
    let TraceError::Write { written_bytes, source } = &failed else { panic!("{failed}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(matches!(writer.finish(contents), Err(TraceError::Stopped { .. })));
    let trace = Trace::from_bytes(disk.bytes()).unwrap();
    let told = replay(&trace, 0).told;
    assert!(told.len() >= 65_536);
    let salvage = trace.contents().recording.salvage.clone().unwrap();
    assert!(salvage.contains(&format!("first {written_bytes} of")), "{salvage}");
}

#[test]
fn an_event_whose_stack_was_not_synchronised_is_refused() {
    let mut writer = Writer::new(Box::new(Disk::of(usize::MAX)), None).unwrap();
    writer.sync_contents(&contents(1, 3, 3));
    writer.begin_process(ProcessIndex(0), None).unwrap();
    let late = events(&[(0, 0, 1, 30)]);
    let refused = writer.push_all(ProcessIndex(0), &late);
    assert!(refused.is_ok());
    let refused = writer.push_all(ProcessIndex(0), &[Incoming { stack: StackIndex(30), ..late[0] }]);
    assert!(matches!(refused, Err(TraceError::NotInContents { table: "stack", index: 30, known: 3 })));
    let refused = writer.push_all(ProcessIndex(1), &late);
    assert!(matches!(refused, Err(TraceError::ProcessNotOpen { process: 1 })));
}

#[test]
fn random_programs_reach_every_kind_of_op() {
    let mut events = long_run(60_000);
    for event in &mut events {
        event.at_us = 0;
    }
    let mut matcher = matcher::Matcher::new();
    let mut encoder = encode::Encoder::new(None, ());
    for event in &events {
        matcher.push(event, text(event), &mut encoder);
    }
    let used: std::collections::BTreeSet<u8> = encoder.column(ops::Field::Op).iter().copied().collect();
    let ranges = [
        ops::ALLOC_SAME..=ops::ALLOC_SAME,
        ops::ALLOC_IN_PLACE..=ops::ALLOC_IN_PLACE,
        ops::ALLOC_SPLIT..=ops::ALLOC_SPLIT,
        ops::ALLOC_AFTER_MISS..=ops::ALLOC_AFTER_MISS,
        ops::ALLOC_AFTER_LAST..=ops::ALLOC_AFTER_LAST,
        ops::ALLOC_STATED..=ops::ALLOC_STATED,
        ops::ALLOC_SLOT..=ops::ALLOC_SLOT,
        ops::ALLOC_DEEP..=ops::FREE_RECENT - 1,
        ops::FREE_RECENT..=ops::FREE_NUMBER - 1,
        ops::FREE_NUMBER..=ops::FREE_SLOT - 1,
        ops::FREE_SLOT..=ops::FREE_SLOT,
        ops::REALLOC_RECENT..=ops::REALLOC_SLOT - 1,
        ops::REALLOC_SLOT..=ops::REALLOC_SLOT,
        ops::REALLOC_UNDO..=ops::REALLOC_UNDO,
    ];
    for range in ranges {
        assert!(used.range(range.clone()).next().is_some(), "no op of {range:?}");
    }
}

/// A thread frees as many blocks of one size as its bin takes, then asks for one: the bin's other chunks go to its cache,
/// as a list that is freed last and handed out first has them, from the `first` one behind the newest on.
fn filled_cache(first: usize) -> Vec<Incoming> {
    let at = |place: usize| Addr(0x5555_0000_0010 + place as u64 * 7 % 24 * 48);
    let (arena, size_bytes) = (ArenaId::MAIN, 40);
    let incoming = |event: wire::Event| Incoming {
        record: wire::Stamped { stamp: Stamp(0), stack: StackId::NONE, event }.encode(),
        at_us: 0,
        thread: ThreadIndex(0),
        stack: StackIndex::NONE,
    };
    let alloc = |addr, arena_seq| {
        incoming(wire::Event::Alloc { addr, size_bytes, slack_bytes: 0, arena, arena_seq, call: Call::Malloc })
    };
    let chunk = |place: usize| Addr(at(place).0 - 16);
    let fill = |seq, from: usize| {
        let chunks = [chunk(from), chunk(from - 1), chunk(from - 2), Addr(0), Addr(0)];
        incoming(wire::Event::CacheFill { arena, seq, size_bytes: 48, chunks })
    };
    let mut events: Vec<_> = (0..24).map(|place| alloc(at(place), None)).collect();
    events.extend((0..24).map(|place| incoming(wire::Event::Free { addr: at(place), call: Call::Free })));
    events.extend([fill(0, 23 - first), fill(3, 20 - first), alloc(at(23), Some(6))]);
    events
}

#[test]
fn chunks_that_go_to_a_cache_in_the_order_of_their_bin_are_told_without_their_addresses() {
    for (first, is_silent) in [(1, true), (2, false)] {
        let events = filled_cache(first);
        let mut matcher = matcher::Matcher::new();
        let mut encoder = encode::Encoder::new(None, ());
        for event in &events {
            matcher.push(event, "", &mut encoder);
        }
        assert_eq!(encoder.column(ops::Field::HeapAddr).is_empty(), is_silent, "first {first}");
        let told = replay(&Trace::from_bytes(write(&events)).unwrap(), 0).told;
        let mut naive = Naive::default();
        events.iter().flat_map(apart).for_each(|event| naive.push(&event));
        assert_eq!(told, naive.told);
    }
}
