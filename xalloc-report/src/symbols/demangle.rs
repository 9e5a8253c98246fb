//! Linker names made readable: C++ (Itanium), Rust legacy and Rust v0.
//!
//! Names come from files that nobody vouches for, and both mangling schemes have back references, with which a name of
//! 100 bytes can unfold to gigabytes. So the input is limited, and the output is written to a buffer that refuses more
//! than [`MAX_NAME_BYTES`]; what does not fit is cut and marked with `…`. The libraries bound their own recursion.

use std::fmt::{self, Write};

/// Longest name that is given out, in bytes. Real C++ names reach some thousands; more helps no reader.
pub const MAX_NAME_BYTES: usize = 8 * 1024;

/// Longest mangled name that is looked into, in bytes. Longer ones are given out as they are, cut.
pub(super) const MAX_MANGLED_BYTES: usize = 32 * 1024;

/// The readable form of a linker name; the name itself when it is not mangled.
///
/// Rust names come without their hash. Parameters of C++ functions stay, because overloads are told apart by them.
pub fn demangle(raw: &str) -> String {
    if raw.len() <= MAX_MANGLED_BYTES
        && let Some(name) = rust(raw).or_else(|| cpp(raw))
    {
        return name;
    }
    let mut name = Bounded::default();
    // A refusal only means that the name was cut.
    let _cut = name.write_str(raw);
    name.finish()
}

fn rust(raw: &str) -> Option<String> {
    // A C++ name without parameters, such as that of a namespace's variable, also parses as legacy Rust; only the hash
    // tells them apart, and the C++ form of such a name is the same but for its escapes.
    let mangled = rustc_demangle::try_demangle(raw).ok()?;
    let mut name = Bounded::default();
    match write!(name, "{mangled:#}") {
        Err(_) if !name.is_cut => None,
        Ok(()) | Err(_) => Some(name.finish()).filter(|name| !name.is_empty()),
    }
}

fn cpp(raw: &str) -> Option<String> {
    // `_Z` is the scheme's prefix; the others are what Apple and old tool chains put in front of it.
    if !["_Z", "__Z", "___Z", "____Z"].iter().any(|prefix| raw.starts_with(prefix)) {
        return None;
    }
    let symbol = cpp_demangle::Symbol::new(raw.as_bytes()).ok()?;
    let mut name = Bounded::default();
    match symbol.structured_demangle(&mut name, &cpp_demangle::DemangleOptions::new()) {
        Err(_) if !name.is_cut => None,
        Ok(()) | Err(_) => Some(name.finish()).filter(|name| !name.is_empty()),
    }
}

/// A string that takes [`MAX_NAME_BYTES`] and then refuses.
#[derive(Default)]
struct Bounded {
    text: String,
    is_cut: bool,
}

impl Bounded {
    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room_bytes = MAX_NAME_BYTES - '…'.len_utf8() - self.text.len();
        if piece.len() <= room_bytes {
            self.text.push_str(piece);
            return Ok(());
        }
        self.text.push_str(&piece[..piece.floor_char_boundary(room_bytes)]);
        self.is_cut = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_scheme_is_recognised_and_a_plain_name_stays() {
        for (raw, readable) in [
            ("malloc", "malloc"),
            ("_Z3fooi", "foo(int)"),
            ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<int, std::allocator<int> >::push_back(int&&)"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_RINvNtC3std3mem8align_ofdE", "std::mem::align_of::<f64>"),
            ("_Znwm", "operator new(unsigned long)"),
            ("_Z", "_Z"),
            ("", ""),
        ] {
            assert_eq!(demangle(raw), readable, "{raw}");
        }
    }

    #[test]
    fn a_clone_made_by_the_optimiser_keeps_its_mark() {
        assert_eq!(demangle("_Z3fooi.cold"), "foo(int) [clone .cold]");
    }

    #[test]
    fn a_name_that_unfolds_without_end_is_cut() {
        // S0_ is the template B; each parameter is a B of the one before it, twice: 2^30 names in the last one.
        let mut bomb = String::from("_Z1f1A1BIS_S_E");
        for level in 1..30 {
            let digit = std::char::from_digit(level, 36).unwrap().to_ascii_uppercase();
            bomb.push_str(&format!("S0_IS{digit}_S{digit}_E"));
        }
        let cut = demangle(&bomb);
        assert!(cut.len() <= MAX_NAME_BYTES && cut.ends_with('…') && !cut.starts_with("_Z"), "{cut:.200}");

        let long = "é".repeat(MAX_NAME_BYTES);
        let cut = demangle(&long);
        assert!(cut.len() <= MAX_NAME_BYTES && cut.ends_with('…'));
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic_or_grow(raw in "(_Z|_R|_ZN|_RNv)?[A-Za-z0-9_.]{0,200}") {
            prop_assert!(demangle(&raw).len() <= MAX_NAME_BYTES);
        }
    }
}
