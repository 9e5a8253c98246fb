//! What a program's ELF headers say about its loader, its architecture and the runtimes it is linked with.

use std::fmt;
use std::fs::File;
use std::path::Path;

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, FileKind};

use super::Obstacle;
use crate::os::file::map_readonly;

/// An architecture as `e_machine` numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine(pub u16);

impl From<elf::Machine> for Machine {
    fn from(machine: elf::Machine) -> Machine {
        Machine(machine.0)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match elf::Machine(self.0) {
            elf::EM_386 => f.write_str("32-bit x86"),
            elf::EM_X86_64 => f.write_str("x86-64 with 32-bit pointers (x32)"),
            elf::EM_AARCH64 => f.write_str("AArch64 (64-bit ARM)"),
            elf::EM_ARM => f.write_str("32-bit ARM"),
            elf::EM_RISCV => f.write_str("RISC-V"),
            elf::EM_PPC64 => f.write_str("64-bit POWER"),
            elf::EM_S390 => f.write_str("s390"),
            elf::Machine(other) => write!(f, "another architecture (e_machine {other})"),
        }
    }
}

/// Runtime libraries of the sanitizers, by the beginning of their names (gcc's, then clang's).
const RUNTIMES: [&str; 8] = [
    "libasan.so",
    "libtsan.so",
    "liblsan.so",
    "libhwasan.so",
    "libclang_rt.asan",
    "libclang_rt.tsan",
    "libclang_rt.msan",
    "libclang_rt.hwasan",
];

/// What the names of glibc's loader begin with, on every architecture but those that are older than it.
const LOADER: &str = "ld-linux";

/// Functions that only a statically linked sanitizer runtime defines, and exports so that its libraries find them.
const RUNTIME_SYMBOLS: [&[u8]; 4] = [b"__asan_init", b"__tsan_init", b"__msan_init", b"__hwasan_init"];

/// What keeps the program at `path` from being recorded, as far as its headers tell.
pub(super) fn obstacle(path: &Path) -> Option<Obstacle> {
    // A file that cannot be opened may still be executable; nothing is known against it.
    let file = File::open(path).ok()?;
    let data = map_readonly(&file).ok()?;
    match FileKind::parse(&*data) {
        Ok(FileKind::Elf64) => {}
        Ok(FileKind::Elf32) => {
            let machine = Machine(data.get(18..20).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]])));
            return Some(Obstacle::OtherMachine { path: path.to_owned(), machine });
        }
        Ok(_) | Err(_) => return Some(Obstacle::NoProgram { path: path.to_owned() }),
    }
    read(path, &data).unwrap_or_else(|error| Some(Obstacle::Damaged { path: path.to_owned(), seen: error.to_string() }))
}

fn read(path: &Path, data: &[u8]) -> object::Result<Option<Obstacle>> {
    let header = elf::FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    if machine != elf::EM_X86_64 {
        return Ok(Some(Obstacle::OtherMachine { path: path.to_owned(), machine: machine.into() }));
    }
    let segments = header.program_headers(endian, data)?;
    let mut loader = None;
    let mut dynamic = None;
    for segment in segments {
        if let Some(bytes) = segment.interpreter(endian, data)? {
            loader = Some(String::from_utf8_lossy(bytes).into_owned());
        }
        dynamic = dynamic.or(segment.dynamic(endian, data)?);
    }
    let dynamic = dynamic.unwrap_or_default();
    let Some(loader) = loader else {
        // The loader itself may be the command, with the program as its argument.
        let is_loader = strings(elf::DT_SONAME, dynamic, segments, endian, data).any(|name| name.starts_with(LOADER));
        return Ok((!is_loader).then(|| Obstacle::Static { path: path.to_owned() }));
    };
    if !Path::new(&loader).file_name().is_some_and(|name| name.to_string_lossy().starts_with(LOADER)) {
        return Ok(Some(Obstacle::ForeignLoader { path: path.to_owned(), loader }));
    }
    let runtime = strings(elf::DT_NEEDED, dynamic, segments, endian, data)
        .find(|name| RUNTIMES.iter().any(|runtime| name.starts_with(runtime)));
    let runtime = match runtime {
        Some(runtime) => Some(runtime),
        None => built_in_runtime(header, endian, data)?,
    };
    Ok(runtime.map(|runtime| Obstacle::Sanitizer { path: path.to_owned(), runtime }))
}

/// The strings of the dynamic entries with this tag: the needed libraries, the object's own name.
fn strings<'a>(
    wanted: elf::DynamicTag,
    dynamic: &'a [elf::Dyn64<Endianness>],
    segments: &'a [elf::ProgramHeader64<Endianness>],
    endian: Endianness,
    data: &'a [u8],
) -> impl Iterator<Item = String> + 'a {
    let value = |tag| dynamic.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.d_val(endian));
    let table = value(elf::DT_STRTAB).zip(value(elf::DT_STRSZ)).and_then(|(address, size)| {
        segments.iter().find_map(|segment| segment.data_range(endian, data, address, size).ok().flatten())
    });
    dynamic.iter().filter(move |entry| entry.tag(endian) == wanted).filter_map(move |entry| {
        let name = table?.get(usize::try_from(entry.d_val(endian)).ok()?..)?;
        Some(String::from_utf8_lossy(name.split(|&byte| byte == 0).next()?).into_owned())
    })
}

/// The symbol of a runtime that is part of the program itself, as clang links it.
fn built_in_runtime(
    header: &elf::FileHeader64<Endianness>,
    endian: Endianness,
    data: &[u8],
) -> object::Result<Option<String>> {
    let found = exported(header, endian, data, &RUNTIME_SYMBOLS)?;
    Ok(found.map(|name| String::from_utf8_lossy(name).into_owned()))
}

/// Whether the program at `path` defines the `malloc` that its libraries call too.
pub(super) fn brings_malloc(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let Ok(data) = map_readonly(&file) else { return false };
    let found = elf::FileHeader64::<Endianness>::parse(&*data).and_then(|header| {
        let endian = header.endian()?;
        exported(header, endian, &data, &[b"malloc"]).map(|name| name.is_some())
    });
    found.unwrap_or(false)
}

/// The first symbol of `wanted` that the program defines for its libraries.
fn exported<'a>(
    header: &elf::FileHeader64<Endianness>,
    endian: Endianness,
    data: &'a [u8],
    wanted: &[&[u8]],
) -> object::Result<Option<&'a [u8]>> {
    use object::read::elf::Sym;
    let sections = header.sections(endian, data)?;
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let defined = symbols.iter().filter(|symbol| !symbol.is_undefined(endian));
    let mut names = defined.filter_map(|symbol| symbols.symbol_name(endian, symbol).ok());
    Ok(names.find(|name| wanted.contains(name)))
}
