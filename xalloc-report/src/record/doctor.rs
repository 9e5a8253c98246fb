//! What would go wrong with a recording, asked before it is made.
//!
//! Each check says what was seen and, where it is not good, what to do. Nothing is changed, and no program of the user's
//! is run: what is started is `true`, to see whether the loader takes the preload.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use xalloc_core::sys::clock::ticks_are_invariant;

use super::launch::{split_assignments, value_of};
use super::preload::{Caches, unpack};
use super::session::{LEAST_FREE_BYTES, places};
use super::target::inspect;
use crate::os::pidfd::Pidfd;
use crate::os::system::{free_bytes, libc_version};
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
    let mut checks =
        vec![libc(), shared_memory(), time_stamps(), kernel(), processors(), preload(), tracing(), debug_files()];
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

fn shared_memory() -> Check {
    const SUBJECT: &str = "shared memory";
    let mebibytes = |bytes: u64| bytes >> 20;
    let place = Path::new("/dev/shm");
    match free_bytes(place) {
        Ok(free) if free >= LEAST_FREE_BYTES => {
            Check::good(SUBJECT, format!("{} MiB free in {}", mebibytes(free), place.display()))
        }
        seen => {
            let seen = match seen {
                Ok(free) => format!("{} MiB free in {}", mebibytes(free), place.display()),
                Err(error) => format!("{}: {error}", place.display()),
            };
            let fix = format!(
                "give a container {} MiB (docker run --shm-size=256m); until then {:?} are tried",
                mebibytes(LEAST_FREE_BYTES),
                places()
            );
            Check::poor(SUBJECT, seen, fix)
        }
    }
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
    let Places { debug_root, debuginfod_find } = Places::of_this_machine();
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

fn target(program: &Path, search: Option<OsString>) -> Check {
    const SUBJECT: &str = "command";
    match inspect(program, search.as_deref()) {
        Ok(target) => match target.obstacle {
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
        assert_eq!(checks.len(), 9);
        for check in &checks {
            assert!(!check.seen.is_empty(), "{check:?}");
            assert_eq!(check.fix.is_some(), check.verdict > Verdict::Good, "{check:?}");
        }
        assert_eq!(checks.last().unwrap().verdict, Verdict::Bad);
        assert_eq!(examine(&["true".into()]).last().unwrap().verdict, Verdict::Good);
        assert_eq!(examine(&[]).len(), 8);
    }
}
