//! The process's look at its own memory, for a recorder that may not look (`xalloc_core::session::own_look`).
//!
//! A thread takes it up that waits for the recorder anyway, or a signal handler on a stack of its own. What it needs lies
//! on the stack, and the file goes again with its descriptor: nothing of it is left for the program to see.

use core::ffi::CStr;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use xalloc_core::session::own_look::{MOST_PAGES, NAME, OwnLookHeader};
use xalloc_core::units::PAGE_BYTES;

use super::Segment;
use crate::host::{self, File};
use crate::modules;

/// Bytes of text that are copied at once.
const TEXT: usize = 2048;
/// Runs that are written at once.
const RUNS: usize = 64;
/// Pages that are asked about at once.
const AT_ONCE: usize = 512;

impl Segment {
    /// Whether the recorder has asked for a look that no thread has taken up.
    pub(crate) fn is_own_look_asked(&self) -> bool {
        let handshake = &self.header().handshake;
        // Relaxed: who takes it up asks again.
        handshake.own_look.load(Ordering::Relaxed) != handshake.own_look_taken.load(Ordering::Relaxed)
    }

    /// Looks at the process's memory, if the recorder has asked for it and no other thread does.
    pub(crate) fn look_if_asked(&self) {
        let handshake = &self.header().handshake;
        // ORDERING: pairs with the recorder's Release store: the file is there.
        let asked = handshake.own_look.load(Ordering::Acquire);
        let taken = handshake.own_look_taken.load(Ordering::Relaxed);
        if asked == taken {
            return;
        }
        let is_confined = host::is_confined();
        // A copy of the process that marks blocks has the same words, but not the process's memory. One that confined
        // itself has no such copy.
        if !is_confined && self.pid != host::pid() {
            return;
        }
        // Relaxed: only who takes it up matters.
        if handshake.own_look_taken.compare_exchange(taken, asked, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        // A process that confined itself might be ended for it. What is not written has no header, which says so.
        if !is_confined {
            let _written = host::keeping_errno(|| write(self.path_beside(NAME.as_bytes(), asked).as_c(), asked));
        }
        // ORDERING: pairs with the recorder's Acquire load: the file is written.
        handshake.own_look_done.store(asked, Ordering::Release);
        self.ring_doorbell();
    }
}

fn write(path: &CStr, number: u32) -> Option<()> {
    let mut out = Out { file: File::open(path, libc::O_WRONLY)?, end: OwnLookHeader::BYTES as u64 };
    let text_bytes = copy_text(&mut out)?;
    let runs = write_runs(&mut out)?;
    let header = OwnLookHeader { number, text_bytes, runs };
    out.file.write_at(&header.to_bytes(), 0).then_some(())
}

/// The file, and where it ends.
struct Out {
    file: File,
    end: u64,
}

impl Out {
    /// Appends `bytes`. `None`: there is no room, or a larger file would bring the process a signal.
    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.end + bytes.len() as u64;
        if end > host::file_size_limit() || !self.file.write_at(bytes, self.end) {
            return None;
        }
        self.end = end;
        Some(())
    }
}

/// Copies the sums of the process's mappings. Returns their length.
#[inline(never)]
fn copy_text(out: &mut Out) -> Option<u64> {
    // The calling thread's own: that of the process is empty when the first thread has left.
    let smaps = File::open(c"/proc/thread-self/smaps", libc::O_RDONLY)?;
    let mut buffer = [0; TEXT];
    let mut copied = 0;
    loop {
        let got = smaps.read_at(&mut buffer, copied);
        if got == 0 {
            return (copied > 0).then_some(copied as u64);
        }
        out.push(buffer.get(..got)?)?;
        copied += got;
    }
}

/// Writes the resident runs of the anonymous mappings. Returns how many there are.
#[inline(never)]
fn write_runs(out: &mut Out) -> Option<u64> {
    let mut runs = Runs { out, waiting: [0; 16 * RUNS], filled: 0, written: 0 };
    let failed = modules::maps::search(|mapping| {
        let pages = (mapping.range.end - mapping.range.start) / PAGE_BYTES;
        let is_anonymous = mapping.path.is_empty() || mapping.path == b"[heap]";
        if !is_anonymous || pages > MOST_PAGES {
            return ControlFlow::Continue(());
        }
        match runs.of(mapping.range.start, mapping.range.end) {
            Some(()) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        }
    });
    match failed {
        Some(()) => None,
        None => runs.finish(),
    }
}

/// Runs on their way into the file.
struct Runs<'o> {
    out: &'o mut Out,
    waiting: [u8; 16 * RUNS],
    filled: usize,
    written: u64,
}

impl Runs<'_> {
    /// The resident runs of a mapping, or of what is still there of it.
    fn of(&mut self, start: u64, end: u64) -> Option<()> {
        let (mut at, mut run) = (start, start..start);
        while at < end {
            let pages = ((end - at) / PAGE_BYTES).min(AT_ONCE as u64) as usize;
            let resident = host::residency::<AT_ONCE>(at, pages).unwrap_or([0; AT_ONCE]);
            for told in resident.get(..pages)? {
                if told & 1 == 0 {
                    self.push(&run)?;
                    run = at + PAGE_BYTES..at + PAGE_BYTES;
                } else {
                    run.end = at + PAGE_BYTES;
                }
                at += PAGE_BYTES;
            }
        }
        self.push(&run)
    }

    fn push(&mut self, run: &core::ops::Range<u64>) -> Option<()> {
        if run.is_empty() {
            return Some(());
        }
        let place = self.waiting.get_mut(self.filled..self.filled + 16)?;
        for (byte, value) in place.iter_mut().zip(run.start.to_le_bytes().into_iter().chain(run.end.to_le_bytes())) {
            *byte = value;
        }
        self.filled += 16;
        self.written += 1;
        if self.filled == self.waiting.len() { self.flush() } else { Some(()) }
    }

    fn flush(&mut self) -> Option<()> {
        let filled = core::mem::take(&mut self.filled);
        self.out.push(self.waiting.get(..filled)?)
    }

    fn finish(mut self) -> Option<u64> {
        self.flush()?;
        Some(self.written)
    }
}
