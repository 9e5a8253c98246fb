//! A recording without a recorder: the library alone, and `import` of the file that it wrote.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::shared::Shared;
use support::victims::victim;
use support::{Trace, number, xalloc};

const SIGKILL: i32 = 9;
/// As `docs/commands.md` lists it.
const UNREADABLE_INPUT: i32 = 2;

/// Where the library to preload was unpacked, as `doctor` says it.
fn library() -> PathBuf {
    let output = xalloc().arg("doctor").output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let path = told.split_whitespace().find(|word| word.ends_with("libxalloc_preload.so"));
    path.unwrap_or_else(|| panic!("no library in:\n{told}")).into()
}

/// The victim that allocates until it is killed, with the library alone, from a shell that has set `limit`.
fn alone(file: &Path, shared: &Shared, limit: &str) -> Command {
    let script = format!("{limit}\nexport LD_PRELOAD=\"$0\"; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(library()).arg(victim("killed.c", &[]).program()).arg(shared.path());
    command.env("XALLOC_OUT", file).env("XALLOC_VERBOSE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs it until it has made so many allocations, and kills it.
fn killed_after(allocations: u64, mut command: Command, shared: &Shared) -> Output {
    let child = command.spawn().expect("sh starts");
    shared.wait_until("its work", |it| it.allocations() >= allocations);
    shared.kill();
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.signal(), Some(SIGKILL));
    output
}

fn import(file: &Path) -> (Trace, Output) {
    let trace = file.with_extension("xtrace");
    let output = xalloc().arg("import").arg("-f").arg("-o").arg(&trace).arg(file).output().expect("it starts");
    (Trace::at(trace), output)
}

fn imported(file: &Path) -> Trace {
    let (trace, output) = import(file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    trace
}

#[test]
fn a_program_that_is_killed_half_way_leaves_all_that_it_did() {
    // The first is in the ring, the second also behind the segment.
    for allocations in [1_000, 300_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let (shared, file) = (Shared::new(folder.path()), folder.path().join("alone"));
        killed_after(allocations, alone(&file, &shared, ""), &shared);
        let trace = imported(&file);
        let summary = trace.summary();
        let counted = shared.allocations();
        // An allocation is pushed before malloc returns and counted after: one may be in between.
        assert!((counted..=counted + 1).contains(&number(&summary, "allocations")), "{counted}: {summary}");
        assert_eq!([number(&summary, "dropped_events"), number(&summary, "unknown_frees")], [0, 0]);
        assert_eq!(summary["end"]["how"], "vanished");
        assert!(!trace.sites_in("main").is_empty(), "its functions have no names");
    }
}

#[test]
fn a_file_that_may_not_grow_ends_the_recording_and_not_the_program_and_both_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shared, file) = (Shared::new(folder.path()), folder.path().join("alone"));
    // 195 MiB in the shell's units of 512 bytes: some 900,000 records behind the segment.
    let command = alone(&file, &shared, "ulimit -f 400000");
    let output = killed_after(1_000_000, command, &shared);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("cannot be written any further"), "{told}");
    let trace = imported(&file);
    let summary = trace.summary();
    assert!(number(&summary, "dropped_events") > 0, "{summary}");
    assert_eq!(summary["losses"][0]["reason"], "recorder-gone");
    assert!(number(&summary, "allocations") > 100_000, "{summary}");
    let output = trace.run::<&str>("leaks", &[]);
    let note = String::from_utf8_lossy(&output.stderr);
    assert!(note.contains("and all later ones are missing (recorder-gone)"), "{note}");
}

#[test]
fn a_file_that_was_cut_is_read_up_to_there_and_what_is_missing_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shared, file) = (Shared::new(folder.path()), folder.path().join("alone"));
    // It kills itself between two allocations: killed from outside it may leave part of a batch, which does not count.
    let output = alone(&file, &shared, "").args(["0", "300000"]).output().expect("sh starts");
    assert_eq!(output.status.signal(), Some(SIGKILL));
    let whole = number(&imported(&file).summary(), "events");
    let bytes = fs::metadata(&file).expect("the recording").len();
    let shorten = |bytes| fs::File::options().write(true).open(&file).and_then(|file| file.set_len(bytes));
    shorten(bytes - 1_000_000).expect("it is ours");
    let trace = imported(&file);
    let summary = trace.summary();
    let lost = number(&summary, "dropped_events");
    assert_eq!(summary["losses"][0]["reason"], "cut");
    assert!((31_000..=31_251).contains(&lost), "{lost} of the 31,250 records that 1,000,000 bytes hold");
    assert!(number(&summary, "events") < whole && number(&summary, "events") > 0);
    shorten(100_000_000).expect("it is ours");
    let (_, output) = import(&file);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNREADABLE_INPUT), "{told}");
    assert!(told.contains("alone") && told.contains("100000000 bytes are less than"), "{told}");
}
