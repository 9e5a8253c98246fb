//! The self-check: every n-th capture is compared with a walk that takes nothing from an earlier one.
//!
//! The plain walk works out each rule anew from the unwind information and reads the stack through the kernel, so it
//! shares with the capture only the rules' meaning. What is compared is what a reader of the recording will see: the
//! frames by the trie.

use xalloc_core::intern::FrameMeaning;
use xalloc_core::primitive::Ordering;
use xalloc_core::units::StackId;

use super::ThreadCapture;
use super::rule::Kind;
use super::shared::Shared;
use super::walk::{AnyStack, State, Step, step};

/// Compares, if it is this capture's turn, and counts into the segment's header.
pub(super) fn every_nth(cache: &mut ThreadCapture, first: State, shared: &Shared, stack: StackId) {
    if cache.until_verify > 0 {
        cache.until_verify -= 1;
        return;
    }
    cache.until_verify = shared.verify_every.saturating_sub(1);
    // A lost stack is counted as such; there is nothing to compare.
    if stack == StackId::UNKNOWN {
        return;
    }
    shared.header.verified_stacks.fetch_add(1, Ordering::Relaxed);
    if !equals_plain_walk(cache, first, shared, stack) {
        shared.header.differing_stacks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the interned stack is what a plain walk from `first` finds.
#[cold]
#[inline(never)]
pub(super) fn equals_plain_walk(cache: &mut ThreadCapture, first: State, shared: &Shared, stack: StackId) -> bool {
    cache.window.clear();
    let mut memory = AnyStack(&mut cache.window);
    let (mut state, mut signal_sp, mut id) = (first, 0, stack);
    for len in 1..=shared.depth {
        let Some((parent, word)) = shared.trie.get(id) else { return false };
        if word != state.word {
            return false;
        }
        id = parent;
        let rule = shared.evaluated(word);
        if len == shared.depth && rule.kind() != Kind::End {
            break;
        }
        match step(&mut memory, &state, rule, signal_sp) {
            Step::Caller(caller) => {
                signal_sp = if rule.kind() == Kind::Signal { state.sp } else { 0 };
                state = caller;
            }
            Step::End => return ends(shared, id, false),
            Step::Lost => return ends(shared, id, true),
        }
    }
    ends(shared, id, true)
}

/// Whether `id` is the root of stacks: of the first generation or a later one, whole or cut.
fn ends(shared: &Shared, id: StackId, cut: bool) -> bool {
    let mut root = id;
    let mut was_cut = false;
    while let Some((parent, word)) = shared.trie.get(root) {
        match word.meaning() {
            FrameMeaning::Cut if !was_cut => was_cut = true,
            FrameMeaning::Generation(_) => return parent == StackId::NONE && was_cut == cut,
            FrameMeaning::Cut
            | FrameMeaning::Paused
            | FrameMeaning::ReturnAddress(_)
            | FrameMeaning::Interrupted(_) => return false,
        }
        root = parent;
    }
    root == StackId::NONE && was_cut == cut
}
