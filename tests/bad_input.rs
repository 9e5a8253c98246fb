//! What cannot work says what was seen and what to do, with the documented exit code, and never panics.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::victims::{static_victim, victim};
use support::{number, tool, xalloc};

/// Exit codes as `docs/commands.md` lists them.
const WRONG_USE: i32 = 2;
const UNREADABLE_INPUT: i32 = 2;
const TOOL_FAILED: i32 = 125;
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

fn record(trace: &Path, program: &Path) -> Output {
    let mut command = xalloc();
    command.arg("record").arg("-o").arg(trace).arg("--").arg(program).stdin(Stdio::null());
    command.output().expect("xalloc-report starts")
}

/// The error says `what`, and no panic shows.
fn assert_error(output: &Output, code: i32, what: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.starts_with("error: ") || stderr.contains("\nerror: "), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for word in what {
        assert!(stderr.contains(word), "`{word}` is missing in:\n{stderr}");
    }
}

fn executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn a_missing_program_is_named_with_127() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("t.xtrace");
    let output = record(&trace, Path::new("./no-such-program"));
    assert_error(&output, NOT_FOUND, &["no-such-program", "hint:"]);
    assert!(!trace.exists(), "an empty trace was left behind");
}

#[test]
fn a_program_that_is_not_executable_is_named_with_126() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("plain-file");
    fs::write(&program, "no program").expect("a file");
    assert_error(&record(&folder.path().join("t.xtrace"), &program), CANNOT_EXECUTE, &["plain-file", "chmod"]);
    assert_error(&record(&folder.path().join("t.xtrace"), folder.path()), CANNOT_EXECUTE, &["directory"]);
}

#[test]
fn a_static_program_is_told_and_not_run_in_vain() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = static_victim("endings.c");
    let trace = folder.path().join("t.xtrace");
    let output = record(&trace, &program);
    assert_error(&output, TOOL_FAILED, &["cannot be recorded", "static", "LD_PRELOAD", "hint:"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("statically linked").count(), 1, "said more than once:\n{stderr}");
    assert!(output.stdout.is_empty() && !trace.exists(), "it was run in vain");
    let output = xalloc().arg("doctor").arg(&program).output().expect("it starts");
    let told = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&told).contains("static"), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn a_shell_script_runs_as_it_does_alone_and_its_programs_are_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    let program = victim("totals.c", &[]).program().to_owned();
    executable(&script, format!("#!/bin/sh\necho before\n{}\necho after\nexit 3\n", program.display()).as_bytes());
    let trace = folder.path().join("t.xtrace");
    let output = record(&trace, &script);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "before\nafter\n");
    let output = xalloc().arg("top").arg(&trace).args(["--format", "json"]).output().expect("it starts");
    assert!(String::from_utf8_lossy(&output.stdout).contains("truth_keep"), "the script's program is missing");
}

#[test]
fn a_shell_script_whose_programs_are_static_runs_and_the_shell_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    let program = static_victim("endings.c");
    executable(&script, format!("#!/bin/sh\n{} return\nexit 3\n", program.display()).as_bytes());
    let output = record(&folder.path().join("t.xtrace"), &script);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_program_for_another_machine_is_told_by_its_name() {
    const MACHINE: usize = 18;
    const AARCH64: u8 = 183;
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("foreign");
    let mut elf = fs::read(victim("totals.c", &[]).program()).expect("a victim");
    elf[MACHINE] = AARCH64;
    executable(&program, &elf);
    let output = record(&folder.path().join("t.xtrace"), &program);
    assert_error(&output, TOOL_FAILED, &["foreign", "AArch64", "hint:"]);
}

#[test]
fn an_output_that_cannot_be_written_stops_before_the_program_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("no-such-folder/t.xtrace");
    let script = folder.path().join("script");
    executable(&script, b"#!/bin/sh\ntouch \"$0.ran\"\n");
    let output = record(&trace, &script);
    assert_error(&output, TOOL_FAILED, &["no-such-folder", "No such file or directory", "hint:", "-o"]);
    assert!(!folder.path().join("script.ran").exists(), "the program ran in vain");
}

