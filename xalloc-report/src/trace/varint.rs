//! Integers of varying length, and reading them from bytes that may lie.
//!
//! Seven bits a byte, low bits first, the high bit set on all but the last (LEB128). Signed differences are folded to
//! unsigned ones (zigzag) so that small ones of either sign are short. Heap addresses and sizes are mostly multiples
//! of 16, so [`fold`] halves their common case by four more bits and keeps one bit to say so.

use std::ops::BitOr;

use super::error::Malformed;

const CUT: Malformed = Malformed::Bytes("a value goes on past the end of its column");
const LONG: Malformed = Malformed::Bytes("an integer has more than 64 bits");

/// Appends `value`.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else if value < 0x4000 {
        out.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
    } else {
        put_long(out, value);
    }
}

/// As [`put`], of a value of three bytes or more: all of up to eight at once, so that what is unpredictable, their number,
/// is computed and not branched on.
#[inline(never)]
fn put_long(out: &mut Vec<u8>, mut value: u64) {
    while value >> 56 != 0 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    let halves = value & 0xfff_ffff | (value & 0xff_ffff_f000_0000) << 4;
    let quarters = halves & 0x3fff_0000_3fff | (halves & 0xfff_c000_0fff_c000) << 2;
    let sevens = quarters & 0x7f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
    // Never 0: who calls has put the short ones, and a value of more than 56 bits has some left.
    let last = (63 - sevens.leading_zeros()) / 8;
    let more = 0x8080_8080_8080_8080 & !(u64::MAX << (8 * last));
    let end = out.len() + last as usize + 1;
    out.extend_from_slice(&(sevens | more).to_le_bytes());
    out.truncate(end);
}

/// Values that [`put_all`] looks at together.
const TOGETHER: usize = 32;

/// Appends each value.
///
/// What most columns hold are values of one byte, or of one to three in no order: the first are copied, of the others the
/// length is computed and not branched on.
pub(super) fn put_all<V>(out: &mut Vec<u8>, values: &[V])
where
    V: Copy + Default + BitOr<Output = V> + Into<u64>,
{
    for some in values.chunks(TOGETHER) {
        let any: u64 = some.iter().fold(V::default(), |any, value| any | *value).into();
        if any < 0x80 {
            out.extend(some.iter().map(|&value| value.into() as u8));
        } else if any < 0x4000 {
            put_pairs(out, some.iter().map(|&value| value.into() as u16));
        } else if any < 1 << 28 {
            put_short(out, some.iter().map(|&value| value.into() as u32));
        } else {
            some.iter().for_each(|&value| put(out, value.into()));
        }
    }
}

/// Appends values of at most 14 bits, [`TOGETHER`] of them at most.
#[inline]
fn put_pairs(out: &mut Vec<u8>, values: impl Iterator<Item = u16>) {
    let mut bytes = [0; 2 * TOGETHER];
    let mut len = 0;
    for value in values {
        let more = u16::from(value >= 0x80);
        let pair = (value + (value & 0x3f80)) | more << 7;
        bytes[len..len + 2].copy_from_slice(&pair.to_le_bytes());
        len += 1 + usize::from(more);
    }
    out.extend_from_slice(&bytes[..len]);
}

/// As [`put_pairs`], of values of at most 28 bits.
#[inline]
fn put_short(out: &mut Vec<u8>, values: impl Iterator<Item = u32>) {
    let mut bytes = [0; 4 * TOGETHER];
    let mut len = 0;
    for value in values {
        let halves = value & 0x3fff | (value & 0xfff_c000) << 2;
        let sevens = halves & 0x7f_007f | (halves & 0x3f80_3f80) << 1;
        let last = (31 - (sevens | 1).leading_zeros()) / 8;
        let more = 0x80_8080 & !(u32::MAX << (8 * last));
        bytes[len..len + 4].copy_from_slice(&(sevens | more).to_le_bytes());
        len += last as usize + 1;
    }
    out.extend_from_slice(&bytes[..len]);
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A difference as an unsigned number: 0, -1, 1, -2, 2 … become 0, 1, 2, 3, 4 …
#[inline]
pub(super) const fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (((difference as i64) >> 63) as u64)
}

