//! What is read for a tally alone is what a full replay tells: over random programs, over forks, and over real heaps'
//! steps of every kind.

use proptest::prelude::*;
use xalloc_core::wire::HeapEvent;

use super::super::*;
use super::disk::Disk;
use super::program::{STACKS, contents, events, push, steps};
use super::{filled_cache, long_run, write};

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

/// What both ways of reading tell of a process.
fn both(trace: &Trace, process: u32) -> [Sums; 2] {
    let (mut skimmed, mut replayed) = (Sums::default(), Sums::default());
    trace.tally(ProcessIndex(process), &mut skimmed, &mut |_| {}).unwrap();
    trace.replay(ProcessIndex(process), &mut Told::to(&mut replayed)).unwrap();
    [skimmed, replayed]
}

proptest! {
    #[test]
    fn a_tally_is_told_what_a_replay_says(steps in steps(800)) {
        let trace = Trace::from_bytes(write(&events(&steps))).unwrap();
        let [skimmed, replayed] = both(&trace, 0);
        prop_assert_eq!(skimmed, replayed);
    }

    #[test]
    fn a_tally_of_a_fork_begins_with_the_blocks_that_its_parent_had(before in steps(300), child in steps(300)) {
        let disk = Disk::of(usize::MAX);
        let contents = contents(2, 3, STACKS);
        let mut writer = Writer::new(Box::new(disk.clone())).unwrap();
        writer.sync_contents(&contents);
        writer.begin_process(ProcessIndex(0), None).unwrap();
        push(&mut writer, 0, &events(&before)).unwrap();
        writer.begin_process(ProcessIndex(1), Some(ProcessIndex(0))).unwrap();
        push(&mut writer, 1, &events(&child)).unwrap();
        writer.finish(contents).unwrap();
        let trace = Trace::from_bytes(disk.bytes()).unwrap();
        for process in [0, 1] {
            let [skimmed, replayed] = both(&trace, process);
            prop_assert_eq!(skimmed, replayed);
        }
    }
}

#[test]
fn a_tally_is_told_what_a_replay_says_over_many_blocks_and_batches() {
    let trace = Trace::from_bytes(write(&long_run(230_000))).unwrap();
    let [skimmed, replayed] = both(&trace, 0);
    assert_eq!(skimmed.events, trace.events(ProcessIndex(0)));
    assert!(skimmed == replayed);
    let is_step = |told: &&String| told.contains("Brk") || told.contains("ChunkMap") || told.contains("Trim");
    assert!(skimmed.told.iter().any(|told| is_step(&told)), "no step of the heap was told");
    assert!(!skimmed.told.iter().any(|told| told.contains("Split")));
    assert!((skimmed.told.len() as u64) < skimmed.events);
}

#[test]
fn chunks_that_are_told_without_their_addresses_are_passed_over_like_others() {
    for first in [1, 2] {
        let [skimmed, replayed] = both(&Trace::from_bytes(write(&filled_cache(first))).unwrap(), 0);
        assert_eq!(skimmed, replayed, "first {first}");
    }
}
