//! `MALLOC_PERTURB_` and `M_PERTURB` fill what libc would fill, to the byte: the program says what it found in its blocks,
//! and says the same under the library, recorded or not. No chunk moves by it, so that no placement trace would notice.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]

use std::process::Command;

use support::{Scratch, library, record};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

#[test]
fn every_block_is_filled_as_far_as_libc_fills_it_and_no_further() {
    let scratch = Scratch::new("perturb");
    let program = scratch.program("perturb");
    let perturbed = || {
        let mut command = Command::new(&program);
        command.env("MALLOC_PERTURB_", "165");
        command
    };
    let said = |output: std::process::Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it says hexadecimal digits")
    };
    let plain = said(perturbed().output().expect("the program runs"));
    assert!(plain.contains("from the top: 40*5a"), "libc fills: {plain}");
    let under = said(perturbed().env("LD_PRELOAD", library()).output().expect("the program runs"));
    let recorded = said(record(&scratch, "core", &mut perturbed()));
    for (line, expected) in plain.lines().enumerate() {
        assert_eq!(under.lines().nth(line), Some(expected), "line {line}, not recorded");
        assert_eq!(recorded.lines().nth(line), Some(expected), "line {line}, recorded");
    }
    assert_eq!((under.lines().count(), recorded.lines().count()), (plain.lines().count(), plain.lines().count()));
}
