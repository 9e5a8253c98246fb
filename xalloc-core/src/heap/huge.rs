//! Huge pages, where the user asks for them (`glibc.malloc.hugetlb`; placement policy, section 11).
//!
//! There are two ways. Either ranges as long as a huge page are advised to be made of transparent ones, and the heap grows
//! and shrinks in steps of their size so that it gets some; or whatever grows the heap is mapped with pages of a size that
//! the administrator has set aside, and with ordinary ones when those are used up. The second way gives up the break: no
//! kernel makes that of huge pages.

use super::Heap;
use super::chunk::{round_down, round_up};
use super::os::Os;
use super::policy::{BreakFallback, HugeTlb, Policy};
use super::settings::SUB_HEAP_BYTES;
use super::sink::Sink;
use super::step::Step;
use super::tunables::Tunables;

/// The pages that a heap is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// Ordinary ones.
    Ordinary,
    /// Transparent huge pages of so many bytes, where a program asks for them by advice.
    Advised(u64),
    /// Transparent huge pages of so many bytes wherever there is room for one. Only some releases grow by them.
    Everywhere(u64),
    /// Huge pages of so many bytes that are mapped as such.
    Mapped(u64),
}

impl HugePages {
    /// What the user's wish means to a release on this machine.
    pub(super) fn wanted<O: Os>(os: &O, policy: &Policy, tunables: &Tunables) -> HugePages {
        let page_bytes = match (policy.hugetlb, tunables.hugetlb) {
            (HugeTlb::Unknown, _) | (_, None | Some(0)) => None,
            (_, Some(1)) => return os.transparent_pages(),
            (_, Some(2)) => os.huge_page_bytes(None),
            (_, Some(bytes)) => os.huge_page_bytes(Some(bytes)),
        };
        // Where sub-heaps keep their length, no page may be longer.
        let fits = |&bytes: &u64| !policy.hugetlb.rounds_all() || bytes <= SUB_HEAP_BYTES;
        page_bytes.filter(fits).map_or(HugePages::Ordinary, HugePages::Mapped)
    }
}

/// Which pages a mapping is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PageKind {
    Ordinary,
    /// Huge ones of so many bytes.
    Huge(u64),
}

impl<O: Os, S: Sink> Step<'_, O, S> {
    /// The pages that new ranges are tried with first, if not ordinary ones.
    pub(super) fn huge_pages(&self) -> Option<u64> {
        Some(self.heap.settings.mapped_page_bytes.get()).filter(|&bytes| bytes != 0)
    }

    /// How far the break moves for `wanted` bytes, a number of pages: where the heap grows by transparent huge pages, to
    /// the end of one.
    pub(super) fn break_step(&self, wanted: u64) -> u64 {
        let huge = self.heap.settings.transparent_page_bytes.get();
        if huge == 0 || wanted > i64::MAX as u64 {
            return wanted;
        }
        let from = match self.policy().hugetlb {
            HugeTlb::Rounded | HugeTlb::RoundedAndAdvised => self.heap.pages().break_by(0),
            // These add to what libc remembers of the break: nothing, if nobody has asked for it yet.
            HugeTlb::Unknown | HugeTlb::FourPages | HugeTlb::FourPagesAndThreshold => self.heap.os.remembered_break(),
        };
        let from = from.unwrap_or(0);
        from.checked_add(wanted).map_or(wanted, |end| round_up(end, huge) - from)
    }

    /// Bytes of the mapping of huge pages that serves instead of moving the break by `wanted`, of which the request and
    /// the pad are `instead` without and `with_old_top` with what the top has.
    pub(super) fn huge_growth(is_contiguous: bool, policy: &Policy, growth: Growth, huge: u64) -> u64 {
        match policy.break_fallback {
            BreakFallback::Plain => round_up(growth.instead, huge),
            BreakFallback::AtLeast | BreakFallback::Rounded if is_contiguous => round_up(growth.with_old_top, huge),
            BreakFallback::AtLeast | BreakFallback::Rounded => growth.wanted.max(huge),
        }
    }

    /// Bytes that the top of the main arena shrinks by multiples of.
    pub(super) fn trim_unit(&self) -> u64 {
        match self.heap.settings.transparent_page_bytes.get() {
            0 => self.heap.os.page_bytes(),
            huge => huge,
        }
    }

    /// Bytes that a sub-heap grows and shrinks by multiples of.
    pub(super) fn sub_heap_unit(&self, heap: u64) -> u64 {
        match self.huge_pages() {
            Some(_) => self.words().heap_page(heap),
            None => self.unit_of(PageKind::Ordinary),
        }
    }

    /// As [`Step::sub_heap_unit`], of a sub-heap that is to be made.
    pub(super) fn unit_of(&self, kind: PageKind) -> u64 {
        let transparent = self.heap.settings.transparent_page_bytes.get();
        match kind {
            PageKind::Huge(bytes) => bytes,
            PageKind::Ordinary if transparent != 0 && self.policy().hugetlb.rounds_all() => transparent,
            PageKind::Ordinary => self.heap.os.page_bytes(),
        }
    }

    /// Asks for transparent huge pages in a range that has just come from the system, if it is long enough for one.
    pub(super) fn advise_huge(&self, addr: u64, len: u64) {
        if len >= self.heap.settings.advised_from_bytes.get() {
            let start = round_down(addr, self.heap.os.page_bytes());
            self.heap.pages().advise_huge(start, len + (addr - start));
        }
    }
}

/// What the main arena needs where the break does not move, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// By how much the break was to move.
    pub(super) wanted: u64,
    /// That and the old top, as long as the arena is contiguous.
    pub(super) with_old_top: u64,
    /// What the request takes without the old top, not rounded.
    pub(super) instead: u64,
}

impl<O: Os> Heap<O> {
    /// Whether the heap grows by huge pages of either kind, or tries to.
    pub fn has_huge_pages(&self) -> bool {
        self.settings.mapped_page_bytes.get() != 0 || self.settings.transparent_page_bytes.get() != 0
    }

    /// The sub-heap that holds an address.
    #[inline(always)]
    pub(super) fn heap_of(&self, addr: u64) -> u64 {
        round_down(addr, self.sub_heap_bytes())
    }

    /// Size and alignment of a sub-heap (placement policy, section 1).
    #[inline(always)]
    pub fn sub_heap_bytes(&self) -> u64 {
        self.settings.sub_heap_bytes.get()
    }
}
