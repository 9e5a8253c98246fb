//! How a command ends: every exit code of xalloc, in one place.

use std::process::ExitCode;

/// The codes as `--help` and the man pages list them; a test holds them against [`Exit`].
pub(super) const HELP: &str = "\
Exit status:
  0    success; `check`: every rule and budget is kept
  1    `check`: a leak, or a budget that is exceeded
  2    usage error, unreadable input or unwritable output
  3    `check`: indeterminate (nothing recorded, trace cut, events dropped, not checked for leaks); `leaks --pid`: the
       check was begun and found nothing out; `doctor`: a recording would fail
  4    `check`: the recorded program itself failed
`record` ends as the program does: with its exit status, or 128 + the number of the signal that ended it; else
  23   `record` with a check: the program succeeded and the check did not
  125  xalloc itself failed
  126  the program cannot be executed
  127  the program was not found";

/// How a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Everything was done; `check`: every rule and budget is kept.
    Success,
    /// `check`: a rule or a budget is broken.
    CheckFailed,
    /// Usage error, unreadable input or unwritable output.
    Usage,
    /// `check`: the recording does not allow a verdict; `leaks --pid`: there is none; `doctor`: a recording would fail.
    Indeterminate,
    /// `check`: the recorded program itself failed.
    ProgramFailed,
    /// `record`: the program's own exit status, or 128 and the number of its signal.
    Program(u8),
    /// `record` with a check: the program succeeded, and the check did not.
    RecordCheckFailed,
    /// `record`: xalloc itself failed.
    RecordFailed,
    /// `record`: the program was found and cannot be executed.
    CannotExecute,
    /// `record`: the program was not found.
    NotFound,
}

impl Exit {
    /// The number that the parent process sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::CheckFailed => 1,
            Exit::Usage => 2,
            Exit::Indeterminate => 3,
            Exit::ProgramFailed => 4,
            Exit::Program(status) => status,
            Exit::RecordCheckFailed => 23,
            Exit::RecordFailed => 125,
            Exit::CannotExecute => 126,
            Exit::NotFound => 127,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_help_and_no_two_are_alike() {
        let all = [
            Exit::Success,
            Exit::CheckFailed,
            Exit::Usage,
            Exit::Indeterminate,
            Exit::ProgramFailed,
            Exit::RecordCheckFailed,
            Exit::RecordFailed,
            Exit::CannotExecute,
            Exit::NotFound,
        ];
        let codes: std::collections::BTreeSet<_> = all.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes.len(), all.len());
        for code in codes {
            assert!(HELP.lines().any(|line| line.starts_with(&format!("  {code} "))), "{code}");
        }
    }
}
