//! Call stacks inside of `malloc`, in well under 100 ns.
//!
//! A walk begins with the registers of the program at its call of the hook and goes from frame to frame by
//! [rules](rule) that are made from the compiler's unwind information once for each return address and kept in a
//! [table] that all threads share. It ends where it meets one of the thread's [recent stacks](recent), if that is
//! proved to be unchanged from there to the root: most stacks are repeated as a whole, and of the twenty or forty frames
//! of any other three or four are new. A frame that is kept keeps its node of the stack trie too.
//!
//! # What holds in every hook
//! No lock is taken and nothing is allocated, no function of the loader is called but `_dl_find_object`, and no memory
//! is read of which it is not certain that it is mapped: the thread's [own stack](own_stack) above the stack pointer,
//! the loaded modules' headers and tables, and any [other stack](foreign) through the kernel. A stack that cannot be
//! followed to its root is cut and says so.
//!
//! # Why not frame pointers, libgcc, libunwind
//! A walk along frame pointers costs 1 ns a frame and ends at the first caller that was compiled without, as most of
//! what distributions ship is. libgcc takes 100 ns a frame; libunwind's cache is fast, but a miss asks the loader under
//! its lock. Replacing return addresses by our own makes every second capture free and breaks exceptions, coroutines
//! and shadow stacks.
//!
//! # Safety
//! - A [`ThreadCapture`] is all integers for which zero is a value; zeroed memory is a new one.

mod evaluate;
mod foreign;
mod own_stack;
mod recent;
mod rule;
mod shared;
mod table;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

pub use shared::{Shared, on_dlclose};

use core::hint::cold_path;

use xalloc_core::intern::FrameWord;
use xalloc_core::primitive::Ordering;
use xalloc_core::units::StackId;

use crate::arch::Entry;
use crate::modules::Announce;
use foreign::Window;
use own_stack::{Bounds, OwnStack};
use recent::{Beyond, Passed, Recent};
use rule::{Kind, Rule};
use shared::DEPTH;
use walk::{AnyStack, Memory, State, Step, step};

/// What a thread keeps from one capture to the next: 500 KiB of address space, of which a program uses what its stacks take.
/// Zeroed memory is a new one.
///
/// It holds addresses of its thread's stack: another thread may have it only after [`ThreadCapture::retire`].
pub struct ThreadCapture {
    bounds: Bounds,
    generation: u32,
    until_verify: u32,
    window: Window,
    recent: Recent,
    passed: [Passed; DEPTH],
}

impl core::fmt::Debug for ThreadCapture {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ThreadCapture").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl ThreadCapture {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new() -> ThreadCapture {
        let state = State { word: FrameWord(0), sp: 0, fp: 0 };
        ThreadCapture {
            bounds: Bounds::UNKNOWN,
            generation: 0,
            until_verify: 0,
            window: Window::new(),
            recent: Recent::new(),
            passed: [Passed { state, rule: Rule(0) }; DEPTH],
        }
    }

    /// Forgets all stacks: the trie is another one (a forked child's).
    pub fn forget(&mut self) {
        self.recent.forget();
    }

    /// Forgets all: the thread ends, and another one may get this memory.
    pub fn retire(&mut self) {
        self.recent.forget();
        self.bounds = Bounds::UNKNOWN;
    }
}

impl Default for ThreadCapture {
    fn default() -> Self {
        ThreadCapture::new()
    }
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// At a frame from which a recent stack goes on.
    Joined,
    /// At the outermost frame.
    Whole,
    /// At a frame that no rule leads on from.
    Stopped,
    /// At a frame whose rule led nowhere: words or registers were not what they should be.
    Lost,
    /// At the depth limit.
    AtLimit,
}

/// One capture: where it begins, and what it works with.
struct Request<'a, A> {
    /// The program's registers at its call of the hook.
    first: State,
    shared: &'a Shared,
    /// Of the module map.
    generation: u32,
    /// Told of each module that the stack touches.
    announce: &'a mut A,
}

impl<A: Announce> Request<'_, A> {
    /// The rule of the code at `word`.
    #[inline(always)]
    fn rule(&mut self, word: FrameWord) -> Rule {
        self.shared.rule(word, self.generation, self.announce)
    }
}

/// The id of the stack that called the hook: what [`repeated`] says, or [`capture_anew`].
pub fn capture(cache: &mut ThreadCapture, entry: Entry, shared: &Shared, announce: &mut impl Announce) -> StackId {
    match repeated(cache, entry, shared) {
        Some(node) => node,
        None => capture_anew(cache, entry, shared, announce),
    }
}

/// The id of the stack that called the hook with these registers, if the thread has captured it lately: most are.
#[inline(always)]
pub fn repeated(cache: &mut ThreadCapture, entry: Entry, shared: &Shared) -> Option<StackId> {
    // A kept stack is one of the thread's own, so where its stack pointer is met again nobody has to ask whose it is.
    if shared.generation() != cache.generation || shared.verify_every != 0 {
        cold_path();
        return None;
    }
    cache.recent.repeated(&first_state(entry))
}

