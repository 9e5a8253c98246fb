//! The recording as a whole.

use schemars::JsonSchema;
use serde::Serialize;

use super::faults::{self, DoubleFreeView, FaultView};
use super::process::{EndView, ThreadName, ThreadNames, distinct, pid};
use super::{SamplingView, allocator_frames, names};
use crate::model::{Model, ProcessRow, Stacks};
use crate::trace::{Allocator, Contents, Process, ProcessIndex, StackIndex};

/// Who served the allocations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllocatorView {
    /// xalloc's own heap, which places chunks as glibc does.
    Core,
    /// The program's own allocator.
    System,
    /// Some processes by the one, some by the other.
    Mixed,
}

/// Events that are known to be missing, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LossView {
    /// Process id.
    pub pid: u32,
    /// `ring-full`, `no-ring`, `recorder-gone`, `nested`, `text` or `cut`.
    pub reason: String,
    /// How many; of `recorder-gone` those before the process noticed, for it counts none of what it did afterwards.
    pub events: u64,
}

impl LossView {
    /// What is missing of a process.
    pub fn of(process: &Process) -> impl Iterator<Item = LossView> {
        process.losses.iter().filter(|loss| loss.events > 0).map(|loss| LossView {
            pid: process.pid,
            reason: names::loss(loss.reason).to_owned(),
            events: loss.events,
        })
    }
}

/// One process in the summary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ProcessSummary {
    /// Its number in the recording, from 0.
    pub number: u32,
    /// Process id.
    pub pid: u32,
    /// Process id of the recorded process it was forked from.
    pub parent_pid: Option<u32>,
    /// Path of the executable.
    pub exe: String,
    /// How it ended.
    pub end: EndView,
    /// Who served its allocations.
    pub allocator: AllocatorView,
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Requested bytes of all of them.
    pub allocated_bytes: u64,
    /// Frees of its own blocks.
    pub frees: u64,
    /// Largest live bytes.
    pub peak_live_bytes: u64,
    /// When that was first reached, nanoseconds since the recording's start.
    pub peak_at_ns: Option<u64>,
    /// Bytes alive at exit.
    pub live_at_exit_bytes: u64,
    /// Blocks alive at exit.
    pub live_at_exit_blocks: u64,
    /// Blocks that it had from its parent at the fork; in no other figure.
    pub inherited_blocks: u64,
    /// Requested bytes of these.
    pub inherited_bytes: u64,
    /// Threads that allocated or freed.
    pub threads: u64,
}

/// One thread in the summary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ThreadSummary {
    /// Which thread.
    #[serde(flatten)]
    pub thread: ThreadName,
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Requested bytes of all of them.
    pub allocated_bytes: u64,
    /// Frees by this thread.
    pub frees: u64,
    /// Of its frees, those of blocks that another thread allocated.
    pub foreign_frees: u64,
    /// Temporary allocations.
    pub temporary_allocations: u64,
    /// Bytes that it allocated and that were alive at exit.
    pub live_at_exit_bytes: u64,
}

/// A span of the recording's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Span {
    /// Its beginning, nanoseconds since the recording's start.
    pub from_ns: u64,
    /// Its length, nanoseconds.
    pub length_ns: u64,
}

