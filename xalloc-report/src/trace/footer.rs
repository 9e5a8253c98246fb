//! The footer: where every block lies and what its header says, so that opening a trace reads none of them.
//!
//! It is a hint and nothing more: whatever a block's own header says counts. A trace without footer is scanned.

use std::io;

use super::columns::{Column, Packer, Unpacker};
use super::container::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, FILE_HEADER_BYTES};
use super::error::Malformed;
use super::varint::{Cursor, put};

/// A block and its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) offset_bytes: u64,
    pub(super) header: BlockHeader,
}

impl Entry {
    /// The entry of a block that lies, header first, in `framed` and will lie at `offset_bytes`.
    pub(super) fn of_framed(offset_bytes: u64, framed: &[u8]) -> Entry {
        let header = framed.first_chunk::<BLOCK_HEADER_BYTES>().and_then(|bytes| BlockHeader::parse(bytes).ok());
        let (header, _) = header.expect("`BlockHeader::frame` made the block");
        Entry { offset_bytes, header }
    }
}

/// The footer as blocks of the file. It is one block: the entries of ten thousand million events take about 4 MiB.
pub(super) fn frame(index: &[Entry], packer: &mut Packer) -> io::Result<Vec<Vec<u8>>> {
    let mut column = Vec::new();
    for Entry { offset_bytes, header } in index {
        let BlockHeader { kind, flags, process, payload_bytes, raw_bytes, items, slots, first_item, first_us, last_us } =
            *header;
        column.extend_from_slice(&[kind, flags]);
        for number in [process, payload_bytes, raw_bytes, items, slots] {
            put(&mut column, u64::from(number));
        }
        for number in [*offset_bytes, first_item, first_us, last_us - first_us] {
            put(&mut column, number);
        }
    }
    let mut payload = Vec::new();
    packer.pack(&column, &mut payload)?;
    let raw_bytes = u32::try_from(column.len()).map_err(|_| io::Error::other("the trace has too many blocks"))?;
    let header = BlockHeader { raw_bytes, items: index.len() as u32, ..BlockHeader::of(BlockKind::Footer) };
    Ok(vec![header.frame(&payload)])
}

/// The entries of a footer.
pub(super) fn read(header: &BlockHeader, payload: &[u8], unpacker: &mut Unpacker) -> Result<Vec<Entry>, Malformed> {
    if header.kind != BlockKind::Footer as u8 {
        return Err(Malformed::Bytes("the trailer points to a block that is no footer"));
    }
    let mut column = Column::default();
    let mut allowance_bytes = header.raw_bytes as usize;
    unpacker.unpack(&mut Cursor::new(payload), &mut allowance_bytes, column.refill())?;
    let mut index = Vec::new();
    let mut expected_bytes = FILE_HEADER_BYTES;
    while !column.at_end() {
        let mut entry = Entry { offset_bytes: 0, header: BlockHeader::of(BlockKind::Events) };
        let of = &mut entry.header;
        (of.kind, of.flags) = (column.byte()?, column.byte()?);
        for number in [&mut of.process, &mut of.payload_bytes, &mut of.raw_bytes, &mut of.items, &mut of.slots] {
            *number = column.varint32()?;
        }
        entry.offset_bytes = column.varint()?;
        (of.first_item, of.first_us) = (column.varint()?, column.varint()?);
        of.last_us = of.first_us.saturating_add(column.varint()?);
        // Otherwise a small file could have its one block read a million times.
        if entry.offset_bytes != expected_bytes {
            return Err(Malformed::Bytes("the footer does not list the blocks one after the other"));
        }
        expected_bytes = expected_bytes.saturating_add(entry.header.len_bytes());
        index.push(entry);
    }
    Ok(index)
}
