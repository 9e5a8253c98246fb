//! The C symbols: all that the program sees. `exports.txt` lists them, and a test compares.
//!
//! What is not here is not interposed, each for a reason:
//! - `__libc_start_main`: the exit handler of [`crate::scan`] tells a return from `main` by its stack.
//! - `fork`, `vfork`, `clone`: [`crate::lifecycle`] notices a child whichever way it was made.
//! - `system`, `popen`: they start programs with the environment of this one.
//!
//! # Safety
//! - Each function has the C type and keeps the contract of the libc function of its name, and its obligations are
//!   those of that function's caller.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_void};

use crate::arch::stub::{detours, inquiries, leavings, listed, stubs, system_calls};
use crate::exec::{self, Strings};
use crate::hooks::{alloc, free, leaks, mapping, marks, query, realloc};
use crate::host;
use crate::process;
use crate::scan;

stubs! {
    /// C `malloc`.
    malloc(1) => alloc::on_malloc;
    /// C `calloc`.
    calloc(2) => alloc::on_calloc;
    /// C `realloc`.
    realloc(2) => realloc::on_realloc;
    /// BSD `reallocarray`.
    reallocarray(3) => realloc::on_reallocarray;
    /// C `free`.
    free(1) => free::on_free;
    /// SunOS `cfree`.
    cfree(1) => free::on_free;
    /// C23 `free_sized`.
    free_sized(2) => free::on_free_sized;
    /// C23 `free_aligned_sized`.
    free_aligned_sized(3) => free::on_free_aligned_sized;
    /// SunOS `memalign`.
    memalign(2) => alloc::on_memalign;
    /// C11 `aligned_alloc`.
    aligned_alloc(2) => alloc::on_aligned_alloc;
    /// POSIX `posix_memalign`.
    posix_memalign(3) => alloc::on_posix_memalign;
    /// BSD `valloc`.
    valloc(1) => alloc::on_valloc;
    /// GNU `pvalloc`.
    pvalloc(1) => alloc::on_pvalloc;
    /// GNU `malloc_trim`.
    malloc_trim(1) => query::on_malloc_trim;
    /// SVID `mallopt`.
    mallopt(2) => query::on_mallopt;
    /// libc's other name for `malloc`.
    __libc_malloc(1) => alloc::on_malloc;
    /// libc's other name for `calloc`.
    __libc_calloc(2) => alloc::on_calloc;
    /// libc's other name for `realloc`.
    __libc_realloc(2) => realloc::on_realloc;
    /// libc's other name for `reallocarray`.
    __libc_reallocarray(3) => realloc::on_reallocarray;
    /// libc's other name for `free`.
    __libc_free(1) => free::on_free;
    /// libc's other name for `memalign`.
    __libc_memalign(2) => alloc::on_memalign;
    /// libc's other name for `valloc`.
    __libc_valloc(1) => alloc::on_valloc;
    /// libc's other name for `pvalloc`.
    __libc_pvalloc(1) => alloc::on_pvalloc;
    /// libc's other name for `mallopt`.
    __libc_mallopt(2) => query::on_mallopt;
    /// POSIX `mmap`.
    mmap(6) => mapping::on_mmap;
    /// The same with the large offset that is the only one here.
    mmap64(6) => mapping::on_mmap;
    /// POSIX `munmap`.
    munmap(2) => mapping::on_munmap;
    /// Linux `mremap`.
    mremap(6) => mapping::on_mremap;
    /// BSD `madvise`.
    madvise(3) => mapping::on_madvise;
    /// POSIX `mlock`.
    mlock(2) => mapping::on_mlock;
    /// POSIX `munlock`.
    munlock(2) => mapping::on_munlock;
    /// BSD `brk`.
    brk(1) => mapping::on_brk;
    /// BSD `sbrk`.
    sbrk(1) => mapping::on_sbrk;
    /// LSan's `__lsan_ignore_object`.
    __lsan_ignore_object(1) => leaks::on_ignore;
    /// `xalloc_marker` of `xalloc.h`.
    __xalloc_marker(1) => marks::on_marker;
    /// `xalloc_pause` of `xalloc.h`.
    __xalloc_pause(1) => marks::on_pause;
    /// `xalloc_resume` of `xalloc.h`.
    __xalloc_resume(1) => marks::on_resume;
}

detours! {
    /// POSIX `pthread_create`.
    pthread_create => process::before_pthread_create;
    /// POSIX `dlopen`: modules are noticed when they first appear on a stack; here it is about one flag.
    dlopen => process::before_dlopen;
    /// GNU `dlmopen`.
    dlmopen => process::before_dlmopen;
}

