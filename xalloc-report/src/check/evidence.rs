//! What a recording gives a check to judge by.
//!
//! A trace is read process by process and only what can be in the verdict is kept, so that a recording of a test suite
//! with a thousand processes takes no more memory than its leaks.

use std::path::Path;

use super::own::{Whose, is_foreign};
use super::suppressions::ProgramsOwn;
use crate::analysis::{self, EndView, FaultView, LeakSite, LeakSum, LeakTotals, Pattern, SamplingView};
use crate::model::{Model, Recorded, Settings};
use crate::trace::{Contents, LeakClass, Process, ProcessIndex};

/// What of the processes is looked at.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Programs, by file name; empty: all.
    pub only: Vec<Pattern>,
    /// Programs to leave out.
    pub skip: Vec<Pattern>,
}

impl Selection {
    /// Whose a process of the recording is: programs that are asked for by name are the user's, and where nothing but
    /// tools ran, the command itself is.
    fn whose(&self, contents: &Contents, process: &Process) -> Whose {
        let is_users = |process: &Process| !is_foreign(&process.exe);
        let command = contents.processes.first().map(|first| first.pid);
        let is_meant = || command == Some(process.pid) && !contents.processes.iter().any(is_users);
        if !self.only.is_empty() || is_users(process) || is_meant() { Whose::Users } else { Whose::Tool }
    }

    fn takes(&self, program: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(program));
        (self.only.is_empty() || any(&self.only)) && !any(&self.skip)
    }
}

/// What of the blocks is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Blocks that the program can still get at, too.
    pub reachable: bool,
    /// Whether call stacks are asked for growth, which takes a second pass over the events.
    pub growth: bool,
}

/// One recording: a command with its children.
#[derive(Clone, Debug)]
pub struct RunEvidence {
    /// File name of the command's program.
    pub name: String,
    /// The command line.
    pub command: Vec<String>,
    /// How the command ended; `None` if the recording does not say.
    pub end: Option<EndView>,
    /// Why nothing was recorded, if nothing was.
    pub missing: Option<String>,
    /// What was cut off when the trace was read.
    pub salvage: Option<String>,
    /// What the recorder saw that is missing from the recording, each a sentence.
    pub doubts: Vec<String>,
    /// Whether the recording holds any leak scan at all.
    pub scanned: bool,
    /// What the programs want suppressed of their own leaks.
    pub suppressions: Vec<ProgramsOwn>,
    /// Its processes, by program and command line.
    pub processes: Vec<ProcessEvidence>,
}

/// One process of a recording.
#[derive(Clone, Debug)]
pub struct ProcessEvidence {
    /// Its number in the recording, from 0.
    pub number: u32,
    /// File name of its program.
    pub program: String,
    /// Whose that is.
    pub whose: Whose,
    /// Its command line.
    pub command: Vec<String>,
    /// How it ended.
    pub end: EndView,
    /// How its figures were estimated; `None`: they are exact.
    pub sampling: Option<SamplingView>,
    /// Events that were recorded.
    pub events: u64,
    /// Events that are known to be missing.
    pub dropped_events: u64,
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Of these, the temporary ones.
    pub temporary: u64,
    /// Frees.
    pub frees: u64,
    /// Requested bytes of all allocations.
    pub allocated_bytes: u64,
    /// Largest live requested bytes.
    pub peak_live_bytes: u64,
    /// What was alive at its end.
    pub alive: LeakSum,
    /// What it did wrong with its heap. Where events are missing, only what the heap itself noticed.
    pub faults: Vec<FaultView>,
    /// Why its blocks have no class, if they have none.
    pub not_checked: Option<String>,
    /// The classes.
    pub totals: LeakTotals,
    /// Call stacks and classes that can be in a verdict.
    pub sites: Vec<LeakSite>,
}

