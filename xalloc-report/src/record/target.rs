//! Whether a program can be recorded, told from its file before it runs. What cannot is not run: a user who asked for a
//! recording waits for none that will not be.
//!
//! A library is preloaded by the dynamic loader of the program, at its pleasure: a static program has none, musl's has
//! another C library, the kernel makes it ignore us for setuid programs, a sanitizer brings its own malloc. Each of
//! these would look the same afterwards (nothing was recorded), so they are told apart here, each with what can be done.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::os::system::{has_file_capabilities, own_gid, own_uid};

mod elf;

pub use elf::Machine;

/// Longest chain of interpreters that is followed; the kernel stops after five (`BINPRM_MAX_RECURSION`, fs/exec.c).
const MOST_INTERPRETERS: usize = 5;
/// Bytes of a script's first line that the kernel reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE_BYTES: usize = 256;

/// What was found out about a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The file that the first word of the command names.
    pub path: PathBuf,
    /// The binary that runs in the end: `path`, or the interpreter of a script.
    pub binary: PathBuf,
    /// The interpreters between, outermost script first.
    pub scripts: Vec<PathBuf>,
    /// What keeps it from being recorded; `None` if nothing does.
    pub obstacle: Option<Obstacle>,
}

/// Why a program that can run cannot be recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Obstacle {
    /// No interpreter in its program headers.
    #[error("{} is statically linked: it has no dynamic loader, so LD_PRELOAD is ignored", path.display())]
    Static {
        /// The binary.
        path: PathBuf,
    },
    /// Another C library's loader.
    #[error("{} is loaded by {loader}, not by glibc", path.display())]
    ForeignLoader {
        /// The binary.
        path: PathBuf,
        /// Its interpreter.
        loader: String,
    },
    /// Another architecture.
    #[error("{} is a program for {machine}, the recorder is for x86-64", path.display())]
    OtherMachine {
        /// The binary.
        path: PathBuf,
        /// What its ELF header says.
        machine: Machine,
    },
    /// The set-user-ID or set-group-ID bit, or file capabilities.
    #[error("{} runs with {privilege}: the loader ignores libraries that its user asks for", path.display())]
    Privileged {
        /// The binary.
        path: PathBuf,
        /// Which.
        privilege: Privilege,
    },
    /// Linked with a sanitizer's runtime.
    #[error("{} is linked with {runtime}, which brings a malloc of its own", path.display())]
    Sanitizer {
        /// The binary.
        path: PathBuf,
        /// The library or symbol that shows it.
        runtime: String,
    },
    /// Neither an ELF file nor a script.
    #[error("{} is neither an ELF program nor a script with #!", path.display())]
    NoProgram {
        /// The file.
        path: PathBuf,
    },
    /// The headers are damaged.
    #[error("{} has damaged ELF headers: {seen}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        seen: String,
    },
}

/// What makes a program run with more rights than its caller's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// Mode bit 04000, and another owner than us.
    SetUserId,
    /// Mode bit 02000, and another group than ours.
    SetGroupId,
    /// `security.capability`.
    FileCapabilities,
}

impl std::fmt::Display for Privilege {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Privilege::SetUserId => "the rights of its owner (setuid)",
            Privilege::SetGroupId => "the rights of its group (setgid)",
            Privilege::FileCapabilities => "file capabilities (setcap)",
        })
    }
}

impl Target {
    /// Whether the program is linked with an allocator of its own, before which no library can put itself.
    #[must_use]
    pub fn brings_malloc(&self) -> bool {
        elf::brings_malloc(&self.binary)
    }
}

impl Obstacle {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Obstacle::Static { .. } => "link it dynamically, or use xalloc-core as its #[global_allocator]",
            Obstacle::ForeignLoader { .. } => "build it against glibc (for Rust: a target that ends in -gnu)",
            Obstacle::OtherMachine { .. } => "build it for x86-64",
            Obstacle::Privileged { .. } => {
                "record a copy of it without these rights (cp makes one), or run the recorder with them"
            }
            Obstacle::Sanitizer { .. } => "record a build without -fsanitize",
            Obstacle::NoProgram { .. } => "name the program that runs it, as in: record python3 FILE",
            Obstacle::Damaged { .. } => "build or install it again",
        }
    }
}

