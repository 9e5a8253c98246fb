//! Builds the preload library, verifies it and leaves it where `include_bytes!` finds it, so that one `cargo build`
//! or `cargo install` gives one working binary.
//!
//! # A cargo inside cargo
//! The preload needs what the outer build must not have (`panic = "abort"`, no std, fat LTO) and must not get what the
//! outer build may have (coverage flags, sanitizers, `target-cpu=native`, a profile changed by environment). So it is
//! built by a cargo of its own with its own profile, own target and build directories (the outer ones are locked while
//! this runs: sharing them waits for ever) and an environment from which everything that steers a build is removed. An
//! empty `CARGO_ENCODED_RUSTFLAGS` beats every other source of flags, those in configuration files included.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[path = "build/elf.rs"]
mod elf;
#[path = "../xalloc-core/src/fnv.rs"]
#[allow(unreachable_pub, reason = "it is the core's file, and public there")]
mod fnv;

/// The only library that the preload may need: whatever it needed besides would be loaded into every program.
const NEEDED: &str = "libc.so.6";

/// Variables with these names, or these beginnings, reach the nested cargo; all other `CARGO*` ones do not.
const KEPT: [&str; 4] = ["CARGO", "CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_TERM_COLOR"];
const KEPT_PREFIXES: [&str; 4] = ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"];

/// Variables without that beginning that would steer the nested build or its compiler.
const REMOVED: [&str; 12] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "OUT_DIR",
    "TARGET",
    "HOST",
    "PROFILE",
    "DEBUG",
    "OPT_LEVEL",
    "NUM_JOBS",
    "LLVM_PROFILE_FILE",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = required("CARGO_MANIFEST_DIR")?.parent().ok_or("the package is not in a workspace")?.to_owned();
    let out = required("OUT_DIR")?;
    for input in [
        "Cargo.toml",
        "Cargo.lock",
        "xalloc-core/Cargo.toml",
        "xalloc-core/src",
        "xalloc-preload/Cargo.toml",
        "xalloc-preload/src",
        "xalloc-report/build.rs",
        "xalloc-report/build",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let exports = root.join("xalloc-preload/exports.txt");
    println!("cargo::rerun-if-changed={}", exports.display());

    let library = fs::read(build(&root, &out)?)?;
    verify(&library, &exports).map_err(|seen| format!("the preload must not ship like this: {seen}"))?;
    println!("cargo::rustc-env=XALLOC_LIBRARY_HASH={:016x}", fnv::Fnv1a::of(&library));
    fs::write(out.join("libxalloc_preload.so"), library)?;
    Ok(())
}

fn required(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("{variable} is not set; run this through cargo"))
}

/// Runs the nested cargo and returns the path of the library that it made.
fn build(root: &Path, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let nested = out.join("preload");
    let mut cargo = Command::new(required("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--package", "xalloc-preload", "--lib", "--profile", "preload", "--locked"])
        // It is compared byte by byte before each use, and nobody reads lines from it.
        .args(["--config", "profile.preload.strip = \"debuginfo\""])
        .args(["--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target")
        .arg(required("TARGET")?)
        .arg("--target-dir")
        .arg(&nested)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    for (name, _) in env::vars_os() {
        if !reaches_the_nested_build(&name) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "").env("CARGO_BUILD_BUILD_DIR", &nested).env("CARGO_INCREMENTAL", "0");

    let output = cargo.output()?;
    if !output.status.success() {
        return Err(format!("building xalloc-preload failed ({}); its messages are above", output.status).into());
    }
    library_of(&String::from_utf8(output.stdout)?)
        .ok_or_else(|| "cargo named no library for xalloc-preload; is its crate-type still cdylib?".into())
}

fn reaches_the_nested_build(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return true };
    let is_linker = name.starts_with("CARGO_TARGET_") && name.ends_with("_LINKER");
    let kept = KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_linker;
    kept || !(name.starts_with("CARGO") || REMOVED.contains(&name))
}

/// The path in cargo's message about the cdylib. The messages are JSON, one a line; the path is the first string of
/// the array `filenames`, and cargo escapes nothing in it but quotes and backslashes.
fn library_of(messages: &str) -> Option<PathBuf> {
    let message = messages
        .lines()
        .rfind(|line| line.contains(r#""reason":"compiler-artifact""#) && line.contains(r#""kind":["cdylib"]"#))?;
    let (_, after) = message.split_once(r#""filenames":[""#)?;
    let (path, _) = after.split_once(r#"""#)?;
    Some(PathBuf::from(path))
}

/// Refuses a library that would not be harmless in every program.
fn verify(library: &[u8], exports: &Path) -> Result<(), Box<dyn Error>> {
    let facts = elf::facts(library)?;
    if facts.needed != [NEEDED] {
        return Err(format!("it needs {:?}, not {NEEDED} alone", facts.needed).into());
    }
    if facts.has_tls {
        return Err("it has thread-local storage, which the loader may have to allocate in the middle of malloc".into());
    }
    if facts.executable_stack {
        return Err("it asks for an executable stack, and the program would get one".into());
    }
    if facts.text_relocations {
        return Err("it has text relocations, which SELinux forbids".into());
    }
    if !facts.unbound.is_empty() {
        return Err(format!("nobody promises to define {:?}", facts.unbound).into());
    }
    let expected: BTreeSet<String> =
        fs::read_to_string(exports)?.lines().map(str::trim).filter(is_name).map(String::from).collect();
    if facts.exports != expected {
        let extra: Vec<_> = facts.exports.difference(&expected).collect();
        let missing: Vec<_> = expected.difference(&facts.exports).collect();
        return Err(format!(
            "its exports differ from {}: not listed {extra:?}, not exported {missing:?}",
            exports.display()
        )
        .into());
    }
    Ok(())
}

/// Lines of the list that are neither empty nor a comment.
fn is_name(line: &&str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}
