//! A program that is killed leaves a readable trace with everything that it pushed.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::victims::victim;
use support::{number, xalloc};

const ROUNDS: u64 = 50;
const SIGKILL: i32 = 9;

/// The two words that the victim shares with us: its process id and its count of allocations.
fn words(shared: &Path) -> (u64, u64) {
    let bytes = fs::read(shared).expect("the file that the test made");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("sixteen bytes"));
    (word(0), word(8))
}

fn kill(pid: u64) {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill starts");
    assert!(status.success(), "process {pid} was gone before it was killed");
}

#[test]
fn a_program_killed_at_a_random_moment_leaves_all_that_it_pushed() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = victim("killed.c", &[]).program().to_owned();
    for round in 0..ROUNDS {
        let shared = folder.path().join("shared");
        let trace = folder.path().join("killed.xtrace");
        fs::write(&shared, [0; 16]).expect("the shared file");
        let mut recorder = xalloc();
        recorder.arg("record").arg("-f").arg("-o").arg(&trace).arg("--").arg(&program).arg(&shared);
        let recorder = recorder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let recorder = recorder.spawn().expect("xalloc-report starts");

        let deadline = Instant::now() + Duration::from_secs(20);
        while words(&shared).1 == 0 {
            assert!(Instant::now() < deadline, "round {round}: the program does not come to work");
            thread::sleep(Duration::from_millis(1));
        }
        // From the first allocations to some hundred thousand.
        thread::sleep(Duration::from_micros(round * round * 40));
        kill(words(&shared).0);
        let output = recorder.wait_with_output().expect("the recorder ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + SIGKILL), "round {round}: {stderr}");

        let (_, counted) = words(&shared);
        let output = xalloc().arg("summary").arg(&trace).args(["--format", "json"]).output().expect("it starts");
        assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let summary = &document["result"];
        let recorded = number(summary, "allocations");
        // An allocation is pushed before malloc returns and counted after: one may be in between.
        assert!((counted..=counted + 1).contains(&recorded), "round {round}: {recorded} of {counted} allocations");
        assert_eq!(number(summary, "dropped_events"), 0, "round {round}");
        assert_eq!(number(summary, "unknown_frees"), 0, "round {round}");
        assert_eq!(number(&summary["end"], "signal"), SIGKILL as u64, "round {round}");
    }
}

#[test]
fn a_trace_whose_recorder_was_killed_is_readable_as_far_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = victim("killed.c", &[]).program().to_owned();
    let (shared, trace) = (folder.path().join("shared"), folder.path().join("killed.xtrace"));
    fs::write(&shared, [0; 16]).expect("the shared file");
    let mut recorder = xalloc();
    recorder.arg("record").arg("-o").arg(&trace).arg("--").arg(&program).arg(&shared);
    let mut recorder =
        recorder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    // Several blocks of the file are full by then.
    while words(&shared).1 < 1_000_000 {
        assert!(Instant::now() < deadline, "the program does not come to work");
        thread::sleep(Duration::from_millis(5));
    }
    let (pid, before) = words(&shared);
    recorder.kill().expect("the recorder runs");
    let status = recorder.wait().expect("the recorder ends");
    assert_eq!(status.signal(), Some(SIGKILL));

    // The program notices that nobody listens, and goes on.
    let deadline = Instant::now() + Duration::from_secs(20);
    while words(&shared).1 < before + 1_000_000 {
        assert!(Instant::now() < deadline, "the program hangs without its recorder");
        thread::sleep(Duration::from_millis(5));
    }
    kill(pid);
    let output = xalloc().arg("summary").arg(&trace).args(["--format", "json"]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(document["result"]["salvage"].is_string(), "the summary does not say that the trace was cut");
    assert!(number(&document["result"], "allocations") > 0);
}
