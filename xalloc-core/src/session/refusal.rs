//! Why a process with the library in it is not recorded.
//!
//! A process that cannot make a segment has nothing that it could write into, so it leaves a file whose *name* says
//! why: `refused.<pid>.<reason>.<errno>`. To make an empty file takes neither memory nor a descriptor nor a block of the
//! file system, which are the very things that may be missing.

/// How the names of such files begin.
pub const REFUSED_PREFIX: &str = "refused.";

/// The reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// The control page cannot be opened or mapped.
    Control = 1,
    /// The control page is another version's, or none.
    Version = 2,
    /// The limit on the size of files is smaller than a segment.
    FileSize = 3,
    /// The file of the segment cannot be made.
    File = 4,
    /// There is no room for the first pages of the segment.
    NoRoom = 5,
    /// The segment, or the tables for call stacks, cannot be mapped.
    Memory = 6,
    /// What was recorded so far could not be written to the file: the recording ended before the program.
    Write = 7,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Refusal; 7] = [
        Refusal::Control,
        Refusal::Version,
        Refusal::FileSize,
        Refusal::File,
        Refusal::NoRoom,
        Refusal::Memory,
        Refusal::Write,
    ];

    /// The number in the file's name.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What was seen, to be followed by the system's own word.
    #[must_use]
    pub const fn seen(self) -> &'static str {
        match self {
            Refusal::Control => "the recorder's control page cannot be opened",
            Refusal::Version => "the recorder's control page is that of another version of xalloc",
            Refusal::FileSize => "the limit on the size of files is smaller than the shared memory",
            Refusal::File => "the file for the shared memory cannot be made",
            Refusal::NoRoom => "there is no room for the shared memory in its file system",
            Refusal::Memory => "the shared memory cannot be mapped",
            Refusal::Write => "the file of the recording cannot be written any further",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Refusal::Control | Refusal::File => {
                "let the program reach the recording's directory: a sandbox, another user or a changed root keeps it out"
            }
            Refusal::Version => "set LD_PRELOAD to the library of the xalloc-report that records, or leave it to it",
            Refusal::FileSize => "raise the limit on file sizes (ulimit -f unlimited)",
            Refusal::NoRoom | Refusal::Write => {
                "free space there, or name another place (TMPDIR for `record`, XALLOC_OUT without a recorder)"
            }
            Refusal::Memory => {
                "raise the limit on address space (ulimit -v unlimited); the shared memory takes 256 MiB of it"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_number_of_its_own() {
        for (at, reason) in Refusal::ALL.iter().enumerate() {
            assert_eq!(usize::from(reason.number()), at + 1);
        }
    }
}
