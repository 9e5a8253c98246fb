//! What the heap would have been under other rules.

use schemars::JsonSchema;
use serde::Serialize;

use super::frames::CallStack;
use super::names::address;
use crate::model::Recorded;
use crate::os::server::Answer;
use crate::simulate::{Measured, Outcome, Parting, Requests, Settings};
use crate::trace::{Block, Contents, Entry, Event, ProcessIndex, Replay};

/// Who made a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// xalloc's heap over a simulated system: exact, and touches no memory.
    Simulator,
    /// The named allocator in a process of its own, which was served the recorded requests.
    Replay,
}

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct RunView {
    /// What was changed, as it was asked for; `baseline` for the rules of the recording.
    pub name: String,
    /// Who made it.
    pub engine: Engine,
    /// Most bytes that the heap held from the system at once (virtual): break, sub-heaps, chunks with mappings of their
    /// own.
    pub peak_footprint_bytes: u64,
    /// The same less the baseline's.
    pub peak_change_bytes: i64,
    /// When the peak was first reached, nanoseconds since the recording's start.
    pub peak_at_ns: Option<u64>,
    /// Mean of the footprint over the recorded time.
    pub mean_footprint_bytes: u64,
    /// Mean of the footprint after each request.
    pub mean_by_request_bytes: Option<u64>,
    /// Footprint after the last request.
    pub end_footprint_bytes: u64,
    /// The same less the baseline's.
    pub end_change_bytes: i64,
    /// Most resident bytes of the heap. Of the simulator: if the program writes to all of each block at once.
    pub peak_rss_bytes: Option<u64>,
    /// Resident bytes of the heap after the last request, likewise.
    pub end_rss_bytes: Option<u64>,
    /// Moves of the break.
    pub brk_calls: Option<u64>,
    /// Mappings made.
    pub mmap_calls: Option<u64>,
    /// Mappings given back.
    pub munmap_calls: Option<u64>,
    /// Mappings resized.
    pub mremap_calls: Option<u64>,
    /// Ranges discarded inside the heap.
    pub madvise_calls: Option<u64>,
    /// Bytes that are free and resident after the last request: in caches, bins and tops.
    pub free_bytes: Option<u64>,
    /// Of these, what `malloc_trim` would not give back even after every cache was flushed.
    pub unreleasable_bytes: Option<u64>,
    /// Share of these, the tops aside, that a request of 64 KiB cannot use, from 0 to 1.
    pub unusable_index_64k: Option<f64>,
    /// Requests that could not be served as recorded.
    pub refused_requests: u64,
    /// Page faults while requests were served; only where memory was really served.
    pub page_faults: Option<u64>,
    /// How long serving took, nanoseconds; only where memory was really served.
    pub duration_ns: Option<u64>,
}

/// The event at which the simulated heap parts from the recorded one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct PartingView {
    /// Number of the allocation in the process, from 0.
    pub allocation: u64,
    /// Number of its event in the process; `null` if it was not found again.
    pub seq: Option<u64>,
    /// When, nanoseconds since the recording's start.
    pub at_ns: Option<u64>,
    /// The size that was asked for.
    pub size_bytes: Option<u64>,
    /// The recorded address.
    pub recorded_addr: String,
    /// The simulated address as the recorded process would have it; `null` if it is not in the break.
    pub simulated_addr: Option<String>,
    /// Usable bytes beyond the request, recorded; 65,535 stands for all above.
    pub recorded_slack_bytes: u64,
    /// The same, simulated.
    pub simulated_slack_bytes: u64,
    /// Where the block was allocated.
    pub at: Option<CallStack>,
}

/// Whether the simulated heap, under the recording's own rules, is the recorded one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Fidelity {
    /// Blocks whose place and size were compared; 0 if the recorded heap was not xalloc's, or nobody asked it for one.
    pub compared_blocks: u64,
    /// Whether all of them are where the recording has them; `null` if none was compared.
    pub identical: Option<bool>,
    /// The first that is not.
    pub parting: Option<PartingView>,
}

