//! A process's look at its own memory, for a recorder that the kernel does not let look.
//!
//! A process that made itself non-dumpable, or one behind a /proc that does not show everything, hides its mappings and
//! their page tables from its recorder. Itself it may read the sums of its mappings, and `mincore` says of each page whether
//! it is resident. So where a thread of it waits for the recorder anyway, or a signal can be sent to it, it is asked: the
//! recorder makes an empty file in the session's directory, named as the segment with [`NAME`] for `segment` and the
//! number of the look behind it, and raises [`super::blocks::Handshake::own_look`]; the process writes, and says that it
//! is done.
//!
//! # The file
//! A header, the text of the process's `smaps`, then the resident runs of its anonymous mappings: pairs of the first
//! address and the one behind, ascending, little-endian. Mappings of more than [`MOST_PAGES`] are left out. The header is
//! written last: a file without it says nothing.

/// What stands for `segment` in the file's name.
pub const NAME: &str = "pages";
/// Longest mapping that is asked about page by page: 64 GiB.
pub const MOST_PAGES: u64 = 1 << 24;
/// First eight bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"xaPAGE\0\x01");

/// How the file begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnLookHeader {
    /// Number of the look.
    pub number: u32,
    /// Bytes of text behind the header.
    pub text_bytes: u64,
    /// Runs behind the text.
    pub runs: u64,
}

impl OwnLookHeader {
    /// Bytes of it.
    pub const BYTES: usize = 32;

    /// As it lies in the file.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; OwnLookHeader::BYTES] {
        let mut bytes = [0; OwnLookHeader::BYTES];
        let words = [MAGIC, u64::from(self.number), self.text_bytes, self.runs];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What [`Self::to_bytes`] gives; `None`: it is no header.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<OwnLookHeader> {
        let word = |nth: usize| Some(u64::from_le_bytes(*bytes.get(8 * nth..)?.first_chunk()?));
        let number = u32::try_from(word(1)?).ok()?;
        (word(0)? == MAGIC).then_some(OwnLookHeader { number, text_bytes: word(2)?, runs: word(3)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written_and_an_empty_file_has_none() {
        let header = OwnLookHeader { number: 7, text_bytes: 12_345, runs: 99 };
        assert_eq!(OwnLookHeader::from_bytes(&header.to_bytes()), Some(header));
        assert_eq!(OwnLookHeader::from_bytes(&[0; OwnLookHeader::BYTES]), None);
        assert_eq!(OwnLookHeader::from_bytes(&header.to_bytes()[..31]), None);
    }
}
