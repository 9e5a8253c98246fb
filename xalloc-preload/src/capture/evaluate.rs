//! From a code address to its [`Rule`], by the module's call-frame information.
//!
//! gimli finds the row of `.eh_frame` that covers the address and gives the registers' rules; this file says which of
//! them a [`Rule`] can express. An expression is evaluated symbolically: the code address is known here and the stack
//! is not, so a value is a constant, or a register plus a constant, or what such an address holds. That covers what
//! toolchains emit: the linker's expression for PLT entries, which asks at which of an entry's instructions the program
//! is; the compiler's for frames with their own alignment; libc's for its signal return.
//!
//! # Lookup
//! A return address may lie behind the last instruction of its function (a call that does not return), so the row of
//! the byte before it is taken; an instruction that a signal interrupted is looked up as it is.
//!
//! # Safety
//! - Code at a return address is mapped; whether it is readable is asked of the kernel.
#![allow(unsafe_code)]

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Format, LittleEndian, Operation, Register,
    RegisterRule, UnwindContext, UnwindContextStorage, UnwindExpression, UnwindSection, UnwindTableRow, X86_64,
};
use xalloc_core::intern::{FrameMeaning, FrameWord};

use super::foreign::read_words;
use super::rule::{CallerFp, Kind, Rule};
use crate::modules::Image;

/// Room for the rows of one function. DWARF numbers 17 registers that x86-64 code describes; no compiler nests
/// `DW_CFA_remember_state` deeper than two.
struct Fixed;

impl UnwindContextStorage<usize> for Fixed {
    type Rules = [(Register, RegisterRule<usize>); 32];
    type Stack = [UnwindTableRow<usize, Self>; 4];
}

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Offsets in the kernel's frame, counted from where the handler's return leaves `sp` (`struct ucontext` in
/// `<asm/ucontext.h>`: 40 bytes, then the registers in the order of `struct sigcontext`).
pub(super) const SIGNAL_FP: u64 = 40 + 10 * 8;
pub(super) const SIGNAL_SP: u64 = 40 + 15 * 8;
pub(super) const SIGNAL_IP: u64 = 40 + 16 * 8;

/// The same for every register, by DWARF number (System V ABI for x86-64, figure 3.36).
const SIGNAL_REGISTERS: [u64; 16] = {
    let order = [13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7];
    let mut offsets = [0; 16];
    let mut register = 0;
    while register < 16 {
        offsets[register] = 40 + order[register] * 8;
        register += 1;
    }
    offsets
};

/// The rule of the frame `word`, whose code lies in `image`, or in no module.
#[cold]
#[inline(never)]
pub(super) fn evaluate(word: FrameWord, image: Option<&Image<'_>>) -> Rule {
    let (ip, lookup) = match word.meaning() {
        FrameMeaning::ReturnAddress(ip) => (ip, ip.wrapping_sub(1)),
        FrameMeaning::Interrupted(ip) => (ip, ip),
        FrameMeaning::Cut | FrameMeaning::Paused | FrameMeaning::Generation(_) => return Rule::STOP,
    };
    let missing = Err(gimli::Error::NoUnwindInfoForAddress);
    let found = match image.map_or(missing, |image| rule_in(image, ip, lookup)) {
        // A return to the first byte of a function, and from nowhere: such a frame was built by hand, as makecontext
        // does at a coroutine's root. No function called it.
        Err(gimli::Error::NoUnwindInfoForAddress) if lookup != ip => {
            image.map_or(missing, |image| rule_in(image, ip, ip)).map(|_| Rule::END)
        }
        found => found,
    };
    match found {
        Ok(rule) => rule,
        Err(gimli::Error::NoUnwindInfoForAddress) => without_information(ip),
        Err(_) => Rule::STOP,
    }
}

fn rule_in(image: &Image<'_>, ip: u64, lookup: u64) -> gimli::Result<Rule> {
    let missing = gimli::Error::NoUnwindInfoForAddress;
    let header = image.eh_frame_hdr().ok_or(missing)?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.as_ptr() as u64);
    let parsed = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8)?;
    let start = parsed.eh_frame_ptr().direct()?;
    let section = image.bytes_from(start).ok_or(missing)?;
    let bases = bases.set_eh_frame(start);
    let section = EhFrame::new(section, LittleEndian);
    let table = parsed.table().ok_or(missing)?;
    let fde = table.fde_for_address(&section, &bases, lookup, EhFrame::cie_from_offset)?;
    let mut context = UnwindContext::<usize, Fixed>::new_in();
    let row = fde.unwind_info_for_address(&section, &bases, &mut context, lookup)?;
    Ok(rule_of_row(row, &section, ip, fde.is_signal_trampoline()))
}