/// The recording as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Summary {
    /// The recorded command line.
    pub command: Vec<String>,
    /// How the recorded command ended; `null` if the trace was cut before that.
    pub end: Option<EndView>,
    /// Length of the recording, nanoseconds.
    pub duration_ns: u64,
    /// How the figures were estimated, where only some allocations were recorded; else `null`.
    pub sampling: Option<SamplingView>,
    /// Who served the allocations.
    pub allocator: AllocatorView,
    /// Version of the C library.
    pub libc: String,
    /// Name of the machine.
    pub host: String,
    /// Allocations, reallocs included.
    pub allocations: u64,
    /// Frees of recorded blocks, reallocs included.
    pub frees: u64,
    /// Requested bytes of all allocations.
    pub allocated_bytes: u64,
    /// Calls for memory that failed.
    pub failed_allocations: u64,
    /// Allocations that their own thread freed before its next `temporary_threshold` allocations.
    pub temporary_allocations: u64,
    /// Requested bytes of these.
    pub temporary_bytes: u64,
    /// The threshold.
    pub temporary_threshold: u32,
    /// Reallocs that kept the block in its place; `null` where only some allocations were recorded.
    pub reallocs_in_place: Option<u64>,
    /// Reallocs that moved the block, likewise.
    pub reallocs_moved: Option<u64>,
    /// Largest live requested bytes; of several processes the sum of each one's peak.
    pub peak_live_bytes: u64,
    /// When that was first reached, nanoseconds since the recording's start; `null` without allocations, and for
    /// several processes, whose peaks are at different times.
    pub peak_at_ns: Option<u64>,
    /// What all processes together held at no instant more than: of one process its peak.
    pub peak_together_bytes: u64,
    /// The span of time in which they may have held that; `null` without allocations.
    pub peak_together_in: Option<Span>,
    /// Requested bytes alive at exit.
    pub live_at_exit_bytes: u64,
    /// Blocks alive at exit.
    pub live_at_exit_blocks: u64,
    /// Events in the trace.
    pub events: u64,
    /// Events that are known to be missing.
    pub dropped_events: u64,
    /// Why events are missing.
    pub losses: Vec<LossView>,
    /// Frees of memory that was never seen allocated.
    pub unknown_frees: u64,
    /// Frees of blocks that had been freed before; not among `unknown_frees`.
    pub double_frees: u64,
    /// The first of them in short; `first_faults` has everything.
    pub first_double_frees: Vec<DoubleFreeView>,
    /// Pointers that were no blocks, and damage that was noticed in the heap; the double frees are among them. At most 4,096 of
    /// each process are counted.
    pub faults: u64,
    /// The first of them, with whose blocks they are about.
    pub first_faults: Vec<FaultView>,
    /// Allocations at an address that was still live: the free between was not seen.
    pub implied_frees: u64,
    /// Events that arrived too late to be put in order.
    pub late_events: u64,
    /// How often a thread found its buffer full and waited for the recorder.
    pub buffer_waits: u64,
    /// How long the threads waited so, added up, nanoseconds.
    pub buffer_waited_ns: u64,
    /// Threads that allocated or freed.
    pub threads: u64,
    /// Processes that these figures are of. One that exec replaced is still one.
    pub processes: u64,
    /// Programs that ran in them, each an entry of `by_process`.
    pub programs: u64,
    /// Programs that the trace holds.
    pub programs_in_trace: u64,
    /// Distinct call stacks that allocated.
    pub stacks: u64,
    /// Allocations whose call stack was lost.
    pub unknown_stacks: u64,
    /// Distinct code locations in these stacks for which no function is known.
    pub unknown_frames: u64,
    /// Files that have such locations, most locations first.
    pub modules_without_symbols: Vec<String>,
    /// Whether the trace carries symbols at all.
    pub symbolized: bool,
    /// What was cut off when the trace was read; `null` if it is whole.
    pub salvage: Option<String>,
    /// Each process.
    pub by_process: Vec<ProcessSummary>,
    /// Each thread that allocated or freed.
    pub by_thread: Vec<ThreadSummary>,
}

