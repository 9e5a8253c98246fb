//! The library with a recorder, which the test plays: it drains, stalls, finishes or dies.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test looks for some events")]

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Recorder, Scratch, left_in, segments, start};
use xalloc_core::primitive::Ordering;
use xalloc_core::ring::Consumer;
use xalloc_core::session::{Header, Refusal, RingHeader, control_state, layout, overflow, segment_state};
use xalloc_core::sys::futex::{self, Scope};
use xalloc_core::wire::{self, Event, LossReason, Record};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// A mapped segment with the reading ends of its first rings.
struct Drained {
    base: *mut u8,
    consumers: Vec<(&'static RingHeader, Consumer<'static>)>,
    records: Vec<Record>,
}

impl Drained {
    #[allow(unsafe_code)]
    fn map(path: &Path) -> Drained {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("the segment is there");
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file of that size.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), layout::SEGMENT_BYTES, rights, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        let base = base.cast::<u8>();
        let consumers = (0..4).map(|ring| {
            let at = layout::RING_HEADERS.start + ring * size_of::<RingHeader>();
            // SAFETY: the ring's header lies there, in a mapping that stays.
            let header: &'static RingHeader = unsafe { &*base.wrapping_add(at).cast() };
            let range = layout::slots_of(ring);
            // SAFETY: the ring's slots lie there.
            let slots = unsafe { std::slice::from_raw_parts(base.wrapping_add(range.start).cast(), range.len() / 32) };
            // SAFETY: this is the only consumer of the session.
            (header, unsafe { Consumer::new(&header.indices, slots) })
        });
        Drained { base, consumers: consumers.collect(), records: Vec::new() }
    }

    #[allow(unsafe_code)]
    fn is_live(&self) -> bool {
        // SAFETY: the header lies at the start.
        let header: &Header = unsafe { &*self.base.cast() };
        header.state.load(Ordering::Acquire) != segment_state::EMPTY
    }

    fn drain(&mut self) {
        for (header, consumer) in &mut self.consumers {
            let available = consumer.available();
            self.records.extend((0..available).map(|ahead| consumer.peek(ahead)));
            if consumer.release(available) {
                futex::wake(header.indices.space(), 1, Scope::Shared);
            }
        }
    }
}

#[test]
fn a_recorder_that_drains_gets_every_event_of_a_ring_that_filled_many_times() {
    let scratch = Scratch::new("draining");
    let session = scratch.path("session");
    let program = scratch.program("busy");
    let _recorder = Recorder::new(&session, overflow::WAIT);
    let mut child = start(&session, &program);
    let segment = session.join(format!("segment.{}.0", child.id()));
    let mut drained = None;
    while child.try_wait().expect("it can be asked").is_none() {
        match &mut drained {
            None if segment.metadata().is_ok_and(|file| file.len() == layout::SEGMENT_BYTES as u64) => {
                drained = Some(Drained::map(&segment));
            }
            Some(segment) if segment.is_live() => segment.drain(),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    let mut drained = drained.expect("the segment was there in time");
    drained.drain();
    let mut live = HashSet::new();
    let (mut allocated, mut lost) = (0, 0);
    for stamped in drained.records.iter().flat_map(|record| record.decode().expect("a record").apart()) {
        match stamped.event {
            Event::Alloc { addr, .. } => {
                allocated += 1;
                assert!(live.insert(addr), "{addr:?} is handed out while it is live");
            }
            Event::Free { addr, .. } => assert!(live.remove(&addr), "{addr:?} is freed while it is not live"),
            Event::Lost { .. } => lost += 1,
            _ => {}
        }
    }
    assert!(allocated >= 300_000, "{allocated}");
    assert_eq!(lost, 0);
    assert!(drained.records.len() > 10 * (layout::slots_of(0).len() / 32));
}

#[test]
fn a_full_ring_makes_the_thread_wait_until_the_recorder_is_finished() {
    let scratch = Scratch::new("waiting");
    let session = scratch.path("session");
    let program = scratch.program("handler");
    let recorder = Recorder::new(&session, overflow::WAIT);
    let mut child = start(&session, &program);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(child.try_wait().expect("it can be asked").is_none(), "the program waits for the recorder that lives");
    recorder.set_state(control_state::FINISHED);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    let [recording] = segments(&session).try_into().expect("one process");
    let (times, waited_ns) = recording.waits;
    assert!(times >= 1 && waited_ns >= 100_000_000, "{times} waits of {waited_ns} ns");
}

#[test]
fn a_recorder_that_died_is_noticed_and_the_program_goes_on_unharmed() {
    let scratch = Scratch::new("dead");
    let session = scratch.path("session");
    let program = scratch.program("handler");
    drop(Recorder::new(&session, overflow::WAIT));
    let begun = Instant::now();
    let output = start(&session, &program).wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{:?}", output.status);
    assert!(begun.elapsed() < Duration::from_secs(30));
    let [recording] = segments(&session).try_into().expect("one process");
    assert!(recording.lost[LossReason::RecorderGone as usize] > 0);
}

#[test]
fn who_asked_to_drop_is_told_how_much_was_dropped() {
    let scratch = Scratch::new("dropping");
    let session = scratch.path("session");
    let program = scratch.program("allocator");
    let _recorder = Recorder::new(&session, overflow::DROP);
    let output = start(&session, &program).wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(42));
    let [recording] = segments(&session).try_into().expect("one process");
    let told: u64 = recording
        .events
        .iter()
        .map(|event| match event.stamped.event {
            Event::Lost { count, reason: LossReason::RingFull } => count,
            _ => 0,
        })
        .sum();
    // Nobody drains, so a ring that is full stays full: what it lost is counted when its thread ends.
    assert!(told + recording.lost[LossReason::RingFull as usize] > 0);
    assert_eq!(recording.waits, (0, 0), "who drops does not wait");
}

#[test]
fn a_program_runs_without_a_recorder_that_is_gone_before_it_starts() {
    let scratch = Scratch::new("gone");
    let program = scratch.program("allocator");
    let output = start(&scratch.path("nowhere"), &program).wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(42));
}

/// Runs a program in a session that it cannot record in, and asserts that it runs as ever and leaves nothing but a note
/// of the reason.
fn assert_refused(session: &Path, program: &Path, reason: Refusal, errno: i32) {
    let child = start(session, program);
    let note = format!("refused.{}.{}.{errno}", child.id(), reason.number());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(42), "{reason:?}");
    assert_eq!(left_in(session), ["control".to_owned(), note], "{reason:?}");
}

#[test]
fn a_recorder_of_another_version_gets_a_note_of_that_and_the_program_runs_as_ever() {
    let scratch = Scratch::new("version");
    let program = scratch.program("allocator");
    for (name, version) in [("older", wire::VERSION - 1), ("newer", wire::VERSION + 1)] {
        let session = scratch.path(name);
        Recorder::new(&session, overflow::WAIT).set_version(version.into());
        assert_refused(&session, &program, Refusal::Version, 0);
    }
}

#[test]
fn a_control_page_that_cannot_be_read_is_told_with_the_systems_reason() {
    let scratch = Scratch::new("unreadable");
    let program = scratch.program("allocator");
    let directory = scratch.path("directory");
    std::fs::create_dir_all(directory.join("control")).expect("a directory can be made");
    assert_refused(&directory, &program, Refusal::Control, libc::EISDIR);
    let short = scratch.path("short");
    Recorder::new(&short, overflow::WAIT).cut(100);
    assert_refused(&short, &program, Refusal::Version, 0);
}
