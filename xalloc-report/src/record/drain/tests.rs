//! The drain against made-up processes that write segments as the preload does.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xalloc_core::intern::FrameWord;
use xalloc_core::session::{Header, birth, segment_state};
use xalloc_core::units::{Addr, ArenaId, StackId};
use xalloc_core::wire::{Call, Event, LossReason, Record};

use super::*;
use crate::os::segment::fake::{self, FakeProcess};
use crate::trace::{Block, Loss, StackIndex, ThreadIndex};

/// Keeps what it is given. A live set is told by how many events had come when it was asked for.
#[derive(Debug, Default)]
struct Kept {
    stacks: usize,
    threads: usize,
    begun: Vec<(ProcessIndex, Option<usize>)>,
    events: Vec<(ProcessIndex, Incoming)>,
    texts: Vec<String>,
    ended: Vec<ProcessIndex>,
}

impl Sink for Kept {
    type Error = Infallible;
    type LiveSet = usize;

    fn gain(&mut self, contents: &Contents) {
        (self.stacks, self.threads) = (contents.stacks.len(), contents.threads.len());
    }

    fn begin(&mut self, process: ProcessIndex, inherited: Option<usize>) -> Result<(), Infallible> {
        self.begun.push((process, inherited));
        Ok(())
    }

    fn live_set(&self, _: ProcessIndex) -> Result<usize, Infallible> {
        Ok(self.events.len())
    }

    fn live_blocks(&self, _: ProcessIndex) -> Result<Vec<Block>, Infallible> {
        Ok(Vec::new())
    }

    fn live_block(&mut self, _: ProcessIndex, _: u64) -> Result<Option<Block>, Infallible> {
        Ok(None)
    }

    fn push_all(&mut self, process: ProcessIndex, events: &[Incoming]) -> Result<(), Infallible> {
        for event in events {
            assert!((event.stack.0 as usize) < self.stacks, "stacks are told before they are named");
            assert!((event.thread.0 as usize) < self.threads, "threads are told before they are named");
            self.events.push((process, *event));
        }
        Ok(())
    }

    fn push_with_text(&mut self, process: ProcessIndex, event: &Incoming, text: &str) -> Result<(), Infallible> {
        self.texts.push(text.to_owned());
        self.push_all(process, std::slice::from_ref(event))
    }

    fn end(&mut self, process: ProcessIndex) -> Result<(), Infallible> {
        self.ended.push(process);
        Ok(())
    }

    fn snapshot(&mut self, _: &Snapshot) -> Result<(), Infallible> {
        Ok(())
    }

    fn save(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A process id that no process has: the largest that Linux gives out is 2^22.
const NOBODY: u32 = 1 << 30;
const COMMAND: Command = Command { pid: NOBODY, end: None };
const ENDED: Command = Command { pid: NOBODY, end: Some(End::Exited(0)) };

fn born(pid: u32) -> fake::Birth {
    fake::Birth { pid, parent_pid: 1, birth: birth::EXEC, fork_serial: 0, started: ticks() }
}

fn forked(pid: u32, fork_serial: u32) -> fake::Birth {
    fake::Birth { birth: birth::FORK, fork_serial, parent_pid: NOBODY, ..born(pid) }
}

fn drain(directory: &Path) -> Drain<Kept> {
    Drain::new(directory.to_owned(), Reading::now(), Recording::default(), true, Kept::default())
}

/// Ends the recording and hands over what came of it.
fn finish(mut drain: Drain<Kept>, command: Command) -> (Contents, Observations, Kept) {
    drain.end_all(command).unwrap();
    drain.into_parts(command)
}

fn alloc(addr: u64) -> Event {
    Event::Alloc {
        addr: Addr(addr),
        size_bytes: 24,
        slack_bytes: 0,
        arena: ArenaId::MAIN,
        arena_seq: None,
        call: Call::Malloc,
    }
}

fn free(addr: u64) -> Event {
    Event::Free { addr: Addr(addr), call: Call::Free }
}

#[test]
fn blocks_handed_between_threads_are_freed_after_they_were_made_and_before_they_are_made_again() {
    const ROUNDS: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let process = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    let mut drain = drain(directory.path());
    let running = AtomicBool::new(true);
    // One block travels: the maker stamps after it "has" it, the freer stamps before it gives it back.
    let turn = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (process, turn, running) = (&process, &turn, &running);
        scope.spawn(move || {
            let mut thread = process.thread(0, 0);
            for round in 0..ROUNDS {
                while turn.load(Ordering::Acquire) != 2 * round {
                    std::thread::yield_now();
                }
                thread.push(ticks(), StackId::NONE, alloc(0x1000));
                turn.store(2 * round + 1, Ordering::Release);
            }
            thread.exit();
        });
        scope.spawn(move || {
            let mut thread = process.thread(1, 1);
            for round in 0..ROUNDS {
                while turn.load(Ordering::Acquire) != 2 * round + 1 {
                    std::thread::yield_now();
                }
                thread.push(ticks(), StackId::NONE, free(0x1000));
                turn.store(2 * round + 2, Ordering::Release);
            }
            thread.exit();
            running.store(false, Ordering::Release);
        });
        while running.load(Ordering::Acquire) {
            drain.pass(0, COMMAND).unwrap();
        }
    });
    drain.pass(0, ENDED).unwrap();
    let (contents, _, kept) = finish(drain, ENDED);
    assert_eq!(kept.events.len() as u64, 2 * ROUNDS);
    for (number, (_, incoming)) in kept.events.iter().enumerate() {
        let expected = if number % 2 == 0 { alloc(0x1000) } else { free(0x1000) };
        assert_eq!(incoming.event(), Some(expected), "event {number}");
    }
    assert!(kept.events.is_sorted_by_key(|(_, incoming)| incoming.at_us));
    assert_eq!(contents.processes[0].repairs.late_events, 0);
    assert_eq!(contents.processes[0].end, End::Exited(0));
    assert_eq!(contents.threads.len(), 2);
}

