//! What goes into a trace comes out of it: against a naive matcher, over forks, from checkpoints, cut and damaged.

use proptest::prelude::*;

use super::*;

mod disk;
mod keep;
mod naive;
mod program;

use disk::Disk;
use keep::Keep;
use naive::Naive;
use program::{STACKS, contents, events, steps};

fn write(events: &[Incoming]) -> Vec<u8> {
    let disk = Disk::of(usize::MAX);
    let contents = contents(1, 3, STACKS);
    let mut writer = Writer::new(Box::new(disk.clone())).unwrap();
    writer.sync_contents(&contents);
    writer.begin_process(ProcessIndex(0), None).unwrap();
    for event in events {
        writer.push(ProcessIndex(0), event).unwrap();
    }
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
    fn a_fork_begins_with_the_blocks_that_its_parent_had(before in steps(300), parent in steps(300), child in steps(300)) {
        let disk = Disk::of(usize::MAX);
        let contents = contents(2, 3, STACKS);
        let mut writer = Writer::new(Box::new(disk.clone())).unwrap();
        writer.sync_contents(&contents);
        writer.begin_process(ProcessIndex(0), None).unwrap();
        let mut naive = Naive::default();
        for event in events(&before) {
            writer.push(ProcessIndex(0), &event).unwrap();
            naive.push(&event);
        }
        writer.begin_process(ProcessIndex(1), Some(ProcessIndex(0))).unwrap();
        let mut forked = naive.fork();
        let mut inherited: Vec<_> = forked.live.values().copied().collect();
        for event in events(&parent) {
            writer.push(ProcessIndex(0), &event).unwrap();
            naive.push(&event);
        }
        for event in events(&child) {
            writer.push(ProcessIndex(1), &event).unwrap();
            forked.push(&event);
        }
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
        let mut headed = container::file_header();
        headed.extend_from_slice(&bytes);
        read_untrusted(&headed);
        prop_assert!(Trace::from_bytes(headed).unwrap().contents().recording.salvage.is_some());
    }
}
