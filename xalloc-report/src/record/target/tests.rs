//! The preflight against programs of this machine and programs made for the test.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

fn script(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn compiled(directory: &Path, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let source = directory.join("main.c");
    fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let path = directory.join(name);
    let status = Command::new("cc").args(flags).arg("-o").arg(&path).arg(&source).status().ok()?;
    status.success().then_some(path)
}

#[test]
fn an_ordinary_program_has_no_obstacle_and_is_found_in_the_path() {
    let target = inspect(Path::new("cat"), Some(OsStr::new("/nowhere:/usr/bin:/bin"))).unwrap();
    assert_eq!(target.obstacle, None);
    assert!(target.path.ends_with("cat"));
    assert_eq!(target.path, target.binary);
}

#[test]
fn the_loader_with_a_program_as_its_argument_is_no_static_program() {
    let target = inspect(Path::new("/lib64/ld-linux-x86-64.so.2"), None).unwrap();
    assert_eq!(target.obstacle, None);
}

#[test]
fn a_script_is_judged_by_the_program_that_its_chain_of_interpreters_ends_at() {
    let directory = tempfile::tempdir().unwrap();
    let inner = script(directory.path(), "inner", "#!/bin/sh -e\nexit 0\n");
    let outer = script(directory.path(), "outer", &format!("#! {}\n", inner.display()));
    let target = inspect(&outer, None).unwrap();
    assert_eq!(target.binary, Path::new("/bin/sh"));
    assert_eq!(target.scripts, [outer, inner]);
    assert_eq!(target.obstacle, None);
    let by_env = script(directory.path(), "by-env", "#!/usr/bin/env -S A=1 sh -e\n");
    assert!(inspect(&by_env, Some(OsStr::new("/bin"))).unwrap().binary.ends_with("sh"));
}

#[test]
fn a_script_that_interprets_itself_is_no_program() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snake");
    let path = script(directory.path(), "snake", &format!("#!{}\n", path.display()));
    assert!(matches!(inspect(&path, None).unwrap().obstacle, Some(Obstacle::NoProgram { .. })));
}

#[test]
fn what_cannot_be_started_is_told_from_what_cannot_be_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "text").unwrap();
    assert!(matches!(inspect(&plain, None), Err(NotRunnable::NotExecutable { .. })));
    assert!(matches!(inspect(directory.path(), None), Err(NotRunnable::Directory { .. })));
    assert!(matches!(inspect(Path::new("no-such-program"), None), Err(NotRunnable::NotFound { .. })));
    assert!(matches!(inspect(Path::new("/bin/cat/x"), None), Err(NotRunnable::NotFound { .. })));
    let text = script(directory.path(), "text", "just text");
    assert!(matches!(inspect(&text, None).unwrap().obstacle, Some(Obstacle::NoProgram { .. })));
}

#[test]
fn static_sanitized_and_setuid_programs_are_named_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let obstacle = |path: Option<PathBuf>| path.map(|path| inspect(&path, None).unwrap().obstacle);
    let fixed = obstacle(compiled(directory.path(), "static", &["-static"]));
    assert!(matches!(fixed, None | Some(Some(Obstacle::Static { .. }))), "{fixed:?}");
    let address = obstacle(compiled(directory.path(), "asan", &["-fsanitize=address"]));
    assert!(matches!(address, None | Some(Some(Obstacle::Sanitizer { .. }))), "{address:?}");
    if let Some(path) = compiled(directory.path(), "musl", &["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"]) {
        let Some(Obstacle::ForeignLoader { loader, .. }) = inspect(&path, None).unwrap().obstacle else {
            panic!("the loader is musl's")
        };
        assert_eq!(loader, "/lib/ld-musl-x86_64.so.1");
    }
}

#[test]
fn headers_of_other_machines_and_damaged_ones_are_named_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = fs::read("/bin/cat").unwrap();
    bytes[18] = 183;
    let path = script(directory.path(), "arm", "");
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        inspect(&path, None).unwrap().obstacle,
        Some(Obstacle::OtherMachine { machine: Machine(183), .. })
    ));
    bytes[18] = 62;
    for length in [64, 65, 120, 1000, 4096] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(inspect(&path, None).unwrap().obstacle.is_some(), "{length}");
    }
}
