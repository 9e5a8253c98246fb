//! A preloadable library that captures a stack at every allocation and compares or times it: the room `capture` in real
//! programs, without the rest of the product.
//!
//! `XCAP=compare` compares each capture with the plain walk, with the `backtrace` crate (whose engine is libgcc's), and
//! with libunwind's `unw_backtrace`, where that is installed; `XCAP=time` measures ticks of the time-stamp counter
//! around each capture. The result is appended to the file `XCAP_OUT` when the process ends.
//!
//! Built with `--profile preload` it exports `malloc`; any other profile makes an inert library for the lints' sake.
//!
//! # Safety
//! - Symbols of libc are declared as their headers do, libunwind's as its own.
//! - `STATE` is written once, by the constructor, before any thread but the first exists; the first capture follows.
//! - A thread's slab is mapped zeroed at its first capture, belongs to that thread alone, and is unmapped by the key's
//!   destructor; `busy` keeps a signal's handler out while it is borrowed.
#![allow(unsafe_code)]
#![allow(unreachable_pub, reason = "modules of the library are compiled into this crate as they are")]
#![cfg_attr(not(panic = "abort"), allow(dead_code, reason = "only the preloadable build exports anything"))]

use core::ffi::{CStr, c_int, c_void};
use core::fmt::Write;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xalloc_core::intern::{self, Counters, FrameMeaning, Node, Trie};
use xalloc_core::primitive::AtomicU32;
use xalloc_core::session::{Header, Options};
use xalloc_core::units::StackId;

#[path = "../../src"]
#[allow(dead_code, unused_imports, missing_docs, reason = "what the harness does not use, the library does")]
mod library {
    pub mod arch;
    pub mod capture;
    pub mod host;
    pub mod modules;
}
use library::{arch, capture, host, modules};

use arch::Entry;
use capture::{Shared, ThreadCapture, capture, on_dlclose};
use modules::{Announce, ModuleSeen};

unsafe extern "C" {
    fn __libc_malloc(bytes: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, bytes: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, bytes: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
}

macro_rules! stub {
    ($name:ident, $ip:literal, $sp:literal, $fp:literal, $hook:ident) => {
        #[cfg_attr(panic = "abort", unsafe(no_mangle))]
        #[unsafe(naked)]
        extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc", "endbr64",
                concat!("mov ", $ip, ", [rsp]"), concat!("lea ", $sp, ", [rsp + 8]"), concat!("mov ", $fp, ", rbp"),
                "jmp {h}", ".cfi_endproc",
                h = sym $hook)
        }
    };
}
stub!(malloc, "rsi", "rdx", "rcx", hook_malloc);
stub!(calloc, "rdx", "rcx", "r8", hook_calloc);
stub!(realloc, "rdx", "rcx", "r8", hook_realloc);
stub!(free, "rsi", "rdx", "rcx", hook_free);

stub!(xcap_probe, "rdi", "rsi", "rdx", hook_probe);

extern "C" fn hook_probe(ip: usize, sp: usize, fp: usize) {
    probe(Entry { ip, sp, fp });
}

extern "C" fn hook_malloc(bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    probe(Entry { ip, sp, fp });
    // SAFETY: first bullet.
    unsafe { __libc_malloc(bytes) }
}

extern "C" fn hook_calloc(count: usize, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    probe(Entry { ip, sp, fp });
    // SAFETY: first bullet.
    unsafe { __libc_calloc(count, bytes) }
}

extern "C" fn hook_realloc(block: *mut c_void, bytes: usize, ip: usize, sp: usize, fp: usize) -> *mut c_void {
    probe(Entry { ip, sp, fp });
    // SAFETY: first bullet.
    unsafe { __libc_realloc(block, bytes) }
}

extern "C" fn hook_free(block: *mut c_void, ip: usize, sp: usize, fp: usize) {
    probe(Entry { ip, sp, fp });
    // SAFETY: first bullet.
    unsafe { __libc_free(block) }
}

#[cfg_attr(panic = "abort", unsafe(no_mangle))]
extern "C" fn dlclose(handle: *mut c_void) -> c_int {
    // SAFETY: looks up the loader's function of this name.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlclose".as_ptr()) };
    // SAFETY: first bullet.
    let next = unsafe { core::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void) -> c_int>(next) };
    let answer = next(handle);
    if let Some(state) = state() {
        on_dlclose(&state.shared);
    }
    answer
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Compare,
    Time,
}

type UnwBacktrace = unsafe extern "C" fn(*mut u64, c_int) -> c_int;

struct State {
    shared: Shared,
    trie: Trie<'static>,
    header: &'static Header,
    mode: Mode,
    key: libc::pthread_key_t,
    libunwind: Option<UnwBacktrace>,
    overhead_ticks: u64,
}

