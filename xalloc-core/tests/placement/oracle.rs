//! A trace on the running libc: `xreplay`, compiled once per test run.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use xalloc_core::heap::Policy;

use crate::trace::{Op, Outcome, decode_outcomes, encode};

/// The compiled program, or why there is none.
static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("placement-{}", std::process::id()))
}

fn compile() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/xreplay.c");
    let directory = scratch();
    std::fs::create_dir_all(&directory).map_err(|error| format!("no scratch directory: {error}"))?;
    let program = directory.join("xreplay");
    let compiler = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(&source).status();
    match compiler {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => panic!("cc failed on {}: {status}", source.display()),
        Err(error) => Err(format!("no C compiler: {error}")),
    }
}

/// The profile of the running libc, or why it cannot be the oracle.
#[allow(unsafe_code, reason = "asks libc for its version")]
pub(crate) fn policy() -> Result<Policy, String> {
    // SAFETY: the function returns a constant C string.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: as above; the string lives as long as the process.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy();
    Policy::for_libc(&version).ok_or_else(|| format!("no profile for glibc {version}"))
}

/// Whether traces can run here; `Err` says why not.
pub(crate) fn available() -> Result<(), String> {
    PROGRAM.get_or_init(compile).as_ref().map(|_| ()).map_err(Clone::clone)
}

/// A library that is preloaded into a second run of every trace (`XALLOC_PLACEMENT_PRELOAD`): a live heap.
pub(crate) fn preload() -> Option<String> {
    std::env::var("XALLOC_PLACEMENT_PRELOAD").ok().filter(|path| !path.is_empty())
}

/// Runs a trace with `tunables` as `GLIBC_TUNABLES`; `Err` says why that is impossible here.
pub(crate) fn run(ops: &[Op], tunables: &str) -> Result<Vec<Outcome>, String> {
    run_under("", ops, tunables)
}

/// As [`run`], with a library preloaded.
pub(crate) fn run_under(preload: &str, ops: &[Op], tunables: &str) -> Result<Vec<Outcome>, String> {
    static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    if ops.is_empty() {
        return Ok(Vec::new());
    }
    let program = PROGRAM.get_or_init(compile).as_ref().map_err(Clone::clone)?;
    let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let trace = scratch().join(format!("{serial}.trace"));
    let result = scratch().join(format!("{serial}.result"));
    std::fs::write(&trace, encode(ops)).map_err(|error| format!("no trace: {error}"))?;
    let status = Command::new(program)
        .args([&trace, &result])
        .env("LD_PRELOAD", preload)
        .env("GLIBC_TUNABLES", tunables)
        .status()
        .map_err(|error| format!("xreplay does not start: {error}"))?;
    assert!(status.success(), "xreplay failed: {status}");
    let outcomes = decode_outcomes(&std::fs::read(&result).map_err(|error| format!("no result: {error}"))?);
    assert_eq!(outcomes.len(), ops.len(), "xreplay wrote one outcome per operation");
    let _ = std::fs::remove_file(trace);
    let _ = std::fs::remove_file(result);
    Ok(outcomes)
}
