//! Whole recordings of small programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::trace::{End, Trace};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn compiled(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let file = self.path(&format!("{name}.c"));
        fs::write(&file, source).unwrap();
        let program = self.path(name);
        let status = Command::new("cc").args(["-g", "-O0", "-w", "-o"]).arg(&program).arg(&file).args(flags).status();
        assert!(status.unwrap().success());
        program
    }

    fn props(&self, words: &[&Path]) -> Props {
        let command = words.iter().map(|word| word.as_os_str().to_owned()).collect();
        Props { output: Some(self.path("out.xtrace")), ..Props::new(command) }
    }
}

const BLOCKS: &str = r#"
#include <stdlib.h>
#include <unistd.h>
#include <signal.h>
#include <sys/wait.h>
static void *kept;
void make_blocks(int count) { for (int i = 0; i < count; i++) { void *p = malloc(i % 512); if (i % 2) free(p); } kept = malloc(77777); }
int main(int argc, char **argv) {
    make_blocks(5000);
    if (argc > 1 && argv[1][0] == 'k') kill(getpid(), SIGKILL);
    if (argc > 1 && argv[1][0] == 'f') {
        pid_t child = fork();
        if (child == 0) { free(kept); free(malloc(11)); _exit(3); }
        int status; waitpid(child, &status, 0);
        return WEXITSTATUS(status) + 1;
    }
    return 23;
}
"#;

#[test]
fn a_recording_keeps_the_exit_status_and_names_the_function_that_allocated() {
    let place = Place::new();
    let program = place.compiled("blocks", BLOCKS, &[]);
    let outcome = run(&place.props(&[&program])).unwrap();
    assert_eq!((outcome.end, outcome.exit_status()), (End::Exited(23), 23));
    assert!(outcome.is_complete(), "{:?}", outcome.notes());
    let trace = Trace::open(&outcome.path).unwrap();
    let contents = trace.contents();
    assert_eq!(contents.processes.len(), 1);
    assert_eq!(contents.processes[0].repairs.unknown_frees, 0);
    let functions = contents.frames.iter().flat_map(|frame| &frame.functions);
    assert!(functions.map(|function| function.name.as_str()).any(|name| name == "make_blocks"));
}

#[test]
fn a_killed_program_leaves_all_that_it_pushed() {
    let place = Place::new();
    let program = place.compiled("blocks", BLOCKS, &[]);
    let outcome = run(&place.props(&[&program, Path::new("k")])).unwrap();
    assert_eq!((outcome.end, outcome.exit_status()), (End::Signalled(9), 137));
    assert!(outcome.written.events > 7_500, "{:?}", outcome.written);
}

#[test]
fn a_forked_child_frees_what_its_parent_made() {
    let place = Place::new();
    let program = place.compiled("blocks", BLOCKS, &[]);
    let outcome = run(&place.props(&[&program, Path::new("f")])).unwrap();
    assert_eq!(outcome.exit_status(), 4);
    assert_eq!(outcome.observations.orphans, 0);
    let trace = Trace::open(&outcome.path).unwrap();
    let child = &trace.contents().processes[1];
    assert!(child.forked);
    assert_eq!(child.repairs.unknown_frees, 0, "the block was inherited");
}

#[test]
fn a_static_program_and_a_script_that_one_interprets_are_refused() {
    let place = Place::new();
    let program = place.compiled("blocks", BLOCKS, &["-static"]);
    let script = place.path("script");
    fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for command in [&program, &script] {
        let error = run(&place.props(&[command])).unwrap_err();
        let RecordError::NotRecordable { path, source: target::Obstacle::Static { path: of } } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((path, of), (command, &program));
        assert_eq!(error.exit_status(), exit_status::TOOL_FAILED);
        assert!(!place.path("out.xtrace").exists());
    }
}

#[test]
fn what_cannot_be_started_leaves_no_file_and_the_shells_exit_statuses() {
    let place = Place::new();
    let missing = run(&place.props(&[Path::new("/no/such/program")])).unwrap_err();
    assert_eq!(missing.exit_status(), exit_status::NOT_FOUND);
    let plain = place.path("plain");
    fs::write(&plain, "").unwrap();
    assert_eq!(run(&place.props(&[&plain])).unwrap_err().exit_status(), exit_status::CANNOT_EXECUTE);
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).unwrap();
    let unreadable = Props { output: Some("/no/such/place/x".into()), ..place.props(&[Path::new("/bin/true")]) };
    assert!(matches!(run(&unreadable).unwrap_err(), RecordError::Output(_)));
    assert!(!place.path("out.xtrace").exists());
}
