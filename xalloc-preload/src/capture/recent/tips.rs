//! Whole stacks, found by the state of their innermost frame.
//!
//! A hook is called at a few places of a program, again and again, at the same few depths; so most stacks are found here
//! and proved by comparing the words that their walk read, without a step. The words of one that is found so again and
//! again are copied into a row, so that the next time nothing is followed from run to run.
//!
//! One innermost state has many stacks: a constructor is called from all over a program, often at the same depth. So
//! a set has room for some stacks of one state, and each is compared until a word differs, which is soon, for words lie in
//! it from the innermost frame on. With one stack for a state, python's parser of JSON had every eighth stack walked anew,
//! four of five callers having their turn: 3 % of all there are with four.
//!
//! # Invariant
//! A stack is in its set once: two would be compared one after the other, and only the first be found.

use xalloc_core::intern::FrameWord;
use xalloc_core::units::StackId;

use super::super::walk::State;
use super::{Frame, NONE, Recent, TOGETHER, Word, has_changed, have_changed};

/// Sets of stacks, and stacks in a set.
const SETS: usize = 256;
const WAYS: usize = 4;
/// Runs of which a stack that is too deep for a row may consist, each compared with a little effort of its own. Of the
/// repeated stacks with more, one of so many is walked as a whole, and then is one run: it may be repeated a million times more.
const MANY_RUNS: u32 = 2;
const WALK_ONE_OF: u32 = 16;
/// Most words of a stack that are laid out in a row.
const MOST_IN_ROW: usize = 256;
/// How often a stack is repeated before its words are laid out in a row.
const REPEATS: u8 = 4;
/// Words in rows: those of some four hundred stacks of twenty frames.
const ROWS: usize = 8192;

/// A kept stack, by its innermost frame: all that it takes to find it unchanged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    state: State,
    node: StackId,
    /// Number of the innermost frame; [`NONE`]: there is no stack.
    frame: u16,
    /// Where in the rows its words begin, and how often there are [`TOGETHER`]; 0: they are in runs only.
    row: u16,
    row_len: u16,
    /// How often it was repeated without a row.
    repeats: u8,
    /// As the frame's.
    needs_fp: bool,
}

impl Tip {
    /// No stack's: no code address is null.
    const NONE: Tip = Tip::new(State { word: FrameWord(0), sp: 0, fp: 0 }, StackId::NONE, NONE, false);

    /// The stack `node`, whose innermost frame is `frame` in this state.
    #[inline(always)]
    pub(super) const fn new(state: State, node: StackId, frame: u16, needs_fp: bool) -> Tip {
        Tip { state, node, frame, row: 0, row_len: 0, repeats: 0, needs_fp }
    }

    #[inline(always)]
    fn is(&self, state: &State) -> bool {
        self.state.sp == state.sp && self.state.word == state.word && (!self.needs_fp || self.state.fp == state.fp)
    }
}

/// The tips of the kept stacks. Zeroed memory holds none.
pub(super) struct Tips {
    sets: [[Tip; WAYS]; SETS],
    /// The words of stacks that were repeated, each stack's in a row.
    rows: [[Word; TOGETHER]; ROWS / TOGETHER],
    rows_len: usize,
    /// Repeated stacks with many runs that were found.
    scattered: u32,
    /// Stacks that had to go for another one of their set.
    replaced: usize,
}

/// The set of an innermost state.
#[inline(always)]
fn set_of(state: &State) -> usize {
    let FrameWord(ip) = state.word;
    let mixed = (ip ^ state.sp << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - SETS.trailing_zeros())) as usize
}

impl Tips {
    pub(super) const fn new() -> Tips {
        Tips {
            sets: [[Tip::NONE; WAYS]; SETS],
            rows: [[Word { at: 0, value: 0 }; TOGETHER]; ROWS / TOGETHER],
            rows_len: 0,
            scattered: 0,
            replaced: 0,
        }
    }

    pub(super) fn forget(&mut self) {
        self.sets = [[Tip::NONE; WAYS]; SETS];
        self.rows_len = 0;
    }

    /// Enters a stack: in its own place, in a free one, or in that of another in turn.
    #[inline(always)]
    pub(super) fn put(&mut self, tip: Tip) {
        let set = &mut self.sets[set_of(&tip.state)];
        let own_or_free = set.iter().position(|old| old.frame == NONE || old.node == tip.node && old.is(&tip.state));
        let way = own_or_free.unwrap_or_else(|| {
            self.replaced = self.replaced.wrapping_add(1);
            self.replaced
        });
        set[way % WAYS] = tip;
    }