static READY: AtomicBool = AtomicBool::new(false);
static mut STATE: MaybeUninit<State> = MaybeUninit::uninit();

#[derive(Default)]
struct Verdicts {
    compared: AtomicU64,
    equal: AtomicU64,
    oracle_shorter: AtomicU64,
    oracle_longer: AtomicU64,
    cut: AtomicU64,
    differ: AtomicU64,
}

impl Verdicts {
    const fn new() -> Verdicts {
        let [compared, equal, oracle_shorter, oracle_longer, cut, differ] = [const { AtomicU64::new(0) }; 6];
        Verdicts { compared, equal, oracle_shorter, oracle_longer, cut, differ }
    }
}

static BACKTRACE: Verdicts = Verdicts::new();
static LIBUNWIND: Verdicts = Verdicts::new();
static MODULES: AtomicU64 = AtomicU64::new(0);
static CAPTURES: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static DEPTHS_TAKEN: AtomicU64 = AtomicU64::new(0);
const BUCKET_TICKS: u64 = 8;
static HISTOGRAM: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];

fn state() -> Option<&'static State> {
    // ORDERING: pairs with the Release in `begin`.
    if !READY.load(Ordering::Acquire) {
        return None;
    }
    let place = &raw const STATE;
    // SAFETY: second bullet: nobody writes it any more.
    let place = unsafe { &*place };
    // SAFETY: second bullet: written before `READY`.
    Some(unsafe { place.assume_init_ref() })
}

#[repr(C)]
struct Slab {
    capture: ThreadCapture,
    busy: AtomicBool,
    frames: [u64; 4096],
    count: usize,
}

struct Count;

impl Announce for Count {
    fn module(&mut self, _: &ModuleSeen<'_>) {
        MODULES.fetch_add(1, Ordering::Relaxed);
    }
}

fn slab(state: &State) -> Option<&'static mut Slab> {
    // SAFETY: the key was made by the constructor.
    let known = unsafe { libc::pthread_getspecific(state.key) }.cast::<Slab>();
    let slab = if known.is_null() {
        // SAFETY: no place is asked for.
        let fresh = unsafe { host::map_anonymous(size_of::<Slab>(), core::ptr::null_mut()) }?.cast::<Slab>();
        // SAFETY: the key is one of the first 32, so nothing is allocated.
        unsafe { libc::pthread_setspecific(state.key, fresh.as_ptr().cast()) };
        fresh.as_ptr()
    } else {
        known
    };
    // SAFETY: third bullet; zeroed memory is a slab.
    let busy = unsafe { &(*slab).busy };
    if busy.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: third bullet.
    Some(unsafe { &mut *slab })
}

extern "C" fn drop_slab(slab: *mut c_void) {
    // SAFETY: third bullet; the thread makes another one if it allocates again.
    unsafe { libc::munmap(slab, size_of::<Slab>()) };
}

#[inline(always)]
fn probe(entry: Entry) {
    if let Some(state) = state() {
        let before = host::errno();
        if let Some(slab) = slab(state) {
            match state.mode {
                Mode::Compare => compare(state, slab, entry),
                Mode::Time => time(state, slab, entry),
            }
            slab.busy.store(false, Ordering::Relaxed);
        }
        host::set_errno(before);
    }
}

#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: the instructions exist on every x86-64.
    unsafe { core::arch::x86_64::_mm_lfence() };
    // SAFETY: as above.
    let ticks = unsafe { core::arch::x86_64::_rdtsc() };
    // SAFETY: as above.
    unsafe { core::arch::x86_64::_mm_lfence() };
    ticks
}

#[inline(never)]
fn time(state: &State, slab: &mut Slab, entry: Entry) {
    let start = ticks();
    let id = capture(&mut slab.capture, entry, &state.shared, &mut Count);
    let spent = (ticks() - start).saturating_sub(state.overhead_ticks);
    let count = CAPTURES.fetch_add(1, Ordering::Relaxed);
    TICKS.fetch_add(spent, Ordering::Relaxed);
    HISTOGRAM[((spent / BUCKET_TICKS) as usize).min(HISTOGRAM.len() - 1)].fetch_add(1, Ordering::Relaxed);
    if count.is_multiple_of(64) {
        FRAMES.fetch_add(chain(state.trie, id).count() as u64, Ordering::Relaxed);
        DEPTHS_TAKEN.fetch_add(1, Ordering::Relaxed);
    }
}

/// The frames of a stack, innermost first; 0 stands for the cut mark.
fn chain(trie: Trie<'static>, id: StackId) -> impl Iterator<Item = u64> {
    let mut id = id;
    core::iter::from_fn(move || {
        let (parent, word) = trie.get(id)?;
        id = parent;
        match word.meaning() {
            FrameMeaning::ReturnAddress(ip) | FrameMeaning::Interrupted(ip) => Some(ip),
            FrameMeaning::Cut | FrameMeaning::Paused => Some(0),
            FrameMeaning::Generation(_) => None,
        }
    })
}

