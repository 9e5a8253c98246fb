//! Isolated deaths: whose blocks outlived what was born around them.
//!
//! A block pins its page because its neighbours are gone. The neighbours that matter are those that were born with it: at
//! about the same time, on the same page. If nearly all of them are dead, the block has another lifetime than its
//! surroundings, and a pool of its own would keep such blocks together.
//!
//! # How they are counted
//! Which page will be pinned, and by whom, is known only at the end, but how many were born around a block is known soon
//! after its own birth: births pass through a window of [`TOGETHER`] events, and a page's births within it are counted. A
//! block meets those before it when it enters and those after it when it leaves. At the end the neighbours that live are
//! counted among the blocks that do; the others are dead.
//!
//! # Why not a pass over the events for the pinned pages
//! It finds the same and costs a third reading of the trace.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use xalloc_core::units::PAGE_BYTES;

use crate::model::layout::{Held, Layout, RangeKind};
use crate::trace::StackIndex;

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

/// A birth that is no more than [`TOGETHER`] events ago.
#[derive(Clone, Copy, Debug)]
struct Birth {
    seq: u64,
    page: u64,
    slot: u32,
    /// Births on the page that were in the window before it.
    before: u32,
}

/// How many were born around each block.
#[derive(Default, Debug)]
pub(super) struct Births {
    window: VecDeque<Birth>,
    /// Births in the window by page.
    on_page: FxHashMap<u64, u32>,
    /// By slot: the birth of its last block that has left the window, and the number of its neighbours.
    around: Vec<(u64, u32)>,
}

impl Births {
    /// The event of that number made a block.
    #[inline]
    pub(super) fn enter(&mut self, seq: u64, slot: u32, addr: u64) {
        while let Some(&birth) = self.window.front()
            && birth.seq + TOGETHER < seq
        {
            self.window.pop_front();
            self.leave(birth);
        }
        let page = addr / PAGE_BYTES;
        let count = self.on_page.entry(page).or_default();
        self.window.push_back(Birth { seq, page, slot, before: *count });
        *count += 1;
    }

    fn leave(&mut self, birth: Birth) {
        let Some(count) = self.on_page.get_mut(&birth.page) else { return };
        // Who was there before it has left already: only itself and those after it are in the window.
        *count -= 1;
        let after = *count;
        if after == 0 {
            self.on_page.remove(&birth.page);
        }
        let at = birth.slot as usize;
        if at >= self.around.len() {
            self.around.resize(at + 1, (u64::MAX, 0));
        }
        self.around[at] = (birth.seq, birth.before + after);
    }

    /// By site, what was born around the blocks that live and pin their pages.
    pub(super) fn neighbours(&self, layout: &Layout) -> FxHashMap<StackIndex, Neighbours> {
        let mapped: Vec<_> = layout.ranges().filter(|range| range.kind == RangeKind::Mapped).collect();
        let has_own_mapping = |held: &Held| {
            let at = mapped.partition_point(|range| range.start <= held.addr);
            at.checked_sub(1).and_then(|at| mapped.get(at)).is_some_and(|range| held.addr < range.end)
        };
        let mut young: FxHashMap<u64, u64> = FxHashMap::default();
        let mut later: FxHashMap<u64, u64> = FxHashMap::default();
        for birth in self.window.iter().rev() {
            let after = later.entry(birth.page).or_default();
            young.insert(birth.seq, u64::from(birth.before) + *after);
            *after += 1;
        }
        // By page and birth.
        let mut living: Vec<(u64, u64, &Held, u64)> = Vec::new();
        for (slot, held) in layout.blocks_by_slot() {
            let around = self.around.get(slot as usize).filter(|(seq, _)| *seq == held.seq);
            let born = around.map(|&(_, count)| u64::from(count)).or_else(|| young.get(&held.seq).copied());
            if let Some(born) = born
                && !has_own_mapping(held)
            {
                living.push((held.addr / PAGE_BYTES, held.seq, held, born));
            }
        }
        living.sort_unstable_by_key(|&(page, seq, ..)| (page, seq));
        let mut by_site: FxHashMap<StackIndex, Neighbours> = FxHashMap::default();
        for (at, &(page, seq, held, born)) in living.iter().enumerate() {
            if held.size_bytes >= PAGE_BYTES {
                continue;
            }
            let is_neighbour = |other: &&(u64, u64, &Held, u64)| other.0 == page && other.1.abs_diff(seq) <= TOGETHER;
            let before = living[..at].iter().rev().take_while(is_neighbour).count();
            let after = living[at + 1..].iter().take_while(is_neighbour).count();
            let site = by_site.entry(held.stack).or_default();
            site.all += born;
            site.dead += born.saturating_sub((before + after) as u64);
        }
        by_site
    }
}
