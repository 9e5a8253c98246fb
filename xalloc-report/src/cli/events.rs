//! `events`: what happened, one event a line.

use std::io;

use clap::Args;

use super::args::{Format, FormatArgs, TraceArgs};
use super::moment::{Named, NoMark};
use super::opened::{every_block_for, gaps};
use super::values::{EventKinds, kinds};
use super::{Console, Exit, Failure};
use crate::analysis::{EventView, EventWindow, Named as _, Observer, ThreadName};
use crate::model::Recorded;
use crate::render::json::EventStream;
use crate::render::number::{counted, span};
use crate::render::text;
use crate::trace::{Contents, Moment, ProcessIndex};

#[derive(Args, Debug)]
pub struct Events {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// Kinds to show, separated by commas: alloc, free, realloc, brk, trim, release, mmap, munmap, mremap, madvise,
    /// split, coalesce, bin, tcache, consolidate, arena, threshold, thread, process, marker, fault, lost,
    /// dlclose
    #[arg(long, value_name = "KINDS", value_parser = kinds)]
    kind: Option<EventKinds>,
    /// Begin here: a time since the recording's start (1.5s, 20ms, 300us), the number of an event, or the first mark of
    /// a name
    #[arg(long, value_name = "TIME|SEQ|marker:NAME")]
    from: Option<Named>,
    /// End here, inclusive
    #[arg(long, value_name = "TIME|SEQ|marker:NAME")]
    to: Option<Named>,
    /// Only this thread: its number (t2 is 2) or its kernel id
    #[arg(long, value_name = "N|TID")]
    thread: Option<u32>,
    #[command(flatten)]
    format: FormatArgs,
}