#[test]
fn a_thread_that_fills_its_ring_waits_and_nothing_is_lost() {
    const EVENTS: u64 = 150_000;
    let directory = tempfile::tempdir().unwrap();
    let process = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    let mut drain = drain(directory.path());
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut thread = process.thread(0, 0);
            for number in 0..EVENTS {
                thread.push(ticks(), StackId::NONE, free(16 * number));
            }
        });
        while !producer.is_finished() {
            drain.pass(0, COMMAND).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    drain.pass(0, ENDED).unwrap();
    let (_, observations, kept) = finish(drain, ENDED);
    assert_eq!(observations.events, EVENTS);
    for (number, (_, incoming)) in kept.events.iter().enumerate() {
        assert_eq!(incoming.event(), Some(free(16 * number as u64)));
    }
}

#[test]
fn a_thread_that_claims_a_second_ring_after_it_gave_its_first_back_is_heard_in_both() {
    let directory = tempfile::tempdir().unwrap();
    let process = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    let mut drain = drain(directory.path());
    let mut first = process.thread(0, 0);
    first.push(ticks(), StackId::NONE, alloc(0x1000));
    first.exit();
    let mut second = process.thread(1, 0);
    second.push(ticks(), StackId::NONE, free(0x1000));
    second.exit();
    drain.pass(0, ENDED).unwrap();
    let (contents, _, kept) = finish(drain, ENDED);
    let events: Vec<_> = kept.events.iter().map(|(_, incoming)| incoming.event()).collect();
    assert_eq!(events, [Some(alloc(0x1000)), Some(free(0x1000))]);
    assert_eq!(contents.threads.len(), 1, "one thread, whatever number of rings it had");
}

#[test]
fn a_forked_child_has_its_parents_blocks_of_the_fork_whichever_stream_is_read_first() {
    for is_child_first in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let parent = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
        let mut drain = drain(directory.path());
        drain.pass(1, COMMAND).unwrap();
        let child = FakeProcess::create(&directory.path().join("segment.2.0"), forked(NOBODY + 1, 7));
        child.thread(0, 0).push(ticks(), StackId::NONE, free(0x1000));
        if is_child_first {
            drain.pass(2, COMMAND).unwrap();
            assert_eq!(drain.sink.events.len(), 0, "it waits for its parent's stream");
        }
        let mut thread = parent.thread(0, 0);
        thread.push(ticks(), StackId::NONE, alloc(0x1000));
        thread.push(ticks(), StackId::NONE, Event::Fork { fork_serial: 7 });
        thread.push(ticks(), StackId::NONE, free(0x1000));
        for _ in 0..3 {
            drain.pass(2, COMMAND).unwrap();
        }
        drain.pass(2, ENDED).unwrap();
        let (contents, observations, kept) = finish(drain, ENDED);
        assert_eq!(kept.begun[1], (ProcessIndex(1), Some(2)), "after the second event");
        assert_eq!(kept.events.len(), 4);
        assert!(contents.processes[1].forked);
        assert_eq!(contents.processes[1].parent, Some(ProcessIndex(0)));
        assert_eq!(contents.processes[1].end, End::Vanished, "there is no process of its number");
        assert_eq!((observations.orphans, observations.running), (0, 0));
    }
}

