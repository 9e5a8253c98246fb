//! Which frames belong to the allocator and to the hooks: they are in every stack and explain nothing.
//!
//! From the innermost end a stack is stripped of functions that do nothing but pass an allocation on. Containers
//! (`std::vector`, `RawVec`) stay: that a vector grows is part of the answer. Frames of the preload library are
//! dropped wherever they are, for it also stands between libc and `main`.

use std::path::Path;

/// C functions that allocate, with the names that libcs give them inside.
const C_FUNCTIONS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "__GI___libc_malloc",
    "__GI___libc_realloc",
    "_int_malloc",
    "_int_realloc",
    "_int_memalign",
    "sysmalloc",
];

/// Rust's way from `Box` and `Vec` to the allocator.
const RUST_FUNCTIONS: &[&str] = &[
    "__rust_alloc",
    "__rust_alloc_zeroed",
    "__rust_realloc",
    "__rdl_alloc",
    "__rdl_alloc_zeroed",
    "__rdl_realloc",
    "__rg_alloc",
    "__rg_alloc_zeroed",
    "__rg_realloc",
];

/// Beginnings of functions that only pass an allocation on; the C++ ones count with an `allocate` in them.
const CPP_ALLOCATORS: &[&str] =
    &["std::allocator<", "std::allocator_traits<", "std::__new_allocator<", "__gnu_cxx::new_allocator<"];
const RUST_ALLOCATORS: &[&str] = &[
    "alloc::alloc::",
    "<alloc::alloc::Global",
    "std::alloc::",
    "<std::alloc::System",
    "std::sys::alloc::",
    "xalloc_core::global::",
    "<xalloc_core::global::",
];

/// Whether the file is xalloc's preload library.
pub(super) fn is_hook_module(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libxalloc_preload"))
}

/// Whether the function only passes an allocation on to the allocator, or is the allocator.
#[must_use]
pub fn is_allocator(function: &str) -> bool {
    let bare = function.split('@').next().unwrap_or(function);
    C_FUNCTIONS.contains(&bare)
        || RUST_FUNCTIONS.iter().any(|name| bare == *name || bare.ends_with(&format!("::{name}")))
        || operator_new(function).is_some()
        || RUST_ALLOCATORS.iter().any(|start| function.starts_with(start))
        || (function.contains("::allocate(") && CPP_ALLOCATORS.iter().any(|start| function.starts_with(start)))
}

/// The C++ operator that the function is, if it is one that allocates.
pub(super) fn operator_new(function: &str) -> Option<&'static str> {
    let rest = function.strip_prefix("operator new")?;
    if rest.starts_with("[]") {
        return Some("operator new[]");
    }
    (rest.is_empty() || rest.starts_with('(')).then_some("operator new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_an_allocation_on_is_the_allocators() {
        for function in [
            "malloc",
            "malloc@GLIBC_2.2.5",
            "operator new(unsigned long)",
            "operator new[](unsigned long, std::nothrow_t const&)",
            "std::__new_allocator<int>::allocate(unsigned long, void const*)",
            "alloc::alloc::exchange_malloc",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "__rustc::__rust_alloc",
        ] {
            assert!(is_allocator(function), "{function}");
        }
    }

    #[test]
    fn containers_and_wrappers_of_the_program_are_not() {
        for function in [
            "xmalloc",
            "malloc_init",
            "operator new_thing",
            "std::vector<int>::push_back(int const&)",
            "alloc::raw_vec::RawVec<T,A>::grow_one",
            "my::Pool::allocate(int)",
        ] {
            assert!(!is_allocator(function), "{function}");
        }
    }

    #[test]
    fn only_the_preload_is_a_hook() {
        assert!(is_hook_module(Path::new("/home/u/.cache/xalloc/libxalloc_preload-1a2b.so")));
        assert!(!is_hook_module(Path::new("/usr/lib/libm.so.6")));
    }
}