impl Events {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        if let Some(step) = self.kind.as_ref().and_then(|kinds| kinds.0.iter().find(|kind| kind.is_heap_step())) {
            every_block_for(&format!("`--kind {}`", step.name()), trace.contents())?;
        }
        let processes = self.trace.processes(trace.contents())?;
        self.find_thread(trace.contents(), &processes)?;
        let windows = self.windows(trace, &processes)?;
        let told = match self.format.format {
            Format::Human => {
                let out = &mut *console.out;
                self.each(trace, &windows, |event| match event {
                    Told::Process { number, pid, exe } => {
                        out.write_all(text::process_heading(number, pid, exe).as_bytes())
                    }
                    Told::Event(event) => out.write_all(text::event(event).as_bytes()),
                })?
            }
            Format::Json => {
                let mut stream = EventStream::begin(&mut *console.out, &gaps(trace.contents()))?;
                let told = self.each(trace, &windows, |event| match event {
                    Told::Process { .. } => Ok(()),
                    Told::Event(event) => stream.event(event),
                })?;
                stream.end()?;
                told
            }
        };
        if told == 0 {
            writeln!(console.notes, "note: {}", nothing(trace, &processes))?;
        }
        Ok(Exit::Success)
    }

    /// Sees that the thread which is asked for is in the trace.
    fn find_thread(&self, contents: &Contents, processes: &[ProcessIndex]) -> Result<(), Failure> {
        let Some(wanted) = self.thread else { return Ok(()) };
        let threads = || processes.iter().flat_map(|&process| ThreadName::all(contents, process));
        if threads().any(|thread| thread.number == wanted || thread.tid == wanted) {
            return Ok(());
        }
        let known: Vec<_> = threads().take(20).map(|thread| format!("t{} ({})", thread.number, thread.tid)).collect();
        let error = anyhow::anyhow!("no thread has the number or kernel id {wanted}");
        Err(Failure::new(error).hint(format!("threads in the trace: {}", known.join(", "))))
    }

    /// What is asked for of each process that has it. None has it: an error, before anything is written.
    fn windows<R: Recorded>(
        &self,
        trace: &R,
        processes: &[ProcessIndex],
    ) -> Result<Vec<(ProcessIndex, EventWindow)>, Failure> {
        let kinds = self.kind.as_ref().map_or_else(Vec::new, |kinds| kinds.0.clone());
        let mut windows = Vec::new();
        let mut why_not = None;
        for &index in processes {
            let (from, to) = (self.moment(trace, index, &self.from)?, self.moment(trace, index, &self.to)?);
            match (from, to) {
                (Err(no_mark), _) | (_, Err(no_mark)) => {
                    why_not.get_or_insert_with(|| no_mark.failure("window"));
                }
                (Ok(from), Ok(to)) if is_reversed(from, to) => {
                    why_not.get_or_insert_with(|| self.reversed());
                }
                (Ok(from), Ok(to)) => {
                    windows.push((index, EventWindow { kinds: kinds.clone(), from, to, thread: self.thread }));
                }
            }
        }
        match why_not {
            Some(failure) if windows.is_empty() => Err(failure),
            _ => Ok(windows),
        }
    }

    fn reversed(&self) -> Failure {
        let said = |end: &Option<Named>| end.as_ref().map_or_else(String::new, Named::to_string);
        let (from, to) = (said(&self.from), said(&self.to));
        Failure::new(anyhow::anyhow!("the window ends before it begins: --to {to} is before --from {from}"))
            .hint(format!("--from {to} --to {from} is the stretch between them"))
    }

    /// Tells the events of these windows, and returns how many there are; after an error nothing more is told.
    fn each<R: Recorded>(
        &self,
        trace: &R,
        windows: &[(ProcessIndex, EventWindow)],
        mut tell: impl FnMut(Told<'_>) -> io::Result<()>,
    ) -> Result<u64, Failure> {
        let contents = trace.contents();
        let are_several = self.trace.processes(contents)?.len() > 1;
        let mut count = 0;
        for (index, window) in windows {
            let mut told = Ok(());
            if let Some(process) = contents.processes.get(index.0 as usize)
                && are_several
            {
                tell(Told::Process { number: index.0, pid: process.pid, exe: &process.exe.to_string_lossy() })?;
            }
            let mut observer = Observer::of(contents, *index, window, |event| {
                if told.is_ok() {
                    count += 1;
                    told = tell(Told::Event(&event));
                }
            });
            let replayed = trace.replay_within(*index, window.first(), window.last(), &mut observer);
            replayed.map_err(|error| self.trace.unreadable(error))?;
            told?;
        }
        Ok(count)
    }

    /// The end of the window in one process; the inner error: it never set the mark.
    fn moment<R: Recorded>(
        &self,
        trace: &R,
        process: ProcessIndex,
        end: &Option<Named>,
    ) -> Result<Result<Option<Moment>, NoMark>, Failure> {
        match end {
            None => Ok(Ok(None)),
            Some(end) => Ok(end.of(&self.trace, trace, process)?.map(Some)),
        }
    }
}

/// Whether a window ends before it begins, as far as its ends can be compared: one by time and one by number cannot.
fn is_reversed(from: Option<Moment>, to: Option<Moment>) -> bool {
    match (from, to) {
        (Some(Moment::Time(from)), Some(Moment::Time(to))) | (Some(Moment::Seq(from)), Some(Moment::Seq(to))) => {
            to < from
        }
        (Some(Moment::Time(_)), Some(Moment::Seq(_))) | (Some(Moment::Seq(_)), Some(Moment::Time(_))) => false,
        (None, _) | (_, None) => false,
    }
}

/// What is said where no event is wanted, so that nobody takes it for a broken pipe: how many there would be, and when.
fn nothing<R: Recorded>(trace: &R, processes: &[ProcessIndex]) -> String {
    let of = || processes.iter().filter_map(|index| trace.contents().processes.get(index.0 as usize));
    let events = processes.iter().fold(0_u64, |sum, &process| sum.saturating_add(trace.events(process)));
    let (first, last) =
        (of().map(|process| process.started_at_ns).min(), of().map(|process| process.ended_at_ns).max());
    match (first, last) {
        (Some(first), Some(last)) if events > 0 => {
            let events = counted(events, "event");
            format!("none of the {events} between +{} and +{} is asked for", span(first), span(last))
        }
        _ => "the trace has no events".to_owned(),
    }
}

/// What is told in turn.
enum Told<'a> {
    /// The events of this process follow.
    Process { number: u32, pid: u32, exe: &'a str },
    /// One event.
    Event(&'a EventView),
}
