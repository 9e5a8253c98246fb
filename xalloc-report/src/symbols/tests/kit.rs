//! A directory to build programs in, and questions to ask about them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};
use tempfile::TempDir;

use crate::symbols::{Frame, Module, ModuleIndex, Places, Resolved, Symbolizer, Wanted};

/// A library whose exported `outer` inlines `inner`, and a program around it. The line numbers are part of the tests.
pub(super) const WORK_C: &str = "\
#include <stdlib.h>
static inline __attribute__((always_inline)) void *inner(unsigned long n) {
    return malloc(n + 1);
}
static __attribute__((noinline)) void hidden(char *p) {
    for (int i = 0; i < 100; i++) p[i % 2] += i;
}
__attribute__((noinline)) void *outer(unsigned long n) {
    char *p = inner(n);
    hidden(p);
    return p;
}
int main(int argc, char **argv) {
    free(outer(argc));
    return argv == 0;
}
";

/// A temporary directory with its own tree of debug files.
pub(super) struct Lab {
    dir: TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        Lab { dir: TempDir::new().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// Runs a tool in the directory; arguments are divided at blanks.
    pub(super) fn run(&self, command: &str) {
        let mut words = command.split_whitespace();
        let output = Command::new(words.next().unwrap()).args(words).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Builds [`WORK_C`] as `app` with these flags.
    pub(super) fn build_app(&self, flags: &str) -> PathBuf {
        self.write("work.c", WORK_C);
        self.run(&format!("cc {flags} -Wl,--build-id -o app work.c"));
        self.path("app")
    }

    pub(super) fn places(&self) -> Places {
        Places { debug_root: self.path("debug-root"), debuginfod_find: None, answers: None }
    }

    pub(super) fn resolve_module(&self, module: Module, addresses: Vec<u64>) -> Resolved {
        let symbolizer = Symbolizer::new(vec![module], self.places());
        symbolizer.resolve(&[Wanted { module: ModuleIndex(0), addresses }]).remove(0)
    }

    /// Resolves addresses of the file `path` with the build-id it has now.
    pub(super) fn resolve(&self, path: &Path, addresses: impl IntoIterator<Item = u64>) -> Resolved {
        let module = Module { path: path.to_owned(), build_id: build_id(path) };
        self.resolve_module(module, addresses.into_iter().collect())
    }

    /// Resolves the first address of each of these functions, found in `whole`, in the file `path`.
    pub(super) fn names(&self, path: &Path, whole: &Path, functions: &[&str]) -> (Resolved, Vec<Option<String>>) {
        let starts: Vec<u64> = functions.iter().map(|name| range_of(whole, name).start).collect();
        let resolved = self.resolve(path, starts);
        let outermost = |frames: &Vec<Frame>| frames.last().and_then(|frame| frame.function.clone());
        let names = resolved.frames.iter().map(outermost).collect();
        (resolved, names)
    }
}

/// Whether a tool is installed; says so if not.
pub(super) fn has_tool(name: &str) -> bool {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {name} is not installed");
    }
    found
}

pub(super) fn build_id(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap().build_id().unwrap().unwrap_or_default().to_vec()
}

/// The addresses of the function `name`, which is a linker's name.
pub(super) fn range_of(path: &Path, name: &str) -> std::ops::Range<u64> {
    let bytes = std::fs::read(path).unwrap();
    let elf = ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap();
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name));
    let symbol = symbol.unwrap_or_else(|| panic!("{} has no {name}", path.display()));
    symbol.address()..symbol.address() + symbol.size()
}

/// Asserts that an address in `outer` shows `inner` inlined into it, with the lines of [`WORK_C`].
pub(super) fn assert_inner_is_inlined(resolved: &Resolved) {
    let pair = resolved.frames.iter().find_map(|frames| match &frames[..] {
        [inner, outer] => Some((inner, outer)),
        _ => None,
    });
    let (inner, outer) = pair.unwrap_or_else(|| panic!("no inlined function in {resolved:?}"));
    assert_eq!((inner.function.as_deref(), inner.inlined, inner.line), (Some("inner"), true, Some(3)));
    assert_eq!((outer.function.as_deref(), outer.inlined, outer.line), (Some("outer"), false, Some(9)));
    assert!(inner.file.as_ref().is_some_and(|file| file.ends_with("work.c")), "{inner:?}");
    assert!(inner.column.is_some() && outer.column.is_some());
}
