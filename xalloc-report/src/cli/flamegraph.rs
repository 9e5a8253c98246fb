//! `flamegraph`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{CountArgs, ForceArgs, TraceArgs};
use super::fragmentation::{When, look};
use super::values::named;
use super::{Console, Exit, Failure};
use crate::analysis::fragmentation::Predict;
use crate::analysis::{self, Metric, Named};
use crate::model::Recorded;
use crate::render::escape::command_line;
use crate::render::flamegraph::{Growth, flamegraph};

#[derive(Args, Debug)]
pub struct Flamegraph {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// What the width of a flame is; `alive` is what was alive at exit, `leaked` what of it nothing reached any more
    #[arg(long, value_name = "METRIC", default_value = "allocated", value_parser = named::<Metric>())]
    metric: Metric,
    /// The moment of `--metric pinned`: `peak` (if nothing is said), `exit`, a time such as `1.5s`, the number of an event,
    /// or the first mark of a name
    #[arg(long, value_name = "peak|exit|TIME|SEQ|marker:NAME")]
    at: Option<When>,
    /// Begin with the functions that allocate, their callers below them
    #[arg(long)]
    inverted: bool,
    /// Where the SVG goes (`-`: standard output); without it standard output, or TRACE's name with the metric on a
    /// terminal
    #[arg(short, long, value_name = "OUT.svg")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    count: CountArgs,
}

impl Flamegraph {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let contents = trace.contents();
        if self.at.is_some() && self.metric != Metric::Pinned {
            let error =
                anyhow::anyhow!("--at is a moment of --metric pinned; {} is of the whole run", self.metric.name());
            return Err(
                Failure::new(error).hint("`alive` is what was alive at exit, `peak` at the peak; leave --at out")
            );
        }
        let flame = match self.metric {
            Metric::Pinned => analysis::flame_of_pins(&look(
                &self.trace,
                trace,
                self.at.as_ref().unwrap_or(&When::Peak),
                Predict::Never,
            )?),
            Metric::Allocated | Metric::Count | Metric::Peak | Metric::Alive | Metric::Leaked | Metric::Temporary => {
                analysis::flame(contents, &self.trace.model(trace, self.count)?, self.metric)
            }
        };
        let growth = if self.inverted { Growth::FromLeaf } else { Growth::FromRoot };
        let command = command_line(&contents.recording.command);
        match self.target(console.interactive) {
            None => flamegraph(&flame, growth, &command, &mut console.out)?,
            Some(path) => {
                console.write_file(&path, self.force.into(), |file| flamegraph(&flame, growth, &command, file))?;
            }
        }
        Ok(Exit::Success)
    }

    /// The file to write, or `None` for standard output.
    fn target(&self, interactive: bool) -> Option<PathBuf> {
        match &self.output {
            Some(path) if path.as_os_str() == "-" => None,
            Some(path) => Some(path.clone()),
            None if interactive => {
                let stem = self.trace.path.file_stem().map_or("trace".into(), |stem| stem.to_string_lossy());
                Some(Path::new(".").join(format!("{stem}.{}.svg", self.metric.name())))
            }
            None => None,
        }
    }
}
