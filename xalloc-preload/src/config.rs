//! What the environment asks for, read once per program image.
//!
//! `XALLOC_SESSION` names a recorder's directory and `XALLOC_OUT` a file for a recording without one; with neither the
//! library serves memory and records nothing. Without a recorder, the other `XALLOC_` variables set what its control
//! page would say. A forked child keeps what its parent read; a program that was started by exec reads anew.
//!
//! # When the environment can be read
//! libc's `environ` is null until libc has initialised itself, and a resolver of an indirect function may call `malloc`
//! before that. The kernel's copy (`/proc/self/environ`) is read then.
//!
//! # Safety
//! - `environ` is null or an array of NUL-terminated strings that ends with a null pointer. It is read while the first
//!   call into the library runs; a program that changes its environment in another thread at that moment would race
//!   with every other reader too.
//! - The statics of this room are written while the process boots, by the one thread that boots it, and only read
//!   afterwards.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};

use xalloc_core::heap::Tunables;
use xalloc_core::sampling::MOST_MEAN_BYTES;
use xalloc_core::session::{OUT_VARIABLE, Options, SESSION_VARIABLE, allocator, clock, harden, on_error, overflow};

use crate::host::{self, File};
use crate::text::Text;

/// What the names of our variables begin with.
pub(crate) const SETTING_PREFIX: &[u8] = b"XALLOC_";

/// Bytes of a path.
pub(crate) const PATH: usize = 4096;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Where the events go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Nowhere: memory is served, nothing recorded.
    Nowhere,
    /// To the recorder whose directory [`Config::place`] is.
    Session,
    /// To the file that [`Config::place`] is a pattern of.
    File,
}

/// What was asked for.
pub(crate) struct Config {
    /// Where the events go.
    pub(crate) output: Output,
    /// The directory or the file.
    pub(crate) place: Text<PATH>,
    /// Our variables, for programs that are started with another environment: each with a NUL behind it.
    settings: Text<{ 2 * PATH }>,
    /// Whether the user wants to be told on standard error why nothing is recorded, where there is no recorder to say it.
    pub(crate) is_verbose: bool,
    /// Whether `XALLOC_SAMPLE` is set to what is no size: everything is recorded then.
    is_sample_misread: bool,
    /// This library as the loader names it.
    pub(crate) library: Text<PATH>,
    /// Only without a recorder: a recorder's control page has its own.
    pub(crate) options: Options,
    /// The user's tunables of malloc.
    pub(crate) tunables: Tunables,
}

struct Place(UnsafeCell<Config>);

// SAFETY: by the second bullet of the module.
unsafe impl Sync for Place {}

static CONFIG: Place = Place(UnsafeCell::new(Config {
    output: Output::Nowhere,
    place: Text::new(),
    settings: Text::new(),
    is_verbose: false,
    is_sample_misread: false,
    library: Text::new(),
    options: Options::new(),
    tunables: Tunables::NONE,
}));

/// What was asked for; all defaults before [`read`].
pub(crate) fn config() -> &'static Config {
    // SAFETY: by the second bullet of the module nobody writes it now.
    unsafe { &*CONFIG.0.get() }
}

/// Reads the environment.
///
/// # Safety
/// - The calling thread is booting the process.
pub(crate) unsafe fn read() {
    // SAFETY: by the second bullet of the module this thread alone uses it.
    let config = unsafe { &mut *CONFIG.0.get() };
    if host::auxiliary(libc::AT_SECURE) != 0 {
        // The environment is not to be trusted: change nothing about the program, not even its allocator.
        config.options.allocator = allocator::SYSTEM;
        return;
    }
    let mut tunables_list = Text::<PATH>::new();
    each_variable(&mut |variable| {
        config.apply(variable);
        if let Some(list) = variable.strip_prefix(b"GLIBC_TUNABLES=".as_slice()) {
            tunables_list = Text::of(list);
        }
    });
    config.tunables.apply_glibc_tunables(tunables_list.as_bytes());
    config.library = library();
}

impl Config {
    /// Our variables as the program got them, `NAME=value` each.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &[u8]> {
        self.settings.as_bytes().split(|&byte| byte == 0).filter(|setting| !setting.is_empty())
    }

    /// Bytes of all of them, a NUL behind each included.
    pub(crate) fn settings_bytes(&self) -> usize {
        self.settings.as_bytes().len()
    }

    /// Tells who wants to know that more is recorded than was asked for.
    pub(crate) fn tell_misread(&self) {
        if self.is_sample_misread && self.is_verbose && self.output == Output::File {
            let mut line = Text::<256>::of(b"xalloc: process ");
            line.push_number(host::pid().into());
            line.push(b" has all its allocations recorded: XALLOC_SAMPLE is no size such as 524288 or 512KiB\n");
            host::print_error(line.as_bytes());
        }
    }

    fn apply(&mut self, variable: &[u8]) {
        self.tunables.apply_variable(variable);
        let Some(equals) = variable.iter().position(|&byte| byte == b'=') else { return };
        let (name, value) = variable.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        if variable.starts_with(SETTING_PREFIX) {
            self.settings.push(variable);
            self.settings.push(b"\0");
        }
        if name == SESSION_VARIABLE.as_bytes() {
            self.output = Output::Session;
            self.place = Text::of(value);
        } else if name == OUT_VARIABLE.as_bytes() && self.output == Output::Nowhere {
            self.output = Output::File;
            self.place = Text::of(value);
        } else if name == b"XALLOC_VERBOSE" {
            self.is_verbose = value == b"1" || value == b"yes";
        } else if name == b"XALLOC_SAMPLE" {
            let mean_bytes = bytes(value);
            self.is_sample_misread = mean_bytes.is_none();
            self.options.sample_mean_bytes = mean_bytes.map_or(0, |mean| mean.min(MOST_MEAN_BYTES.into()) as u32);
        } else if let Some(name) = name.strip_prefix(SETTING_PREFIX) {
            apply_option(&mut self.options, name, value);
        }
    }
}

