//! What the program is given by the recorder is what the recorder was given: signals, and limits.

mod support;

use std::process::{Command, Output};

use support::xalloc;

/// Runs `then` in a shell after `first`; `$0` is the recorder and `$1` a place for the trace.
fn shell(first: &str, then: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = xalloc();
    Command::new("sh")
        .args(["-c", &format!("{first}; {then}")])
        .arg(recorder.get_program())
        .arg(folder.path().join("t.xtrace"))
        .output()
        .expect("a shell")
}

const SIGNALS: &str = "grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status";

#[test]
fn signals_are_ignored_in_the_program_exactly_where_its_parent_ignores_them() {
    // Where nobody ignores it, the library has its handler for SIGURG: the one way to be asked from outside.
    let with_ours = |status: &str| {
        let (before, caught) = status.trim_end().rsplit_once('\t').expect("a mask");
        let caught = u64::from_str_radix(caught, 16).expect("a mask") | 1 << (libc::SIGURG - 1);
        format!("{before}\t{caught:016x}\n")
    };
    for first in ["true", "trap '' PIPE", "trap '' HUP INT QUIT TERM", "trap '' USR1 PIPE CHLD", "trap '' URG"] {
        let plain = shell(first, SIGNALS);
        let recorded = shell(first, &format!("\"$0\" record -o \"$1\" -- {SIGNALS}"));
        assert!(plain.status.success() && recorded.status.success(), "{recorded:?}");
        let plain = String::from_utf8_lossy(&plain.stdout).into_owned();
        let expected = if first.ends_with("URG") { plain } else { with_ours(&plain) };
        assert_eq!(String::from_utf8_lossy(&recorded.stdout), expected, "{first}");
    }
}

#[test]
fn a_program_whose_limits_forbid_the_recording_runs_all_the_same_and_the_reason_is_named() {
    let output = shell("ulimit -f 100000", "\"$0\" record -o \"$1\" -- sh -c 'echo ran; exit 3'");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n");
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    for word in ["nothing was recorded", "the limit on the size of files", "ulimit -f"] {
        assert!(stderr.contains(word), "`{word}` is missing in:\n{stderr}");
    }
    let output = shell("true", "\"$0\" record -o \"$1\" -- sh -c 'ulimit -v 150000; /bin/echo ran; exit 3'");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n");
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    for word in ["was not recorded: the shared memory cannot be mapped", "ulimit -v"] {
        assert!(stderr.contains(word), "`{word}` is missing in:\n{stderr}");
    }
}

#[test]
fn what_would_forbid_a_recording_is_told_by_doctor_before() {
    for (limit, word) in [("ulimit -f 100000", "ulimit -f"), ("ulimit -v 160000", "ulimit -v")] {
        let output = shell(limit, "\"$0\" doctor");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_ne!(output.status.code(), Some(0), "{stdout}");
        let limits = stdout.lines().find(|line| line.contains("limits")).unwrap_or_default();
        assert!(limits.contains("bad") && stdout.contains(word), "{stdout}");
    }
}

#[test]
fn a_child_whose_loader_is_musls_gets_no_library_that_would_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).display().to_string();
    // The name tells whose loader it is; behind it is ours, so that the program runs where no musl is.
    std::os::unix::fs::symlink("/lib64/ld-linux-x86-64.so.2", place("ld-musl-x86_64.so.1")).expect("a link");
    let source = "#include <stdio.h>\n#include <stdlib.h>\n\
                  int main(void) { return puts(getenv(\"LD_PRELOAD\") ? getenv(\"LD_PRELOAD\") : \"nothing\") < 0; }\n";
    std::fs::write(place("tells.c"), source).expect("a file");
    let mut compiler = Command::new("cc");
    let loader = format!("-Wl,--dynamic-linker={}", place("ld-musl-x86_64.so.1"));
    let built = compiler.args([&place("tells.c"), "-o", &place("tells"), &loader]).status().expect("a C compiler");
    assert!(built.success());
    let directory = folder.path().display();
    for first in [format!("{directory}/tells"), format!("env PATH=/nowhere:{directory} tells")] {
        let recorded = shell("true", &format!("\"$0\" record -q -o \"$1\" -- sh -c '{first}; exit $?'"));
        assert_eq!(String::from_utf8_lossy(&recorded.stdout), "nothing\n", "{first}: {recorded:?}");
    }
}

#[test]
fn a_fifo_that_is_executed_is_not_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = folder.path().join("fifo").display().to_string();
    // Who writes to it waits for a reader; one that opened it and went away would have ended it.
    let script =
        format!("mkfifo {fifo}; (echo kept > {fifo}) & sleep 0.3; {fifo} 2>/dev/null; echo $?; timeout 10 cat {fifo}");
    let recorded = shell("true", &format!("\"$0\" record -q -o \"$1\" -- sh -c '{script}'"));
    assert_eq!(String::from_utf8_lossy(&recorded.stdout), "126\nkept\n", "{recorded:?}");
}
