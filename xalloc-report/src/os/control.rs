//! The control page: how the recorder tells every process what is wanted, and how they wake it.
//!
//! # Safety
//! - The map is one page long, as the file was made, and `Control` fits into a page (the layout's assertion). Where a
//!   program shortens the file, the page reads as zeroes and its words are the recorder's alone (`os::shared`).
//! - References are made to the atomics only: the plain fields are written through the file before anybody can see it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use memmap2::MmapOptions;
use xalloc_core::session::{CONTROL_MAGIC, Control, Options, control_state};
use xalloc_core::sys::futex;
use xalloc_core::wire;

use super::lock::lock_exclusively;
use super::shared::SharedMap;

const _: () = assert!(size_of::<Control>() == 4096);

/// The control page of a session, and the lock that shows that its recorder lives.
#[derive(Debug)]
pub struct ControlPage {
    map: SharedMap,
    /// Holds the lock for as long as the recorder lives.
    _locked: File,
}

impl ControlPage {
    /// Makes the page at `path`, in state "recording", and takes its lock. It has that name only when it is whole and
    /// locked: another recorder, which removes what nobody holds, may look at any moment.
    ///
    /// # Errors
    /// What creating, writing, locking or mapping the file reports; the file must not exist yet.
    pub fn create(path: &Path, options: &Options) -> io::Result<ControlPage> {
        let file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        let mut page = [0_u8; size_of::<Control>()];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset_of!(Control, magic), &CONTROL_MAGIC.to_le_bytes());
        put(offset_of!(Control, version), &u32::from(wire::VERSION).to_le_bytes());
        put(offset_of!(Control, state), &control_state::RECORDING.to_le_bytes());
        // Taken apart, so that no option is left out.
        let &Options {
            allocator,
            overflow,
            clock,
            follow,
            depth,
            verify_every,
            heap_steps,
            leak_check,
            harden,
            on_error,
            marks,
            free_stacks,
            sample_mean_bytes,
            reserved: _,
        } = options;
        let words = [
            (offset_of!(Options, allocator), allocator),
            (offset_of!(Options, overflow), overflow),
            (offset_of!(Options, clock), clock),
            (offset_of!(Options, follow), follow),
            (offset_of!(Options, depth), depth),
            (offset_of!(Options, verify_every), verify_every),
            (offset_of!(Options, heap_steps), heap_steps),
            (offset_of!(Options, leak_check), leak_check),
            (offset_of!(Options, harden), harden),
            (offset_of!(Options, on_error), on_error),
            (offset_of!(Options, marks), marks),
            (offset_of!(Options, free_stacks), free_stacks),
            (offset_of!(Options, sample_mean_bytes), sample_mean_bytes),
        ];
        for (at, word) in words {
            put(offset_of!(Control, options) + at, &word.to_le_bytes());
        }
        file.as_file().write_all_at(&page, 0)?;
        lock_exclusively(file.as_file())?;
        let file = file.persist_noclobber(path)?;
        Ok(ControlPage { map: SharedMap::new(MmapOptions::new().map_raw(&file)?), _locked: file })
    }

    /// Tells every process to push nothing more and to run on.
    pub fn finish(&self) {
        // ORDERING: pairs with the producers' loads; what they push after seeing it is nobody's.
        self.word(offset_of!(Control, state)).store(control_state::FINISHED, Ordering::Release);
    }

    /// Whether a program shortened the file: nothing that processes say here arrives any more.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.map.is_cut()
    }

    /// Segments that were made so far.
    #[must_use]
    pub fn hellos(&self) -> u32 {
        // ORDERING: pairs with the Release increment of the process: its segment's file is there.
        self.word(offset_of!(Control, hellos)).load(Ordering::Acquire)
    }

    /// The doorbell's value, to be read before looking for work and given to [`ControlPage::sleep`] after.
    #[must_use]
    pub fn doorbell(&self) -> u32 {
        // ORDERING: pairs with the producers' increments: what they published before they rang is seen.
        self.word(offset_of!(Control, doorbell)).load(Ordering::Acquire)
    }

    /// Rings the doorbell, as a producer does.
    pub fn ring(&self) {
        let bell = self.word(offset_of!(Control, doorbell));
        // ORDERING: pairs with the load in `doorbell`.
        bell.fetch_add(1, Ordering::Release);
        futex::wake(bell, 1, futex::Scope::Shared);
    }

    /// Sleeps until somebody rings or `timeout_ns` are over; at once if the bell was rung since `seen`.
    pub fn sleep(&self, seen: u32, timeout_ns: u64) {
        let sleeping = self.word(offset_of!(Control, sleeping));
        sleeping.store(1, Ordering::Relaxed);
        // ORDERING: pairs with the two SeqCst accesses of a producer, its increment of the doorbell and then its look at
        // `sleeping`: either it sees that we sleep, or the futex sees that the bell has changed.
        fence(Ordering::SeqCst);
        futex::wait(self.word(offset_of!(Control, doorbell)), seen, futex::Scope::Shared, timeout_ns);
        sleeping.store(0, Ordering::Relaxed);
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + size_of::<AtomicU32>() <= size_of::<Control>() && offset.is_multiple_of(4));
        // SAFETY: inside the page by the assertion and the first bullet.
        let place = unsafe { self.map.as_ptr().add(offset) }.cast::<AtomicU32>();
        // SAFETY: aligned by the assertion, alive as long as `self`; callers name atomics (second bullet).
        unsafe { &*place }
    }
}

#[cfg(test)]
impl ControlPage {
    pub(crate) fn state(&self) -> u32 {
        // ORDERING: pairs with the Release store in `finish`.
        self.word(offset_of!(Control, state)).load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_bell_rung_before_the_sleep_is_not_slept_over() {
        let directory = tempfile::tempdir().unwrap();
        let page = ControlPage::create(&directory.path().join("control"), &Options::new()).unwrap();
        let seen = page.doorbell();
        page.ring();
        let before = Instant::now();
        page.sleep(seen, 5_000_000_000);
        assert!(before.elapsed() < Duration::from_secs(2));
        assert_eq!(page.state(), control_state::RECORDING);
        page.finish();
        assert_eq!(page.state(), control_state::FINISHED);
    }

    #[test]
    fn every_option_stands_in_the_page_where_the_program_reads_it() {
        let options = Options {
            allocator: 1,
            overflow: 2,
            clock: 3,
            follow: 4,
            depth: 5,
            verify_every: 6,
            heap_steps: 7,
            leak_check: 8,
            harden: 9,
            on_error: 10,
            marks: 11,
            free_stacks: 12,
            sample_mean_bytes: 13,
            ..Options::new()
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let _page = ControlPage::create(&path, &options).unwrap();
        let page = std::fs::read(&path).unwrap();
        let start = offset_of!(Control, options);
        let words = page[start..start + offset_of!(Options, reserved)].chunks_exact(4);
        let words: Vec<u32> = words.map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, (1..=13).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_is_never_made_over_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let _page = ControlPage::create(&path, &Options::new()).unwrap();
        assert_eq!(ControlPage::create(&path, &Options::new()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
