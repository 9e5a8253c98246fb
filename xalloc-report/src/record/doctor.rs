//! What would go wrong with a recording, asked before it is made.
//!
//! Each check says what was seen and, where it is not good, what to do. Nothing is changed but the cache, which a recording
//! would make too, and no program of the user's is run: what is started is `true`, to see whether the loader takes the
//! preload.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xalloc_core::session::{Refusal, layout};
use xalloc_core::sys::clock::ticks_are_invariant;

use super::launch::{split_assignments, value_of};
use super::preload::unpack;
use super::session::{LEAST_FREE_BYTES, by_preference, has_room, places, private_directory};
use super::target::inspect;
use crate::os::cache::{self, Caches};
use crate::os::pidfd::Pidfd;
use crate::os::system::{Limited, free_bytes, libc_version, limit_bytes};
use crate::symbols::Places;

/// The oldest C library that the preload loads on, as long as it is built on Debian 12: it asks for symbols of 2.34.
const LEAST_LIBC: (u32, u32) = (2, 34);

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// A recording works, but not as well as it could.
    Poor,
    /// A recording will fail.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What was looked at.
    pub subject: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Check {
    fn good(subject: &'static str, seen: impl Into<String>) -> Check {
        Check { subject, verdict: Verdict::Good, seen: seen.into(), fix: None }
    }

    fn poor(subject: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { subject, verdict: Verdict::Poor, seen: seen.into(), fix: Some(fix.into()) }
    }

    fn bad(subject: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { subject, verdict: Verdict::Bad, seen: seen.into(), fix: Some(fix.into()) }
    }
}

/// Looks at this machine, and at the command if there is one.
#[must_use]
pub fn examine(command: &[OsString]) -> Vec<Check> {
    let mut checks = vec![
        libc(),
        shared_memory(&places()),
        limits(limit_bytes(Limited::AddressSpace), limit_bytes(Limited::FileSize)),
        time_stamps(),
        kernel(),
        processors(),
        preload(),
        tracing(),
        debug_files(),
        names(Places::of_this_machine().answers.as_deref()),
    ];
    let (assignments, words) = split_assignments(command);
    if let Some(program) = words.first() {
        checks.push(target(Path::new(program), value_of("PATH", &assignments)));
    }
    checks
}

fn libc() -> Check {
    const SUBJECT: &str = "C library";
    let version = libc_version();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let (least_major, least_minor) = LEAST_LIBC;
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= LEAST_LIBC {
        Check::good(SUBJECT, format!("glibc {version}"))
    } else {
        let fix = format!("record on a system with glibc {least_major}.{least_minor} or later, or build xalloc there");
        Check::bad(SUBJECT, format!("glibc {version}"), fix)
    }
}

/// Looks for the place that a session would take.
fn shared_memory(places: &[PathBuf]) -> Check {
    const SUBJECT: &str = "shared memory";
    let first_choice = Path::new("/dev/shm");
    let wanted = format!(
        "give {} {} MiB of free space (docker run --shm-size=256m)",
        first_choice.display(),
        mebibytes(LEAST_FREE_BYTES)
    );
    let Some(place) = by_preference(places).find(|place| private_directory(place).is_ok()) else {
        let seen = format!("no directory can be made in any of {places:?}");
        return Check::bad(SUBJECT, seen, "set TMPDIR to a directory that you can write to");
    };
    let free_bytes = match free_bytes(place) {
        Ok(free) => free,
        Err(error) => return Check::poor(SUBJECT, format!("{}: {error}", place.display()), wanted),
    };
    let seen = format!("{} MiB free in {}", mebibytes(free_bytes), place.display());
    if !has_room(place) {
        let fix = format!("{wanted}, or set TMPDIR to a place that has them: what does not fit is lost");
        Check::poor(SUBJECT, seen, fix)
    } else if place != first_choice {
        Check::poor(SUBJECT, seen, format!("{wanted}: a disk is slower"))
    } else {
        Check::good(SUBJECT, seen)
    }
}

