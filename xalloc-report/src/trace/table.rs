//! From an address to the slot of the block that lives there.
//!
//! Two levels: a leaf holds one entry of four bytes for each 16 bytes of 1 MiB of addresses, a map finds the leaf. A
//! program's neighbours in time are neighbours in address, so the leaf is mostly the one of the last look-up, and
//! the entry is in a cache line that is already there: 8 to 24 ns an event, where hash maps of addresses took 45 to
//! 100. The price is memory: a quarter of the range that the program's live blocks are spread over, which is why a
//! leaf is released as soon as nothing lives in it.
//!
//! # What is gone
//! An entry outlives its block: it says which slot the last block at the address had. An allocator hands out the same
//! chunks over and over, and that slot is how the encoder names them.
//!
//! # Invariant
//! A leaf's `live` is the number of its entries for blocks that live. A leaf without any is `idle` and waits in the
//! queue of those, where it is the next but [`IDLE_LEAVES`] to be released; one that has become idle and busy again
//! may still stand there.
//!
//! # Addresses that are no multiple of 16
//! glibc's rules never give one. An allocator that spaces its smallest class by 8 does; those go to an ordinary map,
//! which costs them a hash look-up and everyone else one test. A finer grain (`addr >> 3`) would double every leaf.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use xalloc_core::sys::prefetch;

const LEAF_SHIFT: u32 = 20;
const ENTRIES: usize = 1 << (LEAF_SHIFT - 4);
/// Leaves without live blocks that are kept, so that a program that sways around a boundary does not map and unmap.
const IDLE_LEAVES: usize = 4;
/// Leaves found without the map: a direct-mapped cache by the low bits of the leaf's number, for 1 GiB in a row.
const NEAR_LEAVES: usize = 1024;
const NO_LEAF: (u64, u32) = (u64::MAX, 0);

/// What an address was used for last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// The block in this slot lives there.
    Live(u32),
    /// The last block there had this slot, and is gone.
    Gone(u32),
}

/// An entry in four bytes: the slot plus one, and this bit if its block is gone; 0 is none. Slots have 31 bits.
const GONE: u32 = 1 << 31;

#[inline]
fn read(word: u32) -> Option<Entry> {
    let slot = (word & !GONE).checked_sub(1)?;
    Some(if word & GONE == 0 { Entry::Live(slot) } else { Entry::Gone(slot) })
}

/// The entry of an address.
pub(super) struct Place<'a> {
    word: &'a mut u32,
    live: &'a mut u32,
}

impl Place<'_> {
    /// What the address was used for last.
    #[inline]
    pub(super) fn entry(&self) -> Option<Entry> {
        read(*self.word)
    }

    /// Says that `slot` is there, where nothing lives.
    #[inline]
    pub(super) fn insert(self, slot: u32) {
        debug_assert!(*self.word == 0 || *self.word & GONE != 0, "the caller frees what is at the address first");
        *self.word = slot + 1;
        *self.live += 1;
    }
}

struct Leaf {
    /// Empty once it was released.
    entries: Box<[u32]>,
    number: u64,
    live: u32,
    /// Whether it stands in the queue of leaves that had no live block.
    is_queued: bool,
}

