//! Names that a recording keeps for the next one.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Trace, list, xalloc};

/// The shell of this machine: its files are not of this moment, as a victim's are.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "x=$(echo 1); for y in 1 2 3; do x=$x$y; done; echo $x"];

/// Lets a command use the cache in `folder`.
fn with_cache<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.env("XDG_CACHE_HOME", folder).env_remove("XALLOC_NAMES_CACHE").stdin(Stdio::null())
}

/// Every frame of a recording: its function and where in the source it is.
fn frames(trace: &Trace) -> BTreeSet<String> {
    let frames = |site| list(&site, "frames").iter().map(ToString::to_string).collect::<Vec<_>>();
    trace.sites().into_iter().flat_map(frames).collect()
}

#[test]
fn the_second_recording_opens_no_debug_file_and_tells_the_same_names() {
    if Command::new("strace").arg("--version").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let record = |number: usize| {
        let (trace, log) = (folder.path().join(format!("{number}.xtrace")), folder.path().join(number.to_string()));
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=openat", "-o"]).arg(&log).arg(xalloc().get_program());
        command.arg("record").arg("-o").arg(&trace).arg("--").args(SHELL);
        let output = with_cache(&mut command, folder.path()).output().expect("strace starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let opened = fs::read_to_string(log).expect("strace's log");
        (Trace::at(trace), opened.lines().filter(|line| line.contains(".debug\"")).count())
    };
    let [(first, opened_first), (second, opened_second)] = [1, 2].map(record);
    assert!(opened_first > 0, "debug files are looked for");
    assert_eq!(opened_second, 0);
    assert!(!frames(&first).is_empty());
    assert_eq!(frames(&first), frames(&second));
}

#[test]
fn nothing_is_kept_if_that_is_not_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = folder.path().join("xalloc/names");
    for (choice, is_kept) in [(Some("off"), false), (None, true)] {
        let mut command = xalloc();
        command.arg("record").arg("-f").arg("-o").arg(folder.path().join("sh.xtrace")).arg("--").args(SHELL);
        with_cache(&mut command, folder.path());
        if let Some(choice) = choice {
            command.env("XALLOC_NAMES_CACHE", choice);
        }
        let output = command.output().expect("xalloc-report starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(names.is_dir(), is_kept, "{choice:?}");
    }
}
