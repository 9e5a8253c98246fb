//! DWARF: the functions at an address, innermost inlined one first, with file and line.

use std::borrow::Cow;
use std::sync::Arc;

use addr2line::{Context, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{AbbreviationsCacheStrategy, Dwarf, DwarfSections, EndianSlice, RunTimeEndian, SectionId};
use object::Object;

use super::image::Image;
use super::{Error, Frame, MAX_NAME_BYTES, demangle, nesting};

/// The bytes of one section.
pub(super) type Bytes<'a> = EndianSlice<'a, RunTimeEndian>;

/// The sections of one file, decompressed.
pub(super) type Sections<'a> = DwarfSections<Cow<'a, [u8]>>;

/// The most functions that one address is given. Compilers inline some dozens deep.
const MAX_FRAMES: usize = 256;

/// Longest file path that is given out, in bytes: Linux' PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Which of a file's sets of DWARF sections is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionSet {
    /// `.debug_info` and the like.
    Main,
    /// `.debug_info.dwo` and the like, in split files.
    Split,
    /// The same and the indices, in packages of split files.
    Package,
}

/// Whether a lookup reads this section; those about the locations of variables, macros and types it does not.
fn is_needed(id: SectionId) -> bool {
    matches!(
        id,
        SectionId::DebugAbbrev
            | SectionId::DebugAddr
            | SectionId::DebugAranges
            | SectionId::DebugInfo
            | SectionId::DebugLine
            | SectionId::DebugLineStr
            | SectionId::DebugRanges
            | SectionId::DebugRngLists
            | SectionId::DebugStr
            | SectionId::DebugStrOffsets
    )
}

/// One section of a set; empty when there is none or no lookup needs it.
pub(super) fn section<'a>(image: &Image<'a>, id: SectionId, set: SectionSet) -> Result<Cow<'a, [u8]>, Error> {
    let name = match set {
        SectionSet::Main => Some(id.name()).filter(|_| is_needed(id)),
        SectionSet::Split => id.dwo_name().filter(|_| is_needed(id)),
        // A package's index cuts every section into contributions, so all of them must be there.
        SectionSet::Package => id.dwo_name(),
    };
    name.map_or(Ok(Cow::Borrowed(&[])), |name| image.section(name))
}

/// All sections of one set that a lookup needs.
pub(super) fn sections<'a>(image: &Image<'a>, set: SectionSet) -> Result<Sections<'a>, Error> {
    Sections::load(|id| section(image, id, set))
}

pub(super) fn endian(image: &Image<'_>) -> RunTimeEndian {
    if image.elf.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big }
}

/// Indexes the units of `sections`, with the supplementary file's, if there is one.
pub(super) fn context<'a>(
    sections: &'a Sections<'_>,
    supplementary: Option<&'a Sections<'_>>,
    endian: RunTimeEndian,
) -> Result<Context<Bytes<'a>>, Error> {
    let mut dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, endian));
    // Every unit is read twice, below and by the context, which keeps the tables in any case.
    dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::All);
    if let Some(supplementary) = supplementary {
        dwarf.set_sup(supplementary.borrow(|bytes| EndianSlice::new(bytes, endian)));
    }
    nesting::check(&dwarf)?;
    Ok(Context::from_dwarf(dwarf)?)
}

/// The functions at `address`, the last of which is not inlined; empty when no unit covers it.
///
/// `load` supplies split DWARF as it is needed.
pub(super) fn frames<'a>(
    context: &Context<Bytes<'a>>,
    address: u64,
    mut load: impl FnMut(SplitDwarfLoad<Bytes<'a>>) -> Option<Arc<Dwarf<Bytes<'a>>>>,
) -> Result<Vec<Frame>, Error> {
    // The reader adds 1 to the address; the last one of the address space is the kernel's.
    if address == u64::MAX {
        return Ok(Vec::new());
    }
    let mut lookup = context.find_frames(address);
    let mut found = loop {
        match lookup {
            LookupResult::Output(output) => break output?,
            LookupResult::Load { load: wanted, continuation } => lookup = continuation.resume(load(wanted)),
        }
    };
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(found) = found.next()? {
        let frame = frame(found);
        // The outermost function is always kept: it is the one that symbol tables know.
        frames.truncate(MAX_FRAMES - 1);
        frames.push(frame);
    }
    let inlined = frames.len().saturating_sub(1);
    frames[..inlined].iter_mut().for_each(|frame| frame.inlined = true);
    Ok(frames)
}

fn frame(found: addr2line::Frame<'_, Bytes<'_>>) -> Frame {
    let name = found.function.as_ref().and_then(|function| function.raw_name().ok());
    let mut frame = name.map(|name| named(&name)).unwrap_or_default();
    if let Some(location) = found.location {
        frame.file = location.file.map(|file| cut(file, MAX_PATH_BYTES).to_owned());
        frame.line = location.line.filter(|line| *line != 0);
        frame.column = location.column.filter(|column| *column != 0);
    }
    frame
}

/// A frame of which only the linker's name is known.
pub(super) fn named(raw: &str) -> Frame {
    let function = demangle(raw);
    let raw_name = (function != raw).then(|| cut(raw, MAX_NAME_BYTES).to_owned());
    Frame { function: Some(function).filter(|name| !name.is_empty()), raw_name, ..Frame::default() }
}

fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
