//! `record`: run a program, record it, say what was seen.
//!
//! Everything from the first word that is no option belongs to the program, options included; a `--` before it is
//! allowed and never needed. Leading `NAME=value` words are the program's environment, as for `env`. Standard output
//! is the program's alone: what `record` itself has to say goes to standard error.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::{CountArgs, ForceArgs};
use super::budgets::BudgetArgs;
use super::progress::Progress;
use super::report::or_salvaged;
use super::{Console, Exit, Failure};
use crate::analysis;
use crate::check::{self, check};
use crate::model::{Model, Settings};
use crate::record::{self, Outcome, Props, RecordError};
use crate::render::escape::printable;
use crate::render::text;
use crate::trace::{ProcessIndex, Trace, TraceError};

/// Who is to serve the program's allocations.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Allocator {
    /// xalloc's own heap, which places chunks as glibc does
    Core,
    /// The program's own allocator, recorded from outside
    System,
    /// `core`, unless the program brings an allocator of its own
    #[default]
    Auto,
}

impl From<Allocator> for record::Allocator {
    fn from(choice: Allocator) -> record::Allocator {
        match choice {
            Allocator::Core => record::Allocator::Core,
            Allocator::System => record::Allocator::System,
            Allocator::Auto => record::Allocator::Auto,
        }
    }
}

/// What a thread does when its ring is full.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Overflow {
    /// Wait for the recorder: nothing is lost
    #[default]
    Wait,
    /// Drop the event and count it
    Drop,
}

impl From<Overflow> for record::Overflow {
    fn from(choice: Overflow) -> record::Overflow {
        match choice {
            Overflow::Wait => record::Overflow::Wait,
            Overflow::Drop => record::Overflow::Drop,
        }
    }
}

/// Run a program, record its allocations, print the summary
#[derive(Args, Clone, Debug)]
pub struct Record {
    /// Trace to write; %e is the program's name, %p its pid, %t the time, %h the host; without it a free name after
    /// the program
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: ForceArgs,
    /// Who serves the program's allocations
    #[arg(long, value_enum, default_value_t)]
    allocator: Allocator,
    /// Record children that the program forks or executes (the default)
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// Record only the program itself
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// What a thread does when the recorder does not keep up
    #[arg(long, value_enum, default_value_t)]
    overflow: Overflow,
    /// Frames that a call stack keeps, innermost first
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Leave out the heap's own steps (split, coalesce, bin)
    #[arg(long)]
    no_heap_steps: bool,
    /// Compare every N-th call stack with a plain walk and count the differences
    #[arg(long, value_name = "N", default_value_t = 0)]
    verify_stacks: u32,
    /// Leave functions unresolved; the trace keeps the build-ids
    #[arg(long)]
    no_symbols: bool,
    /// Do not print the summary
    #[arg(short, long)]
    quiet: bool,
    /// Judge the recording by the budgets, as naming one does too; exit status 23 if one is exceeded and the program
    /// itself succeeded
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    budgets: BudgetArgs,
    /// The program and its arguments; leading NAME=value words are its environment
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Record {
    fn props(&self) -> Props {
        Props {
            output: self.output.clone(),
            existing: self.force.into(),
            allocator: self.allocator.into(),
            overflow: self.overflow.into(),
            follow: !self.no_follow,
            depth: self.depth,
            verify_every: self.verify_stacks,
            heap_steps: !self.no_heap_steps,
            symbols: !self.no_symbols,
            ..Props::new(self.command.clone())
        }
    }

    /// The budgets that the recording is judged by, if it is to be judged.
    fn to_check(&self) -> Result<Option<check::Budgets>, Failure> {
        let budgets = self.budgets.budgets();
        match (budgets.is_empty(), self.check) {
            (false, _) => Ok(Some(budgets)),
            (true, false) => Ok(None),
            (true, true) => Err(BudgetArgs::none_given()),
        }
    }

    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let budgets = self.to_check()?;
        let mut progress = Progress::new();
        let recorded = record::run_with_progress(&self.props(), &mut |phase| progress.show(phase));
        progress.end();
        let mut outcome = recorded.map_err(failure)?;
        let exit = Exit::Program(outcome.exit_status());
        if let Some(stopped) = outcome.stopped.take() {
            write!(console.notes, "{}", stopped_early(stopped))?;
        }
        let shown = self.after(&outcome, budgets.as_ref(), console);
        // The program's status is the caller's first interest: what goes wrong with the summary may not replace it.
        let verdict = match shown {
            Ok(verdict) => verdict,
            Err(failure) => {
                write!(console.notes, "{failure}")?;
                return Ok(exit);
            }
        };
        let failed = matches!(verdict, Some(check::Outcome::BudgetExceeded | check::Outcome::Indeterminate));
        Ok(if failed && outcome.exit_status() == 0 { Exit::RecordCheckFailed } else { exit })
    }

