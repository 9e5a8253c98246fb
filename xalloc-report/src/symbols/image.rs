//! One ELF file in memory: its identity, its links to other files, its sections.
//!
//! Only 64-bit ELF is read, because only such programs can be recorded. Every offset is checked by the parser; what this
//! file adds is a bound on decompression. A section's header states the size it grows to; deflate cannot exceed 1032 to
//! 1, and no real debug section comes near that with zstd either, so a header that promises more is refused before a
//! byte is reserved, and so is one beyond [`MAX_SECTION_BYTES`].

use std::borrow::Cow;

use object::read::elf::ElfFile64;
use object::{CompressionFormat, Object, ObjectSection};

use super::Error;

/// The largest size that one section may have after decompression: 4 GiB, the most that DWARF's 32-bit format addresses.
const MAX_SECTION_BYTES: u64 = 4 << 30;

/// The largest growth that is believed: the format limit of deflate (a 258-byte copy for two bits, per zlib's technical
/// notes), and far above what debug information compresses to, which is 3 to 10.
const MAX_GROWTH: u64 = 1032;

/// A parsed 64-bit ELF file.
pub(super) struct Image<'a> {
    pub(super) elf: ElfFile64<'a>,
}

impl<'a> Image<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Image { elf: ElfFile64::parse(bytes)? })
    }

    /// The GNU build-id note; empty when there is none.
    pub(super) fn build_id(&self) -> &'a [u8] {
        // A malformed note section has no usable identity, which is what an absent one has.
        self.elf.build_id().ok().flatten().unwrap_or_default()
    }

    /// The contents of the section `name`, decompressed; empty when there is none.
    pub(super) fn section(&self, name: &str) -> Result<Cow<'a, [u8]>, Error> {
        let Some(section) = self.elf.section_by_name(name) else { return Ok(Cow::Borrowed(&[])) };
        let data = section.compressed_data()?;
        let compressed_bytes = data.data.len() as u64;
        let limit_bytes = MAX_SECTION_BYTES.min(compressed_bytes.saturating_mul(MAX_GROWTH));
        if data.format != CompressionFormat::None && data.uncompressed_size > limit_bytes {
            return Err(Error::Inflated {
                section: name.to_owned(),
                compressed_bytes,
                claimed_bytes: data.uncompressed_size,
            });
        }
        Ok(data.decompress()?)
    }

    /// Whether the section `name` is there with contents (a debug file keeps the headers of what was stripped).
    pub(super) fn has_section(&self, name: &str) -> bool {
        self.elf.section_by_name(name).is_some_and(|section| section.file_range().is_some_and(|(_, size)| size > 0))
    }

    /// Whether there is DWARF that tells functions and lines.
    pub(super) fn has_dwarf(&self) -> bool {
        self.has_section(".debug_info") || self.has_section(".zdebug_info")
    }

    /// Whether there is a full symbol table.
    pub(super) fn has_symtab(&self) -> bool {
        self.has_section(".symtab")
    }

    /// File name and CRC-32 of the separate debug file.
    pub(super) fn debug_link(&self) -> Option<(&'a [u8], u32)> {
        self.elf.gnu_debuglink().ok().flatten()
    }

    /// Path and build-id of the supplementary file that `dwz` moved common DWARF to.
    pub(super) fn alt_link(&self) -> Option<(&'a [u8], &'a [u8])> {
        self.elf.gnu_debugaltlink().ok().flatten()
    }
}
