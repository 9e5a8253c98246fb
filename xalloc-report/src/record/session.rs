//! The session's directory: the rendezvous of a recorder and its processes.
//!
//! It holds the control page and the segments, which are memory that happens to have a name: in /dev/shm they never
//! reach a disk. Where that is too small (64 MiB is a container's default), they go to a file system in the hope that
//! it is quick; sparse files cost what is touched.
//!
//! # Left-overs
//! A recorder that is killed leaves its directory. The next one removes those whose control page nobody holds locked.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xalloc_core::session::{CONTROL_NAME, Options};

use super::preload::is_loadable;
use crate::os::control::ControlPage;
use crate::os::lock::is_locked;
use crate::os::system::{free_bytes, own_uid};

/// A segment of a program with few threads and stacks takes some 3 MiB, one with all rings full 64 MiB and its trie.
pub(crate) const LEAST_FREE_BYTES: u64 = 128 << 20;
/// Beginning of the name of every session's directory.
const PREFIX: &str = "xalloc-session.";
/// A directory without a control page that is younger than this is being made.
const YOUNG: Duration = Duration::from_secs(60);

/// A session; its directory goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    directory: tempfile::TempDir,
    /// The control page.
    pub control: Arc<ControlPage>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No directory could be made anywhere.
    #[error("no directory for shared memory could be made in any of {tried:?}; set TMPDIR to one with 128 MiB free")]
    NoPlace {
        /// Where it was tried.
        tried: Vec<PathBuf>,
    },
    /// The control page could not be made.
    #[error("the control page in {} could not be made", directory.display())]
    Control {
        /// The session's directory.
        directory: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Session {
    /// Makes a session in the first of `places` that has room.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(crate) fn open(places: &[PathBuf], options: &Options) -> Result<Session, SessionError> {
        let directory = by_preference(places).find_map(|place| {
            remove_left_overs(place);
            private_directory(place).ok()
        });
        let directory = directory.ok_or_else(|| SessionError::NoPlace { tried: places.to_vec() })?;
        let control = ControlPage::create(&directory.path().join(CONTROL_NAME), options)
            .map_err(|source| SessionError::Control { directory: directory.path().to_owned(), source })?;
        Ok(Session { directory, control: Arc::new(control) })
    }

    /// The session's directory.
    #[must_use]
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// /dev/shm, then the user's own runtime directory, then where temporary files go.
#[must_use]
pub(crate) fn places() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let named = [Some("/dev/shm".into()), variable("XDG_RUNTIME_DIR"), variable("TMPDIR"), Some("/tmp".into())];
    named.into_iter().flatten().collect()
}

/// The places in the order in which they are tried: those with room first. One without room is better than none: what
/// does not fit is lost, and said to be.
pub(crate) fn by_preference(places: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    places.iter().filter(|place| has_room(place)).chain(places).filter(|place| is_loadable(place))
}

/// Whether a session fits into `place`.
pub(crate) fn has_room(place: &Path) -> bool {
    free_bytes(place).is_ok_and(|free| free >= LEAST_FREE_BYTES)
}

/// Makes a directory that is the user's alone; it goes when it is dropped. Into root's one others may step, not look: a
/// server that gives up root's rights finds the files that are handed to it there.
pub(crate) fn private_directory(place: &Path) -> io::Result<tempfile::TempDir> {
    let private = fs::Permissions::from_mode(if own_uid() == 0 { 0o711 } else { 0o700 });
    tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(place)
}

/// Removes the directories of recorders that were killed. What cannot be removed is left to its owner.
fn remove_left_overs(place: &Path) {
    for directory in directories(place) {
        let Some(metadata) =
            fs::symlink_metadata(&directory).ok().filter(|data| data.is_dir() && data.uid() == own_uid())
        else {
            continue;
        };
        let is_dead = match File::open(directory.join(CONTROL_NAME)) {
            Ok(control) => is_locked(&control).is_ok_and(|locked| !locked),
            Err(_) => metadata.modified().is_ok_and(|made| made.elapsed().is_ok_and(|age| age > YOUNG)),
        };
        if is_dead {
            // Another recorder may be removing it at the same time.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// What is named like the directory of a session in `place`.
pub(super) fn directories(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    named.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::DirBuilder;
    use std::os::unix::fs::DirBuilderExt;

    use super::*;

    #[test]
    fn a_session_is_private_and_goes_with_its_recorder_and_left_overs_of_dead_ones_go_with_the_next() {
        let place = tempfile::tempdir().unwrap();
        let places = [place.path().to_owned()];
        let dead = place.path().join("xalloc-session.dead");
        DirBuilder::new().create(&dead).unwrap();
        fs::write(dead.join(CONTROL_NAME), [0; 4096]).unwrap();
        let being_made = place.path().join("xalloc-session.young");
        DirBuilder::new().create(&being_made).unwrap();

        let first = Session::open(&places, &Options::new()).unwrap();
        assert_eq!(fs::metadata(first.directory()).unwrap().mode() & 0o766, 0o700, "others can neither look nor write");
        assert!(!dead.exists());
        assert!(being_made.exists());
        let second = Session::open(&places, &Options::new()).unwrap();
        let path = first.directory().to_owned();
        assert!(path.exists(), "a living recorder's session is left alone");
        drop(first);
        assert!(!path.exists());
        drop(second);
    }

    #[test]
    fn a_session_that_is_being_made_is_no_left_over_to_a_recorder_that_looks_for_some() {
        let place = tempfile::tempdir().unwrap();
        let places = [place.path().to_owned()];
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    remove_left_overs(place.path());
                }
            });
            for _ in 0..500 {
                let made = Session::open(&places, &Options::new());
                let is_there = made.as_ref().is_ok_and(|session| session.directory().join(CONTROL_NAME).exists());
                if !is_there {
                    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                assert!(is_there, "{made:?}");
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_place_that_the_loader_could_not_name_is_not_taken() {
        let parent = tempfile::tempdir().unwrap();
        let blank = parent.path().join("with blank");
        DirBuilder::new().mode(0o700).create(&blank).unwrap();
        assert!(matches!(Session::open(&[blank], &Options::new()), Err(SessionError::NoPlace { .. })));
    }
}
