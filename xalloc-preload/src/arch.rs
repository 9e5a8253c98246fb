//! All that depends on x86-64: how a call enters the library, and two registers.
//!
//! # Safety
//! - `fs` points to the thread's descriptor from the loader's first step on; its words 0 and 2 are its own address
//!   (System V ABI for x86-64, thread-local storage).
//! - glibc's descriptor is at least [`DESCRIPTOR_BYTES`] long (2,304 in 2.34 to 2.36, larger later).
#![allow(unsafe_code)]

use core::arch::asm;
use core::ffi::c_long;

#[allow(unused_macros, unused_imports, reason = "tests that export nothing do without")]
pub(crate) mod stub;

/// The registers of the program at the instruction behind its call: where a stack walk begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Entry {
    /// Return address of the call.
    pub ip: usize,
    /// Stack pointer after the return.
    pub sp: usize,
    /// Frame pointer register (`rbp`), whatever the caller uses it for.
    pub fp: usize,
}

/// The address of the calling thread's descriptor: its identity while it lives, and never 0.
#[inline(always)]
pub fn thread_pointer() -> usize {
    let address: usize;
    // SAFETY: by the bullet of the module.
    unsafe { asm!("mov {}, fs:[0x10]", out(reg) address, options(nostack, preserves_flags, readonly, pure)) };
    address
}

/// Where the program, or a library that it began with, defines the function of this name; null if none does. The loader
/// binds it together with this library.
#[allow(unused_macros, reason = "who takes this file alone asks no program")]
macro_rules! programs_function {
    ($name:literal) => {{
        let found: *const core::ffi::c_void;
        // SAFETY: reads a word of this library's, which the loader has filled in or left zero.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {}, [rip + ", $name, "@GOTPCREL]"),
                out(reg) found,
                options(nostack, preserves_flags, readonly, pure)
            );
        }
        found
    }};
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use programs_function;

/// A system call with up to five arguments, asked of the kernel itself: the answer, or errno as a negative number.
///
/// # Safety
/// - The arguments are such as that call takes.
pub unsafe fn system_call(number: c_long, arguments: [usize; 5]) -> c_long {
    let [first, second, third, fourth, fifth] = arguments;
    let answer: c_long;
    // SAFETY: by the contract; the instruction changes the answer's register, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    answer
}

/// Bytes at the start of a thread's descriptor that can be read.
pub const DESCRIPTOR_BYTES: usize = 2048;

/// The word of the calling thread's descriptor that lies `offset` bytes behind its start.
///
/// # Safety
/// - `offset` is a multiple of 8 below [`DESCRIPTOR_BYTES`].
#[inline(always)]
pub unsafe fn descriptor_word(offset: usize) -> usize {
    let word: usize;
    // SAFETY: by the contract and the last bullet of the module the word can be read.
    unsafe { asm!("mov {}, fs:[{}]", out(reg) word, in(reg) offset, options(nostack, preserves_flags, readonly)) };
    word
}

/// Reads the byte at any address, as a program would: where there is no memory, the kernel says so to the program.
pub fn read_byte(address: usize) {
    // SAFETY: a read changes nothing; where it cannot be made, the signal that follows is what the caller wants.
    unsafe {
        asm!("mov {}, byte ptr [{}]", out(reg_byte) _, in(reg) address, options(nostack, preserves_flags, readonly))
    };
}

/// Writes the byte at any address as it is: where that cannot be written, the kernel says so to the program.
pub fn touch_byte(address: usize) {
    // SAFETY: the byte stays as it is, whoever else writes it; where it cannot be written, the signal that follows is
    // what the caller wants.
    unsafe { asm!("lock or byte ptr [{}], 0", in(reg) address, options(nostack)) };
}

/// A word that the loader relocates to its own address.
struct Witness(*const Witness);

// SAFETY: it is never changed after relocation, and only compared.
unsafe impl Sync for Witness {}

static WITNESS: Witness = Witness(&raw const WITNESS);

/// Whether the loader has relocated this library: before that no function of libc can be called, for there is no table
/// of their addresses. A resolver of an indirect function in a library that is relocated before us calls that early.
#[inline(always)]
pub fn is_relocated() -> bool {
    let address: *const Witness;
    // SAFETY: computes an address relative to the instruction pointer, without any access.
    unsafe { asm!("lea {}, [rip + {}]", out(reg) address, sym WITNESS, options(nostack, preserves_flags, nomem)) };
    // SAFETY: `WITNESS` is a static of this library; volatile, for the compiler knows what it will hold.
    let word = unsafe { (&raw const WITNESS.0).read_volatile() };
    core::ptr::eq(word, address)
}
