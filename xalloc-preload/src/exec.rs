//! Starting other programs: `exec` and `posix_spawn`, with an environment in which they are recorded too.
//!
//! A program may pass an environment of its own, or have cleaned the one it got. Where children are followed, the
//! variables that make this library work are put back; where they are not, or the program's loader would not get on
//! with the library ([`loader`]), they are taken out. The changed environment is made in memory of our own: the
//! program's heap must not see an allocation that it did not make, and in a child of `vfork` whatever is taken is taken
//! from the parent.
//!
//! # Safety
//! - An environment is read only once [`is_sound`] has seen that the kernel can read it: a program may pass a pointer to
//!   nowhere, and gets the kernel's answer as without us. `argv` is passed on unread.
//! - An environment that is made here is valid until the same thread makes another.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_void};
use core::ptr::{NonNull, null, null_mut};

use xalloc_core::units::PAGE_BYTES;

use crate::backend::next::call;
use crate::config::{PATH, SETTING_PREFIX, config, current_environment, each_string};
use crate::guard::{self, Access};
use crate::host;
use crate::lifecycle;
use crate::process::{say_exec, say_exec_failed};

mod loader;

/// A C array of strings.
pub(crate) type Strings = *const *const c_char;

/// What is found in an environment, and so what must be done with it.
#[derive(Clone, Copy, Default)]
struct Found {
    variables: usize,
    /// Bytes of the value of `LD_PRELOAD`.
    preload_bytes: usize,
    has_library: bool,
    /// Settings that are there as this program got them, and all that are there.
    right_settings: usize,
    settings: usize,
}

const PRELOAD: &[u8] = b"LD_PRELOAD=";

/// Whether `variable` is one of those that tell this library what to do.
fn is_setting(variable: &[u8]) -> bool {
    variable.starts_with(SETTING_PREFIX)
}

/// The names in a value of `LD_PRELOAD`: the loader splits it at colons and blanks.
fn libraries(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b':' || byte == b' ').filter(|name| !name.is_empty())
}

fn look_at(envp: Strings) -> Found {
    let mut found = Found::default();
    if envp.is_null() {
        return found;
    }
    let library = config().library.as_bytes();
    // SAFETY: by the first bullet of the module.
    unsafe {
        each_string(envp, &mut |variable| {
            found.variables += 1;
            if let Some(value) = variable.strip_prefix(PRELOAD) {
                found.preload_bytes = value.len();
                found.has_library |= libraries(value).any(|name| name == library);
            } else if is_setting(variable) {
                found.settings += 1;
                found.right_settings += usize::from(config().settings().any(|setting| setting == variable));
            }
        });
    }
    found
}

/// Whether `envp` is null, or an array of strings that can be read to its end.
fn is_sound(envp: Strings) -> bool {
    const PAGE: usize = PAGE_BYTES as usize;
    let mut seen = usize::MAX;
    let mut can_read = |address: usize| {
        let page = address / PAGE;
        let is_known = page == seen;
        seen = page;
        is_known || host::is_readable(address & !7)
    };
    if envp.is_null() {
        return true;
    }
    for at in 0.. {
        let place = envp.wrapping_add(at);
        // A pointer that is not aligned can lie across two pages.
        if !can_read(place.addr()) || !can_read(place.addr() + size_of::<usize>() - 1) {
            return false;
        }
        // SAFETY: the kernel has just read it.
        let string = unsafe { place.read_unaligned() };
        if string.is_null() {
            return true;
        }
        let mut start = string;
        loop {
            if !can_read(start.addr()) {
                return false;
            }
            let rest = PAGE - start.addr() % PAGE;
            // SAFETY: the kernel has just read of this page, and no further is looked.
            if unsafe { libc::strnlen(start, rest) } < rest {
                break;
            }
            start = start.wrapping_add(rest);
        }
    }
    true
}

