//! The few things that the library asks of libc and the kernel, behind small functions.
//!
//! Nothing here allocates from the program's heap, and nothing takes a lock of libc's.
//!
//! # Safety
//! - `__errno_location` returns the calling thread's word, valid for the life of the thread.
//! - `syscall` is given numbers whose arguments are integers, or buffers that outlive the call and have the stated
//!   length; strings are [`CStr`]s.
//!   An argument that the kernel takes as a whole word is passed as one: of a narrower one the upper half is undefined.
//! - A mapping that is made here is placed by the kernel, unless the caller says where and answers for it.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr::NonNull;

/// Where the calling thread's errno is. It does not leave the thread.
#[derive(Clone, Copy)]
pub(crate) struct ErrnoPlace(*mut c_int);

/// Where the calling thread's errno is.
#[inline(always)]
pub(crate) fn errno_place() -> ErrnoPlace {
    // SAFETY: first bullet of the module.
    ErrnoPlace(unsafe { libc::__errno_location() })
}

/// The errno at `place`.
#[inline(always)]
pub(crate) fn errno_at(place: ErrnoPlace) -> c_int {
    // SAFETY: first bullet of the module.
    unsafe { place.0.read() }
}

/// Sets the errno at `place`.
#[inline(always)]
pub(crate) fn set_errno_at(place: ErrnoPlace, value: c_int) {
    // SAFETY: first bullet of the module.
    unsafe { place.0.write(value) };
}

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    errno_at(errno_place())
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(value: c_int) {
    set_errno_at(errno_place(), value);
}

/// Runs `work` and leaves errno as it was.
pub(crate) fn keeping_errno<R>(work: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = work();
    set_errno(before);
    result
}

/// Runs `work` while no handler can interrupt the calling thread.
pub(crate) fn without_signals<R>(work: impl FnOnce() -> R) -> R {
    let before = change_signal_mask(u64::MAX);
    let result = work();
    change_signal_mask(before);
    result
}

/// Sets which signals are blocked, bit n - 1 for signal n; returns which were. Asked of the kernel, for libc's function
/// leaves its own two signals out.
fn change_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: second bullet of the module; the kernel reads eight bytes and writes eight.
    keeping_errno(|| unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            word(libc::SIG_SETMASK),
            &raw const mask,
            &raw mut before,
            size_of::<u64>(),
        )
    });
    before
}

/// The calling process, asked of the kernel: right in a child of any kind.
pub(crate) fn pid() -> u32 {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// The calling process's parent.
pub(crate) fn parent_pid() -> u32 {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_getppid) as u32 }
}

/// The calling thread, by the kernel's number.
pub(crate) fn tid() -> u32 {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Lets another thread run.
pub(crate) fn yield_now() {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_sched_yield) };
}

/// Whether this process has a thread with this number.
pub(crate) fn is_thread(tid: u32) -> bool {
    // SAFETY: second bullet of the module; signal 0 only asks.
    unsafe { libc::syscall(libc::SYS_tgkill, pid() as c_int, tid as c_int, 0) == 0 }
}

/// The calling thread's name: up to 15 bytes and a NUL.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr(), 0_usize, 0_usize, 0_usize) };
    name
}

/// A file that is open only for the moment; closed when dropped.
pub(crate) struct File(c_int);

/// How an attempt to reserve space in a file ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reservation {
    /// Touching it cannot fail.
    Made,
    /// There is no room.
    Refused,
    /// The file system cannot reserve, or may not be asked.
    Unknown,
}

impl File {
    /// Opens `path` with `flags`, close-on-exec; a file that is made has mode 0600.
    pub(crate) fn open(path: &CStr, flags: c_int) -> Option<File> {
        let flags = flags | libc::O_CLOEXEC;
        // SAFETY: second bullet of the module.
        let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
        // Not `then_some`: a File of -1 would be closed on the spot, and errno with it.
        (fd >= 0).then(|| File(fd as c_int))
    }

    /// Sets the file's size; false: errno says why not.
    pub(crate) fn resize(&self, bytes: usize) -> bool {
        // SAFETY: second bullet of the module.
        unsafe { libc::syscall(libc::SYS_ftruncate, self.0, bytes) == 0 }
    }