fn rule_of_row(row: &UnwindTableRow<usize, Fixed>, section: &EhFrame<Bytes<'_>>, ip: u64, is_signal: bool) -> Rule {
    if is_signal {
        return signal_rule(row, section, ip);
    }
    match row.register(X86_64::RA) {
        Some(RegisterRule::Undefined) => return Rule::END,
        Some(RegisterRule::Offset(-8)) => {}
        _ => return Rule::STOP,
    }
    let caller_fp = caller_fp(row.register(X86_64::RBP), section, ip);
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => Value::of_register(*register, *offset),
        CfaRule::Expression(expression) => value_of(expression, section, ip),
    };
    match cfa {
        Some(Value::Sp(offset)) => Rule::new(Kind::Sp, offset, caller_fp),
        Some(Value::Fp(offset)) => Rule::new(Kind::Fp, offset, caller_fp),
        Some(Value::AtFp(offset)) => Rule::new(Kind::Drap, offset, caller_fp),
        // Only a frame that a signal interrupted has other registers, and there `rbp` is still the caller's: such rows
        // belong to the first instructions of a function. If it is not, an older frame that needs it is cut.
        Some(Value::Other(register, offset)) => match (SIGNAL_REGISTERS.get(usize::from(register)), caller_fp) {
            (Some(&at), CallerFp::Same) => Rule::of_register(at, offset),
            _ => Rule::STOP,
        },
        Some(Value::Constant(_) | Value::AtSp(_)) | None => Rule::STOP,
    }
}

/// The kernel's frame is what every signal return describes; another layout is not trusted.
fn signal_rule(row: &UnwindTableRow<usize, Fixed>, section: &EhFrame<Bytes<'_>>, ip: u64) -> Rule {
    let CfaRule::Expression(sp) = row.cfa() else { return Rule::STOP };
    let Some(RegisterRule::Expression(return_address)) = row.register(X86_64::RA) else { return Rule::STOP };
    let is_kernels = value_of(sp, section, ip) == Some(Value::AtSp(SIGNAL_SP as i64))
        && value_of(&return_address, section, ip) == Some(Value::Sp(SIGNAL_IP as i64));
    if is_kernels { Rule::SIGNAL } else { Rule::STOP }
}

fn caller_fp(rule: Option<RegisterRule<usize>>, section: &EhFrame<Bytes<'_>>, ip: u64) -> CallerFp {
    match rule {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => CallerFp::Same,
        Some(RegisterRule::Offset(offset)) => CallerFp::AtCfa(offset),
        Some(RegisterRule::Expression(expression)) => match value_of(&expression, section, ip) {
            Some(Value::Fp(offset)) => CallerFp::AtFp(offset),
            _ => CallerFp::Lost,
        },
        Some(_) => CallerFp::Lost,
    }
}

/// What is known of a value without looking at the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    Constant(u64),
    Sp(i64),
    Fp(i64),
    AtSp(i64),
    AtFp(i64),
    Other(u16, i64),
}

impl Value {
    fn of_register(register: Register, offset: i64) -> Option<Value> {
        Some(match register {
            X86_64::RSP => Value::Sp(offset),
            X86_64::RBP => Value::Fp(offset),
            Register(number) if usize::from(number) < SIGNAL_REGISTERS.len() => Value::Other(number, offset),
            _ => return None,
        })
    }

    fn constant(self) -> Option<u64> {
        if let Value::Constant(value) = self { Some(value) } else { None }
    }