leavings! {
    /// C `exit`.
    exit => scan::before_exit;
    /// C11 `quick_exit`.
    quick_exit => scan::before_quick_exit;
    /// POSIX `_exit`.
    _exit => scan::exit_at_once;
    /// C99 `_Exit`.
    #[allow(non_snake_case, reason = "the name is C's")]
    _Exit => scan::exit_at_once;
    /// C `abort`.
    abort => scan::before_abort;
    /// What a failed `assert` calls: libc's own `abort` within it is not to be seen from outside.
    __assert_fail => scan::before_assertion;
}

inquiries! {
    /// LSan's `__lsan_do_leak_check`.
    __lsan_do_leak_check => scan::on_final_check;
    /// LSan's `__lsan_do_recoverable_leak_check`.
    __lsan_do_recoverable_leak_check => scan::on_check;
}

listed! {
    /// POSIX `execl`.
    execl => exec::on_execl;
    /// POSIX `execlp`.
    execlp => exec::on_execlp;
    /// POSIX `execle`.
    execle => exec::on_execle;
}

system_calls! {
    /// Linux `syscall`.
    syscall => host::on_syscall
}

/// Defines C symbols as Rust functions of one line.
macro_rules! functions {
    ($($(#[$meta:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty => $body:expr;)*) => {
        $(
        $(#[$meta])*
        ///
        /// # Safety
        /// - By the bullet of the module.
        #[cfg_attr(panic = "abort", unsafe(no_mangle))]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            // SAFETY: by the bullet of the module.
            #[allow(unused_unsafe, reason = "some bodies are safe")]
            unsafe { $body }
        }
        )*
    };
}

functions! {
    /// GNU `malloc_usable_size`.
    malloc_usable_size(block: *mut c_void) -> usize => query::usable_size(block);
    /// SVID `mallinfo`.
    mallinfo() -> libc::mallinfo => query::mallinfo();
    /// libc's other name for `mallinfo`.
    __libc_mallinfo() -> libc::mallinfo => query::mallinfo();
    /// GNU `mallinfo2`.
    mallinfo2() -> libc::mallinfo2 => query::mallinfo2();
    /// GNU `malloc_info`.
    malloc_info(options: c_int, to: *mut libc::FILE) -> c_int => query::info(options, to);
    /// GNU `malloc_stats`.
    malloc_stats() -> () => query::stats();
    /// Linux `prctl`.
    prctl(option: c_int, second: usize, third: usize, fourth: usize, fifth: usize) -> c_int
        => host::prctl(option, [second, third, fourth, fifth]);
    /// POSIX `dlclose`.
    dlclose(handle: *mut c_void) -> c_int => process::close_library(handle);
    /// POSIX `execve`.
    execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int => exec::execve(path, argv, envp);
    /// POSIX `execv`.
    execv(path: *const c_char, argv: Strings) -> c_int => exec::execv(path, argv);
    /// POSIX `execvp`.
    execvp(file: *const c_char, argv: Strings) -> c_int => exec::execvp(file, argv);
    /// GNU `execvpe`.
    execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int => exec::execvpe(file, argv, envp);
    /// POSIX `fexecve`.
    fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int => exec::fexecve(fd, argv, envp);
    /// Linux `execveat`.
    execveat(fd: c_int, path: *const c_char, argv: Strings, envp: Strings, flags: c_int) -> c_int
        => exec::execveat(fd, path, argv, envp, flags);
    /// POSIX `posix_spawn`.
    posix_spawn(
        pid: *mut libc::pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void,
        argv: Strings, envp: Strings
    ) -> c_int => exec::posix_spawn((pid, path, actions, attributes, argv, envp));
    /// POSIX `posix_spawnp`.
    posix_spawnp(
        pid: *mut libc::pid_t, file: *const c_char, actions: *const c_void, attributes: *const c_void,
        argv: Strings, envp: Strings
    ) -> c_int => exec::posix_spawnp((pid, file, actions, attributes, argv, envp));
    /// LSan's `__lsan_init`, which programs call that do not link it: there is nothing to begin.
    __lsan_init() -> () => ();
    /// LSan's `__lsan_disable`.
    __lsan_disable() -> () => leaks::disable();
    /// LSan's `__lsan_enable`.
    __lsan_enable() -> () => leaks::enable();
    /// LSan's `__lsan_register_root_region`.
    __lsan_register_root_region(start: *const c_void, bytes: usize) -> () => scan::root_regions::register(start, bytes);
    /// LSan's `__lsan_unregister_root_region`.
    __lsan_unregister_root_region(start: *const c_void, bytes: usize) -> ()
        => scan::root_regions::unregister(start, bytes);
}