#[test]
fn what_a_forked_child_becomes_and_starts_begins_after_it_though_its_fork_is_read_late() {
    let directory = tempfile::tempdir().unwrap();
    let parent = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    let mut drain = drain(directory.path());
    drain.pass(1, COMMAND).unwrap();
    let child = NOBODY + 1;
    let first = FakeProcess::create(&directory.path().join("segment.2.0"), forked(child, 7));
    first.thread(0, 0).push_text(ticks(), Event::Exec { text_bytes: 5 }, b"/bin/");
    first.set_state(segment_state::ENDED);
    let _replaced_it = FakeProcess::create(&directory.path().join("segment.2.1"), born(child));
    let spawned = fake::Birth { parent_pid: child, ..born(child + 1) };
    let _spawned = FakeProcess::create(&directory.path().join("segment.3.0"), spawned);
    let _other = FakeProcess::create(&directory.path().join("segment.4.0"), born(child + 2));
    drain.pass(2, COMMAND).unwrap();
    let pids = |drain: &Drain<Kept>| drain.contents().processes.iter().map(|process| process.pid).collect::<Vec<_>>();
    assert_eq!(pids(&drain), [NOBODY, child + 2], "who has nothing to do with them does not wait");
    parent.thread(0, 0).push(ticks(), StackId::NONE, Event::Fork { fork_serial: 7 });
    for _ in 0..3 {
        drain.pass(2, COMMAND).unwrap();
    }
    assert_eq!(pids(&drain), [NOBODY, child + 2, child, child, child + 1]);
    let (contents, observations, _) = finish(drain, ENDED);
    let [.., forked, replaced_it, spawned] = &contents.processes[..] else { panic!("five processes") };
    assert_eq!((forked.forked, forked.end, replaced_it.forked), (true, End::Replaced, false));
    assert_eq!(spawned.parent, Some(ProcessIndex(3)));
    assert_eq!(observations.orphans, 0);
}

#[test]
fn a_forked_process_whose_fork_was_not_seen_begins_after_a_second_without_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let child = FakeProcess::create(&directory.path().join("segment.2.0"), forked(NOBODY + 1, 7));
    child.thread(0, 0).push(ticks(), StackId::NONE, free(0x1000));
    let mut drain = drain(directory.path());
    drain.pass(1, COMMAND).unwrap();
    assert_eq!(drain.sink.begun, []);
    std::thread::sleep(FORK_WAIT);
    drain.pass(1, COMMAND).unwrap();
    let (contents, observations, kept) = finish(drain, ENDED);
    assert_eq!(kept.begun, [(ProcessIndex(0), None)]);
    assert_eq!(kept.events.len(), 1);
    assert!(contents.processes[0].forked);
    assert_eq!(observations.orphans, 1);
}

#[test]
fn a_forked_process_whose_fork_nobody_announced_begins_at_once_without_blocks() {
    const UNANNOUNCED: u32 = 0;
    let directory = tempfile::tempdir().unwrap();
    let _child = FakeProcess::create(&directory.path().join("segment.2.0"), forked(NOBODY + 1, UNANNOUNCED));
    let mut drain = drain(directory.path());
    drain.pass(1, COMMAND).unwrap();
    assert_eq!(drain.sink.begun, [(ProcessIndex(0), None)]);
    assert_eq!(drain.observations.orphans, 1);
}

#[test]
fn a_program_that_was_replaced_by_exec_ends_when_the_next_says_hello_under_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let first = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    first.thread(0, 0).push_text(ticks(), Event::Exec { text_bytes: 5 }, b"/bin/");
    first.set_state(segment_state::ENDED);
    let mut drain = drain(directory.path());
    drain.pass(1, COMMAND).unwrap();
    assert_eq!(drain.sink.ended, []);
    assert_eq!(drain.sink.texts[0], "/bin/");
    let mut second = born(NOBODY);
    second.started = Stamp(second.started.0 + 1);
    let _second = FakeProcess::create(&directory.path().join("segment.1.1"), second);
    drain.pass(2, COMMAND).unwrap();
    drain.pass(2, COMMAND).unwrap();
    assert_eq!(drain.sink.ended, [ProcessIndex(0)]);
    assert!(!directory.path().join("segment.1.0").exists());
    // The first name is free again, and the next program takes it.
    let mut third = born(NOBODY);
    third.started = Stamp(third.started.0 + 2);
    let _third = FakeProcess::create(&directory.path().join("segment.1.0"), third);
    drain.pass(3, COMMAND).unwrap();
    drain.pass(3, ENDED).unwrap();
    let (contents, _, _) = finish(drain, ENDED);
    let ends: Vec<End> = contents.processes.iter().map(|process| process.end).collect();
    assert_eq!(ends, [End::Replaced, End::Replaced, End::Exited(0)]);
}

