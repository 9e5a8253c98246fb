//! What the end-to-end tests share: the victims' builds, a recording, its JSON.
//!
//! A victim is built once into the build's scratch folder and again when its source has changed, so that tests which run
//! as processes of their own share it. Everything that a test writes lies in a folder that goes with the test.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ffi::OsStr;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::SystemTime;

use serde_json::Value;

pub(crate) mod footprint;
pub(crate) mod running;
pub(crate) mod shared;
pub(crate) mod twins;
pub(crate) mod victims;

/// The program under test, its environment free of what would change its output.
pub(crate) fn xalloc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xalloc-report"));
    for variable in ["CLICOLOR_FORCE", "XALLOC_OUT", "XALLOC_SESSION", "LD_PRELOAD", "GITHUB_ACTIONS"] {
        command.env_remove(variable);
    }
    // What an earlier test kept must not stand in for what this one reads.
    command.env("NO_COLOR", "1").env("XALLOC_NAMES_CACHE", "off");
    command
}

/// A command with its arguments and what it reads on stdin, to be run with and without a recorder.
#[derive(Clone)]
pub(crate) struct Load {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Option<PathBuf>,
}

impl Load {
    pub(crate) fn new(program: impl Into<PathBuf>, arguments: &[&str]) -> Load {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Load { program: program.into(), arguments, environment: Vec::new(), stdin: None }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Load {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn stdin(mut self, file: impl Into<PathBuf>) -> Load {
        self.stdin = Some(file.into());
        self
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it as it is.
    pub(crate) fn plain(&self) -> Output {
        self.under(Command::new(&self.program))
    }

    /// Runs it behind another command, which gets the program and its arguments at the end of its own.
    pub(crate) fn behind(&self, mut command: Command) -> Output {
        command.arg(&self.program);
        self.under(command)
    }

    fn under(&self, mut command: Command) -> Output {
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        let stdin = match &self.stdin {
            Some(file) => Stdio::from(fs::File::open(file).expect("the input that the test made")),
            None => Stdio::null(),
        };
        command.stdin(stdin).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Records it.
    pub(crate) fn record(&self) -> Recording {
        self.record_with(&[])
    }

    /// Records it with further options of `record`.
    pub(crate) fn record_with(&self, options: &[&str]) -> Recording {
        let folder = tempfile::tempdir().expect("a folder for the trace");
        let trace = folder.path().join("recording.xtrace");
        let mut command = xalloc();
        command.arg("record").arg("-o").arg(&trace).args(options).arg("--");
        Recording { output: self.behind(command), trace: Trace::at(trace), folder }
    }
}

/// A recording and what came of it.
pub(crate) struct Recording {
    pub(crate) output: Output,
    pub(crate) trace: Trace,
    folder: tempfile::TempDir,
}

impl Deref for Recording {
    type Target = Trace;

    fn deref(&self) -> &Trace {
        &self.trace
    }
}

impl Recording {
    pub(crate) fn status(&self) -> ExitStatus {
        self.output.status
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// A path beside the trace.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A trace, and what the reports say of it.
pub(crate) struct Trace {
    pub(crate) path: PathBuf,
}

impl AsRef<OsStr> for Trace {
    fn as_ref(&self) -> &OsStr {
        self.path.as_os_str()
    }
}

impl Trace {
    pub(crate) fn at(path: impl Into<PathBuf>) -> Trace {
        Trace { path: path.into() }
    }

    /// Runs an analysis command on the trace; its name first, then its options.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, command: &str, options: &[S]) -> Output {
        let output = xalloc().arg(command).arg(&self.path).args(options).output().expect("xalloc-report starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} on {}: {told}", self.path.display());
        output
    }

    /// The object `result` of an analysis command's JSON.
    pub(crate) fn json(&self, command: &str, options: &[&str]) -> Value {
        let options: Vec<&str> = options.iter().copied().chain(["--format", "json"]).collect();
        let output = self.run(command, &options);
        let mut document: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
        assert!(document["schema"].is_string(), "{command}: no schema is named");
        assert!(!document["schema_version"].is_null(), "{command}: no schema version is named");
        document["result"].take()
    }

    pub(crate) fn summary(&self) -> Value {
        self.json("summary", &[])
    }

    /// The events of these kinds, in order.
    pub(crate) fn events(&self, kinds: &str) -> Vec<Value> {
        list(&self.json("events", &["--kind", kinds]), "events")
    }

    /// Every call stack that allocated, with its figures.
    pub(crate) fn sites(&self) -> Vec<Value> {
        list(&self.json("top", &["--by", "count"]), "sites")
    }

    /// Those of [`Trace::sites`] that go through a function whose name contains `function`.
    pub(crate) fn sites_in(&self, function: &str) -> Vec<Value> {
        self.sites().into_iter().filter(|site| functions(site).iter().any(|name| name.contains(function))).collect()
    }
}

/// The array `name` of a result.
pub(crate) fn list(result: &Value, name: &str) -> Vec<Value> {
    result[name].as_array().unwrap_or_else(|| panic!("no array {name} in {result}")).clone()
}

/// The names of a site's frames, innermost first; a frame without a name is empty.
pub(crate) fn functions(site: &Value) -> Vec<String> {
    list(site, "frames").iter().map(|frame| frame["function"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The number `name` of an object.
pub(crate) fn number(object: &Value, name: &str) -> u64 {
    object[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {object}"))
}

/// An address as JSON shows it.
pub(crate) fn address(object: &Value, name: &str) -> u64 {
    let text = object[name].as_str().unwrap_or_else(|| panic!("no address {name} in {object}"));
    let digits = text.strip_prefix("0x").unwrap_or_else(|| panic!("{text} is no address"));
    u64::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Where a program of that name is: the distribution's, for others may be scripts around it. Says so if there is none,
/// for the test that then is skipped.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(PathBuf::from("/usr/bin"))
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: {name} is not installed");
    }
    found
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
