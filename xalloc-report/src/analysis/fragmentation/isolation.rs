//! Isolated deaths: whose blocks outlived what was born around them.
//!
//! A block pins its page because its neighbours are gone. The neighbours that matter are those that were born with it: at
//! about the same time, on the same page. If nearly all of them are dead, the block has another lifetime than its
//! surroundings, and a pool of its own would keep such blocks together.
//!
//! # Why another pass
//! Who was born on a page is known when the events are read, which pages are pinned only afterwards. Keeping every birth of
//! every page would grow with the events; a pass over the events that looks at pinned pages alone costs as much as reading
//! them.

use rustc_hash::{FxHashMap, FxHashSet};

use super::pages::PAGE;
use crate::model::layout::{Layout, RangeKind};
use crate::trace::{Block, Entry, Event, Replay, StackIndex};

/// Blocks are born together if no more events than this lie between them.
const TOGETHER: u64 = 256;

/// What was born around the blocks of one site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Neighbours {
    dead: u64,
    all: u64,
}

impl Neighbours {
    /// The share of them that is dead.
    pub(super) fn dead_share(&self) -> Option<f64> {
        (self.all > 0).then(|| self.dead as f64 / self.all as f64)
    }
}

/// The pinned pages at one moment, and the pass over the events before it.
#[derive(Default)]
pub(super) struct Isolation {
    /// The blocks that live on each page that they do not fill: number of the event that told them, and their site.
    pinners: FxHashMap<u64, Vec<(u64, StackIndex)>>,
    /// Births of blocks that live.
    living: FxHashSet<u64>,
    /// Events before the moment.
    until: u64,
    by_site: FxHashMap<StackIndex, Neighbours>,
}

impl Isolation {
    /// Of the heap as it is laid out.
    pub(super) fn of(layout: &Layout) -> Isolation {
        let mut isolation = Isolation { until: layout.seq(), ..Isolation::default() };
        let mapped: Vec<_> = layout.ranges().filter(|range| range.kind == RangeKind::Mapped).collect();
        for held in layout.blocks() {
            let at = mapped.partition_point(|range| range.start <= held.addr);
            if at.checked_sub(1).and_then(|at| mapped.get(at)).is_some_and(|range| held.addr < range.end) {
                continue;
            }
            isolation.living.insert(held.seq);
            if held.size_bytes < PAGE {
                isolation.pinners.entry(held.addr / PAGE).or_default().push((held.seq, held.stack));
            }
        }
        isolation
    }

    /// Whether there is anything to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.pinners.is_empty()
    }

    /// What was found, by site.
    pub(super) fn finish(self) -> FxHashMap<StackIndex, Neighbours> {
        self.by_site
    }
}

impl Replay for Isolation {
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    #[inline]
    fn entry(&mut self, entry: Entry<'_>) {
        let Event::Alloc { block, .. } = entry.event else { return };
        if entry.seq >= self.until {
            return;
        }
        let Some(pinners) = self.pinners.get(&(block.addr / PAGE)) else { return };
        let is_dead = !self.living.contains(&entry.seq);
        for &(born, site) in pinners {
            if born != entry.seq && born.abs_diff(entry.seq) <= TOGETHER {
                let neighbours = self.by_site.entry(site).or_default();
                neighbours.all += 1;
                neighbours.dead += u64::from(is_dead);
            }
        }
    }
}