    /// Says what was recorded, and judges it if that was asked for.
    fn after(
        &self,
        outcome: &Outcome,
        budgets: Option<&check::Budgets>,
        console: &mut Console<'_>,
    ) -> Result<Option<check::Outcome>, Failure> {
        if self.quiet && budgets.is_none() {
            return Ok(None);
        }
        let name = outcome.path.to_string_lossy();
        let trace = Trace::open(&outcome.path).map_err(|error| unreadable(&name, error))?;
        let settings = Settings { temporary_threshold: CountArgs::usual().temporary_threshold };
        let summary = or_salvaged(trace, &outcome.path, |trace| {
            let all: Vec<_> = (0..trace.contents().processes.len() as u32).map(ProcessIndex).collect();
            let model = Model::of(trace, all, settings).map_err(|error| unreadable(&name, error))?;
            Ok(analysis::summary(trace.contents(), &model))
        })?;
        if !self.quiet {
            console.notes.write_all(text::summary(&summary, &name).as_bytes())?;
            for note in outcome.notes() {
                writeln!(console.notes, "note: {}", printable(&note))?;
            }
        }
        let Some(budgets) = budgets else { return Ok(None) };
        let verdict = check(&summary, budgets);
        console.notes.write_all(text::check(&verdict).as_bytes())?;
        Ok(Some(verdict.outcome))
    }
}

/// The program ran on without its recorder: an error to the user, and no reason to change the program's status.
fn stopped_early(error: TraceError) -> Failure {
    Failure::new(error)
        .while_doing("the recording stopped before the program did")
        .hint("make room or name another place with -o; what was written until then can be read")
}

fn unreadable(name: &str, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(error).while_doing(format!("cannot read {}", printable(name)))
}

/// A recording that did not come about, with the exit status that is documented for it.
pub(super) fn failure(error: RecordError) -> Failure {
    let exit = match error.exit_status() {
        record::exit_status::CANNOT_EXECUTE => Exit::CannotExecute,
        record::exit_status::NOT_FOUND => Exit::NotFound,
        _ => Exit::RecordFailed,
    };
    let hint = error.hint();
    let failure = Failure::new(error).ending(exit);
    if let Some(hint) = hint { failure.hint(hint) } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    enum Command {
        Record(Record),
    }

    fn parsed(words: &[&str]) -> Record {
        let all = ["xalloc-report", "record"].iter().chain(words);
        let Ok(Command::Record(record)) = Command::try_parse_from(all) else { panic!("{words:?}") };
        record
    }

    fn record(words: &[&str]) -> Props {
        parsed(words).props()
    }

    #[test]
    fn a_budget_is_checked_without_being_asked_to_and_a_check_without_one_is_wrong_use() {
        for check in [&["--check"][..], &[]] {
            let budgets = parsed(&[check, &["--max-leaked-blocks", "0", "./app"]].concat()).to_check().unwrap();
            assert_eq!(budgets.and_then(|budgets| budgets.max_leaked_blocks), Some(0));
        }
        assert!(parsed(&["./app"]).to_check().unwrap().is_none());
        assert_eq!(parsed(&["--check", "./app"]).to_check().unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        let own = ["A=1", "./app", "-o", "x", "--", "--check", "B=2"];
        for separator in [&[][..], &["--"]] {
            let props = record(&[&["-f"], separator, &own].concat());
            assert_eq!(props.command, own);
            assert_eq!(props.existing, record::Existing::Replace);
            assert_eq!(props.output, None);
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
}
