//! From the bytes that the program asked for to what the kernel says that it takes.
//!
//! One snapshot of the process's mappings is laid over the layout of the heap at the same time. Every resident byte
//! belongs to one row; what is left over is named, and a defect if it is more than a hundredth.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::units::PAGE_BYTES;

use super::pages::{Residency, resident_bytes};
use crate::analysis::frames::CallStack;
use crate::model::layout::{Books, Layout, Range, RangeKind};
use crate::trace::{Contents, Mapping, PagesFrom, Reason, Snapshot, StackIndex};
use xalloc_core::wire::Call;

/// Largest stretch without any right below a mapping that is taken for the guard of a thread's stack.
const GUARD_MOST: u64 = 1 << 20;

/// What a mapping, or a part of one, is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// Code.
    Text,
    /// Initialised variables: writable pages of files.
    Data,
    /// Variables that begin as zero.
    Bss,
    /// The main arena.
    Heap,
    /// Sub-heaps of thread arenas.
    Arenas,
    /// Chunks with a mapping of their own.
    MappedChunks,
    /// Stacks of threads.
    Stacks,
    /// Files that are only read, or shared.
    Files,
    /// The recorder's own memory in the process: its library and the shared segment.
    Recorder,
    /// Anonymous memory that is none of the above: what the program mapped itself, and by what its arenas grew while it was
    /// looked at.
    OtherAnonymous,
}

/// A row of the process map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SegmentView {
    /// What it is.
    pub segment: Segment,
    /// Bytes of address space, those without any right left out.
    pub virtual_bytes: u64,
    /// Resident bytes.
    pub resident_bytes: u64,
}

/// Blocks that were allocated and whose pages nobody has touched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct UntouchedView {
    /// Bytes of whole pages within the blocks that are not resident.
    pub bytes: u64,
    /// Blocks that have such pages.
    pub blocks: u64,
    /// Where they were allocated.
    #[serde(flatten)]
    pub at: CallStack,
}

/// Who said which pages were resident.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PagesView {
    /// The kernel's page tables, read from outside.
    Pagemap,
    /// The process itself, by `mincore`: its page tables could not be read from outside.
    Mincore,
    /// Nobody: only the sums of the mappings are known, and pages are modelled.
    Nobody,
}

impl From<PagesFrom> for PagesView {
    fn from(from: PagesFrom) -> PagesView {
        match from {
            PagesFrom::Pagemap => PagesView::Pagemap,
            PagesFrom::Mincore => PagesView::Mincore,
            PagesFrom::Nobody => PagesView::Nobody,
        }
    }
}

/// The resident memory of the process, step by step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct RssView {
    /// When the kernel was asked, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Whether the process was larger than ever then (`peak`), began to end (`exit`), or it was time to (`interval`).
    pub reason: String,
    /// Who said which pages were resident.
    pub pages_from: PagesView,
    /// Processor time that asking took the recorder, nanoseconds.
    pub cost_ns: u64,
    /// What all looks at this process took together, nanoseconds.
    pub looks_cost_ns: u64,
    /// How often its memory was looked at.
    pub looks: u64,
    /// Bytes that the program had asked for and had.
    pub requested: u64,
    /// Padding and headers of its blocks.
    pub overhead: u64,
    /// In thread caches and fast bins.
    pub cached: u64,
    /// In other bins.
    pub bin_free: u64,
    /// In tops.
    pub top: u64,
    /// The heap's own.
    pub metadata: u64,
    /// All of the heap, the sum of the above.
    pub segments: u64,
    /// Of that, bytes on pages that are not resident.
    pub not_resident: u64,
    /// What is left: the heap's resident bytes, in arenas and mapped chunks.
    pub heap_resident: u64,
    /// Resident bytes of everything else.
    pub others_resident: u64,
    /// The kernel's count less the two above; below 0 if it counts less than they are.
    pub unexplained: i64,
    /// Resident bytes of the process, as the kernel counted them while it was looked at.
    pub total: u64,
    /// Bytes that are swapped out.
    pub swapped: u64,
    /// Page faults up to then that needed no disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// The process map.
    pub map: Vec<SegmentView>,
    /// Blocks that were never touched, most bytes first.
    pub untouched: Vec<UntouchedView>,
}

/// The pages that a snapshot found resident.
pub(super) struct Measured {
    /// Start and end of each run, by address.
    runs: Vec<(u64, u64)>,
}

