//! The ways out of a program, and what of its last thread's stack is in use on each.
//!
//! | way | when it is checked | what of the stack counts |
//! |---|---|---|
//! | return from `main` | after all exit handlers and destructors | nothing below the arguments |
//! | `exit` | likewise | from its caller's stack pointer up, and six registers |
//! | `exit` by libc itself (`err`, the last thread's end) | likewise | from the exit handler's frame up |
//! | `_exit`, `_Exit` | at the call | from its caller's stack pointer up, and six registers |
//! | `quick_exit` | after all of its handlers | likewise |
//! | `abort`, a failed `assert` | at the call, before a handler of SIGABRT | likewise |
//! | SIGTERM, SIGINT, where the user wants it | in a handler, before they do what they do | from the interrupted stack pointer up, and its registers |
//!
//! # Safety
//! - [`Registers`] is what the stubs of `exports` lay down on the stack, and is used before they return.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};

use xalloc_core::intern::FrameMeaning;
use xalloc_core::session::blocks::occasion;
use xalloc_core::session::leak_check;
use xalloc_core::units::StackId;

use super::fault;
use super::roots::{Boundary, Interrupted};
use crate::arch::Entry;
use crate::arch::stub::{restore_registers, save_registers};
use crate::backend::next;
use crate::guard::{self, Access};
use crate::host;
use crate::modules;
use crate::process;
use crate::segment::Segment;
use crate::stacks;

/// What a stub saves: the registers that a callee must keep, and the return address behind them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Registers {
    rbx: u64,
    rbp: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    return_address: u64,
}

impl Registers {
    /// The boundary at a call that returns: its callers need no excuse for what they keep.
    pub(super) fn boundary_of_call(&self) -> Boundary {
        let sp = core::ptr::from_ref(self) as u64 + size_of::<Registers>() as u64;
        let Registers { rbx, rbp, r12, r13, r14, r15, return_address: _ } = *self;
        let registers = [rbx, rbp, r12, r13, r14, r15];
        Boundary { sp, registers, stack: StackId::NONE, interrupted: Interrupted::NOWHERE, tid: host::tid() }
    }

    fn boundary(&self) -> Boundary {
        let called = self.boundary_of_call();
        let entry = Entry { ip: self.return_address as usize, sp: called.sp as usize, fp: self.rbp as usize };
        Boundary { stack: stack_of(entry), ..called }
    }
}

/// The id of a call's stack.
fn stack_of(entry: Entry) -> StackId {
    let Access::Inside(mut inside) = guard::enter() else { return StackId::NONE };
    if inside.recording().is_none() {
        return StackId::NONE;
    }
    stacks::stack_of(inside.own(), entry)
}

/// The last call of `exit` or `quick_exit`.
#[derive(Clone, Copy)]
struct Leaving {
    tid: u32,
    status: c_int,
    boundary: Boundary,
}

struct LastExit(UnsafeCell<Option<Leaving>>);

// SAFETY: written by the thread that calls `exit` or `quick_exit`, of which libc lets one through; read by the handlers.
unsafe impl Sync for LastExit {}

static LAST_EXIT: LastExit = LastExit(UnsafeCell::new(None));

/// Before `exit`: where the program's part of the stack ends.
///
/// # Safety
/// - By the bullet of the module.
pub(crate) unsafe extern "C" fn before_exit(status: c_int, registers: &Registers) -> usize {
    remember(status, registers);
    next::target(next::Symbol::exit)
}

fn remember(status: c_int, registers: &Registers) {
    host::keeping_errno(|| {
        if process::own_segment().is_some() {
            let leaving = Leaving { tid: host::tid(), status, boundary: registers.boundary() };
            // SAFETY: a program may call `exit` or `quick_exit` from one thread (C17 7.22.4.4, 7.22.4.7).
            unsafe { LAST_EXIT.0.get().write(Some(leaving)) };
        }
    });
}

/// The last call of `exit` or `quick_exit`, if the calling thread made it.
fn remembered() -> Option<Leaving> {
    // SAFETY: written before the handlers run, by the same call.
    let called = unsafe { *LAST_EXIT.0.get() };
    called.filter(|leaving| leaving.tid == host::tid())
}

/// The exit handler: the last thing that happens. It goes on with the registers of libc's code that called it.
///
/// # Safety
/// - libc calls it.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn at_exit_handler(status: c_int, argument: *mut c_void) {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "endbr64",
        save_registers!(),
        "mov rsi, rsp",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {at_exit}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        restore_registers!(),
        "ret",
        ".cfi_endproc",
        at_exit = sym at_exit)
}

