//! What of a report needs the layout of its moment.

use rustc_hash::FxHashMap;

use super::free::{FreeView, Recent};
use super::isolation::{Births, Neighbours};
use super::ladder::Ladder;
use super::padding::{self, PaddingView};
use super::pages::Residency;
use super::pins::Pins;
use super::rss::Measured;
use super::sites::{self, StepView};
use super::views::{ArenaView, LadderView};
use crate::model::layout::{Books, Imbalance, Layout, RangeKind, Span};
use crate::trace::{Contents, StackIndex};

/// Everything of a report that needs the layout at its moment.
pub(super) struct Picture {
    pub(super) seq: u64,
    pub(super) at_ns: u64,
    pub(super) books: Books,
    pub(super) arenas: Vec<ArenaView>,
    pub(super) free: FreeView,
    pub(super) ladder: LadderView,
    pub(super) top_pad_bytes: u64,
    pub(super) trim_threshold_bytes: u64,
    pub(super) pins: Pins,
    pub(super) steps: Vec<StepView>,
    pub(super) blocks: u64,
    pub(super) requested: u64,
    pub(super) headers: u64,
    pub(super) padding: (Vec<PaddingView>, u64),
    pub(super) live: sites::LiveSites,
    pub(super) isolated: FxHashMap<StackIndex, Neighbours>,
}

/// Pages by the model of the layout.
pub(super) struct Modelled<'l>(pub(super) &'l Layout);

impl Residency for Modelled<'_> {
    fn is_resident(&self, addr: u64) -> bool {
        // Where the steps are not known, nothing is said of pages but that blocks lie there.
        !self.0.knows_steps() || self.0.is_touched(addr)
    }
}

impl Picture {
    pub(super) fn of(
        contents: &Contents,
        layout: &Layout,
        measured: Option<&Measured>,
        recent: &Recent,
        births: &Births,
    ) -> Result<Picture, Imbalance> {
        match measured {
            Some(measured) => Picture::with(contents, layout, measured, recent, births),
            None => Picture::with(contents, layout, &Modelled(layout), recent, births),
        }
    }

    fn with(
        contents: &Contents,
        layout: &Layout,
        residency: &impl Residency,
        recent: &Recent,
        births: &Births,
    ) -> Result<Picture, Imbalance> {
        let books = layout.books()?;
        let pins = Pins::of(layout, residency);
        let arenas = arenas(layout);
        let ladder = Ladder::of(layout, residency, pins.used_bytes);
        let padding = padding::of(contents, layout);
        let requested = layout.requested_bytes();
        Ok(Picture {
            seq: layout.seq(),
            at_ns: layout.at_ns(),
            books,
            arenas,
            free: FreeView::of(contents, layout, recent),
            ladder: LadderView {
                systrim: ladder.systrim,
                malloc_trim: ladder.malloc_trim,
                after_flush: ladder.after_flush,
                ideal: ladder.ideal,
                resident: ladder.resident,
                unreleasable: ladder.resident.saturating_sub(pins.used_bytes).saturating_sub(ladder.after_flush),
            },
            top_pad_bytes: layout.top_pad_bytes(),
            trim_threshold_bytes: layout.trim_threshold_bytes(),
            pins,
            steps: sites::steps(contents, layout),
            blocks: layout.blocks().count() as u64,
            requested,
            headers: books.live_bytes.saturating_sub(requested).saturating_sub(padding.1),
            padding,
            live: sites::LiveSites::of(layout),
            isolated: births.neighbours(layout),
        })
    }
}

fn arenas(layout: &Layout) -> Vec<ArenaView> {
    let mut arenas: std::collections::BTreeMap<Option<u16>, Books> = std::collections::BTreeMap::new();
    layout.spans(|Span { range, place, size_bytes, .. }| {
        let arena = (range.kind != RangeKind::Mapped).then_some(range.arena);
        arenas.entry(arena).or_default().enter(place, size_bytes);
    });
    let mut views: Vec<_> = arenas.into_iter().map(|(arena, books)| ArenaView { arena, books: books.into() }).collect();
    views.sort_by_key(|view| view.arena.map_or(u32::MAX, u32::from));
    views
}
