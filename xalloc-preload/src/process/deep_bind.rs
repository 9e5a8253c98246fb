//! Modules that look for their symbols in their own libraries first.
//!
//! A library that is loaded with `RTLD_DEEPBIND` finds libc's `malloc` and `free` before this library's. It would give
//! libc's `free` blocks of the core's heap, allocate unseen, and start threads that nobody hears of. So before the
//! first such library is loaded, libc's own table of symbols is changed: where a name leads to a function in front of
//! which a hook stands, it leads to the hook from then on. What was looked up before stays as it is.
//!
//! Only names behind which libc's own function is next are changed. Where another library stands between this one and
//! libc, that library's lookup of what is behind it must end at libc.
//!
//! # Why not without the flag
//! The flag says which of two functions of the same name the library means; without it a library of the program's may
//! call another one's functions.
//!
//! # Safety
//! - libc is never unloaded, and its symbol table is mapped from its file for this process alone.
//! - A hook keeps the contract of the function of its name ([`crate::exports`]).
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_long};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use xalloc_core::units::PAGE_BYTES;

use crate::backend::next::{self, Symbol};
use crate::host;
use crate::modules::{self, Image, Symbols};

/// `RTLD_DEEPBIND` of `<dlfcn.h>`.
const DEEP_BIND: c_int = 8;

/// Values of [`STATE`] beside the number of the process that is at it.
const UNTOUCHED: u32 = 0;
/// As above: the names lead to the hooks.
const DONE: u32 = u32::MAX;

/// More than there are hooks, and versions of their names.
const MOST: usize = 512;

/// A word of libc's table, and what it is to be.
#[derive(Clone, Copy, Default, Debug)]
struct Change {
    at: u64,
    value: u64,
}

static STATE: AtomicU32 = AtomicU32::new(UNTOUCHED);

/// Before `dlopen`.
pub(crate) extern "C" fn before_dlopen(_: *const c_char, flags: c_int) -> usize {
    notice(flags);
    next::target(Symbol::dlopen)
}

/// Before `dlmopen`. Another namespace has a libc of its own, which serves all that is in it.
pub(crate) extern "C" fn before_dlmopen(namespace: c_long, _: *const c_char, flags: c_int) -> usize {
    if namespace == libc::LM_ID_BASE {
        notice(flags);
    }
    next::target(Symbol::dlmopen)
}

fn notice(flags: c_int) {
    if flags & DEEP_BIND == 0 {
        return;
    }
    let me = host::pid();
    let mut from = UNTOUCHED;
    // ORDERING: Acquire on failure pairs with the Release store below: the table is as it will stay.
    while let Err(state) = STATE.compare_exchange(from, me, Ordering::Relaxed, Ordering::Acquire) {
        match state {
            DONE => return,
            _ if state == me => {
                from = UNTOUCHED;
                host::yield_now();
            }
            // Nothing, or a parent's thread that was at it when this process was forked: it is to be done again.
            _ => from = state,
        }
    }
    host::keeping_errno(redirect);
    // ORDERING: pairs with the Acquire load above.
    STATE.store(DONE, Ordering::Release);
}

/// Lets libc's names lead to the hooks. Without the tables, or the right to change them, all stays as it was.
fn redirect() {
    // What is behind the hooks is found by the same names.
    next::resolve_all();
    let Some(libcs) = next::libc_image() else { return };
    let mut changes = [Change::default(); MOST];
    let changes = find(&libcs, &mut changes).unwrap_or_default();
    let places = || changes.iter().map(|change| change.at);
    let (Some(first), Some(last)) = (places().min(), places().max()) else { return };
    // In an old layout the table lies beside code, which must stay executable.
    if libcs.rights_at(first) != libc::PF_R || libcs.rights_at(last) != libc::PF_R {
        return;
    }
    let pages = first / PAGE_BYTES * PAGE_BYTES..(last + 8).next_multiple_of(PAGE_BYTES);
    // SAFETY: by the first bullet of the module; nothing relies on writing being a fault.
    if !unsafe { host::protect(&pages, libc::PROT_READ | libc::PROT_WRITE) } {
        return;
    }
    for change in changes {
        let word = core::ptr::with_exposed_provenance::<AtomicU64>(change.at as usize);
        // SAFETY: by the first bullet of the module a word of the table, aligned as the ELF format asks; it was just made
        // writable.
        let word = unsafe { &*word };
        // Relaxed: a thread that looks the name up meanwhile finds one function or the other.
        word.store(change.value, Ordering::Relaxed);
    }
    // SAFETY: as above: what it was before.
    unsafe { host::protect(&pages, libc::PROT_READ) };
}

/// The words to change.
fn find<'c>(libcs: &Image<'_>, changes: &'c mut [Change; MOST]) -> Option<&'c [Change]> {
    let (theirs, ours) = (Symbols::of(libcs)?, Symbols::of(&modules::own_image()?)?);
    let mut count = 0;
    for hook in ours.functions() {
        let usual = theirs.named(hook.name).find(|function| !function.is_hidden);
        let Some(usual) = usual.filter(|usual| next::behind(usual.name) == usual.address) else { continue };
        for function in theirs.named(hook.name).filter(|function| function.address == usual.address) {
            *changes.get_mut(count)? = Change { at: function.value_at, value: hook.address.wrapping_sub(libcs.bias()) };
            count += 1;
        }
    }
    changes.get(..count)
}
