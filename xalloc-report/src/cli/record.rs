//! `record`, `doctor` and `import`: the arguments of the commands that make a trace, as plain structs.
//!
//! Everything from the first word that is no option belongs to the program, options included; a `--` before it is
//! allowed and never needed. Leading `NAME=value` words are the program's environment, as for `env`.

use std::ffi::OsString;
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
    /// Leading `NAME=value` words, the program, its arguments.
    pub command: Vec<OsString>,
    /// The trace to write, with `%e` program, `%p` pid, `%t` time, `%h` host still to be filled in; `None`: a free
    /// name after the program.
    pub output: Option<PathBuf>,
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
    /// Trace to write; %e is the program's name, %p its pid, %t the time, %h the host; without it a free name after
    /// the program
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
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

impl From<Record> for RecordArgs {
    fn from(record: Record) -> RecordArgs {
        RecordArgs {
            command: record.command,
            output: record.output,
            force: record.force,
            allocator: record.allocator,
            follow: !record.no_follow,
            overflow: record.overflow,
            symbols: !record.no_symbols,
            quiet: record.quiet,
            check: record.check,
        }
    }
}

/// What `doctor` is to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DoctorArgs {
    /// The command that is to be recorded, as for `record`; empty if none was named.
    pub command: Vec<OsString>,
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
        DoctorArgs { command: doctor.command }
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
        record.into()
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        let own = ["A=1", "./app", "-o", "x", "--", "--check", "B=2"];
        for separator in [&[][..], &["--"]] {
            let args = record(&[&["-f"], separator, &own].concat());
            assert_eq!(args.command, own);
            assert!(args.force && !args.check);
            assert_eq!(args.output, None);
        }
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
    fn doctor_needs_no_program_and_import_a_file() {
        let parse = |words: &[&str]| Command::try_parse_from(["xalloc-report"].iter().chain(words));
        let Ok(Command::Doctor(doctor)) = parse(&["doctor"]) else { panic!("doctor parses") };
        assert!(DoctorArgs::from(doctor).command.is_empty());
        let Ok(Command::Import(import)) = parse(&["import", "a.spill", "-f"]) else { panic!("import parses") };
        assert!(ImportArgs::from(import).force);
        assert!(parse(&["import"]).is_err());
    }
}