#[test]
fn the_same_stack_of_two_processes_at_different_addresses_is_one_stack() {
    let directory = tempfile::tempdir().unwrap();
    let mut drain = drain(directory.path());
    for (number, bias) in [(0, 0x5000_0000), (1, 0x6000_0000)] {
        let path = directory.path().join(format!("segment.{number}.0"));
        let process = FakeProcess::create(&path, born(NOBODY + number));
        let outer = process.intern(StackId::NONE, FrameWord::return_address(bias + 0x1100));
        let inner = process.intern(outer, FrameWord::return_address(bias + 0x1200));
        let mut thread = process.thread(0, 0);
        let text = b"\x02\xab\xcd/usr/lib/libfoo.so";
        let announced = Event::Module { bias: Addr(bias), serial: 3, text_bytes: text.len() as u16 };
        thread.push_text(ticks(), announced, text);
        let range = Event::ModuleRange { start: Addr(bias + 0x1000), len_bytes: 0x1000, serial: 3 };
        thread.push(ticks(), StackId::NONE, range);
        thread.push(ticks(), inner, alloc(0x1000));
        drain.pass(number, COMMAND).unwrap();
    }
    let (contents, observations, kept) = finish(drain, ENDED);
    assert_eq!(observations.damaged, 0);
    assert_eq!(kept.events.len(), 2, "modules are the recorder's affair");
    let stack = kept.events[0].1.stack;
    assert_eq!(stack, kept.events[1].1.stack);
    let inner = contents.stacks[stack.0 as usize];
    let frame = &contents.frames[inner.frame.unwrap().0 as usize];
    assert_eq!(frame.address, 0x1200);
    let module = &contents.modules[frame.module.unwrap().0 as usize];
    assert_eq!((module.path.to_str(), &module.build_id[..]), (Some("/usr/lib/libfoo.so"), &[0xab, 0xcd][..]));
    assert_eq!(contents.stacks[inner.parent.0 as usize].parent, StackIndex::NONE);
    assert_eq!(contents.modules.len(), 1);
}

#[test]
fn a_frame_met_before_its_module_was_announced_gets_its_file_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let process = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    let stack = process.intern(StackId::NONE, FrameWord::interrupted(0x7000_1200));
    let mut thread = process.thread(0, 0);
    thread.push(ticks(), stack, alloc(0x1000));
    thread.push_text(ticks(), Event::Module { bias: Addr(0x7000_0000), serial: 0, text_bytes: 4 }, b"\0/so");
    thread.push(ticks(), StackId::NONE, Event::ModuleRange { start: Addr(0x7000_1000), len_bytes: 0x1000, serial: 0 });
    let mut drain = drain(directory.path());
    drain.pass(1, COMMAND).unwrap();
    let (contents, _, _) = finish(drain, ENDED);
    assert_eq!(contents.frames.len(), 1);
    assert_eq!(contents.frames[0].address, 0x1201, "an interrupted instruction, told as a return address");
    assert!(contents.frames[0].module.is_some());
}

#[test]
fn a_record_stamped_before_what_was_merged_keeps_its_place_in_time_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let process = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    let early = ticks();
    let mut first = process.thread(0, 0);
    let mut second = process.thread(1, 1);
    let mut drain = drain(directory.path());
    first.push(ticks(), StackId::NONE, alloc(0x1000));
    drain.pass(1, COMMAND).unwrap();
    second.push(early, StackId::NONE, alloc(0x2000));
    drain.pass(1, COMMAND).unwrap();
    let (contents, _, kept) = finish(drain, ENDED);
    assert_eq!(contents.processes[0].repairs.late_events, 1);
    assert!(kept.events[1].1.at_us >= kept.events[0].1.at_us);
    assert_eq!(kept.events[1].1.thread, ThreadIndex(1));
}

#[test]
fn a_ring_goes_from_one_thread_to_the_next_with_the_name_of_each() {
    let directory = tempfile::tempdir().unwrap();
    let process = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    let mut drain = drain(directory.path());
    for serial in 0..3 {
        let mut thread = process.thread(0, serial);
        let name = format!("worker-{serial}");
        let text_bytes = name.len() as u16;
        thread.push_text(ticks(), Event::ThreadStart { tid: 100 + serial, text_bytes }, name.as_bytes());
        thread.push(ticks(), StackId::NONE, Event::ThreadExit);
        thread.exit();
        drain.pass(1, COMMAND).unwrap();
        assert_eq!(process.segment.ring_state(0), xalloc_core::session::ring_state::FREE);
    }
    let (contents, _, _) = finish(drain, ENDED);
    let names: Vec<_> = contents.threads.iter().map(|thread| (thread.tid, thread.name.as_str())).collect();
    assert_eq!(names, [(100, "worker-0"), (101, "worker-1"), (102, "worker-2")]);
    assert!(contents.threads.iter().all(|thread| thread.ended_at_ns.is_some()));
}

