//! A block's payload: columns, each a zstd frame of its own.
//!
//! Values of one meaning lie together, so that zstd's level 1 finds what repeats. On compiler, interpreter and
//! database streams a row-wise layout took 2.7 times the bytes; level 3 gains 1 to 5 % for three times the time; lz4
//! is 1.2 to 2.6 times larger. A column that does not shrink is stored as it is, an empty one costs one byte.
//!
//! # Invariant
//! A column's length is stated and checked against the block's allowance before anything is allocated for it: no block
//! makes a reader hold more than [`MAX_RAW_BYTES`].

use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::error::Malformed;
use super::varint::{self, Cursor};

/// Most that the columns of one block may be, unpacked: 64 MiB.
pub(super) const MAX_RAW_BYTES: usize = 64 << 20;

/// A column ends too early.
pub(super) const SHORT: Malformed = Malformed::Bytes("a column ends before its events do");

const LEVEL: i32 = 1;
/// Below this a frame's own header eats the gain.
const SMALLEST_FRAME_BYTES: usize = 24;

/// Packs columns; keeps zstd's tables and a scratch buffer between blocks.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    frame: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Packer> {
        Ok(Packer { compressor: Compressor::new(LEVEL)?, frame: Vec::new() })
    }

    /// For columns of whole blocks of events: what repeats in less than seven bytes is left to the entropy coder, which takes
    /// a tenth less time and, in most programs, as many or fewer bytes.
    pub(super) fn of_full_blocks() -> io::Result<Packer> {
        let mut packer = Packer::new()?;
        packer.compressor.set_parameter(CParameter::MinMatch(7))?;
        Ok(packer)
    }

    /// Appends one column to `out`.
    pub(super) fn pack(&mut self, column: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        varint::put(out, column.len() as u64);
        if column.is_empty() {
            return Ok(());
        }
        if column.len() >= SMALLEST_FRAME_BYTES {
            self.frame.clear();
            self.frame.reserve(zstd::zstd_safe::compress_bound(column.len()));
            self.compressor.compress_to_buffer(column, &mut self.frame)?;
            if self.frame.len() < column.len() {
                varint::put_bytes(out, &self.frame);
                return Ok(());
            }
        }
        varint::put(out, 0);
        out.extend_from_slice(column);
        Ok(())
    }
}

/// Unpacks columns; keeps zstd's state between blocks.
pub(super) struct Unpacker {
    decompressor: Decompressor<'static>,
}

impl Unpacker {
    pub(super) fn new() -> io::Result<Unpacker> {
        Ok(Unpacker { decompressor: Decompressor::new()? })
    }

    /// Reads one column into `column` and takes its length from `allowance_bytes`.
    pub(super) fn unpack(
        &mut self,
        from: &mut Cursor<'_>,
        allowance_bytes: &mut usize,
        column: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let packed = Packed::next(from, allowance_bytes)?;
        self.unfold(packed, column)
    }

    /// What a column holds.
    pub(super) fn unfold(&mut self, packed: Packed<'_>, column: &mut Vec<u8>) -> Result<(), Malformed> {
        column.clear();
        let (frame, raw_bytes) = match packed {
            Packed::Raw(bytes) => {
                column.extend_from_slice(bytes);
                return Ok(());
            }
            Packed::Frame { frame, raw_bytes } => (frame, raw_bytes),
        };
        column.reserve_exact(raw_bytes);
        let unpacked = self.decompressor.decompress_to_buffer(frame, column);
        match unpacked {
            Ok(bytes) if bytes == raw_bytes => Ok(()),
            Ok(_) => Err(Malformed::Bytes("a column unpacks to another length than stated")),
            Err(_) => Err(Malformed::Bytes("a column is not a zstd frame of the stated length")),
        }
    }
}