impl RunEvidence {
    /// Reads the selected of `processes`.
    ///
    /// # Errors
    /// The first error of [`Recorded::replay`].
    pub fn of<R: Recorded>(
        recorded: &R,
        processes: &[ProcessIndex],
        selection: &Selection,
        wanted: Wanted,
    ) -> Result<RunEvidence, R::Error> {
        let contents = recorded.contents();
        let recording = &contents.recording;
        let mut run = RunEvidence {
            end: recording.end.map(EndView::from),
            salvage: recording.salvage.clone(),
            scanned: !contents.scans.is_empty(),
            ..RunEvidence::missing(recording.command.clone(), None)
        };
        run.missing = contents.processes.is_empty().then(|| "the program never reported an event".to_owned());
        for &index in processes {
            let Some(process) = contents.processes.get(index.0 as usize) else { continue };
            if selection.takes(&program_of(process)) {
                let whose = selection.whose(contents, process);
                run.processes.push(ProcessEvidence { whose, ..ProcessEvidence::of(recorded, index, process, wanted)? });
                run.suppressions.extend(ProgramsOwn::of(contents, index));
            }
        }
        if run.processes.is_empty() && run.missing.is_none() {
            run.missing = Some("no recorded program is among those that were asked for".to_owned());
        }
        // Processes of one program begin in the order in which the kernel runs them; a report may not depend on it.
        run.processes.sort_by(|a, b| (&a.program, &a.command, a.number).cmp(&(&b.program, &b.command, b.number)));
        Ok(run)
    }

    /// A command of which nothing was recorded.
    #[must_use]
    pub fn missing(command: Vec<String>, why: Option<String>) -> RunEvidence {
        let program = command.first().map(String::as_str).unwrap_or_default();
        RunEvidence {
            name: file_name(Path::new(program)),
            command,
            end: None,
            missing: why,
            salvage: None,
            doubts: Vec::new(),
            scanned: false,
            suppressions: Vec::new(),
            processes: Vec::new(),
        }
    }
}

impl ProcessEvidence {
    fn of<R: Recorded>(
        recorded: &R,
        index: ProcessIndex,
        process: &Process,
        wanted: Wanted,
    ) -> Result<ProcessEvidence, R::Error> {
        let contents = recorded.contents();
        let model = Model::of(recorded, [index], Settings::default())?;
        let mut leaks = analysis::leaks(contents, &model);
        if wanted.growth {
            leaks.add_growth(&analysis::growth(recorded, index)?);
        }
        let totals = &model.sum.totals;
        let counted = process.losses.iter().fold(0u64, |sum, loss| sum.saturating_add(loss.events));
        let dropped_events = counted.max(totals.lost_events);
        let faults = match dropped_events {
            0 => analysis::faults(contents, &model),
            _ => analysis::reported_faults(contents, &model),
        };
        let sites = leaks
            .sites
            .into_iter()
            .filter(|site| site.growth.is_some_and(|slope| slope.rises) || can_fail(site, wanted));
        Ok(ProcessEvidence {
            number: index.0,
            program: program_of(process),
            whose: Whose::Users,
            command: process.command.clone(),
            end: process.end.into(),
            sampling: leaks.sampling,
            events: totals.events,
            dropped_events,
            allocations: totals.allocations,
            temporary: totals.temporary,
            frees: totals.frees,
            allocated_bytes: totals.allocated_bytes,
            peak_live_bytes: model.sum.peak.bytes,
            alive: LeakSum { bytes: leaks.bytes, blocks: leaks.blocks },
            faults,
            not_checked: leaks.processes.into_iter().next().and_then(|process| process.not_checked_reason),
            totals: leaks.totals,
            sites: sites.collect(),
        })
    }
}

fn can_fail(site: &LeakSite, wanted: Wanted) -> bool {
    match site.class {
        Some(LeakClass::Definite | LeakClass::Cycle | LeakClass::Possible) => true,
        Some(LeakClass::Reachable) => wanted.reachable,
        // What is held goes with what holds it.
        Some(LeakClass::Indirect | LeakClass::Runtime | LeakClass::Inherited | LeakClass::OwnerActive) | None => false,
    }
}

/// File name of a process's program.
pub(super) fn program_of(process: &Process) -> String {
    file_name(&process.exe)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
