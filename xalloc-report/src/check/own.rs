//! Which frames are the user's own, and which of them a leak is blamed on.
//!
//! With `--own`, a leak counts only if a frame of ours is in its stack, and the innermost of ours is blamed: a library
//! that caches for itself is its authors' business, a buffer that we asked it for and never gave back is ours. Without
//! it the innermost frame is blamed that is neither of the system's libraries and headers nor of a language's, and every
//! leak counts but those of tools: `check -- make` runs compilers and linkers too, which seldom free what they hold when
//! they end, and is asked about what was built. Where nothing but tools ran, the command itself was meant.

use std::path::{Component, Path, PathBuf};

use crate::analysis::{CallStack, FrameView, Pattern};

/// Beginnings of paths of sources and modules that are nobody's own: the system's, and Rust's library.
const FOREIGN: &[&str] = &[
    "/usr/",
    "/bin/",
    "/sbin/",
    "/lib/",
    "/lib64/",
    "/nix/store/",
    "/gnu/store/",
    "/rustc/",
    "/build/glibc",
    "/build/gcc",
];
/// Parts of paths that are nobody's own: where Cargo keeps the sources of dependencies, and where Rust's, Python's and
/// GitHub's tools are installed for one user.
const FOREIGN_PARTS: &[&str] =
    &["/registry/src/", "/.rustup/toolchains/", "/.cargo/bin/", "/.pyenv/versions/", "/hostedtoolcache/"];

/// Whose a program is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The user's, or what the user asked about by name: every leak of it counts.
    Users,
    /// Installed by the system or with a language's tools, and run on the way: a leak counts if a frame of it is not.
    Tool,
}

/// Whether a source, a module or a program is the system's or a language's.
pub(super) fn is_foreign(path: &Path) -> bool {
    let path = path.to_string_lossy();
    FOREIGN.iter().any(|start| path.starts_with(start)) || FOREIGN_PARTS.iter().any(|part| path.contains(part))
}

/// The user's own code.
#[derive(Clone, Debug, Default)]
pub struct OwnCode {
    own: Vec<Own>,
    source_root: Option<PathBuf>,
}

/// One `--own`.
#[derive(Clone, Debug)]
struct Own {
    /// Sources and modules below it, or the file itself.
    path: PathBuf,
    /// File name of a module.
    module: Option<Pattern>,
}

impl OwnCode {
    /// `source_root` is the directory that reports name sources relative to.
    #[must_use]
    pub fn of(own: &[PathBuf], source_root: Option<PathBuf>) -> OwnCode {
        let own = own.iter().map(|path| Own {
            path: normal(path),
            module: path.file_name().map(|name| Pattern::whole(&name.to_string_lossy())),
        });
        OwnCode { own: own.collect(), source_root: source_root.as_deref().map(normal) }
    }

    /// Whether a leak of such a program counts: a frame is ours, or could be where nothing was said of what is.
    #[must_use]
    pub fn counts(&self, at: &CallStack, of: Whose) -> bool {
        match (self.own.is_empty(), of) {
            (false, _) => at.frames.iter().any(|frame| self.owns(frame)),
            (true, Whose::Users) => true,
            (true, Whose::Tool) => at.frames.iter().any(is_not_foreign),
        }
    }

    fn owns(&self, frame: &FrameView) -> bool {
        self.own.iter().any(|own| {
            let below = |path: &Option<String>| {
                path.as_deref().is_some_and(|path| normal(Path::new(path)).starts_with(&own.path))
            };
            let named = own.module.as_ref().zip(frame.module_name()).is_some_and(|(module, name)| module.matches(name));
            below(&frame.file) || below(&frame.module) || named
        })
    }

    /// The frame that a leak is blamed on, as its place in the stack; `None` for a stack without frames.
    #[must_use]
    pub fn blamed(&self, at: &CallStack) -> Option<usize> {
        let first = |wanted: &dyn Fn(&FrameView) -> bool| at.frames.iter().position(wanted);
        let ours = if self.own.is_empty() { first(&is_not_foreign) } else { first(&|frame| self.owns(frame)) };
        ours.or_else(|| first(&|_| true))
    }

    /// The frame's source relative to the source root, with `/` between its parts; `None` if it lies elsewhere.
    #[must_use]
    pub fn relative(&self, frame: &FrameView) -> Option<String> {
        let root = self.source_root.as_deref()?;
        let file = normal(Path::new(frame.file.as_deref()?));
        let inside = if file.is_absolute() { file.strip_prefix(root).ok()?.to_owned() } else { file };
        // A relative name that climbs out of the tree is no place in it.
        let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let text = inside.to_string_lossy().into_owned();
        (plain && !text.is_empty()).then_some(text)
    }
}

