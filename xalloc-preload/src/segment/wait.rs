//! Waiting for the recorder's answer in the handshake, for as long as there is a recorder.

use core::sync::atomic::Ordering;

use xalloc_core::primitive::AtomicU32;
use xalloc_core::session::marks;
use xalloc_core::sys::{clock, futex};

use super::Segment;

/// Longest wait: the recorder may have to read everything that is in the rings first.
const PATIENCE_NS: u64 = 20_000_000_000;
/// Time between two looks whether the recorder lives.
const LOOK_NS: u64 = 100_000_000;

impl Segment {
    /// Waits until the recorder has set a word of the handshake to what `is_it` accepts. False: it does not.
    pub(crate) fn waits_for(&self, word: &AtomicU32, is_it: impl Fn(u32) -> bool) -> bool {
        let deadline_ns = clock::monotonic_ns() + PATIENCE_NS;
        loop {
            // ORDERING: pairs with the recorder's Release stores (`os::segment`): what it did for the answer is done.
            let seen = word.load(Ordering::Acquire);
            if is_it(seen) {
                return true;
            }
            if clock::monotonic_ns() > deadline_ns || !self.recorder_lives() {
                return false;
            }
            self.look_if_asked();
            futex::wait(word, seen, futex::Scope::Shared, LOOK_NS);
        }
    }

    /// Waits until the recorder has looked at the process's memory, if marks are to wait for that.
    pub(crate) fn wait_at_mark(&self) {
        if self.options.marks != marks::WAIT_FOR_LOOK || !self.has_recorder() {
            return;
        }
        let handshake = &self.header().handshake;
        // ORDERING: pairs with the recorder's Acquire load: the mark was pushed before. Acquire by the answer's load.
        let number = handshake.looks_asked.fetch_add(1, Ordering::Release).wrapping_add(1);
        self.ring_doorbell();
        // The numbers go round; one that is answered is not far behind.
        self.waits_for(&handshake.looks_answered, |answered| answered.wrapping_sub(number) as i32 >= 0);
    }
}