#[test]
fn an_existing_output_is_kept_unless_overwriting_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("t.xtrace");
    fs::write(&trace, "precious").expect("a file");
    let program = victim("totals.c", &[]).program().to_owned();
    assert_error(&record(&trace, &program), TOOL_FAILED, &["t.xtrace", "-f"]);
    assert_eq!(fs::read_to_string(&trace).expect("the file"), "precious");
    let output = xalloc().arg("record").arg("-f").arg("-o").arg(&trace).arg(&program).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::metadata(&trace).expect("a trace").len() > 8);
}

/// A file system of 64 KiB; `None`, with the reason printed, where none may be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path());
        match command.output() {
            Ok(output) if output.status.success() => Some(SmallDisk(folder)),
            Ok(output) => {
                println!("skipped: no small file system: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: mount does not start: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What stays mounted shows in the folder's removal, which then fails.
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_disk_that_fills_up_while_recording_loses_neither_program_nor_recording() {
    let Some(disk) = SmallDisk::mount() else { return };
    let trace = disk.0.path().join("t.xtrace");
    let load = victim("threaded_maps.cpp", &[]);
    let output = record(&trace, load.program());
    assert_eq!(output.stdout, load.plain().stdout, "the program was disturbed");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "the program's status is not its own: {told}");
    for word in ["error: the recording stopped", "No space left on device", "hint:"] {
        assert!(told.contains(word), "{word} is missing in: {told}");
    }
    let output = xalloc().arg("summary").arg(&trace).args(["--format", "json"]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(document["result"]["salvage"].is_string() || number(&document["result"], "dropped_events") > 0);

    // What a trace that is not whole was to replace stays.
    fs::write(&trace, "precious").expect("a file");
    let output =
        xalloc().arg("record").arg("-f").arg("-o").arg(&trace).arg(load.program()).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("can be read in"), "{told}");
    assert_eq!(fs::read_to_string(&trace).expect("the file"), "precious");
}

/// A trace of a victim, as bytes.
fn good_trace() -> Vec<u8> {
    fs::read(&victim("threads.c", &[]).record().trace.path).expect("the trace")
}

fn summary_of(folder: &Path, bytes: &[u8]) -> Output {
    let trace = folder.join("bad.xtrace");
    fs::write(&trace, bytes).expect("a file");
    xalloc().arg("summary").arg(&trace).args(["--format", "json"]).output().expect("xalloc-report starts")
}

/// It was read, or refused in the documented way; whichever, it did not panic and was not killed.
fn read_or_refused(output: &Output, of: &str) -> bool {
    if output.status.code() == Some(0) {
        return true;
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNREADABLE_INPUT), "{of}: {stderr}");
    assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{of}: {stderr}");
    false
}

#[test]
fn a_trace_cut_anywhere_is_salvaged_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = good_trace();
    let near_the_ends = (0..64).chain(whole.len() - 64..whole.len());
    let between = (1..100).map(|part| whole.len() * part / 100);
    let mut salvaged = 0;
    for length in near_the_ends.chain(between) {
        let output = summary_of(folder.path(), &whole[..length]);
        if read_or_refused(&output, &format!("cut at {length} of {}", whole.len())) {
            let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert!(document["result"]["salvage"].is_string(), "cut at {length}, and nothing says so");
            salvaged += 1;
        }
    }
    assert!(salvaged > 0, "no cut was salvaged");
}

#[test]
fn a_trace_with_flipped_bits_is_read_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = good_trace();
    let mut state = 1_u64;
    for _ in 0..100 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = whole.clone();
        let at = (state >> 33) as usize % bytes.len();
        bytes[at] ^= 1 << (state >> 30 & 7);
        read_or_refused(&summary_of(folder.path(), &bytes), &format!("a bit of byte {at} flipped"));
    }
}

#[test]
fn random_bytes_are_no_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = 1_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(|_| byte()).collect()
    };
    for length in [0, 1, 7, 8, 16, 100, 4_096, 100_000] {
        let bytes = random(length);
        assert_error(&summary_of(folder.path(), &bytes), UNREADABLE_INPUT, &["bad.xtrace"]);
        let behind_a_good_start = [&good_trace()[..16], &bytes[..]].concat();
        read_or_refused(&summary_of(folder.path(), &behind_a_good_start), &format!("{length} bytes behind a header"));
    }
}

