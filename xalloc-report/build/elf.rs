//! What the preload's file must be, read from its ELF headers.
//!
//! The library is loaded into programs that know nothing of it, so a property that the compiler gave it by accident
//! (a second needed library, a thread-local segment, a writable text page, one exported symbol too many) is a defect
//! that would show as somebody else's crash. The build stops instead.
//!
//! Hand-written for ELF64 little-endian, the one format that the build produces; every offset is checked by `get`.

use std::collections::BTreeSet;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_TLS: u32 = 7;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const SHT_DYNSYM: u32 = 11;
const SHT_GNU_VERSYM: u32 = 0x6fff_ffff;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_TEXTREL: u64 = 22;
const DT_FLAGS: u64 = 30;
const DF_TEXTREL: u64 = 4;
const STB_WEAK: u8 = 2;

/// What the checks look at.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) needed: Vec<String>,
    pub(crate) has_tls: bool,
    pub(crate) executable_stack: bool,
    pub(crate) text_relocations: bool,
    pub(crate) exports: BTreeSet<String>,
    /// Undefined symbols that are neither weak nor bound to a version: nobody promised to define them.
    pub(crate) unbound: Vec<String>,
}

/// A file that is not the ELF object the build was meant to make.
type Malformed = String;

struct File<'a>(&'a [u8]);

impl File<'_> {
    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], Malformed> {
        usize::try_from(at)
            .ok()
            .and_then(|at| self.0.get(at..at.checked_add(N)?))
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| format!("offset {at:#x} lies outside the file"))
    }

    fn u16(&self, at: u64) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.bytes(at)?))
    }

    fn u32(&self, at: u64) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.bytes(at)?))
    }

    fn u64(&self, at: u64) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.bytes(at)?))
    }

    fn text(&self, at: u64) -> Result<String, Malformed> {
        let rest = usize::try_from(at).ok().and_then(|at| self.0.get(at..)).ok_or("a name lies outside the file")?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or("a name has no end")?;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }
}

struct Section {
    kind: u32,
    offset: u64,
    size: u64,
    link: u32,
}

/// Reads the facts from the bytes of a shared object.
pub(crate) fn facts(bytes: &[u8]) -> Result<Facts, Malformed> {
    let file = File(bytes);
    if file.bytes::<6>(0)? != *b"\x7fELF\x02\x01" {
        return Err("not a 64-bit little-endian ELF file".into());
    }
    let mut facts = Facts {
        needed: Vec::new(),
        has_tls: false,
        executable_stack: true,
        text_relocations: false,
        exports: BTreeSet::new(),
        unbound: Vec::new(),
    };
    program_headers(&file, &mut facts)?;
    symbols(&file, &mut facts)?;
    Ok(facts)
}

fn program_headers(file: &File<'_>, facts: &mut Facts) -> Result<(), Malformed> {
    let (table, entry, count) = (file.u64(32)?, u64::from(file.u16(54)?), u64::from(file.u16(56)?));
    let mut loads = Vec::new();
    let mut dynamic = None;
    for index in 0..count {
        let at = table + index * entry;
        let (offset, address, size) = (file.u64(at + 8)?, file.u64(at + 16)?, file.u64(at + 32)?);
        match file.u32(at)? {
            PT_LOAD => loads.push((address, offset, size)),
            PT_DYNAMIC => dynamic = Some((offset, size)),
            PT_TLS => facts.has_tls = true,
            PT_GNU_STACK => facts.executable_stack = file.u32(at + 4)? & PF_X != 0,
            _ => {}
        }
    }
    let (offset, size) = dynamic.ok_or("no dynamic section")?;
    let entries = (0..size / 16)
        .map(|index| Ok((file.u64(offset + index * 16)?, file.u64(offset + index * 16 + 8)?)))
        .collect::<Result<Vec<_>, Malformed>>()?;
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB).ok_or("no dynamic string table")?.1;
    let strings = loads
        .iter()
        .find(|(address, _, size)| (*address..address + size).contains(&strings))
        .map(|(address, offset, _)| strings - address + offset)
        .ok_or("the dynamic string table is in no segment")?;
    for (tag, value) in entries {
        match tag {
            DT_NEEDED => facts.needed.push(file.text(strings + value)?),
            DT_TEXTREL => facts.text_relocations = true,
            DT_FLAGS => facts.text_relocations |= value & DF_TEXTREL != 0,
            _ => {}
        }
    }
    Ok(())
}

fn symbols(file: &File<'_>, facts: &mut Facts) -> Result<(), Malformed> {
    let (table, entry, count) = (file.u64(40)?, u64::from(file.u16(58)?), u64::from(file.u16(60)?));
    let sections = (0..count)
        .map(|index| {
            let at = table + index * entry;
            Ok(Section {
                kind: file.u32(at + 4)?,
                offset: file.u64(at + 24)?,
                size: file.u64(at + 32)?,
                link: file.u32(at + 40)?,
            })
        })
        .collect::<Result<Vec<_>, Malformed>>()?;
    let dynsym = sections.iter().find(|section| section.kind == SHT_DYNSYM).ok_or("no dynamic symbols")?;
    let names = sections.get(dynsym.link as usize).ok_or("the dynamic symbols have no names")?;
    let versions = sections.iter().find(|section| section.kind == SHT_GNU_VERSYM);
    for index in 1..dynsym.size / 24 {
        let at = dynsym.offset + index * 24;
        let name = file.text(names.offset + u64::from(file.u32(at)?))?;
        let weak = file.bytes::<1>(at + 4)?[0] >> 4 == STB_WEAK;
        let defined = file.u16(at + 6)? != 0;
        let version = match versions {
            Some(versions) => file.u16(versions.offset + index * 2)? & 0x7fff,
            None => 0,
        };
        if defined {
            facts.exports.insert(name);
        } else if !weak && version < 2 {
            facts.unbound.push(name);
        }
    }
    Ok(())
}
