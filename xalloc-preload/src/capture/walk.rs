//! One step of a walk: from a frame, its rule and the stack's words to its caller.

use xalloc_core::intern::FrameWord;

use super::evaluate::{SIGNAL_FP, SIGNAL_IP, SIGNAL_SP};
use super::foreign::Window;
use super::rule::{CallerFp, Kind, Rule};

/// User space ends here on x86-64 without five-level paging: what lies above is no return address.
const CODE_END: u64 = 1 << 47;

/// What a walk's remainder depends on, besides memory: the code address with its kind, and two registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) word: FrameWord,
    pub(super) sp: u64,
    pub(super) fp: u64,
}

/// Where a step leads.
pub(super) enum Step {
    /// The caller's frame.
    Caller(State),
    /// The frame was the outermost.
    End,
    /// The caller cannot be found.
    Lost,
}

/// Where a walk may read.
pub(super) trait Memory {
    /// The word at `at`; `None` if that is out of bounds or not a multiple of 8.
    fn read(&mut self, at: u64) -> Option<u64>;

    /// Whether a signal's frame may lead to another stack.
    const MANY_STACKS: bool;
}

/// Any stack, each page read with the kernel's help.
pub(super) struct AnyStack<'a>(pub(super) &'a mut Window);

impl Memory for AnyStack<'_> {
    const MANY_STACKS: bool = true;

    fn read(&mut self, at: u64) -> Option<u64> {
        if at.is_multiple_of(8) { self.0.read(at) } else { None }
    }
}

/// Steps from `state`. `signal_sp` is the place of the interrupted registers if `state` was interrupted, else 0.
#[inline(always)]
pub(super) fn step(memory: &mut impl Memory, state: &State, rule: Rule, signal_sp: u64) -> Step {
    // What nearly every frame has is asked for by name: to leap by the kind is what a processor guesses wrong.
    let cfa = if rule.is(Kind::Sp) {
        state.sp.wrapping_add(rule.cfa_offset())
    } else if rule.is(Kind::Fp) {
        state.fp.wrapping_add(rule.cfa_offset())
    } else {
        match unusual_cfa(memory, state, rule, signal_sp) {
            Ok(cfa) => cfa,
            Err(step) => return step,
        }
    };
    if cfa <= state.sp {
        return Step::Lost;
    }
    let Some(ip) = memory.read(cfa.wrapping_sub(8)) else { return Step::Lost };
    if ip.wrapping_sub(1) >= CODE_END - 1 {
        return if ip == 0 { Step::End } else { Step::Lost };
    }
    let fp = match saved_fp(rule, state.fp, cfa) {
        None => state.fp,
        // A register that cannot be had is 0, and a frame that is based on it is out of bounds.
        Some(at) => memory.read(at).unwrap_or(0),
    };
    Step::Caller(State { word: FrameWord::return_address(ip), sp: cfa, fp })
}

/// The canonical frame address by a rule that few frames have; or where the step leads without one.
#[cold]
#[inline(never)]
fn unusual_cfa(memory: &mut impl Memory, state: &State, rule: Rule, signal_sp: u64) -> Result<u64, Step> {
    match rule.kind() {
        Kind::Sp => Ok(state.sp.wrapping_add(rule.cfa_offset())),
        Kind::Guess if state.fp == 0 => Err(Step::End),
        Kind::Fp | Kind::Guess => Ok(state.fp.wrapping_add(rule.cfa_offset())),
        Kind::Drap => memory.read(state.fp.wrapping_add(rule.cfa_offset())).ok_or(Step::Lost),
        Kind::Register => {
            let register = interrupted_register(memory, rule, signal_sp).ok_or(Step::Lost)?;
            Ok(register.wrapping_add(rule.cfa_offset()))
        }
        Kind::Signal => Err(signal(memory, state).map_or(Step::Lost, Step::Caller)),
        Kind::End => Err(Step::End),
        Kind::Stop => Err(Step::Lost),
    }
}

/// The address of the caller's `rbp`, if it was saved; 0 if it cannot be had.
#[inline(always)]
pub(super) fn saved_fp(rule: Rule, fp: u64, cfa: u64) -> Option<u64> {
    match rule.caller_fp() {
        CallerFp::Same => None,
        CallerFp::AtCfa(bytes) => Some(cfa.wrapping_add(bytes as u64)),
        CallerFp::AtFp(bytes) => Some(fp.wrapping_add(bytes as u64)),
        CallerFp::Lost => Some(0),
    }
}

fn interrupted_register(memory: &mut impl Memory, rule: Rule, signal_sp: u64) -> Option<u64> {
    if signal_sp == 0 { None } else { memory.read(signal_sp.wrapping_add(rule.register_saved_at())) }
}

fn signal<M: Memory>(memory: &mut M, state: &State) -> Option<State> {
    let ip = memory.read(state.sp.wrapping_add(SIGNAL_IP))?;
    let sp = memory.read(state.sp.wrapping_add(SIGNAL_SP))?;
    let fp = memory.read(state.sp.wrapping_add(SIGNAL_FP))?;
    let sound = ip != 0 && ip < CODE_END && (sp > state.sp || M::MANY_STACKS);
    sound.then_some(State { word: FrameWord::interrupted(ip), sp, fp })
}
