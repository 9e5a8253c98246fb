//! A program that is killed leaves a readable trace with everything that it pushed.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use support::shared::Shared;
use support::victims::victim;
use support::{Trace, list, number, xalloc};

const ROUNDS: u64 = 50;
const SIGKILL: i32 = 9;

#[test]
fn a_program_killed_at_a_random_moment_leaves_all_that_it_pushed() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = victim("killed.c", &[]).program().to_owned();
    for round in 0..ROUNDS {
        let shared = Shared::new(folder.path());
        let trace = Trace::at(folder.path().join("killed.xtrace"));
        let mut recorder = xalloc();
        recorder.arg("record").arg("-f").arg("-o").arg(&trace).arg("--").arg(&program).arg(shared.path());
        let recorder = recorder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let recorder = recorder.spawn().expect("xalloc-report starts");

        shared.wait_until("the program's work", |it| it.allocations() > 0);
        // From the first allocations to some hundred thousand.
        thread::sleep(Duration::from_micros(round * round * 40));
        shared.kill();
        let output = recorder.wait_with_output().expect("the recorder ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + SIGKILL), "round {round}: {stderr}");

        let counted = shared.allocations();
        let summary = trace.summary();
        let recorded = number(&summary, "allocations");
        // An allocation is pushed before malloc returns and counted after: one may be in between.
        assert!((counted..=counted + 1).contains(&recorded), "round {round}: {recorded} of {counted} allocations");
        assert_eq!(number(&summary, "dropped_events"), 0, "round {round}");
        assert_eq!(number(&summary, "unknown_frees"), 0, "round {round}");
        assert_eq!(number(&summary["end"], "signal"), SIGKILL as u64, "round {round}");
    }
}

/// A recorder of the victim, and what the victim tells of itself. Both go with the test.
struct Recorder {
    process: Child,
    shared: Shared,
    trace: Trace,
    _folder: tempfile::TempDir,
}

impl Recorder {
    fn start(arguments: &[&str]) -> Recorder {
        let folder = tempfile::tempdir().expect("a folder");
        let program = victim("killed.c", &[]).program().to_owned();
        let (shared, trace) = (Shared::new(folder.path()), Trace::at(folder.path().join("killed.xtrace")));
        let mut command = xalloc();
        command.arg("record").arg("-o").arg(&trace).arg("--").arg(&program).arg(shared.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Recorder { process: command.spawn().expect("xalloc-report starts"), shared, trace, _folder: folder }
    }

    /// Kills it, and the victim when that has come further by so many allocations.
    fn kill(&mut self, allocations_after: u64) {
        let before = self.shared.allocations();
        self.process.kill().expect("the recorder runs");
        let status = self.process.wait().expect("the recorder ends");
        assert_eq!(status.signal(), Some(SIGKILL));
        // The program notices that nobody listens, and goes on.
        self.shared.wait_until("an end to the program's wait", |it| it.allocations() >= before + allocations_after);
        self.shared.kill();
    }
}

#[test]
fn a_trace_whose_recorder_was_killed_is_readable_as_far_as_it_was_written() {
    let mut recorder = Recorder::start(&[]);
    // Several blocks of the file are full by then.
    recorder.shared.wait_until("a million allocations", |it| it.allocations() >= 1_000_000);
    recorder.kill(1_000_000);
    let summary = recorder.trace.summary();
    assert!(summary["salvage"].is_string(), "the summary does not say that the trace was cut");
    assert!(number(&summary, "allocations") > 0);
    assert!(number(&summary, "duration_ns") > 0);
}

#[test]
fn a_trace_whose_recorder_was_killed_has_names_when_it_is_read_and_every_report_says_what_is_missing() {
    let mut recorder = Recorder::start(&[]);
    recorder.shared.wait_until("a million allocations", |it| it.allocations() >= 1_000_000);
    recorder.kill(1);
    for command in ["leaks", "top", "histogram", "timeline", "fragmentation", "flamegraph", "what-if"] {
        let output = recorder.trace.run::<&str>(command, &[]);
        let [told, noted] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(noted.matches("the trace is not whole: ").count(), 1, "{command}: {noted}");
        if ["leaks", "top", "flamegraph"].contains(&command) {
            assert!(told.contains("main") && told.contains("killed.c:"), "{command}: {told}");
        }
    }
}

#[test]
fn a_recorder_that_is_killed_at_once_leaves_a_trace_that_names_the_command() {
    let mut recorder = Recorder::start(&["100000"]);
    recorder.shared.wait_until("the first allocation", |it| it.allocations() > 0);
    recorder.kill(1);
    let summary = recorder.trace.summary();
    assert!(summary["salvage"].is_string());
    assert!(summary["command"][0].as_str().is_some_and(|program| program.ends_with("killed")), "{summary}");
}

#[test]
fn what_a_slow_program_did_is_in_the_file_long_before_a_block_is_full() {
    const PAUSE_US: &str = "1000";
    let mut recorder = Recorder::start(&[PAUSE_US]);
    let Recorder { shared, trace, .. } = &recorder;
    // The file may be read while it is written, once it has a beginning.
    shared.wait_until("the beginning of the file", |_| trace.path.metadata().is_ok_and(|file| file.len() > 0));
    shared.wait_until("an allocation in the file", |_| number(&trace.summary(), "allocations") > 0);
    let counted = shared.allocations();
    recorder.kill(1);
    let summary = recorder.trace.summary();
    assert!(summary["salvage"].is_string());
    let recorded = number(&summary, "allocations");
    assert!(recorded > 0 && counted < 60_000, "{recorded} of {counted}");
    assert!(summary["libc"].as_str().is_some_and(|libc| libc.starts_with("2.")), "{summary}");
}

#[test]
fn who_ended_by_a_signal_is_not_said_to_run_and_lived_until_then() {
    let recording = victim("slain.c", &[]).record();
    assert_eq!(recording.status().signal().or(recording.status().code().map(|code| code - 128)), Some(SIGKILL));
    let summary = recording.summary();
    assert!(number(&summary, "duration_ns") >= 500_000_000, "{summary}");
    let processes = list(&summary, "by_process");
    let ends: Vec<_> = processes.iter().map(|process| process["end"]["how"].as_str()).collect();
    assert_eq!(ends, [Some("signalled"), Some("vanished")], "{summary}");
    assert!(!recording.stderr().contains("run on"), "{}", recording.stderr());
}

#[test]
fn a_program_that_cuts_its_own_shared_memory_short_does_not_take_the_recorder_with_it() {
    for (file, word) in [("segment.*", "was cut short by a program"), ("control", "control page was cut short")] {
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("cut.xtrace");
        // What becomes of the programs themselves is their own doing.
        let script = format!("truncate -s 0 \"$XALLOC_SESSION\"/{file}; sleep 0.3");
        let mut recorder = xalloc();
        recorder.arg("record").arg("-o").arg(&trace).args(["--", "sh", "-c", &script]);
        let output = recorder.output().expect("xalloc-report starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), None, "{file}: the recorder itself was ended: {stderr}");
        assert!(stderr.contains(word), "{file}: {stderr}");
        let output = xalloc().arg("summary").arg(&trace).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
