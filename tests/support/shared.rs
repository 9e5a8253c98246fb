//! The file that the victim `killed.c` counts in, and the means to kill the victim.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Two words that a victim shares with its test: its process id, and its count of allocations.
pub(crate) struct Shared(PathBuf);

impl Shared {
    /// Both words 0, in a file in `folder`.
    pub(crate) fn new(folder: &Path) -> Shared {
        let path = folder.join("shared");
        fs::write(&path, [0; 16]).expect("the shared file");
        Shared(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn word(&self, at: usize) -> u64 {
        let bytes = fs::read(&self.0).expect("the file that the test made");
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("sixteen bytes"))
    }

    /// Allocations that have returned.
    pub(crate) fn allocations(&self) -> u64 {
        self.word(8)
    }

    /// Kills the victim.
    pub(crate) fn kill(&self) {
        let pid = self.word(0);
        let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill starts");
        assert!(status.success(), "process {pid} was gone before it was killed");
    }

    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Shared) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(50);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what} does not come");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
