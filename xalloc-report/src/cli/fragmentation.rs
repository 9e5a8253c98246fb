//! `fragmentation`: the heap at one moment, by class, page and call site.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::args::{ExtentArgs, ForceArgs, Format, FormatArgs, TraceArgs};
use super::opened::gaps;
use super::values::named;
use super::{Console, Exit, Failure};
use crate::analysis::fragmentation::{At, Fragmentation as View, FragmentationError, Predict, fragmentation};
use crate::model::Recorded;
use crate::render::heap_picture::{Picture, heap_picture};
use crate::render::{json, text};
use crate::trace::ProcessIndex;

#[derive(Args, Debug)]
pub struct Fragmentation {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// The moment: `peak`, `exit`, seconds since the start (`1.5s`, `20ms`) or the number of an event
    #[arg(long, value_name = "peak|exit|TIME|SEQ", default_value = "peak", value_parser = moment)]
    at: At,
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
        let view = look(&self.trace, trace, self.at, predict)?;
        if let Some(path) = &self.output {
            let svg = heap_picture(&view, self.picture, &trace.contents().recording.command.join(" "));
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

/// Looks at the heap of the process that is asked for: the one with most events if nobody chose.
pub(super) fn look<R: Recorded>(args: &TraceArgs, trace: &R, at: At, predict: Predict) -> Result<View, Failure> {
    let contents = trace.contents();
    let events = |process: &ProcessIndex| contents.processes.get(process.0 as usize).map_or(0, |told| told.events);
    let asked = args.processes(contents)?;
    let most = asked.iter().copied().max_by_key(|process| (events(process), std::cmp::Reverse(*process)));
    let process = most.ok_or_else(|| Failure::new(anyhow::anyhow!("the trace has no process")))?;
    fragmentation(trace, process, at, predict).map_err(|error| match error {
        FragmentationError::Recorded(error) => args.unreadable(error),
        FragmentationError::NoSteps => Failure::new(error).hint("record without --no-heap-steps"),
        FragmentationError::AfterTheEnd { .. } => {
            Failure::new(error).hint("--at exit shows the heap after the last event")
        }
        FragmentationError::NoEvents | FragmentationError::Imbalance(_) => Failure::new(error),
    })
}

/// A moment: a word, a time with its unit, or the number of an event.
pub(super) fn moment(text: &str) -> Result<At, String> {
    match text {
        "peak" => return Ok(At::Peak),
        "exit" => return Ok(At::Exit),
        _ => {}
    }
    let wrong =
        || format!("`{text}` is no moment; write peak, exit, a time such as 1.5s or 20ms, or an event's number");
    let at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    if unit.is_empty() {
        return number.parse().map(At::Seq).map_err(|_| wrong());
    }
    let unit_ns = match unit {
        "s" => 1e9,
        "ms" => 1e6,
        "us" | "µs" => 1e3,
        "ns" => 1.0,
        _ => return Err(wrong()),
    };
    let value: f64 = number.parse().map_err(|_| wrong())?;
    Ok(At::Time((value * unit_ns).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_word_a_time_with_its_unit_or_a_number() {
        let moments = ["peak", "exit", "1.5s", "20ms", "7us", "1234"].map(moment);
        let expected =
            [At::Peak, At::Exit, At::Time(1_500_000_000), At::Time(20_000_000), At::Time(7_000), At::Seq(1234)];
        assert_eq!(moments, expected.map(Ok));
        for wrong in ["", "now", "1.5", "3 apples", "s", "1h"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
