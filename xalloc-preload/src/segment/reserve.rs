//! Getting pages of the segment ready before they are touched.
//!
//! A segment is a sparse file, and a page for which its file system has no room is a SIGBUS in the program that touches
//! it. So every page is asked for first: the header and the rings' headers when the segment is made, slots when a ring is
//! claimed, nodes and index of the stack trie in steps. What is refused is done without, and counted.
//!
//! # Why not one way of asking
//! `fallocate` is the cheaper one, but it wants a descriptor, and the program may have used up all of them, or have
//! changed its root; some file systems cannot do it. Then the kernel itself is made to write to each page, which it does
//! with an error where the program would be given the signal. A process that [confined](host::is_confined) itself asks so too.
//!
//! # Safety
//! - Ranges of `layout` lie in the mapping.
#![allow(unsafe_code)]

use core::ops::Range;
use core::ptr::NonNull;

use xalloc_core::intern::{Growth, Node, Reserve};
use xalloc_core::session::layout;

use super::{Segment, current};
use crate::host::{self, File, Reservation};

/// Sees to it that `range` of the segment at `base` can be touched; `file` is the segment's, if it could be opened.
/// False: the file system has no room.
pub(super) fn reserve(base: NonNull<u8>, file: Option<&File>, range: Range<usize>) -> bool {
    match file.map_or(Reservation::Unknown, |file| file.reserve(range.start, range.len())) {
        Reservation::Made => true,
        Reservation::Refused => false,
        Reservation::Unknown => {
            // SAFETY: by the bullet of the module.
            let start = unsafe { base.add(range.start) };
            // SAFETY: by the bullet of the module; the mapping is writable and stays.
            unsafe { host::populate(start, range.len()) }
        }
    }
}

impl Segment {
    /// Sees to it that `range` can be touched. False: the file system has no room.
    pub(super) fn reserve(&self, range: Range<usize>) -> bool {
        let file = if host::is_confined() { None } else { File::open(self.path.as_c(), libc::O_RDWR) };
        reserve(self.base, file.as_ref(), range)
    }
}

/// The memory of the stack trie of the process's segment.
#[derive(Debug)]
pub(super) struct TrieMemory;

impl Reserve for TrieMemory {
    #[cold]
    fn reserve(&self, growth: &Growth) -> bool {
        let Some(segment) = current() else { return false };
        let place = |node: usize| layout::NODES.start + node * size_of::<Node>();
        host::keeping_errno(|| {
            segment.reserve(place(growth.nodes.start)..place(growth.nodes.end))
                && growth.level.is_none_or(|level| segment.reserve(layout::index_level(level)))
        })
    }
}
