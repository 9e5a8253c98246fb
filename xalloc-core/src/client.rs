//! What a Rust program may say to the recording that it is part of: the same as `xalloc.h` offers to C.
//!
//! ```
//! use xalloc_core::client;
//!
//! client::marker("startup is over");
//! let cache = {
//!     let _pause = client::Pause::new();
//!     vec![0_u8; 1 << 20]
//! };
//! client::ignore(cache.as_ptr());
//! if client::check_leaks() {
//!     eprintln!("something is leaked");
//! }
//! ```
//!
//! The preloaded library is found by the loader when a function is first called. A program that is not recorded finds
//! none, and nothing happens; so nothing has to be linked, and nothing taken out for a release. This file needs nothing
//! but core and the C library, and may be copied into a program.
//!
//! # Why not weak symbols
//! Stable Rust has none. The look-up happens once for each function and costs a load afterwards.
//!
//! # Safety
//! - A function of the names that are looked up here has the type that it is given here, by the preloaded library's
//!   exports and LeakSanitizer's interface; all of them take any value.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::marker::PhantomData;
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn dlsym(scope: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Bytes of a marker's name that count.
const NAME_BYTES: usize = 1000;

/// A function of the library, once it was looked for.
struct Function {
    name: &'static CStr,
    /// Null: not looked for. [`ABSENT`]: there is none.
    found: AtomicPtr<c_void>,
}

static NOTHING: u8 = 0;
const ABSENT: *mut c_void = (&raw const NOTHING).cast_mut().cast();

impl Function {
    const fn named(name: &'static CStr) -> Function {
        Function { name, found: AtomicPtr::new(null_mut()) }
    }

    /// Its address, or null.
    fn get(&self) -> *mut c_void {
        // Relaxed: code is there before any thread, and two that look at once find the same.
        let mut found = self.found.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: looks a name up in the global scope (`RTLD_DEFAULT` is null); it ends with a NUL.
            found = unsafe { dlsym(null_mut(), self.name.as_ptr()) };
            if found.is_null() {
                found = ABSENT;
            }
            self.found.store(found, Ordering::Relaxed);
        }
        if found == ABSENT { null_mut() } else { found }
    }
}

/// Calls a function of the library, if it is there.
macro_rules! call {
    ($name:literal as fn($($type:ty),*) -> $result:ty, ($($argument:expr),*)) => {{
        static FUNCTION: Function = Function::named($name);
        // SAFETY: by the bullet of the module; a null pointer is `None`.
        let function = unsafe { transmute::<*mut c_void, Option<unsafe extern "C" fn($($type),*) -> $result>>(FUNCTION.get()) };
        // SAFETY: by the bullet of the module.
        function.map(|function| unsafe { function($($argument),*) })
    }};
}

/// Sets a mark that `events` and `timeline` show, and by which moments can be named.
///
/// The first 1,000 bytes of the name count, up to a NUL.
pub fn marker(name: &str) {
    let mut text = [0_u8; NAME_BYTES + 1];
    let bytes = name.floor_char_boundary(NAME_BYTES);
    for (to, from) in text.iter_mut().zip(&name.as_bytes()[..bytes]) {
        *to = *from;
    }
    call!(c"__xalloc_marker" as fn(*const c_char) -> (), (text.as_ptr().cast()));
}

/// Recording is paused while this lives, for all threads: allocations are counted, but not told apart by call stack, and
/// are no leaks. Pauses nest.
#[derive(Debug)]
#[must_use = "recording goes on when it is dropped"]
pub struct Pause(PhantomData<()>);

impl Pause {
    /// Begins a pause.
    pub fn new() -> Pause {
        call!(c"__xalloc_pause" as fn() -> (), ());
        Pause(PhantomData)
    }
}

impl Default for Pause {
    fn default() -> Pause {
        Pause::new()
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        call!(c"__xalloc_resume" as fn() -> (), ());
    }
}

/// Makes the block that `pointer` points into, and what it holds, no leaks.
pub fn ignore<T: ?Sized>(pointer: *const T) {
    call!(c"__lsan_ignore_object" as fn(*const c_void) -> (), (pointer.cast()));
}

/// Checks for leaks at once. False: nothing is leaked, or the program is not recorded or not checked.
#[must_use]
pub fn check_leaks() -> bool {
    call!(c"__lsan_do_recoverable_leak_check" as fn() -> c_int, ()).is_some_and(|answer| answer != 0)
}

/// Makes pointers in the `bytes` from `start` on count, wherever they lie.
pub fn register_root(start: *const u8, bytes: usize) {
    call!(c"__lsan_register_root_region" as fn(*const c_void, usize) -> (), (start.cast(), bytes));
}

/// Takes [`register_root`] of the same range back.
pub fn unregister_root(start: *const u8, bytes: usize) {
    call!(c"__lsan_unregister_root_region" as fn(*const c_void, usize) -> (), (start.cast(), bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_recorded_may_call_everything() {
        marker(&"ü".repeat(NAME_BYTES));
        let block = Box::new(7);
        {
            let _pause = Pause::new();
            ignore(&raw const *block);
            register_root((&raw const *block).cast(), 4);
            unregister_root((&raw const *block).cast(), 4);
        }
        assert!(!check_leaks());
    }
}
