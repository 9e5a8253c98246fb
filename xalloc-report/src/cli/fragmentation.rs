//! `fragmentation`: the heap at one moment, by class, page and call site.

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::args::{ExtentArgs, ForceArgs, Format, FormatArgs, TraceArgs};
use super::moment::Named;
use super::opened::{every_block_for, gaps};
use super::values::named;
use super::{Console, Exit, Failure};
use crate::analysis::fragmentation::{At, Fragmentation as View, FragmentationError, Predict, fragmentation};
use crate::model::Recorded;
use crate::render::escape::command_line;
use crate::render::heap_picture::{Picture, heap_picture};
use crate::render::{json, text};
use crate::trace::{Moment, ProcessIndex};

#[derive(Args, Debug)]
pub struct Fragmentation {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// The moment: `peak`, `exit`, seconds since the start (`1.5s`, `20ms`), the number of an event, or the first mark of
    /// a name
    #[arg(long, value_name = "peak|exit|TIME|SEQ|marker:NAME", default_value = "peak")]
    at: When,
    /// Write a picture as SVG to this file (`-`: standard output)
    #[arg(short, long, value_name = "OUT.svg", conflicts_with = "format")]
    output: Option<PathBuf>,
    /// What the picture shows
    #[arg(long, value_name = "WHAT", default_value = "map", value_parser = named::<Picture>(), requires = "output")]
    picture: Picture,
    /// Whether the fixes that the findings suggest are tried on the recorded requests: `auto` does it for up to 1.5
    /// million events
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = named::<Predict>())]
    fixes: Predict,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    extent: ExtentArgs,
    #[command(flatten)]
    format: FormatArgs,
}

impl Fragmentation {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        // A picture shows no fix.
        let predict = if self.output.is_some() { Predict::Never } else { self.fixes };
        let view = look(&self.trace, trace, &self.at, predict)?;
        self.trace.note_choice(trace.contents(), view.pid, console)?;
        if let Some(path) = &self.output {
            let svg = heap_picture(&view, self.picture, &command_line(&trace.contents().recording.command));
            if path.as_os_str() == "-" {
                console.out.write_all(svg.as_bytes())?;
            } else {
                console.write_file(path, self.force.into(), |file| file.write_all(svg.as_bytes()))?;
            }
            return Ok(Exit::Success);
        }
        match self.format.format {
            Format::Human => console.out.write_all(text::fragmentation(&view, self.extent.into()).as_bytes())?,
            Format::Json => json::write(&view, &gaps(trace.contents()), &mut console.out)?,
        }
        Ok(Exit::Success)
    }
}

/// The moment that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum When {
    /// When most was requested.
    Peak,
    /// After the last event.
    Exit,
    /// By time, number or mark.
    Named(Named),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        match text {
            "peak" => Ok(When::Peak),
            "exit" => Ok(When::Exit),
            _ => text.parse().map(When::Named).map_err(|_| {
                format!(
                    "`{text}` is no moment; write peak, exit, a time such as 1.5s or 20ms, an event's number, or \
                     marker:NAME"
                )
            }),
        }
    }
}

/// Looks at the heap of the process that is asked for: if nobody chose, of those that have the moment the one with most
/// events.
pub(super) fn look<R: Recorded>(args: &TraceArgs, trace: &R, when: &When, predict: Predict) -> Result<View, Failure> {
    let contents = trace.contents();
    every_block_for("the layout of the heap", contents)?;
    let events = |process: &ProcessIndex| contents.processes.get(process.0 as usize).map_or(0, |told| told.events);
    let mut asked = args.processes(contents)?;
    asked.sort_by_key(|process| (std::cmp::Reverse(events(process)), *process));
    let mut missing = None;
    for process in asked {
        let at = match when {
            When::Peak => At::Peak,
            When::Exit => At::Exit,
            When::Named(named) => match named.of(args, trace, process)? {
                Ok(Moment::Seq(seq)) => At::Seq(seq),
                Ok(Moment::Time(at_ns)) => At::Time(at_ns),
                Err(no_mark) => {
                    missing.get_or_insert(no_mark);
                    continue;
                }
            },
        };
        return fragmentation(trace, process, at, predict).map_err(|error| match error {
            FragmentationError::Recorded(error) => args.unreadable(error),
            FragmentationError::NoSteps => Failure::new(error).hint("record without --no-heap-steps"),
            FragmentationError::AfterTheEnd { .. } => {
                Failure::new(error).hint("--at exit shows the heap after the last event")
            }
            FragmentationError::NoEvents | FragmentationError::Imbalance(_) => Failure::new(error),
        });
    }
    Err(missing
        .map_or_else(|| Failure::new(anyhow::anyhow!("the trace has no process")), |no_mark| no_mark.failure("moment")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_word_a_time_with_its_unit_a_number_or_a_mark() {
        let moments = ["peak", "exit", "1.5s", "1234", "marker:loaded"].map(str::parse::<When>);
        let named = |moment| When::Named(Named::Moment(moment));
        let marker = When::Named(Named::Marker("loaded".to_owned()));
        let times = [named(Moment::Time(1_500_000_000)), named(Moment::Seq(1234))];
        let [time, seq] = times;
        assert_eq!(moments, [When::Peak, When::Exit, time, seq, marker].map(Ok));
        for wrong in ["", "now", "1.5", "3 apples", "s", "1h"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }
}
