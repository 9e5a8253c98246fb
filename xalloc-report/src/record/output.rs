//! Where the trace goes.
//!
//! The file is made before the program starts, so that an unwritable place is known before an hour of recording and not
//! after. A name that contains the program's process id can only be given once it runs; until then the trace has a
//! temporary name beside it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Name of a trace that the user did not name.
const DEFAULT: &str = "%e.xtrace";
/// Numbers that are tried to find a free default name.
const MOST_NUMBERED: u32 = 10_000;

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

/// The file of a trace whose program has not started yet.
#[derive(Debug)]
pub(crate) struct Output {
    /// The file, empty and open for writing.
    pub file: File,
    /// Its name now.
    path: PathBuf,
    /// The pattern, if the final name needs the process id.
    pending: Option<(PathBuf, Names, bool)>,
}

impl Output {
    /// Makes the file that `pattern` names, or one named after the program.
    ///
    /// # Errors
    /// [`OutputError`].
    pub(crate) fn create(pattern: Option<&Path>, names: &Names, overwrite: bool) -> Result<Output, OutputError> {
        let Some(pattern) = pattern else { return numbered(names, overwrite) };
        if !needs_pid(pattern) {
            let path = expand(pattern, names, 0)?;
            return Ok(Output { file: make(&path, overwrite)?, path, pending: None });
        }
        // The letters are checked now; the process id has no influence on that.
        expand(pattern, names, 0)?;
        let path = pattern.with_file_name(format!(".xalloc-{}.xtrace", std::process::id()));
        let path = expand(&path, names, 0)?;
        let file = make(&path, true)?;
        Ok(Output { file, path, pending: Some((pattern.to_owned(), names.clone(), overwrite)) })
    }

    /// Gives the file its final name, now that the program runs as `pid`, and returns it.
    ///
    /// # Errors
    /// [`OutputError`]; the trace keeps its temporary name then, which the error does not hide: it is in `path`.
    pub(crate) fn settle(&mut self, pid: u32) -> Result<&Path, OutputError> {
        if let Some((pattern, names, overwrite)) = self.pending.take() {
            let path = expand(&pattern, &names, pid)?;
            if !overwrite && path.exists() {
                return Err(OutputError::Exists { path });
            }
            fs::rename(&self.path, &path).map_err(|source| OutputError::Unwritable { path: path.clone(), source })?;
            self.path = path;
        }
        Ok(&self.path)
    }

    /// The file's name now.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file: nothing was recorded.
    pub(crate) fn discard(self) {
        // It is empty or worthless; that it stays is no second error.
        let _ = fs::remove_file(self.path);
    }
}

fn numbered(names: &Names, overwrite: bool) -> Result<Output, OutputError> {
    let first = expand(Path::new(DEFAULT), names, 0)?;
    let mut path = first.clone();
    for number in 2..MOST_NUMBERED {
        match make(&path, overwrite) {
            Ok(file) => return Ok(Output { file, path, pending: None }),
            Err(OutputError::Exists { .. }) => {
                let mut name = names.program.clone();
                name.push(format!(".{number}.xtrace"));
                path = PathBuf::from(name);
            }
            Err(error @ (OutputError::Unwritable { .. } | OutputError::Pattern { .. })) => return Err(error),
        }
    }
    Err(OutputError::Exists { path: first })
}

fn make(path: &Path, overwrite: bool) -> Result<File, OutputError> {
    let mut options = File::options();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path).map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            OutputError::Exists { path: path.to_owned() }
        } else {
            OutputError::Unwritable { path: path.to_owned(), source }
        }
    })
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
        let mut output = Output::create(Some(&pattern), &names(), false).unwrap();
        assert!(output.path().exists());
        let path = output.settle(42).unwrap().to_owned();
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
        assert!(matches!(Output::create(Some(&path), &names(), false), Err(OutputError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        Output::create(Some(&path), &names(), true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        let pattern = directory.path().join("%p.xtrace");
        fs::write(directory.path().join("7.xtrace"), "old").unwrap();
        let mut output = Output::create(Some(&pattern), &names(), false).unwrap();
        assert!(matches!(output.settle(7), Err(OutputError::Exists { .. })));
    }

    #[test]
    fn a_place_that_cannot_be_written_and_a_letter_that_means_nothing_are_errors() {
        let missing = Path::new("/no/such/directory/a.xtrace");
        assert!(matches!(Output::create(Some(missing), &names(), false), Err(OutputError::Unwritable { .. })));
        let unknown = Output::create(Some(Path::new("/tmp/%q")), &names(), false);
        assert!(matches!(unknown, Err(OutputError::Pattern { letter: 'q', .. })));
    }
}
