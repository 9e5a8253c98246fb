//! `check`: budgets, and an exit code that a build can act on.

use clap::Args;

use super::args::{CountArgs, Format, FormatArgs, TraceArgs};
use super::values::bytes;
use super::{Console, Exit, Failure};
use crate::analysis;
use crate::check::{Budgets, Outcome, check};
use crate::model::Recorded;
use crate::render::{json, text};

/// What may not be exceeded.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct BudgetArgs {
    /// Most bytes alive at exit (4096, 64KiB, 1.5MiB)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_leaked_bytes: Option<u64>,
    /// Most blocks alive at exit
    #[arg(long, value_name = "N")]
    max_leaked_blocks: Option<u64>,
    /// Largest live bytes at any time
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_peak_bytes: Option<u64>,
    /// Most allocations, reallocs included
    #[arg(long, value_name = "N")]
    max_allocations: Option<u64>,
}

impl BudgetArgs {
    pub(super) fn budgets(self) -> Budgets {
        Budgets {
            max_leaked_bytes: self.max_leaked_bytes,
            max_leaked_blocks: self.max_leaked_blocks,
            max_peak_bytes: self.max_peak_bytes,
            max_allocations: self.max_allocations,
        }
    }

    pub(super) fn none_given() -> Failure {
        let error = anyhow::anyhow!("there is nothing to check: no budget was given");
        Failure::new(error).hint("name at least one, for example --max-leaked-bytes 0")
    }
}

#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    #[command(flatten)]
    budgets: BudgetArgs,
    #[command(flatten)]
    format: FormatArgs,
}

impl Check {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let budgets = self.budgets.budgets();
        if budgets.is_empty() {
            return Err(BudgetArgs::none_given());
        }
        let model = self.trace.model(trace, CountArgs::usual())?;
        let verdict = check(&analysis::summary(trace.contents(), &model), &budgets);
        match self.format.format {
            Format::Human => console.out.write_all(text::check(&verdict).as_bytes())?,
            Format::Json => json::write(&verdict, &mut console.out)?,
        }
        Ok(match verdict.outcome {
            Outcome::Pass => Exit::Success,
            Outcome::BudgetExceeded => Exit::BudgetExceeded,
            Outcome::Indeterminate => Exit::Indeterminate,
            Outcome::ProgramFailed => Exit::ProgramFailed,
        })
    }
}
