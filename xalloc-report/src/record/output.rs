//! Where the trace goes.
//!
//! The file is made before the program starts, so that an unwritable place is known before an hour of recording and not
//! after. A name that contains the program's process id can only be given once it runs; until then the trace has a
//! temporary name beside it.
//!
//! # Invariant
//! Nothing is removed that this run did not make. What `-f` replaces stays as it is until there is a trace to replace
//! it: that is written beside it and renamed at the end. The price is that a recorder that is killed leaves its trace
//! under the temporary name. What is no regular file (a device, a FIFO) is opened as it is and stays.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{PathPersistError, TempPath};

use crate::os::file::exchange;

/// Name of a trace that the user did not name.
const DEFAULT: &str = "%e.xtrace";
/// Numbers that are tried to find a free default name.
const MOST_NUMBERED: u32 = 10_000;

/// What happens to a file that is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// It stays, and nothing is written.
    Keep,
    /// It is replaced.
    Replace,
}

/// What the parts of a pattern stand for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    /// `%e`: the program's file name.
    pub program: OsString,
    /// `%t`: seconds since 1970-01-01 UTC.
    pub unix_seconds: u64,
    /// `%h`: the machine.
    pub host: String,
}

/// Why the trace has no file.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// There is one already.
    #[error("{} exists; name another with -o, or overwrite it with -f", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It was asked for by `-`.
    #[error("-o -: standard output is the program's, and a trace is a file; name one (./- if that is its name)")]
    StandardOutput,
    /// It cannot be made.
    #[error("{} cannot be written", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A `%` with an unknown letter.
    #[error("-o {}: %{letter} stands for nothing; %e is the program, %p its process id, %t the time in seconds, %h the machine, %% a percent sign", pattern.display())]
    Pattern {
        /// The pattern.
        pattern: PathBuf,
        /// The letter behind the percent sign.
        letter: char,
    },
}

/// The file of a trace that is being recorded. One with a temporary name goes with it, unless it is kept.
#[derive(Debug)]
pub(crate) struct Output {
    /// The file, empty and open for writing.
    pub file: File,
    /// Its name now.
    path: PathBuf,
    /// Whose the name is.
    name: Name,
}

/// Whose a file's name is.
#[derive(Debug)]
enum Name {
    /// This run made the file, under its final name.
    Made,
    /// It was there before, and is no regular file.
    Found,
    /// It is temporary until the program's process id is known.
    Unsettled { temporary: TempPath, pattern: PathBuf, names: Names, existing: Existing },
    /// It is temporary until there is a trace to replace that file.
    Replacing { temporary: TempPath, old: PathBuf },
}

impl Output {
    /// Makes the file that `pattern` names, or one named after the program.
    ///
    /// # Errors
    /// [`OutputError`].
    pub(crate) fn create(pattern: Option<&Path>, names: &Names, existing: Existing) -> Result<Output, OutputError> {
        let Some(pattern) = pattern else { return numbered(names, existing) };
        if pattern.as_os_str() == "-" {
            return Err(OutputError::StandardOutput);
        }
        // The letters are checked now; the process id has no influence on that.
        let path = expand(pattern, names, 0)?;
        if !needs_pid(pattern) {
            return make(&path, existing);
        }
        let (file, temporary) = beside(&path)?;
        let path = temporary.to_path_buf();
        let name = Name::Unsettled { temporary, pattern: pattern.to_owned(), names: names.clone(), existing };
        Ok(Output { file, path, name })
    }

