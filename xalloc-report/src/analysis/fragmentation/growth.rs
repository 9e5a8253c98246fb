//! External fragmentation where it cost memory: each growth of the heap although enough was free.
//!
//! When an arena asks the system for memory, what it was asked for and what lies free in its bins and in caches are
//! known. If the free bytes would have been enough for all that the heap grew by, the growth is the exact instance of
//! external fragmentation: the bytes were there, and not in one piece. Less than that is no finding: a growth takes
//! 128 KiB of padding, so every healthy heap has some cached chunk when it grows.

use rustc_hash::FxHashMap;
use xalloc_core::units::PAGE_BYTES;
use xalloc_core::wire::{GrowthRule, HeapEvent};

use crate::model::layout::{Layout, Place, RangeKind};
use crate::model::{Moved, Segments};
use crate::trace::{Entry, Event, StackIndex, ThreadIndex};

/// Spans that may be walked in all to find what lies between the largest free chunks.
const WALKED_SPANS: u64 = 8 << 20;

/// Growths of one requester by one rule.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Growth {
    /// How often.
    pub(super) events: u64,
    /// Bytes by which the heap grew.
    pub(super) grown_bytes: u64,
    /// The largest chunk that was asked for.
    pub(super) needed_bytes: u64,
    /// What was free then.
    pub(super) free_bytes: u64,
    /// The largest free chunk then, where it was looked for.
    pub(super) largest_free_bytes: Option<u64>,
    /// What lay between the two largest free chunks then: the call stack with most bytes there.
    pub(super) separator: Option<StackIndex>,
}

/// A growth whose request is not told yet.
struct Pending {
    grown_bytes: u64,
    free_bytes: u64,
    rule: GrowthRule,
    stack: StackIndex,
}

/// The growths of a process.
#[derive(Default)]
pub(super) struct Growths {
    pending: FxHashMap<ThreadIndex, Pending>,
    pub(super) by_site: FxHashMap<(StackIndex, GrowthRule), Growth>,
    pub(super) growths: u64,
    walked_spans: u64,
    segments: Segments,
}

impl Growths {
    /// Of a process that begins with this heap.
    pub(super) fn beginning_with(layout: &Layout) -> Growths {
        Growths { segments: Segments::of(layout), ..Growths::default() }
    }

    /// Takes an entry before the layout does.
    pub(super) fn before(&mut self, layout: &Layout, entry: &Entry<'_>) {
        let Event::Heap { arena, step, .. } = entry.event else { return };
        if let HeapEvent::Split { front_bytes, from_top: true, .. } = step {
            self.settle(layout, entry.thread, front_bytes);
            return;
        }
        let Some(Moved { grown_bytes, rule: Some(rule), .. }) = self.segments.apply(step) else { return };
        // An arena's first memory is no growth.
        if arena.0 > 0 && layout.top(arena.0).is_none() {
            return;
        }
        self.growths += 1;
        let top_bytes = layout.top(0).map_or(0, |(top, end)| end - top);
        let free_bytes = layout.binned_bytes() + layout.cached_bytes() + top_bytes;
        self.pending.insert(entry.thread, Pending { grown_bytes, free_bytes, rule, stack: entry.stack });
    }

    fn settle(&mut self, layout: &Layout, thread: ThreadIndex, needed_bytes: u64) {
        let Some(Pending { grown_bytes, free_bytes, rule, stack }) = self.pending.remove(&thread) else { return };
        if free_bytes < needed_bytes.max(grown_bytes) {
            return;
        }
        let growth = self.by_site.entry((stack, rule)).or_default();
        growth.events += 1;
        growth.grown_bytes += grown_bytes;
        if needed_bytes >= growth.needed_bytes {
            growth.needed_bytes = needed_bytes;
            growth.free_bytes = free_bytes;
            if self.walked_spans < WALKED_SPANS {
                let between = Between::of(layout);
                self.walked_spans += between.spans;
                growth.largest_free_bytes = Some(between.largest_bytes);
                growth.separator = between.separator;
            }
        }
    }
}

/// The largest free chunk of the arenas, and who lies between it and the second largest.
struct Between {
    spans: u64,
    largest_bytes: u64,
    separator: Option<StackIndex>,
}

impl Between {
    fn of(layout: &Layout) -> Between {
        let mut spans = 0;
        let mut largest: [(u64, u64); 2] = [(0, 0); 2];
        layout.spans(|span| {
            spans += 1;
            if let (Place::Binned(_), RangeKind::Main | RangeKind::SubHeap) = (span.place, span.range.kind)
                && span.size_bytes > largest[1].0
            {
                largest[1] = (span.size_bytes, span.addr);
                largest.sort_unstable_by(|a, b| b.cmp(a));
            }
        });
        let (from, to) = (largest[0].1.min(largest[1].1), largest[0].1.max(largest[1].1));
        let mut sites: FxHashMap<StackIndex, u64> = FxHashMap::default();
        if largest[1].0 > 0 && to - from < (PAGE_BYTES << 12) {
            layout.spans(|span| {
                if let Place::Live(slot) = span.place
                    && (from..to).contains(&span.addr)
                    && let Some(held) = layout.block(slot)
                {
                    *sites.entry(held.stack).or_default() += span.size_bytes;
                }
            });
            spans *= 2;
        }
        let most = sites.into_iter().max_by_key(|&(site, bytes)| (bytes, std::cmp::Reverse(site)));
        Between { spans, largest_bytes: largest[0].0, separator: most.map(|(site, _)| site) }
    }
}
