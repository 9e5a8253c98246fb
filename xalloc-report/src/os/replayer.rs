//! A process that serves recorded requests by whatever allocator is loaded into it.
//!
//! xalloc-report starts itself once more with a library preloaded and two arguments that no user writes: the word
//! [`WORD`] and a file of requests. [`at_start`] sees them before `main`, before std has allocated anything, serves the
//! requests, writes what it measured to standard output and ends the process. Everything of its own lies in mappings,
//! so the allocator serves the recorded requests and, for each thread, what `pthread_create` itself asks for.
//!
//! # Why not an executable of its own
//! It would have to be built by another cargo and unpacked before use, as the preload library is, for the sake of two
//! hundred lines; and a program compiled when it is needed would need a compiler. The price of this way is one
//! comparison of an argument at each start of the program.
//!
//! # Threads
//! One thread at a time has the turn; it reads on until a request names another thread, and hands the turn over. So
//! requests are served in the recorded order, and a thread that ends has ended, with all its destructors, before the
//! next request.
//!
//! # Safety
//! - The statics are written by the main thread before a second one exists, or by the thread that has the turn. The
//!   turn is handed over by a Release store that the next one's Acquire load meets.
//! - A slot's address is null or a block that the allocator handed out and that was not freed since.
//! - libc's functions get pointers to locals or to mappings of this module, with their true lengths.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

/// The argument by which the process knows what it is.
pub const WORD: &str = "--serve-recorded-requests";
/// First word of the file, and of the answer.
pub const MAGIC: u64 = u64::from_le_bytes(*b"xaSERVE\x01");
/// Bytes of the file's header: [`MAGIC`], slots, threads, touched pages ([`touch`]), whether malloc's own calls are
/// made, number of requests; each a word.
pub const HEADER_WORDS: usize = 6;
/// Words of the answer; see [`Answer`].
pub const ANSWER_WORDS: usize = 12;

/// How much of a block is written to when it is made.
pub mod touch {
    /// A byte of every page.
    pub const ALL: u64 = 0;
    /// Its first byte.
    pub const FIRST: u64 = 1;
    /// Nothing.
    pub const NOTHING: u64 = 2;
}

/// What a request of the file asks for; the numbers are the format's.
pub mod ask {
    #![allow(missing_docs, reason = "each is the kind of request of that name")]
    pub const MALLOC: u8 = 0;
    pub const CALLOC: u8 = 1;
    pub const MEMALIGN: u8 = 2;
    pub const REALLOC_OF: u8 = 3;
    pub const REALLOC: u8 = 4;
    pub const FREE: u8 = 5;
    pub const START: u8 = 6;
    pub const EXIT: u8 = 7;
    pub const BREAK: u8 = 8;
    pub const TRIM: u8 = 9;
    pub const MALLOPT: u8 = 10;
}

/// A request in the file: 16 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ask {
    /// Bytes, or what the kind says.
    pub size: u64,
    /// The block's slot.
    pub slot: u32,
    /// The thread.
    pub thread: u16,
    /// See [`ask`].
    pub kind: u8,
    /// Logarithm of the alignment.
    pub align_log2: u8,
}

impl Ask {
    /// The 16 bytes of the file.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.thread.to_le_bytes());
        bytes[14] = self.kind;
        bytes[15] = self.align_log2;
        bytes
    }
}

/// What was measured. Bytes are those beyond what the process had before the first request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names carry unit and meaning")]
pub struct Answer {
    /// Private writable memory (virtual), sampled; what is resident where the allocator reserved it when it was loaded.
    pub peak_footprint_bytes: u64,
    pub mean_footprint_bytes: u64,
    pub end_footprint_bytes: u64,
    /// Resident memory, from the kernel's high-water mark.
    pub peak_rss_bytes: u64,
    pub end_rss_bytes: u64,
    pub page_faults: u64,
    pub duration_ns: u64,
    /// Requests that the allocator refused.
    pub refused: u64,
    pub samples: u64,
    /// Whether the file in `LD_PRELOAD` is mapped.
    pub is_preloaded: bool,
}

