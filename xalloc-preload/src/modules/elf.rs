//! A loaded module's own description of itself: its ELF program headers, as they lie in memory.
//!
//! # Safety
//! - A module's first segment starts with its ELF header, and all program headers lie in that segment's first page:
//!   this is how linkers lay files out and what the loader itself relies on for the headers' size.
//! - A `PT_LOAD` segment's file part is mapped, and readable in every segment that holds headers, notes or unwind
//!   tables.
//! - Whoever makes an [`Image`] answers for the module staying loaded while it is used.
#![allow(unsafe_code)]

use core::ops::Range;
use core::slice;

use libc::{Elf64_Ehdr, Elf64_Phdr};
use xalloc_core::units::PAGE_BYTES;

const PT_GNU_EH_FRAME: u32 = libc::PT_GNU_EH_FRAME;
const NT_GNU_BUILD_ID: u32 = 3;

/// The program headers of a loaded module.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    start: u64,
    bias: u64,
    segments: &'a [Elf64_Phdr],
}

impl<'a> Image<'a> {
    /// The module whose lowest mapped byte is at `start`; `None` if no ELF header is there.
    ///
    /// # Safety
    /// - `start` is the page-aligned start of a readable mapping.
    /// - The mapping, and if it is a module, all of its segments stay mapped for `'a`.
    pub(crate) unsafe fn at(start: u64) -> Option<Image<'a>> {
        let header = core::ptr::with_exposed_provenance::<Elf64_Ehdr>(start as usize);
        // SAFETY: by the contract a page is readable at `start`, and it is aligned to a page.
        let header: &Elf64_Ehdr = unsafe { &*header };
        let is_elf64 = header.e_ident.starts_with(b"\x7fELF\x02\x01");
        let count = u64::from(header.e_phnum);
        let end = header.e_phoff.checked_add(count * size_of::<Elf64_Phdr>() as u64)?;
        let is_usual = usize::from(header.e_phentsize) == size_of::<Elf64_Phdr>() && header.e_phoff.is_multiple_of(8);
        if !is_elf64 || !is_usual || end > PAGE_BYTES {
            return None;
        }
        let first = core::ptr::with_exposed_provenance::<Elf64_Phdr>((start + header.e_phoff) as usize);
        // SAFETY: the range ends within the page at `start` and is aligned to 8 (both just tested); the loader is done
        // with relocation and nobody writes the headers.
        let segments = unsafe { slice::from_raw_parts(first, count as usize) };
        let lowest = segments.iter().find(|segment| segment.p_type == libc::PT_LOAD)?;
        let bias = start.wrapping_sub(lowest.p_vaddr & !(PAGE_BYTES - 1));
        Some(Image { start, bias, segments })
    }

    /// What is added to the file's virtual addresses.
    pub(crate) fn bias(&self) -> u64 {
        self.bias
    }

    /// Where the module's first byte lies.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// All addresses from the module's first to its last segment.
    pub(crate) fn extent(&self) -> Range<u64> {
        let end = self.loads().map(|segment| segment.p_vaddr + segment.p_memsz).max().unwrap_or(0);
        self.start..self.bias.wrapping_add(end)
    }

    /// From the lowest to the highest executable address.
    pub(crate) fn code(&self) -> Range<u64> {
        let code = || self.loads().filter(|segment| segment.p_flags & libc::PF_X != 0);
        let start = code().map(|segment| segment.p_vaddr).min().unwrap_or(0);
        let end = code().map(|segment| segment.p_vaddr + segment.p_memsz).max().unwrap_or(0);
        self.bias.wrapping_add(start)..self.bias.wrapping_add(end)
    }

    /// The bytes from the binary search table of the unwind information to the end of its segment.
    pub(crate) fn eh_frame_hdr(&self) -> Option<&'a [u8]> {
        let table = self.segments.iter().find(|segment| segment.p_type == PT_GNU_EH_FRAME)?;
        self.bytes_from(self.bias.wrapping_add(table.p_vaddr))
    }

    /// The bytes from `address` to the end of the file part of its segment.
    pub(crate) fn bytes_from(&self, address: u64) -> Option<&'a [u8]> {
        let vaddr = address.wrapping_sub(self.bias);
        let segment = self.loads().find(|segment| {
            segment.p_flags & libc::PF_R != 0 && vaddr.wrapping_sub(segment.p_vaddr) < segment.p_filesz
        })?;
        let len = segment.p_filesz - (vaddr - segment.p_vaddr);
        let first = core::ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: second and third bullet of the module: the range lies in the file part of a readable segment.
        Some(unsafe { slice::from_raw_parts(first, len as usize) })
    }

    /// The loader's table of what it needs to know, where the module has one.
    pub(super) fn dynamic(&self) -> Option<&'a [u8]> {
        let table = self.segments.iter().find(|segment| segment.p_type == libc::PT_DYNAMIC)?;
        self.bytes_from(self.bias.wrapping_add(table.p_vaddr))
    }

    /// What may be done with the memory at `address`, in flags of `p_flags`; 0 where nothing is.
    pub(crate) fn rights_at(&self, address: u64) -> u32 {
        let vaddr = address.wrapping_sub(self.bias);
        let holds = |segment: &&Elf64_Phdr| vaddr.wrapping_sub(segment.p_vaddr) < segment.p_memsz;
        self.loads().find(holds).map_or(0, |segment| segment.p_flags)
    }

    /// The linker's hash of the module; empty if it has none.
    pub(crate) fn build_id(&self) -> &'a [u8] {
        let notes = self.segments.iter().filter(|segment| segment.p_type == libc::PT_NOTE);
        for segment in notes {
            let Some(bytes) = self.bytes_from(self.bias.wrapping_add(segment.p_vaddr)) else { continue };
            let bytes = bytes.get(..segment.p_filesz as usize).unwrap_or(bytes);
            if let Some(id) = build_id_in(bytes, segment.p_align.max(4) as usize) {
                return id;
            }
        }
        &[]
    }

    fn loads(&self) -> impl Iterator<Item = &'a Elf64_Phdr> + Clone + use<'a> {
        self.segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD)
    }
}

/// The build-id among ELF notes (gABI, "Note Section"): name size, descriptor size, type, name, descriptor, the latter
/// two padded to `align`.
fn build_id_in(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    loop {
        let (head, rest) = notes.split_at_checked(12)?;
        let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let (name_size, size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let name = rest.get(..name_size)?;
        let rest = rest.get(name_size.checked_next_multiple_of(4)?..)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return rest.get(..size);
        }
        notes = rest.get(size.checked_next_multiple_of(align)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_is_found_behind_another_note_and_damaged_notes_give_none() {
        let mut notes = Vec::new();
        for (kind, name, body) in [(5_u32, b"GNU\0", &[1_u8; 16][..]), (3, b"GNU\0", &[7; 20])] {
            notes.extend(4_u32.to_le_bytes());
            notes.extend((body.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend(name);
            notes.extend(body);
        }
        assert_eq!(build_id_in(&notes, 4), Some(&[7_u8; 20][..]));
        for len in 0..notes.len() {
            assert_eq!(build_id_in(&notes[..len], 4), None);
        }
        notes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(build_id_in(&notes, 4), None);
    }
}
