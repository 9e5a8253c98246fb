//! Page pins: which call sites keep free memory from going back.
//!
//! A page goes back when nothing on it lives. The game "the page is released if and only if all its sites are gone" has
//! a Shapley value: each site answers for an equal share of what the page pins. The shares add up to what all pages
//! pin, so they can be drawn; the marginal gain, of pages that are one site's alone, is what a fix is sure to bring.

use rustc_hash::FxHashMap;
use xalloc_core::units::PAGE_BYTES;

use super::pages::{Page, Residency, Visit, resident_bytes, visit};
use crate::model::layout::{Layout, Span};
use crate::trace::StackIndex;

/// Sites of a page that the search for the best set of sites looks at: pages with more are nobody's quick win.
const SET_SITES: usize = 6;
/// Sites that the best set names.
const COVER: usize = 4;

/// What one site pins.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Pin {
    /// Pages that hold a live byte of it.
    pub(super) pages: u64,
    /// Its share of the bytes that these pages pin.
    pub(super) share_bytes: u64,
    /// Bytes of resident pages that nobody else has live bytes on.
    pub(super) marginal_bytes: u64,
}

/// The pins of a heap.
#[derive(Default, Debug)]
pub(super) struct Pins {
    pub(super) by_site: FxHashMap<StackIndex, Pin>,
    /// Free bytes on resident pages that hold something live.
    pub(super) pinned_bytes: u64,
    /// Resident bytes of the arenas' live chunks and the heap's own.
    pub(super) used_bytes: u64,
    /// Resident pages that hold something live.
    pub(super) pages: u64,
    sets: FxHashMap<Vec<StackIndex>, u64>,
}

struct Walk<'r, R> {
    pins: Pins,
    residency: &'r R,
}

impl<R: Residency> Visit for Walk<'_, R> {
    fn page(&mut self, page: &Page) {
        if !self.residency.is_resident(page.addr) {
            return;
        }
        let pins = &mut self.pins;
        pins.pages += 1;
        pins.used_bytes += (page.live_bytes + page.metadata_bytes).min(PAGE_BYTES);
        let sites = page.sites.len() as u64;
        if sites == 0 {
            return;
        }
        let pinned_bytes = page.pinned_bytes();
        pins.pinned_bytes += pinned_bytes;
        let is_heaps_own = page.metadata_bytes > 0;
        // What does not divide goes to the first sites, byte by byte, so that the shares add up.
        let (each, left) = (pinned_bytes / sites, pinned_bytes % sites);
        for (nth, site) in (0..).zip(&page.sites) {
            let pin = pins.by_site.entry(*site).or_default();
            pin.pages += 1;
            pin.share_bytes += each + u64::from(nth < left);
            if sites == 1 && !is_heaps_own {
                pin.marginal_bytes += PAGE_BYTES;
            }
        }
        if (2..=SET_SITES).contains(&page.sites.len()) && !is_heaps_own {
            let mut set = page.sites.clone();
            set.sort_unstable();
            *pins.sets.entry(set).or_default() += PAGE_BYTES;
        }
    }

    fn filled(&mut self, from: u64, to: u64, site: StackIndex) {
        let bytes = resident_bytes(self.residency, from, to);
        self.pins.pages += bytes / PAGE_BYTES;
        self.pins.used_bytes += bytes;
        let pin = self.pins.by_site.entry(site).or_default();
        pin.pages += bytes / PAGE_BYTES;
        pin.marginal_bytes += bytes;
    }
}

impl Pins {
    /// The pins of the heap as it is laid out.
    pub(super) fn of(layout: &Layout, residency: &impl Residency) -> Pins {
        Pins::and_spans(layout, residency, |_| ())
    }

    /// The same, and tells `also` every span of the heap in the same walk.
    pub(super) fn and_spans(layout: &Layout, residency: &impl Residency, also: impl FnMut(&Span)) -> Pins {
        let mut walk = Walk { pins: Pins::default(), residency };
        visit(layout, &mut walk, also);
        walk.pins
    }

    /// The sites that together release most, chosen one after the other: each with the bytes that come free with it and
    /// those before it.
    pub(super) fn cover(&self) -> Vec<(StackIndex, u64)> {
        let mut chosen: Vec<(StackIndex, u64)> = Vec::new();
        let mut released_bytes = 0;
        while chosen.len() < COVER {
            let mut gains: FxHashMap<StackIndex, u64> = FxHashMap::default();
            for (&site, pin) in &self.by_site {
                if pin.marginal_bytes > 0 {
                    gains.insert(site, pin.marginal_bytes);
                }
            }
            for (set, bytes) in &self.sets {
                let mut missing = set.iter().filter(|site| chosen.iter().all(|(known, _)| known != *site));
                if let (Some(&last), None) = (missing.next(), missing.next()) {
                    *gains.entry(last).or_default() += bytes;
                }
            }
            let share = |site: &StackIndex| self.by_site.get(site).map_or(0, |pin| pin.share_bytes);
            let best = gains
                .into_iter()
                .filter(|(site, _)| chosen.iter().all(|(known, _)| known != site))
                .max_by_key(|&(site, gain)| (gain, share(&site), std::cmp::Reverse(site)));
            let Some((site, gain)) = best else { break };
            released_bytes += gain;
            chosen.push((site, released_bytes));
        }
        chosen
    }
}
