//! `.gnu_debugdata`: an xz-compressed ELF file inside the ELF file, with the names of its local functions.
//!
//! Fedora and its relatives ship every binary with one. Its format is the xz container with LZMA2 blocks.
//!
//! # Why the container is walked here
//! A few kilobytes of LZMA2 can unfold to gigabytes, and the decoder gathers a block in memory before it hands out a
//! byte, so a bound on its output comes too late. But each LZMA2 chunk states its unpacked size in front of it, and a
//! decoder produces exactly that much: adding up the headers tells the whole size before any work. The xz layout around
//! it is small (xz file format 1.2.0, sections 2 to 4). Check sums are not verified: a wrong bit costs a wrong name.

use super::Error;

/// The largest file that is unfolded. Real ones are below a tenth of this.
const MAX_UNPACKED_BYTES: usize = 256 << 20;

const STREAM_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const STREAM_HEADER_BYTES: usize = 12;

/// Size of the check sum after each block, by check type (section 2.1.1.2 of the format).
const CHECK_BYTES: [usize; 16] = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];

/// Unpacks the file in a `.gnu_debugdata` section.
///
/// # Errors
/// [`Error::MiniDebug`] says what is wrong with the stream.
pub(super) fn unpack(stream: &[u8]) -> Result<Vec<u8>, Error> {
    if !stream.starts_with(&STREAM_MAGIC) {
        return Err(Error::MiniDebug("no xz stream"));
    }
    let check_type = stream.get(7).ok_or(Error::MiniDebug("no stream flags"))? & 0x0f;
    let check_bytes = CHECK_BYTES[usize::from(check_type)];

    let mut unpacked = Vec::new();
    let mut at = STREAM_HEADER_BYTES;
    // A block header begins with its size in words less one; the index that follows the blocks begins with 0.
    loop {
        match stream.get(at) {
            None => return Err(Error::MiniDebug("no index after the blocks")),
            Some(0) => return Ok(unpacked),
            Some(words) => at += (usize::from(*words) + 1) * 4,
        }
        let chunks = stream.get(at..).ok_or(Error::MiniDebug("a block ends in its header"))?;
        let extent = measure(chunks)?;
        if extent.unpacked_bytes > MAX_UNPACKED_BYTES - unpacked.len() {
            return Err(Error::MiniDebug("it unfolds to more than 256 MiB"));
        }
        unpacked.reserve_exact(extent.unpacked_bytes);
        // Another filter than LZMA2 fails here: its bytes are no chunks.
        lzma_rs::lzma2_decompress(&mut &chunks[..extent.packed_bytes], &mut unpacked)
            .map_err(|_| Error::MiniDebug("broken LZMA2 data"))?;
        at += extent.packed_bytes.next_multiple_of(4) + check_bytes;
    }
}

/// The size of a block before and after unpacking.
struct Extent {
    packed_bytes: usize,
    unpacked_bytes: usize,
}

/// Adds up the chunk headers of one LZMA2 block, up to its end mark, which proves that all chunks before it are there.
fn measure(chunks: &[u8]) -> Result<Extent, Error> {
    let truncated = || Error::MiniDebug("a block ends before its end mark");
    let size_at = |at: usize| -> Result<usize, Error> {
        let bytes = chunks.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).ok_or_else(truncated)?;
        Ok(usize::from(u16::from_be_bytes(bytes)) + 1)
    };
    let mut extent = Extent { packed_bytes: 0, unpacked_bytes: 0 };
    loop {
        let at = extent.packed_bytes;
        let control = *chunks.get(at).ok_or_else(truncated)?;
        let (packed_bytes, unpacked_bytes) = match control {
            0 => {
                extent.packed_bytes += 1;
                return Ok(extent);
            }
            // Stored: control, size, bytes.
            1 | 2 => (3 + size_at(at + 1)?, size_at(at + 1)?),
            3..0x80 => return Err(Error::MiniDebug("an LZMA2 chunk of no known kind")),
            // Compressed: control with 5 bits of the size, size, packed size, and a byte of properties from 0xc0 on.
            0x80.. => {
                let header_bytes = if control >= 0xc0 { 6 } else { 5 };
                let high_bits = usize::from(control & 0x1f) << 16;
                (header_bytes + size_at(at + 3)?, high_bits + size_at(at + 1)?)
            }
        };
        extent.packed_bytes += packed_bytes;
        extent.unpacked_bytes = extent.unpacked_bytes.saturating_add(unpacked_bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        lzma_rs::xz_compress(&mut &bytes[..], &mut packed).unwrap();
        packed
    }

    #[test]
    fn what_was_packed_comes_out_again() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(unpack(&pack(&text)).unwrap(), text);
    }

    #[test]
    fn a_stream_that_claims_too_much_is_refused_before_it_is_unfolded() {
        let mut stream = pack(b"");
        stream.truncate(STREAM_HEADER_BYTES);
        stream.extend([2, 0, 0x21, 1, 0x16, 0, 0, 0, 0, 0, 0, 0]);
        for _ in 0..200 {
            // 2 MiB unpacked out of one byte packed.
            stream.extend([0xff, 0xff, 0xff, 0, 0, 0x5d, 0]);
        }
        stream.push(0);
        assert!(matches!(unpack(&stream), Err(Error::MiniDebug(why)) if why.contains("256 MiB")));
    }

    #[test]
    fn a_truncated_stream_is_an_error_at_every_length() {
        let packed = pack(b"a stream that ends early");
        let index_at = unpack(&packed).map(|_| packed.len()).unwrap();
        for length in 0..index_at {
            // Cuts inside the index behind the last block do no harm; before it they are errors.
            if let Ok(bytes) = unpack(&packed[..length]) {
                assert_eq!(bytes, b"a stream that ends early");
            }
        }
        assert!(unpack(&packed[..STREAM_HEADER_BYTES + 4]).is_err());
    }

    proptest! {
        #[test]
        fn a_damaged_stream_never_panics(at in 0_usize..400, with: u8, text in prop::collection::vec(0_u8..4, 0..300)) {
            let mut stream = pack(&text);
            let at = at % stream.len();
            stream[at] = with;
            let _ = unpack(&stream);
        }
    }
}
