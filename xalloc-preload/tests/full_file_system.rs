//! The library where its files have no room: the program never notices, and what is lost is counted.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for some events")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{Recorder, Recording, Scratch, library, segments};
use xalloc_core::session::overflow;
use xalloc_core::units::StackId;
use xalloc_core::wire::Event;

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// A file system of a bounded size, in memory; unmounted at the end.
struct Small(PathBuf);

impl Small {
    /// `None`, and said so, where this user may not mount.
    fn new(scratch: &Scratch, kib: usize) -> Option<Small> {
        let place = scratch.path("small");
        std::fs::create_dir_all(&place).expect("a directory can be made");
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Small(place)),
            Ok(output) => {
                println!("skipped: no small file system: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: no small file system: {error}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A mount that stays is seen in the test's directory, which stays as well.
        let _status = Command::new("umount").arg(&self.0).status();
    }
}

fn run(variable: &str, value: &Path, program: &Path, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(program)
        .args(arguments)
        .env("LD_PRELOAD", library())
        .env(variable, value)
        .output()
        .expect("the program starts")
}

fn behaved(output: &Output) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{output:?}");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

/// Allocations with and without a stack.
fn with_and_without_stack(recording: &Recording) -> (usize, usize) {
    let allocations = recording.events.iter().filter(|event| matches!(event.stamped.event, Event::Alloc { .. }));
    let (unknown, known): (Vec<_>, Vec<_>) = allocations.partition(|event| event.stamped.stack == StackId::UNKNOWN);
    (known.len(), unknown.len())
}

/// The recording of the program itself: the shell that began as the same process became it.
fn last(recordings: Vec<Recording>) -> Recording {
    recordings.into_iter().next_back().expect("a recording")
}

#[test]
fn a_session_on_a_full_file_system_costs_stacks_and_never_the_program() {
    // From no room for a header to room for all rings and some stacks.
    for kib in [64, 800, 1000, 1600, 2200, 7000] {
        for arguments in [&[][..], &["without descriptors"]] {
            let scratch = Scratch::new(&format!("full-session-{kib}-{}", arguments.len()));
            let program = scratch.program("stacks");
            let Some(small) = Small::new(&scratch, kib) else { return };
            let session = small.0.join("session");
            let _recorder = Recorder::new(&session, overflow::DROP);
            behaved(&run("XALLOC_SESSION", &session, &program, arguments));
            if kib == 7000 {
                let recording = last(segments(&session));
                let (known, _) = with_and_without_stack(&recording);
                assert!(known > 1000, "{known}");
                assert!(recording.lost_stacks > 0);
            }
        }
    }
}

#[test]
fn a_file_on_a_full_file_system_ends_the_recording_and_never_the_program() {
    for kib in [64, 800, 1000, 1600, 2200, 9000] {
        for arguments in [&[][..], &["without descriptors"]] {
            let scratch = Scratch::new(&format!("full-file-{kib}-{}", arguments.len()));
            let program = scratch.program("stacks");
            let Some(small) = Small::new(&scratch, kib) else { return };
            behaved(&run("XALLOC_OUT", &small.0.join("trace"), &program, arguments));
        }
    }
}

#[test]
fn a_program_without_descriptors_left_loses_no_stack_where_there_is_room() {
    let scratch = Scratch::new("no-descriptors");
    let program = scratch.program("stacks");
    let session = scratch.path("session");
    let _recorder = Recorder::new(&session, overflow::DROP);
    behaved(&run("XALLOC_SESSION", &session, &program, &["without descriptors"]));
    let recording = last(segments(&session));
    let (known, unknown) = with_and_without_stack(&recording);
    assert!(known > 1000, "{known}");
    assert_eq!((unknown, recording.lost_stacks), (0, 0));
}
