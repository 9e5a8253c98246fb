//! The thread's recent stacks, and what a new walk can take over from them.
//!
//! # Invariant
//! Frames lie in runs, each from older to younger: a run is what one capture found beyond a frame that was known, so
//! runs form a tree whose paths to a root are stacks. Beside the frames lie all words that a walk read to get from a
//! frame to its caller, with the values they had, in the same order: in its run, `words[..frame.words_end]` are what the
//! frames up to and including `frame` needed. Nothing is changed once it is entered, and all is forgotten at once.
//!
//! What a walk finds beyond a state depends only on that state, on the module map, and on the words that are read from
//! there. So when a new walk reaches a state that an earlier one had, and every one of those words is unchanged, the
//! rest is the earlier one's. `rbp` belongs to the state only where the frame or an older one is based on it before
//! somebody restores it: code without frame pointers keeps anything there. For the same reason a saved `rbp` is a word
//! of the walk only then.
//!
//! A program allocates at the same few places again and again, so a stack is first looked for by its innermost state
//! ([`Recent::repeated`]); most captures end there, without a step. Else the walk is compared with the stack of the capture
//! before, with which it shares its older frames ([`Recent::joins`]).
//!
//! # Why every word
//! It is tempting to stop at the first state that both walks have in common. But main may call a() at two places, and
//! both times a() calls b() with the same stack pointer: b's state is equal, main's is not. Stopping there gave wrong
//! stacks for 13.6 % of a compiler's allocations. The loads do not depend on one another, so all of them cost less
//! than one step of a walk.
//!
//! # Why not the previous stack alone
//! A program that allocates at one depth and frees at another would walk from the one to the other at every call.
//!
//! # Safety
//! - A word is entered only by [`Recent::keep`], with an address at which the walk that is kept read on the calling
//!   thread's own stack.
//! - A value is used by one thread, or forgets everything before another thread has it.
#![allow(unsafe_code)]

mod keep;
mod tips;

use xalloc_core::intern::FrameWord;
use xalloc_core::units::StackId;

use super::own_stack::change;
use super::rule::Rule;
use super::shared::DEPTH;
use super::walk::State;
use tips::Tips;

/// Frames that are kept: a power of two, and four stacks of the greatest depth. With half as many a compiler has three
/// stacks in ten walked that it captured a little earlier.
const FRAMES: usize = 4 * DEPTH;
/// Two a frame: the return address, and `rbp` in code that has frame pointers.
const WORDS: usize = 2 * FRAMES;
/// Words of one stack that are compared together.
const TOGETHER: usize = 4;
/// In place of a frame's number: none. The frame of that number is never used.
const NONE: u16 = 0;

/// A frame as it was found, with its place in the trie.
#[derive(Clone, Copy, Debug)]
struct Frame {
    state: State,
    node: StackId,
    /// The caller of its run's oldest frame, or [`NONE`] if that is the outermost.
    beyond: u16,
    /// The oldest frame of its run.
    run: u16,
    /// Where the words of its run begin.
    words_start: u16,
    /// Behind the words that lead from here to the run's oldest caller.
    words_end: u16,
    /// Frames from here to the root, this one and the outermost included.
    depth: u16,
    /// Whether the rest of the walk depends on `state.fp`.
    needs_fp: bool,
    /// Whether the stack was cut at the depth limit: the same frames deeper in another stack would be cut elsewhere.
    at_limit: bool,
}

impl Frame {
    #[inline(always)]
    fn is(&self, state: &State) -> bool {
        self.state.sp == state.sp && self.state.word == state.word && (!self.needs_fp || self.state.fp == state.fp)
    }
}

#[derive(Clone, Copy, Debug)]
struct Word {
    at: u64,
    value: u64,
}

/// A frame that a walk has passed, with the rule by which it left it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) state: State,
    pub(super) rule: Rule,
}

/// What lies behind the oldest frame that a walk passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beyond {
    /// The frame where it joined a kept stack.
    Joined,
    /// Nothing: the stack is whole, or cut where no rule leads on, always at the same frame.
    Root(StackId),
    /// Frames that were cut at the depth limit.
    Limit(StackId),
}

/// The kept stacks. Zeroed memory holds none.
pub(super) struct Recent {
    frames: [Frame; FRAMES],
    words: [Word; WORDS],
    /// Stacks, by their innermost state.
    tips: Tips,
    /// Frames and words in use; frame 0 is not counted.
    frames_len: usize,
    words_len: usize,
    /// The innermost kept frame of the capture before.
    latest: u16,
    /// During a walk: the frame with which it is compared next.
    at: u16,
    /// During a walk: the words from `at` to the root were compared already.
    is_compared: bool,
}

