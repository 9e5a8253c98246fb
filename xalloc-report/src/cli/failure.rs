//! What went wrong, why, and what to do about it.

use std::fmt;
use std::io;

use super::Exit;
use crate::render::escape::printable;
use crate::trace::TraceError;

/// A command that could not do its work. Shown as `error:`, a `caused by:` for each cause, and a `hint:`.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
    exit: Exit,
}

impl Failure {
    /// What was wanted and did not succeed. Ends the command as a usage error.
    pub fn new(error: impl Into<anyhow::Error>) -> Failure {
        Failure { error: error.into(), hint: None, exit: Exit::Usage }
    }

    /// Says in front of the error what was being done.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display + Send + Sync + 'static) -> Failure {
        self.error = self.error.context(what);
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Ends the command with another code.
    #[must_use]
    pub fn ending(mut self, exit: Exit) -> Failure {
        self.exit = exit;
        self
    }

    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether the reader of the output went away.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        let mut causes = self.error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
        causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether a block of the trace is not what was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        let mut causes = self.error.chain().filter_map(|cause| cause.downcast_ref::<TraceError>());
        causes.any(|error| matches!(error, TraceError::Damaged { .. }))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(error).while_doing("cannot write the output")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = anstyle::AnsiColor::Red.on_default().bold();
        let aside = anstyle::Style::new().dimmed();
        let hint = anstyle::AnsiColor::Green.on_default();
        writeln!(f, "{error}error{error:#}: {}", printable(&self.error.to_string()))?;
        for cause in self.error.chain().skip(1) {
            writeln!(f, "  {aside}caused by{aside:#}: {}", printable(&cause.to_string()))?;
        }
        if let Some(text) = &self.hint {
            writeln!(f, "  {hint}hint{hint:#}: {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_causes_and_hint_each_have_a_line_and_cannot_forge_another() {
        let failure = Failure::new(io::Error::other("disk\nfull")).while_doing("cannot write a.svg").hint("free some");
        let text = anstream::adapter::strip_str(&failure.to_string()).to_string();
        assert_eq!(text, "error: cannot write a.svg\n  caused by: disk\\u{a}full\n  hint: free some\n");
    }

    #[test]
    fn a_reader_that_went_away_is_recognised_below_what_was_being_done() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.is_broken_pipe());
        assert!(!Failure::from(io::Error::other("full")).is_broken_pipe());
    }
}
