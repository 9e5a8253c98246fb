//! Which files an answer was read from, and which were looked for in vain: what has to be as it was for the answer to
//! stand.
//!
//! # Invariant
//! Whatever a module's reader learns from the file system it learns through a trail. Two readings with one trail that
//! still holds see the same bytes, and give the same answer.
//!
//! # Why not the build-id alone
//! It says which binary is meant, not what was there to describe it: a package with debug information may have been
//! installed since, or a `.dwo` file taken away. And a build-id is a statement, made before `strip` and `objcopy` did
//! their work.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Error;
use super::locate::Opened;
use crate::os::file::map_readonly;

/// A file that was changed less long ago could change again without its time telling: the coarsest clock of a file
/// system (FAT's) counts two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells a file from any other, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: i128,
    /// Of the contents or of anything about them; no program can set it.
    changed_ns: i128,
}

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of the file that a path leads to; `None` where there is none.
    pub(super) fn at(path: &Path) -> Option<Identity> {
        fs::metadata(path).ok().map(|metadata| Identity::of(&metadata))
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        self.changed_ns + SETTLED.as_nanos() as i128 <= now_ns
    }
}

/// What was at each path: this file, or none.
pub(super) type Sights = BTreeMap<PathBuf, Option<Identity>>;

/// The look-ups of one reader.
#[derive(Debug, Default)]
pub(super) struct Trail {
    sights: RefCell<Sights>,
    is_lost: Cell<bool>,
}

impl Trail {
    /// Opens and maps a regular file. What names it may be hostile, so a pipe must not make this wait.
    pub(super) fn open(&self, path: &Path) -> Result<Opened, Error> {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let identity = match &opened {
            Ok((_, metadata)) => Some(Identity::of(metadata)),
            // There may be one that cannot be opened.
            Err(_) => Identity::at(path),
        };
        let before = self.sights.borrow_mut().insert(path.to_owned(), identity);
        if before.is_some_and(|before| before != identity) {
            self.lose();
        }
        let (file, metadata) = opened?;
        if !metadata.is_file() {
            return Err(Error::NotAFile);
        }
        Ok(Opened { path: path.to_owned(), bytes: map_readonly(&file)? })
    }

    /// Something was asked that leaves no mark: what was found cannot be known to be found again.
    pub(super) fn lose(&self) {
        self.is_lost.set(true);
    }

    /// What was seen; `None` if that is not all.
    pub(super) fn sights(self) -> Option<Sights> {
        Some(self.sights.into_inner()).filter(|_| !self.is_lost.get())
    }
}

/// Whether everything is as it was seen.
pub(super) fn holds(sights: &Sights) -> bool {
    sights.iter().all(|(path, seen)| Identity::at(path) == *seen)
}

/// Whether none of the files was changed so lately that the next change could leave no trace.
pub(super) fn is_settled(sights: &Sights, now: SystemTime) -> bool {
    sights.values().flatten().all(|identity| identity.is_settled(now))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_that_appears_goes_or_changes_is_noticed_and_one_that_was_looked_for_in_vain_too() {
        let folder = tempfile::tempdir().unwrap();
        let [there, absent] = ["there", "absent"].map(|name| folder.path().join(name));
        fs::write(&there, "1").unwrap();
        let look = || {
            let trail = Trail::default();
            let found = [&there, &absent].map(|path| trail.open(path).is_ok());
            (trail.sights().unwrap(), found)
        };
        let (sights, found) = look();
        assert_eq!(found, [true, false]);
        assert!(holds(&sights));
        fs::write(&absent, "2").unwrap();
        assert!(!holds(&sights));
        let (sights, _) = look();
        assert!(holds(&sights));
        // As long as before, and with the time of before.
        let modified = fs::metadata(&there).unwrap().modified().unwrap();
        fs::remove_file(&there).unwrap();
        fs::write(&there, "3").unwrap();
        File::open(&there).unwrap().set_modified(modified).unwrap();
        assert!(!holds(&sights));
    }

    #[test]
    fn a_file_of_this_moment_is_not_settled_and_two_seconds_later_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let trail = Trail::default();
        fs::write(folder.path().join("file"), "1").unwrap();
        trail.open(&folder.path().join("file")).unwrap();
        let sights = trail.sights().unwrap();
        assert!(!is_settled(&sights, SystemTime::now()));
        assert!(is_settled(&sights, SystemTime::now() + SETTLED));
    }

    #[test]
    fn a_trail_that_saw_a_file_change_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let trail = Trail::default();
        let path = folder.path().join("file");
        assert!(trail.open(&path).is_err());
        fs::write(&path, "1").unwrap();
        trail.open(&path).unwrap();
        assert!(trail.sights().is_none());
    }
}
