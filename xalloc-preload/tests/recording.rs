//! Programs under the library, recording to a file: they behave as without it, and what they did is in the file.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test looks for some events")]

use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use support::{ALLOCATORS, Recording, Scratch, record};
use xalloc_core::session::{birth, segment_state};
use xalloc_core::units::{Addr, StackId};
use xalloc_core::wire::{BinKind, Call, Event, HeapEvent};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// Live blocks at the end; panics where an address is handed out twice or freed without having been.
fn replay(recording: &Recording, inherited: &HashSet<Addr>) -> HashMap<Addr, u64> {
    let mut live: HashMap<Addr, u64> = inherited.iter().map(|&addr| (addr, 0)).collect();
    let mut moving: HashMap<u32, (Addr, u64)> = HashMap::new();
    for event in &recording.events {
        match event.stamped.event {
            Event::Alloc { addr, size_bytes, .. } => {
                assert_eq!(live.insert(addr, size_bytes), None, "{event:?}");
            }
            Event::Free { addr, .. } => {
                assert!(live.remove(&addr).is_some(), "{event:?}");
            }
            Event::ReallocBegin { addr } => {
                let size = live.remove(&addr).unwrap_or_else(|| panic!("{event:?}"));
                moving.insert(event.thread, (addr, size));
            }
            Event::ReallocUndo { addr } => {
                let (from, size) = moving.remove(&event.thread).expect("a realloc began");
                assert_eq!(from, addr);
                live.insert(addr, size);
            }
            _ => {}
        }
    }
    live
}

/// A split has the stack of the call that asked for the memory, a chunk's way into a fast bin that of the call that freed
/// it, though the free itself has none.
fn assert_steps_have_stacks(recording: &Recording) {
    let mut before = HashMap::new();
    let (mut splits, mut freed) = (0, 0);
    for event in &recording.events {
        let has_stack = event.stamped.stack != StackId::NONE;
        match (event.stamped.event, before.insert(event.thread, event.stamped.event)) {
            (Event::Heap { step: HeapEvent::Split { .. }, .. }, _) => {
                assert!(has_stack, "{event:?}");
                splits += 1;
            }
            (Event::Heap { step: HeapEvent::Bin { bin: BinKind::Fast, .. }, .. }, Some(Event::Free { .. })) => {
                assert!(has_stack, "{event:?}");
                freed += 1;
            }
            _ => {}
        }
    }
    assert_eq!(splits > 0, freed > 0, "the core allocator tells of both, any other of neither");
}

#[test]
fn the_allocation_functions_keep_their_promises_and_every_event_is_recorded_in_order() {
    for allocator in ALLOCATORS {
        let scratch = Scratch::new(&format!("allocator-{allocator}"));
        let program = scratch.program("allocator");
        let output = record(&scratch, allocator, &mut Command::new(program));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{allocator}");
        assert_eq!(output.status.code(), Some(42));
        let [recording] = scratch.recordings().try_into().expect("one process");
        assert_eq!(recording.lost, vec![0; 8]);
        assert_eq!(recording.out_of_order, 0);
        assert_eq!(recording.state, segment_state::ENDED);
        assert_eq!(recording.birth, birth::EXEC);
        replay(&recording, &HashSet::new());
        assert!(recording.count(|event| matches!(event, Event::Alloc { call: Call::Malloc, .. })) > 60_000);
        assert_eq!(recording.count(|event| matches!(event, Event::AllocFailed { .. })), 4);
        assert_eq!(recording.count(|event| matches!(event, Event::Exit { status: 42 })), 1);
        assert!(recording.count(|event| matches!(event, Event::ThreadExit)) >= 60);
        assert!(recording.count(|event| matches!(event, Event::Module { .. })) >= 2);
        assert_steps_have_stacks(&recording);
        let deepest = recording.events.iter().take(1_000).map(|event| recording.depth(event)).max();
        assert!(deepest >= Some(3), "{deepest:?}");
    }
}

