//! The preload library as a file that the loader can open.
//!
//! The library is part of this binary. It is unpacked once into the user's cache under the hash of its contents and
//! checked before each use, so that a damaged or tampered cache is noticed and two versions never meet. The cache keeps
//! the versions that were used last, [`VERSIONS_KEPT`] of them: a program that runs has its library mapped, and the file's
//! removal does not touch it; only one that then execs goes on unrecorded, which takes as many upgrades within its life.
//!
//! The loader splits `LD_PRELOAD` at colons and at blanks and knows no way to quote them, so a path that contains one
//! cannot be used; the session's directory, whose name we choose, always can.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::os::cache::{self, Caches};
use crate::os::file::map_readonly;

/// The library, as the build script made and verified it.
pub static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libxalloc_preload.so"));

/// The FNV-1a hash of [`LIBRARY`], 16 hexadecimal digits, by the build script: to hash it at each start would take longer
/// than all else before the program runs. It names the contents; what protects against tampering is the comparison of all
/// bytes before use.
const HASH: &str = env!("XALLOC_LIBRARY_HASH");

/// Versions of the library that stay in the cache.
const VERSIONS_KEPT: usize = 8;

const NAME: &str = "libxalloc_preload.so";

/// Unpacks the library and returns where it is: in the user's cache, or in `session` where that cannot be used.
///
/// # Errors
/// What writing into `session` reports.
pub fn unpack(caches: &Caches, session: &Path) -> io::Result<PathBuf> {
    let cached = caches.directory().map(|caches| caches.join(HASH));
    if let Some(directory) = cached.filter(|directory| is_loadable(directory))
        && let Ok(path) = unpack_into(&directory)
    {
        // What cannot be removed costs space and nothing else.
        let _ = forget_old_versions(&directory);
        return Ok(path);
    }
    unpack_into(session)
}

/// Marks the version in `used` as used, and removes those that were used longest ago.
fn forget_old_versions(used: &Path) -> io::Result<()> {
    fs::File::open(used)?.set_modified(SystemTime::now())?;
    let Some(cache) = used.parent() else { return Ok(()) };
    let mut versions = Vec::new();
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        // Only what has the name of a version is ours to remove.
        if is_version(&entry.file_name()) {
            versions.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.iter().skip(VERSIONS_KEPT).try_for_each(|(_, old)| fs::remove_dir_all(old))
}

/// Whether a directory has the name that [`unpack`] gives.
fn is_version(name: &OsStr) -> bool {
    name.len() == 16 && name.as_bytes().iter().all(u8::is_ascii_hexdigit)
}

fn unpack_into(directory: &Path) -> io::Result<PathBuf> {
    cache::make_private(directory)?;
    let path = directory.join(NAME);
    // Mapped: a copy would cost more than the comparison.
    let present = fs::File::open(&path).and_then(|file| map_readonly(&file));
    if present.is_ok_and(|present| present[..] == *LIBRARY && !present.is_cut()) {
        return Ok(path);
    }
    cache::replace(&path, LIBRARY, 0o500)?;
    Ok(path)
}

/// Whether the loader can be given a path below this one.
#[must_use]
pub fn is_loadable(path: &Path) -> bool {
    !path.as_os_str().as_bytes().iter().any(|byte| *byte == b':' || byte.is_ascii_whitespace())
}

/// The value of `LD_PRELOAD`: ours first, then what was there.
#[must_use]
pub fn with_ours_first(library: &Path, present: Option<&OsStr>) -> OsString {
    let mut value = library.as_os_str().to_owned();
    if let Some(present) = present.filter(|present| !present.is_empty()) {
        value.push(":");
        value.push(present);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn caches(xdg: &Path) -> Caches {
        Caches { xdg: Some(xdg.to_owned()), home: None }
    }

    #[test]
    fn a_damaged_copy_in_the_cache_is_replaced_before_it_is_used() {
        let cache = tempfile::tempdir().unwrap();
        let session = tempfile::tempdir().unwrap();
        let path = unpack(&caches(cache.path()), session.path()).unwrap();
        assert!(path.starts_with(cache.path()));
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"something else").unwrap();
        assert_eq!(unpack(&caches(cache.path()), session.path()).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), LIBRARY);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn versions_that_were_not_used_for_long_go_and_nothing_else_does() {
        let cache = tempfile::tempdir().unwrap();
        let versions = cache.path().join("xalloc");
        let old = |number: u64| versions.join(format!("{number:016x}"));
        for number in 0..20 {
            fs::create_dir_all(old(number)).unwrap();
            fs::write(old(number).join(NAME), "old").unwrap();
            let used = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
            fs::File::open(old(number)).unwrap().set_modified(used).unwrap();
        }
        fs::create_dir(versions.join("of-somebody-else")).unwrap();
        let path = unpack(&caches(cache.path()), cache.path()).unwrap();
        assert!(path.exists());
        assert_eq!(fs::read_dir(&versions).unwrap().count(), VERSIONS_KEPT + 1);
        assert!(old(19).exists() && !old(12).exists() && versions.join("of-somebody-else").exists());
    }

    #[test]
    fn a_cache_that_the_loader_could_not_name_or_that_is_not_writable_is_passed_over() {
        let session = tempfile::tempdir().unwrap();
        let parent = tempfile::tempdir().unwrap();
        for unusable in [parent.path().join("my cache"), parent.path().join("a:b"), "/proc/nowhere".into()] {
            let path = unpack(&caches(&unusable), session.path()).unwrap();
            assert!(path.starts_with(session.path()), "{}", path.display());
        }
        assert!(unpack(&Caches::default(), session.path()).unwrap().starts_with(session.path()));
    }

    #[test]
    fn a_library_that_was_preloaded_already_stays_behind_ours() {
        let ours = Path::new("/x/ours.so");
        assert_eq!(with_ours_first(ours, Some(OsStr::new("/a.so:/b.so"))), "/x/ours.so:/a.so:/b.so");
        assert_eq!(with_ours_first(ours, Some(OsStr::new(""))), "/x/ours.so");
        assert_eq!(with_ours_first(ours, None), "/x/ours.so");
    }
}
