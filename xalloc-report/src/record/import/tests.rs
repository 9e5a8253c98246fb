//! Files as a process without a recorder writes them.

use std::os::unix::fs::FileExt;

use xalloc_core::session::{Header, SPILL_MAGIC, SpillHeader, birth, layout};
use xalloc_core::sys::clock::ticks;
use xalloc_core::units::{Addr, ArenaId, StackId, Stamp};
use xalloc_core::wire::{Call, Event, Record, Stamped};

use super::*;
use crate::os::segment::fake::{self, FakeProcess};

fn born() -> fake::Birth {
    fake::Birth { pid: 100, parent_pid: 1, birth: birth::EXEC, fork_serial: 0, started: ticks() }
}

fn alloc(stamp: Stamp, addr: u64) -> Record {
    let event = Event::Alloc {
        addr: Addr(addr),
        size_bytes: 24,
        slack_bytes: 0,
        arena: ArenaId::MAIN,
        arena_seq: None,
        call: Call::Malloc,
    };
    Stamped { stamp, stack: StackId::NONE, event }.encode()
}

fn batch(thread: u32, records: &[Record]) -> Vec<u8> {
    let header = SpillHeader { magic: SPILL_MAGIC, thread, records: u32::try_from(records.len()).unwrap() };
    header.to_bytes().into_iter().chain(records.iter().flat_map(Record::to_bytes)).collect()
}

fn props(directory: &Path, files: Vec<PathBuf>) -> ImportProps {
    ImportProps { files, output: Some(directory.join("out.xtrace")), existing: Existing::Replace, symbols: false }
}

#[test]
fn batches_and_remaining_rings_of_all_threads_are_merged_and_a_hole_between_them_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spilled");
    let process = FakeProcess::create(&path, born());
    let stamps: Vec<Stamp> = (0..6).map(|_| ticks()).collect();
    let mut at = layout::SEGMENT_BYTES as u64;
    for bytes in [
        batch(0, &[alloc(stamps[0], 0x1000), alloc(stamps[3], 0x2000)]),
        vec![0xaa; 48],
        batch(1, &[alloc(stamps[1], 0x3000)]),
        batch(0, &[alloc(stamps[4], 0x4000)]),
    ] {
        process.file().write_all_at(&bytes, at).unwrap();
        at += bytes.len() as u64;
    }
    process.thread(0, 0).push_all(&[alloc(stamps[5], 0x5000)]);
    process.thread(1, 1).push_all(&[alloc(stamps[2], 0x6000)]);
    drop(process);
    let rings = |path| {
        let mut bytes = vec![0; layout::RING_HEADERS.len()];
        std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, layout::RING_HEADERS.start as u64).unwrap();
        bytes
    };
    let before = rings(&path);
    let outcome = import(&props(directory.path(), vec![path.clone()]), &mut |_| ()).unwrap();
    assert_eq!(outcome.written.events, 6);
    assert_eq!(outcome.observations.damaged, 1);
    assert_eq!(outcome.end, End::Vanished);
    assert!(rings(&path) == before, "the file is not changed by being read");
}

#[test]
fn a_child_that_is_given_with_its_parent_has_its_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let parent_path = directory.path().join("parent");
    let parent = FakeProcess::create(&parent_path, born());
    let fork = Stamped { stamp: ticks(), stack: StackId::NONE, event: Event::Fork { fork_serial: 1 } };
    parent.thread(0, 0).push_all(&[alloc(ticks(), 0x1000), fork.encode()]);
    let child_path = directory.path().join("child");
    let child = fake::Birth { pid: 101, parent_pid: 100, birth: birth::FORK, fork_serial: 1, started: ticks() };
    let child = FakeProcess::create(&child_path, child);
    let free = Event::Free { addr: Addr(0x1000), call: Call::Free };
    child.thread(0, 0).push_all(&[Stamped { stamp: ticks(), stack: StackId::NONE, event: free }.encode()]);
    let both = import(&props(directory.path(), vec![child_path.clone(), parent_path]), &mut |_| ()).unwrap();
    assert_eq!((both.processes, both.observations.orphans), (2, 0));
    let alone = import(&props(directory.path(), vec![child_path]), &mut |_| ()).unwrap();
    assert_eq!((alone.processes, alone.observations.orphans), (1, 1));
}

#[test]
fn files_that_are_something_else_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let import = |files| import(&props(directory.path(), files), &mut |_| ());
    assert!(matches!(import(vec!["/bin/cat".into()]), Err(RecordError::NotSpilled { .. })));
    assert!(matches!(import(vec!["/no/such/file".into()]), Err(RecordError::Import { .. })));
    assert!(matches!(import(Vec::new()), Err(RecordError::NothingToImport)));
    let zeroes = directory.path().join("zeroes");
    std::fs::File::create(&zeroes).unwrap().set_len(layout::SEGMENT_BYTES as u64).unwrap();
    assert!(matches!(import(vec![zeroes]), Err(RecordError::NotSpilled { .. })));
}

#[test]
fn what_is_no_recording_is_told_by_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let props = ImportProps { files: vec![file.clone()], output: None, existing: Existing::Keep, symbols: false };
    for not_a_recording in [&b""[..], b"short", b"#!/bin/sh\necho a script\n", &[0x7f; 4096]] {
        std::fs::write(&file, not_a_recording).unwrap();
        let refused = import(&props, &mut |_| ()).unwrap_err();
        assert!(matches!(refused, RecordError::NotSpilled { source: Refused::Magic, .. }), "{refused:?}");
    }
    drop(Writer::create(&file).unwrap());
    let refused = import(&props, &mut |_| ()).unwrap_err();
    assert!(matches!(refused, RecordError::AlreadyTrace { .. }), "{refused:?}");
}

#[test]
fn a_file_that_lost_its_end_is_read_up_to_there_and_the_rest_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spilled");
    let process = FakeProcess::create(&path, born());
    let records: Vec<Record> = (1..=8).map(|number| alloc(ticks(), number << 12)).collect();
    let bytes = [batch(0, &records[..4]), batch(0, &records[4..])].concat();
    process.file().write_all_at(&bytes, layout::SEGMENT_BYTES as u64).unwrap();
    let spilled = std::mem::offset_of!(Header, spilled) as u64;
    process.file().write_all_at(&8_u64.to_le_bytes(), spilled).unwrap();
    let end = (layout::SEGMENT_BYTES + bytes.len()) as u64;
    // The last lies in the first batch, before the header of the second.
    for (cut_bytes, events) in [(0, 8), (96, 5), (97, 4), (16 + 6 * 32, 2)] {
        process.file().set_len(end - cut_bytes).unwrap();
        let outcome = import(&props(directory.path(), vec![path.clone()]), &mut |_| ()).unwrap();
        let trace = crate::trace::Trace::open(&outcome.path).unwrap();
        let losses: Vec<_> = trace.contents().processes[0].losses.iter().map(|loss| loss.events).collect();
        assert_eq!((outcome.written.events, outcome.observations.damaged), (events, 0));
        assert_eq!(losses.iter().sum::<u64>(), 8 - events);
    }
}
