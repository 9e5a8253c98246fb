//! What a walk found is entered: frames in a run of their own, and the words that lead from each to its caller.
//!
//! # Invariant
//! A frame is entered only with all words that its walk read from there; the first one for which that cannot be done ends
//! the run, and what is younger is walked again at the next capture.

use xalloc_core::intern::FrameWord;
use xalloc_core::units::StackId;

use super::super::evaluate::{SIGNAL_FP, SIGNAL_IP, SIGNAL_SP};
use super::super::own_stack::OwnStack;
use super::super::rule::Kind;
use super::super::walk::{State, saved_fp};
use super::tips::Tip;
use super::{Beyond, FRAMES, Frame, NONE, Passed, Recent, WORDS, Word};

/// Most words by which one frame leads to its caller.
const WORDS_OF_FRAME: usize = 3;
/// Beyond so many frames, and this many times the depth of the stack, all is forgotten: what lies in a core's near caches is
/// found in no time, what was long ago is seldom of use.
const PLENTY: usize = 3 * FRAMES / 4;
const PLENTY_OF_DEPTHS: usize = 4;

impl Recent {
    /// Keeps the frames that a walk passed, innermost first in `passed`; `node` gives each its place in the trie, from
    /// the oldest on. The answer is the innermost frame's node. `stack` is what the walk read.
    #[inline(always)]
    pub(in super::super) fn keep(
        &mut self,
        passed: &[Passed],
        beyond: Beyond,
        stack: &OwnStack,
        mut node: impl FnMut(StackId, FrameWord) -> StackId,
    ) -> StackId {
        let (mut caller, mut parent, at_limit) = match beyond {
            Beyond::Joined => (self.at, self.frame(self.at).node, self.frame(self.at).at_limit),
            Beyond::Root(root) => (NONE, root, false),
            Beyond::Limit(root) => (NONE, root, true),
        };
        let Frame { depth, state: mut older, needs_fp: mut needs_caller_fp, .. } = *self.frame(caller);
        let mut depth = if caller == NONE { 0 } else { depth };
        let mut has_older = caller != NONE;
        needs_caller_fp &= has_older;
        if self.lacks_room(passed.len(), usize::from(depth)) {
            self.forget();
            caller = NONE;
        }
        let mut keeping = !(caller == NONE && has_older);
        let beyond = caller;
        let run = self.frames_len as u16 + 1;
        let words_start = self.words_len as u16;
        for frame in passed.iter().rev() {
            parent = node(parent, frame.state.word);
            let needs_fp = frame.rule.uses_fp() || frame.rule.passes_fp_on() && needs_caller_fp;
            // A register that only a signal's frame holds is no part of the state; an unknown node is to be asked for
            // again, so that each loss is counted.
            keeping &= !frame.rule.is(Kind::Register) && parent != StackId::UNKNOWN;
            if keeping {
                let words = self.words_len;
                keeping = if has_older {
                    self.enter_words(frame, &older, needs_caller_fp, stack)
                } else {
                    at_limit || self.enter_ending(frame)
                };
                if !keeping {
                    self.words_len = words;
                }
            }
            if keeping {
                depth += 1;
                let number = self.frames_len as u16 + 1;
                self.frames[usize::from(number) % FRAMES] = Frame {
                    state: frame.state,
                    node: parent,
                    beyond,
                    run,
                    words_start,
                    words_end: self.words_len as u16,
                    depth,
                    needs_fp,
                    at_limit,
                };
                self.frames_len = usize::from(number);
                caller = number;
            }
            (older, needs_caller_fp, has_older) = (frame.state, needs_fp, true);
        }
        self.latest = caller;
        if keeping {
            self.tips.put(Tip::new(older, parent, caller, needs_caller_fp));
        }
        parent
    }

    /// Whether so many more frames, on a stack of that depth, are too many.
    #[inline(always)]
    fn lacks_room(&self, more: usize, depth: usize) -> bool {
        let frames = self.frames_len + more;
        // A frame whose words found no room would count as unchanged whatever happened to it.
        self.words_len + WORDS_OF_FRAME * more > WORDS
            || frames > PLENTY && (frames > PLENTY_OF_DEPTHS * (depth + more) || frames >= FRAMES)
    }

    #[inline(always)]
    fn enter(&mut self, at: u64, value: u64) {
        if let Some(place) = self.words.get_mut(self.words_len) {
            *place = Word { at, value };
            self.words_len += 1;
        }
    }