#[inline(never)]
fn compare(state: &State, slab: &mut Slab, entry: Entry) {
    let id = capture(&mut slab.capture, entry, &state.shared, &mut Count);
    CAPTURES.fetch_add(1, Ordering::Relaxed);
    if id == StackId::UNKNOWN {
        return;
    }
    slab.count = 0;
    let note = |frame: &backtrace::Frame| {
        let place = slab.frames.get_mut(slab.count);
        let has_room = place.is_some();
        if let Some(place) = place {
            *place = frame.ip() as u64;
            slab.count += 1;
        }
        has_room
    };
    // SAFETY: libgcc's walk, which is all that the crate does here, may be made by any thread at any time.
    unsafe { backtrace::trace_unsynchronized(note) };
    let agrees = judge(state, slab, entry, id, &BACKTRACE, "backtrace", false);
    if let Some(backtrace) = state.libunwind {
        // SAFETY: first bullet; the buffer has that many words.
        let count = unsafe { backtrace(slab.frames.as_mut_ptr(), slab.frames.len() as c_int) };
        slab.count = count.max(0) as usize;
        judge(state, slab, entry, id, &LIBUNWIND, "libunwind", agrees);
    }
}

/// Counts how the oracle's frames, in the slab, compare with the stack `id`; whether they are equal.
///
/// `may_go_on`: the oracle may follow what lies beyond the root of a coroutine's stack, where libgcc ends as we do;
/// libunwind takes `rbp` for a frame pointer there.
fn judge(
    state: &State,
    slab: &Slab,
    entry: Entry,
    id: StackId,
    verdicts: &Verdicts,
    name: &str,
    may_go_on: bool,
) -> bool {
    let mut oracle = &slab.frames[..slab.count];
    while let [rest @ .., 0] = oracle {
        oracle = rest;
    }
    let Some(start) = oracle.iter().position(|&ip| ip == entry.ip as u64) else { return false };
    let oracle = &oracle[start..];
    verdicts.compared.fetch_add(1, Ordering::Relaxed);
    let mut expected = oracle.iter();
    let unequal = chain(state.trie, id).find_map(|frame| match (frame, expected.next()) {
        (0, Some(_)) => Some(&verdicts.cut),
        (0, None) => Some(&verdicts.equal),
        (_, None) => Some(&verdicts.oracle_shorter),
        (frame, Some(&ip)) if frame == ip => None,
        (_, Some(_)) => Some(&verdicts.differ),
    });
    let verdict = match unequal {
        Some(verdict) => verdict,
        None if expected.next().is_none() => &verdicts.equal,
        None if may_go_on => &verdicts.oracle_longer,
        None => &verdicts.differ,
    };
    verdict.fetch_add(1, Ordering::Relaxed);
    if core::ptr::eq(verdict, &verdicts.differ) {
        show(state, oracle, id, name);
    }
    core::ptr::eq(verdict, &verdicts.equal)
}

struct Text {
    bytes: [u8; 8192],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let place = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(core::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

impl Text {
    fn put(&self) {
        let default = c"/dev/stderr".as_ptr();
        // SAFETY: reads the environment, the name ends with a NUL.
        let named = unsafe { libc::getenv(c"XCAP_OUT".as_ptr()) };
        let path = if named.is_null() { default } else { named.cast_const() };
        // SAFETY: the path ends with a NUL.
        let fd = unsafe { libc::open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT, 0o600) };
        // SAFETY: the range is initialised.
        unsafe { libc::write(fd, self.bytes.as_ptr().cast(), self.len) };
        // SAFETY: opened above.
        unsafe { libc::close(fd) };
    }
}

static SHOWN: AtomicU64 = AtomicU64::new(0);

fn show(state: &State, oracle: &[u64], id: StackId, name: &str) {
    if SHOWN.fetch_add(1, Ordering::Relaxed) >= 3 {
        return;
    }
    let mut text = Text { bytes: [0; 8192], len: 0 };
    _ = write!(text, "difference to {name}:\n  ours  ");
    for ip in chain(state.trie, id).take(120) {
        _ = write!(text, " {ip:x}");
    }
    _ = write!(text, "\n  theirs");
    for ip in oracle.iter().take(120) {
        _ = write!(text, " {ip:x}");
    }
    _ = writeln!(text);
    text.put();
}

fn map<T>(count: usize) -> Option<&'static [T]> {
    // SAFETY: no place is asked for.
    let memory = unsafe { host::map_anonymous(count * size_of::<T>(), core::ptr::null_mut()) }?;
    // SAFETY: mapped just now, as long as is said; used for types for which zero is a value.
    Some(unsafe { core::slice::from_raw_parts(memory.cast::<T>().as_ptr(), count) })
}

