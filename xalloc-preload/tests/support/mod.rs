//! What the tests share: the library as it ships, victims compiled on the spot, and a reader of segments.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

mod control;
mod reader;

pub(crate) use control::{Recorder, left_in, segments, start};
pub(crate) use reader::{Recorded, Recording};

/// The library of profile `preload`: `XALLOC_PRELOAD_SO`, or built now.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        if let Some(path) = env::var_os("XALLOC_PRELOAD_SO") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = root.join("target/preload-tests");
        let status = Command::new(env!("CARGO"))
            .current_dir(&root)
            .args(["build", "-p", "xalloc-preload", "--lib", "--profile", "preload", "--target-dir"])
            .arg(&target)
            .env_remove("RUSTFLAGS")
            .env("CARGO_BUILD_BUILD_DIR", &target)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the library builds");
        target.join("preload/libxalloc_preload.so").canonicalize().expect("the library was built")
    })
}

/// A directory of a test's own, empty at the start and removed at the end of a test that passes.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let path = env::temp_dir().join(format!("xalloc-preload-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).expect("a directory can be made");
        Scratch(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Compiles `tests/programs/<name>.c`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name).with_extension("c");
        let program = self.path(name);
        let built = Command::new("cc")
            .args(["-O1", "-g", "-pthread", "-w", "-fno-builtin", "-o"])
            .arg(&program)
            .arg(&source)
            .status()
            .expect("a C compiler is installed");
        assert!(built.success(), "{} compiles", source.display());
        program
    }

    /// Compiles `tests/programs/<name>.c` twice: as a library, and as a program that is linked with it.
    pub(crate) fn program_with_library(&self, name: &str) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name).with_extension("c");
        let (library, program) = (self.path(&format!("lib{name}.so")), self.path(name));
        let compile = |arguments: &[&std::ffi::OsStr]| {
            let built = Command::new("cc")
                .args(["-O1", "-g", "-w", "-fno-builtin", "-fPIC", "-Wl,-z,now"])
                .args(arguments)
                .status()
                .expect("a C compiler is installed");
            assert!(built.success(), "{} compiles", source.display());
        };
        let run_path = format!("-Wl,-rpath,{}", self.0.display());
        compile(&["-DLIBRARY".as_ref(), "-shared".as_ref(), "-o".as_ref(), library.as_ref(), source.as_ref()]);
        compile(&["-o".as_ref(), program.as_ref(), source.as_ref(), library.as_ref(), run_path.as_ref()]);
        program
    }

    /// All recordings in the directory whose names begin with `trace`, by name.
    pub(crate) fn recordings(&self) -> Vec<Recording> {
        let mut paths: Vec<_> = fs::read_dir(&self.0)
            .expect("the directory is there")
            .map(|entry| entry.expect("an entry can be read").path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("trace")))
            .collect();
        paths.sort();
        paths.iter().map(|path| Recording::read(path)).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

/// The two allocators under test.
pub(crate) const ALLOCATORS: [&str; 2] = ["core", "system"];

/// Runs a command with the library, recording to `trace` in the scratch directory.
pub(crate) fn record(scratch: &Scratch, allocator: &str, command: &mut Command) -> Output {
    command
        .env("LD_PRELOAD", library())
        .env("XALLOC_OUT", scratch.path("trace"))
        .env("XALLOC_ALLOCATOR", allocator)
        .output()
        .expect("the program starts")
}
