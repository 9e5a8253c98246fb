//! Threads of this process, by the kernel's numbers.
//!
//! # Safety
//! - `syscall` is given what the essay of [`super`] asks for.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};

use super::File;
use super::{is_confined, pid};

/// The calling thread, by the kernel's number.
pub(crate) fn tid() -> u32 {
    // SAFETY: by the bullet of the module.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Whether this process has a thread with this number.
pub(crate) fn is_thread(tid: u32) -> bool {
    // SAFETY: by the bullet of the module; signal 0 only asks.
    unsafe { libc::syscall(libc::SYS_tgkill, pid() as c_int, tid as c_int, 0) == 0 }
}

/// The calling thread's name: up to 15 bytes and a NUL. Empty where the process [confined](is_confined) itself.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    if is_confined() {
        return name;
    }
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr(), 0_usize, 0_usize, 0_usize) };
    name
}

/// Lets another thread run.
pub(crate) fn yield_now() {
    // SAFETY: by the bullet of the module.
    unsafe { libc::syscall(libc::SYS_sched_yield) };
}

/// Sends a signal to a thread of this process.
pub(crate) fn signal_thread(tid: u32, signal: c_int) {
    // SAFETY: by the bullet of the module.
    unsafe { libc::syscall(libc::SYS_tgkill, pid() as c_int, tid as c_int, signal) };
}

/// Shows the number of every thread of this process.
pub(crate) fn each_thread(mut show: impl FnMut(u32)) {
    each_number(c"/proc/self/task", |tid, _| show(tid));
}

/// Shows the names in a directory that are numbers, and the file by which it is read.
pub(super) fn each_number(directory: &CStr, mut show: impl FnMut(u32, &File)) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let Some(directory) = File::open(directory, flags) else { return };
    let mut buffer = [0_u64; 512];
    loop {
        let room = size_of_val(&buffer);
        // SAFETY: by the bullet of the module.
        let got = unsafe { libc::syscall(libc::SYS_getdents64, directory.0, buffer.as_mut_ptr(), room) };
        let entries = buffer.as_ptr().cast::<u8>();
        // SAFETY: that many bytes were written to the buffer.
        let mut entries = unsafe { core::slice::from_raw_parts(entries, got.max(0) as usize) };
        if entries.is_empty() {
            return;
        }
        // linux_dirent64: inode and offset of 8 bytes each, the entry's length in 2, its type in 1, its name.
        while let Some(&[low, high]) = entries.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = entries.get(19..length).unwrap_or_default();
            let mut digits = name.iter().take_while(|byte| byte.is_ascii_digit()).peekable();
            if digits.peek().is_some() {
                show(
                    digits.fold(0, |number: u32, &digit| number.wrapping_mul(10) + u32::from(digit - b'0')),
                    &directory,
                );
            }
            entries = entries.get(length.max(1)..).unwrap_or_default();
        }
    }
}
