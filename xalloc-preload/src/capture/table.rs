//! The table of rules that all threads share: return address -> [`Rule`].
//!
//! A rule costs 2 us to work out and 2 ns to find; a program has a few hundred to some ten thousand return addresses
//! on its allocation paths, the same in every thread.
//!
//! # Invariant
//! An entry is two words, `check == key ^ mix(rule)`. Threads write both without any order between them: a reader that
//! meets a mixture of two writers' words finds no rule, never a wrong one (the scheme of Hyatt and Mann, "A lockless
//! transposition table"), and writes the entry anew. The key holds the generation of the module map, so a thread that
//! stalls over a `dlclose` writes an entry that nobody asks for.
//!
//! # Why not claim an entry with a compare-exchange
//! Then a rule's word is stored after its key is visible, and emptying the table meanwhile gives the stalled store to
//! another key. The self-checking entry has no such state, and may be overwritten when its bucket is full.

use xalloc_core::intern::FrameWord;
use xalloc_core::primitive::{AtomicU64, Ordering};

use super::rule::Rule;

/// Buckets of one cache line: 2 MiB of address space, of which the pages that are used become memory.
const BUCKETS: usize = 1 << 15;
const WAYS: usize = 4;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[repr(C)]
struct Slot {
    check: AtomicU64,
    rule: AtomicU64,
}

#[repr(C, align(64))]
pub(crate) struct Bucket([Slot; WAYS]);

/// The memory of a table. Zeroed memory is an empty one.
pub(crate) type Buckets = [Bucket; BUCKETS];

/// The table in its memory.
#[derive(Clone, Copy)]
pub(crate) struct RuleTable<'a>(pub(crate) &'a Buckets);

/// A code address in one generation of the module map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key(u64);

impl Key {
    #[inline(always)]
    pub(crate) fn new(word: FrameWord, generation: u32) -> Key {
        Key(word.0 ^ u64::from(generation).wrapping_mul(GOLDEN))
    }

    #[inline(always)]
    fn bucket(self) -> usize {
        (self.0.wrapping_mul(GOLDEN) >> (64 - BUCKETS.trailing_zeros())) as usize
    }
}

#[inline(always)]
fn mix(rule: Rule) -> u64 {
    rule.0.wrapping_mul(GOLDEN)
}

impl RuleTable<'_> {
    #[inline(always)]
    pub(crate) fn get(&self, key: Key) -> Option<Rule> {
        for slot in &self.0[key.bucket()].0 {
            // Relaxed: the words prove each other, and nothing else is read on their account.
            let rule = Rule(slot.rule.load(Ordering::Relaxed));
            if slot.check.load(Ordering::Relaxed) == key.0 ^ mix(rule) {
                return Some(rule);
            }
        }
        None
    }

    /// Enters a rule; into a full bucket over one of its entries.
    pub(crate) fn put(&self, key: Key, rule: Rule) {
        let bucket = &self.0[key.bucket()].0;
        let free = bucket.iter().find(|slot| slot.rule.load(Ordering::Relaxed) == 0);
        let victim = &bucket[(key.0 >> 4) as usize % WAYS];
        let slot = free.unwrap_or(victim);
        slot.rule.store(rule.0, Ordering::Relaxed);
        slot.check.store(key.0 ^ mix(rule), Ordering::Relaxed);
    }

    /// Removes all entries. Those that other threads enter meanwhile may stay; their keys' generation is over.
    pub(crate) fn empty(&self) {
        for slot in self.0.iter().flat_map(|bucket| &bucket.0) {
            if slot.rule.load(Ordering::Relaxed) != 0 {
                slot.rule.store(0, Ordering::Relaxed);
                slot.check.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::rule::{CallerFp, Kind};

    fn memory() -> Box<Buckets> {
        let slot = || Slot { check: AtomicU64::new(0), rule: AtomicU64::new(0) };
        let buckets: Vec<Bucket> = (0..BUCKETS).map(|_| Bucket(std::array::from_fn(|_| slot()))).collect();
        buckets.into_boxed_slice().try_into().ok().expect("the right length")
    }

    fn rule(of: u64) -> Rule {
        Rule::new(Kind::Sp, (of % 4096) as i64 * 8, CallerFp::Same)
    }

    #[test]
    fn a_rule_is_found_under_its_address_and_generation_only() {
        let memory = memory();
        let table = RuleTable(&memory);
        let word = FrameWord::return_address(0x7f00_1234_5678);
        table.put(Key::new(word, 1), rule(5));
        assert_eq!(table.get(Key::new(word, 1)), Some(rule(5)));
        assert_eq!(table.get(Key::new(word, 2)), None);
        assert_eq!(table.get(Key::new(FrameWord::interrupted(0x7f00_1234_5678), 1)), None);
        table.empty();
        assert_eq!(table.get(Key::new(word, 1)), None);
    }

    #[test]
    fn more_addresses_than_entries_replace_each_other_and_never_answer_for_one_another() {
        let memory = memory();
        let table = RuleTable(&memory);
        for address in 0..400_000_u64 {
            table.put(Key::new(FrameWord::return_address(0x40_0000 + address * 5), 0), rule(address));
        }
        let mut found = 0;
        for address in 0..400_000_u64 {
            if let Some(got) = table.get(Key::new(FrameWord::return_address(0x40_0000 + address * 5), 0)) {
                assert_eq!(got, rule(address));
                found += 1;
            }
        }
        assert!(found > BUCKETS * WAYS / 2, "{found}");
    }

    #[test]
    fn threads_that_write_the_same_buckets_at_once_never_make_a_wrong_rule() {
        let memory = memory();
        let table = RuleTable(&memory);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    for turn in 0..200_000_u64 {
                        let address = (turn * 7 + thread * 13) % 300_000;
                        let key = Key::new(FrameWord::return_address(0x1000 + address), 0);
                        match table.get(key) {
                            Some(found) => assert_eq!(found, rule(address)),
                            None => table.put(key, rule(address)),
                        }
                    }
                });
            }
        });
    }
}
