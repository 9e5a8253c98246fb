//! Why an ELF file or its debug information could not be read.

use super::nesting::MAX_DEPTH;

/// An error of this room. None of them stops symbolisation: the module's addresses stay without names and the error
/// becomes the reason that is printed ([`Missing`](super::Missing)).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no 64-bit ELF file, or its tables point outside of it.
    #[error("not a readable 64-bit ELF file: {0}")]
    Elf(#[from] object::read::Error),
    /// The DWARF sections contradict themselves.
    #[error("malformed DWARF: {0}")]
    Dwarf(#[from] gimli::Error),
    /// Debugging entries nest deeper than any compiler writes them.
    #[error("its entries nest more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A section claims to grow to more than is plausible when it is decompressed.
    #[error("section {section} claims to decompress from {compressed_bytes} to {claimed_bytes} bytes")]
    Inflated {
        /// Name of the section, such as `.debug_info`.
        section: String,
        /// Its size in the file.
        compressed_bytes: u64,
        /// The size its header promises.
        claimed_bytes: u64,
    },
    /// The `.gnu_debugdata` section is no xz stream of LZMA2 blocks, or a broken one.
    #[error("malformed .gnu_debugdata: {0}")]
    MiniDebug(&'static str),
    /// The file cannot be opened or mapped.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The path names a directory, a device or a pipe.
    #[error("not a regular file")]
    NotAFile,
}
