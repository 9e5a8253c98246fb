//! Finds the files that describe a module: its binary and the file with its debug information.
//!
//! The order is that of gdb, most certain first: the recorded path, the build-id directory, the debug link, then the
//! debuginfod client, which may go to the network and so is asked only when its user has configured a server.
//!
//! # Invariant
//! A file is given out only if it was proved to belong to the module: by build-id where both sides have one, else by the
//! CRC of the debug link, else (a binary without build-id) by its path alone. A file that fails is a [`Missing`].

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::image::Image;
use super::missing::Hex;
use super::trail::Trail;
use super::{Error, Missing, Module};
use crate::os::cache::Caches;
use crate::os::file::FileMap;

/// Where debug information is looked for besides the modules' own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The directory with `.build-id` and copies of the system's directories.
    pub debug_root: PathBuf,
    /// The `debuginfod-find` program, if it is to be asked.
    pub debuginfod_find: Option<PathBuf>,
    /// The directory of the answers that were given before, if they are to be kept.
    pub answers: Option<PathBuf>,
}

impl Places {
    /// The places of this machine: `/usr/lib/debug`, the debuginfod client if it is installed and `DEBUGINFOD_URLS`
    /// names a server, and the user's cache unless `XALLOC_NAMES_CACHE` is `off`.
    pub fn of_this_machine() -> Self {
        let has_server = std::env::var_os("DEBUGINFOD_URLS").is_some_and(|urls| !urls.is_empty());
        let is_kept = std::env::var_os("XALLOC_NAMES_CACHE").is_none_or(|choice| choice != "off");
        let find = |dir: PathBuf| Some(dir.join("debuginfod-find")).filter(|program| program.is_file());
        let path = std::env::var_os("PATH").filter(|_| has_server).unwrap_or_default();
        Places {
            debug_root: PathBuf::from("/usr/lib/debug"),
            debuginfod_find: std::env::split_paths(&path).find_map(find),
            answers: Caches::of_environment().directory().filter(|_| is_kept).map(|ours| ours.join("names")),
        }
    }

    /// The place of the debug file with this build-id: the first byte names the directory, the rest the file.
    pub(super) fn build_id_file(&self, build_id: &[u8]) -> Option<PathBuf> {
        let (first, rest) = build_id.split_first().filter(|(_, rest)| !rest.is_empty())?;
        Some(self.debug_root.join(format!(".build-id/{}/{}.debug", Hex(&[*first]), Hex(rest))))
    }
}

/// A file in memory.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) bytes: FileMap,
}

/// What was found for a module.
#[derive(Default)]
pub(super) struct Found {
    /// The module's own file.
    pub(super) binary: Option<Opened>,
    /// A separate file with debug information; `None` when the binary has its own.
    pub(super) debug: Option<Opened>,
    /// Where debug files were looked for in vain.
    pub(super) looked_for: Vec<PathBuf>,
    /// Why the binary was not found.
    pub(super) missing: Vec<Missing>,
}

/// Finds the files of `module`.
pub(super) fn locate(module: &Module, places: &Places, trail: &Trail) -> Found {
    let mut found = Found::default();
    if let Some(name) = kernel_name(&module.path) {
        found.missing.push(Missing::Kernel { name });
        return found;
    }
    match binary(module, trail) {
        Ok(opened) => found.binary = Some(opened),
        Err(missing) => found.missing.push(missing),
    }

    let image = found.binary.as_ref().and_then(|opened| Image::parse(&opened.bytes).ok());
    if image.as_ref().is_some_and(Image::has_dwarf) {
        return found;
    }
    let build_id = match &image {
        Some(image) if module.build_id.is_empty() => image.build_id(),
        Some(_) | None => &module.build_id,
    };
    let directories = directories_of(&module.path);
    let link = image.as_ref().and_then(Image::debug_link);
    let mut search = Search { build_id, places, trail, looked_for: Vec::new() };
    found.debug =
        search.by_build_id().or_else(|| search.by_link(link?, &directories)).or_else(|| search.by_debuginfod());
    found.looked_for = search.looked_for;
    found
}

/// The name of a module that the kernel maps and no file holds.
fn kernel_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let is_kernels = name.starts_with('[') || name.starts_with("linux-vdso.so") || name.starts_with("linux-gate.so");
    is_kernels.then(|| name.into_owned())
}

fn binary(module: &Module, trail: &Trail) -> Result<Opened, Missing> {
    let unreadable = |error: Error| {
        let is_gone = matches!(&error, Error::Io(error) if error.kind() == io::ErrorKind::NotFound);
        let path = module.path.clone();
        if is_gone { Missing::NoFile { path } } else { Missing::Unreadable { path, reason: error.to_string() } }
    };
    let opened = trail.open(&module.path).map_err(unreadable)?;
    let found_id = Image::parse(&opened.bytes).map_err(unreadable)?.build_id();
    if !module.build_id.is_empty() && found_id != module.build_id {
        return Err(Missing::BuildIdMismatch {
            path: module.path.clone(),
            recorded: module.build_id.clone(),
            found: found_id.to_vec(),
        });
    }
    Ok(opened)
}

