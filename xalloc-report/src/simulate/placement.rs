//! Whether the simulated heap puts a block where the recorded one did.
//!
//! Addresses of two processes differ by where the kernel put the break and the mappings. What has to be equal is the
//! distance to the break's beginning; in a sub-heap of a thread's arena, the distance to the sub-heap's beginning, with
//! each recorded sub-heap meeting one and the same simulated one; of a block with a mapping of its own, the place
//! within the page. And in each case the usable size.

use rustc_hash::FxHashMap;
use xalloc_core::heap::Allocation;
use xalloc_core::heap::sim::{BREAK_BASE, Simulation};
use xalloc_core::units::PAGE_BYTES;

use super::requests::Placed;

/// The first allocation that is not where the recording has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parting {
    /// Number of the allocation in the process, from 0, reallocs included.
    pub allocation: u64,
    /// The recorded user address.
    pub recorded: u64,
    /// The recorded usable size less the requested one.
    pub recorded_slack_bytes: u16,
    /// The simulated block's address as the recording would have it, if it is in the break.
    pub simulated: Option<u64>,
    /// The simulated usable size less the requested one.
    pub simulated_slack_bytes: u64,
}

/// What has been seen of both heaps so far.
#[derive(Debug)]
pub(super) struct Placement {
    /// Where the recorded main arena begins, and where the simulated one does.
    bases: Option<(u64, u64)>,
    /// The simulated sub-heap of each recorded one.
    sub_heaps: FxHashMap<u64, u64>,
    compared: u64,
}

impl Placement {
    /// `lead_bytes` is how far from [`BREAK_BASE`] the simulated main arena begins.
    pub(super) fn new(recorded_base: Option<u64>, lead_bytes: u64) -> Placement {
        let bases = recorded_base.map(|base| (base, BREAK_BASE + lead_bytes));
        Placement { bases, sub_heaps: FxHashMap::default(), compared: 0 }
    }

    /// Compares the next allocation, a request of `size` bytes with the alignment `1 << align_log2`.
    pub(super) fn compare(
        &mut self,
        simulation: &Simulation,
        placed: Placed,
        block: &Allocation,
        size: u64,
        align_log2: u8,
    ) -> Option<Parting> {
        let slack = block.usable_bytes.saturating_sub(size);
        let words = simulation.block(block.addr);
        let place = block.addr.0;
        let is_in_break = place < BREAK_BASE + (1 << 44);
        let (base, simulated_base) =
            *self.bases.get_or_insert((placed.addr().wrapping_sub(place - BREAK_BASE), BREAK_BASE));
        let expected = is_in_break.then(|| place - simulated_base + base);
        let is_equal = match (expected, words.sub_heap) {
            (Some(expected), _) => expected == placed.addr(),
            (None, Some(_)) => {
                // Sub-heaps are aligned to their largest size (placement policy, section 1).
                let within = simulation.heap().sub_heap_bytes() - 1;
                let recorded = placed.addr() & !within;
                let simulated = *self.sub_heaps.entry(recorded).or_insert(place & !within);
                placed.addr() - recorded == place.wrapping_sub(simulated)
            }
            (None, None) => placed.addr() % PAGE_BYTES == place % PAGE_BYTES,
        };
        // How much of a mapping lies before a block that is aligned to more than a page depends on where the kernel
        // puts the mapping.
        let is_free_to_differ = words.is_mapped && 1 << align_log2.min(63) > PAGE_BYTES;
        let slack_is_equal = slack.min(u64::from(u16::MAX)) == u64::from(placed.slack_bytes());
        let allocation = self.compared;
        self.compared += 1;
        (!is_equal || !(slack_is_equal || is_free_to_differ)).then_some(Parting {
            allocation,
            recorded: placed.addr(),
            recorded_slack_bytes: placed.slack_bytes(),
            simulated: expected,
            simulated_slack_bytes: slack,
        })
    }

    /// The simulated heap refused the next allocation.
    pub(super) fn refused(&mut self, placed: Placed) -> Parting {
        self.compared += 1;
        Parting {
            allocation: self.compared - 1,
            recorded: placed.addr(),
            recorded_slack_bytes: placed.slack_bytes(),
            simulated: None,
            simulated_slack_bytes: 0,
        }
    }

    /// Allocations that were compared.
    pub(super) fn compared(&self) -> u64 {
        self.compared
    }
}