/// Where a walk begins.
#[inline(always)]
fn first_state(entry: Entry) -> State {
    State { word: FrameWord::return_address(entry.ip as u64), sp: entry.sp as u64, fp: entry.fp as u64 }
}

/// A capture of a stack that [`repeated`] does not know as a whole, or in unusual circumstances.
///
/// `announce` is told of each module that the stack touches before this returns. errno may change only where system
/// calls are made for the first time, and is put back there.
#[inline(never)]
pub fn capture_anew(cache: &mut ThreadCapture, entry: Entry, shared: &Shared, announce: &mut impl Announce) -> StackId {
    let (first, generation) = (first_state(entry), shared.generation());
    let request = &mut Request { first, shared, generation, announce };
    if generation != cache.generation {
        cache.recent.forget();
        cache.generation = generation;
    }
    let stack = match cache.bounds.above(first.sp) {
        Some(mut stack) => capture_own(cache, request, &mut stack),
        None => capture_elsewhere(cache, request),
    };
    if shared.verify_every != 0 {
        verify::every_nth(cache, first, shared, stack);
    }
    stack
}

#[inline(always)]
fn capture_own(cache: &mut ThreadCapture, request: &mut Request<'_, impl Announce>, stack: &mut OwnStack) -> StackId {
    let ThreadCapture { recent, passed, .. } = cache;
    let Request { first, shared, generation, .. } = *request;
    // Looked for before, but for the sake of the self-check.
    if shared.verify_every != 0
        && let Some(node) = recent.repeated(&first)
    {
        return node;
    }
    recent.begin();
    let depth = shared.depth;
    let joins = |state: &State, passed| recent.joins(state, passed, depth);
    let (len, ending) = walk(first, stack, depth, passed, joins, |word| request.rule(word));
    let passed = passed.get(..len).unwrap_or(&[]);
    let beyond = match ending {
        Ending::Joined if len == 0 => return recent.joined_node(),
        Ending::Joined => Beyond::Joined,
        Ending::Whole => Beyond::Root(shared.root(generation, false)),
        Ending::Stopped => Beyond::Root(shared.root(generation, true)),
        Ending::AtLimit => {
            shared.header.cut_stacks.fetch_add(1, Ordering::Relaxed);
            Beyond::Limit(shared.root(generation, true))
        }
        // The stack may lead to another one: a signal's handler that runs on an own stack inside of this one.
        Ending::Lost => return capture_foreign(cache, request),
    };
    recent.keep(passed, beyond, stack, |parent, word| shared.trie.insert(parent, word))
}

/// A capture whose stack pointer is not known to lie in the thread's own stack: it was not looked up yet, or this is
/// another stack.
#[cold]
#[inline(never)]
fn capture_elsewhere(cache: &mut ThreadCapture, request: &mut Request<'_, impl Announce>) -> StackId {
    if !cache.bounds.is_known() {
        cache.bounds = Bounds::find(request.first.sp);
        if let Some(mut stack) = cache.bounds.above(request.first.sp) {
            return capture_own(cache, request, &mut stack);
        }
    }
    capture_foreign(cache, request)
}

/// Walks plainly, over any number of stacks, and keeps nothing.
#[cold]
#[inline(never)]
fn capture_foreign(cache: &mut ThreadCapture, request: &mut Request<'_, impl Announce>) -> StackId {
    let Request { first, shared, generation, .. } = *request;
    cache.window.clear();
    let mut memory = AnyStack(&mut cache.window);
    let rule_of = |word| request.rule(word);
    let (len, ending) = walk(first, &mut memory, shared.depth, &mut cache.passed, |_, _| false, rule_of);
    if ending == Ending::AtLimit {
        shared.header.cut_stacks.fetch_add(1, Ordering::Relaxed);
    }
    let root = shared.root(generation, ending != Ending::Whole);
    let passed = cache.passed.get(..len).unwrap_or(&[]);
    passed.iter().rev().fold(root, |parent, frame| shared.trie.insert(parent, frame.state.word))
}

/// Walks from `first` until the stack ends or `joins` says so, and puts the frames on the way into `passed`.
#[inline(always)]
fn walk(
    first: State,
    memory: &mut impl Memory,
    depth: usize,
    passed: &mut [Passed; DEPTH],
    mut joins: impl FnMut(&State, usize) -> bool,
    mut rule_of: impl FnMut(FrameWord) -> Rule,
) -> (usize, Ending) {
    let mut state = first;
    let mut signal_sp = 0;
    for (index, place) in passed.iter_mut().enumerate() {
        if joins(&state, index) {
            return (index, Ending::Joined);
        }
        let rule = rule_of(state.word);
        *place = Passed { state, rule };
        let len = index + 1;
        if len == depth && !rule.is(Kind::End) {
            return (len, Ending::AtLimit);
        }
        match step(memory, &state, rule, signal_sp) {
            Step::Caller(caller) => {
                signal_sp = if rule.is(Kind::Signal) { state.sp } else { 0 };
                state = caller;
            }
            Step::End => return (len, Ending::Whole),
            Step::Lost if rule.is(Kind::Stop) => return (len, Ending::Stopped),
            Step::Lost => return (len, Ending::Lost),
        }
    }
    (DEPTH, Ending::AtLimit)
}