impl Answer {
    /// Reads the answer of the process.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Answer> {
        let mut words = [0; ANSWER_WORDS];
        if bytes.len() != size_of_val(&words) {
            return None;
        }
        for (word, eight) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(eight.try_into().ok()?);
        }
        let [magic, peak, mean, end, peak_rss, end_rss, faults, ns, refused, samples, preloaded, _] = words;
        (magic == MAGIC).then_some(Answer {
            peak_footprint_bytes: peak,
            mean_footprint_bytes: mean,
            end_footprint_bytes: end,
            peak_rss_bytes: peak_rss,
            end_rss_bytes: end_rss,
            page_faults: faults,
            duration_ns: ns,
            refused,
            samples,
            is_preloaded: preloaded != 0,
        })
    }
}

/// Called by the C library before `main`, and before std's own start.
#[used]
// SAFETY: an entry of this section is a function that the C library calls with these three arguments.
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = at_start;

extern "C" fn at_start(count: c_int, arguments: *const *const c_char, _: *const *const c_char) {
    if count != 3 {
        return;
    }
    // SAFETY: the C library passes `count` strings.
    let word = unsafe { arguments.wrapping_add(1).read() };
    // SAFETY: as above.
    if unsafe { CStr::from_ptr(word) }.to_bytes() != WORD.as_bytes() {
        return;
    }
    // SAFETY: as above.
    let path = unsafe { arguments.wrapping_add(2).read() };
    let status = match serve(path) {
        Some(answer) if write_all(1, &answer) => 0,
        Some(_) | None => 1,
    };
    // SAFETY: ends the process at once; nothing of std has begun.
    unsafe { libc::_exit(status) };
}

const PAGE: usize = 4096;
const BATCH: usize = 4096;
/// Bytes of a thread's stack: allocators are called on it.
const STACK: usize = 256 << 10;
/// Of these, what is made resident before anything is measured.
const STACK_WARM: usize = 32 << 10;
/// How often memory is looked at.
const SAMPLES: u64 = 2000;
/// After a request of this size it is looked at as well.
const LARGE: u64 = 1 << 20;

/// The state of the thread that has the turn.
struct State {
    file: c_int,
    statm: c_int,
    asks: *mut Ask,
    at: usize,
    filled: usize,
    slots: *mut Slot,
    slot_count: usize,
    threads: *mut libc::pthread_t,
    stacks: *mut u8,
    thread_count: usize,
    touches: u64,
    is_glibc: bool,
    changing: usize,
    refused: u64,
    served: u64,
    interval: u64,
    base: Memory,
    peak_footprint: u64,
    sum_footprint: u128,
    samples: u64,
    sampling_ns: u64,
    /// The thread that is to be joined, if any.
    leaving: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    block: *mut c_void,
    size: u64,
}

/// Bytes of memory as `/proc/self/statm` counts them.
#[derive(Clone, Copy, Default)]
struct Memory {
    private: u64,
    resident: u64,
    shared: u64,
}

struct Place(UnsafeCell<State>);
// SAFETY: by the first bullet of the module.
unsafe impl Sync for Place {}

static STATE: Place = Place(UnsafeCell::new(State {
    file: -1,
    statm: -1,
    asks: null_mut(),
    at: 0,
    filled: 0,
    slots: null_mut(),
    slot_count: 0,
    threads: null_mut(),
    stacks: null_mut(),
    thread_count: 0,
    touches: 0,
    is_glibc: false,
    changing: usize::MAX,
    refused: 0,
    served: 0,
    interval: 1,
    base: Memory { private: 0, resident: 0, shared: 0 },
    peak_footprint: 0,
    sum_footprint: 0,
    samples: 0,
    sampling_ns: 0,
    leaving: 0,
}));

