//! Where the recorder is asked: a socket in the session's directory, to which only its user may connect.
//!
//! # Why a thread
//! The recorder sleeps on its doorbell, a word of memory; a socket cannot ring that by itself. The thread accepts one
//! asker after another, hands the question on and rings; the answer goes to the asker from a thread of its own, so that
//! who waits for a long check keeps nobody from hearing that it is being made.
//!
//! # Why not a lock for each process
//! Who asks while a check goes on waits for the next one, which all who wait share. A share in the one that goes on would
//! be of a moment before it asked.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::{Refusal, Reply, Request};
use crate::os::control::ControlPage;

/// Name of the socket in the session's directory.
const NAME: &str = "ask";
/// Longest wait for the line of an asker.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time until another asker is let in, after one could not be.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest line of an asker, bytes.
const LINE_BYTES: u64 = 256;

/// Makes the socket of the session in `directory`: who asks from here on is heard as soon as the desk is open.
///
/// # Errors
/// What the system reports.
pub(in crate::record) fn listen(directory: &Path) -> io::Result<UnixListener> {
    near(directory, |path| {
        let listener = UnixListener::bind(path)?;
        // Root's folder can be stepped through.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    })
}

/// A question, and where the answer goes.
pub(in crate::record) type Asked = (u32, Sender<Reply>);

/// The recorder's end.
#[derive(Debug)]
pub(in crate::record) struct Desk {
    questions: Receiver<Asked>,
    directory: PathBuf,
    is_closed: Arc<AtomicBool>,
}

impl Desk {
    /// Opens the desk of the session in `directory`, whose socket is `listener`; whoever asks rings `control`.
    ///
    /// # Errors
    /// What the thread reports.
    pub(in crate::record) fn open(
        listener: UnixListener,
        directory: &Path,
        control: Arc<ControlPage>,
    ) -> io::Result<Desk> {
        let (sender, questions) = channel();
        let is_closed = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&is_closed);
        thread::Builder::new().name("desk".into()).spawn(move || {
            for stream in listener.incoming() {
                // Relaxed: set before the connection that woke this thread.
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                // An asker that went away needs no answer, and one without a thread hears that the line is closed.
                let (sender, control) = (sender.clone(), Arc::clone(&control));
                let serve = move |stream| drop(serve(stream, &sender, &control));
                match stream {
                    Ok(stream) => drop(thread::Builder::new().name("asker".into()).spawn(move || serve(stream))),
                    // Without descriptors: one of them may be given back soon.
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        })?;
        Ok(Desk { questions, directory: directory.to_owned(), is_closed })
    }

    /// What was asked since the last call.
    pub(in crate::record) fn questions(&self) -> impl Iterator<Item = Asked> {
        self.questions.try_iter()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Relaxed: the connection below is made after.
        self.is_closed.store(true, Ordering::Relaxed);
        // A desk whose socket was removed sleeps until its process ends.
        let _ = connect(&self.directory);
    }
}

/// Hears one asker, and answers when the recorder has.
fn serve(mut stream: UnixStream, questions: &Sender<Asked>, control: &ControlPage) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?.take(LINE_BYTES)).read_line(&mut line)?;
    let Request { pid } = serde_json::from_str(&line)?;
    let (sender, answer) = channel();
    let is_heard = questions.send((pid, sender)).is_ok();
    control.ring();
    // A recorder that is at its end drops the question.
    let reply = answer.recv().ok().filter(|_| is_heard).unwrap_or(Reply::Refused(Refusal::Ended));
    writeln!(stream, "{}", serde_json::json!(reply))
}

/// Connects to the desk of the session in `directory`.
pub(super) fn connect(directory: &Path) -> io::Result<UnixStream> {
    near(directory, |path| UnixStream::connect(path))
}

/// Names the socket by the open directory: its own path may be longer than the 107 bytes that a socket's may have.
fn near<T>(directory: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let opened = File::open(directory)?;
    act(Path::new(&format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xalloc_core::session::Options;

    fn desk(directory: &Path) -> (Desk, Arc<ControlPage>) {
        let control = Arc::new(ControlPage::create(&directory.join("control"), &Options::new()).unwrap());
        (Desk::open(listen(directory).unwrap(), directory, Arc::clone(&control)).unwrap(), control)
    }

    fn line_of(stream: UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn who_asks_rings_and_is_answered_when_the_recorder_has() {
        // A path that is too long for a socket.
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("x".repeat(200));
        std::fs::create_dir(&directory).unwrap();
        let (desk, control) = desk(&directory);
        let before = control.doorbell();
        let mut stream = connect(&directory).unwrap();
        stream.write_all(b"{\"pid\":42}\n").unwrap();
        control.sleep(before, 10_000_000_000);
        let questions: Vec<_> = desk.questions().collect();
        let [(42, sender)] = &questions[..] else { panic!("{questions:?}") };
        sender.send(Reply::Made { trace: "a.xtrace".into(), check: 3 }).unwrap();
        let told: Reply = serde_json::from_str(&line_of(stream)).unwrap();
        assert_eq!(told, Reply::Made { trace: "a.xtrace".into(), check: 3 });
    }

    #[test]
    fn what_is_no_question_reaches_nobody_and_a_recorder_that_ends_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let (desk, control) = desk(directory.path());
        let mut stream = connect(directory.path()).unwrap();
        stream.write_all(b"what?\n").unwrap();
        assert_eq!(line_of(stream), "");
        assert_eq!(desk.questions().count(), 0);
        let before = control.doorbell();
        let mut stream = connect(directory.path()).unwrap();
        stream.write_all(b"{\"pid\":42}\n").unwrap();
        control.sleep(before, 10_000_000_000);
        drop(desk);
        let told: Reply = serde_json::from_str(&line_of(stream)).unwrap();
        assert_eq!(told, Reply::Refused(Refusal::Ended));
    }
}