/// Why a command cannot even be started.
#[derive(Debug, thiserror::Error)]
pub enum NotRunnable {
    /// No such file, or none in `PATH`.
    #[error("there is no program {}", command.display())]
    NotFound {
        /// The command's first word.
        command: PathBuf,
    },
    /// A directory.
    #[error("{} is a directory", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// No execute permission.
    #[error("{} is not executable; chmod +x makes it so", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read, so nothing more is known. It may run all the same.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Looks at the program that `command` names, as a shell would find it in `search` (the value of `PATH`).
///
/// # Errors
/// [`NotRunnable`] if exec would fail, or nothing can be known.
pub fn inspect(command: &Path, search: Option<&OsStr>) -> Result<Target, NotRunnable> {
    let path = find(command, search)?;
    let mut target = Target { path: path.clone(), binary: path, scripts: Vec::new(), obstacle: None };
    for _ in 0..MOST_INTERPRETERS {
        let head = head_of(&target.binary)?;
        let Some(interpreter) = interpreter_of(&head) else {
            target.obstacle = obstacle(&target.binary);
            return Ok(target);
        };
        target.scripts.push(std::mem::replace(&mut target.binary, interpreter));
        if is_env(&target.binary)
            && let Some(program) = env_program(&head)
        {
            target.binary = find(Path::new(program), search)?;
        }
        executable(&target.binary)?;
    }
    target.obstacle = Some(Obstacle::NoProgram { path: target.path.clone() });
    Ok(target)
}

fn find(command: &Path, search: Option<&OsStr>) -> Result<PathBuf, NotRunnable> {
    if command.as_os_str().as_bytes().contains(&b'/') {
        executable(command)?;
        return Ok(command.to_owned());
    }
    let mut denied = None;
    for directory in env::split_paths(search.unwrap_or(OsStr::new("/usr/bin:/bin"))) {
        let path = directory.join(command);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(NotRunnable::NotFound { .. } | NotRunnable::Directory { .. }) => {}
            Err(error @ (NotRunnable::NotExecutable { .. } | NotRunnable::Unreadable { .. })) => denied = Some(error),
        }
    }
    Err(denied.unwrap_or_else(|| NotRunnable::NotFound { command: command.to_owned() }))
}

fn executable(path: &Path) -> Result<(), NotRunnable> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(source) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(NotRunnable::NotFound { command: path.to_owned() });
        }
        Err(source) => return Err(NotRunnable::Unreadable { path: path.to_owned(), source }),
    };
    if metadata.is_dir() {
        Err(NotRunnable::Directory { path: path.to_owned() })
    } else if metadata.permissions().mode() & 0o111 == 0 {
        Err(NotRunnable::NotExecutable { path: path.to_owned() })
    } else {
        Ok(())
    }
}

fn head_of(path: &Path) -> Result<Vec<u8>, NotRunnable> {
    let mut head = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FIRST_LINE_BYTES as u64).read_to_end(&mut head))
        .map_err(|source| NotRunnable::Unreadable { path: path.to_owned(), source })?;
    Ok(head)
}

/// The words behind `#!` in the first line.
fn shebang(head: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()))
}

fn interpreter_of(head: &[u8]) -> Option<PathBuf> {
    shebang(head)?.next().map(|word| PathBuf::from(OsStr::from_bytes(word)))
}

fn is_env(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new("env"))
}

/// The program that `env` is asked for: its first word that is neither an option nor an assignment.
fn env_program(head: &[u8]) -> Option<&OsStr> {
    shebang(head)?.skip(1).find(|word| !word.starts_with(b"-") && !word.contains(&b'=')).map(OsStr::from_bytes)
}

fn obstacle(path: &Path) -> Option<Obstacle> {
    elf::obstacle(path)
        .or_else(|| privilege(path).map(|privilege| Obstacle::Privileged { path: path.to_owned(), privilege }))
}

/// Rights that the program gains by exec. A bit that gives us nothing that we do not have is ignored by the kernel's
/// secure mode too (`AT_SECURE`): root running a setuid-root program is recorded.
fn privilege(path: &Path) -> Option<Privilege> {
    let metadata = fs::metadata(path).ok()?;
    let mode = metadata.permissions().mode();
    if mode & 0o4000 != 0 && metadata.uid() != own_uid() {
        Some(Privilege::SetUserId)
    } else if mode & 0o2000 != 0 && metadata.gid() != own_gid() {
        Some(Privilege::SetGroupId)
    } else if has_file_capabilities(path) && own_uid() != 0 {
        Some(Privilege::FileCapabilities)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
