//! From an address to the slot of the block that lives there.
//!
//! Two levels: a leaf holds one entry of four bytes for each 16 bytes of 1 MiB of addresses, a map finds the leaf. A
//! program's neighbours in time are neighbours in address, so the leaf is mostly the one of the last look-up, and
//! the entry is in a cache line that is already there: 8 to 24 ns an event, where hash maps of addresses took 45 to
//! 100. The price is memory: a quarter of the range that the program's live blocks are spread over, which is why a
//! leaf is released as soon as nothing lives in it.
//!
//! # Invariant
//! A leaf's `live` is the number of its entries that are not empty; a leaf without any is not in the map.
//!
//! # Addresses that are no multiple of 16
//! glibc's rules never give one. An allocator that spaces its smallest class by 8 does; those go to an ordinary map,
//! which costs them a hash look-up and everyone else one test. A finer grain (`addr >> 3`) would double every leaf.

use rustc_hash::FxHashMap;

const LEAF_SHIFT: u32 = 20;
const ENTRIES: usize = 1 << (LEAF_SHIFT - 4);
/// Empty leaves kept for the next range, so that a program that sways around a boundary does not map and unmap.
const SPARE_LEAVES: usize = 4;
/// Leaves found without the map: a direct-mapped cache by the low bits of the leaf's number.
const NEAR_LEAVES: usize = 64;
const NO_LEAF: (u64, u32) = (u64::MAX, 0);

struct Leaf {
    /// Slot plus one; 0 is empty.
    entries: Box<[u32]>,
    live: u32,
}

/// The live addresses of one process.
pub(super) struct Table {
    leaves: Vec<Leaf>,
    by_number: FxHashMap<u64, u32>,
    near: [(u64, u32); NEAR_LEAVES],
    /// Places in `leaves` that are in no map; their entries are all empty.
    spare: Vec<u32>,
    /// Places in `leaves` whose memory was released.
    vacant: Vec<u32>,
    unaligned: FxHashMap<u64, u32>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            leaves: Vec::new(),
            by_number: FxHashMap::default(),
            near: [NO_LEAF; NEAR_LEAVES],
            spare: Vec::new(),
            vacant: Vec::new(),
            unaligned: FxHashMap::default(),
        }
    }

    /// The slot at `addr`.
    #[inline]
    pub(super) fn get(&mut self, addr: u64) -> Option<u32> {
        if addr & 15 != 0 {
            return self.unaligned.get(&addr).copied();
        }
        let leaf = self.find(addr >> LEAF_SHIFT)?;
        self.leaves[leaf as usize].entries[entry_of(addr)].checked_sub(1)
    }

    /// Says that `slot` is at `addr`, where nothing is.
    #[inline]
    pub(super) fn insert(&mut self, addr: u64, slot: u32) {
        if addr & 15 != 0 {
            self.unaligned.insert(addr, slot);
            return;
        }
        let number = addr >> LEAF_SHIFT;
        let place = match self.find(number) {
            Some(place) => place,
            None => self.make(number),
        };
        let leaf = &mut self.leaves[place as usize];
        let entry = &mut leaf.entries[entry_of(addr)];
        debug_assert_eq!(*entry, 0, "the caller frees what is at the address first");
        *entry = slot + 1;
        leaf.live += 1;
    }

    /// Takes the slot at `addr` out.
    #[inline]
    pub(super) fn remove(&mut self, addr: u64) -> Option<u32> {
        if addr & 15 != 0 {
            return self.unaligned.remove(&addr);
        }
        let number = addr >> LEAF_SHIFT;
        let place = self.find(number)?;
        let leaf = &mut self.leaves[place as usize];
        let slot = std::mem::take(&mut leaf.entries[entry_of(addr)]).checked_sub(1)?;
        leaf.live -= 1;
        if leaf.live == 0 {
            self.release(number, place);
        }
        Some(slot)
    }

    #[inline]
    fn find(&mut self, number: u64) -> Option<u32> {
        let near = &mut self.near[number as usize % NEAR_LEAVES];
        if near.0 == number {
            return Some(near.1);
        }
        let &place = self.by_number.get(&number)?;
        *near = (number, place);
        Some(place)
    }

    #[cold]
    fn make(&mut self, number: u64) -> u32 {
        let fresh = || Leaf { entries: vec![0; ENTRIES].into_boxed_slice(), live: 0 };
        let place = if let Some(place) = self.spare.pop() {
            place
        } else if let Some(place) = self.vacant.pop() {
            self.leaves[place as usize] = fresh();
            place
        } else {
            self.leaves.push(fresh());
            u32::try_from(self.leaves.len() - 1).expect("2^28 leaves cover 48 bits of address")
        };
        self.by_number.insert(number, place);
        place
    }

    #[cold]
    fn release(&mut self, number: u64, place: u32) {
        self.by_number.remove(&number);
        self.near[number as usize % NEAR_LEAVES] = NO_LEAF;
        if self.spare.len() < SPARE_LEAVES {
            self.spare.push(place);
        } else {
            self.leaves[place as usize].entries = Box::default();
            self.vacant.push(place);
        }
    }

    /// Bytes of address space that leaves are held for.
    #[cfg(test)]
    fn covered_bytes(&self) -> u64 {
        ((self.leaves.len() - self.vacant.len()) as u64) << LEAF_SHIFT
    }
}

#[inline]
fn entry_of(addr: u64) -> usize {
    (addr >> 4) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn the_table_answers_as_a_hash_map_does(steps in prop::collection::vec((0u64..6, 0u64..40, any::<bool>()), 0..400)) {
            let (mut table, mut oracle) = (Table::new(), HashMap::new());
            for (slot, (megabyte, place, insert)) in steps.into_iter().enumerate() {
                let addr = ((megabyte * 64 + 1) << LEAF_SHIFT) + place * 8;
                prop_assert_eq!(table.get(addr), oracle.get(&addr).copied());
                if insert && !oracle.contains_key(&addr) {
                    table.insert(addr, slot as u32);
                    oracle.insert(addr, slot as u32);
                } else {
                    prop_assert_eq!(table.remove(addr), oracle.remove(&addr));
                }
            }
        }
    }

    #[test]
    fn leaves_without_live_blocks_are_released() {
        let mut table = Table::new();
        for number in 0..100 {
            table.insert(number << LEAF_SHIFT, number as u32);
        }
        assert_eq!(table.covered_bytes(), 100 << LEAF_SHIFT);
        for number in 0..100 {
            assert_eq!(table.remove(number << LEAF_SHIFT), Some(number as u32));
        }
        assert_eq!(table.covered_bytes(), (SPARE_LEAVES as u64) << LEAF_SHIFT);
    }
}
