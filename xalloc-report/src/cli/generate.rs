//! `generate`: what is made from the command line's own definition, and the JSON schema.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::{Console, Exit, Failure};
use crate::render::json;

/// What programs include to talk to their recording.
const HEADER: &str = include_str!("../../../xalloc-preload/include/xalloc.h");

/// Write shell completions, man pages, the C header or the JSON schema
#[derive(Args, Debug)]
pub(super) struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Completions for a shell, to standard output
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Man pages, one for each command, into a directory
    Man {
        /// Directory, made if it is missing
        dir: PathBuf,
    },
    /// The C header by which a program talks to its recording (xalloc.h), to standard output
    Header,
    /// The JSON Schema of --format json, to standard output
    Schema,
}

impl Generate {
    pub(super) fn run(&self, command: &mut clap::Command, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match &self.what {
            What::Completions { shell } => {
                // The generator takes no errors; into memory there are none.
                let mut script = Vec::new();
                clap_complete::generate(*shell, command, "xalloc-report", &mut script);
                console.out.write_all(&script)?;
            }
            What::Man { dir } => {
                let written =
                    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command.clone(), dir));
                written.map_err(|error| {
                    Failure::new(error).while_doing(format!("cannot write man pages into {}", dir.display()))
                })?;
            }
            What::Header => console.out.write_all(HEADER.as_bytes())?,
            What::Schema => {
                let mut text = serde_json::to_vec_pretty(&json::schema()).map_err(std::io::Error::from)?;
                text.push(b'\n');
                console.out.write_all(&text)?;
            }
        }
        Ok(Exit::Success)
    }
}