/// A column as it lies in its block: whoever does not need it leaves it so.
#[derive(Clone, Copy)]
pub(super) enum Packed<'a> {
    /// Nothing to unpack.
    Raw(&'a [u8]),
    /// A zstd frame of that many bytes.
    Frame { frame: &'a [u8], raw_bytes: usize },
}

impl<'a> Packed<'a> {
    pub(super) const EMPTY: Packed<'static> = Packed::Raw(&[]);

    /// The next column; takes its length from `allowance_bytes`.
    pub(super) fn next(from: &mut Cursor<'a>, allowance_bytes: &mut usize) -> Result<Packed<'a>, Malformed> {
        let raw_bytes = usize::try_from(from.varint()?).unwrap_or(usize::MAX);
        if raw_bytes == 0 {
            return Ok(Packed::EMPTY);
        }
        *allowance_bytes = allowance_bytes
            .checked_sub(raw_bytes)
            .ok_or(Malformed::Bytes("its columns are longer than its header says"))?;
        match usize::try_from(from.varint()?).unwrap_or(usize::MAX) {
            0 => from.take(raw_bytes).map(Packed::Raw),
            frame_bytes => from.take(frame_bytes).map(|frame| Packed::Frame { frame, raw_bytes }),
        }
    }
}

/// A column while it is read, with the place that reading has come to.
#[derive(Default)]
pub(super) struct Column {
    bytes: Vec<u8>,
    at: usize,
}

impl Column {
    /// The buffer to unpack into; reading starts over.
    pub(super) fn refill(&mut self) -> &mut Vec<u8> {
        self.at = 0;
        &mut self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let &byte = self.bytes.get(self.at).ok_or(SHORT)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next integer; nearly all have one byte, which is read where this is called.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            Some(_) | None => varint::varint_at(&self.bytes, &mut self.at),
        }
    }

    /// The next `count` integers, in the place of what `out` held. Where eight have one byte each, they are widened at
    /// once: times, small sizes and places in tables nearly all do.
    pub(super) fn varints(&mut self, count: usize, out: &mut Vec<u64>) -> Result<(), Malformed> {
        const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
        // No integer is shorter than a byte; checked before memory is taken for a count that a file states.
        if self.bytes.len().saturating_sub(self.at) < count {
            return Err(SHORT);
        }
        out.resize(count, 0);
        let bytes = self.bytes.as_slice();
        let mut at = self.at;
        for values in out.chunks_mut(8) {
            if let (Ok(values), Some(eight)) =
                (<&mut [u64; 8]>::try_from(&mut *values), bytes.get(at..).and_then(<[u8]>::first_chunk::<8>))
                && u64::from_le_bytes(*eight) & HIGH_BITS == 0
            {
                *values = eight.map(u64::from);
                at += 8;
                continue;
            }
            for value in values {
                *value = match bytes.get(at..) {
                    Some(&[byte, ..]) if byte < 0x80 => {
                        at += 1;
                        u64::from(byte)
                    }
                    Some(&[low, high, ..]) if high < 0x80 => {
                        at += 2;
                        u64::from(low & 0x7f) | u64::from(high) << 7
                    }
                    Some(_) | None => varint::varint_at(bytes, &mut at)?,
                };
            }
        }
        self.at = at;
        Ok(())
    }

    /// The next `len_bytes` bytes.
    pub(super) fn take(&mut self, len_bytes: usize) -> Result<&[u8], Malformed> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..len_bytes)).ok_or(SHORT)?;
        self.at += len_bytes;
        Ok(taken)
    }

    #[inline]
    pub(super) fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed::Bytes("a number exceeds 32 bits"))
    }

    /// What has not been read yet.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor::new(&self.bytes[self.at.min(self.bytes.len())..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packed: &[u8], mut allowance_bytes: usize) -> Result<Vec<u8>, Malformed> {
        let mut column = Vec::new();
        let mut unpacker = Unpacker::new().unwrap();
        unpacker.unpack(&mut Cursor::new(packed), &mut allowance_bytes, &mut column).map(|()| column)
    }

    #[test]
    fn columns_of_every_length_read_back() {
        let mut packer = Packer::new().unwrap();
        for len in [0, 1, 23, 24, 25, 1000, 70_000] {
            for column in [vec![7; len], (0..len).map(|i| ((i * i * 31) >> 3) as u8).collect::<Vec<_>>()] {
                let mut packed = Vec::new();
                packer.pack(&column, &mut packed).unwrap();
                assert_eq!(unpack(&packed, len), Ok(column));
            }
        }
    }

    #[test]
    fn a_column_longer_than_the_block_allows_is_refused_before_it_is_unpacked() {
        let mut packed = Vec::new();
        Packer::new().unwrap().pack(&vec![0; 1 << 20], &mut packed).unwrap();
        assert!(packed.len() < 200);
        assert_eq!(unpack(&packed, 1 << 19), Err(Malformed::Bytes("its columns are longer than its header says")));
    }
}
