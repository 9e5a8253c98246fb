//! The op byte and the columns of a block of events.
//!
//! One byte an event says what it is and, for the common ones, which block it is about. Nearly all of a trace's
//! information is in the addresses and in who is freed; size, stack and call go as they are into columns of their own,
//! because modelling them gained nothing over what zstd finds.
//!
//! # Frees
//! A block is named by how recently its thread allocated it (temporaries), or by its allocation's number relative to
//! that of the block which the thread freed last (a structure that is torn down in the order it was built), or, when
//! neither holds, by its slot.

use xalloc_core::wire::Call;

/// Allocation at the address that its slot had.
pub(super) const ALLOC_SAME: u8 = 0;
/// Allocation in place: the realloc under way keeps its slot and its address.
pub(super) const ALLOC_IN_PLACE: u8 = 1;
/// Allocation in the chunk that the thread split last.
pub(super) const ALLOC_SPLIT: u8 = 2;
/// Allocation where the thread's last allocation ended that none of the ops before these four describes.
pub(super) const ALLOC_AFTER_MISS: u8 = 3;
/// Allocation where the thread's last allocation ended.
pub(super) const ALLOC_AFTER_LAST: u8 = 4;
/// Allocation at an address that is stated, relative to where [`ALLOC_AFTER_MISS`] would be.
pub(super) const ALLOC_STATED: u8 = 5;
/// Allocation at the address of a slot that is stated, relative to that of the thread's last freed one.
pub(super) const ALLOC_SLOT: u8 = 6;
/// Allocation at the address of a slot that lies deeper in the free list: 1, 2, … below the newest.
pub(super) const ALLOC_DEEP: u8 = 7;
/// How many of those there are: glibc refills a thread's cache with up to seven chunks of a bin, which come out in
/// reverse.
pub(super) const ALLOC_DEEP_COUNT: u8 = 8;
/// Free of the block that the thread allocated 0, 1, … allocations ago.
pub(super) const FREE_RECENT: u8 = ALLOC_DEEP + ALLOC_DEEP_COUNT;
/// How many of those there are.
pub(super) const FREE_RECENT_COUNT: u8 = 160;
/// Free of the block whose allocation's number is that of the thread's last freed one, minus [`NUMBER_REACH`], and so
/// on upwards.
pub(super) const FREE_NUMBER: u8 = FREE_RECENT + FREE_RECENT_COUNT;
/// How far the number may differ in either direction.
pub(super) const NUMBER_REACH: u8 = 24;
/// Free of a block whose slot is stated, relative to that of the thread's last freed one.
pub(super) const FREE_SLOT: u8 = FREE_NUMBER + 2 * NUMBER_REACH + 1;
/// Begin of a realloc of a recently allocated block, as [`FREE_RECENT`].
pub(super) const REALLOC_RECENT: u8 = FREE_SLOT + 1;
/// How many of those there are.
pub(super) const REALLOC_RECENT_COUNT: u8 = 16;
/// Begin of a realloc of a block whose slot is stated, as [`FREE_SLOT`].
pub(super) const REALLOC_SLOT: u8 = REALLOC_RECENT + REALLOC_RECENT_COUNT;
/// The realloc under way failed.
pub(super) const REALLOC_UNDO: u8 = REALLOC_SLOT + 1;
/// A step of the heap; see [`super::heap_steps`].
pub(super) const HEAP: u8 = REALLOC_UNDO + 1;
/// Anything else; see [`super::rare`].
pub(super) const RARE: u8 = HEAP + 1;

/// How an allocation's number in the order of its arena is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// It has none: the arena was not entered.
    None,
    /// It is the next one.
    Next,
    /// It is farther on, by what stands in [`Field::HeapSeq`].
    Stated,
}

/// The byte of an allocation's origin that says its call and its order: the call in the low four bits.
pub(super) const fn call_byte(call: Call, order: Order) -> u8 {
    call as u8 | (order as u8) << 4
}

/// The inverse of [`call_byte`], or `None` for a byte that this version does not know.
pub(super) fn from_call_byte(byte: u8) -> Option<(Call, Order)> {
    let order = match byte >> 4 {
        0 => Order::None,
        1 => Order::Next,
        2 => Order::Stated,
        _ => return None,
    };
    Call::from_number(byte & 15).map(|call| (call, order))
}

/// The columns of a block of events, in the order in which they lie in its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Field {
    /// One byte an event.
    Op,
    /// Microseconds since the event before.
    Time,
    /// Pairs: thread, number of events in a row.
    Threads,
    /// Requested size of each allocation.
    Size,
    /// Stack of each allocation, as difference to that of the one before.
    Stack,
    /// Slack, arena, call and order of each allocation: a place in [`Field::Origins`].
    Origin,
    /// The distinct triples of slack beyond the expected, arena, and call with order.
    Origins,
    /// Stack of each event that is neither an allocation nor a step; empty if none has one.
    OtherStack,
    /// Place in [`Field::HeapKinds`] of each heap step, doubled, plus one if the step has values in the columns below;
    /// without them each of its numbers is as expected.
    HeapKind,
    /// The distinct triples of arena, kind and small operand of heap steps.
    HeapKinds,
    /// Sequence number of a heap step or an allocation in its arena, less the expected one.
    HeapSeq,
    /// Address of a heap step, less the expected one.
    HeapAddr,
    /// First size of a heap step, less the expected one.
    HeapFirst,
    /// Second size of a heap step, less the expected one.
    HeapSecond,
    /// Everything else, one after the other.
    Rare,
    /// Bytes 0 of the stated addresses; [`ADDR_PLANES`] columns in all.
    Addr = 15,
    /// Bytes 0 of the stated slots; [`SLOT_PLANES`] columns in all.
    Slot = 15 + ADDR_PLANES,
    /// Stack of each heap step; see [`super::step_stacks`]. Since 3.0: before, [`Self::OtherStack`] had these too, and
    /// [`Self::Stack`] was no difference.
    StepStack = 15 + ADDR_PLANES + SLOT_PLANES,
}

/// Byte columns of a stated address.
pub(super) const ADDR_PLANES: usize = 8;
/// Byte columns of a stated slot.
pub(super) const SLOT_PLANES: usize = 5;
/// Number of columns.
pub(super) const FIELDS: usize = Field::StepStack as usize + 1;
/// Number of columns before 3.0.
pub(super) const FIELDS_BEFORE_3: usize = Field::StepStack as usize;

/// Events after which a block is closed.
pub(super) const BLOCK_EVENTS: usize = 64 << 10;
/// Most events of a block: repairs may add some to the last ones.
pub(super) const MAX_BLOCK_EVENTS: usize = BLOCK_EVENTS + (16 << 10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_op_space_has_room_left_for_later_versions() {
        const { assert!(RARE < 255) };
        assert_eq!((FREE_SLOT, RARE), (224, 244));
    }
}