/// The directory of the recorded path, and the one it leads to if that is another (`/lib` is often a link).
fn directories_of(path: &Path) -> Vec<PathBuf> {
    let given = path.parent().map(Path::to_owned);
    let real = fs::canonicalize(path).ok().and_then(|path| path.parent().map(Path::to_owned));
    let mut directories: Vec<PathBuf> = given.into_iter().chain(real).collect();
    directories.dedup();
    directories
}

/// The search for the debug file of one module.
struct Search<'a> {
    build_id: &'a [u8],
    places: &'a Places,
    trail: &'a Trail,
    looked_for: Vec<PathBuf>,
}

impl Search<'_> {
    fn by_build_id(&mut self) -> Option<Opened> {
        let path = self.places.build_id_file(self.build_id)?;
        let opened = self.open(&path);
        if opened.is_none() {
            self.looked_for.push(path);
        }
        opened
    }

    fn by_link(&mut self, (name, crc): (&[u8], u32), directories: &[PathBuf]) -> Option<Opened> {
        // A link is a file name; one with directories in it was made to lead elsewhere.
        if name.is_empty() || name.contains(&b'/') {
            return None;
        }
        let name = std::ffi::OsStr::from_bytes(name);
        for directory in directories {
            // `join` with an absolute path would forget the root.
            let below_root = self.places.debug_root.join(directory.strip_prefix("/").unwrap_or(directory));
            for path in [directory.join(name), directory.join(".debug").join(name), below_root.join(name)] {
                match self.open(&path) {
                    Some(opened) if crc32fast::hash(&opened.bytes) == crc => return Some(opened),
                    Some(_) | None => self.looked_for.push(path),
                }
            }
        }
        None
    }

    fn by_debuginfod(&self) -> Option<Opened> {
        let program = self.places.debuginfod_find.as_ref().filter(|_| !self.build_id.is_empty())?;
        // The client has its own time limit (DEBUGINFOD_TIMEOUT, 90 s) and cache, and prints the path of the cached file.
        let output = Command::new(program)
            .args(["debuginfo", &Hex(self.build_id).to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success());
        let found =
            output.and_then(|output| self.open(Path::new(std::ffi::OsStr::from_bytes(output.stdout.trim_ascii()))));
        if found.is_none() {
            // The server may know it the next time.
            self.trail.lose();
        }
        found
    }

    /// Opens a file with debug information, if it is one and its build-id does not contradict.
    fn open(&self, path: &Path) -> Option<Opened> {
        let opened = self.trail.open(path).ok()?;
        let image = Image::parse(&opened.bytes).ok()?;
        let found_id = image.build_id();
        let is_same_build = self.build_id.is_empty() || found_id.is_empty() || found_id == self.build_id;
        (is_same_build && (image.has_dwarf() || image.has_symtab())).then_some(opened)
    }
}

/// Opens the supplementary file that `image`, read from `path`, refers to.
///
/// # Errors
/// The path that it gives, when no file with the wanted build-id is found.
pub(super) fn supplementary(
    image: &Image<'_>,
    path: &Path,
    places: &Places,
    trail: &Trail,
) -> Result<Option<Opened>, PathBuf> {
    let Some((name, build_id)) = image.alt_link() else { return Ok(None) };
    let wanted = PathBuf::from(std::ffi::OsStr::from_bytes(name));
    let beside = path.parent().unwrap_or(Path::new("")).join(&wanted);
    let in_root = wanted.file_name().map(|name| places.debug_root.join(".dwz").join(name));
    [Some(beside), places.build_id_file(build_id), in_root]
        .into_iter()
        .flatten()
        .filter_map(|path| trail.open(&path).ok())
        .find(|opened| Image::parse(&opened.bytes).is_ok_and(|image| image.build_id() == build_id))
        .map(Some)
        .ok_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_modules_have_a_name_and_files_have_none() {
        assert_eq!(kernel_name(Path::new("[vdso]")), Some("[vdso]".to_owned()));
        assert_eq!(kernel_name(Path::new("linux-vdso.so.1")), Some("linux-vdso.so.1".to_owned()));
        assert_eq!(kernel_name(Path::new("/usr/lib/libc.so.6")), None);
    }

    #[test]
    fn the_build_id_directory_is_named_by_the_first_byte() {
        let places = Places { debug_root: "/d".into(), debuginfod_find: None, answers: None };
        assert_eq!(places.build_id_file(&[0xab, 0xcd, 0x0f]), Some("/d/.build-id/ab/cd0f.debug".into()));
        assert_eq!(places.build_id_file(&[0xab]), None);
        assert_eq!(places.build_id_file(&[]), None);
    }

    #[test]
    fn a_device_and_a_directory_are_no_files_to_read() {
        assert!(matches!(Trail::default().open(Path::new("/dev/null")), Err(Error::NotAFile)));
        assert!(matches!(Trail::default().open(Path::new("/")), Err(Error::NotAFile)));
    }
}