#[test]
fn a_process_killed_in_the_middle_of_a_push_leaves_what_it_published() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment.1.0");
    let process = FakeProcess::create(&path, born(NOBODY));
    let mut thread = process.thread(0, 0);
    thread.push(ticks(), StackId::NONE, alloc(0x1000));
    thread.push(ticks(), StackId::NONE, Event::Lost { count: 5, reason: LossReason::RingFull });
    // The announcement of a text whose records never came, as a process without our atomic push would leave it.
    thread.push(ticks(), StackId::NONE, Event::Marker { text_bytes: 100 });
    drop(process);
    let mut drain = drain(directory.path());
    drain.pass(1, COMMAND).unwrap();
    drain.pass(1, Command { end: Some(End::Signalled(9)), ..COMMAND }).unwrap();
    let (contents, observations, kept) = finish(drain, ENDED);
    assert_eq!(kept.events.len(), 3);
    assert_eq!(observations.damaged, 1);
    assert_eq!(contents.processes[0].end, End::Signalled(9));
    assert_eq!(contents.processes[0].losses, [Loss { reason: LossReason::RingFull, events: 5 }]);
    assert!(!path.exists());
}

#[test]
fn segments_of_strangers_are_refused_with_their_reason_and_damage_the_others_not() {
    use std::mem::offset_of;
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().unwrap();
    let good = FakeProcess::create(&directory.path().join("segment.1.0"), born(NOBODY));
    good.thread(0, 0).push(ticks(), StackId::NONE, alloc(0x1000));
    let magic = FakeProcess::create(&directory.path().join("segment.2.0"), born(NOBODY + 1));
    magic.file().write_all_at(b"nonsense", 0).unwrap();
    let version = FakeProcess::create(&directory.path().join("segment.3.0"), born(NOBODY + 2));
    version.file().write_all_at(&99_u32.to_le_bytes(), offset_of!(Header, version) as u64).unwrap();
    std::fs::write(directory.path().join("segment.4.0"), b"too short").unwrap();
    std::fs::create_dir(directory.path().join("segment.5.0")).unwrap();
    let mut drain = drain(directory.path());
    drain.pass(1, COMMAND).unwrap();
    let (_, observations, kept) = finish(drain, ENDED);
    assert_eq!(kept.events.len(), 1);
    let refused: HashSet<_> =
        observations.refused.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(refused, HashSet::from(["segment.2.0", "segment.3.0", "segment.5.0"]));
}

#[test]
fn numbers_out_of_any_range_in_header_rings_and_records_are_survived() {
    let directory = tempfile::tempdir().unwrap();
    let process = FakeProcess::create(&directory.path().join("segment.1.0"), born(u32::MAX));
    process.set_rings(u32::MAX);
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut thread = process.thread(0, 0);
    for _ in 0..20_000 {
        let last = random();
        let record = Record {
            stamp: if random() % 2 == 0 { ticks().0 } else { random() },
            a: random(),
            b: random(),
            stack: random() as u32 % (1 << (random() % 32)),
            kind: if random() % 8 == 0 { last as u8 } else { [1, 3, 98, 112, 113, 114, 115, 255][last as usize % 8] },
            sub: random() as u8 % 16,
            extra: random() as u16 % 64,
        };
        thread.push_all(&[record]);
    }
    process.thread(3, u32::MAX);
    process.smash_ring(3, u64::MAX);
    let mut drain =
        Drain::new(directory.path().to_owned(), Reading::now(), Recording::default(), true, Kept::default());
    for _ in 0..20 {
        drain.pass(1, COMMAND).unwrap();
    }
    let gone = Command { pid: u32::MAX, end: Some(End::Exited(0)) };
    drain.pass(1, gone).unwrap();
    let (contents, observations, kept) = finish(drain, gone);
    assert!(kept.events.is_sorted_by_key(|(_, incoming)| incoming.at_us));
    assert!(observations.events + observations.damaged >= 20_000);
    assert!(contents.stacks.iter().enumerate().skip(2).all(|(at, node)| (node.parent.0 as usize) < at));
}
