//! Words of a stack that is not the thread's own: a coroutine's, or the one that signal handlers run on.
//!
//! Nothing is known of its bounds, and it may be unmapped between two captures, so every page is read by the kernel,
//! which answers with an error where a load would kill the program. A system call for at most 2 KiB takes about half a
//! microsecond, and a walk makes one to three of them.
//!
//! A process that [confined](is_confined) itself may not be allowed that call. There each word is probed by the signal
//! mask, which it is allowed, and then loaded: should another thread unmap the page in between, the load is a fault. That
//! is why it is not done everywhere.
//!
//! # Why not remember the mapping
//! A pool that gives back one coroutine's stack and maps a smaller one in its place makes every remembered range wrong,
//! and reading `/proc/self/maps` each time is a hundred times dearer.
//!
//! # Safety
//! - `process_vm_readv` on the own process reads what is readable, stops where nothing is, and writes only to the
//!   local buffer that it is given. (`syscall` takes its last argument from the stack: it must be a whole word.)
//! - A page whose first word in question can be read can be read to its end, while it is mapped.
#![allow(unsafe_code)]

use xalloc_core::units::PAGE_BYTES;

use crate::host::{is_confined, is_readable, keeping_errno, pid};

const WORDS: usize = 256;
const BEFORE_BYTES: u64 = 128;

/// Reads words of memory, which may be mapped or not; the number of words from the start that are whole.
pub(super) fn read_words(at: u64, words: &mut [u64]) -> usize {
    if is_confined() {
        return load_words(at, words);
    }
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(words) };
    let remote = libc::iovec { iov_base: core::ptr::with_exposed_provenance_mut(at as usize), ..local };
    // SAFETY: by the bullet of the module; the local range is the slice.
    let got = keeping_errno(|| unsafe {
        libc::syscall(libc::SYS_process_vm_readv, pid(), &raw const local, 1_usize, &raw const remote, 1_usize, 0_usize)
    });
    got.max(0) as usize / size_of::<u64>()
}

/// As [`read_words`], by loads from pages that were found to be readable.
#[cold]
fn load_words(at: u64, words: &mut [u64]) -> usize {
    let mut page = None;
    let mut loaded = 0;
    for word in words {
        let at = at.wrapping_add((loaded * size_of::<u64>()) as u64);
        if page != Some(at / PAGE_BYTES) && !is_readable(at as usize) {
            break;
        }
        page = Some(at / PAGE_BYTES);
        let place = core::ptr::with_exposed_provenance::<u64>(at as usize);
        // SAFETY: by the second bullet of the module; other threads may write there, so the word is loaded once.
        *word = unsafe { place.read_volatile() };
        loaded += 1;
    }
    loaded
}

/// The part of a stack that was read last.
pub(super) struct Window {
    start: u64,
    len: usize,
    words: [u64; WORDS],
}

impl Window {
    pub(super) const fn new() -> Window {
        Window { start: 0, len: 0, words: [0; WORDS] }
    }

    /// Forgets what was read: memory may have changed.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// The word at `at`, a multiple of 8; `None` where nothing is mapped.
    pub(super) fn read(&mut self, at: u64) -> Option<u64> {
        let index = (at.wrapping_sub(self.start) / 8) as usize;
        if let Some(&word) = self.words.get(..self.len)?.get(index) {
            return Some(word);
        }
        // A frame's saved registers lie a little below the return address that is read first.
        let before = (at % PAGE_BYTES).min(BEFORE_BYTES);
        self.start = at - before;
        let to_page_end = (PAGE_BYTES - self.start % PAGE_BYTES) as usize / 8;
        self.len = read_words(self.start, self.words.get_mut(..WORDS.min(to_page_end))?);
        self.words.get(..self.len)?.get((before / 8) as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_mapped_memory_are_read_and_unmapped_memory_is_told_apart() {
        let memory: Vec<u64> = (0..2_000).collect();
        let mut window = Window::new();
        for &index in &[0, 1, 255, 256, 257, 1_999, 3] {
            assert_eq!(window.read(&raw const memory[index] as u64), Some(index as u64));
        }
        assert_eq!(window.read(0x1000), None);
        assert_eq!(window.read(u64::MAX - 7), None);
    }

    #[test]
    fn loads_see_what_the_kernel_reads() {
        let memory: Vec<u64> = (0..2_000).collect();
        let (mut read, mut loaded) = ([0; 700], [0; 700]);
        let at = &raw const memory[500] as u64;
        assert_eq!(read_words(at, &mut read), 700);
        assert_eq!(load_words(at, &mut loaded), 700);
        assert_eq!(read, loaded);
        assert_eq!(load_words(0x1000, &mut loaded), 0);
        assert_eq!(load_words(u64::MAX - 7, &mut loaded), 0);
    }
}
