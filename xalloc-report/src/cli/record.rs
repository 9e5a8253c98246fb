//! `record`: run a program, record it, say what was seen.
//!
//! Everything from the first word that is no option belongs to the program, options included; a `--` before it is
//! allowed and never needed. Leading `NAME=value` words are the program's environment, as for `env`. Standard output
//! is the program's alone: what `record` itself has to say goes to standard error.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{CountArgs, ForceArgs};
use super::check::{Judge, SettingArgs, doubts};
use super::opened::or_salvaged;
use super::progress::Progress;
use super::recording::RecordingArgs;
use super::{Console, Exit, Failure};
use crate::analysis;
use crate::check::{RunEvidence, Verdict};
use crate::model::{Brief, Model, Recorded, Settings};
use crate::record::{self, Outcome, OutputError, Props, RecordError};
use crate::render::escape::printable;
use crate::render::text::{self, Extent};
use crate::trace::{ProcessIndex, Tallied, Trace, TraceError, is_no_file};

/// Run a program, record its allocations, print the summary
#[derive(Args, Clone, Debug)]
pub struct Record {
    /// Trace to write; %e is the program's name, %p its pid, %t the time, %h the host; without it a free name after
    /// the program
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    recording: RecordingArgs,
    /// Do not print the summary
    #[arg(short, long)]
    quiet: bool,
    /// Judge the recording as `check` does, as naming a rule or a budget does too; exit status 23 if that fails and the
    /// program itself succeeded
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    settings: SettingArgs,
    /// The program and its arguments; leading NAME=value words are its environment
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Record {
    fn props(&self) -> Result<Props, Failure> {
        let props = self.recording.props(&self.command)?;
        Ok(Props { output: self.output.clone(), existing: self.force.into(), ..props })
    }

    /// By what the recording is judged, if it is to be judged.
    fn judge(&self) -> Result<Option<Judge>, Failure> {
        if !self.check && !self.settings.asks() {
            return Ok(None);
        }
        if let Some(output) = self.output.as_deref().filter(|output| is_no_file(output).unwrap_or(false)) {
            let name = output.to_string_lossy();
            let what = anyhow::anyhow!("a recording is judged by its trace, which {} does not keep", printable(&name));
            return Err(Failure::new(what).hint("name a file with -o").ending(Exit::RecordFailed));
        }
        Judge::of(&self.settings, &std::env::current_dir()?).map(Some)
    }

    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let judge = self.judge()?;
        let props = self.props()?;
        let mut progress = Progress::new();
        let settings = CountArgs::usual().into();
        let on_phase = &mut |phase| progress.show(phase);
        let recorded = if self.quiet {
            record::run_with_progress(&props, on_phase).map(|outcome| (outcome, None))
        } else {
            record::run_tallied(&props, move |contents, process| Brief::of(contents, process, settings), on_phase)
        };
        progress.end();
        let (mut outcome, tallied) = recorded.map_err(failure)?;
        let exit = Exit::Program(outcome.exit_status());
        if let Some(stopped) = outcome.stopped.take() {
            write!(console.notes, "{}", stopped_early(stopped, &outcome.path))?;
        }
        if let Some(refused) = outcome.unreplaced.take() {
            write!(console.notes, "{}", elsewhere(refused, &outcome.path))?;
        }
        let shown = self.after(&outcome, tallied, settings, judge.as_ref(), console);
        // The program's status is the caller's first interest: what goes wrong with the summary may not replace it.
        let verdict = match shown {
            Ok(verdict) => verdict,
            Err(failure) => {
                write!(console.notes, "{failure}")?;
                return Ok(if judge.is_some() && outcome.exit_status() == 0 { Exit::RecordCheckFailed } else { exit });
            }
        };
        let failed = verdict.is_some_and(|verdict| !verdict.passes());
        Ok(if failed && outcome.exit_status() == 0 { Exit::RecordCheckFailed } else { exit })
    }