    /// Gives the file its final name, now that the program runs as `pid`, unless that is the name of a file that the
    /// trace is to replace.
    ///
    /// # Errors
    /// [`OutputError`].
    pub(crate) fn settle(&mut self, pid: u32) -> Result<(), OutputError> {
        let (temporary, path, existing) = match std::mem::replace(&mut self.name, Name::Made) {
            Name::Unsettled { temporary, pattern, names, existing } => {
                (temporary, expand(&pattern, &names, pid)?, existing)
            }
            settled @ (Name::Made | Name::Found | Name::Replacing { .. }) => {
                self.name = settled;
                return Ok(());
            }
        };
        if existing == Existing::Replace && path.is_file() {
            self.name = Name::Replacing { temporary, old: path };
            return Ok(());
        }
        temporary.persist_noclobber(&path).map_err(|refused| failed(&path, refused.error))?;
        self.path = path;
        Ok(())
    }

    /// The file's name now.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the trace in the place of what it replaces, and returns its name: the temporary one if the old file cannot
    /// be replaced, with the reason, for the trace is worth more than its name.
    #[must_use]
    pub(crate) fn keep(self) -> (PathBuf, Option<OutputError>) {
        match self.name {
            Name::Made | Name::Found => (self.path, None),
            // What was replaced has the temporary name then, and goes with it. A plain renaming makes some file systems
            // (ext4, against an empty file after a power cut) begin to write the whole trace to the disk first. So this does
            // not wait for the disk, and a power cut soon after may take both.
            Name::Replacing { temporary, old } if exchange(&temporary, &old).is_ok() => (old, None),
            Name::Replacing { temporary, old } => match temporary.persist(&old) {
                Ok(()) => (old, None),
                // In a directory such as /tmp, where only its owner may take a file away.
                Err(PathPersistError { path, error: source }) => {
                    (path.keep().unwrap_or(self.path), Some(OutputError::Unwritable { path: old, source }))
                }
            },
            Name::Unsettled { temporary, .. } => (temporary.keep().unwrap_or(self.path), None),
        }
    }

    /// Keeps a trace that is not whole: where it is, and what it was to replace stays too.
    #[must_use]
    pub(crate) fn keep_beside(self) -> PathBuf {
        match self.name {
            Name::Made | Name::Found => self.path,
            Name::Replacing { temporary, .. } | Name::Unsettled { temporary, .. } => {
                temporary.keep().unwrap_or(self.path)
            }
        }
    }

    /// Removes the file if this run made it: nothing was recorded.
    pub(crate) fn discard(self) {
        match self.name {
            // It is empty or worthless; that it stays is no second error.
            Name::Made => drop(fs::remove_file(self.path)),
            // Temporary names go by themselves.
            Name::Found | Name::Unsettled { .. } | Name::Replacing { .. } => {}
        }
    }
}

fn numbered(names: &Names, existing: Existing) -> Result<Output, OutputError> {
    let first = expand(Path::new(DEFAULT), names, 0)?;
    let mut path = first.clone();
    for number in 2..MOST_NUMBERED {
        // Only a trace would be replaced: what is no file has another name than ours.
        let is_other = fs::metadata(&path).is_ok_and(|found| !found.is_file());
        let made = if is_other { Err(OutputError::Exists { path: path.clone() }) } else { make(&path, existing) };
        match made {
            Err(OutputError::Exists { .. }) => {
                let mut name = names.program.clone();
                name.push(format!(".{number}.xtrace"));
                path = PathBuf::from(name);
            }
            made => return made,
        }
    }
    Err(OutputError::Exists { path: first })
}