/// By its source, or by its module where the source is not known, or only by a name in some tree: libc's debug
/// information has such names.
fn is_not_foreign(frame: &FrameView) -> bool {
    let path = |path: &Option<String>| path.as_deref().map(Path::new).map(Path::to_owned);
    let source = path(&frame.file).filter(|file| file.is_absolute());
    source.or_else(|| path(&frame.module)).is_some_and(|path| !is_foreign(&path))
}

/// The path without `.` and with each `..` taken back, as text alone: sources need not exist on this machine.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::ParentDir | Component::Normal(_) => {
                normal.push(part)
            }
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::super::suppressions::tests::stack;
    use super::*;

    fn own(paths: &[&str]) -> OwnCode {
        OwnCode::of(&paths.iter().map(PathBuf::from).collect::<Vec<_>>(), Some("/home/u/project".into()))
    }

    fn at() -> CallStack {
        stack(
            "malloc",
            &[
                (
                    "std::vector<int>::push_back(int)",
                    "/usr/include/c++/12/bits/stl_vector.h",
                    "/home/u/project/build/app",
                ),
                ("vendored", "/home/u/project/third_party/x.c", "/home/u/project/build/libx.so.1"),
                ("ours", "/home/u/project/build/../src/a.cc", "/home/u/project/build/app"),
                ("main", "/home/u/project/src/main.cc", "/home/u/project/build/app"),
            ],
        )
    }

    #[test]
    fn the_innermost_frame_of_ours_is_blamed() {
        for (paths, blamed) in [
            (&["/home/u/project/src"][..], 2),
            (&["/home/u/project/src/main.cc"], 3),
            (&["/home/u/project/./src/../third_party"], 1),
            (&["libx.so*"], 1),
            (&["/anywhere/app"], 0),
            (&[], 1),
        ] {
            assert_eq!(own(paths).blamed(&at()), Some(blamed), "{paths:?}");
        }
    }

    #[test]
    fn a_leak_without_a_frame_of_ours_does_not_count() {
        for whose in [Whose::Users, Whose::Tool] {
            assert!(own(&["/home/u/project/src"]).counts(&at(), whose));
            assert!(!own(&["/home/u/project/sr", "other.so"]).counts(&at(), whose));
        }
        assert!(own(&[]).counts(&stack("malloc", &[]), Whose::Users));
    }

    #[test]
    fn a_leak_of_a_tool_counts_only_with_a_frame_that_is_no_tools() {
        let bare = OwnCode::default();
        let linker = stack("malloc", &[("xmalloc", "", "/usr/lib/libbfd.so"), ("main", "csu/start.c", "/usr/bin/ld")]);
        assert!(!bare.counts(&linker, Whose::Tool) && bare.counts(&linker, Whose::Users));
        let extension = stack("malloc", &[("parse", "", "/home/u/project/ext.so"), ("eval", "", "/usr/bin/python3")]);
        assert!(bare.counts(&extension, Whose::Tool));
        assert!(own(&["*"]).counts(&linker, Whose::Tool), "all can be asked for");
    }

    #[test]
    fn what_is_nobodys_own_is_blamed_only_if_there_is_nothing_else() {
        let bare = OwnCode::default();
        assert_eq!(bare.blamed(&at()), Some(1));
        let blamed = |file, module| bare.blamed(&stack("malloc", &[("inner", file, module), ("main", "m.c", "app")]));
        for (file, module) in [
            ("/usr/include/v.h", "/home/u/app"),
            ("", "/usr/lib/libc.so.6"),
            ("", "[vdso]x/registry/src/y"),
            ("csu/libc-start.c", "/usr/lib/libc.so.6"),
            ("", "/home/u/.rustup/toolchains/stable/lib/librustc_driver.so"),
            ("/rustc/1/library/alloc/src/vec.rs", "/home/u/app"),
            ("/root/.cargo/registry/src/index-1/serde-1/lib.rs", "/home/u/app"),
            ("", ""),
        ] {
            assert_eq!(blamed(file, module), Some(1), "{file} {module}");
        }
        assert_eq!([blamed("", "/home/u/app"), blamed("/home/u/a.c", "/usr/bin/app")], [Some(0); 2]);
        assert_eq!(bare.blamed(&stack("malloc", &[("f", "/usr/include/v.h", "a")])), Some(0));
        assert_eq!(bare.blamed(&stack("malloc", &[])), None);
    }

    #[test]
    fn sources_in_the_tree_have_a_relative_name_and_others_have_none() {
        let relative = |file: &str| own(&[]).relative(&stack("malloc", &[("f", file, "app")]).frames[0]);
        assert_eq!(relative("/home/u/project/build/../src/a b.cc").as_deref(), Some("src/a b.cc"));
        assert_eq!(relative("src/main.rs").as_deref(), Some("src/main.rs"));
        for elsewhere in ["/home/u/project2/src/a.cc", "../a.cc", "/home/u/project", ""] {
            assert_eq!(relative(elsewhere), None, "{elsewhere}");
        }
    }
}
