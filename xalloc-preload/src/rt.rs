//! What a library without std must bring itself: the panic handler and the personality that prebuilt core refers to.
//!
//! Nothing here is ever reached: the hooks do not panic, and the profile aborts instead of unwinding. The personality
//! is hidden, because an exported one would take the place of that of Rust libraries in the program.
//!
//! # Safety
//! - `abort` takes no arguments and does not return.
#![allow(unsafe_code)]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: by the bullet of the module.
    unsafe { libc::abort() }
}

core::arch::global_asm!(
    ".hidden rust_eh_personality",
    ".globl rust_eh_personality",
    ".type rust_eh_personality,@function",
    "rust_eh_personality:",
    "ud2"
);