impl Summary {
    pub(super) fn of(contents: &Contents, model: &Model) -> Summary {
        let recording = &contents.recording;
        let sum = &model.sum;
        let selected = || model.processes.iter().filter_map(|row| contents.processes.get(row.process.0 as usize));
        let of_all = |count: fn(&Process) -> u64| selected().map(count).fold(0, u64::saturating_add);
        let losses = losses(contents, &model.processes);
        let counted: u64 = losses.iter().fold(0, |sum, loss| sum.saturating_add(loss.events));
        let unknown = unknown_frames(contents, model);
        let together = sum.timeline.most_live();
        let first_faults = faults::faults(contents, model);
        let thread_names = ThreadNames::of(contents);
        Summary {
            command: recording.command.clone(),
            end: recording.end.map(EndView::from),
            duration_ns: recording.duration_ns,
            sampling: SamplingView::of(model),
            allocator: allocator(selected().map(|process| process.allocator)),
            libc: recording.libc.clone(),
            host: recording.host.clone(),
            allocations: sum.totals.allocations,
            frees: sum.totals.frees,
            allocated_bytes: sum.totals.allocated_bytes,
            failed_allocations: sum.totals.failed,
            temporary_allocations: sum.totals.temporary,
            temporary_bytes: sum.totals.temporary_bytes,
            temporary_threshold: model.settings.temporary_threshold,
            // Both blocks of a realloc must be known to tell.
            reallocs_in_place: sum.errors.is_none().then_some(sum.reallocs.in_place),
            reallocs_moved: sum.errors.is_none().then_some(sum.reallocs.moved),
            peak_live_bytes: sum.peak.bytes,
            peak_at_ns: sum.peak.at_ns,
            // The sum of the peaks is a bound too, and for one process the better one.
            peak_together_bytes: together.map_or(0, |(_, bytes)| bytes.min(sum.peak.bytes)),
            peak_together_in: together.map(|(from_ns, _)| Span { from_ns, length_ns: sum.timeline.width_ns() }),
            live_at_exit_bytes: sum.totals.alive_bytes,
            live_at_exit_blocks: sum.totals.alive_blocks,
            events: sum.totals.events,
            // Losses are told twice, at their place in the stream and at the end of the process; a cut trace may
            // have only the one or the other.
            dropped_events: counted.max(sum.totals.lost_events),
            losses,
            unknown_frees: of_all(|process| process.repairs.unknown_frees)
                .max(sum.totals.unknown_frees)
                .saturating_sub(faults::not_refused(model)),
            double_frees: faults::double_frees(model),
            first_double_frees: DoubleFreeView::among(&first_faults),
            faults: faults::count(model),
            first_faults,
            implied_frees: of_all(|process| process.repairs.implied_frees),
            late_events: of_all(|process| process.repairs.late_events),
            buffer_waits: of_all(|process| process.waits.times),
            buffer_waited_ns: of_all(|process| process.waits.waited_ns),
            threads: sum.threads.len() as u64,
            processes: distinct(selected()),
            programs: model.processes.len() as u64,
            programs_in_trace: contents.processes.len() as u64,
            stacks: sum.stacks.count(),
            unknown_stacks: sum.totals.unknown_stacks,
            unknown_frames: unknown.frames,
            modules_without_symbols: unknown.modules,
            symbolized: recording.symbolized,
            salvage: recording.salvage.clone(),
            by_process: model.processes.iter().filter_map(|row| by_process(contents, row)).collect(),
            by_thread: sum
                .threads
                .iter()
                .map(|totals| ThreadSummary {
                    thread: thread_names.at(totals.thread),
                    allocations: totals.allocations,
                    allocated_bytes: totals.allocated_bytes,
                    frees: totals.frees,
                    foreign_frees: totals.foreign_frees,
                    temporary_allocations: totals.temporary,
                    live_at_exit_bytes: totals.alive_bytes,
                })
                .collect(),
        }
    }
}

fn view(allocator: Allocator) -> AllocatorView {
    match allocator {
        Allocator::Core => AllocatorView::Core,
        Allocator::System => AllocatorView::System,
    }
}

fn allocator(of: impl Iterator<Item = Allocator>) -> AllocatorView {
    let all = of.map(view).reduce(|first, next| if first == next { first } else { AllocatorView::Mixed });
    // Without a process nothing was served; xalloc's own heap is what a recording begins with.
    all.unwrap_or(AllocatorView::Core)
}

fn losses(contents: &Contents, rows: &[ProcessRow]) -> Vec<LossView> {
    let processes = rows.iter().filter_map(|row| contents.processes.get(row.process.0 as usize));
    processes.flat_map(LossView::of).collect()
}

