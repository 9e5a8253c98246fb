//! A recorded program that is asked for its leaks while it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};

use serde_json::Value;

use super::victims::program;
use super::{Trace, xalloc};

/// `tests/programs/asked.c` under a recorder.
pub(crate) struct Running {
    recorder: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The process that waits to be asked.
    pub(crate) pid: u32,
    pub(crate) trace: Trace,
    folder: tempfile::TempDir,
}

impl Running {
    /// Starts it with these cases, recorded with these options.
    pub(crate) fn start(options: &[&str], cases: &[&str]) -> Running {
        Running::start_behind(xalloc(), options, &[], cases)
    }

    /// Starts it with a command in the place of the recorder's, and words between the recorder's options and the program.
    pub(crate) fn start_behind(mut recorder: Command, options: &[&str], words: &[&str], cases: &[&str]) -> Running {
        let folder = tempfile::tempdir().expect("a folder for the trace");
        let trace = folder.path().join("recording.xtrace");
        recorder.args(["record", "-q", "-o"]).arg(&trace).args(options).arg("--").args(words);
        recorder.arg(program("asked.c")).args(cases);
        let recorder = recorder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut recorder = recorder.expect("the recorder starts");
        let input = recorder.stdin.take();
        let output = BufReader::new(recorder.stdout.take().expect("a pipe"));
        let mut running = Running { recorder, input, output, pid: 0, trace: Trace::at(trace), folder };
        let line = running.line();
        running.pid = line.parse().unwrap_or_else(|_| panic!("`{line}` is no process: {}", running.told()));
        running.await_rest();
        running
    }

    /// Waits until it waits for input, or is over: until then words of what it did last are at work.
    fn await_rest(&self) {
        let is_asleep = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
            status.map_or(true, |status| status.lines().any(|line| line.starts_with("State:\tS")))
        };
        while !is_asleep() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The recorder's process id.
    pub(crate) fn recorder(&self) -> u32 {
        self.recorder.id()
    }

    /// Where the trace lies.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe");
        line.trim_end().to_owned()
    }

    fn told(&mut self) -> String {
        let mut told = String::new();
        let _ = self.recorder.stderr.take().map(|mut stderr| stderr.read_to_string(&mut told));
        told
    }

    /// Gives it a letter, and hears its answer.
    pub(crate) fn say(&mut self, letter: &str) -> String {
        let input = self.input.as_mut().expect("it was not ended");
        input.write_all(letter.as_bytes()).expect("a pipe");
        let answer = self.line();
        self.await_rest();
        answer
    }

    /// Asks for its leaks.
    pub(crate) fn asked(&self) -> Output {
        ask(self.pid).output().expect("xalloc-report starts")
    }

    /// What is leaked in it, as `result` of the JSON.
    pub(crate) fn leaks(&self) -> Value {
        result_of(&self.asked())
    }

    /// Ends it, and says how the recorder ended.
    pub(crate) fn end(mut self) -> (ExitStatus, Trace, tempfile::TempDir) {
        self.input.as_mut().expect("it was not ended").write_all(b"e").expect("a pipe");
        assert!(self.line().starts_with("end"));
        drop(self.input.take());
        let status = self.recorder.wait().expect("the recorder ends");
        let (folder, trace) =
            (std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder")), &self.trace);
        let trace = Trace::at(trace.path.clone());
        (status, trace, folder)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.recorder.kill();
        let _ = self.recorder.wait();
    }
}

/// The command that asks for a process's leaks.
pub(crate) fn ask(pid: u32) -> Command {
    let mut command = xalloc();
    command.args(["leaks", "--format", "json", "--pid", &pid.to_string()]);
    command
}

/// The object `result` of what was answered.
pub(crate) fn result_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut document: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    document["result"].take()
}

/// Blocks of that size and class.
pub(crate) fn blocks(leaks: &Value, class: &str, size_bytes: u64) -> u64 {
    let sites = super::list(leaks, "sites").into_iter().filter(|site| site["class"] == class);
    let of_size =
        sites.filter(|site| site["bytes"].as_u64() == site["blocks"].as_u64().map(|blocks| blocks * size_bytes));
    of_size.map(|site| super::number(&site, "blocks")).sum()
}
