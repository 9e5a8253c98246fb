//! From a call's registers to the id of its stack: the seam between the hooks and the capture room.

use xalloc_core::heap::Sink;
use xalloc_core::intern::FrameWord;
use xalloc_core::units::{ArenaId, StackId};
use xalloc_core::wire::{Event, HeapEvent};

use crate::arch::Entry;
use crate::segment::Segment;
use crate::thread::Stream;

/// What a stack walk keeps from one call to the next, in each thread.
pub(crate) struct ThreadCapture;

impl ThreadCapture {
    /// Nothing kept.
    pub(crate) const fn new() -> ThreadCapture {
        ThreadCapture
    }

    /// Keeps nothing: stack ids are another segment's now.
    pub(crate) fn forget(&mut self) {}
}

/// Makes the stacks of a new segment. Called while the process boots.
pub(crate) fn begin() {}

/// The id of the stack that a call came from; modules that it touches first are announced in `stream` before.
#[inline(always)]
pub(crate) fn stack_of(
    _capture: &mut ThreadCapture,
    _stream: &mut Stream,
    segment: &'static Segment,
    entry: Entry,
) -> StackId {
    segment.trie().insert(StackId::NONE, FrameWord::return_address(entry.ip as u64))
}

/// The heap's steps on behalf of a call, whose stack is captured when it is first needed.
pub(crate) struct Steps<'a> {
    segment: &'static Segment,
    stream: &'a mut Stream,
    capture: &'a mut ThreadCapture,
    entry: Entry,
    stack: Option<StackId>,
}

impl<'a> Steps<'a> {
    /// The steps of a call that entered with these registers.
    #[inline(always)]
    pub(crate) fn new(
        segment: &'static Segment,
        stream: &'a mut Stream,
        capture: &'a mut ThreadCapture,
        entry: Entry,
    ) -> Steps<'a> {
        Steps { segment, stream, capture, entry, stack: None }
    }

    /// The call's stack.
    #[inline(always)]
    pub(crate) fn stack(&mut self) -> StackId {
        match self.stack {
            Some(stack) => stack,
            None => *self.stack.insert(stack_of(self.capture, self.stream, self.segment, self.entry)),
        }
    }
}

impl Sink for Steps<'_> {
    fn event(&mut self, arena: ArenaId, seq: u16, step: HeapEvent) {
        if self.segment.options.heap_steps != 0 {
            let stack = self.stack();
            self.stream.event(self.segment, self.segment.now(), stack, Event::Heap { arena, seq, step });
        }
    }
}

/// Steps that no call of the program caused: a thread's end.
pub(crate) struct Unattributed<'a> {
    segment: &'static Segment,
    stream: &'a mut Stream,
}

impl<'a> Unattributed<'a> {
    /// Steps that go to this stream.
    pub(crate) fn new(segment: &'static Segment, stream: &'a mut Stream) -> Unattributed<'a> {
        Unattributed { segment, stream }
    }
}

impl Sink for Unattributed<'_> {
    fn event(&mut self, arena: ArenaId, seq: u16, step: HeapEvent) {
        if self.segment.options.heap_steps != 0 {
            self.stream.event(self.segment, self.segment.now(), StackId::NONE, Event::Heap { arena, seq, step });
        }
    }
}

/// After modules were unmapped: the number of the generation of stacks that begins.
pub(crate) fn closed() -> u32 {
    0
}
