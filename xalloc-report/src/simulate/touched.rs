//! What the program had written of its larger blocks, as far as the looks at its memory tell.
//!
//! Which pages are resident is known at the looks alone. A block that one of them met has as many bytes as lay on resident
//! pages when most did; of a block that came and went between two looks nothing is known, and of one smaller than a page
//! nothing need be.

use rustc_hash::FxHashMap;
use xalloc_core::units::PAGE_BYTES;

use crate::trace::{Block, Snapshot};

/// The blocks of a page and more that live, and what is known of all that did.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Looks that have not come yet, the next one last.
    looks: Vec<Snapshot>,
    /// By slot: address, size, number of the allocation.
    living: FxHashMap<u32, (u64, u64, u32)>,
    written: FxHashMap<u32, u64>,
}

impl Watcher {
    /// Of a process that was looked at so, in order of time.
    pub(super) fn of(mut looks: Vec<Snapshot>) -> Watcher {
        looks.reverse();
        Watcher { looks, living: FxHashMap::default(), written: FxHashMap::default() }
    }

    /// The next event is of that time.
    #[inline]
    pub(super) fn tick(&mut self, at_ns: u64) {
        while let Some(look) = self.looks.pop_if(|look| look.at_ns < at_ns) {
            self.look(&look);
        }
    }

    /// The allocation of that number made a block.
    #[inline]
    pub(super) fn made(&mut self, allocation: u32, slot: u32, block: &Block) {
        if block.size_bytes >= PAGE_BYTES {
            self.living.insert(slot, (block.addr, block.size_bytes, allocation));
        }
    }

    /// The block of that slot is gone, or becomes another.
    #[inline]
    pub(super) fn gone(&mut self, slot: u32, block: &Block) {
        if block.size_bytes >= PAGE_BYTES {
            self.living.remove(&slot);
        }
    }

    fn look(&mut self, look: &Snapshot) {
        let resident = Resident::of(look);
        for &(addr, size_bytes, allocation) in self.living.values() {
            let Some(bytes) = resident.bytes_of(addr, size_bytes) else { continue };
            let most = self.written.entry(allocation).or_default();
            *most = bytes.max(*most);
        }
    }

    /// By number of the allocation, how many of its bytes the program had written when it was looked at.
    pub(super) fn finish(mut self) -> FxHashMap<u32, u64> {
        self.tick(u64::MAX);
        self.written
    }
}

/// Where the resident pages of a look lie, by address.
struct Resident {
    /// Mappings that were looked at page by page.
    known: Vec<(u64, u64)>,
    runs: Vec<(u64, u64)>,
}

impl Resident {
    fn of(look: &Snapshot) -> Resident {
        let mut resident = Resident { known: Vec::new(), runs: Vec::new() };
        for mapping in &look.mappings {
            let Some(runs) = mapping.resident_runs() else { continue };
            resident.known.push((mapping.start, mapping.end));
            resident.runs.extend(runs);
        }
        resident
    }

    /// Bytes of `[addr, addr + size_bytes)` on resident pages; `None`: it was not looked at page by page.
    fn bytes_of(&self, addr: u64, size_bytes: u64) -> Option<u64> {
        let end = addr.checked_add(size_bytes)?;
        let around = self.known.get(self.known.partition_point(|&(_, to)| to <= addr))?;
        if addr < around.0 || around.1 < end {
            return None;
        }
        let first = self.runs.partition_point(|&(_, to)| to <= addr);
        let within = self.runs[first..].iter().take_while(|&&(from, _)| from < end);
        Some(within.map(|&(from, to)| to.min(end) - from.max(addr)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Mapping, PagesFrom, ProcessIndex, Reason};

    #[test]
    fn the_bytes_of_a_block_on_resident_pages_are_counted() {
        let mapping = Mapping {
            start: 0x10_000,
            end: 0x20_000,
            rights: 3,
            name: String::new(),
            resident_bytes: 5 * PAGE_BYTES,
            anonymous_bytes: 5 * PAGE_BYTES,
            runs: Some(vec![(1, 2), (4, 3)]),
        };
        let look = Snapshot {
            process: ProcessIndex(0),
            at_ns: 1,
            reason: Reason::Peak,
            cost_ns: 0,
            resident_bytes: 5 * PAGE_BYTES,
            swapped_bytes: 0,
            minor_faults: 0,
            major_faults: 0,
            pages_from: PagesFrom::Pagemap,
            mappings: vec![mapping],
        };
        let resident = Resident::of(&look);
        assert_eq!(resident.bytes_of(0x10_010, 0x1_000), Some(0x10), "the end of the block is on the first such page");
        assert_eq!(resident.bytes_of(0x11_010, 0x8_000), Some(2 * 0x1_000 - 0x10 + 2 * 0x1_000 + 0x10));
        assert_eq!(resident.bytes_of(0x13_000, 0x1_000), Some(0));
        assert_eq!(resident.bytes_of(0x1f_000, 0x2_000), None, "its end was not looked at");
        assert_eq!(resident.bytes_of(0x1f_000, u64::MAX), None, "a size that no block has");
    }
}
