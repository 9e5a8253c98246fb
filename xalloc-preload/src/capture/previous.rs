//! The thread's previous stack, and what a new walk can take over from it.
//!
//! # Invariant
//! Frames lie from the root (index 0) to the innermost that could be kept. Beside them lie all words that the walk read
//! to get from the innermost to the root, with the values they had, in the same order: `words[..frame.words_end]` are
//! what the frames up to and including `frame` needed.
//!
//! What a walk finds beyond a state depends only on that state, on the module map, and on the words that are read from
//! there. So when a new walk reaches a state that the previous one had, and every one of those words is unchanged, the
//! rest is the previous one's. `rbp` belongs to the state only where the frame or an older one is based on it before
//! somebody restores it: code without frame pointers keeps anything there. For the same reason a saved `rbp` is a word
//! of the walk only then.
//!
//! # Why every word
//! It is tempting to stop at the first state that both walks have in common. But main may call a() at two places, and
//! both times a() calls b() with the same stack pointer: b's state is equal, main's is not. Stopping there gave wrong
//! stacks for 13.6 % of a compiler's allocations. The loads do not depend on one another, so all of them cost less
//! than one step of a walk.
//!
//! # Safety
//! - A word is entered only by [`Previous::keep`], with an address at which the walk that is kept read on the calling
//!   thread's own stack.
//! - A value is used by one thread, or forgets everything before another thread has it.
#![allow(unsafe_code)]

use xalloc_core::intern::FrameWord;
use xalloc_core::units::StackId;

use super::evaluate::{SIGNAL_FP, SIGNAL_IP, SIGNAL_SP};
use super::own_stack::{OwnStack, is_still};
use super::rule::{Kind, Rule};
use super::shared::DEPTH;
use super::walk::{State, saved_fp};

/// Two a frame: the return address, and `rbp` in code that has frame pointers. Frames for which no room is left are
/// not kept.
const WORDS: usize = 2 * DEPTH;

/// A frame as it was found, with its place in the trie.
#[derive(Clone, Copy, Debug)]
struct Frame {
    state: State,
    node: StackId,
    /// Behind the words that lead from here to the root.
    words_end: u16,
    /// Whether the rest of the walk depends on `state.fp`.
    needs_fp: bool,
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

/// How the kept stack ends at its root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Root {
    /// It is whole, or cut where no rule leads on: always at the same frame.
    Fixed,
    /// It was cut at the depth limit: the same frames deeper in another stack would be cut elsewhere.
    AtLimit,
}

/// The kept stack. Zeroed memory is an empty one.
pub(super) struct Previous {
    frames: [Frame; DEPTH],
    words: [Word; WORDS],
    len: usize,
    at_limit: bool,
    /// During a walk: the words of the kept frames were compared already.
    compared: bool,
}

