//! A program that is killed leaves a readable trace with everything that it pushed.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

/// A recorder of the victim, and what the victim tells of itself. Both go with the test.
struct Recorder {
    process: Child,
    shared: PathBuf,
    trace: PathBuf,
    _folder: tempfile::TempDir,
}

impl Recorder {
    fn start(arguments: &[&str]) -> Recorder {
        let folder = tempfile::tempdir().expect("a folder");
        let program = victim("killed.c", &[]).program().to_owned();
        let (shared, trace) = (folder.path().join("shared"), folder.path().join("killed.xtrace"));
        fs::write(&shared, [0; 16]).expect("the shared file");
        let mut command = xalloc();
        command.arg("record").arg("-o").arg(&trace).arg("--").arg(&program).arg(&shared).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Recorder { process: command.spawn().expect("xalloc-report starts"), shared, trace, _folder: folder }
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Recorder) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(50);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what} does not come");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it, and the victim when that has come further by so many allocations. Returns the result of `summary`.
    fn kill(mut self, allocations_after: u64) -> serde_json::Value {
        let before = words(&self.shared).1;
        self.process.kill().expect("the recorder runs");
        let status = self.process.wait().expect("the recorder ends");
        assert_eq!(status.signal(), Some(SIGKILL));
        // The program notices that nobody listens, and goes on.
        self.wait_until("an end to the program's wait", |it| words(&it.shared).1 >= before + allocations_after);
        kill(words(&self.shared).0);
        self.summary()
    }

    /// The result of `summary` on what is in the file.
    fn summary(&self) -> serde_json::Value {
        let output = xalloc().arg("summary").arg(&self.trace).args(["--format", "json"]).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        document["result"].take()
    }
}

#[test]
fn a_trace_whose_recorder_was_killed_is_readable_as_far_as_it_was_written() {
    let recorder = Recorder::start(&[]);
    // Several blocks of the file are full by then.
    recorder.wait_until("a million allocations", |it| words(&it.shared).1 >= 1_000_000);
    let summary = recorder.kill(1_000_000);
    assert!(summary["salvage"].is_string(), "the summary does not say that the trace was cut");
    assert!(number(&summary, "allocations") > 0);
    assert!(number(&summary, "duration_ns") > 0);
}

#[test]
fn a_recorder_that_is_killed_at_once_leaves_a_trace_that_names_the_command() {
    let recorder = Recorder::start(&["100000"]);
    recorder.wait_until("the first allocation", |it| words(&it.shared).1 > 0);
    let summary = recorder.kill(1);
    assert!(summary["salvage"].is_string());
    assert!(summary["command"][0].as_str().is_some_and(|program| program.ends_with("killed")), "{summary}");
}

#[test]
fn what_a_slow_program_did_is_in_the_file_long_before_a_block_is_full() {
    const PAUSE_US: &str = "1000";
    let recorder = Recorder::start(&[PAUSE_US]);
    // The file may be read while it is written, once it has a beginning.
    recorder.wait_until("the beginning of the file", |it| it.trace.metadata().is_ok_and(|file| file.len() > 0));
    recorder.wait_until("an allocation in the file", |it| number(&it.summary(), "allocations") > 0);
    let counted = words(&recorder.shared).1;
    let summary = recorder.kill(1);
    assert!(summary["salvage"].is_string());
    let recorded = number(&summary, "allocations");
    assert!(recorded > 0 && counted < 60_000, "{recorded} of {counted}");
    assert!(summary["libc"].as_str().is_some_and(|libc| libc.starts_with("2.")), "{summary}");
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
