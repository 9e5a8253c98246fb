//! Any bytes as an ELF file with debug information.
#![no_main]

#[path = "../../tests/support/untrusted.rs"]
mod untrusted;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| untrusted::symbols(bytes));
