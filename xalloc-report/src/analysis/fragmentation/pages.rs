//! The heap page by page: what of each page is live, and whose.

use crate::model::layout::{Layout, Place, RangeKind};
use crate::trace::StackIndex;

/// Bytes of a page on x86-64.
pub(super) const PAGE: u64 = 4096;

/// Which pages of the heap the kernel keeps.
pub(crate) trait Residency {
    /// Whether the page at `addr`, a multiple of the page size, is resident.
    fn is_resident(&self, addr: u64) -> bool;
}

/// Bytes of whole resident pages within `[from, to)`.
pub(super) fn resident_bytes(residency: &impl Residency, from: u64, to: u64) -> u64 {
    let (mut page, end) = (from.next_multiple_of(PAGE), to / PAGE * PAGE);
    let mut bytes = 0;
    while page < end {
        bytes += if residency.is_resident(page) { PAGE } else { 0 };
        page += PAGE;
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
        PAGE.saturating_sub(self.live_bytes + self.metadata_bytes)
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

/// Goes through the pages of the arenas, or of the mappings of chunks too.
pub(super) fn visit(layout: &Layout, visit: &mut impl Visit) {
    let mut page = Page::default();
    let flush = |page: &mut Page, visit: &mut dyn FnMut(&Page)| {
        if !page.is_empty() {
            visit(page);
        }
        page.live_bytes = 0;
        page.metadata_bytes = 0;
        page.sites.clear();
    };
    layout.spans(|span| {
        if span.place.is_free() || span.range.kind == RangeKind::Mapped {
            return;
        }
        let site = match span.place {
            Place::Live(slot) => Some(layout.block(slot).map_or(StackIndex::UNKNOWN, |held| held.stack)),
            Place::Handed => Some(StackIndex::UNKNOWN),
            Place::Cached(_) | Place::Fast(_) | Place::Binned(_) | Place::Top => return,
            Place::Header | Place::Bookkeeping | Place::Fence => None,
        };
        let mut at = span.addr;
        while at < span.end() {
            let base = at / PAGE * PAGE;
            let whole_end = span.end() / PAGE * PAGE;
            if let Some(site) = site
                && at == base
                && whole_end > at
            {
                visit.filled(at, whole_end, site);
                at = whole_end;
                continue;
            }
            if base != page.addr {
                flush(&mut page, &mut |page| visit.page(page));
                page.addr = base;
            }
            let bytes = (base + PAGE).min(span.end()) - at;
            match site {
                Some(site) => {
                    page.live_bytes += bytes;
                    if !page.sites.contains(&site) {
                        page.sites.push(site);
                    }
                }
                None => page.metadata_bytes += bytes,
            }
            at += bytes;
        }
    });
    flush(&mut page, &mut |page| visit.page(page));
}