    /// Reserves space, so that touching it cannot fail later.
    pub(crate) fn reserve(&self, at: usize, bytes: usize) -> Reservation {
        loop {
            // SAFETY: second bullet of the module.
            let answer = unsafe { libc::syscall(libc::SYS_fallocate, self.0, 0, at, bytes) };
            if answer == 0 {
                return Reservation::Made;
            }
            match errno() {
                // A signal ends it before it is done; what it did until then need not be done again.
                libc::EINTR => {}
                libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EIO | libc::ENOMEM => return Reservation::Refused,
                _ => return Reservation::Unknown,
            }
        }
    }

    /// Reads up to `buffer.len()` bytes from `at`.
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: usize) -> usize {
        // SAFETY: second bullet of the module.
        let got = unsafe { libc::syscall(libc::SYS_pread64, self.0, buffer.as_mut_ptr(), buffer.len(), at) };
        got.max(0) as usize
    }

    /// Writes all of `bytes` at `at`; false: the system took only part of them.
    pub(crate) fn write_at(&self, mut bytes: &[u8], mut at: u64) -> bool {
        while !bytes.is_empty() {
            // SAFETY: second bullet of the module.
            let put = unsafe { libc::syscall(libc::SYS_pwrite64, self.0, bytes.as_ptr(), bytes.len(), at) };
            if put < 0 && errno() == libc::EINTR {
                continue;
            }
            if put <= 0 {
                return false;
            }
            let Some(rest) = bytes.get(put as usize..) else { return false };
            bytes = rest;
            at += put as u64;
        }
        true
    }

    /// Whether some process holds a write lock on the file (an "open file description" lock, see `fcntl(2)`).
    pub(crate) fn is_write_locked(&self) -> bool {
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // SAFETY: second bullet of the module; F_OFD_GETLK reads and writes one `flock`.
        let answer = unsafe { libc::syscall(libc::SYS_fcntl, self.0, libc::F_OFD_GETLK, &raw mut lock) };
        answer == 0 && lock.l_type != libc::F_UNLCK as i16
    }

    /// Maps `bytes` of the file from its start, shared; over what is at `place`, if that is given.
    ///
    /// # Safety
    /// - `place` is null, or the start of a mapping of at least `bytes` that is the caller's to replace.
    pub(crate) unsafe fn map(&self, bytes: usize, writable: bool, place: *mut u8) -> Option<NonNull<u8>> {
        let rights = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
        // SAFETY: by the contract of this function.
        let at = unsafe {
            libc::syscall(
                libc::SYS_mmap,
                place,
                bytes,
                word(rights),
                word(libc::MAP_SHARED | fixed),
                word(self.0),
                0_usize,
            )
        };
        mapped(at)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: second bullet of the module; the descriptor is this value's own.
        unsafe { libc::syscall(libc::SYS_close, self.0) };
    }
}

/// Removes a file.
pub(crate) fn remove_file(path: &CStr) {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0_usize) };
}

/// Makes an empty file, without a descriptor.
pub(crate) fn make_empty_file(path: &CStr) {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_mknodat, libc::AT_FDCWD, path.as_ptr(), libc::S_IFREG | 0o600, 0_usize) };
}

/// Writes to standard error, what fits at once.
pub(crate) fn print_error(text: &[u8]) {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_write, 2, text.as_ptr(), text.len()) };
}

/// Maps `bytes` of zeroed memory of our own, for ever; over what is at `place`, if that is given.
///
/// # Safety
/// - `place` is null, or the start of a mapping of at least `bytes` that is the caller's to replace.
pub(crate) unsafe fn map_anonymous(bytes: usize, place: *mut u8) -> Option<NonNull<u8>> {
    let fixed = if place.is_null() { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: by the contract of this function.
    let made = unsafe { libc::syscall(libc::SYS_mmap, place, bytes, word(rights), word(flags), word(-1), 0_usize) };
    let made = mapped(made)?;
    own::enter(made, bytes);
    Some(made)
}

/// Makes the kernel touch every page of `place`, which changes nothing in it. False: touching one would have been a
/// SIGBUS.
///
/// The kernel adds nothing to a word of each page, as a part of waking nobody. (`MADV_POPULATE_WRITE` would do it at
/// once, but is younger than the systems that we run on.)
///
/// # Safety
/// - `bytes` from `place`, which begins at a page, are a mapping that may be written to, and stay one.
pub(crate) unsafe fn populate(place: NonNull<u8>, bytes: usize) -> bool {
    const PAGE: usize = 4096;
    // See futex(2): the operation in the top four bits, here FUTEX_OP_ADD of 0; the comparison decides on waking only.
    const ADD_NOTHING: usize = 1 << 28;
    keeping_errno(|| {
        (0..bytes).step_by(PAGE).all(|at| {
            let word = place.as_ptr().wrapping_add(at);
            // SAFETY: by the contract; the addition is atomic, so it takes no other's change back.
            let answer = unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word,
                    libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG,
                    0_usize,
                    0_usize,
                    word,
                    ADD_NOTHING,
                )
            };
            answer >= 0
        })
    })
}

