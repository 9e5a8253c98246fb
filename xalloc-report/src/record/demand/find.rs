//! Which session records a process, as somebody who did not start it finds out.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use xalloc_core::session::{CONTROL_NAME, OUT_VARIABLE, SESSION_VARIABLE};

use super::DemandError;
use crate::os::lock::is_locked;
use crate::os::system::own_uid;
use crate::record::session::{directories, places};
use crate::record::status::{Status, Uid};

/// The session that records a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Session {
    pub(super) directory: PathBuf,
}

impl Session {
    /// The living session that has a segment of process `pid`.
    ///
    /// # Errors
    /// [`DemandError`] if there is none.
    pub(super) fn of(pid: u32) -> Result<Session, DemandError> {
        let status = Status::of(pid).map_err(|_| DemandError::NoProcess { pid })?;
        let environment = Environment::of(pid);
        let mut candidates: Vec<PathBuf> = environment.session.iter().cloned().collect();
        // A process may have cleared its environment, and one whose environment is not ours to read may be recorded.
        candidates.extend(places().iter().flat_map(|place| directories(place)));
        candidates.retain(|directory| has_segment(directory, pid));
        if let Some(directory) = candidates.iter().find(|directory| is_alive(directory)) {
            return Ok(Session { directory: directory.clone() });
        }
        match status.uid(Uid::Real).filter(|&uid| uid != own_uid() && own_uid() != 0) {
            Some(uid) => Err(DemandError::AnotherUser { pid, uid }),
            None if !candidates.is_empty() || environment.session.is_some() => Err(DemandError::RecorderGone { pid }),
            None if environment.is_alone => Err(DemandError::StandAlone { pid }),
            None => Err(DemandError::NotRecorded { pid }),
        }
    }
}

/// What a process was started with.
struct Environment {
    session: Option<PathBuf>,
    is_alone: bool,
}

impl Environment {
    /// Nothing, if it is not ours to read.
    fn of(pid: u32) -> Environment {
        let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let value = |name: &str| {
            let mut variables = bytes.split(|&byte| byte == 0);
            variables
                .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
                .map(<[u8]>::to_vec)
        };
        Environment {
            session: value(SESSION_VARIABLE).map(|path| OsString::from_vec(path).into()),
            is_alone: value(OUT_VARIABLE).is_some(),
        }
    }
}

fn has_segment(directory: &Path, pid: u32) -> bool {
    let prefix = format!("segment.{pid}.");
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()))
}

/// Whether a recorder holds the lock of its control page.
fn is_alive(directory: &Path) -> bool {
    let control = File::open(directory.join(CONTROL_NAME));
    control.and_then(|control| is_locked(&control)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_there_and_one_that_nobody_records_are_told_apart() {
        assert!(matches!(Session::of(1 << 30), Err(DemandError::NoProcess { .. })));
        assert!(matches!(Session::of(std::process::id()), Err(DemandError::NotRecorded { .. })));
    }
}