    fn plus(self, bytes: u64) -> Option<Value> {
        Some(match self {
            Value::Constant(value) => Value::Constant(value.wrapping_add(bytes)),
            Value::Sp(offset) => Value::Sp(offset.wrapping_add(bytes as i64)),
            Value::Fp(offset) => Value::Fp(offset.wrapping_add(bytes as i64)),
            Value::Other(register, offset) => Value::Other(register, offset.wrapping_add(bytes as i64)),
            Value::AtSp(_) | Value::AtFp(_) => return None,
        })
    }

    fn loaded(self) -> Option<Value> {
        match self {
            Value::Sp(offset) => Some(Value::AtSp(offset)),
            Value::Fp(offset) => Some(Value::AtFp(offset)),
            Value::Constant(_) | Value::AtSp(_) | Value::AtFp(_) | Value::Other(..) => None,
        }
    }
}

/// Deepest operand stack of an expression that is evaluated; the PLT's needs three.
const OPERANDS: usize = 8;

fn value_of(expression: &UnwindExpression<usize>, section: &EhFrame<Bytes<'_>>, ip: u64) -> Option<Value> {
    let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
    let mut operations = expression.get(section).ok()?.operations(encoding);
    let mut stack = [Value::Constant(0); OPERANDS];
    let mut depth = 0_usize;
    while let Some(operation) = operations.next().ok()? {
        let pops = arity(&operation)?;
        depth = depth.checked_sub(pops)?;
        let (below, top) = (*stack.get(depth)?, stack.get(depth + 1).copied());
        *stack.get_mut(depth)? = apply(&operation, below, top, ip)?;
        depth += 1;
    }
    depth.checked_sub(1).and_then(|top| stack.get(top).copied())
}

/// Operands that the operation takes; `None` for those that frames are not described with.
#[allow(clippy::wildcard_enum_match_arm, reason = "DWARF's operations are gimli's enum; the few that occur are named")]
fn arity(operation: &Operation<Bytes<'_>>) -> Option<usize> {
    match operation {
        Operation::RegisterOffset { .. } | Operation::UnsignedConstant { .. } | Operation::SignedConstant { .. } => {
            Some(0)
        }
        Operation::PlusConstant { .. } | Operation::Deref { size: 8, space: false, .. } => Some(1),
        Operation::Plus | Operation::And | Operation::Ge | Operation::Shl => Some(2),
        _ => None,
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "as in `arity`, which lets no other pass")]
fn apply(operation: &Operation<Bytes<'_>>, below: Value, top: Option<Value>, ip: u64) -> Option<Value> {
    match *operation {
        Operation::RegisterOffset { register: X86_64::RA, offset, .. } => {
            Some(Value::Constant(ip.wrapping_add(offset as u64)))
        }
        Operation::RegisterOffset { register, offset, .. } => Value::of_register(register, offset),
        Operation::UnsignedConstant { value } => Some(Value::Constant(value)),
        Operation::SignedConstant { value } => Some(Value::Constant(value as u64)),
        Operation::PlusConstant { value } => below.plus(value),
        Operation::Deref { .. } => below.loaded(),
        Operation::Plus => match (below, top?) {
            (value, Value::Constant(bytes)) | (Value::Constant(bytes), value) => value.plus(bytes),
            _ => None,
        },
        Operation::And => Some(Value::Constant(below.constant()? & top?.constant()?)),
        Operation::Ge => Some(Value::Constant(u64::from(below.constant()? as i64 >= top?.constant()? as i64))),
        Operation::Shl => Some(Value::Constant(below.constant()?.checked_shl(top?.constant()? as u32).unwrap_or(0))),
        _ => None,
    }
}

/// `mov $__NR_rt_sigreturn, %rax; syscall`: what a signal handler returns to where libc's is not used.
const SIGNAL_RETURN: u128 = u128::from_le_bytes([0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05, 0, 0, 0, 0, 0, 0, 0]);
const SIGNAL_RETURN_BITS: u32 = 9 * 8;

/// Code without unwind information is taken to keep frame pointers, unless it is a signal return.
fn without_information(ip: u64) -> Rule {
    let mut words = [0; 2];
    if read_words(ip, &mut words) == words.len() {
        let code = u128::from(words[0]) | u128::from(words[1]) << 64;
        if (code ^ SIGNAL_RETURN) << (128 - SIGNAL_RETURN_BITS) == 0 {
            return Rule::SIGNAL;
        }
    }
    Rule::GUESS
}