/// The inverse of [`zigzag`].
#[inline]
pub(super) const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// As [`zigzag`], of 32 bits.
#[inline]
pub(super) const fn zigzag32(difference: u32) -> u32 {
    (difference << 1) ^ (((difference as i32) >> 31) as u32)
}

/// The inverse of [`zigzag32`].
#[inline]
pub(super) const fn unzigzag32(value: u32) -> u32 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// A difference between addresses or chunk sizes, mostly a multiple of 16, as an unsigned number.
///
/// Like [`zigzag`], but the low four bits, which are zero in the common case, go to the top: multiples of 16 are short
/// in either direction, everything else still has its number.
#[inline]
pub(super) const fn fold(difference: u64) -> u64 {
    let folded = zigzag(difference);
    let (magnitude, sign) = (folded >> 1, folded & 1);
    let magnitude = magnitude ^ (sign * 15);
    (magnitude >> 4 | (magnitude & 15) << 59) << 1 | sign
}

/// The inverse of [`fold`].
#[inline]
pub(super) const fn unfold(value: u64) -> u64 {
    let (rotated, sign) = (value >> 1, value & 1);
    let magnitude = (rotated << 4 | rotated >> 59) & (u64::MAX >> 1);
    unzigzag((magnitude ^ (sign * 15)) << 1 | sign)
}

/// Reads what the functions above wrote, out of bytes that someone else owns.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn left_bytes(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(CUT)?;
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut at = 0;
        let value = varint_at(self.rest, &mut at)?;
        self.rest = &self.rest[at..];
        Ok(value)
    }

    /// A number that has to fit 32 bits.
    pub(super) fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed::Bytes("a number exceeds 32 bits"))
    }

    pub(super) fn take(&mut self, len_bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len_bytes).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length and as many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len_bytes = self.varint()?;
        self.take(usize::try_from(len_bytes).map_err(|_| CUT)?)
    }

    /// A length and as many bytes of UTF-8.
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Bytes("a text is not UTF-8"))
    }
}

/// The integer at `at`, which is moved behind it.
pub(super) fn varint_at(bytes: &[u8], at: &mut usize) -> Result<u64, Malformed> {
    let &first = bytes.get(*at).ok_or(CUT)?;
    *at += 1;
    if first < 0x80 {
        return Ok(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let &byte = bytes.get(*at).ok_or(CUT)?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if shift > 63 || (shift == 63 && bits > 1) {
            return Err(LONG);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_integer_reads_back(value: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(Cursor::new(&out).varint(), Ok(value));
            prop_assert_eq!(unzigzag(zigzag(value)), value);
            prop_assert_eq!(unzigzag32(zigzag32(value as u32)), value as u32);
            prop_assert_eq!(unfold(fold(value)), value);
            prop_assert_eq!(fold(unfold(value)), value);
        }
    }

    proptest! {
        #[test]
        fn many_integers_are_put_as_one_after_the_other(
            values in prop::collection::vec((any::<u64>(), 0u32..64), 0..200),
            shift in prop::sample::select(vec![0, 36, 50, 57]),
        ) {
            let values: Vec<u64> = values.into_iter().map(|(value, less)| value >> less.max(shift)).collect();
            let (mut together, mut apart) = (vec![7], vec![7]);
            put_all(&mut together, &values);
            values.iter().for_each(|value| put(&mut apart, *value));
            prop_assert_eq!(together, apart);
        }
    }

    #[test]
    fn an_integer_of_more_than_64_bits_is_refused() {
        assert_eq!(Cursor::new(&[0xff; 11]).varint(), Err(LONG));
        assert_eq!(Cursor::new(&[0x80; 3]).varint(), Err(CUT));
    }

    #[test]
    fn small_multiples_of_16_fold_to_one_byte_in_either_direction() {
        for difference in [0u64, 16, 16u64.wrapping_neg(), 31 * 16, (64 * 16u64).wrapping_neg(), 63 * 16] {
            assert!(fold(difference) < 0x80, "{difference:#x}");
        }
    }
}
