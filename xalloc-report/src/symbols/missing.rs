//! What is not known about a module, why, and what would change that.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A reason for frames without a name or without a line. Its [`Display`](fmt::Display) says what was looked for and what
/// to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Missing {
    /// The kernel maps this module from its own memory; there is no file.
    Kernel {
        /// Its name, such as `[vdso]`.
        name: String,
    },
    /// There is no file at the recorded path.
    NoFile {
        /// The recorded path.
        path: PathBuf,
    },
    /// The file at the recorded path is not the one that was recorded.
    BuildIdMismatch {
        /// The recorded path.
        path: PathBuf,
        /// The recorded build-id.
        recorded: Vec<u8>,
        /// The build-id of the file that is there now; empty when it has none.
        found: Vec<u8>,
    },
    /// The file is there and cannot be read, or is no 64-bit ELF file.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// Debug information is there and contradicts itself.
    Malformed {
        /// The file it is in.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// There is neither DWARF nor a full symbol table: only exported functions have names.
    Stripped {
        /// The recorded path.
        path: PathBuf,
        /// Where a separate debug file was looked for.
        looked_for: Vec<PathBuf>,
    },
    /// All functions have names, but there is no DWARF: no lines, no inlined functions.
    NoLines {
        /// The recorded path.
        path: PathBuf,
        /// Where a separate debug file was looked for.
        looked_for: Vec<PathBuf>,
    },
    /// The module was built with split DWARF and one of its `.dwo` files is gone.
    NoSplitFile {
        /// The recorded path.
        path: PathBuf,
        /// The first `.dwo` file that was not found.
        dwo: PathBuf,
    },
    /// `dwz` moved a part of the DWARF to a file that is not there.
    NoSupplementaryFile {
        /// The file that refers to it.
        path: PathBuf,
        /// The path that it gives.
        wanted: PathBuf,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Kernel { name } => write!(f, "{name} is mapped by the kernel and has no file"),
            Missing::NoFile { path } => {
                write!(f, "{} is gone; put it back to name its functions", path.display())
            }
            Missing::BuildIdMismatch { path, recorded, found } => {
                write!(f, "{} was replaced since the recording: it had build-id {}", path.display(), Hex(recorded))?;
                match found.is_empty() {
                    true => write!(f, " and has none now")?,
                    false => write!(f, " and has {} now", Hex(found))?,
                }
                write!(f, "; record again, or put the recorded build back")
            }
            Missing::Unreadable { path, reason } => write!(f, "{} cannot be read: {reason}", path.display()),
            Missing::Malformed { path, reason } => {
                write!(f, "the debug information in {} cannot be used: {reason}; rebuild it", path.display())
            }
            Missing::Stripped { path, looked_for } => {
                write!(f, "{} has no symbols; {}", path.display(), Remedy { path, looked_for })
            }
            Missing::NoLines { path, looked_for } => {
                write!(f, "{} has names but no lines; {}", path.display(), Remedy { path, looked_for })
            }
            Missing::NoSplitFile { path, dwo } => write!(
                f,
                "{} was built with split DWARF and {} is gone; keep the build directory, or make {}.dwp with dwp",
                path.display(),
                dwo.display(),
                path.display()
            ),
            Missing::NoSupplementaryFile { path, wanted } => write!(
                f,
                "{} refers to {}, which is not installed; some names stay unknown",
                path.display(),
                wanted.display()
            ),
        }
    }
}

/// What supplies the debug information of a file, and where it was looked for.
struct Remedy<'a> {
    path: &'a Path,
    looked_for: &'a [PathBuf],
}

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Files of the distribution cannot be rebuilt with a flag, but have a package.
        if ["/usr/lib", "/usr/bin", "/usr/sbin", "/lib", "/bin", "/sbin"].iter().any(|dir| self.path.starts_with(dir)) {
            write!(f, "install its debug symbols ({}) or set DEBUGINFOD_URLS", package_hint(self.path))?;
        } else {
            write!(f, "build it with -g and do not strip it")?;
        }
        for (number, path) in self.looked_for.iter().enumerate() {
            let lead = if number == 0 { "; looked for " } else { ", " };
            write!(f, "{lead}{}", path.display())?;
        }
        Ok(())
    }
}

/// The likely package, by the naming rules of the distributions: Debian joins a library's name and its major version
/// (`libfoo.so.1` is in `libfoo1`, `libfoo2.so.1` in `libfoo2-1`).
fn package_hint(path: &Path) -> String {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    match file_name.split_once(".so") {
        Some(("libc", ".6")) => "libc6-dbg on Debian, glibc-debuginfo on Fedora".to_owned(),
        Some((stem, version)) => {
            let major = version.trim_start_matches('.').split('.').next().unwrap_or_default();
            let joint = if stem.ends_with(|c: char| c.is_ascii_digit()) && !major.is_empty() { "-" } else { "" };
            format!("probably {stem}{joint}{major}-dbgsym on Debian, a -debuginfo package on Fedora")
        }
        None => format!("probably {file_name}-dbgsym on Debian, a -debuginfo package on Fedora"),
    }
}

/// Bytes as lower-case hexadecimal digits, the way build-ids are written.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripped_library_of_the_system_names_its_package_and_the_path_looked_for() {
        let missing = Missing::Stripped {
            path: "/usr/lib/x86_64-linux-gnu/libz.so.1".into(),
            looked_for: vec!["/usr/lib/debug/.build-id/ab/cd.debug".into()],
        };
        assert_eq!(
            missing.to_string(),
            "/usr/lib/x86_64-linux-gnu/libz.so.1 has no symbols; install its debug symbols (probably libz1-dbgsym on \
             Debian, a -debuginfo package on Fedora) or set DEBUGINFOD_URLS; looked for \
             /usr/lib/debug/.build-id/ab/cd.debug"
        );
    }

    #[test]
    fn a_program_of_ones_own_is_to_be_built_with_debug_information() {
        let missing = Missing::NoLines { path: "/home/me/app".into(), looked_for: Vec::new() };
        assert_eq!(missing.to_string(), "/home/me/app has names but no lines; build it with -g and do not strip it");
    }

    #[test]
    fn a_replaced_file_shows_both_build_ids() {
        let missing = Missing::BuildIdMismatch { path: "/app".into(), recorded: vec![0xab, 0x01], found: vec![0xcd] };
        let text = missing.to_string();
        assert!(text.contains("build-id ab01 and has cd now"), "{text}");
    }

    #[test]
    fn debian_package_names_follow_the_soname() {
        assert!(package_hint(Path::new("/lib/libfoo2.so.1.4")).starts_with("probably libfoo2-1-dbgsym"));
        assert!(package_hint(Path::new("/lib/libc.so.6")).starts_with("libc6-dbg"));
        assert!(package_hint(Path::new("/usr/bin/jq")).starts_with("probably jq-dbgsym"));
    }
}
