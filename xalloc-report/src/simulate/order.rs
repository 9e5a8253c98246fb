//! The order in which threads that share an arena were served.
//!
//! An allocation is stamped after it was made and a free before, so in the merged order of events a thread that was
//! held up between the arena's lock and its stamp seems to be served later than it was. The arena itself numbers
//! everything that happens under its lock. Requests are therefore held back for a while, and one that the arena
//! served earlier than those that came before it is put where it belongs: an allocation before the first of another
//! thread that has a larger number, a free to where its first step is.
//!
//! # Slots
//! A slot is given to a new block when the merged order says that the old one is gone. Where requests change places both could
//! be there at once, so a block whose slot is still named in the window gets a number of its own ([`RENAMED`]).
//!
//! # How far back
//! An arena's numbers have 16 bits. One that is a little ahead of all others is the next, any other is of an event that was
//! held up: so a thread can be held up for some 64,000 of the arena's steps, and for [`WINDOW`] requests of the others; for
//! longer, and it is put where it does not belong.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};
use xalloc_core::units::ArenaId;

use super::requests::{Kind, Placed, Request, Requests};
use crate::trace::StackIndex;

/// Requests that are held back: what other threads ask for while one waits for a processor for some tens of milliseconds.
const WINDOW: usize = 1 << 16;
/// Bit of a slot that no slot of the trace has.
const RENAMED: u32 = 1 << 31;
/// Numbers that an arena may be ahead of what was told of it: allocations that have no other step and are not told yet.
const AHEAD: u16 = 1024;

/// A block that a request obtained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Obtained {
    pub(super) placed: Placed,
    pub(super) stack: StackIndex,
    /// Number of the allocation in the merged order.
    pub(super) number: u32,
}

/// A request on its way into the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// The name of the block that the request changes, which goes with it.
    pub(super) names: Option<Request>,
    pub(super) request: Request,
    pub(super) obtained: Option<Obtained>,
    /// The arena that served it, and when, by [`Order::widen`].
    pub(super) served: Option<(ArenaId, u64)>,
}

impl Waiting {
    pub(super) fn plain(request: Request) -> Waiting {
        Waiting { names: None, request, obtained: None, served: None }
    }

    fn slots(&self) -> impl Iterator<Item = u32> {
        let own = has_slot(self.request.kind).then_some(self.request.slot);
        own.into_iter().chain(self.names.map(|names| names.slot))
    }
}

/// Whether a request names a block by its slot.
fn has_slot(kind: Kind) -> bool {
    kind.obtains() || matches!(kind, Kind::Free | Kind::ReallocOf)
}

/// Requests in the order in which they were served, as far as that is known.
#[derive(Default, Debug)]
pub(super) struct Order {
    window: VecDeque<Waiting>,
    /// Threads whose last request is a free that has no step yet: steps of the others, of which there may be many, are
    /// not looked for in the window.
    unserved: FxHashSet<u16>,
    /// How often each slot is named in the window.
    named: FxHashMap<u32, u32>,
    /// The largest number of each arena so far.
    last: FxHashMap<ArenaId, u64>,
    /// Blocks that live under a number of their own, by the slot that the trace gave them.
    renamed: FxHashMap<u32, u32>,
    /// Numbers that were given, and those of them that nobody has.
    names: u32,
    spare: Vec<u32>,
    /// Allocations that are not the number of the merged order.
    moved: FxHashMap<u32, u32>,
    is_shared: bool,
}

impl Order {
    /// The number of an event of an arena that has `seq` for its low 16 bits.
    pub(super) fn widen(&mut self, arena: ArenaId, seq: u16) -> u64 {
        // The first has room for one before it.
        let last = self.last.entry(arena).or_insert((1 << 16) + u64::from(seq));
        let ahead = seq.wrapping_sub(*last as u16);
        let number = if ahead <= AHEAD { *last + u64::from(ahead) } else { *last + u64::from(ahead) - (1 << 16) };
        *last = number.max(*last);
        number
    }

    /// There is more than one thread from here on.
    pub(super) fn share(&mut self) {
        self.is_shared = true;
    }

    /// The slot of a block that the trace puts into `slot`.
    pub(super) fn slot_for(&mut self, slot: u32) -> u32 {
        if !self.is_shared || !self.named.contains_key(&slot) {
            return slot;
        }
        let own = self.spare.pop().unwrap_or_else(|| {
            self.names += 1;
            RENAMED | (self.names - 1)
        });
        self.renamed.insert(slot, own);
        own
    }

