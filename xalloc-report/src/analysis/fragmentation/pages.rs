//! The heap page by page: what of each page is live, and whose.

use xalloc_core::units::PAGE_BYTES;

use crate::model::layout::{Layout, Place, RangeKind, Span};
use crate::trace::StackIndex;

/// Which pages of the heap the kernel keeps.
pub(crate) trait Residency {
    /// Whether the page at `addr`, a multiple of the page size, is resident.
    fn is_resident(&self, addr: u64) -> bool;
}

/// Bytes of whole resident pages within `[from, to)`.
pub(super) fn resident_bytes(residency: &impl Residency, from: u64, to: u64) -> u64 {
    let (mut page, end) = (from.next_multiple_of(PAGE_BYTES), to / PAGE_BYTES * PAGE_BYTES);
    let mut bytes = 0;
    while page < end {
        bytes += if residency.is_resident(page) { PAGE_BYTES } else { 0 };
        page += PAGE_BYTES;
    }
    bytes
}

/// What lies on one page.
#[derive(Clone, Default, Debug)]
pub(super) struct Page {
    pub(super) addr: u64,
    /// Bytes of chunks that the program has.
    pub(super) live_bytes: u64,
    /// Bytes of the heap's own.
    pub(super) metadata_bytes: u64,
    /// The call stacks of the live chunks; each once.
    pub(super) sites: Vec<StackIndex>,
}

impl Page {
    /// Bytes that are free and stay because the page has something live on it.
    pub(super) fn pinned_bytes(&self) -> u64 {
        PAGE_BYTES.saturating_sub(self.live_bytes + self.metadata_bytes)
    }

    fn is_empty(&self) -> bool {
        self.live_bytes + self.metadata_bytes == 0
    }
}

/// What is told of the heap in order of address.
pub(super) trait Visit {
    /// A page that holds something live or the heap's own.
    fn page(&mut self, page: &Page);
    /// Whole pages of one live chunk.
    fn filled(&mut self, from: u64, to: u64, site: StackIndex);
}

/// Goes through the pages of the arenas, and tells `also` the spans on the way. Where the inside of the heap is not seen,
/// its blocks are all that is known, and there are no spans.
pub(super) fn visit(layout: &Layout, visit: &mut impl Visit, also: impl FnMut(&Span)) {
    if layout.knows_steps() {
        visit_spans(layout, visit, also);
    } else {
        visit_blocks(layout, visit);
    }
}

/// A page that is being filled, and what is told of the full ones.
struct Filler<'v, V> {
    page: Page,
    visit: &'v mut V,
}

impl<V: Visit> Filler<'_, V> {
    /// Something lies in `[from, to)`: a chunk of a call stack, or what is the heap's own.
    fn fill(&mut self, from: u64, to: u64, site: Option<StackIndex>) {
        let mut at = from;
        while at < to {
            let base = at / PAGE_BYTES * PAGE_BYTES;
            let whole_end = to / PAGE_BYTES * PAGE_BYTES;
            if let Some(site) = site
                && at == base
                && whole_end > at
            {
                self.visit.filled(at, whole_end, site);
                at = whole_end;
                continue;
            }
            if base != self.page.addr {
                self.end_page();
                self.page.addr = base;
            }
            let bytes = (base + PAGE_BYTES).min(to) - at;
            match site {
                Some(site) => {
                    self.page.live_bytes += bytes;
                    if !self.page.sites.contains(&site) {
                        self.page.sites.push(site);
                    }
                }
                None => self.page.metadata_bytes += bytes,
            }
            at += bytes;
        }
    }

    fn end_page(&mut self) {
        if !self.page.is_empty() {
            self.visit.page(&self.page);
        }
        self.page.live_bytes = 0;
        self.page.metadata_bytes = 0;
        self.page.sites.clear();
    }
}

fn visit_blocks(layout: &Layout, visit: &mut impl Visit) {
    let mut blocks: Vec<_> = layout.blocks().collect();
    blocks.sort_unstable_by_key(|held| held.addr);
    let mut filler = Filler { page: Page::default(), visit };
    for held in blocks {
        let end = held.addr + held.size_bytes + u64::from(held.slack_bytes);
        filler.fill(held.addr, end, Some(held.stack));
    }
    filler.end_page();
}

fn visit_spans(layout: &Layout, visit: &mut impl Visit, mut also: impl FnMut(&Span)) {
    let mut filler = Filler { page: Page::default(), visit };
    layout.spans(|span| {
        also(&span);
        if span.place.is_free() || span.range.kind == RangeKind::Mapped {
            return;
        }
        let site = match span.place {
            Place::Live(slot) => Some(layout.block(slot).map_or(StackIndex::UNKNOWN, |held| held.stack)),
            Place::Handed => Some(StackIndex::UNKNOWN),
            Place::Cached(_) | Place::Fast(_) | Place::Binned(_) | Place::Top => return,
            Place::Header | Place::Bookkeeping | Place::Fence => None,
        };
        filler.fill(span.addr, span.end(), site);
    });
    filler.end_page();
}
