//! A file in memory that may fill up.

use std::io;
use std::sync::{Arc, Mutex};

/// A file in memory that may fill up.
#[derive(Clone)]
pub(super) struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    size_bytes: usize,
}

impl Disk {
    pub(super) fn of(size_bytes: usize) -> Disk {
        Disk { bytes: Arc::default(), size_bytes }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.bytes.lock().unwrap();
        let len = bytes.len().min(self.size_bytes - file.len());
        if len == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