fn make(path: &Path, existing: Existing) -> Result<Output, OutputError> {
    match fs::metadata(path) {
        Ok(found) if existing == Existing::Replace && found.is_file() => {
            // Behind a symbolic link it is the file that is replaced and not the link.
            let old = fs::canonicalize(path).map_err(|source| failed(path, source))?;
            let (file, temporary) = beside(&old)?;
            Ok(Output { file, path: temporary.to_path_buf(), name: Name::Replacing { temporary, old } })
        }
        Ok(found) if found.is_dir() => Err(failed(path, io::ErrorKind::IsADirectory.into())),
        Ok(found) if existing == Existing::Replace || keeps_nothing(found.file_type()) => {
            let file = File::options().write(true).open(path).map_err(|source| failed(path, source))?;
            Ok(Output { file, path: path.to_owned(), name: Name::Found })
        }
        Err(_) if existing == Existing::Replace && path.is_symlink() => {
            // Of a link to nothing the file is made, as a shell would. The file is this run's, and the link is not.
            let file = File::options().write(true).create(true).truncate(false).open(path);
            let made = file.and_then(|file| Ok((file, fs::canonicalize(path)?)));
            let (file, path) = made.map_err(|source| failed(path, source))?;
            Ok(Output { file, path, name: Name::Made })
        }
        Ok(_) | Err(_) => {
            let file = File::create_new(path).map_err(|source| failed(path, source))?;
            Ok(Output { file, path: path.to_owned(), name: Name::Made })
        }
    }
}

/// Whether nothing that was written there before is lost by writing more: a terminal, `/dev/null`, a FIFO.
fn keeps_nothing(found: fs::FileType) -> bool {
    found.is_char_device() || found.is_fifo()
}

/// Makes a file with a temporary name in the directory of `path`, with the permissions of any other.
fn beside(path: &Path) -> Result<(File, TempPath), OutputError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".xalloc-").suffix(".xtrace").permissions(fs::Permissions::from_mode(0o666));
    let made = builder.tempfile_in(directory).map_err(|source| failed(path, source))?;
    Ok(made.into_parts())
}

fn failed(path: &Path, source: io::Error) -> OutputError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::AlreadyExists {
        OutputError::Exists { path }
    } else {
        OutputError::Unwritable { path, source }
    }
}

fn needs_pid(pattern: &Path) -> bool {
    let mut bytes = pattern.as_os_str().as_bytes().iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' && bytes.next() == Some(&b'p') {
            return true;
        }
    }
    false
}

fn expand(pattern: &Path, names: &Names, pid: u32) -> Result<PathBuf, OutputError> {
    let mut path = Vec::new();
    let mut bytes = pattern.as_os_str().as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'e') => path.extend_from_slice(names.program.as_bytes()),
            Some(b'p') => path.extend_from_slice(pid.to_string().as_bytes()),
            Some(b't') => path.extend_from_slice(names.unix_seconds.to_string().as_bytes()),
            Some(b'h') => path.extend_from_slice(names.host.as_bytes()),
            Some(b'%') | None => path.push(b'%'),
            Some(&other) => {
                return Err(OutputError::Pattern { pattern: pattern.to_owned(), letter: char::from(other) });
            }
        }
    }
    Ok(PathBuf::from(OsString::from_vec(path)))
}

impl Names {
    /// The names for a program at `program`, now, here.
    #[must_use]
    pub(crate) fn of(program: &Path) -> Names {
        let name = program.file_name().unwrap_or(OsStr::new("program"));
        let unix_seconds = xalloc_core::sys::clock::realtime_ns() / 1_000_000_000;
        Names { program: name.to_owned(), unix_seconds, host: host() }
    }
}

