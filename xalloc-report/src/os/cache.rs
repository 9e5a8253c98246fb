//! The user's cache: files that can be made again, kept so that they need not be.
//!
//! # Invariant
//! What is kept is the user's alone: a directory or a file that belongs to somebody else, or that others can write to, is
//! not used. A file appears whole under its name or not at all, whoever writes it at the same time.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where a user's caches are, as the environment says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caches {
    /// `XDG_CACHE_HOME`.
    pub xdg: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
}

impl Caches {
    /// As this process's environment says.
    #[must_use]
    pub fn of_environment() -> Caches {
        let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Caches { xdg: path("XDG_CACHE_HOME"), home: path("HOME") }
    }

    /// The directory that is ours; it may have to be made. `None` where the environment names none.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        let caches = self.xdg.clone().or_else(|| self.home.as_ref().map(|home| home.join(".cache")));
        caches.map(|caches| caches.join("xalloc"))
    }
}

/// Makes `directory` if it is not there.
///
/// # Errors
/// What the system reports, and `EACCES` if it is not the user's alone.
pub fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    require_own(&fs::metadata(directory)?)
}

/// Reads a file that is the user's alone, in a directory that is so too, and no longer than `most_bytes`.
///
/// # Errors
/// What the system reports; `EACCES` if others could have written it, `InvalidData` if it is no file or too long.
pub fn read_own(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    // A pipe must not make this wait, and a link may lead to what another program keeps.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    require_own(&metadata)?;
    require_own(&fs::metadata(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?)?;
    if !metadata.is_file() || metadata.len() > most_bytes {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(most_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn require_own(metadata: &Metadata) -> io::Result<()> {
    if metadata.uid() != fs::metadata("/proc/self")?.uid() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can write to the cache"));
    }
    Ok(())
}

/// Puts a file with these bytes and this mode in the place of `path`, or leaves there what was.
///
/// # Errors
/// What the system reports. A file that could not be completed is removed.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.persist(path)?;
    Ok(())
}

/// Marks a file as used.
///
/// # Errors
/// What the system reports.
pub fn mark_used(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(std::time::SystemTime::now())
}

/// Removes those files of `directory` that were used longest ago, until the others take no more than `most_bytes`.
///
/// # Errors
/// What the system reports; a file that somebody else removed meanwhile is none.
pub fn forget_oldest(directory: &Path, most_bytes: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Another recorder may be tidying as well.
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            files.push((metadata.modified()?, entry.path(), metadata.len()));
        }
    }
    files.sort_unstable_by(|one, other| other.cmp(one));
    let mut kept_bytes = 0_u64;
    for (_, path, bytes) in files {
        kept_bytes = kept_bytes.saturating_add(bytes);
        if kept_bytes > most_bytes {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_others_could_have_written_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        replace(&file, b"ours", 0o600).unwrap();
        assert_eq!(read_own(&file, 4).unwrap(), b"ours");
        assert!(read_own(&file, 3).is_err(), "longer than asked for");
        fs::set_permissions(&file, Permissions::from_mode(0o620)).unwrap();
        assert_eq!(read_own(&file, 4).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(read_own(&link, 1 << 20).is_err());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(make_private(folder.path()).is_err());
    }

    #[test]
    fn the_files_that_were_used_last_stay_as_far_as_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = |number: u64| folder.path().join(number.to_string());
        for number in 0..8 {
            replace(&file(number), &[0; 10], 0o600).unwrap();
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
            File::open(file(number)).unwrap().set_modified(used).unwrap();
        }
        mark_used(&file(0)).unwrap();
        forget_oldest(folder.path(), 35).unwrap();
        let left: Vec<u64> = (0..8).filter(|number| file(*number).exists()).collect();
        assert_eq!(left, [0, 6, 7]);
    }
}