impl Previous {
    pub(super) const fn new() -> Previous {
        let state = State { word: FrameWord(0), sp: 0, fp: 0 };
        let frame = Frame { state, node: StackId::NONE, words_end: 0, needs_fp: false };
        Previous {
            frames: [frame; DEPTH],
            words: [Word { at: 0, value: 0 }; WORDS],
            len: 0,
            at_limit: false,
            compared: false,
        }
    }

    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    /// A walk begins: the words may have changed since the last one.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.compared = false;
    }

    /// Whether the walk, which has `passed` frames behind it and a limit of `depth`, may end at `state` because the
    /// kept stack goes on from there. Kept frames that are of no more use to this walk are dropped.
    #[inline(always)]
    pub(super) fn joins(&mut self, state: &State, passed: usize, depth: usize) -> bool {
        loop {
            let Some(frame) = self.frames.get(..self.len).and_then(<[Frame]>::last) else { return false };
            if frame.state.sp < state.sp {
                // The walk is past it, and only rises.
                self.len -= 1;
                continue;
            }
            let equal = frame.state.sp == state.sp
                && frame.state.word == state.word
                && (!frame.needs_fp || frame.state.fp == state.fp);
            let total = passed + self.len;
            // A whole stack of exactly the limit's length is walked: the walk says whether it counts as cut.
            let within = if self.at_limit { total == depth } else { total < depth };
            return equal && within && self.unchanged();
        }
    }

    /// Compares the words of all kept frames. At the first that changed, from the root, its owner and all younger
    /// frames are dropped; what is left is unchanged.
    #[inline(always)]
    fn unchanged(&mut self) -> bool {
        if self.compared {
            return true;
        }
        self.compared = true;
        let end = self.words_end();
        let changed = self.words.get(..end).unwrap_or(&[]).iter().fold(false, |changed, word| {
            // SAFETY: by both bullets of the module the word was read by a walk of this thread on its own stack.
            changed | !unsafe { is_still(word.at, word.value) }
        });
        if changed {
            self.drop_changed(end);
        }
        !changed
    }

    #[inline(never)]
    fn drop_changed(&mut self, end: usize) {
        let first = self.words.get(..end).unwrap_or(&[]).iter().position(|word| {
            // SAFETY: as in `unchanged`.
            !unsafe { is_still(word.at, word.value) }
        });
        // None: another thread wrote to the stack and wrote back. Then all is as it was kept, but it proves nothing.
        let first = first.unwrap_or(0);
        let kept = self.frames.get(..self.len).unwrap_or(&[]);
        self.len = kept.partition_point(|frame| usize::from(frame.words_end) <= first);
    }

    fn words_end(&self) -> usize {
        let innermost = self.frames.get(..self.len).and_then(<[Frame]>::last);
        innermost.map_or(0, |frame| usize::from(frame.words_end))
    }

    /// The node of the frame where the walk joined.
    #[inline(always)]
    pub(super) fn joined_node(&self) -> StackId {
        let innermost = self.frames.get(..self.len).and_then(<[Frame]>::last);
        innermost.map_or(StackId::NONE, |frame| frame.node)
    }

    /// The walk did not join: what is kept is not part of its stack. `root` is how its own stack ends.
    pub(super) fn restart(&mut self, root: Root) {
        self.len = 0;
        self.at_limit = root == Root::AtLimit;
    }

    /// Keeps the frames that a walk passed, innermost first in `passed`, on top of those where it joined, if any;
    /// `node` gives each its place in the trie, from the oldest on. The answer is the innermost frame's node. `stack` is
    /// what the walk read.
    #[inline(always)]
    pub(super) fn keep(
        &mut self,
        passed: &[Passed],
        root: StackId,
        stack: &OwnStack,
        mut node: impl FnMut(StackId, FrameWord) -> StackId,
    ) -> StackId {
        let below = self.frames.get(..self.len).and_then(<[Frame]>::last);
        let mut parent = below.map_or(root, |frame| frame.node);
        let mut caller = below.map(|frame| (frame.state, frame.needs_fp));
        let mut words_end = self.words_end();
        let mut keeping = true;
        for frame in passed.iter().rev() {
            parent = node(parent, frame.state.word);
            let needs_caller_fp = caller.is_some_and(|(_, needs_fp)| needs_fp);
            let needs_fp = frame.rule.uses_fp() || frame.rule.passes_fp_on() && needs_caller_fp;
            // A register that only a signal's frame holds is no part of the state; an unknown node is to be asked for
            // again, so that each loss is counted.
            keeping &= frame.rule.kind() != Kind::Register && parent != StackId::UNKNOWN;
            if keeping {
                let older = caller.map(|(state, _)| state);
                keeping = self.keep_words(frame, older, needs_caller_fp, &mut words_end, stack);
            }
            if keeping && let Some(place) = self.frames.get_mut(self.len) {
                *place = Frame { state: frame.state, node: parent, words_end: words_end as u16, needs_fp };
                self.len += 1;
            }
            caller = Some((frame.state, needs_fp));
        }
        parent
    }

    /// Enters the words by which `frame` led to `older`; false if there is no room.
    #[inline(always)]
    fn keep_words(
        &mut self,
        frame: &Passed,
        older: Option<State>,
        needs_fp: bool,
        end: &mut usize,
        stack: &OwnStack,
    ) -> bool {
        let Some(older) = older else { return self.at_limit || self.keep_ending(frame, end) };
        let Some(places) = self.words.get_mut(*end..*end + 3) else { return false };
        let [first, second, third] = places else { return false };
        let State { sp, fp, .. } = frame.state;
        if frame.rule.kind() == Kind::Signal {
            let FrameWord(ip) = older.word;
            *first = Word { at: sp.wrapping_add(SIGNAL_IP), value: FrameWord::return_address(ip).0 };
            *second = Word { at: sp.wrapping_add(SIGNAL_SP), value: older.sp };
            *third = Word { at: sp.wrapping_add(SIGNAL_FP), value: older.fp };
            *end += if needs_fp { 3 } else { 2 };
            return true;
        }
        let FrameWord(ip) = older.word;
        *first = Word { at: older.sp.wrapping_sub(8), value: ip };
        *end += 1;
        let mut next = second;
        if frame.rule.kind() == Kind::Drap {
            *next = Word { at: fp.wrapping_add(frame.rule.cfa_offset()), value: older.sp };
            *end += 1;
            next = third;
        }
        if needs_fp && let Some(at) = saved_fp(frame.rule, fp, older.sp) {
            *next = Word { at, value: older.fp };
            *end += 1;
            // A saved register that was out of bounds is no word that can be compared.
            return stack.holds(at);
        }
        true
    }

    /// Enters the word by which `frame` turned out to be the outermost; false if the stack is not to be kept.
    fn keep_ending(&mut self, frame: &Passed, end: &mut usize) -> bool {
        let State { sp, fp, .. } = frame.state;
        let base = match frame.rule.kind() {
            Kind::End | Kind::Stop => return true,
            Kind::Guess if fp == 0 => return true,
            Kind::Sp => sp,
            Kind::Fp | Kind::Guess => fp,
            Kind::Drap | Kind::Signal | Kind::Register => return false,
        };
        let Some(place) = self.words.get_mut(*end) else { return false };
        *place = Word { at: base.wrapping_add(frame.rule.cfa_offset()).wrapping_sub(8), value: 0 };
        *end += 1;
        true
    }
}