#[test]
fn a_trace_that_may_not_replace_a_file_says_so_and_where_it_is() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root || tool("setpriv").is_none() {
        println!("skipped: another user's file takes root and setpriv");
        return;
    }
    // As /tmp is: who does not own a file there may not take it away.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).expect("its mode");
    let old = folder.path().join("a.xtrace");
    fs::write(&old, "root's").expect("a file");
    let own = folder.path().join("xalloc-report");
    fs::copy(env!("CARGO_BIN_EXE_xalloc-report"), &own).expect("a copy");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(own).args(["record", "-q", "-f", "-o"]);
    command.arg(&old).args(["--", "/bin/true"]).current_dir(folder.path()).env_remove("XDG_RUNTIME_DIR");
    let output = command.env("HOME", folder.path()).env("TMPDIR", folder.path()).output().expect("setpriv");
    // The program's own status, as ever.
    assert_error(&output, 0, &["a.xtrace cannot be written", "hint: it is "]);
    assert_eq!(fs::read(&old).expect("it stays"), b"root's");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let named = stderr.lines().find_map(|line| line.trim().strip_prefix("hint: it is ")).expect("its name");
    let summary = xalloc().args(["summary", named]).output().expect("it starts");
    assert!(summary.status.success(), "{}", String::from_utf8_lossy(&summary.stderr));
}

#[test]
fn a_missing_trace_is_named() {
    let output = xalloc().args(["summary", "no-such.xtrace"]).output().expect("it starts");
    assert_error(&output, UNREADABLE_INPUT, &["no-such.xtrace", "No such file"]);
}

#[test]
fn a_trace_of_a_newer_major_version_asks_for_a_newer_reader() {
    /// Where the major version stands in the header of every trace: behind eight bytes of magic.
    const MAJOR: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let mut bytes = good_trace();
    bytes[MAJOR] = u8::MAX;
    assert_error(&summary_of(folder.path(), &bytes), UNREADABLE_INPUT, &["newer xalloc"]);
}

#[test]
fn a_wrong_use_shows_how_it_is_meant() {
    for arguments in [&["record"][..], &["summary"], &["flamegraph", "t.xtrace", "--metric", "color"], &["sumary", "t"]]
    {
        let output = xalloc().args(arguments).output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(WRONG_USE), "{arguments:?}: {stderr}");
        assert!(stderr.contains("Usage") || stderr.contains("possible values"), "{arguments:?}: {stderr}");
    }
}

fn fifo_in(folder: &Path) -> PathBuf {
    let fifo = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    fifo
}

#[test]
fn what_is_no_file_is_refused_as_a_trace_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in [fifo_in(folder.path()), PathBuf::from("/dev/null")] {
        let output = xalloc().arg("summary").arg(path).output().expect("xalloc-report starts");
        assert_error(&output, UNREADABLE_INPUT, &["is no file", "write it to one first"]);
    }
}

#[test]
fn what_keeps_no_trace_is_refused_before_a_program_runs_that_is_to_be_judged_by_it() {
    let story = victim("story.c", &[]);
    let output =
        xalloc().args(["record", "--check", "-o", "/dev/null"]).arg(story.program()).output().expect("it starts");
    assert_error(&output, TOOL_FAILED, &["which /dev/null does not keep", "name a file"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("370.0 KiB"), "{output:?}");
}

#[test]
fn a_fifo_gets_the_trace_and_no_command_is_named_that_would_read_it_there_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (fifo, trace) = (fifo_in(folder.path()), folder.path().join("t.xtrace"));
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).expect("what was written")
    });
    let story = victim("story.c", &[]);
    let output = record(&fifo, story.program());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("370.0 KiB") && !told.contains("\nnext\n"), "{told}");
    fs::write(&trace, reader.join().expect("it reads to the end")).expect("a file");
    let output = xalloc().arg("summary").arg(&trace).output().expect("xalloc-report starts");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nnext\n"), "{output:?}");
}

#[test]
fn standard_output_is_no_place_for_a_trace() {
    assert_error(&record(Path::new("-"), Path::new("/bin/true")), TOOL_FAILED, &["standard output is the program's"]);
    assert!(!Path::new("-").exists());
}