/// An argument that the kernel takes as a whole word.
pub(crate) fn word(argument: c_int) -> c_long {
    c_long::from(argument)
}

fn mapped(answer: c_long) -> Option<NonNull<u8>> {
    if answer == -1 {
        return None;
    }
    NonNull::new(core::ptr::with_exposed_provenance_mut(answer as usize))
}

/// Whether the kernel can read `path` as a path: up to its NUL, or all the bytes that a path may have.
///
/// It is asked whether the file exists, which it is about to be asked anyway, and only an answer about the pointer
/// counts. (`process_vm_readv` would read without looking up anything, but filters of system calls often forbid it.)
pub(crate) fn is_readable_path(path: *const c_char) -> bool {
    keeping_errno(|| {
        // SAFETY: the kernel answers with an error where it cannot read.
        let answer = unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::F_OK) };
        answer == 0 || errno() != libc::EFAULT
    })
}

/// Whether the eight bytes at `address`, a multiple of eight, can be read.
///
/// The kernel is asked to change the mask of signals by them, in a way that it does not know: it reads them first.
pub(crate) fn is_readable(address: usize) -> bool {
    const NO_WAY: usize = usize::MAX;
    // SAFETY: the kernel answers with an error where it cannot read, and with another where it can.
    keeping_errno(|| unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, NO_WAY, address, 0_usize, 8_usize);
        errno() != libc::EFAULT
    })
}

/// Where the symbolic link at `path` points; the length, 0 if it cannot be read.
pub(crate) fn read_link(path: &CStr, target: &mut [u8]) -> usize {
    // SAFETY: second bullet of the module.
    let got = unsafe {
        libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), target.as_mut_ptr(), target.len())
    };
    got.max(0) as usize
}

/// Writes to standard error, as much as it takes at once.
pub(crate) fn write_error(text: &[u8]) {
    // SAFETY: second bullet of the module.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, text.as_ptr(), text.len()) });
}

/// Writes `message` to standard error, as libc does before it aborts, and aborts.
pub(crate) fn abort_with(message: &str) -> ! {
    for part in [message, "\n"] {
        write_error(part.as_bytes());
    }
    // SAFETY: takes nothing and does not return.
    unsafe { libc::abort() }
}

/// The calling thread's stack for signal handlers.
pub(crate) fn signal_stack() -> libc::stack_t {
    let mut stack = libc::stack_t { ss_sp: core::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: asks only, and fills the value in or leaves it.
    unsafe { libc::syscall(libc::SYS_sigaltstack, core::ptr::null::<libc::stack_t>(), &raw mut stack) };
    stack
}

/// A value of the auxiliary vector, 0 if there is none.
pub(crate) fn auxiliary(kind: u64) -> u64 {
    // SAFETY: only looks into the vector that the kernel passed.
    unsafe { libc::getauxval(kind) }
}

/// Asks the kernel to hand a forked child these pages as zeroes. False: it cannot (before Linux 4.14).
pub(crate) fn wipe_on_fork(page: *mut c_void, bytes: usize) -> bool {
    // SAFETY: changes no contents in this process.
    unsafe { libc::syscall(libc::SYS_madvise, page, bytes, libc::MADV_WIPEONFORK) == 0 }
}

impl File {
    /// The file's size; 0 if it cannot be told.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: second bullet of the module: only moves the position of this value's own descriptor.
        let end = unsafe { libc::syscall(libc::SYS_lseek, self.0, 0_usize, libc::SEEK_END) };
        end.max(0) as u64
    }
}

/// Largest size to which the process may make a file grow: beyond it the kernel sends a signal.
pub(crate) fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: second bullet of the module; prlimit64 writes one `rlimit`.
    unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_FSIZE, core::ptr::null::<libc::rlimit>(), &raw mut limit)
    };
    limit.rlim_cur
}

/// The version of the running libc ("2.36").
pub(crate) fn libc_version() -> &'static CStr {
    // SAFETY: returns a constant string of libc.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: as above.
    unsafe { CStr::from_ptr(version) }
}

