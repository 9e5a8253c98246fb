//! `events`: what happened, one event a line.

use std::io;

use clap::Args;

use super::args::{Format, FormatArgs, TraceArgs};
use super::values::{EventKinds, kinds};
use super::{Console, Exit, Failure};
use crate::analysis::{EventView, EventWindow, Instant, Observer};
use crate::model::Recorded;
use crate::render::json::EventStream;
use crate::render::text;

#[derive(Args, Debug)]
pub struct Events {
    #[command(flatten)]
    pub(super) trace: TraceArgs,
    /// Kinds to show, separated by commas: alloc, free, realloc, brk, trim, release, mmap, munmap, mremap, madvise,
    /// split, coalesce, bin, tcache, consolidate, arena, threshold, thread, process, marker, fault, lost,
    /// dlclose
    #[arg(long, value_name = "KINDS", value_parser = kinds)]
    kind: Option<EventKinds>,
    /// Begin here: a time since the recording's start (1.5s, 20ms, 300us) or the number of an event
    #[arg(long, value_name = "TIME|SEQ")]
    from: Option<Instant>,
    /// End here, inclusive
    #[arg(long, value_name = "TIME|SEQ")]
    to: Option<Instant>,
    /// Only this thread: its number (t2 is 2) or its kernel id
    #[arg(long, value_name = "N|TID")]
    thread: Option<u32>,
    #[command(flatten)]
    format: FormatArgs,
}

impl Events {
    pub(super) fn run<R: Recorded>(&self, trace: &R, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match self.format.format {
            Format::Human => {
                let out = &mut *console.out;
                self.each(trace, |event| match event {
                    Told::Process { number, pid, exe } => {
                        out.write_all(text::process_heading(number, pid, exe).as_bytes())
                    }
                    Told::Event(event) => out.write_all(text::event(event).as_bytes()),
                })?;
            }
            Format::Json => {
                let mut stream = EventStream::begin(&mut *console.out)?;
                self.each(trace, |event| match event {
                    Told::Process { .. } => Ok(()),
                    Told::Event(event) => stream.event(event),
                })?;
                stream.end()?;
            }
        }
        Ok(Exit::Success)
    }

    /// Tells the wanted events of every process; after an error nothing more is told.
    fn each<R: Recorded>(&self, trace: &R, mut tell: impl FnMut(Told<'_>) -> io::Result<()>) -> Result<(), Failure> {
        let contents = trace.contents();
        let kinds = self.kind.as_ref().map_or_else(Vec::new, |kinds| kinds.0.clone());
        let window = EventWindow { kinds, from: self.from, to: self.to, thread: self.thread };
        let processes = self.trace.processes(contents)?;
        for &index in &processes {
            let mut told = Ok(());
            if let Some(process) = contents.processes.get(index.0 as usize)
                && processes.len() > 1
            {
                tell(Told::Process { number: index.0, pid: process.pid, exe: &process.exe.to_string_lossy() })?;
            }
            let mut observer = Observer::of(contents, index, &window, |event| {
                if told.is_ok() {
                    told = tell(Told::Event(&event));
                }
            });
            let replayed = trace.replay_within(index, window.first(), window.last(), &mut observer);
            replayed.map_err(|error| self.trace.unreadable(error))?;
            told?;
        }
        Ok(())
    }
}

/// What is told in turn.
enum Told<'a> {
    /// The events of this process follow.
    Process { number: u32, pid: u32, exe: &'a str },
    /// One event.
    Event(&'a EventView),
}
