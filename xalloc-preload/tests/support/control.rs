//! The recorder's side of a session, played by a test.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use xalloc_core::session::{CONTROL_MAGIC, Control, allocator, control_state};
use xalloc_core::wire;

use super::{Recording, library};

/// A recorder that never drains anything. Its lock is what tells the library that it lives.
pub(crate) struct Recorder {
    control: File,
}

impl Recorder {
    pub(crate) fn new(session: &Path, overflow: u32) -> Recorder {
        fs::create_dir_all(session).expect("a directory can be made");
        let path = session.join("control");
        let control =
            OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("a file can be made");
        control.set_len(size_of::<Control>() as u64).expect("it can grow");
        let recorder = Recorder { control };
        recorder.put(std::mem::offset_of!(Control, magic), &CONTROL_MAGIC.to_ne_bytes());
        recorder.put(std::mem::offset_of!(Control, version), &u32::from(wire::VERSION).to_ne_bytes());
        recorder.set_state(control_state::RECORDING);
        let options = xalloc_core::session::Options { overflow, allocator: allocator::CORE, ..Default::default() };
        let at = std::mem::offset_of!(Control, options);
        for (number, value) in
            [options.allocator, options.overflow, options.clock, options.follow, options.depth, 0, options.heap_steps]
                .into_iter()
                .enumerate()
        {
            recorder.put(at + number * 4, &value.to_ne_bytes());
        }
        recorder.lock(libc::F_WRLCK);
        recorder
    }

    /// Makes the control page that of another version.
    pub(crate) fn set_version(&self, version: u32) {
        self.put(std::mem::offset_of!(Control, version), &version.to_ne_bytes());
    }

    /// Cuts the control page off.
    pub(crate) fn cut(&self, bytes: u64) {
        self.control.set_len(bytes).expect("it is ours");
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        self.control.write_all_at(bytes, at as u64).expect("it can be written");
    }

    pub(crate) fn set_state(&self, state: u32) {
        self.put(std::mem::offset_of!(Control, state), &state.to_ne_bytes());
    }

    #[allow(unsafe_code)]
    fn lock(&self, kind: i32) {
        let lock = libc::flock { l_type: kind as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        // SAFETY: the descriptor is open, and the lock lives through the call.
        let answer = unsafe { libc::fcntl(self.control.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        assert_eq!(answer, 0);
    }
}

pub(crate) fn start(session: &Path, program: &Path) -> Child {
    Command::new(program)
        .env("LD_PRELOAD", library())
        .env("XALLOC_SESSION", session)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// What the processes of a session left behind, by the names of their segments.
pub(crate) fn segments(session: &Path) -> Vec<Recording> {
    let names = left_in(session).into_iter().filter(|name| name.starts_with("segment."));
    names.map(|name| Recording::read(&session.join(name))).collect()
}

/// The names of all files in the session's directory, in order.
pub(crate) fn left_in(session: &Path) -> Vec<String> {
    let entries = fs::read_dir(session).expect("the directory is there").map(|entry| entry.expect("an entry"));
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
