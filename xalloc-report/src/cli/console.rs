//! Where a command writes to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Failure;
pub use crate::record::Existing;
use crate::render::escape::printable;

/// The two streams of a command, and what is known of the terminal.
pub struct Console<'a> {
    /// Results. Styles in what is written here are stripped where they do not belong.
    pub out: &'a mut dyn Write,
    /// Everything that is not a result.
    pub notes: &'a mut dyn Write,
    /// Whether results go to a terminal.
    pub interactive: bool,
    /// Width of the terminal, or of what is printed in its place.
    pub columns: usize,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("interactive", &self.interactive).field("columns", &self.columns).finish()
    }
}

impl Console<'_> {
    /// Writes a file with `content` and says so. What is there already is replaced only if `existing` allows.
    ///
    /// # Errors
    /// When a file is in the way, or it cannot be written; a part of it may be left.
    pub fn write_file(
        &mut self,
        path: &Path,
        existing: Existing,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let opened = match existing {
            Existing::Keep => File::create_new(path),
            Existing::Replace => File::create(path),
        };
        let written = opened.and_then(|file| {
            let mut file = BufWriter::new(file);
            content(&mut file)?;
            file.flush()
        });
        let name = printable(&path.to_string_lossy()).into_owned();
        written.map_err(|error| {
            let in_the_way = error.kind() == io::ErrorKind::AlreadyExists;
            let failure = Failure::new(error).while_doing(format!("cannot write {name}"));
            if in_the_way { failure.hint("name another file with -o, or replace this one with -f") } else { failure }
        })?;
        Ok(writeln!(self.notes, "wrote {name}")?)
    }
}
