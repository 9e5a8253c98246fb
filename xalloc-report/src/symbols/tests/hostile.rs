//! Files that are damaged or made to harm: an error or nothing is known, never a panic.

use proptest::prelude::*;

use super::kit::{Lab, has_tool};
use crate::symbols::{Error, Missing, Module, parse_untrusted};

/// A small program with DWARF, symbols, stubs and a build-id.
fn program() -> Vec<u8> {
    let lab = Lab::new();
    std::fs::read(lab.build_app("-g -O2")).unwrap()
}

#[test]
fn a_whole_program_is_read_to_its_frames() {
    assert!(parse_untrusted(&program()).unwrap() > 10);
}

#[test]
fn a_program_cut_at_every_hundredth_byte_is_an_error_or_nothing_is_known() {
    let program = program();
    let lab = Lab::new();
    for length in (0..program.len()).step_by(100) {
        let _ = parse_untrusted(&program[..length]);
        if length % 1000 == 0 {
            let path = lab.write("cut", &program[..length]);
            let resolved = lab.resolve_module(Module { path, ..Module::default() }, vec![0, 0x1139, u64::MAX]);
            assert_eq!(resolved.frames.len(), 3);
            assert!(!resolved.missing.is_empty(), "{length}");
        }
    }
}

#[test]
fn a_section_that_claims_to_unfold_to_a_terabyte_is_refused() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O2");
    lab.run("objcopy --compress-debug-sections=zlib app");
    let mut bytes = std::fs::read(&app).unwrap();
    let offset = {
        use object::{Object, ObjectSection};
        let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap();
        usize::try_from(elf.section_by_name(".debug_info").unwrap().file_range().unwrap().0).unwrap()
    };
    // Elf64_Chdr: type, reserved, then the size after decompression.
    bytes[offset + 8..offset + 16].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(matches!(parse_untrusted(&bytes), Err(Error::Inflated { claimed_bytes: 0x100_0000_0000, .. })));
}

/// A library whose function `target` has `levels` inlined functions, each inside the one before it, of a byte each.
fn nested_library(lab: &Lab, levels: usize) -> std::path::PathBuf {
    let range = "0x11, 1, 0x12, 7"; // DW_AT_low_pc as an address, DW_AT_high_pc as eight bytes
    lab.write(
        "deep.s",
        format!(
            ".globl target
             .type target, @function
             target: .zero 16
             .size target, 16
             .section .debug_abbrev, \"\", @progbits
             .byte 1, 0x11, 1, {range}, 0, 0
             .byte 2, 0x2e, 1, {range}, 0, 0
             .byte 3, 0x1d, 1, 0, 0, 0
             .section .debug_info, \"\", @progbits
             .long 2f - 1f
             1: .short 4
             .long 0
             .byte 8, 1
             .quad target, 16
             .byte 2
             .quad target, 16
             .fill {levels}, 1, 3
             .zero {levels} + 2
             2:
"
        ),
    );
    lab.run("cc -shared -nostdlib -o deep deep.s");
    lab.path("deep")
}

#[test]
fn entries_nested_a_million_deep_leave_the_name_and_a_reason_and_do_not_overflow_the_stack() {
    let lab = Lab::new();
    let library = nested_library(&lab, 1_000_000);
    let (resolved, names) = lab.names(&library, &library, &["target"]);
    assert_eq!(names[0].as_deref(), Some("target"));
    assert!(matches!(&resolved.missing[0], Missing::Malformed { reason, .. } if reason.contains("deep")));
}

#[test]
fn entries_nested_almost_too_deep_fit_the_stack_of_an_ordinary_thread() {
    let lab = Lab::new();
    let library = nested_library(&lab, 1000);
    assert!(parse_untrusted(&std::fs::read(library).unwrap()).is_ok());
}

#[test]
fn a_program_with_damaged_bytes_never_panics() {
    let program = program();
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40);
    proptest!(config, |(damage in damage)| {
        let mut bytes = program.clone();
        for (at, with) in damage {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        let _ = parse_untrusted(&bytes);
    });
}

/// Where the debug sections of a file lie: offset and size in bytes.
fn debug_sections(file: &[u8]) -> Vec<(usize, usize)> {
    use object::{Object, ObjectSection};
    let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(file).unwrap();
    let debug = elf.sections().filter(|section| section.name().is_ok_and(|name| name.starts_with(".debug")));
    debug
        .filter_map(|section| section.file_range())
        .map(|(offset, size)| (offset.try_into().unwrap(), size.try_into().unwrap()))
        .filter(|(_, size)| *size > 0)
        .collect()
}

/// Reads the file with a few bytes of its debug sections changed, many times.
fn damage_debug_sections(file: &[u8]) {
    let sections = debug_sections(file);
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let damage = prop::collection::vec((0..sections.len(), any::<prop::sample::Index>(), any::<u8>()), 1..8);
    proptest!(config, |(damage in damage)| {
        let mut bytes = file.to_vec();
        for (section, at, with) in damage {
            let (offset, size) = sections[section];
            bytes[offset + at.index(size)] = with;
        }
        let _ = parse_untrusted(&bytes);
    });
}

#[test]
fn damaged_debug_sections_of_a_program_never_panic() {
    for flags in ["-gdwarf-4 -O2", "-gdwarf-5 -O2"] {
        let lab = Lab::new();
        damage_debug_sections(&std::fs::read(lab.build_app(flags)).unwrap());
    }
}

#[test]
fn a_damaged_split_file_or_package_never_panics() {
    let lab = Lab::new();
    lab.write("work.c", super::kit::WORK_C);
    lab.run("cc -gdwarf-4 -O2 -gsplit-dwarf -c work.c");
    lab.run("cc -o app work.o");
    damage_debug_sections(&std::fs::read(lab.path("work.dwo")).unwrap());
    if has_tool("dwp") {
        lab.run("dwp -e app -o app.dwp");
        damage_debug_sections(&std::fs::read(lab.path("app.dwp")).unwrap());
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), is_elf: bool) {
        let mut bytes = bytes;
        if is_elf {
            // ELF64, little-endian, version 1; the rest of the header stays random.
            bytes.splice(..0, *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0");
        }
        let _ = parse_untrusted(&bytes);
    }
}