/// Number of the thread that has the turn.
static TURN: AtomicU32 = AtomicU32::new(0);
const WAIT: c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const WAKE: c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// No thread is leaving.
const NOBODY: usize = usize::MAX;

/// A mapping of this process's own, resident at once.
fn map(bytes: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: the kernel chooses the place.
    let place = unsafe { libc::mmap(null_mut(), bytes.max(1), libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if place == libc::MAP_FAILED { null_mut() } else { place.cast() }
}

fn open(path: &CStr, flags: c_int) -> c_int {
    // SAFETY: the path is a C string.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }
}

fn write_all(file: c_int, words: &[u64; ANSWER_WORDS]) -> bool {
    // SAFETY: the array lives through the call.
    let written = unsafe { libc::write(file, words.as_ptr().cast(), size_of_val(words)) };
    written == size_of_val(words) as isize
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the local struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn page_faults() -> u64 {
    // SAFETY: all-zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes the local struct.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_minflt as u64 + usage.ru_majflt as u64
}

/// Reads the beginning of a file of `/proc`.
fn read_at_start(file: c_int, buffer: &mut [u8]) -> usize {
    // SAFETY: the buffer is writable and has that many bytes.
    let got = unsafe { libc::pread(file, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(got).unwrap_or(0)
}

/// The first number of a text.
fn number_in(text: &[u8]) -> u64 {
    let digits = text.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}

fn memory(statm: c_int) -> Memory {
    let mut buffer = [0; 128];
    let length = read_at_start(statm, &mut buffer);
    let text = buffer.get(..length).unwrap_or_default();
    let mut fields = text.split(|&byte| byte == b' ').map(|field| number_in(field) * PAGE as u64);
    let (_, resident, shared) = (fields.next(), fields.next(), fields.next());
    Memory { resident: resident.unwrap_or(0), shared: shared.unwrap_or(0), private: fields.nth(2).unwrap_or(0) }
}

/// The kernel's high-water mark of resident memory.
fn resident_peak() -> u64 {
    let file = open(c"/proc/self/status", libc::O_RDONLY);
    let mut buffer = [0; 4096];
    let length = read_at_start(file, &mut buffer);
    // SAFETY: closes what was opened above.
    unsafe { libc::close(file) };
    let text = buffer.get(..length).unwrap_or_default();
    let line = text.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"VmHWM:"));
    line.map_or(0, |line| number_in(line) * 1024)
}

/// Sets the high-water mark back to what is resident.
fn forget_resident_peak() {
    let file = open(c"/proc/self/clear_refs", libc::O_WRONLY);
    // SAFETY: one byte of a constant.
    unsafe { libc::write(file, c"5".as_ptr().cast(), 1) };
    // SAFETY: closes what was opened above.
    unsafe { libc::close(file) };
}

/// Whether a library with the name in `LD_PRELOAD` is mapped.
fn is_preloaded() -> bool {
    // SAFETY: the name is a C string; no other thread runs.
    let wanted = unsafe { libc::getenv(c"LD_PRELOAD".as_ptr()) };
    if wanted.is_null() {
        return true;
    }
    // SAFETY: an opened library is only asked for; with RTLD_NOLOAD nothing is loaded.
    !unsafe { libc::dlopen(wanted, libc::RTLD_NOLOAD | libc::RTLD_LAZY) }.is_null()
}

/// Serves the requests of the file and returns the words of the answer.
fn serve(path: *const c_char) -> Option<[u64; ANSWER_WORDS]> {
    // SAFETY: by the first bullet of the module there is no second thread yet.
    let state = unsafe { &mut *STATE.0.get() };
    // SAFETY: an argument of the process.
    state.file = open(unsafe { CStr::from_ptr(path) }, libc::O_RDONLY);
    state.statm = open(c"/proc/self/statm", libc::O_RDONLY);
    let mut header = [0_u64; HEADER_WORDS];
    // SAFETY: the array is writable and has that many bytes.
    let got = unsafe { libc::read(state.file, header.as_mut_ptr().cast(), size_of_val(&header)) };
    let [magic, slots, threads, touches, is_glibc, count] = header;
    if got != size_of_val(&header) as isize || magic != MAGIC {
        return None;
    }
    state.slot_count = slots as usize;
    state.thread_count = threads as usize;
    state.touches = touches;
    state.is_glibc = is_glibc != 0;
    state.interval = (count / SAMPLES).max(1);
    state.leaving = NOBODY;
    state.asks = map(BATCH * size_of::<Ask>()).cast();
    state.slots = map(state.slot_count * size_of::<Slot>()).cast();
    state.threads = map(state.thread_count * size_of::<libc::pthread_t>()).cast();
    state.stacks = stacks(state.thread_count);
    if state.asks.is_null() || state.slots.is_null() || state.threads.is_null() || state.stacks.is_null() {
        return None;
    }
    let preloaded = is_preloaded();
    forget_resident_peak();
    let faults = page_faults();
    state.base = memory(state.statm);
    let started_ns = now_ns();
    take_turns(0);
    let ended_ns = now_ns();
    // SAFETY: by the first bullet of the module: the turn is this thread's again, and all others wait for ever.
    let state = unsafe { &mut *STATE.0.get() };
    let end = memory(state.statm);
    let file_growth = end.shared.saturating_sub(state.base.shared);
    let marked = resident_peak().saturating_sub(state.base.resident).saturating_sub(file_growth);
    let private = state.footprint(end);
    let own = state.resident(end);
    Some([
        MAGIC,
        state.peak_footprint.max(private),
        state.sum_footprint.checked_div(state.samples.into()).unwrap_or(0) as u64,
        private,
        marked.max(own),
        own,
        page_faults().saturating_sub(faults),
        (ended_ns - started_ns).saturating_sub(state.sampling_ns),
        state.refused,
        state.samples,
        preloaded.into(),
        0,
    ])
}

/// Stacks for all threads but the main one; the upper part of each is resident.
fn stacks(threads: usize) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the place.
    let place = unsafe { libc::mmap(null_mut(), threads.max(1) * STACK, protection, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return null_mut();
    }
    let place = place.cast::<u8>();
    for thread in 1..threads {
        for offset in (0..STACK_WARM).step_by(PAGE) {
            let page = place.wrapping_add((thread + 1) * STACK - STACK_WARM + offset);
            // SAFETY: within the mapping above.
            unsafe { page.write_volatile(0) };
        }
    }
    place
}

fn wait_for_turn(me: u32) {
    loop {
        // ORDERING: pairs with the Release store in `hand_over`.
        let turn = TURN.load(Ordering::Acquire);
        if turn == me {
            return;
        }
        // SAFETY: the word is a static; the kernel compares it with `turn` before it sleeps.
        unsafe { libc::syscall(libc::SYS_futex, TURN.as_ptr(), WAIT, turn, null::<u8>()) };
    }
}

fn hand_over(to: u32) {
    // ORDERING: publishes the state; pairs with the Acquire load in `wait_for_turn`.
    TURN.store(to, Ordering::Release);
    // SAFETY: the word is a static. All are woken, for each waits for its own number.
    unsafe { libc::syscall(libc::SYS_futex, TURN.as_ptr(), WAKE, c_int::MAX) };
}

extern "C" fn thread_main(number: *mut c_void) -> *mut c_void {
    let me = number.addr() as u32;
    wait_for_turn(me);
    take_turns(me);
    null_mut()
}

/// Serves requests while they are this thread's, hands the turn over where they are not. Returns in the main thread
/// when all are served, in another one when it is to end.
fn take_turns(me: u32) {
    loop {
        // SAFETY: by the first bullet of the module this thread has the turn.
        let state = unsafe { &mut *STATE.0.get() };
        if me == 0 && state.leaving != NOBODY {
            state.join_leaving();
        }
        let Some(request) = state.peek() else {
            if me != 0 {
                hand_over(0);
                wait_for_turn(me);
                continue;
            }
            return;
        };
        let owner = state.owner_of(&request);
        if owner != me {
            hand_over(owner);
            wait_for_turn(me);
            continue;
        }
        state.at += 1;
        if request.kind == ask::EXIT && me != 0 {
            state.leaving = me as usize;
            hand_over(0);
            return;
        }
        state.carry_out(&request);
    }
}

impl State {
    /// The next request, which stays the next one.
    fn peek(&mut self) -> Option<Ask> {
        if self.at == self.filled {
            self.at = 0;
            // SAFETY: the mapping has that many bytes.
            let got = unsafe { libc::read(self.file, self.asks.cast(), BATCH * size_of::<Ask>()) };
            self.filled = usize::try_from(got).unwrap_or(0) / size_of::<Ask>();
            if self.filled == 0 {
                return None;
            }
        }
        // SAFETY: below `filled`, so the file's bytes stand there; each pattern of them is an `Ask`.
        Some(unsafe { self.asks.wrapping_add(self.at).read() })
    }

    /// The thread that serves a request: its own while that runs, else the main thread. A thread is started by the
    /// main one.
    fn owner_of(&self, request: &Ask) -> u32 {
        let thread = usize::from(request.thread);
        let is_running = thread < self.thread_count && request.kind != ask::START && self.handle(thread) != 0;
        if is_running { thread as u32 } else { 0 }
    }

    fn handle(&self, thread: usize) -> libc::pthread_t {
        // SAFETY: the caller compared with `thread_count`, the mapping's length.
        unsafe { self.threads.wrapping_add(thread).read() }
    }

    fn set_handle(&mut self, thread: usize, handle: libc::pthread_t) {
        // SAFETY: as above.
        unsafe { self.threads.wrapping_add(thread).write(handle) };
    }

    fn join_leaving(&mut self) {
        let thread = std::mem::replace(&mut self.leaving, NOBODY);
        // SAFETY: the thread was started and has given the turn up for the last time.
        unsafe { libc::pthread_join(self.handle(thread), null_mut()) };
        self.set_handle(thread, 0);
    }

    fn start(&mut self, thread: usize) {
        if thread == 0 || thread >= self.thread_count {
            return;
        }
        // SAFETY: all-zero is a valid place for an attribute that is initialised next.
        let mut attribute: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
        // SAFETY: writes the local.
        unsafe { libc::pthread_attr_init(&mut attribute) };
        let stack = self.stacks.wrapping_add(thread * STACK);
        // SAFETY: the range is this thread's part of the mapping.
        unsafe { libc::pthread_attr_setstack(&mut attribute, stack.cast(), STACK) };
        let mut handle: libc::pthread_t = 0;
        let number = std::ptr::without_provenance_mut(thread);
        // SAFETY: the function waits for its turn before it touches the state.
        if unsafe { libc::pthread_create(&mut handle, &attribute, thread_main, number) } == 0 {
            self.set_handle(thread, handle);
        } else {
            self.refused += 1;
        }
        // SAFETY: initialised above.
        unsafe { libc::pthread_attr_destroy(&mut attribute) };
    }

    fn carry_out(&mut self, request: &Ask) {
        let &Ask { size, slot, kind, align_log2, thread } = request;
        let bytes = size as usize;
        match kind {
            // SAFETY: any size may be asked for.
            ask::MALLOC => self.made(request, unsafe { libc::malloc(bytes) }),
            // SAFETY: as above.
            ask::CALLOC => self.made(request, unsafe { libc::calloc(1, bytes) }),
            ask::MEMALIGN => {
                // SAFETY: as above; the alignment is a power of two.
                let block = unsafe { libc::memalign(1 << align_log2.min(62), bytes) };
                self.made(request, block);
            }
            ask::REALLOC_OF => {
                self.changing = slot as usize;
                return;
            }
            ask::REALLOC => {
                let from = std::mem::replace(&mut self.changing, usize::MAX);
                let old = self.take(from);
                // SAFETY: by the second bullet of the module.
                let block = unsafe { libc::realloc(old.block, bytes) };
                if block.is_null() {
                    self.put(from, old);
                }
                self.made(request, block);
            }
            ask::FREE => {
                let old = self.take(slot as usize);
                // SAFETY: by the second bullet of the module.
                unsafe { libc::free(old.block) };
            }
            ask::START => self.start(usize::from(thread)),
            // SAFETY: the program moved the break so as well; allocators allow for that.
            ask::BREAK => drop(unsafe { libc::sbrk(size as isize) }.is_null()),
            // SAFETY: any padding may be asked for.
            ask::TRIM if self.is_glibc => drop(unsafe { libc::malloc_trim(bytes) }),
            // SAFETY: what is no parameter is refused.
            ask::MALLOPT if self.is_glibc => drop(unsafe { libc::mallopt(slot as c_int, size as c_int) }),
            // What another allocator has no word for, and what this version does not know.
            _ => {}
        }
        self.served += 1;
        if self.served.is_multiple_of(self.interval) || size >= LARGE {
            self.sample();
        }
    }

    fn take(&mut self, slot: usize) -> Slot {
        let none = Slot { block: null_mut(), size: 0 };
        if slot >= self.slot_count {
            return none;
        }
        // SAFETY: within the mapping.
        let found = unsafe { self.slots.wrapping_add(slot).read() };
        self.put(slot, none);
        found
    }

    fn put(&mut self, slot: usize, content: Slot) {
        if slot < self.slot_count {
            // SAFETY: within the mapping.
            unsafe { self.slots.wrapping_add(slot).write(content) };
        }
    }

    fn made(&mut self, request: &Ask, block: *mut c_void) {
        if block.is_null() {
            self.refused += 1;
            return;
        }
        self.put(request.slot as usize, Slot { block, size: request.size });
        let bytes = request.size as usize;
        let end = match self.touches {
            touch::ALL => bytes,
            touch::FIRST => bytes.min(1),
            _ => 0,
        };
        let block = block.cast::<u8>();
        let mut at = 0;
        while at < end {
            // SAFETY: within the block, which has `bytes` bytes.
            unsafe { block.wrapping_add(at).write_volatile(1) };
            // On with the first byte of the next page.
            at += PAGE - (block.addr() + at) % PAGE;
        }
    }

    /// Resident memory of no file beyond what was there before the first request.
    fn resident(&self, now: Memory) -> u64 {
        (now.resident.saturating_sub(now.shared)).saturating_sub(self.base.resident.saturating_sub(self.base.shared))
    }

    /// Private writable memory beyond what was there before the first request. Of an allocator that reserved its memory
    /// when it was loaded, that is what became resident.
    fn footprint(&self, now: Memory) -> u64 {
        now.private.saturating_sub(self.base.private).max(self.resident(now))
    }

    fn sample(&mut self) {
        let started_ns = now_ns();
        let seen = memory(self.statm);
        self.samples += 1;
        let footprint = self.footprint(seen);
        self.sum_footprint += u128::from(footprint);
        self.peak_footprint = self.peak_footprint.max(footprint);
        self.sampling_ns += now_ns() - started_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_only_whole_and_with_its_magic() {
        let mut words = [0_u64; ANSWER_WORDS];
        words[0] = MAGIC;
        words[1] = 4096;
        words[10] = 1;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let answer = Answer::from_bytes(&bytes).expect("it is whole");
        assert_eq!((answer.peak_footprint_bytes, answer.is_preloaded), (4096, true));
        assert_eq!(Answer::from_bytes(&bytes[1..]), None);
        words[0] = 1;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(Answer::from_bytes(&bytes), None);
    }
}
