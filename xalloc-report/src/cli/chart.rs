//! `histogram` and `timeline`: figures as bars and plots.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::args::{CountArgs, ForceArgs, Format, FormatArgs, TraceArgs};
use super::opened::gaps;
use super::values::named;
use super::{Console, Exit, Failure};
use crate::analysis::{self, Quantity};
use crate::model::{BUCKETS_MAX, Recorded};
use crate::render::escape::command_line;
use crate::render::{chart, json, text};

#[derive(Args, Debug)]
pub struct Histogram {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// What is counted
    #[arg(long, value_name = "WHAT", default_value = "requested", value_parser = named::<Quantity>())]
    of: Quantity,
    /// Write a bar chart as SVG to this file (`-`: standard output)
    #[arg(short, long, value_name = "OUT.svg", conflicts_with = "format")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    format: FormatArgs,
}

impl Histogram {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let histogram = analysis::histogram(&self.trace.model(trace, CountArgs::usual())?, self.of);
        match (&self.output, self.format.format) {
            (Some(path), _) => {
                let svg = chart::histogram(&histogram, &command_line(&trace.contents().recording.command));
                if path.as_os_str() == "-" {
                    console.out.write_all(svg.as_bytes())?;
                } else {
                    console.write_file(path, self.force.into(), |file| file.write_all(svg.as_bytes()))?;
                }
            }
            (None, Format::Human) => console.out.write_all(text::histogram(&histogram).as_bytes())?,
            (None, Format::Json) => json::write(&histogram, &gaps(trace.contents()), &mut console.out)?,
        }
        Ok(Exit::Success)
    }
}

#[derive(Args, Debug)]
pub struct Timeline {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// Width of the plot with its labels; the terminal's otherwise
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(20..=1000))]
    width: Option<u16>,
    #[command(flatten)]
    format: FormatArgs,
}

impl Timeline {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let timeline = analysis::timeline(&self.trace.model(trace, CountArgs::usual())?, BUCKETS_MAX);
        let width = self.width.map_or(console.columns, usize::from);
        match self.format.format {
            Format::Human => console.out.write_all(text::timeline(&timeline, width).as_bytes())?,
            Format::Json => json::write(&timeline, &gaps(trace.contents()), &mut console.out)?,
        }
        Ok(Exit::Success)
    }
}