/// The machine's name, as the kernel knows it.
pub(crate) fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { program: "app".into(), unix_seconds: 1_700_000_000, host: "box".into() }
    }

    #[test]
    fn a_name_with_the_process_id_is_given_when_the_program_runs() {
        let directory = tempfile::tempdir().unwrap();
        let pattern = directory.path().join("%e-%p-%t-%h-100%%.xtrace");
        let mut output = Output::create(Some(&pattern), &names(), Existing::Keep).unwrap();
        assert!(output.path().exists());
        output.settle(42).unwrap();
        let path = output.path().to_owned();
        assert_eq!(path, directory.path().join("app-42-1700000000-box-100%.xtrace"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        output.discard();
        assert!(!path.exists());
    }

    #[test]
    fn nothing_is_overwritten_unless_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.xtrace");
        fs::write(&path, "old").unwrap();
        assert!(matches!(Output::create(Some(&path), &names(), Existing::Keep), Err(OutputError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let pattern = directory.path().join("%p.xtrace");
        fs::write(directory.path().join("7.xtrace"), "old").unwrap();
        let mut output = Output::create(Some(&pattern), &names(), Existing::Keep).unwrap();
        assert!(matches!(output.settle(7), Err(OutputError::Exists { .. })));
        drop(output);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the temporary name goes");
    }

    #[test]
    fn what_is_to_be_replaced_stays_until_there_is_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7.xtrace");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for pattern in [path.clone(), directory.path().join("%p.xtrace"), link.clone()] {
            fs::write(&path, "old").unwrap();
            let begin = || {
                let mut output = Output::create(Some(&pattern), &names(), Existing::Replace).unwrap();
                output.settle(7).unwrap();
                io::Write::write_all(&mut output.file, b"trace").unwrap();
                assert_eq!(fs::read(&path).unwrap(), b"old");
                output
            };
            begin().discard();
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(begin().keep().0.canonicalize().unwrap(), path.canonicalize().unwrap());
            assert_eq!(fs::read(&path).unwrap(), b"trace");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        }
        assert!(link.is_symlink());
    }

    #[test]
    fn where_the_old_file_is_gone_the_trace_takes_its_name_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.xtrace");
        fs::write(&path, "old").unwrap();
        let mut output = Output::create(Some(&path), &names(), Existing::Replace).unwrap();
        io::Write::write_all(&mut output.file, b"trace").unwrap();
        // Nothing to exchange names with.
        fs::remove_file(&path).unwrap();
        assert_eq!(output.keep().0, path);
        assert_eq!(fs::read(&path).unwrap(), b"trace");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "and no other name stays");
    }

    #[test]
    fn what_is_no_regular_file_is_opened_and_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for existing in [Existing::Keep, Existing::Replace] {
            let output = Output::create(Some(&link), &names(), existing).unwrap();
            assert_eq!(output.path(), link);
            output.discard();
            assert!(link.is_symlink());
        }
    }

    #[test]
    fn what_a_link_to_nothing_names_is_made_if_asked_and_the_link_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        std::os::unix::fs::symlink("file", &link).unwrap();
        assert!(matches!(Output::create(Some(&link), &names(), Existing::Keep), Err(OutputError::Exists { .. })));
        assert!(!file.exists());
        let begin = || Output::create(Some(&link), &names(), Existing::Replace).unwrap();
        begin().discard();
        assert!(link.is_symlink() && !file.exists());
        assert_eq!(begin().keep().0, file.canonicalize().unwrap());
        assert!(link.is_symlink() && file.exists());
    }

    #[test]
    fn a_default_name_that_something_else_has_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("app");
        let taken = directory.path().join("app.xtrace");
        fs::create_dir(&taken).unwrap();
        let names = Names { program: program.into(), ..names() };
        for existing in [Existing::Keep, Existing::Replace] {
            let output = Output::create(None, &names, existing).unwrap();
            assert_eq!(output.path(), directory.path().join("app.2.xtrace"));
            output.discard();
        }
    }

    #[test]
    fn a_directory_and_standard_output_are_no_place_for_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        for existing in [Existing::Keep, Existing::Replace] {
            let create = |path| Output::create(Some(path), &names(), existing);
            assert!(matches!(create(directory.path()), Err(OutputError::Unwritable { .. })));
            assert!(matches!(create(Path::new("-")), Err(OutputError::StandardOutput)));
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_and_a_letter_that_means_nothing_are_errors() {
        let missing = Path::new("/no/such/directory/a.xtrace");
        assert!(matches!(Output::create(Some(missing), &names(), Existing::Keep), Err(OutputError::Unwritable { .. })));
        let unknown = Output::create(Some(Path::new("/tmp/%q")), &names(), Existing::Keep);
        assert!(matches!(unknown, Err(OutputError::Pattern { letter: 'q', .. })));
    }
}