    /// Takes the rows from all stacks.
    #[cold]
    fn empty_rows(&mut self) {
        self.rows_len = 0;
        self.sets.as_flattened_mut().iter_mut().for_each(|tip| tip.row_len = 0);
    }

    #[inline(always)]
    fn put_in_row(&mut self, row: usize, at: usize, word: Word) {
        if let Some(words) = self.rows.get_mut(row + at / TOGETHER) {
            words[at % TOGETHER] = word;
        }
    }
}

impl Recent {
    /// The node of the stack whose innermost frame is in the state `first`, if it is kept and unchanged.
    #[inline(always)]
    pub(in super::super) fn repeated(&mut self, first: &State) -> Option<StackId> {
        // What a loop finds is the first of its set, and in a row.
        let tip = &self.tips.sets[set_of(first)][0];
        if tip.is(first) && tip.row_len != 0 && !self.has_row_changed(tip) {
            self.latest = tip.frame;
            return Some(tip.node);
        }
        let State { word, sp, fp } = *first;
        self.repeated_in_set(word, sp, fp)
    }

    /// The same of any stack of the set. One that has a row becomes the first: of two stacks that differ in an outer caller,
    /// most words are compared before they are told apart. (The state comes in registers, so that who asks need not lay it down.)
    #[inline(never)]
    fn repeated_in_set(&mut self, word: FrameWord, sp: u64, fp: u64) -> Option<StackId> {
        let first = State { word, sp, fp };
        let set = set_of(&first);
        for way in 0..WAYS {
            let tip = &self.tips.sets[set][way];
            if !tip.is(&first) {
                continue;
            }
            if tip.row_len == 0 {
                match self.repeated_in_runs(set, way) {
                    Some(node) => return Some(node),
                    None => continue,
                }
            }
            if !self.has_row_changed(tip) {
                let Tip { frame, node, .. } = *tip;
                self.tips.sets[set].swap(0, way);
                self.latest = frame;
                return Some(node);
            }
        }
        None
    }

    /// Whether one of the words of a stack is not what it was; they are in a row.
    #[inline(always)]
    fn has_row_changed(&self, tip: &Tip) -> bool {
        let row = usize::from(tip.row)..usize::from(tip.row) + usize::from(tip.row_len);
        let Some(row) = self.tips.rows.get(row) else { return true };
        for words in row {
            if have_changed(words) {
                return true;
            }
        }
        false
    }

    /// The same of a stack whose words are in runs. They are laid out in a row where that was asked often enough: most
    /// stacks of a compiler are met a few times, those of a loop a million times.
    #[inline(never)]
    fn repeated_in_runs(&mut self, set: usize, way: usize) -> Option<StackId> {
        let Tip { frame: tip, node, repeats, .. } = self.tips.sets[set][way];
        let (mut at, mut runs, mut len) = (self.frame(tip), 0, 0);
        loop {
            runs += 1;
            let words = self.words_to(at);
            if has_changed(words) {
                return None;
            }
            len += words.len();
            if at.beyond == NONE {
                break;
            }
            at = self.frame(at.beyond);
        }
        self.latest = tip;
        if len <= MOST_IN_ROW {
            self.tips.sets[set][way].repeats = repeats.saturating_add(1);
            if repeats >= REPEATS {
                self.lay_in_row(set, way, len);
            }
        } else if runs > MANY_RUNS {
            let tips = &mut self.tips;
            tips.scattered = tips.scattered.wrapping_add(1);
            if tips.scattered.is_multiple_of(WALK_ONE_OF) {
                // The walk joins nothing, and is kept as a whole.
                self.latest = NONE;
                return None;
            }
        }
        Some(node)
    }

