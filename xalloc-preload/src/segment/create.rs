//! Making a segment: the file, the header, the hello.
//!
//! # Safety
//! - As for [`super`]; a header is written here before anybody knows its address.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use xalloc_core::intern;
use xalloc_core::session::{self, Header, PATH_BYTES, Refusal, SEGMENT_MAGIC, layout, segment_state};
use xalloc_core::sys::clock;
use xalloc_core::units::Stamp;
use xalloc_core::wire;

use super::{Refused, Segment, Session, install};
use crate::config::{Config, Output, PATH};
use crate::host::{self, File};
use crate::text::Text;

/// How the process came into being.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Birth {
    /// By exec.
    Exec,
    /// By the fork with this number; 0: by one that was not announced.
    Fork(u32),
}

/// Makes the process's segment and says hello. Where it cannot be made, no file is left behind.
///
/// # Safety
/// - The calling thread is booting the process, and no other thread exists that uses a former segment.
pub(crate) unsafe fn create(config: &Config, session: &Session, birth: Birth, allocator: u32) -> Result<(), Refused> {
    let pid = host::pid();
    let made = open_file(config, pid).and_then(|(file, path)| match map(&file) {
        Ok(base) => Ok((base, path)),
        Err(refused) => {
            host::remove_file(path.as_c());
            Err(refused)
        }
    });
    let (base, path) = made.inspect_err(|_| super::quarantine())?;
    // SAFETY: the mapping is new and nobody else's.
    unsafe { write_header(base, pid, birth, session, allocator) };
    let mut levels: [&'static [AtomicU32]; intern::LEVELS.len()] = [&[]; intern::LEVELS.len()];
    for (level, entries) in levels.iter_mut().enumerate() {
        let range = layout::index_level(level);
        // SAFETY: the range lies in the mapping (layout).
        let first = unsafe { base.add(range.start) };
        // SAFETY: first bullet of the parent module.
        *entries = unsafe { core::slice::from_raw_parts(first.as_ptr().cast(), range.len() / size_of::<AtomicU32>()) };
    }
    let segment = Segment {
        base,
        levels,
        path,
        control: session.control,
        control_path: session.control_path,
        stamping: Segment::stamping_of(&session.options),
        options: session.options,
        pid,
    };
    // SAFETY: by the contract.
    unsafe { install(segment) };
    if let Some(segment) = super::current() {
        // ORDERING: pairs with the recorder's Acquire load of the state: the header is complete.
        segment.header().state.store(segment_state::LIVE, Ordering::Release);
    }
    if let Some(control) = session.control {
        // ORDERING: pairs with the recorder's load: who sees the number finds the file.
        control.hellos.fetch_add(1, Ordering::Release);
        super::control::ring_doorbell(control);
    }
    Ok(())
}

fn open_file(config: &Config, pid: u32) -> Result<(File, Text<PATH>), Refused> {
    if host::file_size_limit() < layout::SEGMENT_BYTES as u64 {
        return Err(Refused::seen(Refusal::FileSize));
    }
    let made = match config.output {
        Output::Nowhere => None,
        Output::Session => new_in_session(config, pid),
        Output::File => new_as_file(config, pid),
    };
    made.ok_or_else(|| Refused::by_system(Refusal::File))
}

/// Makes the file as long as a segment, maps it where the process had its former one, and gets its first pages ready.
fn map(file: &File) -> Result<NonNull<u8>, Refused> {
    if !file.resize(layout::SEGMENT_BYTES) {
        return Err(Refused::by_system(Refusal::NoRoom));
    }
    let former = super::current().map(|segment| segment.base);
    let place = former.map_or(core::ptr::null_mut(), NonNull::as_ptr);
    // SAFETY: the place is null or the inherited segment's mapping, which nobody uses any more.
    let base = unsafe { file.map(layout::SEGMENT_BYTES, place) };
    let base = base.ok_or_else(|| Refused::by_system(Refusal::Memory))?;
    if super::reserve::reserve(base, Some(file), 0..layout::RING_HEADERS.end) {
        return Ok(base);
    }
    let refused = Refused::by_system(Refusal::NoRoom);
    if former.is_none() {
        // SAFETY: the mapping was made above, and nobody knows it.
        unsafe { host::unmap(base, layout::SEGMENT_BYTES) };
    }
    Err(refused)
}

/// Numbers of segment files that are tried: a process can be followed through that many execs.
const MOST_EXECS: u64 = 1 << 16;

fn new_in_session(config: &Config, pid: u32) -> Option<(File, Text<PATH>)> {
    for number in 0..MOST_EXECS {
        let mut path = config.place;
        path.push(b"/segment.");
        path.push_number(u64::from(pid));
        path.push(b".");
        path.push_number(number);
        if path.is_cut() {
            return None;
        }
        if let Some(file) = File::open(path.as_c(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL) {
            return Some((file, path));
        }
        if host::errno() != libc::EEXIST {
            return None;
        }
    }
    None
}

/// The file that the user named, or, if something of that name exists, be it an earlier recording or another process's,
/// one with the process id (and for a program that replaced another, a number) behind the name. Nothing is overwritten.
fn new_as_file(config: &Config, pid: u32) -> Option<(File, Text<PATH>)> {
    let mut name = Text::<PATH>::new();
    let mut rest = config.place.as_bytes();
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
        let (before, behind) = rest.split_at(at);
        name.push(before);
        name.push_number(u64::from(pid));
        rest = behind.get(2..).unwrap_or_default();
    }
    name.push(rest);
    let mut path = name;
    for number in 0..MOST_EXECS {
        if path.is_cut() {
            return None;
        }
        if let Some(file) = File::open(path.as_c(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL) {
            return Some((file, path));
        }
        if host::errno() != libc::EEXIST {
            return None;
        }
        path = name;
        path.push(b".");
        path.push_number(u64::from(pid));
        if number > 0 {
            path.push(b".");
            path.push_number(number);
        }
    }
    None
}

/// # Safety
/// - `base` is the start of a new mapping of a segment's size.
unsafe fn write_header(base: NonNull<u8>, pid: u32, birth: Birth, session: &Session, allocator: u32) {
    // SAFETY: zeroes are a valid header, and nobody else knows the mapping yet.
    let header = unsafe { base.cast::<Header>().as_mut() };
    let (birth, fork_serial) = match birth {
        Birth::Exec => (session::birth::EXEC, 0),
        Birth::Fork(serial) => (session::birth::FORK, serial),
    };
    header.magic = SEGMENT_MAGIC;
    header.version = u32::from(wire::VERSION);
    header.pid = pid;
    header.parent_pid = host::parent_pid();
    header.birth = birth;
    header.fork_serial = fork_serial;
    header.clock = session.options.clock;
    header.allocator = allocator;
    header.sample_mean_bytes = session.options.sample_mean_bytes;
    header.started_monotonic_ns = clock::monotonic_ns();
    header.started_realtime_ns = clock::realtime_ns();
    let now = if header.clock == session::clock::TSC { clock::ticks() } else { Stamp(header.started_monotonic_ns) };
    header.started = now.0;
    // Relaxed: published with the state.
    header.spill_end.store(layout::SEGMENT_BYTES as u64, Ordering::Relaxed);
    put(&mut header.libc_version, host::libc_version().to_bytes());
    host::read_link(c"/proc/self/exe", &mut header.exe[..PATH_BYTES - 1]);
    if let Some(file) = File::open(c"/proc/self/cmdline", libc::O_RDONLY) {
        file.read_at(&mut header.command[..PATH_BYTES - 2], 0);
    }
}

/// Copies what fits, and leaves a NUL behind it.
fn put(place: &mut [u8], bytes: &[u8]) {
    let room = place.len() - 1;
    for (to, from) in place.iter_mut().zip(bytes.iter().take(room)) {
        *to = *from;
    }
}

/// A number for a fork where no recorder numbers them.
pub(super) fn local_fork() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only uniqueness matters.
    FORKS.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}