/// Whether the page at `start` is mapped.
pub(crate) fn is_mapped(start: u64) -> bool {
    let mut resident = 0_u8;
    // SAFETY: second bullet of the module; mincore writes one byte a page, and asks nothing of the page.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_mincore, start, 1_usize, &raw mut resident) == 0 })
}

/// Gives a mapping back.
///
/// # Safety
/// - The mapping is the caller's, and nobody uses it any more.
pub(crate) unsafe fn unmap(memory: NonNull<u8>, bytes: usize) {
    own::forget(memory);
    // SAFETY: by the contract.
    unsafe { libc::syscall(libc::SYS_munmap, memory.as_ptr(), bytes) };
}

/// Which pages from `at` on are in memory, in the lowest bit of each byte; all of them where the kernel does not say.
pub(crate) fn residency<const PAGES: usize>(at: u64, pages: usize) -> [u8; PAGES] {
    let mut resident = [0; PAGES];
    let bytes = pages.min(PAGES) * 4096;
    // SAFETY: second bullet of the module; mincore writes one byte a page, and asks nothing of the pages.
    let answer = unsafe { libc::syscall(libc::SYS_mincore, at, bytes, resident.as_mut_ptr()) };
    if answer == 0 { resident } else { [1; PAGES] }
}

/// Sends a signal to a thread of this process.
pub(crate) fn signal_thread(tid: u32, signal: c_int) {
    // SAFETY: second bullet of the module.
    unsafe { libc::syscall(libc::SYS_tgkill, pid() as c_int, tid as c_int, signal) };
}

/// Shows the number of every thread of this process.
pub(crate) fn each_thread(mut show: impl FnMut(u32)) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let Some(directory) = File::open(c"/proc/self/task", flags) else { return };
    let mut buffer = [0_u64; 512];
    loop {
        let room = size_of_val(&buffer);
        // SAFETY: second bullet of the module.
        let got = unsafe { libc::syscall(libc::SYS_getdents64, directory.0, buffer.as_mut_ptr(), room) };
        let entries = buffer.as_ptr().cast::<u8>();
        // SAFETY: that many bytes were written to the buffer.
        let mut entries = unsafe { core::slice::from_raw_parts(entries, got.max(0) as usize) };
        if entries.is_empty() {
            return;
        }
        // linux_dirent64: inode and offset of 8 bytes each, the entry's length in 2, its type in 1, its name.
        while let Some(&[low, high]) = entries.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = entries.get(19..length).unwrap_or_default();
            let digits = name.iter().take_while(|byte| byte.is_ascii_digit());
            let tid = digits.fold(0_u32, |tid, &digit| tid.wrapping_mul(10) + u32::from(digit - b'0'));
            if tid != 0 {
                show(tid);
            }
            entries = entries.get(length.max(1)..).unwrap_or_default();
        }
    }
}

/// The anonymous mappings of this library: what is in them is none of the program's.
pub(crate) mod own {
    use core::ops::Range;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicUsize, Ordering};

    /// Mappings that are remembered: the states of 32,768 threads, and some more.
    const MOST: usize = 8192;

    static STARTS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
    static BYTES: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
    /// Entries that were ever used.
    static USED: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn enter(memory: NonNull<u8>, bytes: usize) {
        for (nth, (start, length)) in STARTS.iter().zip(&BYTES).enumerate() {
            // Relaxed, here and below: who looks at the list has stopped all others.
            if start.compare_exchange(0, memory.as_ptr() as usize, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                length.store(bytes, Ordering::Relaxed);
                USED.fetch_max(nth + 1, Ordering::Relaxed);
                return;
            }
        }
    }

    pub(super) fn forget(memory: NonNull<u8>) {
        let used = STARTS.get(..USED.load(Ordering::Relaxed)).unwrap_or(&STARTS);
        if let Some(start) = used.iter().find(|start| start.load(Ordering::Relaxed) == memory.as_ptr() as usize) {
            start.store(0, Ordering::Relaxed);
        }
    }

    /// Shows all of them.
    pub(crate) fn each(mut show: impl FnMut(Range<u64>)) {
        for (start, bytes) in STARTS.iter().zip(&BYTES).take(USED.load(Ordering::Relaxed)) {
            let start = start.load(Ordering::Relaxed) as u64;
            if start != 0 {
                show(start..start + bytes.load(Ordering::Relaxed) as u64);
            }
        }
    }
}