/// The limits that the program will inherit, and that a process refuses to record under.
fn limits(address_space_bytes: Option<u64>, file_bytes: Option<u64>) -> Check {
    const SUBJECT: &str = "limits";
    let needed = layout::SEGMENT_BYTES as u64;
    let is_short = |limit: Option<u64>| limit.filter(|bytes| *bytes < needed);
    if let Some(bytes) = is_short(file_bytes) {
        let seen = format!("files of {} MiB at most; the shared memory takes {}", mebibytes(bytes), mebibytes(needed));
        return Check::bad(SUBJECT, seen, Refusal::FileSize.hint());
    }
    if let Some(bytes) = is_short(address_space_bytes) {
        let seen =
            format!("{} MiB of address space at most; the shared memory takes {}", mebibytes(bytes), mebibytes(needed));
        return Check::bad(SUBJECT, seen, Refusal::Memory.hint());
    }
    match address_space_bytes {
        None => Check::good(SUBJECT, "none on address space, and files may be as large as shared memory"),
        Some(bytes) => Check::good(
            SUBJECT,
            format!("{} MiB of address space, of which a recording takes {}", mebibytes(bytes), mebibytes(needed)),
        ),
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

fn time_stamps() -> Check {
    const SUBJECT: &str = "time stamps";
    if ticks_are_invariant() {
        Check::good(SUBJECT, "the time-stamp counter runs at one rate on all cores")
    } else {
        let seen = "the time-stamp counter is not invariant (CPUID 8000_0007h, EDX bit 8), or a hypervisor hides that";
        Check::poor(SUBJECT, seen, "nothing: CLOCK_MONOTONIC is used, which costs some 20 ns more an event")
    }
}

fn kernel() -> Check {
    const SUBJECT: &str = "kernel";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match Pidfd::open(std::process::id()) {
        Ok(_) => Check::good(SUBJECT, format!("Linux {release}")),
        Err(error) => Check::poor(
            SUBJECT,
            format!("Linux {release} gives no descriptors of processes: {error}"),
            "allow pidfd_open in the seccomp profile, or use Linux 5.3 or later; until then children that end are \
             noticed at the end of the recording only",
        ),
    }
}

fn processors() -> Check {
    const SUBJECT: &str = "processors";
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => Check::poor(
            SUBJECT,
            "1: program and recorder take turns",
            "give the recording a second processor (docker run --cpus=2, taskset -c 0,1)",
        ),
        many => Check::good(SUBJECT, many.to_string()),
    }
}

/// Starts `true` with the library and listens for the loader's complaint, which does not stop the program.
fn preload() -> Check {
    const SUBJECT: &str = "preloading";
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => return Check::bad(SUBJECT, format!("no temporary directory: {error}"), "set TMPDIR"),
    };
    let library = match unpack(&Caches::of_environment(), scratch.path()) {
        Ok(library) => library,
        Err(error) => {
            return Check::bad(
                SUBJECT,
                format!("the library cannot be unpacked: {error}"),
                "set XDG_CACHE_HOME to a directory that you can write to",
            );
        }
    };
    let run = Command::new("true").env("LD_PRELOAD", &library).stdin(Stdio::null()).output();
    match run {
        Ok(output) if output.status.success() && output.stderr.is_empty() => {
            Check::good(SUBJECT, format!("the loader takes {}", library.display()))
        }
        Ok(output) => Check::bad(
            SUBJECT,
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            "mount the cache without noexec, or set XDG_CACHE_HOME to a place where libraries may be loaded from",
        ),
        Err(error) => Check::poor(SUBJECT, format!("true cannot be started: {error}"), "add /usr/bin to PATH"),
    }
}

/// Said because users of other tools ask for it.
fn tracing() -> Check {
    Check::good("ptrace", "not needed: containers and hardened kernels that deny it are no obstacle")
}

fn debug_files() -> Check {
    const SUBJECT: &str = "debug files";
    let Places { debug_root, debuginfod_find, answers: _ } = Places::of_this_machine();
    let has_build_ids = debug_root.join(".build-id").is_dir();
    match (has_build_ids, debuginfod_find) {
        (_, Some(client)) => Check::good(SUBJECT, format!("asked for with {}", client.display())),
        (true, None) => Check::good(SUBJECT, format!("in {}", debug_root.display())),
        (false, None) => Check::poor(
            SUBJECT,
            format!("none in {}, and no debuginfod client", debug_root.display()),
            "install libc6-dbg (glibc-debuginfo) for lines in libc; functions are named without",
        ),
    }
}

