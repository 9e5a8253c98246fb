//! What is free, and what of it anybody could use: caches by thread and size, bins, the unusable free space index.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::process::ThreadName;
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
}

impl FreeView {
    pub(super) fn of(contents: &Contents, layout: &Layout) -> FreeView {
        let mut caches: BTreeMap<ThreadIndex, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut bins: BTreeMap<(bool, u8), BinView> = BTreeMap::new();
        let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
        layout.spans(|span| {
            let (is_fast, index) = match span.place {
                Place::Cached(thread) => {
                    *caches.entry(thread).or_default().entry(span.size_bytes).or_default() += 1;
                    return;
                }
                Place::Fast(index) => (true, index),
                Place::Binned(index) => {
                    *sizes.entry(span.size_bytes).or_default() += 1;
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
        let mut caches: Vec<_> = caches.into_iter().map(|(thread, sizes)| cache(contents, thread, &sizes)).collect();
        caches.sort_by_key(|cache| std::cmp::Reverse(cache.bytes));
        let total: u64 = sizes.iter().map(|(size, count)| size * count).sum();
        let unusable = INDEX_SIZES.iter().filter(|_| total > 0).map(|&chunk_bytes| {
            let usable: u64 = sizes.range(chunk_bytes..).map(|(size, count)| size * count).sum();
            UnusableView { chunk_bytes, index: 1.0 - usable as f64 / total as f64 }
        });
        FreeView {
            caches,
            largest_bytes: sizes.last_key_value().map_or(0, |(&size, _)| size),
            unusable: unusable.collect(),
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

fn cache(contents: &Contents, thread: ThreadIndex, sizes: &BTreeMap<u64, u64>) -> CacheView {
    CacheView {
        thread: ThreadName::of(contents, thread),
        bytes: sizes.iter().map(|(size, count)| size * count).sum(),
        chunks: sizes.values().sum(),
        sizes: sizes.iter().map(|(&chunk_bytes, &chunks)| SizeCount { chunk_bytes, chunks }).collect(),
    }
}
