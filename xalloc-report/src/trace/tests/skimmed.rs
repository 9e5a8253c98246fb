//! What is read for a tally alone, and what the writer tells one as it goes, is what a full replay tells: over random
//! programs, over forks, and over real heaps' steps of every kind.

use proptest::prelude::*;
use xalloc_core::wire::HeapEvent;

use super::super::*;
use super::disk::Disk;
use super::program::{STACKS, contents, events, push, steps};
use super::{filled_cache, long_run};

/// What a tally was told, but for how its events were cut into batches.
#[derive(Default, PartialEq, Debug)]
struct Sums {
    told: Vec<String>,
    events: u64,
    last_at_ns: u64,
}

impl Tally for Sums {
    fn inherited(&mut self, slot: u32, size_bytes: u64) {
        self.told.push(format!("inherited {slot} {size_bytes}"));
    }

    fn passed(&mut self, events: u64, at_ns: u64) {
        self.events += events;
        self.last_at_ns = at_ns;
    }

    fn obtained(&mut self, by: By, slot: u32, obtained: Obtained) {
        self.told.push(format!("{by:?} obtained {slot} {obtained:?}"));
    }

    fn freed(&mut self, by: By, slot: u32) {
        self.told.push(format!("{by:?} freed {slot}"));
    }

    fn realloc_begins(&mut self, by: By, slot: u32) {
        self.told.push(format!("{by:?} begins {slot}"));
    }

    fn realloc_undone(&mut self, by: By, slot: u32) {
        self.told.push(format!("{by:?} undone {slot}"));
    }

    fn heap(&mut self, by: By, step: HeapEvent) {
        self.told.push(format!("{by:?} {step:?}"));
    }

    fn other(&mut self, by: By, event: Event<'_>) {
        self.told.push(format!("{by:?} {event:?}"));
    }
}

/// What is told of each process by the writer, by a reader that skims, and by one that replays.
fn told(begin: impl FnOnce(&mut Writer<Sums>)) -> Vec<[Sums; 3]> {
    let disk = Disk::of(usize::MAX);
    let contents = contents(2, 3, STACKS);
    let mut writer = Writer::telling(Box::new(disk.clone()), None, |_, _| Sums::default()).unwrap();
    writer.sync_contents(&contents);
    writer.set_checkpoint_interval(65_536);
    begin(&mut writer);
    let (_, tallied) = writer.finish(contents).unwrap();
    let trace = Trace::from_bytes(disk.bytes()).unwrap();
    let Tallied { contents, tallies } = tallied.unwrap();
    assert_eq!(format!("{contents:?}"), format!("{:?}", trace.contents()));
    let of_process = |(process, written): (u32, Sums)| {
        let (mut skimmed, mut replayed) = (Sums::default(), Sums::default());
        trace.tally(ProcessIndex(process), &mut skimmed, &mut |_| {}).unwrap();
        trace.replay(ProcessIndex(process), &mut Told::to(&mut replayed)).unwrap();
        assert_eq!(skimmed.events, trace.events(ProcessIndex(process)));
        [written, skimmed, replayed]
    };
    (0..).zip(tallies).map(of_process).collect()
}

/// What is told of the only process, which does that.
fn told_of(events: &[Incoming]) -> [Sums; 3] {
    let [only, idle] = told(|writer| {
        writer.begin_process(ProcessIndex(0), None).unwrap();
        push(writer, 0, events).unwrap();
    })
    .try_into()
    .unwrap();
    assert!(idle.iter().all(|idle| idle.told.is_empty()));
    only
}

proptest! {
    #[test]
    fn a_tally_is_told_what_a_replay_says(steps in steps(800)) {
        let [written, skimmed, replayed] = told_of(&events(&steps));
        prop_assert_eq!(&skimmed, &replayed);
        prop_assert_eq!(&written, &replayed);
    }

    #[test]
    fn a_tally_of_a_fork_begins_with_the_blocks_that_its_parent_had(before in steps(300), child in steps(300)) {
        let processes = told(|writer| {
            writer.begin_process(ProcessIndex(0), None).unwrap();
            push(writer, 0, &events(&before)).unwrap();
            writer.begin_process(ProcessIndex(1), Some(ProcessIndex(0))).unwrap();
            push(writer, 1, &events(&child)).unwrap();
        });
        for [written, skimmed, replayed] in processes {
            prop_assert_eq!(&skimmed, &replayed);
            prop_assert_eq!(&written, &replayed);
        }
    }
}

#[test]
fn a_tally_is_told_what_a_replay_says_over_many_blocks_and_batches() {
    let [written, skimmed, replayed] = told_of(&long_run(230_000));
    assert!(skimmed == replayed);
    assert!(written == replayed);
    let is_step = |told: &&String| told.contains("Brk") || told.contains("ChunkMap") || told.contains("Trim");
    assert!(skimmed.told.iter().any(|told| is_step(&told)), "no step of the heap was told");
    assert!(!skimmed.told.iter().any(|told| told.contains("Split")));
    assert!((skimmed.told.len() as u64) < skimmed.events);
}

#[test]
fn chunks_that_are_told_without_their_addresses_are_passed_over_like_others() {
    for first in [1, 2] {
        let [written, skimmed, replayed] = told_of(&filled_cache(first));
        assert_eq!(skimmed, replayed, "first {first}");
        assert_eq!(written, replayed, "first {first}");
    }
}

#[test]
fn of_more_processes_than_tallies_are_kept_none_is_returned() {
    for (processes, are_kept) in [(64, true), (65, false), (66, false)] {
        let contents = contents(processes, 1, STACKS);
        let mut writer = Writer::telling(Box::new(Disk::of(usize::MAX)), None, |_, _| Sums::default()).unwrap();
        writer.sync_contents(&contents);
        for process in (0..processes).map(ProcessIndex) {
            writer.begin_process(process, None).unwrap();
            writer.end_process(process).unwrap();
        }
        let (_, tallied) = writer.finish(contents).unwrap();
        assert_eq!(tallied.is_some(), are_kept, "{processes} processes");
    }
}
