//! The 32 bytes of a record, and its parts for who knows its kind and wants no more.

use super::HeapEvent;
use super::fill::{MOST_FILLED, unpack_fill};
use super::kinds::{BinKind, Call, Merged};
use super::made::{split_for, unpack_filled};
use super::together::{MergeBinned, PutAway};
use crate::units::{Addr, ArenaId};

/// Bytes of text that one record carries: all of it but the stack id, the kind and the two small fields.
pub const TEXT_BYTES: usize = 24;

/// Records that `bytes` of text take behind the record that announces them.
#[must_use]
pub const fn text_records(bytes: usize) -> usize {
    bytes.div_ceil(TEXT_BYTES)
}

/// One slot of a ring.
///
/// `a` and `b` hold an operand in the low 48 bits and a small field in the high 16, or one operand of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C, align(32))]
pub struct Record {
    /// Time of the event; text bytes 0 to 7 in a text record.
    pub stamp: u64,
    /// First operand; text bytes 8 to 15.
    pub a: u64,
    /// Second operand; text bytes 16 to 23.
    pub b: u64,
    /// Call stack.
    pub stack: u32,
    /// [`super::Kind`] by number.
    pub kind: u8,
    /// The closed set that belongs to the kind (call, rule, advice, flags); of an allocation the call, shifted up by one,
    /// and in the lowest bit whether `extra` is the arena's sequence number.
    pub sub: u8,
    /// A small field of the kind, mostly the arena's sequence number.
    pub extra: u16,
}

const _: () = assert!(size_of::<Record>() == 32);

impl Record {
    /// The record as it lies in a ring and in the file of a recording without recorder: field behind field, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.to_words()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record that [`Self::to_bytes`] gives. Every pattern of bytes is one; [`Self::decode`] says whether it means
    /// something.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Record {
        let mut words = [0; 4];
        for (word, place) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*place);
        }
        Record::from_words(words)
    }

    /// The record as four words, which a function is passed in registers.
    #[must_use]
    #[inline(always)]
    pub const fn to_words(&self) -> [u64; 4] {
        let Record { stamp, a, b, stack, kind, sub, extra } = *self;
        [stamp, a, b, stack as u64 | (kind as u64) << 32 | (sub as u64) << 40 | (extra as u64) << 48]
    }

    /// The record that [`Self::to_words`] gives.
    #[must_use]
    #[inline(always)]
    pub const fn from_words([stamp, a, b, last]: [u64; 4]) -> Record {
        let [.., kind, sub, low, high] = last.to_le_bytes();
        Record { stamp, a, b, stack: last as u32, kind, sub, extra: u16::from_le_bytes([low, high]) }
    }
}

const LOW: u64 = (1 << 48) - 1;

pub(super) const fn pack(low: u64, high: u16) -> u64 {
    (low & LOW) | (high as u64) << 48
}

pub(super) const fn low(word: u64) -> u64 {
    word & LOW
}

pub(super) const fn high(word: u64) -> u16 {
    (word >> 48) as u16
}

/// Sizes below this one fit a record two at a time.
pub(super) const SIZE_LIMIT: u64 = 1 << 36;

/// Two chunk sizes in one word, in units of 16 bytes; a size of 64 GiB or more is stored as 64 GiB − 16.
pub(super) const fn pack_sizes(first: u64, second: u64) -> u64 {
    const fn units(bytes: u64) -> u64 {
        let units = bytes >> 4;
        if units > u32::MAX as u64 { u32::MAX as u64 } else { units }
    }
    units(first) | units(second) << 32
}

pub(super) const fn sizes(word: u64) -> (u64, u64) {
    ((word & 0xffff_ffff) << 4, (word >> 32) << 4)
}

/// In the small field of a merge with the way into a bin, beside the neighbours: that the bin is a small one.
const MERGED_SMALL: u8 = 1 << 2;

/// Neighbours and bin of such a merge in one byte.
#[inline(always)]
pub(super) const fn pack_merging(merging: MergeBinned) -> u8 {
    let merged = Merged { top: false, ..merging.merged };
    if matches!(merging.bin, BinKind::Small) { merged.to_bits() | MERGED_SMALL } else { merged.to_bits() }
}

/// Whether a byte is one that [`pack_merging`] gives.
pub(super) const fn knows_merging(sub: u8) -> bool {
    sub < MERGED_SMALL << 1
}

