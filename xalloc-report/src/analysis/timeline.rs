//! Live bytes, heap bytes and allocation rate over time.

use schemars::JsonSchema;
use serde::Serialize;

use super::sampling::SamplingView;
use crate::model::Model;

/// One span of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Moment {
    /// Its beginning, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Live requested bytes at its end.
    pub live_bytes: u64,
    /// Most live bytes within it.
    pub live_max_bytes: u64,
    /// Bytes that the heap holds from the system at its end; `null` where that is not known.
    pub heap_bytes: Option<u64>,
    /// Most such bytes within it.
    pub heap_max_bytes: Option<u64>,
    /// Allocations in it.
    pub allocations: u64,
    /// Requested bytes of these.
    pub allocated_bytes: u64,
}

/// A mark that a program set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct MarkView {
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Its name.
    pub name: String,
}

/// The timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct TimelineView {
    /// Length of each span, nanoseconds.
    pub bucket_ns: u64,
    /// How the figures were estimated, where only some allocations were recorded; else `null`.
    pub sampling: Option<SamplingView>,
    /// Largest live bytes; of several processes the sum of each one's peak.
    pub peak_live_bytes: u64,
    /// Processes in the sums.
    pub processes: u32,
    /// Of these, processes whose heap bytes are not known: another allocator than xalloc's core served them, they
    /// began as a fork and have segments from before it, or only some of their allocations were recorded.
    pub heap_unknown_processes: u32,
    /// Spans from the recording's start to the last event, each beginning where the one before ends.
    pub buckets: Vec<Moment>,
    /// Marks that the programs set, by time; at most the first 10,000.
    pub marks: Vec<MarkView>,
    /// How many marks there are in all.
    pub marks_in_all: u64,
}

impl TimelineView {
    pub(super) fn of(model: &Model, buckets: usize) -> TimelineView {
        let timeline = model.sum.timeline.at_most(buckets);
        let known = model.sum.heap_known();
        let moment = |(number, bucket): (usize, &crate::model::Bucket)| Moment {
            at_ns: number as u64 * timeline.width_ns(),
            live_bytes: bucket.live_bytes,
            live_max_bytes: bucket.live_max_bytes,
            heap_bytes: known.then_some(bucket.heap_bytes),
            heap_max_bytes: known.then_some(bucket.heap_max_bytes),
            allocations: bucket.allocations,
            allocated_bytes: bucket.allocated_bytes,
        };
        TimelineView {
            bucket_ns: timeline.width_ns(),
            sampling: SamplingView::of(model),
            peak_live_bytes: model.sum.peak.bytes,
            processes: model.sum.processes,
            heap_unknown_processes: model.sum.heap_unknown_processes,
            buckets: timeline.buckets().iter().enumerate().map(moment).collect(),
            marks: model
                .sum
                .marks
                .first
                .iter()
                .map(|mark| MarkView { at_ns: mark.at_ns, name: mark.name.clone() })
                .collect(),
            marks_in_all: model.sum.marks.count,
        }
    }
}
