//! `import`: a trace of what a process recorded alone.

use std::path::PathBuf;

use clap::Args;

use super::args::ForceArgs;
use super::progress::Progress;
use super::record::{elsewhere, failure};
use super::{Console, Exit, Failure};
use crate::record::import::{ImportProps, import};
use crate::render::escape::printable;

/// Make a trace of what was recorded without a recorder (XALLOC_OUT)
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// The files that the processes of one run wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Trace to write; a free name after the first file otherwise
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: ForceArgs,
    /// Leave functions unresolved; for recordings of another machine
    #[arg(long)]
    no_symbols: bool,
}

impl Import {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let props = ImportProps {
            files: self.files.clone(),
            output: self.output.clone(),
            existing: self.force.into(),
            symbols: !self.no_symbols,
        };
        let mut progress = Progress::new();
        let imported = import(&props, &mut |phase| progress.show(phase));
        progress.end();
        let mut outcome = imported.map_err(|error| failure(error).ending(Exit::Usage))?;
        if let Some(refused) = outcome.unreplaced.take() {
            return Err(elsewhere(refused, &outcome.path));
        }
        for note in outcome.notes() {
            writeln!(console.notes, "note: {}", printable(&note))?;
        }
        writeln!(console.notes, "wrote {}", printable(&outcome.path.to_string_lossy()))?;
        Ok(Exit::Success)
    }
}