    /// Enters the words by which `frame` led to `older`; false if it is not to be kept.
    #[inline(always)]
    fn enter_words(&mut self, frame: &Passed, older: &State, needs_fp: bool, stack: &OwnStack) -> bool {
        let State { sp, fp, .. } = frame.state;
        let FrameWord(ip) = older.word;
        if frame.rule.is(Kind::Signal) {
            self.enter(sp.wrapping_add(SIGNAL_IP), FrameWord::return_address(ip).0);
            self.enter(sp.wrapping_add(SIGNAL_SP), older.sp);
            if needs_fp {
                self.enter(sp.wrapping_add(SIGNAL_FP), older.fp);
            }
            return true;
        }
        self.enter(older.sp.wrapping_sub(8), ip);
        if frame.rule.is(Kind::Drap) {
            self.enter(fp.wrapping_add(frame.rule.cfa_offset()), older.sp);
        }
        if needs_fp && let Some(at) = saved_fp(frame.rule, fp, older.sp) {
            self.enter(at, older.fp);
            // A saved register that was out of bounds is no word that can be compared.
            return stack.holds(at);
        }
        true
    }

    /// Enters the word by which `frame` turned out to be the outermost; false if the stack is not to be kept.
    fn enter_ending(&mut self, frame: &Passed) -> bool {
        let State { sp, fp, .. } = frame.state;
        let base = match frame.rule.kind() {
            Kind::End | Kind::Stop => return true,
            Kind::Guess if fp == 0 => return true,
            Kind::Sp => sp,
            Kind::Fp | Kind::Guess => fp,
            Kind::Drap | Kind::Signal | Kind::Register => return false,
        };
        self.enter(base.wrapping_add(frame.rule.cfa_offset()).wrapping_sub(8), 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::own_stack::Bounds;
    use super::super::super::rule::{CallerFp, Rule};
    use super::*;

    const DEPTH: usize = 1000;
    /// Words of a made-up frame.
    const STRIDE: usize = 8;

    /// Frames that align their stack, each of which leads to its caller by three words; outermost last. The words stand
    /// in `memory`, as such functions would have left them.
    fn frames(memory: &mut [u64], first_ip: u64) -> Vec<Passed> {
        let start = memory.as_mut_ptr().expose_provenance() as u64;
        let state = |frame: usize| {
            let sp = start + (frame * STRIDE * 8) as u64;
            State { word: FrameWord::return_address(first_ip + frame as u64), sp, fp: sp + 16 }
        };
        let rule = Rule::new(Kind::Drap, 8, CallerFp::AtFp(0));
        for (frame, words) in memory.chunks_exact_mut(STRIDE).enumerate() {
            let older = state(frame + 1);
            (words[2], words[3], words[7]) = (older.fp, older.sp, older.word.0);
        }
        (0..DEPTH).map(|at| Passed { state: state(at), rule: if at + 1 == DEPTH { Rule::END } else { rule } }).collect()
    }

    #[test]
    fn a_frame_is_kept_only_with_all_the_words_that_lead_on_from_it() {
        let mut recent = Box::new(Recent::new());
        let mut memory = [[0_u64; DEPTH * STRIDE]; 3];
        let here = memory.as_ptr().expose_provenance() as u64;
        let stack = Bounds::find(here).above(here).expect("it is this thread's stack");
        let mut node = StackId::UNKNOWN.0;
        for (number, memory) in memory.iter_mut().enumerate() {
            let passed = frames(memory, 0x40_0000 + (number as u64) * 0x10_0000);
            let innermost = recent.keep(&passed, Beyond::Root(StackId::NONE), &stack, |_, _| {
                node += 1;
                StackId(node)
            });
            let first = passed[0].state;
            assert_eq!(recent.repeated(&first), Some(innermost), "stack {number}");
            for at in [2, 3, 7] {
                let before = core::mem::replace(&mut memory[STRIDE + at], 1);
                core::hint::black_box(&mut *memory);
                assert_eq!(recent.repeated(&first), None, "stack {number}, word {at} of its second frame has changed");
                memory[STRIDE + at] = before;
                core::hint::black_box(&mut *memory);
            }
            assert_eq!(recent.repeated(&first), Some(innermost), "stack {number}, as it was");
        }
    }
}
