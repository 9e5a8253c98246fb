//! Processes and threads as reports name them.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;

use crate::model::Model;
use crate::trace::{Contents, End, Process, ProcessIndex, ThreadIndex};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum EndView {
    /// It returned or called exit.
    Exited {
        /// Its exit status.
        status: i32,
    },
    /// A signal ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// exec replaced it by another program.
    Replaced,
    /// It still ran when the recording ended.
    Running,
    /// It is gone, and how is not known: it was not a child of the recorder.
    Vanished,
}

impl From<End> for EndView {
    fn from(end: End) -> EndView {
        match end {
            End::Exited(status) => EndView::Exited { status },
            End::Signalled(signal) => EndView::Signalled { signal },
            End::Replaced => EndView::Replaced,
            End::Running => EndView::Running,
            End::Vanished => EndView::Vanished,
        }
    }
}

/// What to know of peaks by call stack if there are several: their sum need not have been live at any instant.
pub(super) fn peaks_apart(model: &Model) -> Option<String> {
    let peaks = model.processes.iter().filter(|row| row.peak.bytes > 0).count();
    (peaks > 1).then(|| {
        format!(
            "each of {peaks} programs at its own peak, whenever that was; together they may never have held that much"
        )
    })
}

/// A thread by its numbers and its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ThreadName {
    /// Process id.
    pub pid: u32,
    /// Kernel thread id.
    pub tid: u32,
    /// Number in its process, from 1 in order of first events.
    pub number: u32,
    /// Name at its first event.
    pub name: String,
}

impl ThreadName {
    /// Those of a process, in order of their numbers.
    pub fn all(contents: &Contents, process: ProcessIndex) -> impl Iterator<Item = ThreadName> {
        let of_process = contents.threads.iter().filter(move |thread| thread.process == process);
        (1..).zip(of_process).map(move |(number, thread)| ThreadName {
            pid: pid(contents, process),
            tid: thread.tid,
            number,
            name: thread.name.clone(),
        })
    }
}

/// The threads of a trace by name: counted once, whoever asks for how many.
pub(super) struct ThreadNames<'c> {
    contents: &'c Contents,
    /// The number of each in its process.
    numbers: Vec<u32>,
}

impl<'c> ThreadNames<'c> {
    pub(super) fn of(contents: &'c Contents) -> ThreadNames<'c> {
        let mut last = FxHashMap::default();
        let next = |process: ProcessIndex| {
            let number = last.entry(process).or_insert(0);
            *number += 1;
            *number
        };
        let numbers = contents.threads.iter().map(|thread| thread.process).map(next).collect();
        ThreadNames { contents, numbers }
    }

    /// Its number in its process and its kernel id; 0 of a thread that is not in the trace.
    pub(super) fn numbers(&self, index: ThreadIndex) -> (u32, u32) {
        let at = index.0 as usize;
        let tid = self.contents.threads.get(at).map_or(0, |thread| thread.tid);
        (self.numbers.get(at).copied().unwrap_or(0), tid)
    }

    pub(super) fn at(&self, index: ThreadIndex) -> ThreadName {
        let (number, tid) = self.numbers(index);
        let thread = self.contents.threads.get(index.0 as usize);
        ThreadName {
            pid: thread.map_or(0, |thread| pid(self.contents, thread.process)),
            tid,
            number,
            name: thread.map_or_else(|| "not in the trace".to_owned(), |thread| thread.name.clone()),
        }
    }
}

/// How many processes these are to the system: what exec replaced goes on as another one with the same id. Their order
/// tells nothing, for a forked one is taken on when its parent's events have come to the fork.
pub(super) fn distinct<'a>(of: impl Iterator<Item = &'a Process>) -> u64 {
    let (mut count, mut by_pid) = (0, FxHashMap::<u32, (u64, u64)>::default());
    for process in of {
        count += 1;
        let (replaced, not_forked) = by_pid.entry(process.pid).or_default();
        *replaced += u64::from(process.end == End::Replaced);
        *not_forked += u64::from(!process.forked);
    }
    count - by_pid.values().map(|(replaced, not_forked)| replaced.min(not_forked)).sum::<u64>()
}

pub(super) fn pid(contents: &Contents, process: ProcessIndex) -> u32 {
    contents.processes.get(process.0 as usize).map_or(0, |process| process.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::{Sample, Stream};

    fn process(pid: u32, forked: bool, end: End) -> Process {
        let mut sample = Sample::default();
        sample.process(pid, "/bin/app", &[], Stream::default());
        Process { forked, end, ..sample.contents.processes.remove(0) }
    }

    #[test]
    fn what_exec_replaced_is_one_process_whichever_of_both_is_told_first() {
        let command = [process(1, false, End::Replaced), process(1, false, End::Exited(0))];
        let child =
            [process(2, true, End::Replaced), process(2, false, End::Replaced), process(2, false, End::Vanished)];
        let in_order = command.iter().chain(&child);
        let late = child.iter().rev().chain(command.iter().rev());
        assert_eq!([distinct(in_order), distinct(late)], [2, 2]);
        // An id that is used again, and a program whose forked predecessor was not recorded.
        let again = process(2, true, End::Vanished);
        assert_eq!([distinct(child.iter().chain([&again])), distinct(child[2..].iter())], [2, 1]);
    }
}