    /// A realloc begins of the block in `slot`, as [`Self::slot_of`] tells it: nobody else gets that until it is pushed.
    pub(super) fn hold(&mut self, slot: u32) {
        if self.is_shared {
            *self.named.entry(slot).or_default() += 1;
        }
    }

    /// The slot in which the trace's block in `slot` is, which goes from it.
    pub(super) fn slot_of(&mut self, slot: u32) -> u32 {
        match self.renamed.is_empty() {
            true => slot,
            false => self.renamed.remove(&slot).unwrap_or(slot),
        }
    }

    /// The block that was taken from `was` is now where the trace has `slot`, after a realloc that failed.
    pub(super) fn stays(&mut self, slot: u32, was: Option<u32>) {
        if let Some(was) = was.filter(|&was| was != slot) {
            self.renamed.insert(slot, was);
        }
    }

    /// The next request of the merged order.
    pub(super) fn push(&mut self, waiting: Waiting, into: &mut Requests) {
        if !self.is_shared {
            return self.commit(waiting, into);
        }
        // What it changes is held already.
        if has_slot(waiting.request.kind) {
            *self.named.entry(waiting.request.slot).or_default() += 1;
        }
        let Request { kind, thread, .. } = waiting.request;
        if kind == Kind::Free {
            self.unserved.insert(thread);
        } else if kind != Kind::Tick {
            self.unserved.remove(&thread);
        }
        let place = self.place_of(&waiting);
        self.window.insert(place, waiting);
        if self.window.len() > WINDOW
            && let Some(first) = self.window.pop_front()
        {
            self.release(first, into);
        }
    }

    /// Where in the window a request belongs.
    fn place_of(&self, waiting: &Waiting) -> usize {
        let end = self.window.len();
        let Some((arena, number)) = waiting.served else { return end };
        if self.last.get(&arena) == Some(&number) {
            return end;
        }
        let mut place = end;
        for (at, earlier) in self.window.iter().enumerate().rev() {
            let is_own = earlier.request.thread == waiting.request.thread && earlier.request.kind != Kind::Tick;
            match earlier.served {
                _ if is_own => break,
                Some((of, other)) if of == arena && other < number => break,
                Some((of, _)) if of == arena => place = at,
                Some(_) | None => {}
            }
        }
        place
    }

    /// The arena took a step for the thread: if its last request is a free that had none yet, it is served by that.
    pub(super) fn step(&mut self, thread: u16, arena: ArenaId, number: u64) {
        if !self.unserved.remove(&thread) {
            return;
        }
        let is_own = |waiting: &Waiting| waiting.request.thread == thread && waiting.request.kind == Kind::Free;
        if let Some(at) = self.window.iter().rposition(is_own)
            && let Some(mut waiting) = self.window.remove(at)
        {
            waiting.served = Some((arena, number));
            self.window.push_back(waiting);
        }
    }

    fn release(&mut self, waiting: Waiting, into: &mut Requests) {
        let freed = Some(waiting.request).filter(|request| request.kind == Kind::Free).or(waiting.names);
        self.spare.extend(freed.map(|freed| freed.slot).filter(|slot| slot & RENAMED != 0));
        for slot in waiting.slots() {
            if let Some(named) = self.named.get_mut(&slot) {
                *named -= 1;
                if *named == 0 {
                    self.named.remove(&slot);
                }
            }
        }
        self.commit(waiting, into);
    }

    fn commit(&mut self, waiting: Waiting, into: &mut Requests) {
        into.list.extend(waiting.names);
        into.list.push(waiting.request);
        if let Some(Obtained { placed, stack, number }) = waiting.obtained {
            let now = into.placed.len() as u32;
            if now != number {
                self.moved.insert(number, now);
            }
            into.placed.push(placed);
            into.stacks.push(stack);
        }
    }

