//! `top`: call stacks in order.

use clap::Args;

use super::args::{CountArgs, ExtentArgs, Format, FormatArgs, TraceArgs};
use super::opened::gaps;
use super::values::named;
use super::{Console, Exit, Failure};
use crate::analysis::{self, Order};
use crate::model::Recorded;
use crate::render::{json, text};

#[derive(Args, Debug)]
pub struct Top {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// What to rank by
    #[arg(long, value_name = "WHAT", default_value = "bytes", value_parser = named::<Order>())]
    by: Order,
    #[command(flatten)]
    count: CountArgs,
    #[command(flatten)]
    extent: ExtentArgs,
    #[command(flatten)]
    format: FormatArgs,
}

impl Top {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let top = analysis::top(trace.contents(), &self.trace.model(trace, self.count)?, self.by);
        match self.format.format {
            Format::Human => console.out.write_all(text::top(&top, self.extent.into()).as_bytes())?,
            Format::Json => json::write(&top, &gaps(trace.contents()), &mut console.out)?,
        }
        Ok(Exit::Success)
    }
}
