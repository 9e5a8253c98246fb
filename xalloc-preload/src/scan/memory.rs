//! The process's mappings, and reading them.
//!
//! # Safety
//! - The list lies in a mapping of its own, which is as long as its capacity and goes with the list.
#![allow(unsafe_code)]

use core::ops::{ControlFlow, Range};
use core::ptr::NonNull;

use xalloc_core::reach::Memory;

use super::fault::Guard;
use crate::host;
use crate::modules;

/// Mappings that are remembered; the kernel allows a process 65,530 unless told otherwise.
const MOST: usize = 1 << 16;

/// What is at the end of a list entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A file's.
    File,
    /// No file's.
    Anonymous,
    /// The break's.
    Break,
    /// The first thread's stack.
    Stack,
    /// The memory of a device, the kernel's own pages, this library's segments: never read.
    Apart,
}

/// A mapping, as far as a check needs to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) permissions: [u8; 4],
    pub(super) kind: Kind,
}

impl Piece {
    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    pub(super) fn is_readable(&self) -> bool {
        self.permissions[0] == b'r'
    }

    pub(super) fn is_writable(&self) -> bool {
        self.permissions[1] == b'w'
    }

    fn is_code(&self) -> bool {
        self.permissions[2] == b'x'
    }
}

/// The list of mappings, ascending.
pub(super) struct Map {
    base: NonNull<u8>,
    count: usize,
}

const BYTES: usize = MOST * size_of::<Piece>();

impl Map {
    /// Reads the kernel's list. `None`: it cannot be read, or there is no memory for it.
    pub(super) fn read() -> Option<Map> {
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { host::map_anonymous(BYTES, core::ptr::null_mut()) }?;
        let mut map = Map { base, count: 0 };
        let is_cut: Option<()> = modules::maps::search(|mapping| {
            let Range { start, end } = mapping.range;
            let piece = Piece { start, end, permissions: mapping.permissions, kind: kind_of(mapping.path) };
            if map.count == MOST {
                return ControlFlow::Break(());
            }
            // SAFETY: below the capacity, in the mapping of this list.
            let place = unsafe { map.base.cast::<Piece>().add(map.count) };
            // SAFETY: as above; nobody else uses it.
            unsafe { place.write(piece) };
            map.count += 1;
            ControlFlow::Continue(())
        });
        (is_cut.is_none() && map.count > 0).then_some(map)
    }

    /// The mappings.
    pub(super) fn pieces(&self) -> &[Piece] {
        // SAFETY: `count` of them were written.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr().cast(), self.count) }
    }

    /// Number of the mapping that holds `addr`.
    pub(super) fn find(&self, addr: u64) -> Option<usize> {
        let pieces = self.pieces();
        let after = pieces.partition_point(|piece| piece.start <= addr);
        let found = after.checked_sub(1)?;
        pieces.get(found).filter(|piece| addr < piece.end).map(|_| found)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is this list's.
        unsafe { host::unmap(self.base, BYTES) };
    }
}

fn kind_of(path: &[u8]) -> Kind {
    let is_session = path.windows(PREFIX.len()).any(|part| part == PREFIX);
    match path {
        b"" => Kind::Anonymous,
        b"[heap]" => Kind::Break,
        b"[stack]" => Kind::Stack,
        _ if is_session => Kind::Apart,
        _ if path.starts_with(b"/dev/shm/") || path.starts_with(b"/dev/zero") => Kind::File,
        _ if path.starts_with(b"/dev/") => Kind::Apart,
        // The kernel's name for memory that a program named itself.
        _ if path.starts_with(b"[anon") => Kind::Anonymous,
        _ if path.starts_with(b"[") => Kind::Apart,
        _ => Kind::File,
    }
}

/// What the names of sessions' directories contain, and those of unpacked libraries do not.
const PREFIX: &[u8] = b"/xalloc-session.";

/// The process's own memory.
pub(super) struct Own<'m> {
    map: &'m Map,
    guard: &'m Guard,
}

impl<'m> Own<'m> {
    pub(super) fn new(map: &'m Map, guard: &'m Guard) -> Own<'m> {
        Own { map, guard }
    }
}

impl Memory for Own<'_> {
    #[inline]
    fn copy(&mut self, addr: u64, into: &mut [u64]) -> usize {
        self.guard.copy(addr, into)
    }

    fn is_constant(&self, addr: u64) -> bool {
        let piece = self.map.find(addr).and_then(|found| self.map.pieces().get(found));
        piece.is_some_and(|piece| piece.kind == Kind::File && piece.is_readable() && !piece.is_writable())
    }

    fn is_code(&self, addr: u64) -> bool {
        self.map.find(addr).and_then(|found| self.map.pieces().get(found)).is_some_and(Piece::is_code)
    }
}
