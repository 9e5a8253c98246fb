//! When the pass comes to the processes' memory: who is looked at, and who is asked instead.

use xalloc_core::sys::clock::monotonic_ns;
use xalloc_core::units::Stamp;

use super::own_look::{OwnLook, Progress};
use super::{Drain, LastWord, Sink};
use crate::os::signals;
use crate::record::clock::Clock;
use crate::record::looks::{Asked, Ending};
use crate::record::memory;
use crate::trace::{PagesFrom, Snapshot};

impl<S: Sink> Drain<S> {
    /// Asks the kernel about the memory of the processes for which it is time. `waits` has for each how many looks its
    /// threads had asked for before the rings were read; they are told whether or not there was something to see.
    pub(super) fn look(&mut self, gone: &[bool], waits: &[u32]) -> Result<(), S::Error> {
        let signals = signals::snapshots_asked();
        self.looks_asked = signals;
        for ((live, gone), &waits) in self.live.iter_mut().zip(gone).zip(waits) {
            let pid = live.stream.identity.pid;
            // Without a descriptor the number may be another process's by now.
            if *gone || live.pidfd.is_none() {
                if let Some(snapshot) = live.own_look.take().and_then(OwnLook::give_up).filter(tells_something) {
                    self.sink.snapshot(&snapshot)?;
                }
                live.stream.segment.answer_looks(waits);
                continue;
            }
            if live.own_look.is_some() {
                if let Progress::Over { seen, waits } = live.own_look_progress() {
                    if let Some(snapshot) = seen.filter(tells_something) {
                        live.looks.took(&snapshot);
                        self.sink.snapshot(&snapshot)?;
                    }
                    live.stream.segment.answer_looks(waits);
                }
                continue;
            }
            // A process that is checked on its way out stands still; one that is not may be gone by the next pass.
            let ending = match (live.checks.hold_the_end(live.stream.segment.asked()), live.stream.last_word) {
                (true, _) => Ending::Held,
                (false, LastWord::Exit(_)) => Ending::Going,
                (false, LastWord::None | LastWord::Exec) => Ending::No,
            };
            let asked = Asked { marks: live.stream.marks, waits, signals };
            let Some(due) = live.looks.due(pid, ending, asked) else {
                live.stream.segment.answer_looks(waits);
                continue;
            };
            let at_ns = self.timeline.at_ns(Clock::Monotonic, Stamp(monotonic_ns()));
            let seen = memory::look(pid, live.stream.index, at_ns, due.reason);
            if let Some(snapshot) = &seen {
                live.looks.took(snapshot);
            }
            if seen.as_ref().is_none_or(|seen| seen.pages_from == PagesFrom::Nobody) {
                live.own_look = OwnLook::begin(live, due, at_ns, seen.clone(), waits);
                if live.own_look.is_some() {
                    continue;
                }
            }
            live.stream.segment.answer_looks(waits);
            if let Some(snapshot) = seen.filter(tells_something) {
                self.sink.snapshot(&snapshot)?;
            }
        }
        Ok(())
    }
}

/// Whether the process had anything left: one that has given everything back already has nothing to tell.
fn tells_something(seen: &Snapshot) -> bool {
    !seen.mappings.is_empty() && seen.resident_bytes > 0
}