/// The answer.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct WhatIf {
    /// Process id.
    pub pid: u32,
    /// Its command line.
    pub command: Vec<String>,
    /// The C library whose rules the baseline has.
    pub libc: String,
    /// Processors that the number of arenas depends on.
    pub processors: u64,
    /// Calls that were served.
    pub requests: u64,
    /// Of these, those that obtain a block.
    pub allocations: u64,
    /// Whether the baseline is the recorded heap.
    pub fidelity: Fidelity,
    /// The baseline first, then the runs in the order in which they were asked for.
    pub runs: Vec<RunView>,
    /// What the figures do not say.
    pub caveats: Vec<String>,
}

impl RunView {
    /// A run of the simulator.
    fn simulated(outcome: &Outcome, baseline: &Measured) -> RunView {
        let measured = &outcome.measured;
        RunView {
            name: outcome.name.clone(),
            engine: Engine::Simulator,
            peak_footprint_bytes: measured.peak_footprint_bytes,
            peak_change_bytes: change(measured.peak_footprint_bytes, baseline.peak_footprint_bytes),
            peak_at_ns: Some(measured.peak_at_ns),
            mean_footprint_bytes: measured.mean_footprint_bytes,
            mean_by_request_bytes: Some(measured.mean_by_request_bytes),
            end_footprint_bytes: measured.end_footprint_bytes,
            end_change_bytes: change(measured.end_footprint_bytes, baseline.end_footprint_bytes),
            peak_rss_bytes: Some(measured.peak_resident_bytes),
            end_rss_bytes: Some(measured.end_resident_bytes),
            brk_calls: Some(measured.calls.brk),
            mmap_calls: Some(measured.calls.mmap),
            munmap_calls: Some(measured.calls.munmap),
            mremap_calls: Some(measured.calls.mremap),
            madvise_calls: Some(measured.calls.madvise),
            free_bytes: Some(measured.free_bytes),
            unreleasable_bytes: Some(measured.unreleasable_bytes),
            unusable_index_64k: Some(measured.unusable_index_64k),
            refused_requests: measured.refused,
            page_faults: None,
            duration_ns: None,
        }
    }

    /// A run of a real allocator. The changes are to the simulated baseline.
    fn served(name: &str, answer: &Answer, baseline: &Measured) -> RunView {
        RunView {
            name: name.to_owned(),
            engine: Engine::Replay,
            peak_footprint_bytes: answer.peak_footprint_bytes,
            peak_change_bytes: change(answer.peak_footprint_bytes, baseline.peak_footprint_bytes),
            peak_at_ns: None,
            mean_footprint_bytes: answer.mean_footprint_bytes,
            mean_by_request_bytes: Some(answer.mean_by_request_bytes),
            end_footprint_bytes: answer.end_footprint_bytes,
            end_change_bytes: change(answer.end_footprint_bytes, baseline.end_footprint_bytes),
            peak_rss_bytes: Some(answer.peak_rss_bytes),
            end_rss_bytes: Some(answer.end_rss_bytes),
            brk_calls: None,
            mmap_calls: None,
            munmap_calls: None,
            mremap_calls: None,
            madvise_calls: None,
            free_bytes: None,
            unreleasable_bytes: None,
            unusable_index_64k: None,
            refused_requests: answer.refused,
            page_faults: Some(answer.page_faults),
            duration_ns: Some(answer.duration_ns),
        }
    }
}

fn change(to: u64, from: u64) -> i64 {
    to.wrapping_sub(from) as i64
}

