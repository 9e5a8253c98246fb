//! Internal fragmentation: what the rounding of sizes costs, by size and call site.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::frames::CallStack;
use crate::model::layout::Layout;
use crate::trace::{Contents, StackIndex};

/// Sizes that are told, most padding first.
const SIZES: usize = 16;
/// Smallest usable size of a heap chunk (placement policy, section 1).
const SMALLEST_USABLE: u64 = 24;

/// What blocks of one requested size waste.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct PaddingView {
    /// Requested size.
    pub size_bytes: u64,
    /// Blocks of that size that live.
    pub blocks: u64,
    /// Bytes that they have and did not ask for.
    pub padding_bytes: u64,
    /// The largest request that takes the same memory: it would waste nothing.
    pub full_bytes: u64,
    /// The largest request that takes less memory, and wastes nothing; `null` if there is none.
    pub smaller_bytes: Option<u64>,
    /// Where most of the padding comes from.
    #[serde(flatten)]
    pub at: CallStack,
}

#[derive(Default)]
struct Size {
    blocks: u64,
    padding_bytes: u64,
    slack_bytes: u64,
    sites: FxHashMap<StackIndex, u64>,
}

/// The sizes that waste most, and what all blocks waste.
pub(super) fn of(contents: &Contents, layout: &Layout) -> (Vec<PaddingView>, u64) {
    let mut sizes: FxHashMap<u64, Size> = FxHashMap::default();
    let mut total_bytes = 0;
    let mut calls = FxHashMap::default();
    for held in layout.blocks().filter(|held| held.slack_bytes > 0) {
        let padding_bytes = u64::from(held.slack_bytes);
        total_bytes += padding_bytes;
        let size = sizes.entry(held.size_bytes).or_default();
        size.blocks += 1;
        size.padding_bytes += padding_bytes;
        size.slack_bytes = padding_bytes;
        *size.sites.entry(held.stack).or_default() += padding_bytes;
        calls.insert(held.stack, held.call);
    }
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by_key(|(size_bytes, size)| (std::cmp::Reverse(size.padding_bytes), *size_bytes));
    sizes.truncate(SIZES);
    let view = |(size_bytes, size): (u64, Size)| {
        let full_bytes = size_bytes + size.slack_bytes;
        let (&site, _) = size.sites.iter().max_by_key(|&(site, bytes)| (bytes, std::cmp::Reverse(site)))?;
        Some(PaddingView {
            size_bytes,
            blocks: size.blocks,
            padding_bytes: size.padding_bytes,
            full_bytes,
            smaller_bytes: full_bytes.checked_sub(16).filter(|&smaller| smaller >= SMALLEST_USABLE),
            at: CallStack::of(contents, site, calls[&site]),
        })
    };
    (sizes.into_iter().filter_map(view).collect(), total_bytes)
}
