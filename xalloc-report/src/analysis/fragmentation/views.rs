//! The report, as text, JSON and pictures have it.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    ColumnView, CoverView, CrossThreadView, FixesView, FreePairsView, FreeView, GrowthView, LookView, PaddingView,
    PinView, RssView, StepView, SystemCallsView, ThresholdView,
};
use crate::model::layout::Books;

/// Bytes by class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct BooksView {
    /// In chunks that the program has, headers and padding included.
    pub live: u64,
    /// In threads' caches: given back by the program, and nobody else's.
    pub tcache: u64,
    /// In fast bins.
    pub fastbin: u64,
    /// In the unsorted, small and large bins.
    pub bin_free: u64,
    /// In tops.
    pub top: u64,
    /// The heap's own: headers, arena state, fences, bookkeeping of caches.
    pub metadata: u64,
    /// All that the heap has from the system; the sum of the above.
    pub segments: u64,
}

impl From<Books> for BooksView {
    fn from(books: Books) -> BooksView {
        BooksView {
            live: books.live_bytes,
            tcache: books.tcache_bytes,
            fastbin: books.fastbin_bytes,
            bin_free: books.bin_free_bytes,
            top: books.top_bytes,
            metadata: books.metadata_bytes,
            segments: books.segments_bytes,
        }
    }
}

/// The books of one arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ArenaView {
    /// Number of the arena, 0 for that of the break; `null` for chunks with a mapping of their own.
    pub arena: Option<u16>,
    /// Its bytes by class.
    #[serde(flatten)]
    pub books: BooksView,
}

/// The release ladder: bytes of resident memory of the arenas that would go back, each step with those before it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct LadderView {
    /// By an automatic trim of the top, as the next large free would do.
    pub systrim: u64,
    /// By `malloc_trim(0)`.
    pub malloc_trim: u64,
    /// By emptying all threads' caches and `malloc_trim(0)` after that.
    pub after_flush: u64,
    /// If what is in use lay close together.
    pub ideal: u64,
    /// Resident bytes of the arenas.
    pub resident: u64,
    /// Free bytes on resident pages that none of the steps but the ideal one would give back.
    pub unreleasable: u64,
}

/// What the heap takes for what the program asked for.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct RatiosView {
    /// Footprint to requested bytes, both averaged over time (Johnstone and Wilson's first ratio, of the means).
    pub mean: Option<f64>,
    /// Footprint when most was requested, to that (their second).
    pub at_most_requested: Option<f64>,
    /// The largest footprint to what was requested then (their third).
    pub at_largest: Option<f64>,
    /// The largest footprint to the most that was ever requested (their fourth).
    pub largest_to_most: Option<f64>,
    /// Resident bytes of the heap to requested bytes, less 1, at this report's moment: the realized fragmentation if
    /// that is the peak.
    pub realized: Option<f64>,
}

/// How the resident pages are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResidencyView {
    /// By the model: resident from its first use to its release.
    Modelled,
    /// As the kernel said, close to this moment.
    Measured,
}

/// The heap of one process at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Fragmentation {
    /// Process id.
    pub pid: u32,
    /// Its number in the trace.
    pub process: u32,
    /// Who serves its allocations; under another allocator than xalloc's only the blocks are known.
    pub core: bool,
    /// Events up to this moment.
    pub seq: u64,
    /// The moment, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// From the process's first event to its last, nanoseconds.
    pub life_ns: u64,
    /// Blocks that live.
    pub blocks: u64,
    /// Bytes that the program asked for and has.
    pub requested: u64,
    /// What its blocks have beyond that.
    pub padding: u64,
    /// What stands before the blocks, 8 bytes of a heap chunk and 16 of a mapped one, and what rounding to pages adds to
    /// mappings.
    pub headers: u64,
    /// Bytes by class.
    pub books: BooksView,
    /// The same by arena.
    pub arenas: Vec<ArenaView>,
    /// What is free, by who could use it.
    pub free: FreeView,
    /// How the resident pages are known.
    pub residency: ResidencyView,
    /// Resident pages that hold something live.
    pub live_pages: u64,
    /// Free bytes on these.
    pub pinned_bytes: u64,
    /// The release ladder.
    pub ladder: LadderView,
    /// What an automatic trim leaves of the top, as it was tuned.
    pub top_pad_bytes: u64,
    /// Size of the top from which a free trims, as it was tuned or has followed the mmap threshold.
    pub trim_threshold_bytes: u64,
    /// Call sites whose blocks keep pages, largest share first.
    pub pins: Vec<PinView>,
    /// The sites that together release most.
    pub cover: Vec<CoverView>,
    /// What keeps tops from being returned, most first.
    pub staircase: Vec<StepView>,
    /// The sizes that waste most.
    pub padding_by_size: Vec<PaddingView>,
    /// The process's resident memory, from what was asked for to the kernel's sum, at the look that is nearest; `null` if
    /// the recording has none.
    pub rss: Option<RssView>,
    /// All looks at the process's memory, in order of time.
    pub looks: Vec<LookView>,
    /// Where the dynamic mmap threshold was moved to last; `null` if it never was, or the thresholds are fixed.
    pub mmap_threshold: Option<ThresholdView>,
    /// Growths of the heap in its whole life.
    pub growths: u64,
    /// Those of them for which enough was free, by requester and rule, most bytes first.
    pub external: Vec<GrowthView>,
    /// What the heap takes for what is asked.
    pub ratios: RatiosView,
    /// Calls to the system by the heap in the process's whole life.
    pub system_calls: SystemCallsView,
    /// Calls that change the address space by the program itself, in its whole life.
    pub program_calls: SystemCallsView,
    /// Frees by another thread than the one that allocated, in the process's whole life.
    pub cross_thread_frees: CrossThreadView,
    /// Where the blocks of each call site were freed, in the process's whole life.
    pub free_pairs: FreePairsView,
    /// The heap over time.
    pub map: Vec<ColumnView>,
    /// What the fixes would do that these findings suggest.
    pub fixes: FixesView,
}
