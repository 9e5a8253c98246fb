//! Traces on real libcs: `xreplay`, linked once per test run with each of them.
//!
//! The running libc is the first. `XALLOC_PLACEMENT_LIBCS` names a folder of others, one unpacked below it each, as
//! `.ci/libcs` fetches them: they need not be installed, for the program names its libc and its loader itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use xalloc_core::heap::{Policy, Tunables};

use crate::simulate::simulation;
use crate::trace::{Op, Outcome, decode_outcomes, encode};

/// Where Debian's packages have a libc, and what programs are linked with.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
const DEVELOPMENT: &str = "usr/lib/x86_64-linux-gnu";

/// A real libc: `xreplay` on it.
pub(crate) struct Oracle {
    program: PathBuf,
    /// As the libc itself says it.
    pub(crate) version: String,
    pub(crate) policy: Policy,
}

/// The libcs that there are, the running one first; or why there is none.
pub(crate) fn all() -> &'static Result<Vec<Oracle>, String> {
    static ALL: OnceLock<Result<Vec<Oracle>, String>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut oracles = vec![Oracle::running()?];
        let Some(folder) = std::env::var_os("XALLOC_PLACEMENT_LIBCS") else { return Ok(oracles) };
        let folder = std::fs::canonicalize(folder).map_err(|error| format!("XALLOC_PLACEMENT_LIBCS: {error}"))?;
        let entries = std::fs::read_dir(folder).map_err(|error| format!("XALLOC_PLACEMENT_LIBCS: {error}"))?;
        let mut roots: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        roots.sort();
        for root in roots {
            oracles.extend(Oracle::unpacked(&root)?);
        }
        Ok(oracles)
    })
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("placement-{}", std::process::id()))
}

/// A library that is preloaded into a second run of every trace (`XALLOC_PLACEMENT_PRELOAD`): a live heap.
pub(crate) fn preload() -> Option<String> {
    std::env::var("XALLOC_PLACEMENT_PRELOAD").ok().filter(|path| !path.is_empty())
}

impl Oracle {
    fn running() -> Result<Oracle, String> {
        Oracle::compile("running", |command| command.arg("-pthread")).and_then(Oracle::introduce)
    }

    /// The libc below `root`, if there is one.
    fn unpacked(root: &Path) -> Result<Option<Oracle>, String> {
        let Some(libraries) =
            LIBRARIES.map(|below| root.join(below)).into_iter().find(|it| it.join("libc.so.6").exists())
        else {
            return Ok(None);
        };
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = |object: &str| root.join(DEVELOPMENT).join(object);
        let program = Oracle::compile(&name, |command| {
            command
                .args(["-fno-pie", "-no-pie", "-nostdlib", "-Wl,--allow-shlib-undefined"])
                .arg(format!("-Wl,--dynamic-linker={}", libraries.join("ld-linux-x86-64.so.2").display()))
                .arg(format!("-Wl,-rpath={}", libraries.display()))
                .args([start("crt1.o"), start("crti.o")])
                .arg(libraries.join("libpthread.so.0"))
                .arg(libraries.join("libc.so.6"))
                .arg(start("libc_nonshared.a"))
                .arg("-lgcc")
                .arg(start("crtn.o"))
        })?;
        Ok(Oracle::introduce(program).inspect_err(|why| println!("left out: {why}")).ok())
    }

    fn compile(name: &str, libraries: impl FnOnce(&mut Command) -> &mut Command) -> Result<PathBuf, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/xreplay.c");
        let directory = scratch();
        std::fs::create_dir_all(&directory).map_err(|error| format!("no scratch directory: {error}"))?;
        let program = directory.join(format!("xreplay-{name}"));
        let mut compiler = Command::new("cc");
        compiler.arg("-O1").arg("-o").arg(&program).arg(&source);
        match libraries(&mut compiler).status() {
            Ok(status) if status.success() => Ok(program),
            Ok(status) => panic!("cc failed on {} for the libc {name}: {status}", source.display()),
            Err(error) => Err(format!("no C compiler: {error}")),
        }
    }

    fn introduce(program: PathBuf) -> Result<Oracle, String> {
        let output = Command::new(&program).output().map_err(|error| format!("xreplay does not start: {error}"))?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        let policy = Policy::for_libc(&version).ok_or_else(|| format!("no profile for glibc {version:?}"))?;
        Ok(Oracle { program, version, policy })
    }

    /// Runs a trace with `tunables` as `GLIBC_TUNABLES`.
    pub(crate) fn run(&self, ops: &[Op], tunables: &str) -> Vec<Outcome> {
        self.run_under("", ops, tunables)
    }

    /// As [`Oracle::run`], with a library preloaded.
    pub(crate) fn run_under(&self, preload: &str, ops: &[Op], tunables: &str) -> Vec<Outcome> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        if ops.is_empty() {
            return Vec::new();
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let trace = scratch().join(format!("{serial}.trace"));
        let result = scratch().join(format!("{serial}.result"));
        std::fs::write(&trace, encode(ops)).expect("the scratch directory is writable");
        let mut tuned = Tunables::NONE;
        tuned.apply_glibc_tunables(tunables.as_bytes());
        // Asked for by name only: other traces leave the break where the kernel put it.
        let sub_heap = tuned.hugetlb.map(|_| simulation(&self.policy, &tuned).heap().sub_heap_bytes().to_string());
        let status = Command::new(&self.program)
            .args([&trace, &result])
            .args(sub_heap)
            .env("LD_PRELOAD", preload)
            .env("GLIBC_TUNABLES", tunables)
            .stdin(Stdio::null())
            .status()
            .expect("it started before");
        assert!(status.success(), "xreplay on glibc {} failed: {status}", self.version);
        let outcomes = decode_outcomes(&std::fs::read(&result).expect("xreplay wrote it"));
        assert_eq!(outcomes.len(), ops.len(), "xreplay wrote one outcome per operation");
        let _ = std::fs::remove_file(trace);
        let _ = std::fs::remove_file(result);
        outcomes
    }
}