fn symbol<F: Copy>(library: &CStr, name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: loads a library that the system installed.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: the handle is good.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: first bullet; of the size of a pointer.
    Some(unsafe { core::mem::transmute_copy::<*mut c_void, F>(&found) })
}

extern "C" fn begin() {
    _ = start();
}

fn start() -> Option<()> {
    // SAFETY: reads the environment.
    let mode = unsafe { libc::getenv(c"XCAP".as_ptr()) };
    if mode.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated string of the environment.
    let mode = if unsafe { CStr::from_ptr(mode) } == c"compare" { Mode::Compare } else { Mode::Time };
    let levels = [
        map::<AtomicU32>(intern::LEVELS[0])?,
        map(intern::LEVELS[1])?,
        map(intern::LEVELS[2])?,
        map(intern::LEVELS[3])?,
    ];
    let place = map::<[&'static [AtomicU32]; 4]>(1)?.as_ptr().cast_mut();
    // SAFETY: mapped just now, writable.
    unsafe { place.write(levels) };
    // SAFETY: written just now, never unmapped.
    let levels = unsafe { &*place };
    let trie = Trie::new(map::<Counters>(1)?.first()?, map::<Node>(intern::CAPACITY)?, levels);
    let header = map::<Header>(1)?.first()?;
    let compare = mode == Mode::Compare;
    let options = Options { verify_every: u32::from(compare), ..Options::new() };
    let shared = Shared::new(trie, header, &options)?;
    let mut key = 0;
    // SAFETY: the destructor takes what the key holds.
    unsafe { libc::pthread_key_create(&raw mut key, Some(drop_slab)) };
    let libunwind = if compare { symbol::<UnwBacktrace>(c"libunwind.so.8", c"unw_backtrace") } else { None };
    let overhead_ticks = (0..1000)
        .map(|_| {
            let start = ticks();
            ticks() - start
        })
        .min()
        .unwrap_or(0);
    let state = State { shared, trie, header, mode, key, libunwind, overhead_ticks };
    let place = &raw mut STATE;
    // SAFETY: second bullet.
    unsafe { place.write(MaybeUninit::new(state)) };
    // ORDERING: pairs with the Acquire in `state`.
    READY.store(true, Ordering::Release);
    Some(())
}

extern "C" fn finish() {
    let Some(state) = state() else { return };
    let mut text = Text { bytes: [0; 8192], len: 0 };
    let captures = CAPTURES.load(Ordering::Relaxed);
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr(), 0_usize, 0_usize, 0_usize) };
    let name = CStr::from_bytes_until_nul(&name).ok().and_then(|name| name.to_str().ok()).unwrap_or("?");
    _ = write!(text, "{name}: {captures} captures, {} modules, ", MODULES.load(Ordering::Relaxed));
    _ = write!(text, "{} nodes, {} cut", state.trie.end().0, state.header.cut_stacks.load(Ordering::Relaxed));
    if state.mode == Mode::Time {
        let depths = DEPTHS_TAKEN.load(Ordering::Relaxed).max(1);
        let mut seen = 0;
        let half = HISTOGRAM.iter().position(|bucket| {
            seen += bucket.load(Ordering::Relaxed);
            seen * 2 >= captures
        });
        let median = half.unwrap_or(0) as u64 * BUCKET_TICKS + BUCKET_TICKS / 2;
        let mean = TICKS.load(Ordering::Relaxed) / captures.max(1);
        _ = writeln!(
            text,
            ", depth {}.{}, median {median} ticks, mean {mean} ticks (timer's {} subtracted)",
            FRAMES.load(Ordering::Relaxed) / depths,
            FRAMES.load(Ordering::Relaxed) * 10 / depths % 10,
            state.overhead_ticks
        );
    } else {
        let (all, bad) = (&state.header.verified_stacks, &state.header.differing_stacks);
        _ = write!(
            text,
            "; plain walk {} compared {} differ",
            all.load(Ordering::Relaxed),
            bad.load(Ordering::Relaxed)
        );
        for (name, verdicts) in [("backtrace", &BACKTRACE), ("libunwind", &LIBUNWIND)] {
            let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
            _ = write!(
                text,
                "; {name} {} compared {} equal {} ended earlier {} went on {} ours cut {} differ",
                of(&verdicts.compared),
                of(&verdicts.equal),
                of(&verdicts.oracle_shorter),
                of(&verdicts.oracle_longer),
                of(&verdicts.cut),
                of(&verdicts.differ)
            );
        }
        _ = writeln!(text);
    }
    text.put();
}

#[cfg_attr(panic = "abort", used, unsafe(link_section = ".init_array"))]
static BEGIN: extern "C" fn() = begin;
#[cfg_attr(panic = "abort", used, unsafe(link_section = ".fini_array"))]
static FINISH: extern "C" fn() = finish;