    /// All requests are told. `written` is by number in the merged order.
    pub(super) fn finish(mut self, into: &mut Requests, written: FxHashMap<u32, u64>) {
        while let Some(first) = self.window.pop_front() {
            self.release(first, into);
        }
        let now = |number| self.moved.get(&number).copied().unwrap_or(number);
        into.written = written.into_iter().map(|(number, bytes)| (now(number), bytes)).collect();
        if self.names == 0 {
            return;
        }
        // Behind the trace's own.
        for request in into.list.iter_mut().filter(|request| has_slot(request.kind) && request.slot & RENAMED != 0) {
            request.slot = into.slots + (request.slot & !RENAMED);
        }
        into.slots += self.names;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: ArenaId = ArenaId(0);

    fn request(kind: Kind, thread: u16, slot: u32) -> Waiting {
        Waiting::plain(Request { size: 0, slot, thread, kind, align_log2: 0 })
    }

    /// A malloc of a thread, the arena's `seq`th step, which is the `number`th allocation of the merged order.
    fn malloc(order: &mut Order, thread: u16, slot: u32, seq: u16, number: u32) -> Waiting {
        let placed = Placed::new(u64::from(seq), 0);
        let obtained = Some(Obtained { placed, stack: StackIndex::NONE, number });
        Waiting { obtained, served: Some((MAIN, order.widen(MAIN, seq))), ..request(Kind::Malloc, thread, slot) }
    }

    fn step(order: &mut Order, thread: u16, seq: u16) {
        let number = order.widen(MAIN, seq);
        order.step(thread, MAIN, number);
    }

    fn shared() -> (Order, Requests) {
        let mut order = Order::default();
        order.share();
        (order, Requests { slots: 100, ..Requests::default() })
    }

    fn told(requests: &Requests) -> Vec<(Kind, u16, u32)> {
        requests.list.iter().map(|request| (request.kind, request.thread, request.slot)).collect()
    }

    #[test]
    fn an_allocation_stands_where_its_arena_made_it_and_not_before_its_own_threads_last() {
        let (mut order, mut into) = shared();
        let made = malloc(&mut order, 1, 1, u16::MAX, 0);
        order.push(made, &mut into);
        order.push(request(Kind::Tick, 0, 0), &mut into);
        let made = malloc(&mut order, 1, 2, 1, 1);
        order.push(made, &mut into);
        let made = malloc(&mut order, 2, 3, 0, 2);
        order.push(made, &mut into);
        let made = malloc(&mut order, 1, 4, 3, 3);
        order.push(made, &mut into);
        order.push(request(Kind::Free, 2, 3), &mut into);
        let made = malloc(&mut order, 2, 5, 2, 4);
        order.push(made, &mut into);
        order.finish(&mut into, [(1, 111), (2, 222)].into_iter().collect());
        let slots: Vec<u32> = into.list.iter().filter(|told| told.kind == Kind::Malloc).map(|told| told.slot).collect();
        assert_eq!(slots, [1, 3, 2, 4, 5], "the last came after its thread's own free");
        let seqs: Vec<u64> = into.placed.iter().map(|placed| placed.addr()).collect();
        assert_eq!(seqs, [u64::from(u16::MAX), 0, 1, 3, 2]);
        assert_eq!(into.written, [(2, 111), (1, 222)].into_iter().collect(), "what was written goes with its block");
    }

    #[test]
    fn numbers_go_round_and_one_that_was_held_up_is_not_taken_for_the_next() {
        let mut order = Order::default();
        let first = order.widen(MAIN, 65_000);
        assert_eq!(order.widen(MAIN, 65_535), first + 535);
        assert_eq!(order.widen(MAIN, 3), first + 539);
        assert_eq!(order.widen(MAIN, 65_001), first + 1);
        for seq in (0..60_000).step_by(1_000) {
            order.widen(MAIN, seq);
        }
        assert_eq!(order.widen(MAIN, 4), first + 540, "55,000 steps ago");
        assert_eq!(order.widen(MAIN, 59_001), first + 536 + 59_001);
    }

    #[test]
    fn a_free_stands_where_its_first_step_is() {
        let (mut order, mut into) = shared();
        order.push(request(Kind::Free, 1, 7), &mut into);
        let made = malloc(&mut order, 2, 3, 0, 0);
        order.push(made, &mut into);
        step(&mut order, 1, 1);
        let made = malloc(&mut order, 2, 4, 2, 1);
        order.push(made, &mut into);
        step(&mut order, 1, 3);
        order.finish(&mut into, FxHashMap::default());
        assert_eq!(told(&into), [(Kind::Malloc, 2, 3), (Kind::Free, 1, 7), (Kind::Malloc, 2, 4)]);
    }

    #[test]
    fn a_block_whose_slot_is_named_by_what_it_may_overtake_gets_another() {
        let (mut order, mut into) = shared();
        order.push(request(Kind::Free, 1, 7), &mut into);
        step(&mut order, 1, 6);
        let slot = order.slot_for(7);
        let made = malloc(&mut order, 2, slot, 5, 0);
        order.push(made, &mut into);
        let slot = order.slot_of(7);
        order.push(request(Kind::Free, 2, slot), &mut into);
        assert_eq!(order.slot_for(8), 8);
        order.finish(&mut into, FxHashMap::default());
        assert_eq!(told(&into), [(Kind::Malloc, 2, 100), (Kind::Free, 1, 7), (Kind::Free, 2, 100)]);
        assert_eq!(into.slots, 101);
    }
}