/// How a program that is about to be started is named.
#[derive(Clone, Copy)]
enum Named<'a> {
    /// By a path.
    Path(&'a [u8]),
    /// By a file, which is looked for in the directories of `PATH`.
    File(&'a [u8]),
    /// By a descriptor, or in a directory that is not known here.
    Elsewhere,
}

impl<'a> Named<'a> {
    /// By a name that is a path if it has a slash, as for `execvp`; so is the empty one, which nothing has.
    fn found(name: &'a [u8]) -> Named<'a> {
        if name.is_empty() || name.contains(&b'/') { Named::Path(name) } else { Named::File(name) }
    }

    /// The same for `posix_spawn` with these actions, among which there may be a change of the directory.
    fn after(self, actions: *const c_void) -> Named<'a> {
        match self {
            Named::Path(path) if !actions.is_null() && !path.starts_with(b"/") => Named::Elsewhere,
            Named::Path(_) | Named::File(_) | Named::Elsewhere => self,
        }
    }

    /// Whether its loader would not get on with this library.
    fn refuses_library(self) -> bool {
        // A filter of system calls may not expect that a file is opened.
        if host::is_confined() {
            return false;
        }
        match self {
            Named::Path(path) => loader::refuses(path),
            Named::File(file) => loader::refuses_found(file),
            Named::Elsewhere => false,
        }
    }
}

/// The environment that a new program gets instead of `envp`.
fn adapted(program: Named, envp: Strings) -> Strings {
    // Booting finds out what is wanted, if nothing was called before.
    let access = guard::enter();
    if !lifecycle::has_session() || config().library.as_bytes().is_empty() {
        return envp;
    }
    if !is_sound(envp) {
        return envp;
    }
    let follows = lifecycle::follows_children() && !program.refuses_library();
    let found = look_at(envp);
    let count = config().settings().count();
    let is_right = if follows {
        found.has_library && found.right_settings == count
    } else {
        !found.has_library && found.settings == 0
    };
    if is_right {
        return envp;
    }
    let words = found.variables + count + 2;
    let text = PRELOAD.len() + found.preload_bytes + config().library.as_bytes().len() + config().settings_bytes() + 16;
    let Some((memory, bytes)) = scratch(access, words * size_of::<usize>() + text) else { return envp };
    let mut made = Made { memory, bytes, words: 0, text: words * size_of::<usize>() };
    made.fill(envp, follows);
    memory.as_ptr().cast::<*const c_char>().cast_const()
}

/// Memory for an environment: the thread's, kept from one time to the next, or new.
fn scratch(access: Access, bytes: usize) -> Option<(NonNull<u8>, usize)> {
    let Access::Inside(mut inside) = access else { return new_scratch(bytes) };
    let own = inside.own();
    if let Some((memory, length)) = own.exec_scratch.take() {
        if length >= bytes {
            own.exec_scratch = Some((memory, length));
            return own.exec_scratch;
        }
        // SAFETY: the mapping is this thread's, and its former environment is not used any more.
        unsafe { host::unmap(memory, length) };
    }
    own.exec_scratch = new_scratch(bytes);
    own.exec_scratch
}

fn new_scratch(bytes: usize) -> Option<(NonNull<u8>, usize)> {
    let bytes = bytes.next_multiple_of(4096);
    // SAFETY: a new mapping, wherever the kernel likes.
    Some((unsafe { host::map_anonymous(bytes, null_mut()) }?, bytes))
}

/// An environment in the making: an array of pointers at the start of the memory, text behind it.
struct Made {
    memory: NonNull<u8>,
    bytes: usize,
    words: usize,
    text: usize,
}

impl Made {
    fn fill(&mut self, envp: Strings, follows: bool) {
        let library = config().library.as_bytes();
        let mut preload = None;
        if !envp.is_null() {
            // SAFETY: by the first bullet of the module.
            unsafe {
                each_string(envp, &mut |variable| {
                    if let Some(value) = variable.strip_prefix(PRELOAD) {
                        preload = preload.or(Some((value.as_ptr(), value.len())));
                    } else if !is_setting(variable) {
                        self.pointer(variable.as_ptr().cast());
                    }
                });
            }
        }
        let value = match preload {
            // SAFETY: the string of the environment that was just seen.
            Some((start, length)) => unsafe { core::slice::from_raw_parts(start, length) },
            None => &[],
        };
        let mut others = libraries(value).filter(|name| *name != library).peekable();
        if follows || others.peek().is_some() {
            self.begin();
            self.put(PRELOAD);
            if follows {
                self.put(library);
            }
            for (number, name) in others.enumerate() {
                if follows || number > 0 {
                    self.put(b":");
                }
                self.put(name);
            }
            self.put(b"\0");
        }
        for setting in config().settings().filter(|_| follows) {
            self.begin();
            self.put(setting);
            self.put(b"\0");
        }
        self.pointer(null());
    }

    fn pointer(&mut self, string: *const c_char) {
        let place = self.memory.as_ptr().cast::<*const c_char>().wrapping_add(self.words);
        // SAFETY: the array has a word for each variable of the old environment, for the new ones, and the end.
        unsafe { place.write(string) };
        self.words += 1;
    }

    /// Starts a string, which [`Made::put`] writes.
    fn begin(&mut self) {
        self.pointer(self.memory.as_ptr().wrapping_add(self.text).cast_const().cast());
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.text + bytes.len() > self.bytes {
            return;
        }
        let place = self.memory.as_ptr().wrapping_add(self.text);
        // SAFETY: within the memory, as was just checked, and distinct from what is read.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.text += bytes.len();
    }
}

/// The bytes of a path that the program passes, up to [`PATH`] of them; none if it is no string: that is for the kernel
/// to find, which answers with an error.
fn bytes_of<'a>(path: *const c_char) -> &'a [u8] {
    if !host::is_readable_path(path) {
        return &[];
    }
    // SAFETY: the kernel has just read it up to its end, or as far as this.
    let length = unsafe { libc::strnlen(path, PATH - 1) };
    // SAFETY: as above.
    unsafe { core::slice::from_raw_parts(path.cast(), length) }
}

/// C `execve`, and `execv` with the current environment.
pub(crate) unsafe fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let name = bytes_of(path);
    let envp = adapted(Named::Path(name), envp);
    let said = say_exec(name);
    // SAFETY: the program's own arguments, and an environment like its own.
    let answer = unsafe { libc::syscall(libc::SYS_execve, path, argv, envp) as c_int };
    say_exec_failed(said);
    answer
}

