//! How a call enters the library: naked stubs in front of the hooks.
//!
//! A C symbol is a naked stub that puts the caller's registers behind the call's own arguments and jumps to the hook.
//! No frame is spent, so a stack walk starts in the program's code without skipping frames of ours; the hook's own
//! prologue keeps what a callee must keep, and it returns straight to the program.
//!
//! # Why not a call from the stub
//! A call costs a frame and a second return, and its frame would have to be described and skipped. It is used only
//! where six or more registers are taken by arguments.
//!
//! # Safety
//! - A stub changes only argument registers that its arity leaves free and scratch registers, and enters the hook with
//!   the stack as the program left it; the hook has the C calling convention and the stub's arguments, then three words.

/// Defines one C symbol by its instructions, of which `h` is the function that they go to.
macro_rules! symbol {
    ($(#[$meta:meta])* $name:ident => $target:path; $($line:expr),* $(,)?) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// - That of the C function of this name.
        #[cfg_attr(panic = "abort", unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(".cfi_startproc", "endbr64", $($line,)* ".cfi_endproc", h = sym $target)
        }
    };
}

/// Defines C symbols that jump to a hook, which gets the arguments and then `ip`, `sp`, `fp`.
///
/// The number is that of the arguments; it decides which registers are free.
macro_rules! stubs {
    ($($(#[$meta:meta])* $name:ident($arity:tt) => $hook:path;)*) => {
        $($crate::arch::stub::stub!($(#[$meta])* $name $arity $hook);)*
    };
}

macro_rules! stub {
    ($(#[$meta:meta])* $name:ident 1 $hook:path) => {
        $crate::arch::stub::stub!(@jump $(#[$meta])* $name $hook, "mov rsi, [rsp]", "lea rdx, [rsp + 8]", "mov rcx, rbp");
    };
    ($(#[$meta:meta])* $name:ident 2 $hook:path) => {
        $crate::arch::stub::stub!(@jump $(#[$meta])* $name $hook, "mov rdx, [rsp]", "lea rcx, [rsp + 8]", "mov r8, rbp");
    };
    ($(#[$meta:meta])* $name:ident 3 $hook:path) => {
        $crate::arch::stub::stub!(@jump $(#[$meta])* $name $hook, "mov rcx, [rsp]", "lea r8, [rsp + 8]", "mov r9, rbp");
    };
    // Up to six arguments: the three words become arguments 7 to 9, which are passed on the stack; six registers must
    // be taken, so a hook for five arguments has an unused sixth.
    ($(#[$meta:meta])* $name:ident 6 $hook:path) => {
        $crate::arch::stub::symbol! {
            $(#[$meta])* $name => $hook;
            "push rbp", ".cfi_adjust_cfa_offset 8",
            "lea rax, [rsp + 16]",
            "push rax", ".cfi_adjust_cfa_offset 8",
            "push qword ptr [rsp + 16]", ".cfi_adjust_cfa_offset 8",
            "call {h}",
            "add rsp, 24", ".cfi_adjust_cfa_offset -24",
            "ret"
        }
    };
    (@jump $(#[$meta:meta])* $name:ident $hook:path, $($instruction:literal),*) => {
        $crate::arch::stub::symbol! {
            $(#[$meta])* $name => $hook;
            $($instruction,)*
            "jmp {h}"
        }
    };
}

/// Defines C symbols that let a notice run, which gets the first argument and returns the address of the function of
/// the same name behind us, and then jump to that function with all arguments as they were: it sees the program as its
/// caller.
macro_rules! detours {
    ($($(#[$meta:meta])* $name:ident => $notice:path;)*) => {
        $(
        $crate::arch::stub::symbol! {
            $(#[$meta])* $name => $notice;
            "push rdi", ".cfi_adjust_cfa_offset 8",
            "push rsi", ".cfi_adjust_cfa_offset 8",
            "push rdx", ".cfi_adjust_cfa_offset 8",
            "push rcx", ".cfi_adjust_cfa_offset 8",
            "push r8", ".cfi_adjust_cfa_offset 8",
            "call {h}",
            "pop r8", ".cfi_adjust_cfa_offset -8",
            "pop rcx", ".cfi_adjust_cfa_offset -8",
            "pop rdx", ".cfi_adjust_cfa_offset -8",
            "pop rsi", ".cfi_adjust_cfa_offset -8",
            "pop rdi", ".cfi_adjust_cfa_offset -8",
            "jmp rax"
        }
        )*
    };
}

/// Defines C symbols that end the process: a notice gets the first argument and the registers that a callee must keep, as
/// they were at the call, and returns the address of the function to jump to, if it returns at all. Up to four arguments
/// are handed on.
macro_rules! leavings {
    ($($(#[$meta:meta])* $name:ident => $notice:path;)*) => {
        $(
        $crate::arch::stub::symbol! {
            $(#[$meta])* $name => $notice;
            $crate::arch::stub::save_registers!(),
            "push rdi; .cfi_adjust_cfa_offset 8; push rsi; .cfi_adjust_cfa_offset 8",
            "push rdx; .cfi_adjust_cfa_offset 8; push rcx; .cfi_adjust_cfa_offset 8",
            "sub rsp, 8; .cfi_adjust_cfa_offset 8",
            "lea rsi, [rsp + 40]",
            "call {h}",
            "add rsp, 8; .cfi_adjust_cfa_offset -8",
            "pop rcx; .cfi_adjust_cfa_offset -8; pop rdx; .cfi_adjust_cfa_offset -8",
            "pop rsi; .cfi_adjust_cfa_offset -8; pop rdi; .cfi_adjust_cfa_offset -8",
            $crate::arch::stub::restore_registers!(),
            "jmp rax"
        }
        )*
    };
}

/// Defines C symbols without arguments whose answer is a hook's, which gets the registers that a callee must keep, as they
/// were at the call.
macro_rules! inquiries {
    ($($(#[$meta:meta])* $name:ident => $hook:path;)*) => {
        $(
        $crate::arch::stub::symbol! {
            $(#[$meta])* $name => $hook;
            $crate::arch::stub::save_registers!(),
            "mov rdi, rsp",
            "sub rsp, 8", ".cfi_adjust_cfa_offset 8",
            "call {h}",
            "add rsp, 8", ".cfi_adjust_cfa_offset -8",
            $crate::arch::stub::restore_registers!(),
            "ret"
        }
        )*
    };
}

/// Lays the registers that a callee must keep down in the order of `scan::Registers`, below the return address.
macro_rules! save_registers {
    () => {
        "push r15; .cfi_adjust_cfa_offset 8; push r14; .cfi_adjust_cfa_offset 8; push r13; .cfi_adjust_cfa_offset 8
         push r12; .cfi_adjust_cfa_offset 8; push rbp; .cfi_adjust_cfa_offset 8; push rbx; .cfi_adjust_cfa_offset 8"
    };
}

/// Takes them back.
macro_rules! restore_registers {
    () => {
        "add rsp, 48; .cfi_adjust_cfa_offset -48"
    };
}

/// Defines C symbols whose arguments are a path and then any number of strings: the hook gets the path and the address
/// of the strings, which the stub lays down as one array.
///
/// The five register arguments are pushed right below those that the caller passed on the stack, where the return
/// address was; that is kept below them.
macro_rules! listed {
    ($($(#[$meta:meta])* $name:ident => $hook:path;)*) => {
        $(
        $crate::arch::stub::symbol! {
            $(#[$meta])* $name => $hook;
            "pop rax", ".cfi_adjust_cfa_offset -8", ".cfi_register rip, rax",
            "push r9", ".cfi_adjust_cfa_offset 8",
            "push r8", ".cfi_adjust_cfa_offset 8",
            "push rcx", ".cfi_adjust_cfa_offset 8",
            "push rdx", ".cfi_adjust_cfa_offset 8",
            "push rsi", ".cfi_adjust_cfa_offset 8",
            "mov rsi, rsp",
            "push rax", ".cfi_adjust_cfa_offset 8", ".cfi_rel_offset rip, 0",
            // The five words and the return address leave the stack aligned for a call.
            "call {h}",
            "pop rcx", ".cfi_adjust_cfa_offset -8", ".cfi_register rip, rcx",
            "add rsp, 40", ".cfi_adjust_cfa_offset -40",
            "push rcx", ".cfi_adjust_cfa_offset 8", ".cfi_rel_offset rip, 0",
            "ret"
        }
        )*
    };
}

/// Defines libc's `syscall`, which hands a system call to the kernel and its failure to errno; those with the numbers
/// of `seccomp` (317) and `prctl` (157) go to a hook, with all arguments where they were.
///
/// It needs nothing of the loader while the call succeeds, for this library calls it before it is ready for more.
macro_rules! system_calls {
    ($(#[$meta:meta])* $name:ident => $hook:path) => {
        const _: () = assert!(libc::SYS_seccomp == 317 && libc::SYS_prctl == 157);
        $crate::arch::stub::symbol! {
            $(#[$meta])* $name => $hook;
            "cmp rdi, 317",
            "je {h}",
            "cmp rdi, 157",
            "je {h}",
            "mov rax, rdi",
            "mov rdi, rsi",
            "mov rsi, rdx",
            "mov rdx, rcx",
            "mov r10, r8",
            "mov r8, r9",
            "mov r9, [rsp + 8]",
            "syscall",
            "cmp rax, -4095",
            "jae 2f",
            "ret",
            "2:",
            "push rax", ".cfi_adjust_cfa_offset 8",
            "call __errno_location@PLT",
            "pop rcx", ".cfi_adjust_cfa_offset -8",
            "neg ecx",
            "mov [rax], ecx",
            "mov rax, -1",
            "ret"
        }
    };
}

pub(crate) use {
    detours, inquiries, leavings, listed, restore_registers, save_registers, stub, stubs, symbol, system_calls,
};