/// Calls, bins and neighbours of a free with its steps in one byte: three bits of neighbours, two of the bin, the call.
#[inline(always)]
pub(super) const fn pack_put_away(call: Call, put_away: PutAway) -> u8 {
    let bin = match put_away.bin {
        None => 0,
        Some(BinKind::Fast) => 1,
        Some(BinKind::Unsorted | BinKind::Cache | BinKind::Large) => 2,
        Some(BinKind::Small) => 3,
    };
    let call = (call as u8).wrapping_sub(Call::Free as u8) & 3;
    put_away.merged.to_bits() | bin << 3 | call << 5
}

/// The call of such a byte: those by which blocks are given back stand together.
#[inline(always)]
pub(super) const fn put_away_call(sub: u8) -> Option<Call> {
    match sub >> 5 {
        0 => Some(Call::Free),
        1 => Some(Call::FreeSized),
        2 => Some(Call::FreeAlignedSized),
        _ => None,
    }
}

/// Parts of a record, for who knows its kind and wants no more: a recorder reads millions a second.
impl Record {
    /// The address in the first operand.
    #[must_use]
    #[inline]
    pub const fn addr(&self) -> Addr {
        Addr(low(self.a))
    }

    /// The arena in the first operand.
    #[must_use]
    #[inline]
    pub const fn arena(&self) -> ArenaId {
        ArenaId(high(self.a))
    }

    /// The size in the second operand and the small field beside it: slack of an allocation, index of a bin.
    #[must_use]
    #[inline]
    pub const fn size_and_small(&self) -> (u64, u16) {
        (low(self.b), high(self.b))
    }

    /// The call that a record of an allocation names.
    #[must_use]
    #[inline]
    pub const fn alloc_call(&self) -> Option<Call> {
        Call::from_number(self.sub >> 1)
    }

    /// The number in the order of its arena that a record of an allocation has, if an arena served it.
    #[must_use]
    #[inline]
    pub const fn arena_seq(&self) -> Option<u16> {
        if self.sub & 1 != 0 { Some(self.extra) } else { None }
    }

    /// The two chunk sizes in the second operand, bytes.
    #[must_use]
    #[inline]
    pub const fn chunk_sizes(&self) -> (u64, u64) {
        sizes(self.b)
    }

    /// What a record of a free with its steps says of them.
    #[must_use]
    #[inline]
    pub const fn put_away(&self) -> PutAway {
        let (freed_bytes, total_bytes) = sizes(self.b);
        let bin = match self.sub >> 3 & 3 {
            0 => None,
            1 => Some(BinKind::Fast),
            2 => Some(BinKind::Unsorted),
            _ => Some(BinKind::Small),
        };
        PutAway { freed_bytes, total_bytes, merged: Merged::from_bits(self.sub), bin }
    }

    /// Size and addresses of the chunks that a record of a cache's filling names.
    #[must_use]
    #[inline]
    pub const fn filled(&self) -> (u64, [Addr; MOST_FILLED]) {
        unpack_fill(self.addr(), self.sub, self.b)
    }

    /// What a record of an allocation with a split says: the size that was asked for, and the split.
    #[must_use]
    #[inline]
    pub const fn split_for(&self) -> (u64, HeapEvent) {
        let (size_bytes, rest_bytes) = (self.b & u32::MAX as u64, (self.b >> 32) << 4);
        (size_bytes, split_for(self.addr(), size_bytes, rest_bytes, self.sub & 1 != 0))
    }

    /// What a record of an allocation with chunks for the cache says: the size that was asked for, and the chunks.
    #[must_use]
    #[inline]
    pub const fn filled_for(&self) -> (u64, [Addr; MOST_FILLED]) {
        unpack_filled(self.addr(), self.b)
    }

    /// What a record of a merge with the way into a bin says.
    #[must_use]
    #[inline]
    pub const fn merging(&self) -> MergeBinned {
        let (freed_bytes, total_bytes) = sizes(self.b);
        let merged = Merged { top: false, ..Merged::from_bits(self.sub) };
        let bin = if self.sub & MERGED_SMALL != 0 { BinKind::Small } else { BinKind::Unsorted };
        MergeBinned { addr: self.addr(), freed_bytes, total_bytes, merged, bin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_bytes_that_lie_in_the_ring() {
        let record = Record { stamp: 1, a: 2 << 60, b: 3, stack: 0x0403_0201, kind: 5, sub: 6, extra: 0x0807 };
        let bytes = record.to_bytes();
        assert_eq!(bytes[24..], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((bytes[0], bytes[15], bytes[16]), (1, 0x20, 3));
        assert_eq!(Record::from_bytes(&bytes), record);
    }
}
