//! The user's cache: files that can be made again, kept so that they need not be.
//!
//! # Invariant
//! What is kept is the user's alone: a directory or a file that belongs to somebody else, or that others can write to, is
//! not used, nor one below a directory whose owner or group, neither the user's nor root's, could put another in its place: root's
//! recorder that was given a user's `HOME` (`sudo -E`) loads no library from there and removes nothing there. A file
//! appears whole under its name or not at all, whoever writes it at the same time.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::system::own_uid;

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
    // Before anything is made: root would leave folders of its own in a user's home.
    let there = directory.ancestors().find(|above| above.exists()).ok_or(io::ErrorKind::InvalidInput)?;
    require_lasting(there)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    require_private(directory)
}

/// Whether a directory, with what its links lead to, is the user's alone and stays so.
fn require_private(directory: &Path) -> io::Result<()> {
    require_own(&fs::metadata(directory)?)?;
    require_lasting(directory)
}

/// Whether only the user and root could put something else in the place of a directory, or move what lies in it.
fn require_lasting(directory: &Path) -> io::Result<()> {
    for directory in fs::canonicalize(directory)?.ancestors() {
        let metadata = fs::metadata(directory)?;
        // In one with a sticky bit, as /tmp is, only the owner moves what lies there.
        let is_open = metadata.mode() & writable_by_strangers(metadata.gid()) != 0 && metadata.mode() & 0o1000 == 0;
        if ![0, own_uid()].contains(&metadata.uid()) || is_open {
            return Err(not_ours_alone());
        }
    }
    Ok(())
}

/// The bits of a mode that let somebody else write, where the group is this one. Users' own groups have their users' numbers:
/// where such are in use, most directories are made so that the group can write.
fn writable_by_strangers(gid: u32) -> u32 {
    if gid == 0 || gid == own_uid() { 0o002 } else { 0o022 }
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
    require_private(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    if !metadata.is_file() || metadata.len() > most_bytes {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(most_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn require_own(metadata: &Metadata) -> io::Result<()> {
    if metadata.uid() == own_uid() && metadata.mode() & 0o022 == 0 { Ok(()) } else { Err(not_ours_alone()) }
}

fn not_ours_alone() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "somebody else can write to it, or put another in its place")
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
/// What the system reports, and `EACCES` if the directory is not the user's alone; a file that somebody else removed
/// meanwhile is none.
pub fn forget_oldest(directory: &Path, most_bytes: u64) -> io::Result<()> {
    require_private(directory)?;
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
        let below = folder.path().join("below");
        make_private(&below).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(make_private(folder.path()).is_err());
        assert!(make_private(&below).is_err(), "another one can be put in its place");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        make_private(&below).unwrap();
    }

    #[test]
    fn nothing_is_kept_below_what_another_group_can_write_to() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        make_private(&below).unwrap();
        if let Err(error) = std::os::unix::fs::chown(folder.path(), None, Some(1)) {
            println!("skipped: only root can give a directory to any group: {error}");
            return;
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o770)).unwrap();
        assert!(make_private(&below).is_err(), "the group can put another one in its place");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
        make_private(&below).unwrap();
        std::os::unix::fs::chown(folder.path(), None, Some(own_uid())).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o770)).unwrap();
        make_private(&below).unwrap();
    }

    #[test]
    fn root_keeps_nothing_below_what_a_user_owns() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        make_private(&below).unwrap();
        if let Err(error) = std::os::unix::fs::chown(folder.path(), Some(1), None) {
            println!("skipped: only root can give a directory away: {error}");
            return;
        }
        replace(&below.join("file"), b"ours", 0o600).unwrap();
        let above = folder.path().join("above/below");
        let refusals = [
            make_private(&above).err(),
            make_private(&below).err(),
            read_own(&below.join("file"), 4).err(),
            forget_oldest(&below, 0).err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.expect("the user could replace it").kind(), io::ErrorKind::PermissionDenied);
        }
        assert!(below.join("file").exists() && !folder.path().join("above").exists());
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
