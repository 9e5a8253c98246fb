//! The other engine: the requests really served, by an allocator that is loaded into a process of its own.
//!
//! What a simulated heap cannot say of an allocator whose rules are not glibc's, a run of it can: memory from the
//! kernel's own counts, page faults, time. The process is xalloc-report itself ([`crate::os::server`]).

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use xalloc_core::heap::{Tunable, Tunables};

use super::requests::{Kind, Request, Requests};
use super::settings::number;
pub use crate::os::server::Touch;
use crate::os::server::{self, Answer, Ask, Header, ask};

/// An allocator by the name that a user gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocator {
    /// As it was named.
    pub name: String,
    /// What is preloaded; the loader finds it by this name.
    library: Option<&'static str>,
    /// The package of Debian that has it.
    package: &'static str,
    /// Value of `GLIBC_TUNABLES`.
    tunables: Option<String>,
}

/// The allocators that can be named.
pub const ALLOCATORS: &str = "jemalloc, mimalloc, tcmalloc, glibc, glibc:NAME=VALUE:… with names as --set has them";

impl Allocator {
    /// The allocator of that name; `None` if there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Allocator> {
        let (library, package, tunables) = match name.split_once(':') {
            None => match name {
                "jemalloc" => (Some("libjemalloc.so.2"), "libjemalloc2", None),
                "mimalloc" => (Some("libmimalloc.so.2"), "libmimalloc2.0", None),
                "tcmalloc" => (Some("libtcmalloc_minimal.so.4"), "libtcmalloc-minimal4", None),
                "glibc" => (None, "libc6", None),
                _ => return None,
            },
            Some(("glibc", list)) => {
                let pairs: Option<Vec<_>> = list.split(':').map(tunable).collect();
                (None, "libc6", Some(pairs?.join(":")))
            }
            Some(_) => return None,
        };
        Some(Allocator { name: name.to_owned(), library, package, tunables })
    }
}

/// A word such as `top_pad=1M` as glibc reads it: it passes over names that it does not know, and units.
fn tunable(word: &str) -> Option<String> {
    let (name, value) = word.split_once('=')?;
    let tunable = Tunable::ALL.into_iter().find(|tunable| tunable.name() == name)?;
    Some(format!("glibc.malloc.{}={}", tunable.name(), number(value)?))
}