#[test]
fn a_signal_handler_that_interrupts_the_heap_is_served_and_recorded() {
    let scratch = Scratch::new("handler");
    let program = scratch.program("handler");
    let output = record(&scratch, "core", &mut Command::new(program));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{:?}", output.status);
    let [recording] = scratch.recordings().try_into().expect("one process");
    assert_eq!(recording.count(|event| matches!(event, Event::Lost { .. })), 0);
    replay(&recording, &HashSet::new());
}

#[test]
fn a_child_of_every_kind_is_followed_into_a_recording_of_its_own() {
    for allocator in ALLOCATORS {
        let scratch = Scratch::new(&format!("forks-{allocator}"));
        let program = scratch.program("forks");
        let output = record(&scratch, allocator, &mut Command::new(&program));
        let expected = "fork 7\nclone 8\nhas\nvfork 9\nexecl 10\nexecle 11\nhas\nexeclp 12\nhas\nspawn 13\nfail 14\ngrand 4\nbad path 16\n";
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{allocator}");
        assert_eq!(output.status.code(), Some(21));
        let recordings = scratch.recordings();
        let ended = |status| {
            let said = |event: &Event| matches!(event, Event::Exit { status: said } if *said == status);
            recordings.iter().filter(|recording| recording.count(said) == 1).count()
        };
        for status in [7, 8, 9, 10, 11, 12, 13, 14, 4, 16, 21] {
            assert_eq!(ended(status), 1, "exit status {status}");
        }
        let parent = recordings.iter().find(|it| it.count(|event| matches!(event, Event::Exit { status: 21 })) == 1);
        let parent = parent.expect("the parent");
        let announced: HashSet<u32> = parent
            .events
            .iter()
            .filter_map(|event| match event.stamped.event {
                Event::Fork { fork_serial } => Some(fork_serial),
                _ => None,
            })
            .collect();
        assert_eq!(announced.len(), 7);
        let forked = recordings.iter().filter(|it| it.birth == birth::FORK);
        let named = forked.clone().filter(|it| announced.contains(&it.fork_serial)).count();
        // The child of a raw clone is of no announced fork; the grandchild's is announced by the child.
        assert!(named >= 7, "{named}");
        assert_eq!(forked.filter(|it| it.fork_serial == 0).count(), 1);
    }
}

#[test]
fn a_failed_exec_is_taken_back() {
    let scratch = Scratch::new("failed-exec");
    let program = scratch.program("forks");
    record(&scratch, "core", &mut Command::new(program));
    let failed = |recording: &&Recording| recording.count(|event| matches!(event, Event::ExecFailed)) == 1;
    let recordings = scratch.recordings();
    let recording = recordings.iter().find(failed).expect("the child that failed");
    let path = recording.events.iter().find(|event| matches!(event.stamped.event, Event::Exec { .. }));
    let path = path.expect("the attempt");
    assert!(path.text.starts_with(b"/nonexistent"));
    assert_eq!(recording.count(|event| matches!(event, Event::Exit { status: 14 })), 1);
}

