//! Which file an address belonged to, at the time of each stack.
//!
//! A process announces its modules as they come into use. When `dlclose` unmaps one, its addresses can be used again
//! by another, so the process counts generations and marks its stacks with them; a generation begins with all modules
//! of the one before, and what is announced in it replaces what it overlaps. A forked child begins with its parent's.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::trace::ModuleIndex;

/// Generations that are told apart; a program that closes more libraries than this (or lies) gets the last table for
/// the rest, and wrong names for code whose address was used twice.
const MOST_GENERATIONS: usize = 1 << 12;

/// Modules of one process, by generation and address.
#[derive(Clone, Debug)]
pub(crate) struct ModuleTables {
    /// Ascending by generation; never empty.
    generations: Vec<(u32, Ranges)>,
    /// What a serial number of the process stands for, until its ranges have come.
    announced: HashMap<u16, Announced, FxBuildHasher>,
}

#[derive(Clone, Copy, Debug)]
struct Announced {
    module: ModuleIndex,
    bias: u64,
}

/// Disjoint ranges, ascending.
type Ranges = Vec<Range>;

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    announced: Announced,
}

/// A code address in terms of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Located {
    pub(crate) module: ModuleIndex,
    /// The address as the file's ELF headers count it.
    pub(crate) address: u64,
}

impl ModuleTables {
    pub(crate) fn new() -> ModuleTables {
        ModuleTables { generations: vec![(0, Vec::new())], announced: HashMap::default() }
    }

    /// The process named `module` with `serial`; ranges that name the serial from here on belong to it.
    pub(crate) fn announce(&mut self, serial: u16, module: ModuleIndex, bias: u64) {
        self.announced.insert(serial, Announced { module, bias });
    }

    /// `[start, start + len_bytes)` belongs to the module that was announced with `serial`. False if none was.
    pub(crate) fn add_range(&mut self, serial: u16, start: u64, len_bytes: u64) -> bool {
        let Some(&announced) = self.announced.get(&serial) else { return false };
        let end = start.saturating_add(len_bytes);
        let ranges = &mut self.generations.last_mut().expect("a first generation always exists").1;
        ranges.retain(|range| range.end <= start || end <= range.start);
        let at = ranges.partition_point(|range| range.start < start);
        ranges.insert(at, Range { start, end, announced });
        true
    }

    /// Stacks captured from here on belong to `generation`.
    pub(crate) fn begin_generation(&mut self, generation: u32) {
        let (last, ranges) = self.generations.last().expect("a first generation always exists");
        if generation > *last && self.generations.len() < MOST_GENERATIONS {
            let ranges = ranges.clone();
            self.generations.push((generation, ranges));
        }
    }

    /// Where `address` lay in `generation`. `code_at` is a byte of the instruction that is meant: for a return address
    /// the one before it, since a call may be the last instruction of its module.
    pub(crate) fn locate(&self, generation: u32, address: u64, code_at: u64) -> Option<Located> {
        let after = self.generations.partition_point(|(number, _)| *number <= generation);
        let ranges = &self.generations[after.max(1) - 1].1;
        let range = ranges.get(ranges.partition_point(|range| range.end <= code_at))?;
        let Announced { module, bias } = range.announced;
        (range.start <= code_at).then(|| Located { module, address: address.wrapping_sub(bias) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tables: &ModuleTables, generation: u32, address: u64) -> Option<(u32, u64)> {
        tables.locate(generation, address, address).map(|located| (located.module.0, located.address))
    }

    #[test]
    fn an_address_used_by_two_files_in_turn_belongs_to_the_one_of_its_generation() {
        let mut tables = ModuleTables::new();
        tables.announce(1, ModuleIndex(10), 0x1000);
        assert!(tables.add_range(1, 0x2000, 0x1000));
        tables.begin_generation(1);
        tables.announce(2, ModuleIndex(20), 0x1800);
        assert!(tables.add_range(2, 0x2800, 0x1000));
        assert_eq!(at(&tables, 0, 0x2900), Some((10, 0x1900)));
        assert_eq!(at(&tables, 1, 0x2900), Some((20, 0x1100)));
        assert_eq!(at(&tables, 1, 0x2100), None, "the first module is gone where the second overlaps it");
        assert_eq!(at(&tables, 7, 0x2900), Some((20, 0x1100)));
        assert_eq!(at(&tables, 0, 0x3000), None);
        assert_eq!(at(&tables, 0, 0x1fff), None);
    }

    #[test]
    fn a_call_at_the_very_end_of_a_module_belongs_to_it() {
        let mut tables = ModuleTables::new();
        tables.announce(1, ModuleIndex(10), 0);
        assert!(tables.add_range(1, 0x2000, 0x1000));
        let located = tables.locate(0, 0x3000, 0x2fff).unwrap();
        assert_eq!(located, Located { module: ModuleIndex(10), address: 0x3000 });
    }

    #[test]
    fn ranges_without_a_module_and_generations_without_end_are_refused() {
        let mut tables = ModuleTables::new();
        assert!(!tables.add_range(9, 0, u64::MAX));
        for generation in 0..100_000 {
            tables.begin_generation(generation);
        }
        assert!(tables.generations.len() <= MOST_GENERATIONS);
        tables.begin_generation(3);
        assert!(tables.generations.is_sorted_by_key(|(number, _)| *number));
    }
}
