//! The top staircase: which live chunks keep the break, or the end of a sub-heap, where it is.
//!
//! The top can only give back what lies above the highest live chunk. Chunks that follow one another without room for a
//! page between them are one step: freeing one of them alone would bring nothing.

use xalloc_core::units::PAGE_BYTES;

use crate::model::layout::{Layout, Place, RangeKind, Span};
use crate::trace::StackIndex;

/// Steps that are kept of a range, from the top down.
const STEPS: usize = 12;

/// Live chunks close together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cluster {
    end: u64,
    chunks: u64,
    live_bytes: u64,
    /// The chunk at its upper end: slot of its block, if it is one.
    last: Option<u32>,
    /// The one call stack of its blocks, unless there are several.
    site: Option<StackIndex>,
    is_mixed: bool,
    has_own: bool,
}

/// A step of a staircase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// The arena.
    pub(super) arena: u16,
    /// Slot of the uppermost block.
    pub(super) slot: Option<u32>,
    /// Live chunks.
    pub(super) chunks: u64,
    /// Bytes of these.
    pub(super) live_bytes: u64,
    /// Whether several call stacks have blocks here.
    pub(super) is_mixed: bool,
    /// Bytes that the end could go down if this step and those above it were gone.
    pub(super) gain_bytes: u64,
    /// What this step adds to that.
    pub(super) step_bytes: u64,
}

/// The staircases of all ranges that end with a top.
pub(super) fn steps(layout: &Layout) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut last: Option<Span> = None;
    layout.spans(|span| {
        if span.range.kind == RangeKind::Mapped {
            return;
        }
        if last.is_some_and(|last: Span| last.range.start != span.range.start) {
            finish(&mut clusters, last, layout.top_pad_bytes(), &mut steps);
        }
        last = Some(span);
        if span.place.is_free() || span.place == Place::Header {
            return;
        }
        let slot = if let Place::Live(slot) = span.place { Some(slot) } else { None };
        let site = slot.and_then(|slot| layout.block(slot)).map(|held| held.stack);
        match clusters.last_mut().filter(|cluster| span.addr.saturating_sub(cluster.end) < PAGE_BYTES) {
            Some(cluster) => {
                cluster.end = span.end();
                cluster.chunks += 1;
                cluster.live_bytes += span.size_bytes;
                cluster.last = slot.or(cluster.last);
                cluster.is_mixed |= site.is_some() && cluster.site.is_some() && cluster.site != site;
                cluster.site = cluster.site.or(site);
                cluster.has_own |= slot.is_none();
            }
            None => clusters.push(Cluster {
                end: span.end(),
                chunks: 1,
                live_bytes: span.size_bytes,
                last: slot,
                site,
                is_mixed: false,
                has_own: slot.is_none(),
            }),
        }
    });
    finish(&mut clusters, last, layout.top_pad_bytes(), &mut steps);
    steps.sort_by_key(|step| std::cmp::Reverse(step.step_bytes));
    steps
}

fn finish(clusters: &mut Vec<Cluster>, last: Option<Span>, pad_bytes: u64, steps: &mut Vec<Step>) {
    let clusters = std::mem::take(clusters);
    let Some(Span { range, place: Place::Top, .. }) = last else { return };
    let gain = |below: Option<&Cluster>| {
        let to = below.map_or(range.first_chunk(), |cluster| cluster.end).next_multiple_of(PAGE_BYTES);
        range.end.saturating_sub(to).saturating_sub(pad_bytes)
    };
    let mut before = gain(clusters.last());
    for (nth, cluster) in clusters.iter().enumerate().rev().take(STEPS) {
        // The heap's own chunks never go; below them nothing is to be had.
        if cluster.has_own {
            break;
        }
        let gain_bytes = gain(nth.checked_sub(1).and_then(|below| clusters.get(below)));
        let step_bytes = gain_bytes - before;
        before = gain_bytes;
        if step_bytes >= PAGE_BYTES {
            let Cluster { chunks, live_bytes, last, is_mixed, .. } = *cluster;
            steps.push(Step { arena: range.arena, slot: last, chunks, live_bytes, is_mixed, gain_bytes, step_bytes });
        }
    }
}