extern "C" fn at_exit(status: c_int, registers: &Registers) {
    host::keeping_errno(|| {
        if let Some(segment) = process::own_segment() {
            super::check(segment, occasion::EXIT, &boundary_at_exit(segment, registers));
        }
        process::say_exit(status);
    });
}

fn boundary_at_exit(segment: &'static Segment, registers: &Registers) -> Boundary {
    if let Some(leaving) = remembered() {
        return leaving.boundary;
    }
    let here = registers.boundary();
    let sp = if is_program_over(segment, here.stack) && host::tid() == host::pid() {
        stack_end().max(here.sp)
    } else {
        here.sp
    };
    Boundary { sp, stack: StackId::NONE, ..here }
}

/// Where the first thread's stack began: its arguments and environment lie above. 0: not known.
pub(super) fn stack_end() -> u64 {
    let noted = next::address(next::Symbol::__libc_stack_end).cast::<u64>();
    if noted.is_null() {
        return 0;
    }
    // SAFETY: the loader's variable of this name is a word, written before any library's code ran.
    unsafe { noted.read() }
}

/// Whether the stack of the exit handler holds no frame of the program's but the one that the kernel entered.
fn is_program_over(segment: &'static Segment, stack: StackId) -> bool {
    let trie = segment.trie();
    let ours = modules::range_at(is_program_over as *const () as u64);
    let libcs = modules::range_at(next::target(next::Symbol::exit) as u64);
    let (Some(ours), Some(libcs)) = (ours, libcs) else { return false };
    let mut others = 0;
    let mut at = stack;
    while let Some((parent, word)) = trie.get(at) {
        match word.meaning() {
            FrameMeaning::ReturnAddress(address) | FrameMeaning::Interrupted(address) => {
                others += u32::from(!ours.contains(&address) && !libcs.contains(&address));
            }
            FrameMeaning::Generation(_) | FrameMeaning::Cut | FrameMeaning::Paused => {}
        }
        at = parent;
    }
    stack != StackId::NONE && stack != StackId::UNKNOWN && others <= 1
}

/// `_exit` and `_Exit`: the end without handlers.
///
/// # Safety
/// - By the bullet of the module.
pub(crate) unsafe extern "C" fn exit_at_once(status: c_int, registers: &Registers) -> usize {
    leave(registers);
    process::exit_at_once(status)
}

/// Before `quick_exit`, which runs only its own handlers.
///
/// # Safety
/// - By the bullet of the module.
pub(crate) unsafe extern "C" fn before_quick_exit(status: c_int, registers: &Registers) -> usize {
    remember(status, registers);
    next::target(next::Symbol::quick_exit)
}

/// The last of the handlers of `quick_exit`, for it was registered first.
pub(crate) extern "C" fn at_quick_exit_handler(_: *mut c_void) {
    let Some(leaving) = remembered() else { return };
    host::keeping_errno(|| {
        if let Some(segment) = process::own_segment() {
            super::check(segment, occasion::EXIT, &Boundary { stack: StackId::NONE, ..leaving.boundary });
        }
        process::say_exit(leaving.status);
    });
}

/// Before `abort`, after which a handler of the program may still go on.
///
/// # Safety
/// - By the bullet of the module.
pub(crate) unsafe extern "C" fn before_abort(_: c_int, registers: &Registers) -> usize {
    leave(registers);
    next::target(next::Symbol::abort)
}

/// Before a failed `assert` says so and aborts.
///
/// # Safety
/// - By the bullet of the module.
pub(crate) unsafe extern "C" fn before_assertion(_: c_int, registers: &Registers) -> usize {
    leave(registers);
    next::target(next::Symbol::__assert_fail)
}

/// Installs handlers for the signals that ask a program to end, where it leaves them alone and the user wants it.
pub(crate) fn watch_signals(segment: &'static Segment) {
    if segment.options.leak_check & leak_check::ON_SIGNAL == 0 {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        if fault::set_action(signal, None).is_some_and(|before| before.sa_sigaction == libc::SIG_DFL) {
            fault::set_action(signal, Some(&fault::action(on_signal)));
        }
    }
}

/// Checks, and lets the signal do what it would have done.
extern "C" fn on_signal(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if let (Some(segment), Some(boundary)) = (process::own_segment(), Boundary::interrupted(context)) {
        super::check(segment, occasion::EXIT, &boundary);
    }
    // SAFETY: zeroes are the default action.
    let default = unsafe { core::mem::zeroed() };
    fault::set_action(signal, Some(&default));
    // It is blocked until this handler returns, and comes then.
    host::signal_thread(host::tid(), signal);
}

fn leave(registers: &Registers) {
    host::keeping_errno(|| {
        if let Some(segment) = process::own_segment() {
            super::check(segment, occasion::EXIT, &registers.boundary_of_call());
        }
    });
}
