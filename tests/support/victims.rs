//! Builds the programs of `tests/programs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Load, modified};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs")
}

/// The text of a victim's source.
pub(crate) fn source(file: &str) -> String {
    let path = sources().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of `tests/programs` with one of these endings.
pub(crate) fn files(endings: &[&str]) -> Vec<String> {
    let names = fs::read_dir(sources()).expect("tests/programs").map(|entry| entry.expect("a readable folder"));
    let mut names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|is| endings.iter().any(|ending| is == *ending)));
    names.sort();
    names
}

/// A victim, built and ready to run. `file` is its name in `tests/programs`.
pub(crate) fn victim(file: &str, arguments: &[&str]) -> Load {
    Load::new(program(file), arguments)
}

/// A victim, built.
pub(crate) fn program(file: &str) -> PathBuf {
    let name = file.rsplit_once('.').expect("a name with an ending").0.replace('/', "_");
    built(file, &name, &[])
}

/// A victim that others load, built to the name of a library.
pub(crate) fn library(file: &str, name: &str) -> PathBuf {
    built(file, name, &["-shared", "-fPIC"])
}

/// A victim whose functions the dynamic loader knows.
pub(crate) fn exporting_victim(file: &str, arguments: &[&str]) -> Load {
    Load::new(built(file, &format!("exporting_{file}"), &["-rdynamic"]), arguments)
}

/// A victim without the dynamic loader.
pub(crate) fn static_victim(file: &str) -> PathBuf {
    built(file, &format!("static_{file}"), &["-static"])
}

/// The victim that loads and unloads two libraries, with both.
pub(crate) fn loader_of_libraries() -> Load {
    let library = |name: &str| {
        let defines = ["constructor", "destructor", "work"]
            .map(|function| format!("-D{}=truth_{name}_{function}", function.to_uppercase()));
        let flags: Vec<&str> = defines.iter().map(String::as_str).chain(["-shared", "-fPIC"]).collect();
        built("plugin.c", &format!("lib{name}.so"), &flags)
    };
    let (first, second) = (library("first"), library("second"));
    victim("dlopen.c", &[&first.to_string_lossy(), &second.to_string_lossy()])
}

/// The victim that loads a library with `RTLD_DEEPBIND`, with the library.
pub(crate) fn deep_binding_victim() -> Load {
    let library = built("deep_bind.c", "libdeep_bind.so", &["-shared", "-fPIC", "-DLIBRARY"]);
    victim("deep_bind.c", &[&library.to_string_lossy()])
}

/// Compiles `file` to `name` in the build's scratch folder, unless that is there and newer.
/// What other sources include.
const INCLUDED: [&str; 4] = ["fork.c", "keep.h", "lose.h", "leaks/twins.h"];

fn built(file: &str, name: &str, flags: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("victims");
    fs::create_dir_all(&folder).expect("a folder for the victims");
    let source = sources().join(file);
    let program = folder.join(name);
    let newest = INCLUDED.map(|part| modified(&sources().join(part))).into_iter().fold(modified(&source), Option::max);
    assert!(newest.is_some(), "{} is missing", source.display());
    if modified(&program) > newest {
        return program;
    }
    // Another test may be at it: each compiles to a name of its own and puts the finished file in place. rustc names its
    // own files by what comes before the first dot.
    let unfinished = folder.join(format!("{}_{:?}_{name}", std::process::id(), std::thread::current().id()));
    let mut command = match source.extension().and_then(|extension| extension.to_str()) {
        Some("c") => Command::new("cc"),
        Some("cpp") => Command::new("c++"),
        Some("rs") => Command::new("rustc"),
        other => panic!("{file}: nothing compiles {other:?}"),
    };
    if file.ends_with(".rs") {
        command.args(["-O", "-g", "--edition", "2024", "-C", "symbol-mangling-version=v0"]);
    } else {
        command.args(["-O2", "-g", "-fno-optimize-sibling-calls", "-pthread"]);
        if file.ends_with(".cpp") {
            command.arg("-std=c++20");
        }
    }
    command.args(flags).arg(&source).arg("-o").arg(&unfinished);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&unfinished, &program).expect("the finished victim takes its place");
    program
}