impl Measured {
    pub(super) fn of(snapshot: &Snapshot) -> Measured {
        let runs = snapshot.mappings.iter().filter_map(Mapping::resident_runs).flatten().collect();
        Measured { runs }
    }

    /// Resident bytes in `[from, to)`.
    fn bytes(&self, from: u64, to: u64) -> u64 {
        let first = self.runs.partition_point(|&(_, end)| end <= from);
        let runs = self.runs[first..].iter().take_while(|&&(start, _)| start < to);
        runs.map(|&(start, end)| end.min(to) - start.max(from)).sum()
    }
}

impl Residency for Measured {
    fn is_resident(&self, addr: u64) -> bool {
        let at = self.runs.partition_point(|&(_, end)| end <= addr);
        self.runs.get(at).is_some_and(|&(start, _)| start <= addr)
    }
}

impl Segment {
    const fn of_range(kind: RangeKind) -> Segment {
        match kind {
            RangeKind::Main => Segment::Heap,
            RangeKind::SubHeap => Segment::Arenas,
            RangeKind::Mapped => Segment::MappedChunks,
        }
    }

    /// What a mapping is for, the heap's ranges in it aside; `before` is the mapping below. What the kernel calls the heap
    /// begins with the end of bss; of another allocator's heap no range is known, and it counts as a whole.
    fn of(mapping: &Mapping, before: Option<&Mapping>, is_heap_known: bool) -> Segment {
        let name = mapping.name.as_str();
        let is_ours = |name: &str| name.contains("libxalloc_preload") || name.contains("xalloc-session.");
        let borders = before.filter(|before| before.end == mapping.start);
        if is_ours(name) || (name.is_empty() && borders.is_some_and(|before| is_ours(&before.name))) {
            return Segment::Recorder;
        }
        match name {
            "[stack]" => return Segment::Stacks,
            "[heap]" => return if is_heap_known { Segment::Bss } else { Segment::Heap },
            _ if name.starts_with("[anon") => return Segment::OtherAnonymous,
            "" => {}
            _ if mapping.is_executable() => return Segment::Text,
            _ if mapping.is_writable() && mapping.rights & 8 == 0 => return Segment::Data,
            _ => return Segment::Files,
        }
        match borders {
            Some(before) if before.rights & 7 == 0 && before.len_bytes() <= GUARD_MOST => Segment::Stacks,
            Some(before) if !before.name.is_empty() && before.is_writable() => Segment::Bss,
            _ if mapping.is_executable() => Segment::Text,
            Some(_) | None => Segment::OtherAnonymous,
        }
    }
}

/// The rows of a process map, and the heap's share of each mapping.
fn map(layout: &Layout, snapshot: &Snapshot, measured: &Measured) -> BTreeMap<Segment, (u64, u64)> {
    let ranges: Vec<Range> = layout.ranges().copied().collect();
    let mut map: BTreeMap<Segment, (u64, u64)> = BTreeMap::new();
    let mut before: Option<&Mapping> = None;
    for mapping in &snapshot.mappings {
        let (mut left_virtual, mut left_resident) = (mapping.len_bytes(), mapping.resident_bytes);
        let first = ranges.partition_point(|range| range.end <= mapping.start);
        for range in ranges[first..].iter().take_while(|range| range.start < mapping.end) {
            let (from, to) = (range.start.max(mapping.start), range.end.min(mapping.end));
            let resident = match &mapping.runs {
                Some(_) => measured.bytes(from, to),
                None => (to - from).min(left_resident),
            };
            let row = map.entry(Segment::of_range(range.kind)).or_default();
            row.0 += to - from;
            row.1 += resident;
            left_virtual = left_virtual.saturating_sub(to - from);
            left_resident = left_resident.saturating_sub(resident);
        }
        if mapping.rights & 7 != 0 && (left_virtual > 0 || left_resident > 0) {
            let row = map.entry(Segment::of(mapping, before, !ranges.is_empty())).or_default();
            row.0 += left_virtual;
            row.1 += left_resident;
        } else if left_resident > 0 {
            // It got rights between the list of mappings and its pages: a thread's arena grew meanwhile.
            let row = map.entry(Segment::OtherAnonymous).or_default();
            row.0 += left_resident;
            row.1 += left_resident;
        }
        before = Some(mapping);
    }
    map
}

