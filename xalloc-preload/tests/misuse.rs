//! What libc does with a program that misuses its heap, and that the library does the same: a table of programs, each run
//! on libc, under the library, and recorded. Standard output, the way the program ends and libc's last words are equal.
//!
//! Addresses are not randomized: some words of libc's are of an address, which now and then is aligned by chance.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(unsafe_code, reason = "sets the personality of a child")]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output};

use support::{Scratch, library};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// How a run ended: standard output, exit status, signal, and the last line on standard error if the program was aborted.
#[derive(PartialEq, Eq, Debug)]
struct Ending {
    said: String,
    status: Option<i32>,
    signal: Option<i32>,
    last_words: Option<String>,
}

/// `program case`, with addresses as they are without randomization.
fn command(program: &Path, case: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(case);
    let keep_addresses = || {
        // SAFETY: a system call without pointers.
        unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
        Ok(())
    };
    // SAFETY: what is called between fork and exec allocates nothing.
    unsafe { command.pre_exec(keep_addresses) };
    command
}

fn ending(output: &Output) -> Ending {
    let signal = output.status.signal();
    let told = String::from_utf8_lossy(&output.stderr);
    let last_words = (signal == Some(libc::SIGABRT)).then(|| told.lines().last().unwrap_or_default().to_owned());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ending { said, status: output.status.code(), signal, last_words }
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

#[test]
fn every_misuse_ends_as_on_libc_whether_recorded_or_not() {
    // SAFETY: returns a constant C string.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: as above.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    if version != c"2.36" {
        println!("skipped: the words of glibc's checks are known of 2.36, and this is {version:?}");
        return;
    }
    let scratch = Scratch::new("misuse");
    let program = scratch.program("misuse");
    let list = run(&mut Command::new(&program));
    let list = String::from_utf8(list.stdout).expect("names are ASCII");
    let mut parted = Vec::new();
    let (mut passed, mut aborted, mut crashed) = (0, 0, 0);
    for case in list.lines() {
        let plain = ending(&run(&mut command(&program, case)));
        match plain.signal {
            None => passed += 1,
            Some(libc::SIGABRT) => aborted += 1,
            Some(_) => crashed += 1,
        }
        let under = ending(&run(command(&program, case).env("LD_PRELOAD", library())));
        let trace = scratch.path("trace");
        let recorded = ending(&run(command(&program, case).env("LD_PRELOAD", library()).env("XALLOC_OUT", &trace)));
        std::fs::remove_file(&trace).expect("it was recorded");
        if under != plain {
            parted.push(format!("{case}, not recorded: {under:?}\n  on libc: {plain:?}"));
        }
        if recorded != plain {
            parted.push(format!("{case}, recorded: {recorded:?}\n  on libc: {plain:?}"));
        }
    }
    assert!(parted.is_empty(), "{}", parted.join("\n"));
    println!("{passed} programs passed, {aborted} were aborted, {crashed} crashed, each as on libc");
    assert!(passed > 15 && aborted > 50 && crashed > 5, "the table is what it was: {passed} {aborted} {crashed}");
}
