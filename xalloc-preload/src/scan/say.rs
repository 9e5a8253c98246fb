//! The program's say in a check, by the functions that LeakSanitizer's interface lets a program define.
//!
//! | function | what comes of it |
//! |---|---|
//! | `__lsan_is_turned_off` | not 0: the process is not checked |
//! | `__lsan_default_options` | `detect_leaks=0` in it: likewise. Its other options are about LeakSanitizer's own doing |
//! | `__lsan_default_suppressions` | the text goes to the recorder, for whoever reads the verdicts |
//!
//! They are asked at each check and not when the program starts: its constructors have run then. The loader finds them
//! only in a library, or in a program that exports its symbols.
//!
//! # Why not dlsym
//! For a name that is nowhere it allocates, by the program's own allocator if it has one; and the first call that reaches
//! this library may come from the start of that allocator, which holds its lock.
//!
//! # Safety
//! - A function of such a name has the type that LeakSanitizer's interface gives it, and a text that it returns stays.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_void};

use xalloc_core::session::blocks::result;

use crate::arch;

/// Why the program does not want to be checked, a [`result`]; `None` if it does. Its threads run, as it expects.
pub(super) fn refusal() -> Option<u32> {
    let found = arch::programs_function!("__lsan_is_turned_off");
    // SAFETY: by the bullet of the module; a null pointer is `None`.
    let ask = unsafe { core::mem::transmute::<*const c_void, Option<unsafe extern "C" fn() -> c_int>>(found) };
    // SAFETY: by the bullet of the module.
    if ask.is_some_and(|ask| unsafe { ask() } != 0) {
        return Some(result::TURNED_OFF);
    }
    let options = text(arch::programs_function!("__lsan_default_options"));
    options.is_some_and(|options| turns_off(options.to_bytes())).then_some(result::OFF_BY_OPTIONS)
}

/// What the program wants suppressed.
pub(super) fn suppressions() -> Option<&'static CStr> {
    text(arch::programs_function!("__lsan_default_suppressions"))
}

/// Copies a text, whole lines of it if it does not fit; returns the bytes.
pub(super) fn copy(text: Option<&CStr>, into: &mut [u8]) -> u64 {
    let text = text.map_or(b"".as_slice(), CStr::to_bytes);
    let fits = match text.get(..into.len()) {
        Some(cut) => cut.iter().rposition(|&byte| byte == b'\n').and_then(|last| cut.get(..last)).unwrap_or_default(),
        None => text,
    };
    for (to, from) in into.iter_mut().zip(fits) {
        *to = *from;
    }
    fits.len() as u64
}

/// What the function there returns.
fn text(found: *const c_void) -> Option<&'static CStr> {
    // SAFETY: by the bullet of the module; a null pointer is `None`.
    let ask = unsafe { core::mem::transmute::<*const c_void, Option<unsafe extern "C" fn() -> *const c_char>>(found) };
    // SAFETY: by the bullet of the module.
    let text = unsafe { ask?() };
    // SAFETY: by the bullet of the module.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// Whether options in LeakSanitizer's words, separated by colons, commas or blanks, turn the detection off. The last one
/// holds.
fn turns_off(options: &[u8]) -> bool {
    let is_between = |byte: &u8| b":, \t\r\n".contains(byte);
    let mut values = options.split(is_between).filter_map(|option| option.strip_prefix(b"detect_leaks="));
    values.next_back().is_some_and(|value| [b"0".as_slice(), b"no", b"false"].contains(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_detection_holds() {
        for (options, is_off) in [
            ("", false),
            ("detect_leaks=0", true),
            ("verbosity=1:detect_leaks=false", true),
            ("detect_leaks=0 detect_leaks=1", false),
            ("not_detect_leaks=0", false),
        ] {
            assert_eq!(turns_off(options.as_bytes()), is_off, "{options}");
        }
    }

    #[test]
    fn a_text_that_does_not_fit_ends_with_a_whole_line() {
        let mut into = [0; 16];
        assert_eq!(copy(Some(c"leak:a\nleak:b"), &mut into), 13);
        assert_eq!(copy(Some(c"leak:aaaa\nleak:bbbb\n"), &mut into), 9);
        assert_eq!(into.get(..9), Some(b"leak:aaaa".as_slice()));
        assert_eq!(copy(None, &mut into), 0);
    }
}
