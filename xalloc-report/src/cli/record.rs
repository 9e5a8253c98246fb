//! `record`, `doctor` and `import`: the arguments of the commands that make a trace, as plain structs.
//!
//! Everything from the first word that is no option belongs to the program, options included; a `--` before it is
//! allowed and never needed. Leading `NAME=value` words are the program's environment, as for `env`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Who is to serve the program's allocations.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AllocatorChoice {
    /// xalloc's own heap, which places chunks as glibc does
    Core,
    /// The program's own allocator, recorded from outside
    System,
    /// `core`, unless the program brings an allocator of its own
    #[default]
    Auto,
}

/// What a thread does when its ring is full.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Overflow {
    /// Wait for the recorder: nothing is lost
    #[default]
    Wait,
    /// Drop the event and count it
    Drop,
}

/// What `record` is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordArgs {
    /// The program: a path, or a name to look for in PATH.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables to set for it, in order.
    pub environment: Vec<(OsString, OsString)>,
    /// The trace to write, with `%e` program, `%p` pid, `%t` time, `%h` host still to be filled in.
    pub output: PathBuf,
    /// Whether an existing trace is replaced.
    pub force: bool,
    /// Who serves the allocations.
    pub allocator: AllocatorChoice,
    /// Whether the program's children are recorded too.
    pub follow: bool,
    /// What a thread does when its ring is full.
    pub overflow: Overflow,
    /// Whether functions are resolved when the recording ends.
    pub symbols: bool,
    /// Whether the summary at the end is left out.
    pub quiet: bool,
    /// Whether the recording is judged when it ends.
    pub check: bool,
}

/// Run a program, record its allocations, print the summary
#[derive(Args, Clone, Debug)]
pub struct Record {
    /// Trace to write; %e is the program's name, %p its pid, %t the time, %h the host
    #[arg(short, long, value_name = "FILE", default_value = "xalloc.%e.%p.xtrace")]
    output: PathBuf,
    /// Replace an existing trace
    #[arg(short, long)]
    force: bool,
    /// Who serves the program's allocations
    #[arg(long, value_enum, default_value_t)]
    allocator: AllocatorChoice,
    /// Record children that the program forks or executes (the default)
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// Record only the program itself
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// What a thread does when the recorder does not keep up
    #[arg(long, value_enum, default_value_t)]
    overflow: Overflow,
    /// Leave functions unresolved; the trace keeps the build-ids
    #[arg(long)]
    no_symbols: bool,
    /// Do not print the summary
    #[arg(short, long)]
    quiet: bool,
    /// Judge the recording at its end; exit status 23 if that fails and the program did not
    #[arg(long)]
    check: bool,
    /// The program and its arguments; leading NAME=value words are its environment
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why the words of `record` are no command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no program is named: every word is of the form NAME=value")]
pub struct NoProgram;

impl TryFrom<Record> for RecordArgs {
    type Error = NoProgram;

    fn try_from(record: Record) -> Result<RecordArgs, NoProgram> {
        let mut words = record.command.into_iter().peekable();
        let mut environment = Vec::new();
        while let Some(variable) = words.peek().and_then(|word| assignment(word)) {
            environment.push(variable);
            words.next();
        }
        Ok(RecordArgs {
            program: words.next().ok_or(NoProgram)?,
            arguments: words.collect(),
            environment,
            output: record.output,
            force: record.force,
            allocator: record.allocator,
            follow: !record.no_follow,
            overflow: record.overflow,
            symbols: !record.no_symbols,
            quiet: record.quiet,
            check: record.check,
        })
    }
}

/// Name and value of a word `NAME=value`, where the name is one that a shell would take.
fn assignment(word: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = word.as_bytes();
    let equals = bytes.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&bytes[..equals], &bytes[equals + 1..]);
    let begins = name.first().is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_');
    let goes_on = name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (begins && goes_on).then(|| (OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
}

/// What `doctor` is to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DoctorArgs {
    /// The program that is to be recorded, if one was named.
    pub program: Option<OsString>,
}

/// Find out beforehand what would keep a recording from working
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// The program that is to be recorded
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl From<Doctor> for DoctorArgs {
    fn from(doctor: Doctor) -> DoctorArgs {
        let mut words = doctor.command.into_iter();
        DoctorArgs { program: words.find(|word| assignment(word).is_none()) }
    }
}

/// What `import` is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportArgs {
    /// The file that was recorded without a recorder.
    pub file: PathBuf,
    /// The trace to write; `None`: the file's name with `.xtrace`.
    pub output: Option<PathBuf>,
    /// Whether an existing trace is replaced.
    pub force: bool,
}