/// C `execv`.
pub(crate) unsafe fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as for `execve`.
    unsafe { execve(path, argv, current_environment()) }
}

/// C `execvpe`: libc searches the path and runs scripts without an interpreter line.
pub(crate) unsafe fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let name = bytes_of(file);
    let envp = adapted(Named::found(name), envp);
    let said = say_exec(name);
    let answer = call!(execvpe as fn(*const c_char, Strings, Strings) -> c_int, (file, argv, envp), or - 1);
    say_exec_failed(said);
    answer
}

/// C `execvp`.
pub(crate) unsafe fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as for `execvpe`.
    unsafe { execvpe(file, argv, current_environment()) }
}

/// C `fexecve`.
pub(crate) unsafe fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    // libc's function answers for these itself.
    if fd < 0 || argv.is_null() || envp.is_null() {
        host::set_errno(libc::EINVAL);
        return -1;
    }
    // SAFETY: as for `execveat`.
    unsafe { execveat(fd, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) }
}

/// C `execveat`.
pub(crate) unsafe fn execveat(fd: c_int, path: *const c_char, argv: Strings, envp: Strings, flags: c_int) -> c_int {
    let name = bytes_of(path);
    let is_known = fd == libc::AT_FDCWD || name.starts_with(b"/");
    let envp = adapted(if is_known { Named::Path(name) } else { Named::Elsewhere }, envp);
    let said = say_exec(name);
    // SAFETY: the program's own arguments, and an environment like its own.
    let answer = unsafe { libc::syscall(libc::SYS_execveat, fd, path, argv, envp, flags) as c_int };
    say_exec_failed(said);
    answer
}

/// C `execl`, whose strings a stub has laid down as an array.
pub(crate) unsafe extern "C" fn on_execl(path: *const c_char, strings: Strings) -> c_int {
    // SAFETY: as for `execve`.
    unsafe { execve(path, strings, current_environment()) }
}

/// C `execlp`.
pub(crate) unsafe extern "C" fn on_execlp(file: *const c_char, strings: Strings) -> c_int {
    // SAFETY: as for `execvpe`.
    unsafe { execvpe(file, strings, current_environment()) }
}

/// C `execle`: behind the null that ends the arguments stands the environment.
pub(crate) unsafe extern "C" fn on_execle(path: *const c_char, strings: Strings) -> c_int {
    let mut end = strings;
    // SAFETY: the stub's array ends with a null pointer; the strings themselves are the kernel's to read.
    while !unsafe { end.read() }.is_null() {
        end = end.wrapping_add(1);
    }
    // By C's contract one more argument follows the null.
    let place = end.wrapping_add(1).cast::<Strings>();
    // SAFETY: as above.
    let envp = unsafe { place.read() };
    // SAFETY: as for `execve`.
    unsafe { execve(path, strings, envp) }
}

/// The type of `posix_spawn` and `posix_spawnp`, whose three middle arguments are passed on.
type SpawnArguments = (*mut libc::pid_t, *const c_char, *const c_void, *const c_void, Strings, Strings);

/// C `posix_spawn`.
pub(crate) unsafe fn posix_spawn(arguments: SpawnArguments) -> c_int {
    let (pid, path, actions, attributes, argv, envp) = arguments;
    let envp = adapted(Named::Path(bytes_of(path)).after(actions), envp);
    call!(
        posix_spawn as fn(*mut libc::pid_t, *const c_char, *const c_void, *const c_void, Strings, Strings) -> c_int,
        (pid, path, actions, attributes, argv, envp), or libc::ENOSYS
    )
}

/// C `posix_spawnp`.
pub(crate) unsafe fn posix_spawnp(arguments: SpawnArguments) -> c_int {
    let (pid, file, actions, attributes, argv, envp) = arguments;
    let envp = adapted(Named::found(bytes_of(file)).after(actions), envp);
    call!(
        posix_spawnp as fn(*mut libc::pid_t, *const c_char, *const c_void, *const c_void, Strings, Strings) -> c_int,
        (pid, file, actions, attributes, argv, envp), or libc::ENOSYS
    )
}
