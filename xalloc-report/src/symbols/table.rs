//! Names by address from symbol tables: what is left when there is no DWARF.
//!
//! One address often has several names (`malloc`, `__libc_malloc`, `__malloc`); the table keeps one for each, the same on
//! every run. A full `.symtab` outranks `.dynsym`, a typed function a bare label, a name with fewer leading underscores
//! one with more, a global one a local one.
//!
//! Names stay in the file's bytes until one is asked for: a hostile table can give millions of symbols the same
//! megabyte as their name.
//!
//! # Invariant
//! Entries are sorted by address and no address is there twice.

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, SymbolSection};

use super::demangle::MAX_MANGLED_BYTES;

/// How many entries before the nearest one are asked whether they cover an address. Functions do not nest; labels of
/// hand-written assembler inside of them do, a few at a time.
const LOOK_BACK: usize = 16;

/// How many leading underscores are counted; more make no name worse.
const MAX_UNDERSCORES: usize = 8;

/// One named range of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol<'a> {
    /// Where it begins, as an ELF virtual address.
    pub(super) start: u64,
    /// Where it ends, not included.
    pub(super) end: u64,
    /// The linker's name, still mangled, in no promised encoding.
    pub(super) name: &'a [u8],
    /// Whether this is the PLT stub that leads to the function of this name.
    pub(super) is_stub: bool,
}

impl Symbol<'_> {
    /// The name as text, `name@plt` for a stub; cut to a length at which it can be demangled.
    pub(super) fn linker_name(&self) -> String {
        let name = &self.name[..self.name.len().min(MAX_MANGLED_BYTES)];
        let mut text = String::from_utf8_lossy(name).into_owned();
        if self.is_stub {
            text.push_str("@plt");
        }
        text
    }
}

/// Names of code by address.
#[derive(Debug, Default)]
pub(super) struct Table<'a> {
    symbols: Vec<Symbol<'a>>,
}

/// A symbol with what decides between it and others at the same address.
struct Candidate<'a> {
    start: u64,
    size_bytes: u64,
    section_end: u64,
    rank: Rank,
    name: &'a [u8],
}

/// Less is better. The fields compare in this order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    source: usize,
    is_label: bool,
    underscores: usize,
    is_local: bool,
    is_weak: bool,
}

impl<'a> Table<'a> {
    /// Collects the symbols of `images`, the better source first, and `extra` (PLT entries) where nothing else is named.
    pub(super) fn collect<'f>(images: impl IntoIterator<Item = &'f ElfFile64<'a>>, extra: Vec<Symbol<'a>>) -> Self
    where
        'a: 'f,
    {
        let mut candidates = Vec::new();
        for (source, elf) in images.into_iter().enumerate() {
            let code = code_section_ends(elf);
            candidates.extend(elf.symbols().filter_map(|symbol| candidate(&symbol, 2 * source, &code)));
            candidates.extend(elf.dynamic_symbols().filter_map(|symbol| candidate(&symbol, 2 * source + 1, &code)));
        }
        candidates.sort_unstable_by(|a, b| (a.start, &a.rank, a.name).cmp(&(b.start, &b.rank, b.name)));
        candidates.dedup_by_key(|candidate| candidate.start);

        let next_starts: Vec<u64> = candidates.iter().skip(1).map(|next| next.start).chain([u64::MAX]).collect();
        let mut symbols: Vec<Symbol<'_>> = candidates
            .into_iter()
            .zip(next_starts)
            .map(|(candidate, next_start)| {
                // Assembler without `.size` reaches to the next symbol or the end of its section.
                let end = match candidate.size_bytes {
                    0 => next_start.min(candidate.section_end),
                    size_bytes => candidate.start.saturating_add(size_bytes),
                };
                Symbol { start: candidate.start, end, name: candidate.name, is_stub: false }
            })
            .collect();
        symbols.extend(extra);
        // The sort is stable, so a PLT entry loses to a symbol at the same address.
        symbols.sort_by_key(|symbol| symbol.start);
        symbols.dedup_by_key(|symbol| symbol.start);
        Table { symbols }
    }

    /// The symbol that covers `address`.
    pub(super) fn find(&self, address: u64) -> Option<&Symbol<'a>> {
        let after = self.symbols.partition_point(|symbol| symbol.start <= address);
        self.symbols[after.saturating_sub(LOOK_BACK)..after].iter().rev().find(|symbol| address < symbol.end)
    }

    /// Start addresses in ascending order.
    pub(super) fn starts(&self) -> impl Iterator<Item = u64> + '_ {
        self.symbols.iter().map(|symbol| symbol.start)
    }
}

/// For each section, by index: where it ends if it holds code.
fn code_section_ends(elf: &ElfFile64<'_>) -> Vec<Option<u64>> {
    let mut ends = Vec::new();
    for section in elf.sections() {
        let is_code = matches!(
            section.flags(),
            SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(object::elf::SHF_EXECINSTR)
        );
        let index = section.index().0;
        // Section indices count up from 1, so this grows by one a turn.
        ends.resize(index + 1, None);
        ends[index] = is_code.then(|| section.address().saturating_add(section.size()));
    }
    ends
}

fn candidate<'a>(symbol: &impl ObjectSymbol<'a>, source: usize, code: &[Option<u64>]) -> Option<Candidate<'a>> {
    let is_label = matches!(symbol.kind(), SymbolKind::Unknown | SymbolKind::Label);
    // Data, files, sections and thread-local variables are no functions.
    if !is_label && symbol.kind() != SymbolKind::Text {
        return None;
    }
    let SymbolSection::Section(index) = symbol.section() else { return None };
    let section_end = (*code.get(index.0)?)?;
    let name = symbol.name_bytes().ok()?;
    // `$x` and `$d` mark code and data on other processors and name nothing; neither do local labels `.L1`.
    if name.is_empty() || name.starts_with(b"$") || name.starts_with(b".L") {
        return None;
    }
    Some(Candidate {
        start: symbol.address(),
        size_bytes: symbol.size(),
        section_end,
        rank: Rank {
            source,
            is_label,
            underscores: name.iter().take(MAX_UNDERSCORES).take_while(|byte| **byte == b'_').count(),
            is_local: symbol.is_local(),
            is_weak: symbol.is_weak(),
        },
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(start: u64, end: u64, name: &str) -> Symbol<'_> {
        Symbol { start, end, name: name.as_bytes(), is_stub: false }
    }

    #[test]
    fn an_address_between_two_functions_belongs_to_neither() {
        let table = Table { symbols: vec![symbol(0x10, 0x20, "a"), symbol(0x30, 0x40, "b")] };
        let name_at = |address| table.find(address).map(|symbol| symbol.linker_name());
        assert_eq!(name_at(0x0f), None);
        assert_eq!(name_at(0x10), Some("a".into()));
        assert_eq!(name_at(0x1f), Some("a".into()));
        assert_eq!(name_at(0x20), None);
        assert_eq!(name_at(0x3f), Some("b".into()));
        assert_eq!(name_at(u64::MAX), None);
    }

    #[test]
    fn a_label_inside_a_function_does_not_hide_the_function_behind_it() {
        let table = Table { symbols: vec![symbol(0x10, 0x40, "outer"), symbol(0x20, 0x24, "label")] };
        assert_eq!(table.find(0x22).unwrap().name, b"label");
        assert_eq!(table.find(0x30).unwrap().name, b"outer");
    }
}
