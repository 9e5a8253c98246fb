//! A loaded module's dynamic symbols, as the loader finds them: gABI, "Symbol Table", and the hash table of GNU linkers.
//!
//! # The hash table
//! Four words: the number of buckets, the first symbol in it, words of a filter of 8 bytes each, a shift. Then the
//! filter, a word for each bucket (its first symbol or 0), a word for each symbol: the symbol's hash, in whose lowest bit
//! stands whether it is the last one of its bucket.

use core::ffi::CStr;
use core::iter;

use super::Image;

const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DT_VERSYM: u64 = 0x6fff_fff0;
const STT_FUNC: u8 = 2;
const SYMBOL_BYTES: usize = 24;
/// Where in a symbol its value is.
const VALUE_AT: usize = 8;
/// Of a version: only who asks for that version finds the symbol.
const HIDDEN: u16 = 1 << 15;

/// The dynamic symbols of a module.
pub(crate) struct Symbols<'a> {
    bias: u64,
    table: &'a [u8],
    names: &'a [u8],
    versions: &'a [u8],
    buckets: &'a [u8],
    chains: &'a [u8],
    /// Number of the first symbol that `chains` tells of.
    first: usize,
}

/// A function that a module defines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a CStr,
    /// Where it is.
    pub(crate) address: u64,
    /// Whether only who asks for its version finds it.
    pub(crate) is_hidden: bool,
    /// Address of the word that says where it is, less the module's bias.
    pub(crate) value_at: u64,
}

impl<'a> Symbols<'a> {
    /// The symbols of a module; `None` if it has no such tables.
    pub(crate) fn of(image: &Image<'a>) -> Option<Symbols<'a>> {
        let (mut symbols, mut strings, mut hash, mut versions) = (None, None, None, None);
        for entry in image.dynamic()?.chunks_exact(16) {
            let (tag, value) = (u64_at(entry, 0)?, u64_at(entry, 8)?);
            let place = match tag {
                0 => break,
                DT_SYMTAB => &mut symbols,
                DT_STRTAB => &mut strings,
                DT_GNU_HASH => &mut hash,
                DT_VERSYM => &mut versions,
                _ => continue,
            };
            // The loader adds the bias to these where it can write to them.
            let address = if value < image.start() { image.bias().wrapping_add(value) } else { value };
            *place = image.bytes_from(address);
        }
        let hash = hash?;
        let [buckets, first, filter, _] = [0, 4, 8, 12].map(|at| u32_at(hash, at).unwrap_or(0) as usize);
        let (buckets, chains) =
            hash.get(16_usize.checked_add(filter.checked_mul(8)?)?..)?.split_at_checked(4 * buckets)?;
        Some(Symbols {
            bias: image.bias(),
            table: symbols?,
            names: strings?,
            versions: versions.unwrap_or_default(),
            buckets,
            chains,
            first,
        })
    }

    /// Every function.
    pub(crate) fn functions(&self) -> impl Iterator<Item = Function<'a>> {
        (0..self.buckets.len() / 4).flat_map(|bucket| self.bucket(bucket)).filter_map(|(at, _)| self.function(at))
    }

    /// The functions of that name, of every version.
    pub(crate) fn named(&self, name: &CStr) -> impl Iterator<Item = Function<'a>> {
        let hash =
            name.to_bytes().iter().fold(5381_u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)));
        let bucket = (hash as usize).checked_rem(self.buckets.len() / 4).unwrap_or(0);
        let alike = self.bucket(bucket).filter(move |&(_, of_symbol)| of_symbol | 1 == hash | 1);
        alike.filter_map(|(at, _)| self.function(at)).filter(move |function| function.name == name)
    }

    /// Numbers and hashes of a bucket's symbols.
    fn bucket(&self, bucket: usize) -> impl Iterator<Item = (usize, u32)> {
        let mut next = u32_at(self.buckets, 4 * bucket).map(|first| first as usize);
        iter::from_fn(move || {
            let at = next?;
            let hash = u32_at(self.chains, 4 * at.checked_sub(self.first)?)?;
            next = (hash & 1 == 0).then_some(at + 1);
            Some((at, hash))
        })
    }

    fn function(&self, at: usize) -> Option<Function<'a>> {
        let symbol = self.table.get(at * SYMBOL_BYTES..)?.first_chunk::<SYMBOL_BYTES>()?;
        let (name, kind, section) = (u32_at(symbol, 0)?, symbol[4] & 0xf, u16_at(symbol, 6)?);
        if kind != STT_FUNC || section == 0 {
            return None;
        }
        Some(Function {
            name: CStr::from_bytes_until_nul(self.names.get(name as usize..)?).ok()?,
            address: self.bias.wrapping_add(u64_at(symbol, VALUE_AT)?),
            is_hidden: u16_at(self.versions, 2 * at).is_some_and(|version| version & HIDDEN != 0),
            value_at: (self.table.as_ptr() as usize + at * SYMBOL_BYTES + VALUE_AT) as u64,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