/// Looks at the directory that the names of functions are kept in, if they are to be kept.
fn names(kept_in: Option<&Path>) -> Check {
    const SUBJECT: &str = "names";
    let Some(directory) = kept_in else {
        return Check::good(
            SUBJECT,
            "read by each recording: XALLOC_NAMES_CACHE is off, or there is no home for a cache",
        );
    };
    match cache::make_private(directory) {
        Ok(()) => Check::good(SUBJECT, format!("kept for later recordings in {}", directory.display())),
        Err(error) => Check::poor(
            SUBJECT,
            format!("each recording reads them anew, for {} cannot be used: {error}", directory.display()),
            "set XDG_CACHE_HOME to a directory of your own that nobody else can write to",
        ),
    }
}

fn target(program: &Path, search: Option<OsString>) -> Check {
    const SUBJECT: &str = "command";
    match inspect(program, search.as_deref()) {
        Ok(target) => match target.obstacle {
            None if target.brings_malloc() => {
                let seen = format!("{} defines malloc itself: what it serves is not seen", target.binary.display());
                Check::poor(SUBJECT, seen, "build it without the allocator that is linked into it")
            }
            None if target.scripts.is_empty() => Check::good(SUBJECT, target.binary.display().to_string()),
            None => Check::good(SUBJECT, format!("{}, run by {}", target.path.display(), target.binary.display())),
            Some(obstacle) => Check::bad(SUBJECT, obstacle.to_string(), obstacle.hint()),
        },
        Err(error) => Check::bad(SUBJECT, error.to_string(), "check the spelling and PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_that_is_not_good_says_what_to_do() {
        let checks = examine(&["A=1".into(), "/no/such/program".into()]);
        assert_eq!(checks.len(), 11);
        for check in &checks {
            assert!(!check.seen.is_empty(), "{check:?}");
            assert_eq!(check.fix.is_some(), check.verdict > Verdict::Good, "{check:?}");
        }
        assert_eq!(checks.last().unwrap().verdict, Verdict::Bad);
        assert_eq!(examine(&["true".into()]).last().unwrap().verdict, Verdict::Good);
        assert_eq!(examine(&[]).len(), 10);
    }

    #[test]
    fn a_limit_is_bad_exactly_where_a_segment_does_not_fit_below_it() {
        let fits = Some(layout::SEGMENT_BYTES as u64);
        let short = Some(layout::SEGMENT_BYTES as u64 - 1);
        for good in [limits(None, None), limits(fits, fits), limits(None, fits)] {
            assert_eq!(good.verdict, Verdict::Good, "{good:?}");
        }
        for (bad, word) in [(limits(short, None), "ulimit -v"), (limits(fits, short), "ulimit -f")] {
            assert_eq!(bad.verdict, Verdict::Bad);
            assert!(bad.fix.as_ref().is_some_and(|fix| fix.contains(word)), "{bad:?}");
        }
    }

    #[test]
    fn names_are_kept_only_where_nobody_else_writes() {
        use std::os::unix::fs::PermissionsExt;
        let cache = tempfile::tempdir().unwrap();
        let directory = cache.path().join("names");
        assert_eq!(names(Some(&directory)).verdict, Verdict::Good);
        assert_eq!(names(None).verdict, Verdict::Good);
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        let open = names(Some(&directory));
        assert!(open.verdict == Verdict::Poor && open.seen.contains("somebody else"), "{open:?}");
    }

    #[test]
    fn shared_memory_is_looked_for_where_a_session_would_lie() {
        let scratch = tempfile::tempdir().unwrap();
        let missing = scratch.path().join("missing");
        assert_eq!(shared_memory(std::slice::from_ref(&missing)).verdict, Verdict::Bad);
        let found = shared_memory(&[missing, scratch.path().to_owned()]);
        assert!(found.verdict < Verdict::Bad && found.seen.contains(scratch.path().to_str().unwrap()), "{found:?}");
        assert_eq!(scratch.path().read_dir().unwrap().count(), 0, "it leaves nothing behind");
    }
}
