//! What is asked of every reader of foreign bytes, as plain functions: the fuzz targets call them, and the ordinary
//! tests run them over the committed corpora.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

use xalloc_core::wire::Record;

/// Reads `bytes` as records of a ring: no input may panic, and what has a reading keeps it when written again.
pub(crate) fn wire_record(bytes: &[u8]) {
    for bytes in bytes.chunks_exact(size_of::<Record>()) {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let record = Record {
            stamp: word(0),
            a: word(8),
            b: word(16),
            stack: word(24) as u32,
            kind: bytes[28],
            sub: bytes[29],
            extra: (word(24) >> 48) as u16,
        };
        if let Some(event) = record.decode() {
            assert_eq!(event.encode().decode(), Some(event), "{record:?}");
        }
    }
}

/// Reads `bytes` as a trace, to its end or to its first error.
pub(crate) fn trace(bytes: &[u8]) {
    xalloc_report::trace::read_untrusted(bytes);
}

/// Reads `bytes` as an ELF file with symbols and debug information. An error is a good answer to bad bytes.
pub(crate) fn symbols(bytes: &[u8]) {
    let _ = xalloc_report::symbols::parse_untrusted(bytes);
}
