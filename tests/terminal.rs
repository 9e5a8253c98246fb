//! What `xalloc-report` does on a terminal, off it, and when the terminal or the reader goes away.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use support::victims::victim;
use support::{tool, xalloc};

const INTERRUPT: &str = "\u{3}";
const ESCAPE: char = '\u{1b}';

/// A terminal with a user at it. Played by a script: a pseudo-terminal takes unsafe code otherwise.
struct Terminal {
    python: PathBuf,
    variables: Vec<(&'static str, &'static str)>,
}

impl Terminal {
    fn open() -> Option<Terminal> {
        Some(Terminal { python: tool("python3")?, variables: Vec::new() })
    }

    fn with(mut self, variable: &'static str, value: &'static str) -> Terminal {
        self.variables.push((variable, value));
        self
    }

    /// Runs `xalloc-report` with these arguments; whenever a text has come the keys behind it are typed. Returns all that
    /// came to the terminal.
    fn run(&self, steps: &[(&str, &str)], arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/terminal.py");
        let mut command = Command::new(&self.python);
        command.arg(script).arg(json!(steps).to_string()).arg(env!("CARGO_BIN_EXE_xalloc-report")).args(arguments);
        for variable in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "CI", "XALLOC_OUT", "LD_PRELOAD"] {
            command.env_remove(variable);
        }
        command.env("TERM", "xterm-256color").envs(self.variables.iter().copied()).stdin(Stdio::null());
        let output = command.output().expect("python3 starts");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}\n{shown}", String::from_utf8_lossy(&output.stderr));
        shown
    }
}

fn summary(trace: &str) -> serde_json::Value {
    let output = xalloc().args(["summary", trace, "--format", "json"]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    document["result"].take()
}

fn place() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("t.xtrace").to_string_lossy().into_owned();
    (folder, trace)
}

#[test]
fn the_first_interrupt_is_the_programs_and_the_trace_is_finished() {
    const PROGRAM: &str = "trap 'count=$((count+1)); echo caught $count' INT; echo ready; \
                           until [ \"$count\" ]; do sleep 0.05; done; sleep 0.2; exit 7";
    let Some(terminal) = Terminal::open() else { return };
    let (_folder, trace) = place();
    let steps = [("ready", INTERRUPT), ("[status 7]", "")];
    let shown = terminal.run(&steps, &["record", "-o", &trace, "--", "sh", "-c", PROGRAM]);
    assert!(shown.contains("caught 1") && !shown.contains("caught 2"), "{shown}");
    assert!(shown.contains("alive at exit"), "no summary:\n{shown}");
    let summary = summary(&trace);
    assert!(summary["salvage"].is_null(), "the trace was not finished: {summary}");
    assert_eq!(summary["end"]["status"], 7);
}

#[test]
fn a_second_interrupt_ends_the_wait_and_the_program_runs_on() {
    const PROGRAM: &str = "trap '' INT; echo ready; for n in $(seq 600); do echo tick $n; sleep 0.05; done";
    let Some(terminal) = Terminal::open() else { return };
    let (_folder, trace) = place();
    let steps = [("ready", INTERRUPT), ("tick", ""), ("tick", INTERRUPT), ("[status 130]", ""), ("tick", "")];
    let shown = terminal.run(&steps, &["record", "-o", &trace, "--", "sh", "-c", PROGRAM]);
    let summary = summary(&trace);
    assert!(summary["salvage"].is_null(), "the trace was not finished: {shown}");
    assert_eq!(summary["end"]["how"], "running");
}

#[test]
fn while_the_program_runs_the_terminal_is_its_own() {
    let Some(terminal) = Terminal::open() else { return };
    let (_folder, trace) = place();
    let program = "echo first; sleep 0.3; echo last >&2";
    let shown = terminal.run(&[("[status 0]", "")], &["record", "-o", &trace, "--", "sh", "-c", program]);
    let (during, after) = shown.split_once("last\r\n").unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(during, "first\r\n", "something was written while the program ran");
    assert!(after.contains(ESCAPE) && after.contains("alive at exit"), "{after}");
}

#[test]
fn away_from_a_terminal_there_is_neither_progress_nor_colour_unless_forced() {
    let (_folder, trace) = place();
    let program = victim("totals.c", &[]).program().to_owned();
    let record = |with: &[&str], variables: &[(&str, &str)]| {
        let mut command = xalloc();
        command.env_remove("NO_COLOR").envs(variables.iter().copied());
        let command = command.args(with).args(["record", "-f", "-o", &trace]).arg(&program);
        let output = command.output().expect("it starts");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let plain = record(&[], &[]);
    assert!(plain.contains("alive at exit") && !plain.contains("naming"), "{plain}");
    assert!(!plain.contains([ESCAPE, '\r']), "{plain:?}");
    assert!(record(&[], &[("CLICOLOR_FORCE", "1")]).contains(ESCAPE));
    assert!(record(&["--color", "always"], &[]).contains(ESCAPE));
    assert!(!record(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]).contains(ESCAPE));
}

#[test]
fn on_a_terminal_there_is_colour_unless_it_is_unwanted() {
    let (_folder, trace) = place();
    let program = victim("totals.c", &[]).program().to_owned();
    let recorded = xalloc().args(["record", "-o", &trace]).arg(program).output().expect("it starts");
    assert!(recorded.status.success());
    let shown = |terminal: Terminal, options: &[&str]| {
        terminal.run(&[("[status 0]", "")], &[&["summary", &trace], options].concat())
    };
    let Some(terminal) = Terminal::open() else { return };
    assert!(shown(terminal, &[]).contains(ESCAPE));
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let Some(terminal) = Terminal::open() else { return };
        let shown = shown(terminal.with(variable, value), &[]);
        assert!(shown.contains("alive at exit") && !shown.contains(ESCAPE), "{variable}: {shown}");
    }
    let Some(terminal) = Terminal::open() else { return };
    assert!(!shown(terminal, &["--color", "never"]).contains(ESCAPE));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (_folder, trace) = place();
    let program = victim("threads.c", &[]).program().to_owned();
    let recorded = xalloc().args(["record", "-o", &trace]).arg(program).output().expect("it starts");
    assert!(recorded.status.success());
    let full = xalloc().args(["events", &trace]).output().expect("it starts").stdout.len();
    assert!(full > 1 << 20, "a pipe would hold all {full} bytes");
    let mut events = xalloc();
    let events = events.args(["events", &trace]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut events = events.spawn().expect("it starts");
    let mut line = String::new();
    // The pipe is closed behind the first line.
    BufReader::new(events.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(!line.is_empty());
    let ended = events.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
    assert!(fs::metadata(&trace).is_ok());
}