impl WhatIf {
    /// Puts the outcomes together; the first is the baseline.
    ///
    /// # Errors
    /// Where the heaps part, the trace is read once more for that event, and may turn out to be unreadable.
    pub fn of<R: Recorded>(
        recorded: &R,
        process: ProcessIndex,
        requests: &Requests,
        settings: &Settings,
        outcomes: &[Outcome],
        served: &[(String, Answer)],
    ) -> Result<WhatIf, R::Error> {
        let contents = recorded.contents();
        let found = contents.processes.get(process.0 as usize);
        let baseline = outcomes.first().map(|outcome| outcome.measured.clone()).unwrap_or_default();
        let compared_blocks = outcomes.first().map_or(0, |outcome| outcome.compared);
        let parting = match outcomes.first().and_then(|outcome| outcome.parting) {
            Some(parting) => Some(PartingView::of(recorded, process, &parting)?),
            None => None,
        };
        let is_compared = compared_blocks > 0 || parting.is_some();
        Ok(WhatIf {
            pid: found.map_or(0, |found| found.pid),
            command: found.map(|found| found.command.clone()).unwrap_or_default(),
            libc: contents.recording.libc.clone(),
            processors: settings.processors,
            requests: requests.served(),
            allocations: requests.placed.len() as u64,
            fidelity: Fidelity { compared_blocks, identical: is_compared.then_some(parting.is_none()), parting },
            runs: outcomes
                .iter()
                .map(|outcome| RunView::simulated(outcome, &baseline))
                .chain(served.iter().map(|(name, answer)| RunView::served(name, answer, &baseline)))
                .collect(),
            caveats: caveats(contents, requests, !served.is_empty()),
        })
    }
}

/// What the reader of the figures has to know.
fn caveats(contents: &Contents, requests: &Requests, has_served: bool) -> Vec<String> {
    let mut caveats = vec![
        "the requests are those that were recorded: a program that reacts to addresses, times or usable sizes would \
         have made others"
            .to_owned(),
    ];
    if xalloc_core::heap::Policy::for_libc(&contents.recording.libc).is_none() {
        caveats.push(format!(
            "glibc {} has no profile: the rules of the newest stand in if it is newer, those of 2.36 if it is older",
            contents.recording.libc
        ));
    }
    if contents.recording.processors == 0 {
        caveats.push("the trace does not say how many processors the machine had: 1 is assumed".to_owned());
    }
    let mut counted = |count: u64, what: &str| {
        if count > 0 {
            caveats.push(format!("{count} {what}"));
        }
    };
    counted(requests.lost, "events were lost by the recording and are not served");
    counted(requests.failed, "calls for much memory failed in the recording and are not served");
    counted(requests.unknown_frees, "frees of memory from before the recording are not served");
    if has_served {
        caveats.push(
            "a served run's footprint is the private writable memory of its process, looked at 2,000 times (of an \
             allocator that reserves it when it is loaded: what of it is resident); its peak of \
             resident memory is the kernel's; its mean is over the recorded time, as of the others"
                .to_owned(),
        );
        caveats.push(
            "served threads take turns: time says nothing of how they would run beside each other, and allocators with \
             threads of their own do part of their work in them"
                .to_owned(),
        );
    }
    if requests.threads > 1 {
        caveats.push(
            "threads are served in the recorded order: how they would have met for locks under other rules is not known"
                .to_owned(),
        );
    }
    caveats
}

/// Finds an allocation by its number.
struct Finder {
    left: u64,
    found: Option<(u64, u64, Block)>,
}

impl Replay for Finder {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    fn entry(&mut self, entry: Entry<'_>) {
        let Event::Alloc { block, .. } = entry.event else { return };
        if self.found.is_none() && self.left == 0 {
            self.found = Some((entry.seq, entry.at_ns, *block));
        }
        self.left = self.left.saturating_sub(1);
    }
}

impl PartingView {
    fn of<R: Recorded>(recorded: &R, process: ProcessIndex, parting: &Parting) -> Result<PartingView, R::Error> {
        let mut finder = Finder { left: parting.allocation, found: None };
        recorded.replay(process, &mut finder)?;
        let found = finder.found;
        Ok(PartingView {
            allocation: parting.allocation,
            seq: found.map(|(seq, _, _)| seq),
            at_ns: found.map(|(_, at_ns, _)| at_ns),
            size_bytes: found.map(|(_, _, block)| block.size_bytes),
            recorded_addr: address(parting.recorded),
            simulated_addr: parting.simulated.map(address),
            recorded_slack_bytes: parting.recorded_slack_bytes.into(),
            simulated_slack_bytes: parting.simulated_slack_bytes,
            at: found.map(|(_, _, block)| CallStack::of(recorded.contents(), block.stack, block.call)),
        })
    }
}
