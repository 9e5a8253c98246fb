//! Output whose reader may go away before the command has said everything.

use std::io::{self, ErrorKind, Write};

/// Passes on what is written, until nobody reads it any more; what is written after that is dropped.
///
/// For commands that end with what they found out or with a program's own status: `check TRACE | head` fails as `check
/// TRACE` does.
pub(super) struct Unread<W> {
    to: W,
    is_gone: bool,
}

impl<W: Write> Unread<W> {
    pub(super) fn new(to: W) -> Unread<W> {
        Unread { to, is_gone: false }
    }

    fn unless_gone<T>(&mut self, otherwise: T, act: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.is_gone {
            return Ok(otherwise);
        }
        match act(&mut self.to) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_gone = true;
                Ok(otherwise)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for Unread<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_gone(bytes.len(), |to| to.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_gone((), W::flush)
    }
}