impl Recent {
    pub(super) const fn new() -> Recent {
        let frame = Frame {
            state: State { word: FrameWord(0), sp: 0, fp: 0 },
            node: StackId::NONE,
            beyond: NONE,
            run: NONE,
            words_start: 0,
            words_end: 0,
            depth: 0,
            needs_fp: false,
            at_limit: false,
        };
        Recent {
            frames: [frame; FRAMES],
            words: [Word { at: 0, value: 0 }; WORDS],
            tips: Tips::new(),
            frames_len: 0,
            words_len: 0,
            latest: NONE,
            at: NONE,
            is_compared: false,
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn forget(&mut self) {
        self.tips.forget();
        self.frames_len = 0;
        self.words_len = 0;
        self.latest = NONE;
    }

    #[inline(always)]
    fn frame(&self, number: u16) -> &Frame {
        &self.frames[usize::from(number) % FRAMES]
    }

    /// The words by which the frames of a run up to `frame` lead to the run's oldest caller.
    #[inline(always)]
    fn words_to(&self, frame: &Frame) -> &[Word] {
        self.words.get(usize::from(frame.words_start)..usize::from(frame.words_end)).unwrap_or(&[])
    }

    /// The caller of a frame, or [`NONE`] for the outermost: within a run they follow each other.
    #[inline(always)]
    fn caller(&self, number: u16) -> u16 {
        let frame = self.frame(number);
        if number == frame.run { frame.beyond } else { number - 1 }
    }

    /// A walk begins.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.at = self.latest;
        self.is_compared = false;
    }

    /// Whether the walk, which has `passed` frames behind it and a limit of `depth`, may end at `state` because the
    /// stack of the capture before goes on from there.
    #[inline(always)]
    pub(super) fn joins(&mut self, state: &State, passed: usize, depth: usize) -> bool {
        loop {
            if self.at == NONE {
                return false;
            }
            let frame = self.frame(self.at);
            if frame.state.sp < state.sp {
                // The walk is past it, and only rises.
                self.at = self.caller(self.at);
                continue;
            }
            let total = passed + usize::from(frame.depth);
            // A whole stack of exactly the limit's length is walked: the walk says whether it counts as cut.
            let within = if frame.at_limit { total == depth } else { total < depth };
            return frame.is(state) && within && self.is_unchanged();
        }
    }

    /// Compares all words from the frame `at` to the root. If some changed, `at` becomes the youngest frame from which
    /// on all are as they were. Asked once a walk, of which it would keep the steps from being short.
    #[inline(never)]
    fn is_unchanged(&mut self) -> bool {
        if self.is_compared {
            return true;
        }
        self.is_compared = true;
        let (mut number, mut changed) = (self.at, NONE);
        while number != NONE {
            let frame = self.frame(number);
            if has_changed(self.words_to(frame)) {
                changed = number;
            }
            number = frame.beyond;
        }
        if changed != NONE {
            self.at = self.youngest_unchanged(changed);
        }
        changed == NONE
    }

    /// Of the frames of a run up to `youngest`, the youngest whose words are all unchanged; none: the run's caller.
    #[inline(never)]
    fn youngest_unchanged(&self, youngest: u16) -> u16 {
        let Frame { run, beyond, words_start, .. } = *self.frame(youngest);
        let start = usize::from(words_start);
        let first = self.words_to(self.frame(youngest)).iter().position(is_changed);
        // None: another thread wrote to the stack and wrote back. Then all is as it was kept, but it proves nothing.
        let first = start + first.unwrap_or(0);
        let unchanged = (run..=youngest).rev().find(|&number| usize::from(self.frame(number).words_end) <= first);
        unchanged.unwrap_or(beyond)
    }

    /// The node of the frame where the walk joined.
    #[inline(always)]
    pub(super) fn joined_node(&mut self) -> StackId {
        self.latest = self.at;
        self.frame(self.at).node
    }
}

/// Whether one of the words is not what it was.
#[inline(always)]
fn has_changed(words: &[Word]) -> bool {
    let (together, rest) = words.as_chunks();
    together.iter().any(have_changed) || rest.iter().any(is_changed)
}

/// The same of some at once: a comparison and a branch that is not taken are one step of the processor, so it looks at a
/// word in three.
#[inline(always)]
fn have_changed([first, second, third, fourth]: &[Word; TOGETHER]) -> bool {
    is_changed(first) || is_changed(second) || is_changed(third) || is_changed(fourth)
}

#[inline(always)]
fn is_changed(word: &Word) -> bool {
    // SAFETY: by both bullets of the module the word was read by a walk of this thread on its own stack.
    unsafe { change(word.at, word.value) != 0 }
}
