//! The whole reader on bytes that nobody vouches for, without touching a file: the body of the fuzz target, which also
//! runs over damaged programs in the ordinary tests.

use std::borrow::Cow;

use gimli::{DwarfPackage, DwarfPackageSections, EndianSlice};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};

use super::call::Calls;
use super::dwarf::{self, SectionSet};
use super::image::Image;
use super::table::Table;
use super::{Error, minidebug, plt};

/// How many addresses of each kind are looked up; enough to reach every unit of a small file.
const PROBES: usize = 64;

/// Reads `bytes` as a program, as its debug file and as a package of split DWARF, and looks up addresses in it.
///
/// Returns how many frames were found, so that the work cannot be optimised away.
///
/// # Errors
/// What made the file unreadable. Any panic is a defect.
pub fn parse_untrusted(bytes: &[u8]) -> Result<usize, Error> {
    // The section's format is its own; a fuzzer would not get to it through an ELF file.
    if let Ok(unpacked) = minidebug::unpack(bytes) {
        ElfFile64::<object::Endianness>::parse(&unpacked[..])?;
    }
    let image = Image::parse(bytes)?;
    let links = image.debug_link().is_some() as usize + image.alt_link().is_some() as usize + image.build_id().len();
    let mini = minidebug::unpack(&image.section(".gnu_debugdata")?).unwrap_or_default();
    let mini = ElfFile64::parse(&mini[..]).ok();
    let slots = plt::slots(&image.elf);
    let stubs = plt::stubs(&image.elf, &slots);
    let table = Table::collect([Some(&image.elf), mini.as_ref()].into_iter().flatten(), stubs);

    let section_starts = image.elf.sections().map(|section| section.address()).take(PROBES);
    let mut probes: Vec<u64> = table.starts().take(PROBES).chain(section_starts).collect();
    probes.extend([0, image.elf.entry(), u64::MAX]);
    let symbols = probes.iter().filter_map(|probe| table.find(*probe));
    let named = symbols.filter(|symbol| dwarf::named(&symbol.linker_name()).function.is_some()).count();

    let calls = Calls { elf: &image.elf, slots: &slots, table: &table };
    let called = probes.iter().filter(|probe| calls.callee(**probe).is_some()).count();

    let endian = dwarf::endian(&image);
    let mut found = links + named + called;
    for set in [SectionSet::Main, SectionSet::Split] {
        let sections = dwarf::sections(&image, set)?;
        // The file stands for its own supplementary file, so that references between the two are followed.
        let context = dwarf::context(&sections, Some(&sections), endian)?;
        for probe in &probes {
            found += dwarf::frames(&context, *probe, |_| None).map_or(0, |frames| frames.len());
        }
    }
    let package = DwarfPackageSections::<Cow<'_, [u8]>>::load(|id| dwarf::section(&image, id, SectionSet::Package))?;
    let package: DwarfPackage<_> =
        package.borrow(|bytes| EndianSlice::new(bytes, endian), EndianSlice::new(&[], endian))?;
    let parent = gimli::Dwarf::default();
    for unit in 0..package.cu_index.unit_count().min(PROBES as u32) {
        found += usize::from(package.cu_sections(unit + 1, &parent).is_ok());
    }
    Ok(found)
}