/// The live addresses of one process.
pub(super) struct Table {
    leaves: Vec<Leaf>,
    by_number: FxHashMap<u64, u32>,
    near: [(u64, u32); NEAR_LEAVES],
    /// Places in `leaves` of those that became idle, the oldest first.
    idle: VecDeque<u32>,
    /// Places in `leaves` whose memory was released.
    vacant: Vec<u32>,
    unaligned: FxHashMap<u64, u32>,
    /// Nobody asks for it: a [`Place`] counts wherever it is.
    unaligned_live: u32,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            leaves: Vec::new(),
            by_number: FxHashMap::default(),
            near: [NO_LEAF; NEAR_LEAVES],
            idle: VecDeque::new(),
            vacant: Vec::new(),
            unaligned: FxHashMap::default(),
            unaligned_live: 0,
        }
    }

    /// What is or was at `addr`.
    #[inline]
    pub(super) fn get(&self, addr: u64) -> Option<Entry> {
        if addr & 15 != 0 {
            return self.unaligned.get(&addr).and_then(|word| read(*word));
        }
        let leaf = self.leaves.get(*self.by_number.get(&(addr >> LEAF_SHIFT))? as usize)?;
        read(*leaf.entries.get(entry_of(addr))?)
    }

    /// The entry of `addr`, at which the caller is going to insert.
    #[inline(always)]
    pub(super) fn place(&mut self, addr: u64) -> Place<'_> {
        if addr & 15 != 0 {
            return self.unaligned_place(addr);
        }
        let number = addr >> LEAF_SHIFT;
        let place = self.find(number).unwrap_or_else(|| self.make(number));
        let Leaf { entries, live, .. } = &mut self.leaves[place as usize];
        Place { word: &mut entries[entry_of(addr)], live }
    }

    /// The word of an address whose leaf is near.
    #[inline(always)]
    fn near_word(&self, addr: u64) -> Option<&u32> {
        let number = addr >> LEAF_SHIFT;
        let near = self.near[number as usize % NEAR_LEAVES];
        let leaf = self.leaves.get(near.1 as usize).filter(|_| near.0 == number)?;
        leaf.entries.get(entry_of(addr))
    }

    /// Asks the processor for the entry of `addr`.
    #[inline(always)]
    pub(super) fn prefetch(&self, addr: u64) {
        if let Some(word) = self.near_word(addr) {
            prefetch(word);
        }
    }

    /// The slot that the last block at `addr` had, where that is known at once.
    #[inline(always)]
    pub(super) fn likely_slot(&self, addr: u64) -> Option<u32> {
        let (Entry::Live(slot) | Entry::Gone(slot)) = read(*self.near_word(addr)?)?;
        Some(slot)
    }

    #[inline(never)]
    fn unaligned_place(&mut self, addr: u64) -> Place<'_> {
        Place { word: self.unaligned.entry(addr).or_insert(0), live: &mut self.unaligned_live }
    }

    /// The block at `addr` is gone; returns its slot, if there was one.
    #[inline]
    pub(super) fn remove(&mut self, addr: u64) -> Option<u32> {
        if addr & 15 != 0 {
            return self.remove_unaligned(addr);
        }
        let place = self.find(addr >> LEAF_SHIFT)?;
        let leaf = self.leaves.get_mut(place as usize)?;
        let entry = leaf.entries.get_mut(entry_of(addr))?;
        let Some(Entry::Live(slot)) = read(*entry) else { return None };
        *entry |= GONE;
        leaf.live -= 1;
        if leaf.live == 0 && !leaf.is_queued {
            self.queue(place);
        }
        Some(slot)
    }

    #[inline(never)]
    fn remove_unaligned(&mut self, addr: u64) -> Option<u32> {
        let word = self.unaligned.remove(&addr)?;
        self.unaligned_live -= 1;
        match read(word)? {
            Entry::Live(slot) | Entry::Gone(slot) => Some(slot),
        }
    }

    #[inline]
    fn find(&mut self, number: u64) -> Option<u32> {
        let near = self.near[number as usize % NEAR_LEAVES];
        if near.0 == number { Some(near.1) } else { self.find_far(number) }
    }

    #[inline(never)]
    fn find_far(&mut self, number: u64) -> Option<u32> {
        let &place = self.by_number.get(&number)?;
        self.near[number as usize % NEAR_LEAVES] = (number, place);
        Some(place)
    }

    #[cold]
    fn make(&mut self, number: u64) -> u32 {
        let entries = vec![0; ENTRIES].into_boxed_slice();
        let leaf = Leaf { entries, number, live: 0, is_queued: false };
        let place = if let Some(place) = self.vacant.pop() {
            self.leaves[place as usize] = leaf;
            place
        } else {
            self.leaves.push(leaf);
            u32::try_from(self.leaves.len() - 1).expect("2^28 leaves cover 48 bits of address")
        };
        self.by_number.insert(number, place);
        place
    }

    /// A leaf has become idle: of those, the one that did longest ago is released.
    #[cold]
    fn queue(&mut self, place: u32) {
        self.leaves[place as usize].is_queued = true;
        self.idle.push_back(place);
        if self.idle.len() <= IDLE_LEAVES {
            return;
        }
        let Some(oldest) = self.idle.pop_front() else { return };
        let leaf = &mut self.leaves[oldest as usize];
        leaf.is_queued = false;
        if leaf.live == 0 {
            leaf.entries = Box::default();
            self.by_number.remove(&leaf.number);
            self.near[leaf.number as usize % NEAR_LEAVES] = NO_LEAF;
            self.vacant.push(oldest);
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
                let live = table.get(addr).filter(|entry| matches!(entry, Entry::Live(_)));
                prop_assert_eq!(live, oracle.get(&addr).map(|&slot| Entry::Live(slot)));
                if insert && !oracle.contains_key(&addr) {
                    table.place(addr).insert(slot as u32);
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
            table.place(number << LEAF_SHIFT).insert(number as u32);
        }
        assert_eq!(table.covered_bytes(), 100 << LEAF_SHIFT);
        for number in 0..100 {
            assert_eq!(table.remove(number << LEAF_SHIFT), Some(number as u32));
        }
        assert_eq!(table.covered_bytes(), (IDLE_LEAVES as u64) << LEAF_SHIFT);
    }
    #[test]
    fn an_address_tells_the_slot_of_its_last_block_when_that_is_gone() {
        let mut table = Table::new();
        table.place(0x1000).insert(7);
        assert_eq!(table.get(0x1000), Some(Entry::Live(7)));
        assert_eq!(table.remove(0x1000), Some(7));
        assert_eq!((table.get(0x1000), table.remove(0x1000)), (Some(Entry::Gone(7)), None));
        assert_eq!((table.likely_slot(0x1000), table.likely_slot(0x2000)), (Some(7), None));
        table.place(0x1000).insert(9);
        assert_eq!(table.get(0x1000), Some(Entry::Live(9)));
    }
}