#[test]
fn mappings_that_the_program_makes_are_recorded_with_the_file_behind_them() {
    let scratch = Scratch::new("mappings");
    let program = scratch.program("mappings");
    let output = record(&scratch, "core", &mut Command::new(program));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "r\n1\n1\n1\n1\n");
    let [recording] = scratch.recordings().try_into().expect("one process");
    let mapped: Vec<_> =
        recording.events.iter().filter(|event| matches!(event.stamped.event, Event::ProgramMap { .. })).collect();
    assert_eq!(mapped.len(), 2);
    let Event::ProgramMap { len_bytes, protection, shared, text_bytes, .. } = mapped[0].stamped.event else { panic!() };
    assert!((len_bytes, protection.write, shared, text_bytes) == (1 << 20, true, false, 0));
    assert!(mapped[1].text.starts_with(b"/etc/passwd"));
    assert!(recording.depth(mapped[1]) >= 2);
    let count = |wanted: fn(&Event) -> bool| recording.count(wanted);
    // The third is refused, and taken back.
    assert_eq!(count(|event| matches!(event, Event::ProgramUnmap { .. })), 3);
    assert_eq!(count(|event| matches!(event, Event::ProgramRemapTo { len_bytes: 4096, .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::ProgramRemapTo { len_bytes: 0x20_0000, .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::ProgramAdvise { .. })), 3);
    assert_eq!(count(|event| matches!(event, Event::ProgramBrk { .. })), 2);
}

#[test]
fn an_allocator_of_the_programs_own_is_kept_where_the_user_leaves_the_choice() {
    for (choice, kept) in [("auto", "1\n"), ("system", "1\n"), ("core", "0\n")] {
        let scratch = Scratch::new(&format!("own-{choice}"));
        let program = scratch.program_with_library("own_malloc");
        let output = record(&scratch, choice, &mut Command::new(program));
        assert_eq!(String::from_utf8_lossy(&output.stdout), kept, "{choice}");
        let [recording] = scratch.recordings().try_into().expect("one process");
        // What the allocator asks of itself is not the program's: no address is handed out twice.
        replay(&recording, &HashSet::new());
        assert_eq!(recording.count(|event| matches!(event, Event::Alloc { size_bytes: 10, .. })), 1);
    }
}

#[test]
fn an_allocator_of_the_programs_own_is_not_called_while_it_starts() {
    for choice in ["auto", "system", "core"] {
        let scratch = Scratch::new(&format!("own-start-{choice}"));
        let program = scratch.program_with_library("own_start");
        assert_eq!(record(&scratch, choice, &mut Command::new(program)).status.code(), Some(0), "{choice}");
    }
}

#[test]
fn a_call_before_the_library_is_relocated_is_served() {
    for allocator in ALLOCATORS {
        let scratch = Scratch::new(&format!("early-{allocator}"));
        let program = scratch.program_with_library("early");
        let output = record(&scratch, allocator, &mut Command::new(program));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{allocator}: {:?}", output.status);
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(scratch.recordings().len(), 1);
    }
}

#[test]
fn where_children_are_not_followed_they_find_a_clean_environment() {
    let scratch = Scratch::new("not-followed");
    let script = "echo $(env | grep -e ^XALLOC -e ^LD_PRELOAD); exit 3";
    let output = record(&scratch, "core", Command::new("sh").args(["-c", script]).env("XALLOC_FOLLOW", "0"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\n");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(scratch.recordings().len(), 1);
}

#[test]
fn generations_of_children_use_what_they_inherit_from_a_process_of_many_threads() {
    let scratch = Scratch::new("fork-storm");
    let program = scratch.program("fork_storm");
    let output = Command::new(program).env("LD_PRELOAD", support::library()).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 bad\n");
    assert_eq!(output.status.code(), Some(42));
}

#[test]
fn a_thread_whose_first_call_is_interrupted_by_handlers_that_allocate_has_one_state_and_one_ring() {
    // By the core's heap only: libc's own malloc may not be interrupted by itself.
    let scratch = Scratch::new("storm");
    let program = scratch.program("thread_storm");
    let output = record(&scratch, "core", &mut Command::new(program));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 bad\n", "{:?}", output.status);
    assert_eq!(output.status.code(), Some(42));
    let [recording] = scratch.recordings().try_into().expect("one process");
    let starts = recording.count(|event| matches!(event, Event::ThreadStart { .. }));
    let exits = recording.count(|event| matches!(event, Event::ThreadExit));
    // 24 batches of 12, and the main thread, which exits without saying so.
    assert_eq!((starts, exits), (289, 288));
}

#[test]
fn every_function_that_succeeds_leaves_errno_as_it_was() {
    for allocator in ALLOCATORS {
        let scratch = Scratch::new(&format!("errno-{allocator}"));
        let program = scratch.program("errno");
        let output = record(&scratch, allocator, &mut Command::new(&program));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0 bad\n", "{allocator}");
        let unrecorded = Command::new(program).env("LD_PRELOAD", support::library()).output().expect("it starts");
        assert_eq!(String::from_utf8_lossy(&unrecorded.stdout), "0 bad\n");
    }
}

#[test]
fn nothing_is_made_where_nothing_was_asked_for() {
    let scratch = Scratch::new("nothing");
    let program = scratch.program("allocator");
    let output = Command::new(program).env("LD_PRELOAD", support::library()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(42));
    assert!(scratch.recordings().is_empty());
}

#[test]
fn a_file_that_exists_is_left_alone_and_the_recording_goes_beside_it() {
    let scratch = Scratch::new("exists");
    let theirs = scratch.path("trace");
    std::fs::write(&theirs, "the user's own").expect("a file can be written");
    let output = record(&scratch, "core", &mut Command::new("true"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&theirs).expect("it is still there"), b"the user's own");
    std::fs::remove_file(&theirs).expect("it can be removed");
    let [recording] = scratch.recordings().try_into().expect("one process");
    let beside = scratch.path(&format!("trace.{}", recording.pid));
    assert!(beside.exists(), "{}", beside.display());
}

#[test]
fn a_program_that_is_killed_leaves_what_it_did_until_then() {
    let scratch = Scratch::new("killed");
    let output = record(&scratch, "core", Command::new("sh").args(["-c", "x=$(echo y); kill -9 $$"]));
    assert_eq!(output.status.signal(), Some(9));
    let recordings = scratch.recordings();
    let killed = recordings.iter().find(|it| it.birth == birth::EXEC).expect("the shell");
    assert_eq!(killed.state, segment_state::LIVE);
    assert!(killed.count(|event| matches!(event, Event::Alloc { .. })) > 5);
}

#[test]
fn a_pointer_to_nowhere_in_an_exec_is_an_error_of_the_kernels_as_without_the_library() {
    let scratch = Scratch::new("bad-exec");
    let program = scratch.program("bad_exec");
    let plain = Command::new(&program).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&plain.stdout).matches("EFAULT").count(), 11, "{plain:?}");
    let output = record(&scratch, "core", &mut Command::new(program));
    assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&plain.stdout));
    assert!(output.status.success(), "{output:?}");
    let [recording] = scratch.recordings().try_into().expect("one process");
    assert_eq!(recording.state, segment_state::ENDED);
}