/// Make a trace of a recording that was spilled to a file (XALLOC_OUT)
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// The file
    file: PathBuf,
    /// Trace to write; FILE's name with .xtrace otherwise
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing trace
    #[arg(short, long)]
    force: bool,
}

impl From<Import> for ImportArgs {
    fn from(import: Import) -> ImportArgs {
        ImportArgs { file: import.file, output: import.output, force: import.force }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    enum Command {
        Record(Record),
        Doctor(Doctor),
        Import(Import),
    }

    fn record(words: &[&str]) -> RecordArgs {
        let all = ["xalloc-report", "record"].iter().chain(words);
        let Ok(Command::Record(record)) = Command::try_parse_from(all) else { panic!("{words:?}") };
        record.try_into().expect("a program is named")
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        for words in
            [&["-f", "./app", "-o", "x", "--", "--check"][..], &["-f", "--", "./app", "-o", "x", "--", "--check"]]
        {
            let args = record(words);
            assert_eq!(args.program, "./app");
            assert_eq!(args.arguments, ["-o", "x", "--", "--check"]);
            assert!(args.force && !args.check);
            assert_eq!(args.output, PathBuf::from("xalloc.%e.%p.xtrace"));
        }
    }

    #[test]
    fn leading_assignments_are_the_environment_and_later_ones_are_arguments() {
        let args = record(&["LANG=C", "EMPTY=", "./app", "KEY=value"]);
        assert_eq!(args.environment, [("LANG".into(), "C".into()), ("EMPTY".into(), OsString::new())]);
        assert_eq!(args.arguments, ["KEY=value"]);
        let args = record(&["./a=b"]);
        assert_eq!((args.program.as_os_str(), args.environment.len()), (OsStr::new("./a=b"), 0));
    }

    #[test]
    fn children_are_followed_unless_said_otherwise_and_the_last_word_counts() {
        assert!(record(&["./app"]).follow);
        assert!(!record(&["--no-follow", "./app"]).follow);
        assert!(record(&["--no-follow", "--follow", "./app"]).follow);
    }

    #[test]
    fn a_mistyped_option_is_not_taken_for_the_program() {
        assert!(Command::try_parse_from(["xalloc-report", "record", "--forse", "./app"]).is_err());
        assert!(Command::try_parse_from(["xalloc-report", "record"]).is_err());
    }

    #[test]
    fn assignments_alone_name_no_program() {
        let Ok(Command::Record(only)) = Command::try_parse_from(["xalloc-report", "record", "A=1"]) else {
            panic!("it parses")
        };
        assert_eq!(RecordArgs::try_from(only), Err(NoProgram));
    }

    #[test]
    fn doctor_needs_no_program_and_import_a_file() {
        let parse = |words: &[&str]| Command::try_parse_from(["xalloc-report"].iter().chain(words));
        let Ok(Command::Doctor(doctor)) = parse(&["doctor"]) else { panic!("doctor parses") };
        assert_eq!(DoctorArgs::from(doctor).program, None);
        let Ok(Command::Import(import)) = parse(&["import", "a.spill", "-f"]) else { panic!("import parses") };
        assert!(ImportArgs::from(import).force);
        assert!(parse(&["import"]).is_err());
    }
}
