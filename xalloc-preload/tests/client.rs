//! What a program asks of the library itself is harmless, whatever it asks and whether anybody listens.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]

use std::process::{Command, Output};

use support::{ALLOCATORS, Scratch, library, record};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned())
}

#[test]
fn a_program_that_is_not_recorded_may_call_everything_and_nothing_happens() {
    let scratch = Scratch::new("client");
    let program = scratch.program("client");
    let plain = said(&Command::new(&program).output().expect("the program runs"));
    assert_eq!(plain, (Some(5), "done\n".to_owned()));
    for allocator in ALLOCATORS {
        let mut under = Command::new(&program);
        under.env("LD_PRELOAD", library()).env("XALLOC_ALLOCATOR", allocator);
        assert_eq!(said(&under.output().expect("the program runs")), plain, "{allocator}, not recorded");
        let recorded = record(&scratch, allocator, &mut Command::new(&program));
        assert_eq!(said(&recorded), plain, "{allocator}, recorded without a recorder");
    }
}