#[test]
fn a_handler_that_asks_for_an_alignment_that_there_is_not_is_refused() {
    let scratch = Scratch::new("bad-align");
    let output = record(&scratch, "core", &mut Command::new(scratch.program("bad_align")));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
}

#[test]
fn why_nothing_is_recorded_is_said_to_who_asked_for_it_and_no_file_is_left() {
    let scratch = Scratch::new("refused");
    for (limit, reason) in [("-v 150000", "cannot be mapped"), ("-f 2000", "the limit on the size of files")] {
        for verbose in ["0", "1"] {
            let mut shell = Command::new("sh");
            // A program without threads: their stacks may not fit into so little address space with or without us.
            let command = format!("ulimit {limit}; LD_PRELOAD=\"$0\" exec sh -c 'exit 42'");
            shell.args(["-c", &command]).arg(support::library());
            let output = shell
                .env("XALLOC_OUT", scratch.path("trace"))
                .env("XALLOC_VERBOSE", verbose)
                .output()
                .expect("it starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(42), "{stderr}");
            assert_eq!(stderr.lines().count(), usize::from(verbose == "1"), "{stderr}");
            assert!(verbose == "0" || stderr.contains(reason), "{stderr}");
            assert!(scratch.recordings().is_empty());
        }
    }
}
