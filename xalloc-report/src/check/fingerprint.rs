//! What makes two leaks of different builds the same leak.
//!
//! The fingerprint is a hash of the class and of the normalised names of the functions from the blamed frame outwards.
//! Addresses and lines are not in it, so that it outlives a rebuild and an edit above it in the file; neither is what
//! compilers and linkers append to names, nor how deep a recursion went, nor what libc calls around `main`.

use xalloc_core::fnv::Fnv1a;

use super::leak::class_name;
use crate::analysis::{CallStack, FaultView, FrameView};
use crate::trace::LeakClass;

/// Functions of libc that call `main` or a thread's function: others of them in another version of libc.
const STARTERS: &[&str] = &[
    "_start",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "start_thread",
    "clone",
    "clone3",
    "__clone3",
    "thread_start",
];

/// Beginnings of what a compiler appends to the name of a copy of a function.
const CLONES: &[&str] = &[".isra.", ".constprop.", ".part.", ".cold", ".lto_priv.", ".llvm."];

/// 16 hexadecimal digits.
#[must_use]
pub(super) fn fingerprint(class: Option<LeakClass>, at: &CallStack, blamed: Option<usize>) -> String {
    let mut names: Vec<String> =
        at.frames[blamed.unwrap_or_default().min(at.frames.len())..].iter().map(name).collect();
    while names.last().is_some_and(|name| STARTERS.contains(&name.as_str())) {
        names.pop();
    }
    names.dedup();
    let mut hash = Fnv1a::new();
    add(&mut hash, class_name(class));
    names.iter().for_each(|name| add(&mut hash, name));
    format!("{:016x}", hash.value())
}

/// As [`fingerprint`], of a fault: its kind, its call and who allocated and freed the block.
#[must_use]
pub(super) fn of_fault(fault: &FaultView) -> String {
    let mut hash = Fnv1a::new();
    add(&mut hash, fault.kind.title());
    let block = fault.block.as_ref();
    let freed = block.and_then(|block| block.freed.as_ref()).map(|freed| freed.by.frames.as_slice());
    let allocated = block.map(|block| block.block.allocated.frames.as_slice());
    for frames in [Some(fault.by.frames.as_slice()), allocated, freed] {
        let names = frames.unwrap_or_default().iter().map(name);
        names.take_while(|name| !STARTERS.contains(&name.as_str())).for_each(|name| add(&mut hash, &name));
        add(&mut hash, "");
    }
    format!("{:016x}", hash.value())
}

/// The function as it is called in every build; the module alone where it has no name.
fn name(frame: &FrameView) -> String {
    match (&frame.function, frame.module_name()) {
        (Some(function), _) => normalised(function),
        (None, Some(module)) => module.split(".so").next().unwrap_or(module).to_owned(),
        (None, None) => "?".to_owned(),
    }
}

fn normalised(function: &str) -> String {
    // `malloc@GLIBC_2.2.5`, `f@plt`; an operator or a template may hold no `@`.
    let name = function.split('@').next().unwrap_or(function);
    let name = name.split(" [clone").next().unwrap_or(name);
    let cut = CLONES.iter().filter_map(|clone| name.find(clone)).min().unwrap_or(name.len());
    without_rust_hash(&name[..cut]).to_owned()
}

/// Rust's older mangling ends a name with `::h` and 16 digits of a hash that each build has its own of.
fn without_rust_hash(name: &str) -> &str {
    let Some((rest, hash)) = name.rsplit_once("::h") else { return name };
    if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) { rest } else { name }
}

/// Adds a text and a byte that is in none, so that it is known where the text ends.
fn add(hash: &mut Fnv1a, text: &str) {
    hash.add(text.as_bytes());
    hash.add(&[0xff]);
}

#[cfg(test)]
mod tests {
    use super::super::suppressions::tests::stack;
    use super::*;

    fn of(frames: &[&str]) -> String {
        let frames: Vec<_> = frames.iter().map(|&function| (function, "", "/lib/libx.so.6")).collect();
        fingerprint(Some(LeakClass::Definite), &stack("malloc", &frames), Some(0))
    }

    #[test]
    fn what_another_build_changes_is_not_in_it() {
        let plain = of(&["parse", "main"]);
        for other in [
            &["parse.isra.0", "main", "__libc_start_call_main", "__libc_start_main@@GLIBC_2.34", "_start"][..],
            &["parse.constprop.1.cold", "main"],
            &["parse", "parse", "parse", "main"],
            &["parse [clone .part.3]", "main"],
            &["parse::h0123456789abcdef", "main"],
        ] {
            assert_eq!(of(other), plain, "{other:?}");
        }
    }

    #[test]
    fn what_makes_another_leak_is_in_it() {
        let plain = of(&["parse", "main"]);
        for other in [&["parse", "run", "main"][..], &["main", "parse"], &["parsem", "ain"], &["parse(int)", "main"]] {
            assert_ne!(of(other), plain, "{other:?}");
        }
        let at = stack("malloc", &[("inner", "", ""), ("parse", "", ""), ("main", "", "")]);
        assert_eq!(fingerprint(Some(LeakClass::Definite), &at, Some(1)), plain);
        assert_ne!(fingerprint(Some(LeakClass::Cycle), &at, Some(1)), plain);
    }

    #[test]
    fn it_means_the_same_in_every_version() {
        assert_eq!(of(&["parse", "main"]), "a97c5ef77e57f6c0");
        assert_eq!(
            of(&[""]),
            fingerprint(Some(LeakClass::Definite), &stack("malloc", &[("", "", "/usr/lib/libx.so.7")]), Some(0))
        );
    }
}
