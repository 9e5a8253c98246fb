//! The container: a header, blocks that stand for themselves, a footer that lists them, a trailer that finds the
//! footer.
//!
//! ```text
//! file     = magic[8] major:u16 minor:u16 mean:u32  block*  footer-block  trailer
//! block    = "XBLK" kind:u8 flags:u8 0:u16 process:u32 payload:u32 raw:u32 items:u32 slots:u32
//!            first_item:u64 first_us:u64 last_us:u64 crc:u32  payload[payload]
//! trailer  = footer_offset:u64 crc:u32 "XEND"
//! ```
//! Integers are little-endian. Major versions come in pairs. Odd ones, 1 and 3, are of traces of all events, whose `mean`
//! says nothing. Even ones, 2 and 4, are of sampled recordings, for a reader that took their blocks for all there were
//! would say things that are wrong; `mean` is what [`Sampling`] says. Since 3 and 4 blocks of events say more by what is
//! near ([`FLAG_RELATIVE`]), which an older reader would take for something else. `crc` is CRC-32 (IEEE) of the block's
//! header before it and of its payload, so that no field is believed that a torn write or a bad disk has changed. `raw`
//! is the sum of the unpacked columns and is checked against [`super::columns::MAX_RAW_BYTES`] before anything is
//! allocated.
//!
//! # Invariant
//! A block never refers to a later one. Any prefix of whole blocks is a readable trace; a recorder that is killed
//! leaves one.
//!
//! # Why not a chunk of an existing format
//! Arrow and Parquet bring schema, footers without which nothing can be read, and tens of dependencies; a stream of
//! zstd frames cannot be entered in the middle. The 56 bytes of header a block are a thousandth of a block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Sampling;
use super::columns::MAX_RAW_BYTES;
use super::error::{Malformed, TraceError};

/// First bytes of a trace. The first is no text, the last is a line feed: what mangles text files mangles them.
pub(super) const MAGIC: [u8; 8] = *b"\x89xtrace\n";
/// Major version of the format; a reader refuses a larger one.
pub const MAJOR: u16 = 4;
/// Major version of a trace of all events.
const MAJOR_OF_ALL: u16 = 3;
/// Minor version; a reader of an older minor version skips the kinds of blocks that it does not know.
pub const MINOR: u16 = 0;

/// Whether a file that begins with these bytes is a trace, of whatever version.
#[must_use]
pub fn is_trace(first: [u8; 8]) -> bool {
    first == MAGIC
}

/// Bytes of the file's header.
pub(super) const FILE_HEADER_BYTES: u64 = 16;
/// Bytes of a block's header.
pub(super) const BLOCK_HEADER_BYTES: usize = 56;
/// Bytes of the trailer.
pub(super) const TRAILER_BYTES: u64 = 16;

const BLOCK_MAGIC: [u8; 4] = *b"XBLK";
const TRAILER_MAGIC: [u8; 4] = *b"XEND";
/// A payload cannot be larger than its columns: each is stored raw when that is shorter, with at most 16 bytes more.
const MAX_PAYLOAD_BYTES: usize = MAX_RAW_BYTES + (64 << 10);

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum BlockKind {
    /// Events of one process.
    Events = 1,
    /// Live and free slots of one process at one point of its order; may take several blocks.
    Checkpoint = 2,
    /// Additions to the contents.
    Dictionary = 3,
    /// The list of all blocks before it.
    Footer = 4,
    /// What the kernel said of one process's memory at one time. Since 1.1.
    Snapshot = 5,
}

/// The first block of a checkpoint.
pub(super) const FLAG_FIRST_PART: u8 = 1;
/// The last block of a checkpoint.
pub(super) const FLAG_LAST_PART: u8 = 2;
/// A block of events whose stacks are differences, with columns for those of steps, and whose steps are expected by what
/// [`super::bins`] remembers. Without it a block is of a major version before 3.
pub(super) const FLAG_RELATIVE: u8 = 4;
/// A block of events before which [`super::bins`] forgets: the first one, or the first behind a checkpoint.
pub(super) const FLAG_ANEW: u8 = 8;

/// What is known of a block without its payload; also its entry in the footer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockHeader {
    /// [`BlockKind`] by number; others are of a later minor version and are skipped.
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Process of the events, or 0.
    pub(super) process: u32,
    pub(super) payload_bytes: u32,
    /// Sum of the unpacked columns.
    pub(super) raw_bytes: u32,
    /// Events of the block, or slots of this part of a checkpoint.
    pub(super) items: u32,
    /// Slots that the process has used up to the block's end.
    pub(super) slots: u32,
    /// Number of the first event, or of the event before which a checkpoint stands.
    pub(super) first_item: u64,
    /// Time of the first event, microseconds since the recording's start.
    pub(super) first_us: u64,
    /// Time of the last event.
    pub(super) last_us: u64,
}

