//! One module, from its files to the frames of its addresses.

use std::path::{Path, PathBuf};

use object::read::elf::ElfFile64;

use super::call::Calls;
use super::dwarf::{self, SectionSet, Sections};
use super::image::Image;
use super::locate::{Found, Opened, Places, locate, supplementary};
use super::split::{Decompressed, Maps, SplitFiles};
use super::table::Table;
use super::trail::Trail;
use super::{Detail, Error, Frame, Missing, Module, minidebug, plt};

/// What is known about the addresses of one module.
pub(super) struct Answer {
    /// For each address: its functions, innermost first; empty when nothing is known.
    pub(super) frames: Vec<Vec<Frame>>,
    /// For each address: the function that the instruction which ends there calls.
    pub(super) callees: Vec<Option<String>>,
    pub(super) detail: Detail,
    pub(super) missing: Vec<Missing>,
    /// Whether it was kept on disk for the first time.
    pub(super) is_written: bool,
}

/// Resolves addresses of `module` (ELF virtual addresses) in batches, whose answers follow one another; the module's
/// files stay open until there are no more. What was looked at is on the trail.
pub(super) fn resolve(
    module: &Module,
    places: &Places,
    trail: &Trail,
    batches: impl Iterator<Item = Vec<u64>>,
) -> Answer {
    let found = locate(module, places, trail);
    let answer = resolve_in(&found, module, places, trail, batches);
    let cut = found.binary.iter().chain(&found.debug).find(|opened| opened.bytes.is_cut());
    match cut {
        // Zeroes stood where names were, and nobody knows which of those that were found were read from them.
        Some(opened) => Answer {
            missing: vec![Missing::Unreadable { path: opened.path.clone(), reason: CUT.to_owned() }],
            ..Answer::nothing(answer.frames.len())
        },
        None => answer,
    }
}

/// Why a file that was opened is not believed.
const CUT: &str = "it was cut short while its symbols were read";

fn resolve_in(
    found: &Found,
    module: &Module,
    places: &Places,
    trail: &Trail,
    mut batches: impl Iterator<Item = Vec<u64>>,
) -> Answer {
    let binary = found.binary.as_ref().and_then(Parsed::of);
    let debug = found.debug.as_ref().and_then(Parsed::of);
    let (looked_for, mut missing) = (found.looked_for.clone(), found.missing.clone());
    // The better source first.
    let files: Vec<&Parsed<'_>> = debug.iter().chain(&binary).collect();

    let mini = binary.as_ref().map_or(Ok(Vec::new()), |file| unpack_mini(&file.image)).unwrap_or_else(|error| {
        missing.push(Missing::Malformed { path: module.path.clone(), reason: error.to_string() });
        Vec::new()
    });
    let mini = ElfFile64::parse(&mini[..]).ok();
    let slots = binary.as_ref().map(|file| plt::slots(&file.image.elf)).unwrap_or_default();
    let stubs = binary.as_ref().map(|file| plt::stubs(&file.image.elf, &slots)).unwrap_or_default();
    let table = Table::collect(files.iter().map(|file| &file.image.elf).chain(&mini), stubs);

    // A debug file has no code.
    let calls = binary.as_ref().map(|file| Calls { elf: &file.image.elf, slots: &slots, table: &table });

    let mut answer = Answer::nothing(0);
    let mut complete = |addresses: &[u64], mut frames: Vec<Vec<Frame>>| {
        for (frames, address) in frames.iter_mut().zip(addresses) {
            name_from_table(frames, *address, &table);
        }
        answer.frames.append(&mut frames);
        let callee = |address: &u64| calls.as_ref().and_then(|calls| calls.callee(*address));
        answer.callees.extend(addresses.iter().map(callee));
    };
    let mut detail = Detail::Nothing;
    if let Some(file) = files.iter().find(|file| file.image.has_dwarf()) {
        let owners = files.iter().map(|file| file.path.to_owned()).collect();
        match (DwarfSource { file, owners, places, trail }).frames(&mut batches, &mut complete, &mut missing) {
            Ok(()) => detail = Detail::Lines,
            Err(error) => {
                missing.push(Missing::Malformed { path: file.path.to_owned(), reason: error.to_string() });
            }
        }
    }
    // Without DWARF, and none of them was taken yet.
    for addresses in batches {
        let unknown = vec![Vec::new(); addresses.len()];
        complete(&addresses, unknown);
    }
    (answer.missing, answer.detail) = (missing, detail);
    if answer.detail == Detail::Nothing {
        // Without DWARF the names are as good as the tables; what would make them better is said.
        let path = module.path.clone();
        if mini.is_some() || files.iter().any(|file| file.image.has_symtab()) {
            answer.detail = Detail::Functions;
            answer.missing.push(Missing::NoLines { path, looked_for });
        } else if binary.is_some() {
            answer.detail = Detail::Exports;
            answer.missing.push(Missing::Stripped { path, looked_for });
        }
    }
    answer
}

impl Answer {
    /// The answer about so many addresses of which nothing is known.
    pub(super) fn nothing(addresses: usize) -> Answer {
        Answer {
            frames: vec![Vec::new(); addresses],
            callees: vec![None; addresses],
            detail: Detail::Nothing,
            missing: Vec::new(),
            is_written: false,
        }
    }
}

