//! Who holds a place that outlives its holders, and whether the holder is over.
//!
//! A thread that ends cannot give its place up by itself: libc calls into the allocator after the last destructor. So it
//! only says that it is over, with the kernel's number for it, and whoever finds that the kernel has forgotten the
//! number may take the place.
//!
//! # Invariant
//! The word is 0 (free), a holder (held), or a holder with the number of its thread (over), and each change of it is one
//! atomic step: from free to held, from held to over or to free by the holder itself, from over to held. So of all
//! that want a place one gets it, and who holds a place keeps it.
//!
//! # Why not a word for the holder and one for its end
//! Two words change one after the other. A thief that has read both can be overtaken by the holder's successor, which
//! has the same address as the holder: the thief's exchange of that address then succeeds all the same, and two threads
//! have one place. In one word the successor's change is seen. Only a successor with the address *and* the number of the
//! holder could be mistaken for it, which takes all numbers of the kernel handed out once between two instructions.

use crate::primitive::{AtomicU64, Ordering};

/// Bits of a thread's number: the kernel's limit (`PID_MAX_LIMIT`) is 2^22.
const NUMBER_BITS: u32 = 22;
/// Alignment that the address of a holder has.
const ALIGN: u64 = 64;

/// Whoever can hold a place, by an address that is its own while it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder(u64);

impl Holder {
    /// The holder at this address: a multiple of 64 (as libc aligns threads' descriptors) below 2^48, not 0.
    #[must_use]
    pub const fn at(address: u64) -> Option<Holder> {
        if address == 0 || !address.is_multiple_of(ALIGN) || address >= 1 << 48 {
            return None;
        }
        Some(Holder((address / ALIGN) << NUMBER_BITS))
    }
}

/// A holder that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Over(u64);

impl Over {
    /// The kernel's number of the thread.
    #[must_use]
    pub const fn thread(self) -> u32 {
        self.0 as u32 & ((1 << NUMBER_BITS) - 1)
    }
}

/// The word that says who holds a place.
#[derive(Debug)]
pub struct Tenure(AtomicU64);

impl Tenure {
    /// A free place.
    #[cfg(not(xalloc_loom))]
    #[must_use]
    pub const fn new() -> Tenure {
        Tenure(AtomicU64::new(0))
    }

    /// A free place.
    #[cfg(xalloc_loom)]
    #[must_use]
    pub fn new() -> Tenure {
        Tenure(AtomicU64::new(0))
    }

    /// Whether `holder` has the place, over or not.
    #[must_use]
    pub fn is_of(&self, holder: Holder) -> bool {
        // Relaxed: a holder looks for its own place, and for others the answer is stale at once.
        self.0.load(Ordering::Relaxed) >> NUMBER_BITS == holder.0 >> NUMBER_BITS
    }

    /// Takes the place if it is free.
    pub fn claim(&self, holder: Holder) -> bool {
        self.0.load(Ordering::Relaxed) == 0
            // ORDERING: pairs with the Release store in `give_up`: the former holder has left the place.
            && self.0.compare_exchange(0, holder.0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The holder's end, if it has said so.
    #[must_use]
    pub fn over(&self) -> Option<Over> {
        // Relaxed: `take_over` orders what matters.
        let over = Over(self.0.load(Ordering::Relaxed));
        (over.thread() != 0).then_some(over)
    }

    /// Takes the place of a holder that is over and uses it no more. False: another was first.
    pub fn take_over(&self, over: Over, holder: Holder) -> bool {
        // ORDERING: pairs with the Release store in `end`: the former holder has left the place.
        self.0.compare_exchange(over.0, holder.0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Says that `holder`, who has the place and calls this, is over; `thread` is its number, not 0.
    pub fn end(&self, holder: Holder, thread: u32) {
        // ORDERING: pairs with the Acquire exchange in `take_over`.
        self.0.store(holder.0 | (u64::from(thread) & ((1 << NUMBER_BITS) - 1)), Ordering::Release);
    }

    /// Gives the place up: by the holder, who is not over, or in a forked child by its only thread.
    pub fn give_up(&self) {
        // ORDERING: pairs with the Acquire exchange in `claim`.
        self.0.store(0, Ordering::Release);
    }
}

impl Default for Tenure {
    fn default() -> Tenure {
        Tenure::new()
    }
}

#[cfg(all(test, not(xalloc_loom)))]
mod tests {
    use super::*;

    const A: Holder = Holder::at(0x7f12_3456_7740).expect("aligned");
    const B: Holder = Holder::at(64).expect("aligned");

    #[test]
    fn a_place_goes_from_its_holder_to_one_other_once_the_holder_is_over() {
        let place = Tenure::new();
        assert!(place.claim(A) && !place.claim(B));
        assert!(place.is_of(A) && !place.is_of(B) && place.over().is_none());
        place.end(A, (1 << 22) - 1);
        let over = place.over().unwrap();
        assert_eq!(over.thread(), (1 << 22) - 1);
        assert!(place.is_of(A) && !place.claim(B));
        assert!(place.take_over(over, B) && !place.take_over(over, A));
        assert!(place.is_of(B) && place.over().is_none());
        place.give_up();
        assert!(!place.is_of(B) && place.claim(A));
    }

    #[test]
    fn an_address_that_no_descriptor_has_is_no_holder() {
        for address in [0, 32, 1 << 48, u64::MAX] {
            assert_eq!(Holder::at(address), None);
        }
    }
}
