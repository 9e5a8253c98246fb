//! A recorded call takes no lock that the program's own allocator would not take, and writes nothing that another thread
//! writes too: a debugger runs the program instruction by instruction and counts those that lock the bus's line, and
//! compares what all threads share before and after.
//!
//! # Safety
//! - The traced process is this test's own child, stopped whenever it is asked.
#![allow(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use support::{Scratch, library};
use xalloc_core::session::{RingHeader, layout};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// What the program of this test allocates and frees between two of its traps.
const PAIRS: u64 = 100;
const INT3: u8 = 0xcc;

/// A program that stops at its traps.
struct Traced(Child);

impl Traced {
    /// Starts the program, up to its first trap.
    fn start(command: &mut Command) -> Traced {
        let be_traced = || {
            // SAFETY: of this request the arguments are not looked at.
            match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: one system call, which may be made between fork and exec.
        let command = unsafe { command.pre_exec(be_traced) };
        let traced = Traced(command.spawn().expect("the program starts and may be traced"));
        traced.wait();
        traced.go_on(libc::PTRACE_CONT);
        traced
    }

    fn wait(&self) {
        let mut status = 0;
        // SAFETY: the status lives through the call.
        let pid = unsafe { libc::waitpid(self.0.id() as i32, &raw mut status, libc::__WALL) };
        assert_eq!(pid, self.0.id() as i32, "{}", io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP, "status {status:#x}");
    }

    /// Lets it run until it stops again.
    fn go_on(&self, how: libc::c_uint) {
        // SAFETY: the module's bullet; no signal is passed on.
        let answer = unsafe { libc::ptrace(how, self.0.id(), 0, 0) };
        assert_eq!(answer, 0, "{}", io::Error::last_os_error());
        self.wait();
    }

    /// The bytes that it is about to execute.
    fn next_instruction(&self) -> [u8; 16] {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::uninit();
        // SAFETY: the module's bullet; the kernel fills the structure.
        let answer = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.0.id(), 0, registers.as_mut_ptr()) };
        assert_eq!(answer, 0, "{}", io::Error::last_os_error());
        // SAFETY: filled by the call above.
        let ip = unsafe { registers.assume_init() }.rip;
        let mut bytes = [0; 16];
        let memory = File::open(format!("/proc/{}/mem", self.0.id())).expect("a tracer may read");
        // An instruction may end where its mapping does.
        memory.read_at(&mut bytes, ip).expect("what is executed can be read");
        bytes
    }

    /// Runs it step by step to its next trap. Instructions, and those among them that lock.
    fn step(&self) -> (u64, u64) {
        let (mut all, mut locking) = (0, 0);
        loop {
            let instruction = self.next_instruction();
            if instruction[0] == INT3 {
                self.go_on(libc::PTRACE_CONT);
                return (all, locking);
            }
            all += 1;
            locking += u64::from(locks(&instruction));
            self.go_on(libc::PTRACE_SINGLESTEP);
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether an instruction has the lock prefix or is an exchange with memory, which locks without one
/// (Intel SDM, volume 3, "Bus Locking").
fn locks(instruction: &[u8]) -> bool {
    let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let (prefixes, rest) = instruction.split_at(instruction.iter().take_while(|byte| is_prefix(byte)).count());
    let rest = if matches!(rest, [0x40..=0x4f, ..]) { &rest[1..] } else { rest };
    prefixes.contains(&0xf0) || matches!(rest, [0x86 | 0x87, operands, ..] if operands >> 6 != 0b11)
}

/// What the threads of a recorded process share, but for the first ring's header: that is the first thread's own.
fn shared(segment: &Path) -> Vec<u8> {
    let mut bytes = vec![0; layout::SLOTS.start];
    File::open(segment).and_then(|file| file.read_exact_at(&mut bytes, 0)).expect("the segment can be read");
    bytes[own_ring()].fill(0);
    bytes
}

fn own_ring() -> Range<usize> {
    layout::RING_HEADERS.start..layout::RING_HEADERS.start + size_of::<RingHeader>()
}

#[test]
fn a_recorded_call_locks_nothing_and_writes_nothing_that_threads_share() {
    let scratch = Scratch::new("contention");
    let program = scratch.program("contention");
    let segment = scratch.path("trace");
    // Blocks that a thread's cache serves: the heap locks nothing for them.
    let traced =
        Traced::start(Command::new(&program).arg("24").env("LD_PRELOAD", library()).env("XALLOC_OUT", &segment));
    let before = shared(&segment);
    let (all, locking) = traced.step();
    assert!(all > PAIRS * 100, "{all} instructions are too few for recorded calls");
    assert_eq!(locking, 0, "of {all} instructions of {PAIRS} calls of malloc and free each");
    let after = shared(&segment);
    assert!(before == after, "{} bytes", before.iter().zip(&after).filter(|(before, after)| before != after).count());
    // A stack that nobody has seen yet is what threads do share.
    let (_, locking) = traced.step();
    assert!(locking > 0, "a node of the trie is claimed by an instruction that locks");
    assert!(shared(&segment) != after, "and is there for all threads");
    println!("{PAIRS} pairs of calls: {all} instructions, none locks; not a byte written that threads share");
}

#[test]
fn where_the_heap_locks_an_arena_the_recording_adds_no_lock() {
    let scratch = Scratch::new("contention-arena");
    let program = scratch.program("contention");
    // Too large for a thread's cache: the arena serves it, under its lock.
    let locking = |command: &mut Command| Traced::start(command.arg("5000").env("LD_PRELOAD", library())).step().1;
    let unrecorded = locking(&mut Command::new(&program));
    let recorded = locking(Command::new(&program).env("XALLOC_OUT", scratch.path("trace")));
    assert!(unrecorded >= PAIRS * 2, "{unrecorded} locks are too few for {PAIRS} calls of malloc and free each");
    assert_eq!(recorded, unrecorded);
}
