//! The recorder's half of a process's look at itself (`xalloc_core::session::own_look`): where the kernel does not say to
//! the recorder which pages of a process are resident, the process is asked.
//!
//! It is asked where a thread of it waits anyway, on its way out or at a mark, and after a signal to the recorder, which
//! somebody sends by hand: then by SIGURG. Peaks and intervals are the recorder's own idea, and the program is not
//! interrupted for them.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use xalloc_core::session::own_look::NAME;

use super::check::{create_for, path_beside};
use super::hearing::require_hearing;
use super::live::Live;
use crate::os::pidfd::Pidfd;
use crate::record::looks::{Due, Held};
use crate::record::memory;
use crate::trace::{Reason, Snapshot};

/// Longest that a process may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two signals, and between two attempts to wake a thread that may just have gone to sleep.
const AGAIN: Duration = Duration::from_millis(20);

/// Longest file that is read: of the 65,530 mappings that Linux allows a process, the text alone is some 50 MiB.
const MOST_BYTES: u64 = 256 << 20;

/// A look that a process was asked for.
#[derive(Debug)]
pub(super) struct OwnLook {
    path: PathBuf,
    /// The file there, as the recorder made it: what the process may have put in its place is not opened.
    file: File,
    number: u32,
    held: Held,
    at_ns: u64,
    reason: Reason,
    /// What the recorder could see.
    seen: Option<Snapshot>,
    /// The marks that are answered by it.
    waits: u32,
    since: Instant,
    urged: Instant,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Progress {
    Waiting,
    /// With what is known now, if anything is.
    Over {
        seen: Option<Snapshot>,
        waits: u32,
    },
}

impl OwnLook {
    /// Asks the process, if it can be asked.
    pub(super) fn begin(live: &mut Live, due: Due, at_ns: u64, seen: Option<Snapshot>, waits: u32) -> Option<OwnLook> {
        let pid = live.stream.identity.pid;
        let can_hear = match due.held {
            Held::Waiting => true,
            Held::BySignal => require_hearing(pid).is_ok(),
            Held::No => false,
        };
        if !can_hear {
            return None;
        }
        live.own_looks += 1;
        let number = live.own_looks;
        let path = path_beside(&live.path, NAME, number);
        let file = create_for(pid, &path).ok()?;
        let now = Instant::now();
        let Due { reason, held } = due;
        let own = OwnLook { path, file, number, held, at_ns, reason, seen, waits, since: now, urged: now };
        own.urge(live);
        Some(own)
    }

    /// What is known of a process that has gone meanwhile.
    pub(super) fn give_up(mut self) -> Option<Snapshot> {
        self.seen.take()
    }

    fn urge(&self, live: &Live) {
        live.stream.segment.ask_for_own_look(self.number);
        if self.held == Held::BySignal {
            // One that has ended is noticed by the pass.
            let _ = live.pidfd.as_ref().map(Pidfd::urge);
        }
    }
}

impl Live {
    /// How far the process's look at itself is. What is over is forgotten.
    pub(super) fn own_look_progress(&mut self) -> Progress {
        let Some(mut own) = self.own_look.take() else { return Progress::Over { seen: None, waits: 0 } };
        let is_done = self.stream.segment.own_look_done() == own.number;
        if !is_done && own.since.elapsed() < PATIENCE {
            if own.urged.elapsed() >= AGAIN {
                own.urged = Instant::now();
                own.urge(self);
            }
            self.own_look = Some(own);
            return Progress::Waiting;
        }
        let mut written = Vec::new();
        // What cannot be read, or is longer, has no header or less behind it than that says.
        let _ = is_done.then(|| (&own.file).take(MOST_BYTES).read_to_end(&mut written));
        let pid = self.stream.identity.pid;
        let told = memory::own_look(pid, self.stream.index, (own.at_ns, own.reason), own.number, &written);
        let cost_ns = own.since.elapsed().as_nanos() as u64;
        let told = told.map(|told| Snapshot { cost_ns, ..told });
        Progress::Over { seen: told.or_else(|| own.seen.take()), waits: own.waits }
    }
}

impl Drop for OwnLook {
    fn drop(&mut self) {
        // What cannot be removed goes with the session's directory.
        let _ = fs::remove_file(&self.path);
    }
}