/// Reads one option; a value that is none is ignored.
fn apply_option(options: &mut Options, name: &[u8], value: &[u8]) {
    let word = |choices: &[(&[u8], u32)]| choices.iter().find(|(text, _)| *text == value).map(|&(_, number)| number);
    let switch = || word(&[(b"0", 0), (b"no", 0), (b"1", 1), (b"yes", 1)]);
    let (field, number) = match name {
        b"ALLOCATOR" => {
            let choices: [(&[u8], u32); 3] =
                [(b"core", allocator::CORE), (b"system", allocator::SYSTEM), (b"auto", allocator::AUTO)];
            (&mut options.allocator, word(&choices))
        }
        b"OVERFLOW" => (&mut options.overflow, word(&[(b"wait", overflow::WAIT), (b"drop", overflow::DROP)])),
        b"CLOCK" => (&mut options.clock, word(&[(b"tsc", clock::TSC), (b"monotonic", clock::MONOTONIC)])),
        b"HARDEN" => {
            let choices: [(&[u8], u32); 4] =
                [(b"0", harden::NEVER), (b"no", harden::NEVER), (b"1", harden::ALWAYS), (b"yes", harden::ALWAYS)];
            (&mut options.harden, word(&choices))
        }
        b"ON_ERROR" => (&mut options.on_error, word(&[(b"abort", on_error::ABORT), (b"report", on_error::REPORT)])),
        b"FOLLOW" => (&mut options.follow, switch()),
        b"HEAP_STEPS" => (&mut options.heap_steps, switch()),
        b"FREE_STACKS" => (&mut options.free_stacks, switch()),
        b"DEPTH" => (&mut options.depth, number(value).map(|depth| depth.clamp(1, 1024))),
        b"VERIFY_EVERY" => (&mut options.verify_every, number(value)),
        _ => return,
    };
    if let Some(number) = number {
        *field = number;
    }
}

fn number(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// A size as options of the recorder take it, but for fractions: `4096`, `64KiB`. What 64 bits do not count is the most
/// that they do.
fn bytes(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        b"" | b"B" => 1,
        b"KiB" => 1 << 10,
        b"MiB" => 1 << 20,
        b"GiB" => 1 << 30,
        b"TiB" => 1 << 40,
        b"kB" => 1_000,
        b"MB" => 1_000_000,
        b"GB" => 1_000_000_000,
        b"TB" => 1_000_000_000_000,
        _ => return None,
    };
    let digit_of = |byte: &u8| u64::from(byte - b'0');
    let number = number.iter().fold(0_u64, |sum, byte| sum.saturating_mul(10).saturating_add(digit_of(byte)));
    (digits > 0).then(|| number.saturating_mul(factor))
}

/// Hands every `NAME=value` of the environment to `each`.
fn each_variable(each: &mut dyn FnMut(&[u8])) {
    // SAFETY: by the first bullet of the module it is a pointer, null or not.
    let strings = unsafe { environ };
    if strings.is_null() {
        return each_kernel_variable(each);
    }
    // SAFETY: by the first bullet of the module.
    unsafe { each_string(strings, each) };
}

/// Hands every string of a C array to `each`.
///
/// # Safety
/// - `strings` points to pointers to NUL-terminated strings, the last of them null.
pub(crate) unsafe fn each_string(strings: *const *const c_char, each: &mut dyn FnMut(&[u8])) {
    for at in 0.. {
        // SAFETY: by the contract, for no null was met before.
        let place = unsafe { strings.add(at) };
        // SAFETY: as above.
        let string = unsafe { place.read() };
        if string.is_null() {
            return;
        }
        // SAFETY: by the contract.
        each(unsafe { CStr::from_ptr(string) }.to_bytes());
    }
}

/// The program's current environment, as `execv` would pass it on.
pub(crate) fn current_environment() -> *const *const c_char {
    // SAFETY: by the first bullet of the module it is a pointer, null or not.
    unsafe { environ }
}

/// As [`each_variable`], from the kernel's copy; variables beyond the first 64 KiB are not seen.
fn each_kernel_variable(each: &mut dyn FnMut(&[u8])) {
    const BYTES: usize = 64 << 10;
    let Some(file) = File::open(c"/proc/self/environ", libc::O_RDONLY) else { return };
    // SAFETY: a new mapping, wherever the kernel likes.
    let Some(memory) = (unsafe { host::map_anonymous(BYTES, core::ptr::null_mut()) }) else { return };
    // SAFETY: the mapping was just made, has this length, and is nobody else's.
    let buffer = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), BYTES) };
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..) {
        match file.read_at(rest, length) {
            0 => break,
            got => length += got,
        }
    }
    for variable in buffer[..length.min(BYTES)].split(|&byte| byte == 0) {
        each(variable);
    }
}

/// The name by which the loader knows this library.
fn library() -> Text<PATH> {
    let mut info = libc::Dl_info {
        dli_fname: core::ptr::null(),
        dli_fbase: core::ptr::null_mut(),
        dli_sname: core::ptr::null(),
        dli_saddr: core::ptr::null_mut(),
    };
    let here: *const c_void = (&raw const CONFIG).cast();
    // SAFETY: fills `info` for an address of this library.
    let found: c_int = unsafe { libc::dladdr(here, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return Text::new();
    }
    // SAFETY: the loader keeps the name for as long as the library is loaded.
    Text::of(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes())
}