    /// Says what was recorded, and judges it if that was asked for.
    fn after(
        &self,
        outcome: &Outcome,
        tallied: Option<Tallied<Brief>>,
        settings: Settings,
        judge: Option<&Judge>,
        console: &mut Console<'_>,
    ) -> Result<Option<Verdict>, Failure> {
        let name = outcome.path.to_string_lossy();
        let known = tallied.and_then(|Tallied { contents, tallies }| {
            let model = Model::of_tallied(tallies, settings)?;
            Some(analysis::summary(&contents, &model))
        });
        let is_known = known.is_some() || self.quiet;
        let (mut summary, mut run) = (known, None);
        if !is_known && is_no_file(&outcome.path).unwrap_or(false) {
            let name = printable(&name);
            writeln!(console.notes, "note: no summary: it had to be read from the trace, which {name} does not keep")?;
        } else if !is_known || judge.is_some() {
            let trace = Trace::open(&outcome.path).map_err(|error| unreadable(&name, error))?;
            let (read, judged) = or_salvaged(trace, &outcome.path, |trace| {
                let all: Vec<_> = (0..trace.contents().processes.len() as u32).map(ProcessIndex).collect();
                let run = judge.map(|judge| judge.evidence(trace, &all)).transpose();
                let run = run.map_err(|error| unreadable(&name, error))?;
                if is_known {
                    return Ok((None, run));
                }
                let model = Model::brief(trace, all, settings).map_err(|error| unreadable(&name, error))?;
                Ok((Some(analysis::summary(trace.contents(), &model)), run))
            })?;
            summary = summary.or(read);
            run = judged;
        }
        if let Some(summary) = summary {
            // A device or a FIFO has nothing to be read.
            let path = outcome.path.is_file().then_some(&*name);
            console.notes.write_all(text::summary(&summary, path).as_bytes())?;
            for note in outcome.notes() {
                writeln!(console.notes, "note: {}", printable(&note))?;
            }
        }
        let (Some(judge), Some(run)) = (judge, run) else { return Ok(None) };
        let run = RunEvidence { doubts: doubts(outcome), ..run };
        let verdict = judge.verdict(vec![run], console)?;
        console.notes.write_all(text::check(&verdict, Extent::default()).as_bytes())?;
        judge.report(&verdict, Extent::default(), console)?;
        Ok(Some(verdict))
    }
}

/// The program ran on without its recorder: an error to the user, and no reason to change the program's status.
fn stopped_early(error: TraceError, path: &Path) -> Failure {
    Failure::new(error).while_doing("the recording stopped before the program did").hint(format!(
        "make room or name another place with -o; what was written until then can be read in {}",
        printable(&path.to_string_lossy())
    ))
}

/// The trace is not where it was wanted.
pub(super) fn elsewhere(refused: OutputError, path: &Path) -> Failure {
    Failure::new(refused)
        .while_doing("the trace could not take the name that was asked for")
        .hint(format!("it is {}", printable(&path.to_string_lossy())))
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
        parsed(words).props().unwrap()
    }

    #[test]
    fn a_rule_or_a_budget_is_checked_without_being_asked_to_and_asking_alone_checks_the_usual_rules() {
        for words in [&["--max-leaked-blocks", "0"][..], &["--fail-on", "possible"], &["--check"]] {
            assert!(parsed(&[words, &["./app"]].concat()).judge().unwrap().is_some(), "{words:?}");
        }
        assert!(parsed(&["./app"]).judge().unwrap().is_none());
        assert_eq!(parsed(&["--max-leaked-blocks", "few", "./app"]).judge().unwrap_err().exit(), Exit::Usage);
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
    fn one_signal_cannot_ask_for_two_things() {
        let asking = |look: &'static str, check: &'static str| {
            parsed(&["--snapshot-on-signal", look, "--leak-check-on-demand", check, "./app"]).props()
        };
        assert_eq!(asking("usr1", "usr1").unwrap_err().exit(), Exit::Usage);
        assert!(asking("usr1", "usr2").is_ok() && asking("usr2", "usr1").is_ok());
    }

    #[test]
    fn stacks_are_compared_every_so_often_or_not_at_all_but_not_every_zeroth() {
        let every = |words: &[&str]| record(&[words, &["./app"]].concat()).verify_every;
        assert_eq!((every(&[]), every(&["--verify-stacks", "3"])), (0, 3));
        assert!(Command::try_parse_from(["xalloc-report", "record", "--verify-stacks", "0", "./app"]).is_err());
    }

    #[test]
    fn a_mistyped_option_is_not_taken_for_the_program() {
        assert!(Command::try_parse_from(["xalloc-report", "record", "--forse", "./app"]).is_err());
        assert!(Command::try_parse_from(["xalloc-report", "record"]).is_err());
    }
}