    /// Copies the words of a stack, `len` of them, into a row, the innermost frame's first. What is missing to a multiple of
    /// [`TOGETHER`] is the last one again.
    fn lay_in_row(&mut self, set: usize, way: usize, len: usize) {
        let row_len = len.div_ceil(TOGETHER);
        if self.tips.rows_len + row_len > self.tips.rows.len() {
            self.tips.empty_rows();
        }
        let row = self.tips.rows_len;
        let (mut number, mut filled, mut last) = (self.tips.sets[set][way].frame, 0, None);
        while number != NONE {
            let Frame { words_start, words_end, beyond, .. } = *self.frame(number);
            for index in (usize::from(words_start)..usize::from(words_end)).rev() {
                let Some(&word) = self.words.get(index) else { return };
                self.tips.put_in_row(row, filled, word);
                (filled, last) = (filled + 1, Some(word));
            }
            number = beyond;
        }
        let Some(last) = last else { return };
        for at in filled..row_len * TOGETHER {
            self.tips.put_in_row(row, at, last);
        }
        self.tips.rows_len += row_len;
        let tip = &mut self.tips.sets[set][way];
        (tip.row, tip.row_len) = (row as u16, row_len as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::own_stack::{Bounds, OwnStack};
    use super::super::super::rule::{CallerFp, Kind, Rule};
    use super::super::{Beyond, Passed};
    use super::*;

    /// Words of a made-up frame, the last of which is the address to which it returns.
    const WORDS: usize = 8;

    /// A function that is called from several places, always at the same depth.
    struct Called {
        recent: Box<Recent>,
        frame: [u64; WORDS],
    }

    impl Called {
        fn state(&self) -> State {
            State {
                word: FrameWord::return_address(0x40_0000),
                sp: self.frame.as_ptr().expose_provenance() as u64,
                fp: 0,
            }
        }

        fn caller(&self, caller: u64) -> State {
            let sp = self.state().sp + (WORDS * size_of::<u64>()) as u64;
            State { word: FrameWord::return_address(0x50_0000 + 0x100 * caller), sp, fp: 0 }
        }

        /// The caller calls: the answer is what is known of the stack.
        fn call(&mut self, caller: u64) -> Option<StackId> {
            self.frame[WORDS - 1] = self.caller(caller).word.0;
            core::hint::black_box(&mut self.frame);
            let state = self.state();
            self.recent.repeated(&state)
        }

        /// The stack of that caller's call was walked.
        fn keep(&mut self, caller: u64, stack: &OwnStack) {
            let rule = Rule::new(Kind::Sp, 64, CallerFp::Same);
            let passed = [Passed { state: self.state(), rule }, Passed { state: self.caller(caller), rule: Rule::END }];
            self.recent.keep(&passed, Beyond::Root(StackId::NONE), stack, |_, _| node_of(caller));
        }

        /// How often the set has the stack of that caller.
        fn times(&self, caller: u64) -> usize {
            let set = &self.recent.tips.sets[set_of(&self.state())];
            set.iter().filter(|tip| tip.frame != NONE && tip.node == node_of(caller)).count()
        }
    }

    fn node_of(caller: u64) -> StackId {
        StackId(100 + caller as u32)
    }

    #[test]
    fn a_set_has_four_stacks_of_one_state_and_a_fifth_takes_the_place_of_one_after_another() {
        let mut called = Called { recent: Box::new(Recent::new()), frame: [0; WORDS] };
        let here = called.frame.as_ptr().expose_provenance() as u64;
        let stack = Bounds::find(here).above(here).expect("it is this thread's stack");
        for caller in 0..4 {
            assert_eq!(called.call(caller), None);
            called.keep(caller, &stack);
        }
        // Often enough for a row, which changes places.
        for round in 0..3 * u64::from(REPEATS) {
            for caller in 0..4 {
                assert_eq!(called.call(caller), Some(node_of(caller)), "round {round}");
            }
        }
        let mut was_replaced = [false; 5];
        for round in 0..20 {
            let missing: Vec<u64> = (0..5).filter(|&caller| called.call(caller).is_none()).collect();
            let [missing] = missing[..] else { panic!("round {round}: {missing:?} of five callers are not there") };
            was_replaced[missing as usize] = true;
            called.keep(missing, &stack);
            assert_eq!(called.call(missing), Some(node_of(missing)), "round {round}");
            for caller in 0..5 {
                let found = called.call(caller);
                assert!(found.is_none_or(|node| node == node_of(caller)), "round {round}: another caller's stack");
                assert_eq!(called.times(caller), usize::from(found.is_some()), "round {round}: it is there once");
            }
        }
        let replaced = was_replaced.iter().filter(|was| **was).count();
        assert!(replaced > 2, "two of them take each other's place for ever");
    }

    #[test]
    fn a_stack_that_is_kept_again_stays_in_its_place() {
        let mut called = Called { recent: Box::new(Recent::new()), frame: [0; WORDS] };
        let here = called.frame.as_ptr().expose_provenance() as u64;
        let stack = Bounds::find(here).above(here).expect("it is this thread's stack");
        for caller in [0, 1, 0, 1, 0] {
            called.call(caller);
            called.keep(caller, &stack);
        }
        assert_eq!([0, 1].map(|caller| called.times(caller)), [1, 1]);
        assert_eq!([0, 1].map(|caller| called.call(caller)), [0, 1].map(|caller| Some(node_of(caller))));
    }
}