fn by_process(contents: &Contents, row: &ProcessRow) -> Option<ProcessSummary> {
    let ProcessIndex(number) = row.process;
    let process = contents.processes.get(number as usize)?;
    Some(ProcessSummary {
        number,
        pid: process.pid,
        parent_pid: process.parent.map(|parent| pid(contents, parent)),
        exe: process.exe.to_string_lossy().into_owned(),
        end: process.end.into(),
        allocator: view(process.allocator),
        allocations: row.totals.allocations,
        allocated_bytes: row.totals.allocated_bytes,
        frees: row.totals.frees,
        peak_live_bytes: row.peak.bytes,
        peak_at_ns: row.peak.at_ns,
        live_at_exit_bytes: row.totals.alive_bytes,
        live_at_exit_blocks: row.totals.alive_blocks,
        inherited_blocks: row.inherited.blocks,
        inherited_bytes: row.inherited.bytes,
        threads: row.threads,
    })
}

struct Unknown {
    frames: u64,
    modules: Vec<String>,
}

/// Code locations without a function in the stacks that allocated. A node's callers are walked once.
fn unknown_frames(contents: &Contents, model: &Model) -> Unknown {
    let mut nodes = Stacks::new(contents.stacks.len());
    let mut is_met = vec![false; contents.frames.len()];
    for stack in model.sum.stacks.iter() {
        let mut at = stack;
        while at != StackIndex::NONE {
            let Some(node) = contents.stacks.get(at.0 as usize).filter(|_| nodes.insert(at)) else { break };
            if let Some(is_met) = node.frame.and_then(|frame| is_met.get_mut(frame.0 as usize)) {
                *is_met = true;
            }
            at = node.parent;
        }
    }
    let met = contents.frames.iter().zip(&is_met).filter(|(_, is_met)| **is_met).map(|(frame, _)| frame);
    let mut by_module = std::collections::BTreeMap::<String, u64>::new();
    let mut count = 0;
    for frame in met.filter(|frame| frame.functions.is_empty()) {
        let module = frame.module.and_then(|module| contents.modules.get(module.0 as usize));
        if module.is_some_and(|module| allocator_frames::is_hook_module(&module.path)) {
            continue;
        }
        count += 1;
        *by_module
            .entry(module.map_or("code without a file".into(), |m| m.path.to_string_lossy().into()))
            .or_default() += 1;
    }
    let mut modules: Vec<_> = by_module.into_iter().collect();
    modules.sort_by_key(|(_, frames)| std::cmp::Reverse(*frames));
    Unknown { frames: count, modules: modules.into_iter().map(|(path, _)| path).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settings;
    use crate::model::sample::{server, server_with_child};
    use crate::trace::{Loss, Waits};
    use xalloc_core::wire::LossReason;

    #[test]
    fn the_figures_are_those_of_the_events() {
        let sample = server();
        let model = Model::of(&sample, [ProcessIndex(0)], Settings::default()).expect("a sample has no errors");
        let summary = Summary::of(&sample.contents, &model);
        assert_eq!((summary.allocations, summary.frees), (54, 43));
        assert_eq!((summary.live_at_exit_bytes, summary.live_at_exit_blocks), (18_192, 11));
        assert_eq!(summary.temporary_allocations, 41);
        assert_eq!((summary.unknown_frames, summary.modules_without_symbols.len()), (1, 1));
        assert_eq!((summary.threads, summary.stacks, summary.dropped_events), (2, 5, 0));
    }

    #[test]
    fn dropped_events_are_counted_with_their_reason_and_waits_are_added_up() {
        let mut sample = server_with_child();
        sample.contents.processes[1].losses = vec![Loss { reason: LossReason::RingFull, events: 7 }];
        sample.contents.processes[0].waits = Waits { times: 2, waited_ns: 1_500 };
        sample.contents.processes[1].waits = Waits { times: 1, waited_ns: u64::MAX };
        let all = [ProcessIndex(0), ProcessIndex(1)];
        let model = Model::of(&sample, all, Settings::default()).expect("a sample has no errors");
        let summary = Summary::of(&sample.contents, &model);
        assert_eq!(summary.dropped_events, 7);
        assert_eq!((summary.buffer_waits, summary.buffer_waited_ns), (3, u64::MAX));
        assert_eq!((summary.losses[0].pid, summary.losses[0].reason.as_str()), (4250, "ring-full"));
        assert_eq!(summary.by_process.len(), 2);
    }
}