fn unpack_mini(image: &Image<'_>) -> Result<Vec<u8>, Error> {
    if image.has_symtab() || !image.has_section(".gnu_debugdata") {
        return Ok(Vec::new());
    }
    minidebug::unpack(&image.section(".gnu_debugdata")?)
}

/// Completes what DWARF left open about the outermost function, the only one that symbol tables know.
fn name_from_table(frames: &mut Vec<Frame>, address: u64, table: &Table<'_>) {
    let Some(symbol) = table.find(address) else { return };
    let named = dwarf::named(&symbol.linker_name());
    let Some(outermost) = frames.last_mut() else {
        frames.push(named);
        return;
    };
    // DWARF has the bare name of a function without linkage name (`main`, a local class's method); the linker's name
    // of the same function adds its scope and its parameters.
    let is_more = match (&outermost.function, &outermost.raw_name, &named.function) {
        (None, _, _) => true,
        (Some(bare), None, Some(full)) => named.raw_name.is_some() && is_scoped(full, bare),
        (Some(_), Some(_), _) | (Some(_), None, None) => false,
    };
    if is_more {
        outermost.function = named.function;
        outermost.raw_name = named.raw_name;
    }
}

/// Whether `full` names the same function as the bare name `bare`, with a scope before it and parameters behind it.
///
/// Template arguments are left out of the comparison, because the two writers space them differently and legacy Rust
/// names have none.
fn is_scoped(full: &str, bare: &str) -> bool {
    let stem = bare.split('<').next().unwrap_or(bare);
    let names_it = full.match_indices(stem).any(|(at, _)| {
        let (scope, rest) = (&full[..at], &full[at + stem.len()..]);
        (scope.is_empty() || scope.ends_with("::")) && (rest.is_empty() || rest.starts_with(['(', '<', ':']))
    });
    // Legacy Rust names do not number their closures.
    !stem.is_empty() && names_it || stem.starts_with("{closure") && full.ends_with("{{closure}}")
}

/// A file with its path, for what lies beside it.
struct Parsed<'a> {
    path: &'a Path,
    image: Image<'a>,
}

impl<'a> Parsed<'a> {
    fn of(opened: &'a Opened) -> Option<Self> {
        // The locator parsed it before; only a file that changes meanwhile fails here.
        Some(Parsed { path: &opened.path, image: Image::parse(&opened.bytes).ok()? })
    }
}

/// A file with DWARF, and where the files that it refers to are looked for.
struct DwarfSource<'a> {
    file: &'a Parsed<'a>,
    owners: Vec<PathBuf>,
    places: &'a Places,
    trail: &'a Trail,
}

impl DwarfSource<'_> {
    /// Hands the frames of each batch to `complete`. After an error no batch was taken.
    fn frames(
        &self,
        batches: &mut impl Iterator<Item = Vec<u64>>,
        complete: &mut impl FnMut(&[u64], Vec<Vec<Frame>>),
        missing: &mut Vec<Missing>,
    ) -> Result<(), Error> {
        let Parsed { path, image } = self.file;
        let sections = dwarf::sections(image, SectionSet::Main)?;
        let supplementary = supplementary(image, path, self.places, self.trail).unwrap_or_else(|wanted| {
            missing.push(Missing::NoSupplementaryFile { path: path.to_path_buf(), wanted });
            None
        });
        let supplementary = supplementary.as_ref().map(|opened| supplementary_sections(opened)).transpose()?;
        let endian = dwarf::endian(image);
        let maps = Maps::new();
        let decompressed = Decompressed::new();
        let context = dwarf::context(&sections, supplementary.as_ref(), endian)?;
        let mut split = SplitFiles::new(&maps, &decompressed, endian, self.owners.clone(), self.trail);

        let mut first_error = None;
        for addresses in batches {
            let mut frames_at = |address: &u64| {
                // One malformed unit must not take the names of all others with it.
                dwarf::frames(&context, *address, |wanted| split.load(wanted)).unwrap_or_else(|error| {
                    first_error.get_or_insert(error);
                    Vec::new()
                })
            };
            let frames = addresses.iter().map(&mut frames_at).collect();
            complete(&addresses, frames);
        }
        if let Some(error) = first_error {
            missing.push(Missing::Malformed { path: path.to_path_buf(), reason: error.to_string() });
        }
        if let Some(dwo) = split.missing.take() {
            missing.push(Missing::NoSplitFile { path: path.to_path_buf(), dwo });
        }
        Ok(())
    }
}

fn supplementary_sections(opened: &Opened) -> Result<Sections<'_>, Error> {
    dwarf::sections(&Image::parse(&opened.bytes)?, SectionSet::Main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linkers_name_completes_a_bare_one_only_if_it_is_the_same_function() {
        assert!(is_scoped("shop::Box<int>::sum() const", "sum"));
        assert!(is_scoped("core::ptr::drop_in_place<alloc::string::String>", "drop_in_place<alloc::string::String>"));
        assert!(is_scoped("prog::shop::price", "price<u32>"));
        assert!(is_scoped("prog::main::{{closure}}", "{closure_env#0}<u32>"));
        assert!(is_scoped("main", "main"));
        assert!(!is_scoped("anything()", "<anonymous>"));
        assert!(!is_scoped("shop::checksum()", "sum"));
        assert!(!is_scoped("shop::summary()", "sum"));
        assert!(!is_scoped("other(int)", "sum"));
    }
}
