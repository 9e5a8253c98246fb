//! What is free, and what of it anybody could use: caches by thread and size, bins, the unusable free space index.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::process::{ThreadName, ThreadNames};
use crate::model::layout::{Layout, Place};
use crate::trace::{Contents, ThreadIndex};

/// Chunk sizes for which the unusable free space index is told.
const INDEX_SIZES: [u64; 6] = [64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10];

/// Chunks of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SizeCount {
    /// Bytes of each chunk.
    pub chunk_bytes: u64,
    /// How many.
    pub chunks: u64,
}

/// What one thread's cache holds: bytes that the program gave back and that no other thread can have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CacheView {
    /// The thread; of a chunk that it freed into its cache.
    pub thread: ThreadName,
    /// Bytes.
    pub bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// By chunk size, smallest first.
    pub sizes: Vec<SizeCount>,
}

/// What a bin holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BinView {
    /// `fast`, `unsorted`, `small` or `large`.
    pub kind: String,
    /// Its number among the bins of malloc; of a fast bin its number among those.
    pub index: u8,
    /// Chunks, of all arenas.
    pub chunks: u64,
    /// Bytes.
    pub bytes: u64,
    /// The largest of them.
    pub largest_bytes: u64,
}

/// How much of what is free in bins is in chunks too small for a request.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct UnusableView {
    /// Chunk size of the request.
    pub chunk_bytes: u64,
    /// 0: all free bytes are in chunks at least as large; 1: none is (Gorman and Whitcroft's index).
    pub index: f64,
}

/// What is free.
#[derive(Clone, PartialEq, Debug, Default, Serialize, JsonSchema)]
pub struct FreeView {
    /// Caches that hold something, most bytes first.
    pub caches: Vec<CacheView>,
    /// Bins that hold something: fast bins first, then by number.
    pub bins: Vec<BinView>,
    /// The largest chunk in a bin.
    pub largest_bytes: u64,
    /// For sizes of 64 bytes to 128 KiB; empty if nothing is free in bins.
    pub unusable: Vec<UnusableView>,
    /// The same when the requested bytes of the process were most.
    pub unusable_at_peak: Vec<UnusableView>,
    /// The index averaged over the sizes that the program really asked for: over the chunks of its last 1,024 allocations
    /// before this moment; `null` if nothing is free in bins or nothing was asked for.
    pub unusable_for_requests: Option<f64>,
}

/// Allocations whose sizes weigh the index.
const RECENT: usize = 1024;

/// The chunks of the last allocations.
#[derive(Default, Debug)]
pub(super) struct Recent {
    chunk_bytes: Vec<u64>,
    next: usize,
}

impl Recent {
    /// A chunk of that size was handed out.
    #[inline]
    pub(super) fn push(&mut self, chunk_bytes: u64) {
        if let Some(oldest) = self.chunk_bytes.get_mut(self.next) {
            *oldest = chunk_bytes;
        } else {
            self.chunk_bytes.push(chunk_bytes);
        }
        self.next = (self.next + 1) % RECENT;
    }
}

/// Chunks that are free in bins, by size.
#[derive(Default, Debug)]
pub(super) struct FreeSizes {
    chunks: BTreeMap<u64, u64>,
}

impl FreeSizes {
    pub(super) fn of(layout: &Layout) -> FreeSizes {
        let mut sizes = FreeSizes::default();
        layout.spans(|span| {
            if let Place::Binned(_) = span.place {
                sizes.add(span.size_bytes);
            }
        });
        sizes
    }

    fn add(&mut self, chunk_bytes: u64) {
        *self.chunks.entry(chunk_bytes).or_default() += 1;
    }

    /// Share of the free bytes that is in chunks smaller than that; `None` if nothing is free.
    fn index(&self, chunk_bytes: u64) -> Option<f64> {
        let bytes = |(size, count): (&u64, &u64)| size * count;
        let total: u64 = self.chunks.iter().map(bytes).sum();
        let usable: u64 = self.chunks.range(chunk_bytes..).map(bytes).sum();
        (total > 0).then(|| 1.0 - usable as f64 / total as f64)
    }

    /// The index of each of the agreed sizes.
    pub(super) fn unusable(&self) -> Vec<UnusableView> {
        let view = |&chunk_bytes| Some(UnusableView { chunk_bytes, index: self.index(chunk_bytes)? });
        INDEX_SIZES.iter().filter_map(view).collect()
    }

    /// The mean index of these requests.
    fn unusable_for(&self, recent: &Recent) -> Option<f64> {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        recent.chunk_bytes.iter().for_each(|&size| *counts.entry(size).or_default() += 1);
        let weighed = counts.iter().map(|(&size, &count)| Some(self.index(size)? * count as f64));
        let sum = weighed.sum::<Option<f64>>()?;
        (!recent.chunk_bytes.is_empty()).then(|| sum / recent.chunk_bytes.len() as f64)
    }
}

impl FreeView {
    pub(super) fn of(contents: &Contents, layout: &Layout, recent: &Recent) -> FreeView {
        let mut caches: BTreeMap<ThreadIndex, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut bins: BTreeMap<(bool, u8), BinView> = BTreeMap::new();
        let mut sizes = FreeSizes::default();
        layout.spans(|span| {
            let (is_fast, index) = match span.place {
                Place::Cached(thread) => {
                    *caches.entry(thread).or_default().entry(span.size_bytes).or_default() += 1;
                    return;
                }
                Place::Fast(index) => (true, index),
                Place::Binned(index) => {
                    sizes.add(span.size_bytes);
                    (false, index)
                }
                Place::Live(_) | Place::Handed | Place::Top | Place::Header | Place::Bookkeeping | Place::Fence => {
                    return;
                }
            };
            let bin = bins.entry((!is_fast, index)).or_insert_with(|| BinView {
                kind: kind(is_fast, index).to_owned(),
                index,
                chunks: 0,
                bytes: 0,
                largest_bytes: 0,
            });
            bin.chunks += 1;
            bin.bytes += span.size_bytes;
            bin.largest_bytes = bin.largest_bytes.max(span.size_bytes);
        });
        let thread_names = ThreadNames::of(contents);
        let mut caches: Vec<_> =
            caches.into_iter().map(|(thread, sizes)| cache(&thread_names, thread, &sizes)).collect();
        caches.sort_by_key(|cache| std::cmp::Reverse(cache.bytes));
        FreeView {
            caches,
            largest_bytes: sizes.chunks.last_key_value().map_or(0, |(&size, _)| size),
            unusable: sizes.unusable(),
            unusable_at_peak: Vec::new(),
            unusable_for_requests: sizes.unusable_for(recent),
            bins: bins.into_values().collect(),
        }
    }
}

fn kind(is_fast: bool, index: u8) -> &'static str {
    match index {
        _ if is_fast => "fast",
        1 => "unsorted",
        0 | 2..64 => "small",
        64.. => "large",
    }
}

fn cache(thread_names: &ThreadNames<'_>, thread: ThreadIndex, sizes: &BTreeMap<u64, u64>) -> CacheView {
    CacheView {
        thread: thread_names.at(thread),
        bytes: sizes.iter().map(|(size, count)| size * count).sum(),
        chunks: sizes.values().sum(),
        sizes: sizes.iter().map(|(&chunk_bytes, &chunks)| SizeCount { chunk_bytes, chunks }).collect(),
    }
}
