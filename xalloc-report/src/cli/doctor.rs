//! `doctor`: what would keep a recording from working, asked before it is made.

use std::ffi::OsString;

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::{Console, Exit, Failure};
use crate::record::doctor::{Verdict, examine};
use crate::render::escape::printable;

/// Find out beforehand what would keep a recording from working
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// The command that is to be recorded, as for `record`
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Doctor {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let checks = examine(&self.command);
        let widest = checks.iter().map(|check| check.subject.len()).max().unwrap_or(0);
        for check in &checks {
            let (style, word) = told(check.verdict);
            let seen = printable(&check.seen);
            writeln!(console.out, "{style}{word}{style:#}  {:widest$}  {seen}", check.subject)?;
            if let Some(fix) = &check.fix {
                writeln!(console.out, "      {:widest$}  {}", "", printable(fix))?;
            }
        }
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Good);
        Ok(if worst == Verdict::Bad { Exit::Indeterminate } else { Exit::Success })
    }
}

fn told(verdict: Verdict) -> (Style, &'static str) {
    match verdict {
        Verdict::Good => (AnsiColor::Green.on_default(), "good"),
        Verdict::Poor => (AnsiColor::Yellow.on_default(), "poor"),
        Verdict::Bad => (AnsiColor::Red.on_default().bold(), "bad "),
    }
}