/// Whole pages of blocks that are not resident, by call site.
fn untouched(contents: &Contents, layout: &Layout, measured: &Measured) -> Vec<UntouchedView> {
    let mut sites: FxHashMap<StackIndex, (u64, u64, Call)> = FxHashMap::default();
    for held in layout.blocks().filter(|held| held.size_bytes >= PAGE_BYTES) {
        let from = held.addr.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
        let to = held.addr.saturating_add(held.size_bytes) / PAGE_BYTES * PAGE_BYTES;
        let missing = to.saturating_sub(from) - resident_bytes(measured, from, to).min(to.saturating_sub(from));
        if missing > 0 {
            let site = sites.entry(held.stack).or_insert((0, 0, held.call));
            site.0 += missing;
            site.1 += 1;
        }
    }
    let mut sites: Vec<_> = sites.into_iter().collect();
    sites.sort_by_key(|&(stack, (bytes, ..))| (std::cmp::Reverse(bytes), stack));
    let view =
        |(stack, (bytes, blocks, call))| UntouchedView { bytes, blocks, at: CallStack::of(contents, stack, call) };
    sites.into_iter().map(view).collect()
}

/// A look at the process's memory while it was recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LookView {
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Why: `interval`, `peak`, `exit`, `marker` or `signal`.
    pub reason: String,
    /// Resident bytes of the process.
    pub resident_bytes: u64,
    /// Page faults without a disk until then.
    pub minor_faults: u64,
    /// Who said which pages were resident.
    pub pages_from: PagesView,
    /// Processor time that the recorder took for it, nanoseconds; of a look that the process made itself (`mincore`), how
    /// long it took.
    pub cost_ns: u64,
}

impl From<&Snapshot> for LookView {
    fn from(snapshot: &Snapshot) -> LookView {
        LookView {
            at_ns: snapshot.at_ns,
            reason: reason(snapshot.reason).to_owned(),
            resident_bytes: snapshot.resident_bytes,
            minor_faults: snapshot.minor_faults,
            pages_from: snapshot.pages_from.into(),
            cost_ns: snapshot.cost_ns,
        }
    }
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Interval => "interval",
        Reason::Peak => "peak",
        Reason::Exit => "exit",
        Reason::Marker => "marker",
        Reason::Signal => "signal",
    }
}

impl RssView {
    /// The process at a snapshot, with the heap as it was laid out then.
    pub(super) fn of(contents: &Contents, layout: &Layout, snapshot: &Snapshot) -> RssView {
        let measured = Measured::of(snapshot);
        let mut books = Books::default();
        layout.spans(|span| books.enter(span.place, span.size_bytes));
        let map = map(layout, snapshot, &measured);
        let is_heap = |segment: &Segment| [Segment::Heap, Segment::Arenas, Segment::MappedChunks].contains(segment);
        let sum = |heap: bool| -> u64 {
            map.iter().filter(|(segment, _)| is_heap(segment) == heap).map(|(_, &(_, resident))| resident).sum()
        };
        let (heap_resident, others_resident) = (sum(true), sum(false));
        let requested = layout.requested_bytes();
        RssView {
            at_ns: snapshot.at_ns,
            reason: reason(snapshot.reason).to_owned(),
            pages_from: snapshot.pages_from.into(),
            cost_ns: snapshot.cost_ns,
            looks_cost_ns: snapshot.cost_ns,
            looks: 1,
            requested,
            overhead: books.live_bytes.saturating_sub(requested),
            cached: books.tcache_bytes + books.fastbin_bytes,
            bin_free: books.bin_free_bytes,
            top: books.top_bytes,
            metadata: books.metadata_bytes,
            segments: books.segments_bytes,
            not_resident: books.segments_bytes.saturating_sub(heap_resident),
            heap_resident,
            others_resident,
            unexplained: snapshot.resident_bytes.wrapping_sub(heap_resident + others_resident).cast_signed(),
            total: snapshot.resident_bytes,
            swapped: snapshot.swapped_bytes,
            minor_faults: snapshot.minor_faults,
            major_faults: snapshot.major_faults,
            map: map
                .iter()
                .map(|(&segment, &(virtual_bytes, resident_bytes))| SegmentView {
                    segment,
                    virtual_bytes,
                    resident_bytes,
                })
                .collect(),
            untouched: untouched(contents, layout, &measured),
        }
    }
}