/// Why requests could not be served.
#[derive(thiserror::Error, Debug)]
pub enum ServeError {
    /// The file of requests, or the process, cannot be made.
    #[error("cannot start a process that serves the requests")]
    Start(#[source] io::Error),
    /// The library is not installed.
    #[error("the loader does not find {library}")]
    Missing {
        /// Its name.
        library: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The process gave no answer.
    #[error("the process that served the requests by {allocator} ended without an answer ({status})")]
    NoAnswer {
        /// The allocator's name.
        allocator: String,
        /// How it ended.
        status: String,
    },
}

/// Serves all requests by an allocator.
///
/// # Errors
/// [`ServeError`].
pub fn serve(requests: &Requests, allocator: &Allocator, touch: Touch) -> Result<Answer, ServeError> {
    let mut file = tempfile::NamedTempFile::new().map_err(ServeError::Start)?;
    write(requests, allocator, touch, &mut io::BufWriter::new(&mut file)).map_err(ServeError::Start)?;
    // The program's own file, under whatever name it was called and even if that was replaced meanwhile.
    let mut command = Command::new(PathBuf::from("/proc/self/exe"));
    command.arg(server::WORD).arg(file.path()).env_clear().stdin(Stdio::null());
    if let Some(library) = allocator.library {
        command.env("LD_PRELOAD", library);
    }
    match &allocator.tunables {
        Some(tunables) => command.env("GLIBC_TUNABLES", tunables),
        None => command.env("GLIBC_TUNABLES", tunables_of(&requests.tunables)),
    };
    let output = command.output().map_err(ServeError::Start)?;
    let status = output.status.to_string();
    let answer = Answer::from_bytes(&output.stdout)
        .ok_or_else(|| ServeError::NoAnswer { allocator: allocator.name.clone(), status })?;
    match allocator.library {
        Some(library) if !answer.is_preloaded => Err(ServeError::Missing { library, package: allocator.package }),
        Some(_) | None => Ok(answer),
    }
}

/// What was tuned in the recording, as `GLIBC_TUNABLES` says it.
fn tunables_of(tunables: &Tunables) -> String {
    let set = Tunable::ALL.into_iter().filter_map(|tunable| Some((tunable.name(), tunables.get(tunable)?)));
    set.map(|(name, value)| format!("glibc.malloc.{name}={value}")).collect::<Vec<_>>().join(":")
}

fn write(requests: &Requests, allocator: &Allocator, touch: Touch, out: &mut impl Write) -> io::Result<()> {
    let asks = || asks_of(requests, touch);
    let header = Header {
        slots: requests.slots.into(),
        threads: requests.threads.max(1).into(),
        touch,
        is_glibc: allocator.library.is_none(),
        requests: asks().count() as u64,
    };
    for word in header.to_words() {
        out.write_all(&word.to_le_bytes())?;
    }
    for ask in asks() {
        out.write_all(&ask.to_bytes())?;
    }
    out.flush()
}

/// All requests in the process's words, and before those of which it is known how much of the block is written to.
fn asks_of(requests: &Requests, touch: Touch) -> impl Iterator<Item = Ask> + '_ {
    let mut made = 0..;
    // The time is told to the thread that has the turn, which need not give it up for that.
    let mut last_thread = 0;
    requests.list.iter().flat_map(move |request| {
        let thread = if request.kind == Kind::Tick { last_thread } else { request.thread };
        let request = &Request { thread, ..*request };
        last_thread = request.thread;
        let number = if request.kind.obtains() { made.next() } else { None };
        let written = number.filter(|_| touch == Touch::Told).and_then(|number| requests.written.get(&number));
        let told = written.map(|&size| Ask { size, slot: 0, thread: request.thread, kind: ask::TOUCH, align_log2: 0 });
        told.into_iter().chain(ask_of(request))
    })
}

/// The request in the process's words; `None` for what only a simulation knows.
fn ask_of(request: &Request) -> Option<Ask> {
    let &Request { size, slot, thread, kind, align_log2 } = request;
    let kind = match kind {
        Kind::Malloc => ask::MALLOC,
        Kind::Calloc => ask::CALLOC,
        Kind::Memalign => ask::MEMALIGN,
        Kind::ReallocOf => ask::REALLOC_OF,
        Kind::Realloc => ask::REALLOC,
        Kind::Free => ask::FREE,
        Kind::Start => ask::START,
        Kind::Exit => ask::EXIT,
        Kind::Break => ask::BREAK,
        Kind::Trim => ask::TRIM,
        Kind::Mallopt => ask::MALLOPT,
        Kind::Tick => ask::TICK,
        Kind::Failed | Kind::ReallocFailed | Kind::Move | Kind::PoolMalloc | Kind::PoolRealloc | Kind::PoolFree => {
            return None;
        }
    };
    Some(Ask { size, slot, thread, kind, align_log2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunables_reach_glibc_in_bytes_and_what_it_would_pass_over_is_refused() {
        let tunables = |name| Allocator::named(name).and_then(|it| it.tunables);
        let both = tunables("glibc:top_pad=1M:tcache_count=0");
        assert_eq!(both.as_deref(), Some("glibc.malloc.top_pad=1048576:glibc.malloc.tcache_count=0"));
        for wrong in ["glibc:", "glibc:top_pad", "glibc:top_pda=1", "glibc:top_pad=many", "jemalloc:top_pad=1", ""] {
            assert_eq!(Allocator::named(wrong), None, "{wrong}");
        }
    }
}
