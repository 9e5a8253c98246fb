//! What was alive at exit, by call stack.

use schemars::JsonSchema;
use serde::Serialize;

use super::frames::CallStack;
use super::process::ThreadName;
use crate::model::Model;
use crate::trace::Contents;

/// The blocks of one call stack that were alive at exit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LeakSite {
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Age of the oldest of them at its process's last event, nanoseconds.
    pub oldest_ns: u64,
    /// Age of the youngest, nanoseconds.
    pub youngest_ns: u64,
    /// All allocations of this stack, for comparison.
    pub allocations: u64,
    /// The threads that allocated them.
    pub threads: Vec<ThreadName>,
    /// Where they were allocated.
    #[serde(flatten)]
    pub at: CallStack,
}

/// Everything that was alive at exit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Leaks {
    /// Requested bytes alive at exit.
    pub bytes: u64,
    /// Blocks alive at exit.
    pub blocks: u64,
    /// Blocks that forked children had from their parents and did not free; not part of the sums.
    pub inherited_blocks: u64,
    /// Requested bytes of these.
    pub inherited_bytes: u64,
    /// How many threads the recording has in all.
    pub threads: u64,
    /// By call stack: most bytes first, then most blocks, then by name.
    pub sites: Vec<LeakSite>,
}

impl Leaks {
    pub(super) fn of(contents: &Contents, model: &Model) -> Leaks {
        let sum = &model.sum;
        let mut sites: Vec<_> = sum
            .sites
            .iter()
            .filter(|site| site.alive.blocks > 0)
            .map(|site| LeakSite {
                bytes: site.alive.bytes,
                blocks: site.alive.blocks,
                oldest_ns: site.alive.oldest_ns,
                youngest_ns: site.alive.youngest_ns,
                allocations: site.allocations,
                threads: site.alive.threads.iter().map(|&thread| ThreadName::of(contents, thread)).collect(),
                at: CallStack::of(contents, site.stack, site.call),
            })
            .collect();
        sites.sort_by(|a, b| (b.bytes, b.blocks, &a.at.frames).cmp(&(a.bytes, a.blocks, &b.at.frames)));
        let inherited = sum.inherited;
        Leaks {
            bytes: sum.totals.alive_bytes,
            blocks: sum.totals.alive_blocks,
            inherited_blocks: inherited.blocks - inherited.freed_blocks,
            inherited_bytes: inherited.bytes.saturating_sub(inherited.freed_bytes),
            threads: sum.threads.len() as u64,
            sites,
        }
    }
}