impl BlockHeader {
    /// A header of that kind with nothing else said.
    pub(super) const fn of(kind: BlockKind) -> BlockHeader {
        BlockHeader {
            kind: kind as u8,
            flags: 0,
            process: 0,
            payload_bytes: 0,
            raw_bytes: 0,
            items: 0,
            slots: 0,
            first_item: 0,
            first_us: 0,
            last_us: 0,
        }
    }

    /// Header and payload as they lie in the file.
    pub(super) fn frame(mut self, payload: &[u8]) -> Vec<u8> {
        self.payload_bytes = u32::try_from(payload.len()).expect("blocks are cut far below 4 GiB");
        let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES + payload.len());
        out.extend_from_slice(&BLOCK_MAGIC);
        out.extend_from_slice(&[self.kind, self.flags, 0, 0]);
        for word in [self.process, self.payload_bytes, self.raw_bytes, self.items, self.slots] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.first_item, self.first_us, self.last_us] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let crc = checksum(&out, payload);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(payload);
        out
    }

    /// Reads a header; the checksum that it states comes with it.
    pub(super) fn parse(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<(BlockHeader, u32), Malformed> {
        if bytes[..4] != BLOCK_MAGIC {
            return Err(Malformed::Bytes("no block begins here"));
        }
        let header = BlockHeader {
            kind: bytes[4],
            flags: bytes[5],
            process: u32_at(bytes, 8),
            payload_bytes: u32_at(bytes, 12),
            raw_bytes: u32_at(bytes, 16),
            items: u32_at(bytes, 20),
            slots: u32_at(bytes, 24),
            first_item: u64_at(bytes, 28),
            first_us: u64_at(bytes, 36),
            last_us: u64_at(bytes, 44),
        };
        if header.payload_bytes as usize > MAX_PAYLOAD_BYTES || header.raw_bytes as usize > MAX_RAW_BYTES {
            return Err(Malformed::Bytes("a block claims to be larger than blocks are"));
        }
        Ok((header, u32_at(bytes, 52)))
    }

    /// Whether [`FLAG_RELATIVE`] is set.
    pub(super) const fn is_relative(&self) -> bool {
        self.flags & FLAG_RELATIVE != 0
    }

    /// Bytes of the block in the file.
    pub(super) const fn len_bytes(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + self.payload_bytes as u64
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of 4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of 8 bytes"))
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// The file's first 16 bytes.
pub(super) fn file_header(sampling: Option<Sampling>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let major = if sampling.is_some() { MAJOR } else { MAJOR_OF_ALL };
    out.extend_from_slice(&major.to_le_bytes());
    out.extend_from_slice(&MINOR.to_le_bytes());
    out.extend_from_slice(&sampling.map_or(0, |sampling| sampling.mean_bytes.get()).to_le_bytes());
    out
}

/// The file's last 16 bytes.
pub(super) fn trailer(footer_offset_bytes: u64) -> Vec<u8> {
    let mut out = footer_offset_bytes.to_le_bytes().to_vec();
    out.extend_from_slice(&checksum(&out, &[]).to_le_bytes());
    out.extend_from_slice(&TRAILER_MAGIC);
    out
}

/// Where the bytes of a trace come from. Reads name their place, so that several readers can share it.
pub(super) enum Source {
    /// A file of that many bytes.
    File(File, u64),
    /// Bytes in memory.
    Memory(Vec<u8>),
}

impl Source {
    pub(super) fn len_bytes(&self) -> u64 {
        match self {
            Source::File(_, len_bytes) => *len_bytes,
            Source::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn read(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), TraceError> {
        let len_bytes = into.len() as u64;
        let failed = |source| TraceError::Read { offset_bytes, len_bytes, source };
        match self {
            Source::File(file, _) => file.read_exact_at(into, offset_bytes).map_err(failed),
            Source::Memory(bytes) => {
                let from = usize::try_from(offset_bytes).ok().and_then(|from| bytes.get(from..)?.get(..into.len()));
                into.copy_from_slice(from.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?);
                Ok(())
            }
        }
    }

    /// Checks magic and version; says which blocks were recorded, if not all.
    pub(super) fn check_file_header(&self) -> Result<Option<Sampling>, TraceError> {
        let mut header = [0; FILE_HEADER_BYTES as usize];
        let have = (self.len_bytes() as usize).min(header.len());
        self.read(0, &mut header[..have])?;
        if have < header.len() || header[..8] != MAGIC {
            return Err(TraceError::NotATrace { found: header[..have.min(8)].to_vec() });
        }
        let version = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (major, minor) = (version(8), version(10));
        if major > MAJOR || major == 0 {
            return Err(TraceError::NewerVersion { major, minor });
        }
        if !major.is_multiple_of(2) {
            return Ok(None);
        }
        let sampling = Sampling::of_mean(u32_at(&header, 12));
        let no_mean = TraceError::Damaged { offset_bytes: 12, what: "a sampled trace does not say how it was sampled" };
        sampling.ok_or(no_mean).map(Some)
    }

    /// Where the footer begins, if the trace was finished.
    pub(super) fn footer_offset_bytes(&self) -> Result<Option<u64>, TraceError> {
        let Some(at) = self.len_bytes().checked_sub(TRAILER_BYTES).filter(|&at| at >= FILE_HEADER_BYTES) else {
            return Ok(None);
        };
        let mut bytes = [0; TRAILER_BYTES as usize];
        self.read(at, &mut bytes)?;
        if bytes[12..] != TRAILER_MAGIC || u32_at(&bytes, 8) != checksum(&bytes[..8], &[]) {
            return Ok(None);
        }
        Ok(Some(u64_at(&bytes, 0)))
    }

    /// Reads the block at `offset_bytes`; its payload into `payload`, checked unless `trust` says that a damaged one
    /// is wanted.
    pub(super) fn block(
        &self,
        offset_bytes: u64,
        payload: &mut Vec<u8>,
        trust: Trust,
    ) -> Result<BlockHeader, TraceError> {
        let damaged = |what| TraceError::Damaged { offset_bytes, what };
        let left_bytes = self.len_bytes().saturating_sub(offset_bytes);
        if left_bytes < BLOCK_HEADER_BYTES as u64 {
            return Err(damaged("the file ends within a block's header"));
        }
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        self.read(offset_bytes, &mut bytes)?;
        let (header, crc) = BlockHeader::parse(&bytes).map_err(|fault| fault.at(offset_bytes))?;
        if left_bytes < header.len_bytes() {
            return Err(damaged("the file ends within a block"));
        }
        payload.clear();
        payload.resize(header.payload_bytes as usize, 0);
        self.read(offset_bytes + BLOCK_HEADER_BYTES as u64, payload)?;
        match trust {
            Trust::Checksum if crc != checksum(&bytes[..BLOCK_HEADER_BYTES - 4], payload) => {
                Err(damaged("a block's checksum is wrong"))
            }
            Trust::Checksum | Trust::Anything => Ok(header),
        }
    }
}

/// Whether blocks have to pass their checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trust {
    /// They have to.
    Checksum,
    /// They need not: fuzzing wants to reach the code behind it.
    Anything,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_block() -> Vec<u8> {
        let mut bytes = file_header(None);
        bytes.extend(BlockHeader { items: 3, last_us: 9, ..BlockHeader::of(BlockKind::Events) }.frame(b"payload"));
        bytes
    }

    #[test]
    fn a_block_reads_back_and_any_flipped_bit_of_it_is_noticed() {
        let bytes = one_block();
        let mut payload = Vec::new();
        let header = Source::Memory(bytes.clone()).block(FILE_HEADER_BYTES, &mut payload, Trust::Checksum).unwrap();
        assert_eq!((header.items, header.last_us, payload.as_slice()), (3, 9, b"payload".as_slice()));
        for bit in FILE_HEADER_BYTES as usize * 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Source::Memory(flipped).block(FILE_HEADER_BYTES, &mut payload, Trust::Checksum);
            assert!(read.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_major_version_is_refused_and_a_newer_minor_one_is_read() {
        let sampling = Sampling::of_mean(4096);
        assert_eq!(Source::Memory(file_header(sampling)).check_file_header().unwrap(), sampling);
        let mut bytes = one_block();
        bytes[10] = 200;
        assert!(Source::Memory(bytes.clone()).check_file_header().is_ok());
        bytes[8] = MAJOR as u8 + 1;
        let refused = Source::Memory(bytes).check_file_header().unwrap_err();
        assert!(matches!(refused, TraceError::NewerVersion { major: 5, minor: 200 }), "{refused}");
        assert!(refused.to_string().contains("newer xalloc"));
    }
}
